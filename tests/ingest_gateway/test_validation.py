"""`POST /edge/validate` as the gateway answers it, and what else an Edge meets where no server stands behind it."""

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from ingest_gateway.server import Running
from tests.ingest_gateway import support
from tests.ingest_gateway.support import Reply, ScriptedLog, ask, gateway, headers_for
from tests.ingest_gateway.upstream import http_upstream

OPEN = headers_for(None)


@pytest.fixture
async def running() -> AsyncIterator[Running]:
    async with gateway(Path(), log=ScriptedLog()) as found:
        yield found


async def validate(running: Running, *tokens: Any, path: str = "/edge/validate") -> Reply:
    return await ask(running.port, path, json.dumps({"tokens": list(tokens)}).encode(), OPEN)


@pytest.mark.parametrize("path", ["/edge/validate", "/edge/validate/", "//EDGE//validate?x=1"])
async def test_known_tokens_are_described_and_unknown_ones_left_out(path: str, running: Running) -> None:
    asked = (support.ADMIN, "nope", support.BACKEND_DEV, support.FRONTEND_DEV, support.BACKEND_ANY, support.BACKEND_DEV)
    reply = await validate(running, *asked, path=path)
    assert (reply.status, reply.headers["content-type"]) == (200, "application/json; charset=utf-8")
    assert reply.json() == {
        "tokens": [
            {"token": support.ADMIN, "type": "admin", "projects": ["*"], "environment": "*"},
            {"token": support.BACKEND_DEV, "type": "client", "projects": ["default"], "environment": "development"},
            {"token": support.FRONTEND_DEV, "type": "frontend", "projects": ["default"], "environment": "development"},
            {"token": support.BACKEND_ANY, "type": "client", "projects": ["*"], "environment": "*"},
        ]
    }


async def test_no_known_token_is_an_empty_list(running: Running) -> None:
    for tokens in ((), ("nope", "", "é", "x" * 5000)):
        reply = await validate(running, *tokens)
        assert (reply.status, reply.json()) == (200, {"tokens": []})


@pytest.mark.parametrize(
    ("body", "status", "keys"),
    [
        (b"{}", 400, {"id", "name", "message", "details"}),
        (b'{"tokens":"secret-text"}', 400, {"id", "name", "message", "details"}),
        (json.dumps({"tokens": ["secret-text"] * 101}).encode(), 400, {"id", "name", "message", "details"}),
        (b'{"tokens":["secret-text"', 400, {"message"}),
        (b'{"tokens":["' + b"x" * 102_400 + b'"]}', 413, {"message"}),
    ],
    ids=range(5),
)
async def test_a_bad_question_is_refused_in_the_recorded_shape(
    body: bytes, status: int, keys: set[str], running: Running
) -> None:
    reply = await ask(running.port, "/edge/validate", body, OPEN)
    assert (reply.status, set(reply.json())) == (status, keys)
    assert b"secret-text" not in reply.body
    if "details" in keys:
        assert reply.json()["details"][0]["path"] == "/body/tokens"
        assert reply.json()["name"] == "BadDataError"


async def test_a_question_that_is_no_json_is_415(running: Running) -> None:
    assert (await ask(running.port, "/edge/validate", b"{}", headers_for(None, "text/plain"))).status == 415


async def test_questions_count_at_the_door_and_as_requests() -> None:
    async with gateway(Path(), log=ScriptedLog()) as running:
        await validate(running, support.BACKEND_DEV)
        assert (running.door.requests, running.door.held) == (0, 0)
        value = running.gateway._meters.registry.get_sample_value
        assert value("flagmeter_gateway_requests_total", {"route": "/edge/validate", "status": "200"}) == 1


async def test_tokens_that_the_file_does_not_know_are_asked_for_upstream_together() -> None:
    async with http_upstream() as upstream:
        entry = {"projects": ["*"], "environment": "production"}
        texts = [upstream.add(f"*:production.{number}", **entry) for number in range(99)]
        async with gateway(Path(), log=ScriptedLog(), tokens_url=upstream.root) as running:
            reply = await validate(running, support.BACKEND_DEV, *texts)
            assert reply.status == 200
            found = reply.json()["tokens"]
            assert [entry["token"] for entry in found] == [support.BACKEND_DEV, *texts]
            assert found[1] == {"token": texts[0], "type": "client", "projects": ["*"], "environment": "production"}
            assert upstream.asked == [texts]
            assert (await validate(running, *texts[:5])).json()["tokens"] == found[1:6]
            assert len(upstream.asked) == 1


async def test_where_nobody_can_say_it_is_503_and_not_left_out() -> None:
    async with http_upstream() as upstream:
        upstream.status = 500
        async with gateway(Path(), log=ScriptedLog(), tokens_url=upstream.root) as running:
            assert (await validate(running, support.BACKEND_DEV)).status == 200
            reply = await validate(running, support.BACKEND_DEV, "never-seen")
            assert (reply.status, "retry-after" in reply.headers) == (503, True)


async def test_one_gateway_may_ask_another() -> None:
    async with (
        gateway(Path(), log=ScriptedLog()) as first,
        gateway(Path(), log=ScriptedLog(), tokens_url=f"http://127.0.0.1:{first.port}") as second,
    ):
        table = support.TABLE
        second.gateway._tokens._local = type(table)({})  # type: ignore[attr-defined]
        assert (await ask(second.port, headers=headers_for(support.BACKEND_ANY))).status == 202
        assert (await ask(second.port, headers=headers_for("nope"))).status == 401
        assert second.gateway._tokens.find(support.BACKEND_ANY) == table.find(support.BACKEND_ANY)


async def test_a_gateway_that_asks_itself_ends_in_503_in_time() -> None:
    async with gateway(Path(), log=ScriptedLog(), tokens_url="http://127.0.0.1:1", tokens_wait_seconds=0.3) as running:
        asking = running.gateway._tokens._questions._upstream  # type: ignore[attr-defined]
        asking._url = asking._url.with_port(running.port)
        assert (await ask(running.port, headers=headers_for("default:development.round"))).status == 503


@pytest.mark.parametrize(
    ("method", "path"),
    [
        (method, path)
        for path in (
            "/api/client/features",
            "/api/client/features/flagA",
            "/api/client/delta",
            "/api/client/streaming",
            "/api/frontend",
            "/api/frontend/all",
            "/api/proxy",
            "/api/admin/features",
            "/edge/issue-token",
            "/edge/metrics",
        )
        for method in ("GET", "POST")
    ],
)
async def test_features_are_404_where_no_server_stands_behind(method: str, path: str, running: Running) -> None:
    reply = await ask(running.port, path, b"{}", method=method)  # an empty 200 would wipe what an SDK has
    assert reply.status == 404
    assert reply.json()["name"] == "NotFoundError"


async def test_an_edges_data_of_itself_is_taken_and_dropped() -> None:
    log = ScriptedLog()
    async with gateway(Path(), log=log) as running:
        reply = await ask(running.port, "/api/client/metrics/edge", b'{"identifier":"e1"}')
        assert (reply.status, reply.body) == (202, b"")
        assert (await ask(running.port, "/api/client/metrics/edge", headers=headers_for("nope"))).status == 401
        assert log.events == []
