"""Bad input through the whole stack (acceptance 6): no 500, nothing else lost, a bad row never costs its neighbours."""

import gzip
import json
import socket
import time

import psutil
import pytest

from tests.support.client import request
from tests.support.stack import Stack
from tests.support.waiting import wait_for

METRICS = "/api/client/metrics"
BULK = "/api/client/metrics/bulk"
MAX = 2**53 - 1


def window(app: str, toggles: object, **changes: object) -> dict[str, object]:
    bucket = {"start": "2026-11-22T10:00:00Z", "stop": "2026-11-22T10:59:00Z", "toggles": toggles}
    return {"appName": app, "bucket": bucket | changes}


def counted(stack: Stack, app: str) -> dict[str, tuple[int, int]]:
    found = stack.sql(
        "SELECT feature, toString(sum(yes)), toString(sum(no)) FROM evaluations "
        f"WHERE app_name = '{app}' GROUP BY feature"
    )
    return {feature: (int(yes), int(no)) for feature, yes, no in found}


def settled(stack: Stack, app: str, flags: int) -> dict[str, tuple[int, int]]:
    wait_for(lambda: len(counted(stack, app)) >= flags, what=f"the rows of {app}")
    return counted(stack, app)


def test_a_bomb_is_refused_without_growth(stack: Stack) -> None:
    bomb = gzip.compress(b" " * 500_000_000, compresslevel=9)
    gateway = stack.child("gateway")
    before = gateway.memory_info().rss
    for _ in range(3):
        answer = stack.post(METRICS, bomb, **{"Content-Encoding": "gzip"})
        assert answer.status == 413
        assert set(answer.json()) == {"message"}
    assert gateway.memory_info().rss - before < 32 * 1024**2


def test_fifty_megabytes_are_refused(stack: Stack) -> None:
    with socket.create_connection(("127.0.0.1", stack.gateway_port), timeout=20) as connection:
        head = (
            f"POST {METRICS} HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: {stack.tokens['backend']}\r\n"
            "Content-Type: application/json\r\nContent-Length: 50000000\r\n\r\n"
        )
        connection.sendall(head.encode())
        assert connection.recv(100).startswith(b"HTTP/1.1 413")


@pytest.mark.slow
def test_a_body_sent_byte_by_byte_is_cut_off_after_thirty_seconds(stack: Stack) -> None:
    body = json.dumps(window("slow", {"a": {"yes": 1}})).encode()
    began = time.monotonic()
    with socket.create_connection(("127.0.0.1", stack.gateway_port), timeout=60) as connection:
        head = (
            f"POST {METRICS} HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: {stack.tokens['backend']}\r\n"
            f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
        )
        connection.sendall(head.encode())
        connection.settimeout(1.0)
        answer = b""
        for at in range(60):
            try:
                connection.sendall(body[at : at + 1])
                answer += connection.recv(4096)
            except TimeoutError:
                continue
            except OSError:
                break
            if answer:
                break
    assert answer.startswith(b"HTTP/1.1 503")
    assert 25 < time.monotonic() - began < 35


def test_a_hundred_thousand_toggles_in_one_post_are_all_counted(stack: Stack) -> None:
    toggles = ",".join(f'"f{at:x}":{{"yes":1}}' for at in range(100_000))
    body = b'{"appName":"wide","bucket":{"start":0,"stop":3600000,"toggles":{' + toggles.encode() + b"}}}"
    assert len(body) < 2 * 1024**2
    assert stack.post(METRICS, body).status == 202
    total = "SELECT count(), sum(yes) FROM evaluations WHERE app_name = 'wide'"
    wait_for(lambda: stack.number(total) == 100_000, what="the last toggle")
    assert stack.sql(total) == [[100_000, 100_000]]


def test_one_bulk_post_over_four_thousand_months_is_stored(stack: Stack) -> None:
    entries = [
        {
            "featureName": "ages",
            "appName": "months",
            "environment": "development",
            "timestamp": f"{1900 + at // 12}-{at % 12 + 1:02}-15T12:00:00Z",
            "yes": 1,
            "no": 0,
            "variants": {},
        }
        for at in range(4000)
    ]
    assert stack.post(BULK, {"applications": [], "metrics": entries}).status == 202
    total = "SELECT count(), sum(yes), uniq(toYear(hour)) FROM evaluations WHERE app_name = 'months'"
    wait_for(lambda: stack.number(total) == 4000, what="the last month")
    assert stack.sql(total) == [[4000, 4000, 334]]


def test_odd_names_are_set_aside_and_their_neighbours_counted(stack: Stack) -> None:
    toggles = {
        "x" * 10_000: {"yes": 1},
        "nul\0": {"yes": 2},
        "": {"yes": 4},
        "\ud800 lone": {"yes": 8},
        "x" * 255: {"yes": 16},
        "fine": {"yes": 32, "variants": {"v" * 256: 1, "n\0": 1, "": 1, "kept": 5}},
        "quiet\0": {"yes": 0, "no": 0},
    }
    assert stack.post(METRICS, window("odd", toggles)).status == 202
    found = settled(stack, "odd", 3)
    assert found == {"\ufffd lone": (8, 0), "x" * 255: (16, 0), "fine": (32, 0)}
    wait_for(lambda: stack.number("SELECT count() FROM rejected WHERE app_name = 'odd'") == 5)
    reasons = dict(stack.sql("SELECT reason, toString(count()) FROM rejected WHERE app_name = 'odd' GROUP BY reason"))
    assert reasons == {"name_too_long": "2", "nul_in_name": "2", "empty_feature": "1"}
    assert stack.sql("SELECT variant, toString(count) FROM variants WHERE app_name = 'odd'") == [["kept", "5"]]


def test_the_largest_count_is_stored_and_a_larger_one_refused(stack: Stack) -> None:
    assert stack.post(METRICS, window("large", {"a": {"yes": MAX, "no": MAX}})).status == 202
    answer = stack.post(METRICS, window("large", {"b": {"yes": MAX + 1}}))
    assert (answer.status, answer.body) == (400, b"")
    assert settled(stack, "large", 1) == {"a": (MAX, MAX)}


@pytest.mark.parametrize(
    ("authorization", "status"),
    [
        (None, 401),
        ("", 401),
        ("Bearer", 401),
        ("Bearer ", 401),
        ("default:development.wrong", 401),
        ("Basic dXNlcjpwYXNz", 401),
        ("x" * 7000, 401),
        ("\u00e9\u00e8", 401),
        ("frontend", 403),
        ("admin", 403),
        ("Bearer backend", 202),
        ("bearer backend", 202),
    ],
)
def test_wrong_tokens_of_every_kind(stack: Stack, authorization: str | None, status: int) -> None:
    headers = {"Content-Type": "application/json"}
    if authorization is not None:
        for kind, text in stack.tokens.items():
            authorization = authorization.replace(kind, text)
        headers["Authorization"] = authorization
    body = json.dumps(window("tokens", {})).encode()
    assert request("POST", stack.gateway + METRICS, headers=headers, body=body).status == status


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"null",
        b"[]",
        b'"',
        b"{",
        b"\xff\xfe\x00",
        b"[" * 100_000,
        b'{"a":' * 50_000,
        b'{"appName":"x","bucket":{"start":0,"stop":0,"toggles":{"a":{"yes":' + b"9" * 100_000 + b"}}}}",
        b'{"appName":"x","bucket":{"start":0,"stop":0,"toggles":{"a":{"yes":1e999}}}}',
        b'{"appName":"x","bucket":{"start":0,"stop":0,"toggles":{"a":{"yes":NaN}}}}',
        b'{"appName":{"$gt":""},"bucket":null}',
    ],
    ids=range(12),
)
@pytest.mark.parametrize("path", [METRICS, BULK, "/api/client/register"])
def test_nonsense_is_refused_with_400(stack: Stack, path: str, body: bytes) -> None:
    assert stack.post(path, body).status == 400


def test_after_all_that_the_stack_is_well(stack: Stack) -> None:
    assert stack.post(METRICS, window("after", {"a": {"yes": 3}})).status == 202
    assert settled(stack, "after", 1) == {"a": (3, 0)}
    for service in ("gateway", "aggregator", "query-api"):
        assert stack.ready(service)
        assert isinstance(stack.child(service), psutil.Process)
    assert "Traceback" not in stack.logged()
