"""The gateway before a tokens' upstream, over real connections: each state that the upstream may be in."""

import asyncio
import json
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from ingest_gateway.server import Running
from schemas import metric_names as names
from tests.ingest_gateway import support
from tests.ingest_gateway.support import ScriptedLog, ask, connect, gateway, headers_for
from tests.ingest_gateway.upstream import HttpUpstreamStub, http_upstream
from tests.support.ports import free_port
from tests.support.waiting import until

SECRET = "default:development.upstream-secret-text"
FRONTEND = "default:development.upstream-frontend"
ADMIN = "*:*.upstream-admin"


@pytest.fixture
async def upstream() -> AsyncIterator[HttpUpstreamStub]:
    async with http_upstream() as stub:
        stub.add(SECRET)
        stub.add(FRONTEND, type="frontend")
        stub.add(ADMIN, type="admin", projects=["*"], environment="*")
        yield stub


def before(upstream: HttpUpstreamStub, **settings: Any) -> Any:
    """A gateway that asks this upstream, on a broker that keeps everything at once."""
    return gateway(Path(), log=ScriptedLog(), tokens_url=upstream.root, **settings)


async def status_of(running: Running, token: str = SECRET, path: str = "/api/client/metrics") -> int:
    return (await ask(running.port, path, headers=headers_for(token))).status


async def test_a_token_that_the_upstream_knows_is_accepted_and_asked_for_once(
    upstream: HttpUpstreamStub, tmp_path: Path
) -> None:
    upstream.add(SECRET, projects=["shop"], environment="production")
    async with gateway(tmp_path, tokens_url=upstream.root) as running:
        assert [await status_of(running) for _ in range(5)] == [202] * 5
        assert upstream.asked == [[SECRET]]
        assert await status_of(running, f"Bearer {SECRET}") == 202
    [headers, *_] = [headers for headers, _ in support.log_of(tmp_path)]
    assert isinstance(headers.token_id, str)
    assert (headers.project, headers.environment) == ("shop", "production")
    assert upstream.asked == [[SECRET]]


@pytest.mark.parametrize(
    ("token", "path", "status"),
    [
        (FRONTEND, "/api/frontend/client/metrics", 200),
        (FRONTEND, "/api/client/metrics", 403),
        (SECRET, "/api/frontend/client/metrics", 403),
        (ADMIN, "/api/client/metrics", 403),
        ("default:development.nobody-knows-it", "/api/client/metrics", 401),
    ],
)
async def test_types_decide_as_they_do_in_the_file(
    token: str, path: str, status: int, upstream: HttpUpstreamStub
) -> None:
    async with before(upstream) as running:
        assert [await status_of(running, token, path) for _ in range(3)] == [status] * 3
        assert len(upstream.asked) == 1


async def test_the_files_tokens_are_not_asked_for_even_where_the_upstream_hangs(upstream: HttpUpstreamStub) -> None:
    upstream.gate.clear()
    async with before(upstream) as running:
        assert await status_of(running, support.BACKEND_DEV) == 202
        assert await status_of(running, support.FRONTEND_DEV) == 403
        assert upstream.asked == []


async def test_a_request_without_a_token_asks_nobody(upstream: HttpUpstreamStub) -> None:
    async with before(upstream) as running:
        assert (await ask(running.port, headers=headers_for(None))).status == 401
        assert await status_of(running, "Basic dXNlcjpwYXNz") == 401
        assert upstream.asked == []


async def test_the_answer_is_awaited_before_the_body_is_read(upstream: HttpUpstreamStub) -> None:
    upstream.gate.clear()
    async with before(upstream) as running, connect(running.port) as connection:
        headers = headers_for("nope", Content_Length="100000", Expect="100-continue")
        await connection.send("POST", "/api/client/metrics", headers, None)
        await until(lambda: upstream.asked)
        assert running.door.requests == 1
        upstream.gate.set()
        assert (await connection.receive()).status == 401
        await until(lambda: running.door.requests == 0)


async def test_a_revoked_token_becomes_401(upstream: HttpUpstreamStub) -> None:
    async with before(upstream, tokens_refresh_seconds=0.05) as running:
        assert await status_of(running) == 202
        upstream.known.clear()

        async def is_refused() -> bool:
            status = await status_of(running)
            assert status in {202, 401}
            return status == 401

        await until(is_refused)


async def test_an_unknown_token_becomes_known_within_its_time(upstream: HttpUpstreamStub) -> None:
    async with before(upstream, tokens_unknown_seconds=0.05) as running:
        assert await status_of(running, "new") == 401
        upstream.add("new")

        async def is_accepted() -> bool:
            return await status_of(running, "new") == 202

        await until(is_accepted)


async def test_a_slow_upstream_is_503_in_time_and_its_late_answer_counts(upstream: HttpUpstreamStub) -> None:
    upstream.gate.clear()
    async with before(upstream, tokens_wait_seconds=0.2) as running:
        began = time.monotonic()
        reply = await ask(running.port, headers=headers_for(SECRET))
        assert 0.15 < time.monotonic() - began < 2
        assert (reply.status, "retry-after" in reply.headers) == (503, True)
        assert running.gateway._meters.registry.get_sample_value(names.SHED.name, {"reason": "tokens_upstream"}) == 1
        upstream.gate.set()
        await until(lambda: _found(running) == 1)
        assert await status_of(running) == 202
        assert upstream.asked == [[SECRET]]


def _found(running: Running) -> float | None:
    return running.gateway._meters.registry.get_sample_value(names.TOKENS_CACHED.name, {"answer": "found"})


async def test_an_upstream_that_is_away_is_503_and_found_tokens_go_on_and_it_stays_ready(
    upstream: HttpUpstreamStub, capsys: pytest.CaptureFixture[str]
) -> None:
    async with before(upstream, tokens_refresh_seconds=0.01) as running:
        assert await status_of(running) == 202
        await upstream.server.close()
        for number in range(20):
            reply = await ask(running.port, headers=headers_for(f"never-seen-{number}"))
            assert (reply.status, "retry-after" in reply.headers) == (503, True)
            assert await status_of(running) == 202
        assert (await ask(running.port, "/readyz", method="GET")).status == 200
        away = running.gateway._meters.registry.get_sample_value(names.TOKEN_UPSTREAM_AWAY.name)
        assert away == 1
    assert capsys.readouterr().out.count("upstream is away") == 1


async def test_it_starts_without_its_upstream_and_asks_once_that_is_there() -> None:
    port = free_port()
    async with gateway(Path(), log=ScriptedLog(), tokens_url=f"http://127.0.0.1:{port}") as running:
        assert await status_of(running) == 503
        runner = web.ServerRunner(web.Server(_knows_all))
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", port).start()
        assert await status_of(running) == 202
        await runner.cleanup()


async def _knows_all(request: web.BaseRequest) -> web.Response:
    texts = json.loads(await request.read())["tokens"]
    entries = [{"token": text, "type": "client", "projects": ["*"], "environment": "e"} for text in texts]
    return web.json_response({"tokens": entries})


@pytest.mark.parametrize(
    "answer",
    [
        lambda: web.Response(status=401),
        lambda: web.Response(status=500, text="no"),
        lambda: web.Response(status=302, headers={"Location": "/behind/a/prefix/edge/validate"}),
        lambda: web.Response(text="<html>"),
        lambda: web.json_response({"tokens": None}),
        lambda: web.json_response({"tokens": [{"token": SECRET}]}),
    ],
    ids=range(6),
)
async def test_nonsense_is_503_for_tokens_never_seen_and_nothing_for_found_ones(
    answer: Any, upstream: HttpUpstreamStub
) -> None:
    found = upstream.add("default:development.found")
    async with before(upstream, tokens_refresh_seconds=0.01) as running:
        assert await status_of(running, found) == 202
        upstream.answer = answer
        for _ in range(10):
            assert await status_of(running) == 503
            assert await status_of(running, found) == 202


async def test_a_flood_of_random_tokens_overloads_nobody_and_found_tokens_pass(upstream: HttpUpstreamStub) -> None:
    async with before(upstream, tokens_cache_entries=100) as running:
        assert await status_of(running) == 202
        began = time.monotonic()
        statuses: dict[int, int] = {}

        async def post(number: int) -> None:
            async with connect(running.port) as connection:
                for at in range(40):
                    headers = headers_for(f"random-{number}-{at}")
                    await connection.send("POST", "/api/client/metrics", headers, support.window())
                    status = (await connection.receive()).status
                    statuses[status] = statuses.get(status, 0) + 1

        flood = asyncio.gather(*map(post, range(50)))
        passed = [await status_of(running)]
        while not flood.done():
            passed.append(await status_of(running))
        await flood
        assert set(passed) == {202}
        assert sum(statuses.values()) == 2000
        assert set(statuses) <= {401, 503}
        posts = len(upstream.asked)
        assert posts <= (time.monotonic() - began) / 0.05 + 2
        assert max(map(len, upstream.asked)) <= 100
        cached = running.gateway._meters.registry.get_sample_value
        assert (_found(running), cached(names.TOKENS_CACHED.name, {"answer": "unknown"})) == (1, 100)


async def test_no_text_reaches_an_answer_a_log_or_a_metric(
    upstream: HttpUpstreamStub, capsys: pytest.CaptureFixture[str]
) -> None:
    upstream.add("default:development.upstream-secret-text-unusable", projects=[])
    said = []
    async with before(upstream, tokens_refresh_seconds=0.01) as running:
        for text in (SECRET, f"{SECRET}-unusable", f"{SECRET}-unknown"):
            said.append((await ask(running.port, headers=headers_for(text))).body)
        upstream.answer = lambda: web.Response(text=SECRET)
        for number in range(5):
            said.append((await ask(running.port, headers=headers_for(f"{SECRET}-{number}"))).body)
            said.append((await ask(running.port, headers=headers_for(SECRET))).body)
        said.append((await ask(running.port, "/metrics", method="GET")).body)
    seen = capsys.readouterr()
    assert "cannot be used here" in seen.out
    assert b"upstream-secret-text" not in b"".join(said)
    assert "upstream-secret-text" not in seen.out + seen.err
