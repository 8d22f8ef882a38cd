"""Every recorded request, sent to a real gateway on a real SQLite broker over a raw connection."""

import base64
import json
from pathlib import Path
from typing import Any

import pytest

from tests.ingest_gateway import support

ROWS = Path(__file__).parent.parent / "conformance" / "unleash"
EXPECTED = {"client_metrics": 88, "bulk_metrics": 52, "frontend_register_misc": 27}
TOKENS = {
    "$BACKEND_DEV": support.BACKEND_DEV,
    "$BACKEND_PROD": support.BACKEND_PROD,
    "$FRONTEND_DEV": support.FRONTEND_DEV,
    "$ADMIN": support.ADMIN,
}


def rows(name: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (ROWS / f"{name}.jsonl").read_text().splitlines() if line.strip()]


def body_of(request: dict[str, Any]) -> bytes | None:
    assert "body_note" not in request, "a body that is only described needs code of its own here"
    if "body_b64" in request:
        return base64.b64decode(request["body_b64"])
    return json.dumps(request["body"]).encode() if "body" in request else None


async def answer_to(port: int, request: dict[str, Any]) -> support.Reply:
    token = TOKENS.get(request["token"], request["token"])
    headers = [*support.headers_for(token, request["content_type"]), *request["headers"].items()]
    async with support.connect(port) as connection:
        await connection.send(request["method"], request["path"], headers, body_of(request))
        return await connection.receive(head_only=request["method"] == "HEAD")


def shape(body: str) -> tuple[object, ...]:
    """What must match of a body: whether there is one, its text, or of a JSON object its keys and its name."""
    if not body:
        return ("empty",)
    try:
        document = json.loads(body)
    except ValueError:
        return ("text", body)
    return ("json", frozenset(document), document.get("name"))


@pytest.mark.parametrize("name", EXPECTED)
async def test_every_recorded_request_is_answered_as_recorded(name: str, tmp_path: Path) -> None:
    executed = 0
    wrong = []
    async with support.gateway(tmp_path) as gateway:
        for row in rows(name):
            reply = await answer_to(gateway.port, row["request"])
            recorded = row["response"]
            found = (reply.status, shape(reply.body.decode()))
            wanted = (recorded["status"], shape(recorded["body"]))
            if found != wanted:
                wrong.append(f"{row['case']}: {found} instead of {wanted}")
            executed += 1
    assert executed == EXPECTED[name]
    assert not wrong, "\n".join(wrong)
    taken = [row for row in rows(name) if row["request"]["method"] == "POST" and row["response"]["status"] < 300]
    assert len(support.log_of(tmp_path)) == len(taken)


async def test_every_stored_case_is_answered_as_recorded(tmp_path: Path) -> None:
    wrong = []
    cases = rows("storage")
    async with support.gateway(tmp_path) as gateway:
        for case in cases:
            body = json.dumps(case["body"]).encode()
            path = "/api/client/metrics/bulk" if "applications" in case["body"] else "/api/client/metrics"
            token = TOKENS[case["token"]]
            if token == support.FRONTEND_DEV:
                path = "/api/frontend/client/metrics"
            reply = await support.ask(gateway.port, path, body, support.headers_for(token))
            if reply.status != case["status"]:
                wrong.append(f"{case['body']}: {reply.status} instead of {case['status']}")
    assert len(cases) == 21
    assert not wrong, "\n".join(wrong)
