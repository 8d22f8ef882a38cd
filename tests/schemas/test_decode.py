"""The two steps: strict where that suffices, lenient where it does not."""

import json
import time
from typing import Any

import msgspec
import pytest

from schemas import decode, lenient
from schemas.payloads import BulkMetrics, ClientMetrics, Registration, Toggle
from schemas.refusal import RefusedPayload

# Specification 001's own example.
EXAMPLE: dict[str, Any] = {
    "appName": "insurance-selector",
    "bucket": {
        "start": "1926-05-08T12:00:00.000Z",
        "stop": "1926-05-08T13:00:00.000Z",
        "toggles": {
            "myCoolToggle": {"yes": 25, "no": 42, "variants": {"blue": 6, "green": 15, "red": 46}},
            "myOtherToggle": {"yes": 0, "no": 100},
        },
    },
}
# Specification 002's own example.
BULK_EXAMPLE: dict[str, Any] = {
    "applications": [
        {
            "appName": "inventory-service",
            "interval": 60,
            "started": "2024-01-15T09:30:00Z",
            "strategies": ["default", "userWithId"],
        }
    ],
    "metrics": [
        {
            "appName": "inventory-service",
            "environment": "production",
            "featureName": "new-checkout-flow",
            "no": 120,
            "timestamp": "2024-01-15T09:30:00Z",
            "variants": {},
            "yes": 300,
        }
    ],
}
REGISTRATION = {"appName": "a", "interval": 15000, "started": "2026-11-22T00:00:00Z", "strategies": ["default"]}
TWENTY_FLAGS = {
    "appName": "checkout",
    "instanceId": "i-1",
    "connectionId": "5c1c8d0e-0b9f-4a53-9e43-5a1a25f7d9a1",
    "sdkVersion": "unleash-node-sdk:6.12.1",
    "platformName": "node",
    "platformVersion": "v24.1.0",
    "yggdrasilVersion": None,
    "specVersion": "5.2.2",
    "bucket": {
        "start": "2026-11-22T00:10:00.123Z",
        "stop": "2026-11-22T00:11:00.456Z",
        "toggles": {
            f"flag-{at}": {"yes": at * 31, "no": at * 7, "variants": {"blue": at, "green": at * 2, "red": at * 3}}
            for at in range(20)
        },
    },
}


@pytest.fixture
def strict_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make the lenient path a failure."""

    def refuse(body: bytes) -> Any:
        raise AssertionError("the lenient path was taken")

    for name in ("metrics", "bulk", "registration"):
        monkeypatch.setattr(lenient, name, refuse)


@pytest.mark.usefixtures("strict_only")
def test_what_sdks_send_takes_the_strict_path_alone() -> None:
    payload: dict[str, Any]
    for payload in (EXAMPLE, TWENTY_FLAGS, {"appName": "a", "bucket": None, "impactMetrics": [{}]}):
        assert isinstance(decode.metrics(json.dumps(payload).encode()), ClientMetrics)
    for payload in (BULK_EXAMPLE, {**BULK_EXAMPLE, "impactMetrics": None, "seenTokens": ["t"]}):
        assert isinstance(decode.bulk(json.dumps(payload).encode()), BulkMetrics)
    assert isinstance(decode.registration(json.dumps(REGISTRATION).encode()), Registration)


def test_the_specifications_example_decodes_to_what_it_says() -> None:
    bucket = decode.metrics(json.dumps(EXAMPLE).encode()).bucket
    assert bucket is not None
    assert bucket.toggles == {
        "myCoolToggle": Toggle(yes=25, no=42, variants={"blue": 6, "green": 15, "red": 46}),
        "myOtherToggle": Toggle(yes=0, no=100),
    }


@pytest.mark.parametrize(
    ("path", "value"),
    [("start", "x"), ("stop", "2016-12-31T23:59:60Z"), ("stop", 10**16), ("start", "2026-02-30T00:00:00Z")],
)
def test_a_date_that_the_strict_types_let_pass_is_still_looked_at(path: str, value: Any) -> None:
    with pytest.raises(RefusedPayload):
        decode.metrics(json.dumps({"appName": "a", "bucket": {**EXAMPLE["bucket"], path: value}}).encode())


@pytest.mark.parametrize(
    "body",
    [
        {**BULK_EXAMPLE, "seenTokens": None},
        {**BULK_EXAMPLE, "applications": [{"appName": "a", "interval": 60}]},
        {**BULK_EXAMPLE, "applications": [{"appName": "a", "started": 0}]},
        {**BULK_EXAMPLE, "applications": [{"appName": "a", "interval": 1, "started": "x"}]},
        {**BULK_EXAMPLE, "applications": [{"appName": "a", "interval": 1, "started": 0, "sdkType": "xx"}]},
        {**BULK_EXAMPLE, "metrics": [{"featureName": "f", "appName": "a", "environment": "e", "timestamp": None}]},
        {**BULK_EXAMPLE, "metrics": [{"featureName": "f", "appName": "a", "environment": "e", "timestamp": "x"}]},
        {**BULK_EXAMPLE, "metrics": [{"featureName": "f", "appName": "a", "environment": ""}]},
    ],
    ids=range(8),
)
def test_the_strict_path_of_bulk_takes_nothing_that_the_recording_refuses(body: Any) -> None:
    with pytest.raises(RefusedPayload):
        decode.bulk(json.dumps(body).encode())


@pytest.mark.parametrize(
    "more",
    [
        {"sdkVersion": None}, {"sdkVersion": ""}, {"interval": -1}, {"interval": 1e300}, {"started": 1e17},
        {"started": -1e300}, {"started": "x"}, {"started": None}, {"appName": ""}, {"strategies": None},
    ],
    ids=range(10),
)  # fmt: skip
def test_the_strict_path_of_registrations_takes_nothing_that_the_recording_refuses(more: dict[str, Any]) -> None:
    with pytest.raises(RefusedPayload):
        decode.registration(json.dumps({**REGISTRATION, **more}).encode())


def test_nesting_that_the_strict_path_cannot_follow_is_malformed() -> None:
    body = b'{"appName":"a","x":' + b"[" * 50_000 + b"]" * 50_000 + b"}"
    with pytest.raises(lenient.MalformedJsonError):
        decode.metrics(body)


def test_a_payload_that_was_written_again_decodes_to_itself() -> None:
    for read, payload in ((decode.metrics, TWENTY_FLAGS), (decode.bulk, BULK_EXAMPLE)):
        once = read(json.dumps(payload).encode())
        assert read(msgspec.json.encode(once)) == once


@pytest.mark.usefixtures("strict_only")
def test_twenty_flags_are_decoded_in_microseconds() -> None:
    body = json.dumps(TWENTY_FLAGS).encode()
    decode.metrics(body)
    best = min(_seconds_of(100, body) for _ in range(5)) / 100
    assert best < 200e-6  # measured 9 µs; the margin is for busy machines


def _seconds_of(times: int, body: bytes) -> float:
    began = time.perf_counter()
    for _ in range(times):
        decode.metrics(body)
    return time.perf_counter() - began


def test_the_lenient_step_is_reported_only_when_it_read_the_payload() -> None:
    taken: list[str] = []
    for body in (b'{"appName":"a"}', b'{"appName":5}', b'{"appName":[]}', b"{"):
        try:
            decode.metrics(body, on_lenient=lambda body=body: taken.append(body.decode()))  # type: ignore[misc]
        except ValueError:
            continue
    assert taken == ['{"appName":5}']
