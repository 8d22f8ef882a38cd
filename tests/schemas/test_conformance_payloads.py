"""Every recorded row that a payload decides: the same answer, and the same rows in the store."""

import re
from collections import defaultdict
from datetime import UTC, datetime
from typing import Any

import msgspec
import pytest

from schemas import decode
from schemas.event import Headers, Kind
from schemas.lenient import MalformedJsonError
from schemas.refusal import Check, RefusedPayload
from schemas.rows import Counted, of_record
from tests.schemas import recorded

REQUESTS = [(name, row) for name in recorded.REQUEST_FILES for row in recorded.rows(name)]
DECIDED = [row for _, row in REQUESTS if recorded.is_about_the_payload(row)]
REFUSED_BY_SCHEMA = [row for row in DECIDED if row["response"]["body"].startswith('{"id"')]
STORED = recorded.rows("storage.jsonl")


def decoder_of(path: str) -> Any:
    words = path.strip("/").split("/")
    return {"metrics": decode.metrics, "bulk": decode.bulk, "register": decode.registration}[words[-1]]


def test_no_row_of_the_recording_is_skipped() -> None:
    lines = {name: len((recorded.FOLDER / name).read_bytes().splitlines()) for name in recorded.REQUEST_FILES}
    assert lines == {"client_metrics.jsonl": 88, "bulk_metrics.jsonl": 52, "frontend_register_misc.jsonl": 27}
    assert len(REQUESTS) == sum(lines.values())
    assert len(STORED) == 21
    not_decided = {row["case"]: row["response"]["status"] for _, row in REQUESTS if row not in DECIDED}
    assert not_decided == {
        "bad token": 401,
        "frontend token on client": 403,
        "admin token on client": 403,
        "no content-type": 415,
        "json charset latin1": 415,
        "vnd+json": 415,
        "br label": 415,
        "zstd label": 415,
        "PUT": 404,
        "HEAD": 404,
        "OPTIONS": 200,
        "bulk frontend token": 403,
        "fe backend token": 403,
        "register no auth": 401,
    }
    assert len(DECIDED) == len(REQUESTS) - len(not_decided)
    assert len(REFUSED_BY_SCHEMA) == 62


@pytest.mark.parametrize("row", DECIDED, ids=[row["case"][:60] for row in DECIDED])
def test_a_recorded_payload_is_taken_or_refused_as_recorded(row: dict[str, Any]) -> None:
    request, response = row["request"], row["response"]
    decoder = decoder_of(request["path"])
    body = recorded.body_of(request)
    if response["status"] != 400:
        decoder(body)
        return
    with pytest.raises((RefusedPayload, MalformedJsonError)) as caught:
        decoder(body)
    assert shape_of(caught.value, request["path"]) == recorded_shape(response["body"])


@pytest.mark.parametrize("row", REFUSED_BY_SCHEMA, ids=[row["case"][:60] for row in REFUSED_BY_SCHEMA])
def test_a_schema_refusal_names_the_recorded_places_and_reasons(row: dict[str, Any]) -> None:
    with pytest.raises(RefusedPayload) as caught:
        decoder_of(row["request"]["path"])(recorded.body_of(row["request"]))
    details = msgspec.json.decode(row["response"]["body"])["details"]
    assert [detail.path for detail in caught.value.details] == [detail["path"] for detail in details]
    assert [reason_of(detail.message) for detail in caught.value.details] == [
        reason_of(detail["message"]) for detail in details
    ]


def reason_of(message: str) -> str:
    """Leave out what was sent (arrays and objects are not repeated by us), free advice, and quotes."""
    return re.split(r"\. |: ", message.replace('"/', "`/").replace('" property', "` property"))[0]


def shape_of(refused: Exception, path: str) -> str:
    """What the gateway answers: its shape follows from the check and the path."""
    if isinstance(refused, MalformedJsonError):
        return "message"
    assert isinstance(refused, RefusedPayload)
    if refused.check is Check.SCHEMA:
        return "id,name,message,details"
    with_reason = "frontend" in path or path.endswith("register")
    return "name,message,details" if with_reason else "empty"


def recorded_shape(body: str) -> str:
    return ",".join(msgspec.json.decode(body)) if body else "empty"


@pytest.mark.parametrize("row", STORED, ids=[row["body"].get("appName", "?")[:40] for row in STORED])
def test_a_recorded_payload_gives_the_expected_rows(row: dict[str, Any]) -> None:
    assert row["token"] == "$BACKEND_DEV"
    headers = Headers(
        kind=Kind.METRICS,
        route="/api/client/metrics",
        project="default",
        environment="development",
        token_id="0" * 16,
        received_ms=0,
        body_hash="0" * 32,
    )
    found: dict[tuple[str, str, str], dict[str, Any]] = defaultdict(lambda: {"yes": 0, "no": 0, "variants": {}})
    for outcome in of_record(headers, msgspec.json.encode(row["body"])):
        if not isinstance(outcome, Counted):
            continue
        key = outcome.key
        assert key.app_name == row["body"]["appName"]
        hour = datetime.fromtimestamp(key.hour, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        entry = found[key.feature, key.environment, hour]
        if key.variant:
            entry["variants"][key.variant] = outcome.other
        else:
            entry["yes"], entry["no"] = outcome.yes, outcome.no
    expected = {
        (want["feature"], want["environment"], want["hour"]): {
            "yes": want["yes"],
            "no": want["no"],
            # Zero counts for a variant need not be stored (README of the recording).
            "variants": {name: count for name, count in want["variants"].items() if count},
        }
        for want in row["expected"]
    }
    assert found == expected
