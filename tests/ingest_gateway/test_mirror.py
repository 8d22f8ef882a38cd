"""What was accepted reaches an Unleash server as well, and what becomes of that is nobody else's concern."""

import asyncio
import gzip
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from ingest_gateway.server import Running
from ingest_gateway.writer import InDoubt, NotTaken
from schemas import metric_names as names
from tests.ingest_gateway import support
from tests.ingest_gateway.support import ScriptedLog, ask, connect, headers_for, window
from tests.ingest_gateway.unleash import Script, Unleash, Visit, answer, response, unleash
from tests.support.ports import free_port
from tests.support.waiting import until

ACCEPTED = response(b"202 Accepted")


async def never(visit: Visit) -> None:
    """Take a post and answer nothing."""
    await visit.read_body()
    await visit.left()


@asynccontextmanager
async def mirroring(
    script: Script | None = None, log: ScriptedLog | None = None, **settings: Any
) -> AsyncIterator[tuple[Running, Unleash]]:
    """A gateway that mirrors to a scripted server."""
    async with unleash(script or answer(ACCEPTED)) as server:
        settings = {"unleash_url": server.url, "unleash_mirror": True} | settings
        async with support.gateway(Path(), log=log or ScriptedLog(), **settings) as found:
            yield found, server


def mirrored(found: Running, outcome: str) -> float:
    return found.gateway._meters.registry.get_sample_value(names.MIRRORED.name, {"outcome": outcome}) or 0


async def test_what_is_accepted_arrives_with_its_headers_and_its_own_token() -> None:
    async with mirroring() as (found, server):
        posts = [
            ("/api/client/metrics?x=%2F", window(), headers_for(UNLEASH_APPNAME="shop", unleash_connection_id="c1")),
            ("/api/client/metrics/bulk", json.dumps({**support.BULK, "seenTokens": ["a"]}).encode(), headers_for()),
            ("/api/client/register", json.dumps(support.REGISTRATION).encode(), headers_for()),
            ("/api/frontend/client/metrics", window(), headers_for(support.FRONTEND_DEV)),
        ]
        for number, (path, body, headers) in enumerate(posts, start=1):
            assert (await ask(found.port, path, body, headers)).status in {200, 202}
            await until(lambda count=number: mirrored(found, "2xx") == count)  # type: ignore[misc]
        assert [each.line for each in server.requests] == [f"POST {path} HTTP/1.1".encode() for path, *_ in posts]
        assert [each.body for each in server.requests] == [body for _, body, _ in posts]
        first = server.requests[0]
        assert first.all(b"Authorization") == [support.BACKEND_DEV.encode()]
        assert first.all(b"UNLEASH-APPNAME") == [b"shop"]
        assert first.all(b"unleash-connection-id") == [b"c1"]
        assert first.all(b"Content-Type") == [b"application/json"]
        assert first.all(b"X-Forwarded-For") == [b"127.0.0.1"]
        assert first.all(b"Via") == [b"1.1 flagmeter"]
        assert server.requests[3].all(b"Authorization") == [support.FRONTEND_DEV.encode()]
        assert server.connections == 1


async def test_a_compressed_post_arrives_as_it_was_checked() -> None:
    async with mirroring() as (found, server):
        packed = gzip.compress(window())
        assert (await ask(found.port, body=packed, headers=headers_for(Content_Encoding="gzip"))).status == 202
        await until(lambda: mirrored(found, "2xx") == 1)
        assert server.requests[0].body == window()
        assert server.requests[0].all(b"Content-Encoding") == []
        assert server.requests[0].all(b"Content-Length") == [str(len(window())).encode()]
        chunked = headers_for(Transfer_Encoding="chunked")
        async with connect(found.port) as connection:
            await connection.send("POST", "/api/client/metrics", chunked, None)
            connection.writer.write(b"%x\r\n%b\r\n0\r\n\r\n" % (len(window()), window()))
            assert (await connection.receive()).status == 202
        await until(lambda: mirrored(found, "2xx") == 2)
        assert server.requests[1].body == window()
        assert server.requests[1].all(b"Transfer-Encoding") == []


async def test_a_post_in_another_charset_arrives_in_utf_8() -> None:
    async with mirroring() as (found, server):
        body = window().decode().encode("utf-16")
        headers = headers_for(content_type="application/json; charset=utf-16")
        assert (await ask(found.port, body=body, headers=headers)).status == 202
        await until(lambda: mirrored(found, "2xx") == 1)
        assert server.requests[0].body.lstrip("\ufeff".encode()) == window()
        assert server.requests[0].all(b"Content-Type") == [b"application/json"]


async def test_what_is_refused_in_doubt_or_not_taken_does_not_arrive() -> None:
    log = ScriptedLog()
    async with mirroring(log=log) as (found, server):
        assert (await ask(found.port, body=b"[]")).status == 400
        assert (await ask(found.port, headers=headers_for("nobodys"))).status == 401
        assert (await ask(found.port, headers=headers_for(Content_Encoding="br"))).status == 415
        for fault in (NotTaken("locked"), InDoubt("fsync")):
            log.fault = fault
            assert (await ask(found.port)).status == 503
        log.fault = None
        await until(lambda: found.writer.trouble() is None)
        assert (await ask(found.port, body=window("last"))).status == 202
        await until(lambda: mirrored(found, "2xx") == 1)
        assert [each.body for each in server.requests] == [window("last")]


async def test_without_the_setting_nothing_is_mirrored() -> None:
    async with unleash() as server:
        async with support.gateway(Path(), log=ScriptedLog(), unleash_url=server.url) as found:
            assert (await ask(found.port)).status == 202
        assert server.requests == []


async def test_a_server_that_never_answers_delays_no_answer_and_the_queue_stays_bounded(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("ingest_gateway.mirror.CLOSE_SECONDS", 0.1)
    bounds = {"unleash_mirror_max_posts": 10, "unleash_mirror_connections": 2, "unleash_mirror_seconds": 60}
    async with mirroring(never, **bounds) as (found, server), connect(found.port) as connection:
        for number in range(100):
            await connection.send("POST", "/api/client/metrics", headers_for(), window(str(number)))
            assert (await connection.receive()).status == 202
        await until(lambda: len(server.requests) == 2)
        assert mirrored(found, "dropped") == 90
        assert found.gateway._mirror is not None
        assert found.gateway._mirror._posts == 10


async def test_the_bytes_that_wait_are_bounded_too() -> None:
    gate = asyncio.Event()

    async def script(visit: Visit) -> None:
        await gate.wait()
        await answer(ACCEPTED)(visit)

    large = window(padding="x" * 600_000)
    async with mirroring(script, unleash_mirror_max_bytes=1024 * 1024) as (found, _):
        assert [(await ask(found.port, body=large)).status for _ in range(3)] == [202] * 3
        assert mirrored(found, "dropped") == 2
        gate.set()
        await until(lambda: mirrored(found, "2xx") == 1)
        assert (await ask(found.port, body=large)).status == 202
        await until(lambda: mirrored(found, "2xx") == 2)


async def test_a_server_that_is_away_is_tried_now_and_then_and_found_again(capsys: pytest.CaptureFixture[str]) -> None:
    async with mirroring() as (found, server):
        mirror = found.gateway._mirror
        assert mirror is not None
        now = 1000.0
        mirror._circuit._clock = lambda: now
        there = mirror._server._destination.url
        mirror._server._destination.url = there.with_port(free_port())
        for away, dropped in ((1, 0), (2, 0), (3, 0), (3, 1), (3, 2)):
            assert (await ask(found.port)).status == 202
            await until(lambda seen=(away, dropped): (mirrored(found, "away"), mirrored(found, "dropped")) == seen)  # type: ignore[misc]
        mirror._server._destination.url = there
        now += 2
        for count in (1, 2):
            assert (await ask(found.port)).status == 202
            await until(lambda count=count: mirrored(found, "2xx") == count)  # type: ignore[misc]
        assert len(server.requests) == 2
    seen = capsys.readouterr()
    assert (seen.out + seen.err).count("do not reach the Unleash server") == 1
    assert (seen.out + seen.err).count("reach the Unleash server again") == 1
    assert support.BACKEND_DEV not in seen.out + seen.err


@pytest.mark.parametrize(("status", "outcome"), [(b"400 No", "4xx"), (b"401 No", "4xx"), (b"503 No", "5xx")])
async def test_each_post_is_tried_once_and_counted_by_the_class_of_its_answer(status: bytes, outcome: str) -> None:
    async with mirroring(answer(response(status, b"no"))) as (found, server):
        assert (await ask(found.port)).status == 202
        await until(lambda: mirrored(found, outcome) == 1)
        assert len(server.requests) == 1


async def test_a_post_that_takes_too_long_is_given_up() -> None:
    async with mirroring(never, unleash_mirror_seconds=0.2) as (found, server):
        assert (await ask(found.port)).status == 202
        await until(lambda: mirrored(found, "late") == 1)
        assert len(server.requests) == 1


async def test_a_connection_with_a_long_answer_is_closed_rather_than_read() -> None:
    async with mirroring(answer(response(b"200 OK", b"x" * 10_000_000))) as (found, server):
        for count in (1, 2):
            assert (await ask(found.port)).status == 202
            await until(lambda count=count: mirrored(found, "2xx") == count)  # type: ignore[misc]
        assert server.connections == 2


async def test_a_mirrored_post_that_comes_back_is_refused_and_not_counted() -> None:
    log = ScriptedLog()
    async with mirroring(log=log) as (found, server):
        reply = await ask(found.port, headers=headers_for(Via="1.1 flagmeter"))
        assert reply.status == 508
        assert (await ask(found.port, headers=headers_for(Via="1.1 proxy"))).status == 202
        await until(lambda: mirrored(found, "2xx") == 1)
        assert (len(log.events), len(server.requests)) == (1, 1)


async def test_the_end_sends_what_waits_and_drops_the_rest_in_time(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("ingest_gateway.mirror.CLOSE_SECONDS", 1.0)
    gate = asyncio.Event()

    async def script(visit: Visit) -> None:
        if len(server.requests) > 1:
            await never(visit)
        await gate.wait()
        await answer(ACCEPTED)(visit)

    async with unleash(script) as server:
        settings = {"unleash_url": server.url, "unleash_mirror": True, "unleash_mirror_connections": 1}
        async with support.gateway(tmp_path, **settings) as found:
            for _ in range(3):
                assert (await ask(found.port)).status == 202
            await until(lambda: len(server.requests) == 1)
            gate.set()
        assert (mirrored(found, "2xx"), mirrored(found, "dropped")) == (1, 2)


async def test_a_fault_of_ours_costs_one_post_and_tells_nothing(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    value = f"{'value'}-of-the-client"  # put together: a traceback shows this very line

    def fail(*_: Any, **__: Any) -> bytes:
        raise ZeroDivisionError(value)

    async with mirroring() as (found, _):
        with monkeypatch.context() as patched:
            patched.setattr("ingest_gateway.forwarding.request_head", fail)
            assert (await ask(found.port)).status == 202
            await until(lambda: mirrored(found, "failed") == 1)
        assert (await ask(found.port)).status == 202
        await until(lambda: mirrored(found, "2xx") == 1)
    seen = capsys.readouterr()
    assert "ZeroDivisionError" in seen.out + seen.err
    assert value not in seen.out + seen.err
