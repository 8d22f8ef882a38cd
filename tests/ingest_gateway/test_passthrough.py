"""What passes through to an Unleash server and back, byte for byte, over real connections."""

import asyncio
import gzip
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from aiohttp.http_exceptions import TransferEncodingError

from ingest_gateway.server import Running
from schemas import metric_names as names
from tests.ingest_gateway import support
from tests.ingest_gateway.process import gateway_process
from tests.ingest_gateway.support import Connection, ScriptedLog, ask, connect, headers_for, window
from tests.ingest_gateway.unleash import FEATURES, Received, Script, Unleash, Visit, answer, response, unleash
from tests.support.ports import free_port
from tests.support.tls import Authority, TlsFront
from tests.support.waiting import until

JSON_ERROR = {"id", "name", "message", "details"}
STREAM = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"


@asynccontextmanager
async def behind(script: Script | None = None, **settings: Any) -> AsyncIterator[tuple[Running, Unleash]]:
    """A gateway in front of a scripted server."""
    async with (
        unleash(script) as server,
        support.gateway(Path(), log=ScriptedLog(), unleash_url=server.url, **settings) as found,
    ):
        yield found, server


async def raw(port: int, request: bytes) -> bytes:
    """Send bytes, and give all that comes until the connection ends."""
    async with connect(port) as connection:
        connection.writer.write(request)
        return await connection.ended()


def outcome(found: Running, name: str, metric: names.Metric = names.PASSED) -> float:
    return found.gateway._meters.registry.get_sample_value(metric.name, {"outcome": name}) or 0


async def head_of(connection: Connection) -> bytes:
    async with asyncio.timeout(support.SECONDS):
        return await connection._reader.readuntil(b"\r\n\r\n")


async def next_chunk(connection: Connection) -> bytes:
    async with asyncio.timeout(support.SECONDS):
        size = int(await connection._reader.readline(), 16)
        return (await connection._reader.readexactly(size + 2))[:-2]


def end_to_end(received: Received) -> list[tuple[bytes, bytes]]:
    ours = {b"host", b"x-forwarded-for", b"x-forwarded-host", b"x-forwarded-proto", b"via"}
    return [(name, value) for name, value in received.headers if name.lower() not in ours]


# What passes, and what does not.


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/"),
        ("GET", "/api/client/features"),
        ("GET", "/api/client/features/one%2Fflag"),
        ("GET", "/api/client/delta"),
        ("GET", "/api/frontend?userId=7"),
        ("POST", "/api/frontend"),
        ("POST", "/edge/validate"),
        ("POST", "/api/client/metrics/edge"),
        ("POST", "/api/frontend/all/client/metrics"),
        ("GET", "/api/client/metrics"),
        ("DELETE", "/api/admin/projects/default"),
        ("PATCH", "/api/admin/x"),
        ("PUT", "/x"),
        ("OPTIONS", "/api/frontend"),
        ("POST", "/healthz"),
    ],
)
async def test_everything_that_is_not_ours_passes(method: str, path: str) -> None:
    body = b'{"tokens":[]}' if method in {"POST", "PUT", "PATCH"} else None
    async with behind(answer(response(b"418 Tea", b"from behind"))) as (found, server):
        reply = await ask(found.port, path, body, method=method)
        assert (reply.status, reply.body) == (418, b"from behind")
        assert [each.line for each in server.requests] == [f"{method} {path} HTTP/1.1".encode()]
        assert server.requests[0].body == (body or b"")


@pytest.mark.parametrize("path", ["/api/client/metrics", "//API/client//metrics/?x=1", "/api/client/metrics/bulk"])
@pytest.mark.parametrize("state", ["accepted", "refused", "broken", "unknown", "busy"])
async def test_a_post_of_metrics_is_never_passed_whatever_becomes_of_it(path: str, state: str) -> None:
    async with behind() as (found, server):
        if state == "busy":
            found.door.max_requests = 0
        body = {"broken": b"{", "refused": b"[]"}.get(state)
        if body is None:
            body = json.dumps(support.BULK).encode() if path.endswith("bulk") else window()
        token = "nobodys" if state == "unknown" else support.BACKEND_DEV
        reply = await ask(found.port, path, body, headers_for(token))
        expected = {"accepted": 202, "refused": 400, "broken": 400, "unknown": 401, "busy": 503}
        assert reply.status == expected[state]
        assert server.requests == []


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("POST", "/api/client/register", 202),
        ("OPTIONS", "/api/frontend/client/metrics", 204),
        ("OPTIONS", "/api/client/metrics", 200),
        ("GET", "/healthz", 200),
        ("HEAD", "/readyz", 200),
        ("GET", "/metrics", 200),
    ],
)
async def test_what_is_ours_stays_here(method: str, path: str, status: int) -> None:
    async with behind() as (found, server):
        body = json.dumps(support.REGISTRATION).encode() if method == "POST" else None
        assert (await ask(found.port, path, body, method=method)).status == status
        assert server.requests == []


@pytest.mark.parametrize(
    "path",
    [
        "/api/frontend",
        "//api/FRONTEND/?x",
        "/api/%66rontend",
        "/api/frontend/client/metrics",
        "/api/frontend/client/register",
        "/api/frontend/features",
    ],
)
async def test_paths_for_browsers_do_not_pass_either_when_switched_off(path: str) -> None:
    async with behind(frontend_api="off") as (found, server):
        for method in ("GET", "POST"):
            reply = await ask(found.port, path, window() if method == "POST" else None, method=method)
            assert reply.status == 404
        assert (await ask(found.port, "/api/frontends", method="GET")).status == 200
        assert [each.line for each in server.requests] == [b"GET /api/frontends HTTP/1.1"]


@pytest.mark.parametrize("line", [b"GET http://elsewhere/x", b"OPTIONS *", b"CONNECT elsewhere:443", b"CONNECT /x"])
async def test_what_is_asked_of_a_proxy_for_anywhere_is_not_passed(line: bytes) -> None:
    async with behind() as (found, server):
        reply = await raw(found.port, line + b" HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        assert reply.startswith(b"HTTP/1.1 404 ")
        assert server.requests == []


# Requests, as they arrive.


@pytest.mark.parametrize("target", [b"/a%2Fb//c/../d?x=%2f&y=a+b&&=", b"/x?", b"//x", b"/a#b", b"/%zz"])
async def test_the_target_arrives_byte_for_byte(target: bytes) -> None:
    async with behind() as (found, server):
        reply = await raw(found.port, b"GET " + target + b" HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        assert reply.startswith(b"HTTP/1.1 200 OK\r\n")
        assert server.requests[0].line == b"GET " + target + b" HTTP/1.1"


async def test_headers_arrive_as_they_were_with_where_they_came_from() -> None:
    sent = [
        (b"accept-encoding", b"gzip, br"),
        (b"Authorization", b"*:development.text"),
        (b"UNLEASH-APPNAME", "Käse".encode("latin-1")),
        (b"X-Twice", b"1"),
        (b"x-twice", b"2"),
        (b"If-None-Match", b'W/"6ef7:12"'),
        (b"Cookie", b"a=1; b=2"),
    ]
    hop = [(b"Connection", b"close, X-Hop"), (b"X-Hop", b"1"), (b"TE", b"trailers")]
    lines = b"".join(b"%b: %b\r\n" % header for header in [(b"Host", b"flags.example"), *sent, *hop])
    async with behind() as (found, server):
        await raw(found.port, b"GET /api/client/features HTTP/1.1\r\n" + lines + b"\r\n")
        received = server.requests[0]
        assert end_to_end(received) == sent
        assert received.all(b"Host") == [server.url.removeprefix("http://").encode()]
        assert received.all(b"X-Forwarded-For") == [b"127.0.0.1"]
        assert received.all(b"X-Forwarded-Host") == [b"flags.example"]
        assert received.all(b"X-Forwarded-Proto") == [b"http"]
        assert received.all(b"Via") == [b"1.1 flagmeter"]


async def test_a_prefix_of_the_url_comes_before_every_path() -> None:
    async with unleash() as server:
        settings = {"unleash_url": f"{server.url}/behind/it/"}
        async with support.gateway(Path(), log=ScriptedLog(), **settings) as found:
            await ask(found.port, "/api/client/features", method="GET")
        assert server.requests[0].line == b"GET /behind/it/api/client/features HTTP/1.1"


async def test_a_body_in_chunks_arrives_piece_by_piece_while_it_is_being_sent() -> None:
    seen: list[bytes] = []

    async def script(visit: Visit) -> None:
        while chunk := await visit.read_chunk():
            seen.append(chunk)
        await visit.send(response(b"200 OK", b"".join(seen)))

    async with behind(script) as (found, server), connect(found.port) as connection:
        await connection.send("POST", "/api/frontend", headers_for(Transfer_Encoding="chunked"), None)
        for number, piece in enumerate((b"first", b"second"), start=1):
            connection.writer.write(b"%x\r\n%b\r\n" % (len(piece), piece))
            await until(lambda count=number: len(seen) == count)  # type: ignore[misc]
        connection.writer.write(b"0\r\n\r\n")
        assert (await connection.receive()).body == b"firstsecond"
        assert server.requests[0].all(b"Transfer-Encoding") == [b"chunked"]
        assert server.requests[0].all(b"Content-Length") == []


async def test_a_compressed_body_arrives_compressed() -> None:
    packed = gzip.compress(b'{"context":{}}')
    async with behind() as (found, server):
        reply = await ask(found.port, "/api/frontend", packed, headers_for(Content_Encoding="gzip"))
        assert reply.status == 200
        assert server.requests[0].body == packed
        assert server.requests[0].all(b"Content-Encoding") == [b"gzip"]


async def test_a_large_body_goes_both_ways_whole() -> None:
    body = bytes(range(256)) * 8192

    async def echo(visit: Visit) -> None:
        await visit.send(response(b"200 OK", await visit.read_body()))

    async with behind(echo) as (found, _):
        assert (await ask(found.port, "/x", body)).body == body


async def test_the_server_decides_whether_a_body_is_to_come() -> None:
    async def script(visit: Visit) -> None:
        assert visit.received.all(b"Expect") == [b"100-continue"]
        await visit.send(b"HTTP/1.1 100 Continue\r\n\r\n")
        await visit.send(response(b"200 OK", await visit.read_body()))

    async with behind(script) as (found, _), connect(found.port) as connection:
        await connection.send("POST", "/x", headers_for(Expect="100-continue", Content_Length="5"), None)
        assert await head_of(connection) == b"HTTP/1.1 100 Continue\r\n\r\n"
        connection.writer.write(b"hello")
        assert (await connection.receive()).body == b"hello"


async def test_an_answer_may_come_before_the_body_does() -> None:
    async def script(visit: Visit) -> None:
        await visit.send(response(b"417 No", b"no"))
        await visit.left()

    async with behind(script) as (found, _), connect(found.port) as connection:
        await connection.send("POST", "/x", headers_for(Expect="100-continue", Content_Length="5"), None)
        reply = await connection.receive()
        assert (reply.status, reply.body, reply.headers["connection"]) == (417, b"no", "close")


async def test_a_body_above_the_limit_is_413_in_either_framing() -> None:
    body = b"x" * 2000
    chunks = b"400\r\n%b\r\n400\r\n%b\r\n" % (body[:1024], body[:1024])
    async with behind(unleash_max_body_bytes=1024) as (found, server):
        assert (await ask(found.port, "/x", body)).status == 413
        assert server.requests == []
        async with connect(found.port) as connection:
            await connection.send("POST", "/x", headers_for(Transfer_Encoding="chunked"), None)
            connection.writer.write(chunks)
            assert (await connection.receive()).status == 413
        assert outcome(found, "refused") == 2


async def test_a_client_that_takes_too_long_to_send_is_503_and_cut() -> None:
    async with behind(body_seconds=0.2) as (found, _), connect(found.port) as connection:
        await connection.send("POST", "/x", headers_for(Content_Length="5"), None)
        assert (await connection.receive()).status == 503
        await connection.ended()
        assert outcome(found, "slow_body") == 1
        assert outcome(found, "late") == 0


@pytest.mark.parametrize("error", [web.RequestPayloadError(), TransferEncodingError("zz"), ConnectionResetError()])
async def test_a_body_that_cannot_be_read_is_not_the_servers_fault(error: Exception) -> None:
    async with behind() as (found, server), connect(found.port) as connection:
        await connection.send("POST", "/x", headers_for(Content_Length="5"), None)
        await until(lambda: len(server.requests) == 1)
        [request] = passing(found)._open.values()
        request.content.set_exception(error)
        assert (await connection.receive()).status == 400
        assert (outcome(found, "refused"), outcome(found, "away")) == (1, 0)


async def test_a_server_that_closes_while_a_body_is_being_sent_is_502() -> None:
    async def script(visit: Visit) -> None:
        visit.reset()
        raise EOFError

    async with behind(script) as (found, server), connect(found.port) as connection:
        await connection.send("POST", "/x", headers_for(Transfer_Encoding="chunked"), None)
        connection.writer.write(b"1\r\nx\r\n" * 1000 + b"0\r\n\r\n")
        assert (await connection.receive()).status == 502
        assert server.connections == 1


async def test_a_server_that_does_not_read_a_body_is_504() -> None:
    async def script(visit: Visit) -> None:
        await until(lambda: outcome(found, "late") == 1)
        raise EOFError

    async with behind(script, unleash_silent_seconds=0.2) as (found, _), connect(found.port) as connection:
        sending = asyncio.create_task(connection.send("POST", "/x", headers_for(), b"x" * 15_000_000))
        assert (await connection.receive()).status == 504
        sending.cancel()


async def test_another_transfer_coding_than_chunks_is_501() -> None:
    async with behind() as (found, server):
        head = b"POST /x HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: gzip, chunked\r\nConnection: close\r\n\r\n"
        assert (await raw(found.port, head + b"0\r\n\r\n")).startswith(b"HTTP/1.1 501 ")
        assert server.requests == []


# Answers, as they come back.


async def test_features_come_with_their_etag_and_304_without_a_body() -> None:
    tagged = b'HTTP/1.1 200 OK\r\nETag: "6ef7ec5a:12:v1"\r\nDate: then\r\nContent-Length: %d\r\n\r\n' % len(FEATURES)
    unchanged = b'HTTP/1.1 304 Not Modified\r\nETag: "6ef7ec5a:12:v1"\r\nContent-Length: 900\r\n\r\n'

    async def script(visit: Visit) -> None:
        known = visit.received.all(b"If-None-Match")
        await visit.send(unchanged if known == [b'"6ef7ec5a:12:v1"'] else tagged + FEATURES)

    async with behind(script) as (found, server), connect(found.port) as connection:
        request = b"GET /api/client/features HTTP/1.1\r\nHost: x\r\n"
        connection.writer.write(request + b"\r\n")
        assert await head_of(connection) == tagged
        assert await connection._reader.readexactly(len(FEATURES)) == FEATURES
        connection.writer.write(request + b'If-None-Match: "6ef7ec5a:12:v1"\r\n\r\n')
        assert await head_of(connection) == unchanged
        connection.writer.write(request + b"Connection: close\r\n\r\n")
        assert await connection.ended() == tagged[:-2] + b"Connection: close\r\n\r\n" + FEATURES
        assert server.connections == 1
        assert outcome(found, "2xx") == 2
        assert outcome(found, "3xx") == 1


async def test_an_answer_goes_back_with_its_headers_and_bytes_as_they_were() -> None:
    packed = gzip.compress(FEATURES)
    headers = [
        b"content-type: application/json; charset=utf-8",
        b"Content-Encoding: gzip",
        b"Set-Cookie: a=1; Path=/",
        b"Set-Cookie: b=2; Path=/",
        b"X-Name: K\xe4se",
        b"Server: unleash",
        b"Location: http://unleash.example/elsewhere",
    ]
    whole = response(b"302 Anders", packed, *headers, b"Keep-Alive: timeout=5", b"Connection: keep-alive")
    async with behind(answer(whole)) as (found, server), connect(found.port) as connection:
        for _ in range(2):
            connection.writer.write(b"GET /x HTTP/1.1\r\nHost: x\r\n\r\n")
            assert await head_of(connection) == response(b"302 Anders", packed, *headers)[: -len(packed)]
            assert await connection._reader.readexactly(len(packed)) == packed
        assert all(each.all(b"Cookie") == [] for each in server.requests)
        assert len(server.requests) == 2


async def test_head_brings_the_head_alone() -> None:
    async with behind(answer(b"HTTP/1.1 200 OK\r\nContent-Length: 900\r\n\r\n")) as (found, server):
        async with connect(found.port) as connection:
            for _ in range(2):
                await connection.send("HEAD", "/api/client/features", headers_for(), None)
                assert (await connection.receive(head_only=True)).headers["content-length"] == "900"
        assert server.requests[0].line.startswith(b"HEAD ")
        assert server.connections == 1


@pytest.mark.parametrize(
    "framed",
    [
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\nX-Sum: 1\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nhello",
        b"HTTP/1.0 200 OK\r\n\r\nhello",
    ],
)
async def test_a_body_without_a_length_comes_in_chunks_or_until_the_end(framed: bytes) -> None:
    async def script(visit: Visit) -> None:
        await visit.send(framed)
        if b"chunked" not in framed:
            visit.close()

    async with behind(script) as (found, _):
        modern = await raw(found.port, b"GET /x HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        old = await raw(found.port, b"GET /x HTTP/1.0\r\n\r\n")
    head = b"HTTP/1.1 200 OK\r\n"
    assert modern == head + b"Transfer-Encoding: chunked\r\nConnection: close\r\n\r\n5\r\nhello\r\n0\r\n\r\n"
    assert old == head + b"Connection: close\r\n\r\nhello"


@pytest.mark.parametrize("status", [b"400 Bad Request", b"401 Unauthorized", b"404 Not Found", b"413 No", b"429 Slow"])
async def test_refusals_of_the_server_come_through(status: bytes) -> None:
    body = b'{"message":"from behind"}'
    async with behind(answer(response(status, body, b"Retry-After: 7"))) as (found, _):
        reply = await ask(found.port, "/api/client/features", method="GET")
        assert (reply.status, reply.body, reply.headers["retry-after"]) == (int(status[:3]), body, "7")
        assert outcome(found, "4xx") == 1


@pytest.mark.parametrize("status", [500, 502, 503, 504])
async def test_errors_of_the_server_come_through(status: int) -> None:
    async with behind(answer(response(b"%d Oh" % status, b"<html>"))) as (found, _):
        reply = await ask(found.port, "/api/client/features", method="GET")
        assert (reply.status, reply.body) == (status, b"<html>")
        assert "retry-after" not in reply.headers
        assert outcome(found, "5xx") == 1


# Streams.


async def events(visit: Visit) -> None:
    """A stream that sends an event whenever the test allows it, and never ends by itself."""
    await visit.send(STREAM)
    await visit.left()


async def test_the_events_of_a_stream_arrive_one_by_one_for_as_long_as_both_stay() -> None:
    gate = asyncio.Semaphore(0)

    async def script(visit: Visit) -> None:
        await visit.send(STREAM)
        for number in range(3):
            await gate.acquire()
            event = b"data: %d\n\n" % number
            await visit.send(b"%x\r\n%b\r\n" % (len(event), event))
        await gate.acquire()
        await visit.send(b"0\r\n\r\n")

    async with behind(script, unleash_silent_seconds=0.5) as (found, _), connect(found.port) as connection:
        await connection.send("GET", "/api/client/streaming", headers_for(Accept="text/event-stream"), None)
        assert b"Content-Type: text/event-stream\r\n" in await head_of(connection)
        assert await open_streams(found) == 1
        await asyncio.sleep(0.7)  # longer than any other answer may be silent
        for number in range(3):
            gate.release()
            assert await next_chunk(connection) == b"data: %d\n\n" % number
        gate.release()
        assert await next_chunk(connection) == b""
        await until(lambda: passing(found)._streams.requests == 0)


def passing(found: Running) -> Any:
    assert found.gateway._passing is not None
    return found.gateway._passing


async def open_streams(found: Running) -> float | None:
    return found.gateway._meters.registry.get_sample_value(names.OPEN_STREAMS.name)


async def test_a_client_that_leaves_a_stream_ends_it_behind() -> None:
    left = asyncio.Event()

    async def script(visit: Visit) -> None:
        await events(visit)
        left.set()

    async with behind(script) as (found, _):
        async with connect(found.port) as connection:
            await connection.send("GET", "/api/client/streaming", headers_for(), None)
            await head_of(connection)
        async with asyncio.timeout(support.SECONDS):
            await left.wait()
        assert outcome(found, "left") == 1
        assert await open_streams(found) == 0


async def test_a_client_that_leaves_before_the_answer_ends_the_request_behind() -> None:
    left = asyncio.Event()

    async def script(visit: Visit) -> None:
        await visit.left()
        left.set()

    async with behind(script) as (found, server):
        async with connect(found.port) as connection:
            await connection.send("GET", "/x", headers_for(), None)
            await until(lambda: len(server.requests) == 1)
        async with asyncio.timeout(support.SECONDS):
            await left.wait()
        assert (outcome(found, "left"), outcome(found, "away")) == (1, 0)


async def test_streams_and_other_requests_do_not_take_each_others_places() -> None:
    async def script(visit: Visit) -> None:
        if visit.received.line.startswith(b"GET /api/client/streaming"):
            await events(visit)
        await answer(response(b"200 OK"))(visit)

    bounds = {"unleash_max_requests": 1, "unleash_max_streams": 2}
    async with behind(script, **bounds) as (found, _), connect(found.port) as one, connect(found.port) as other:
        for connection in (one, other):
            await connection.send("GET", "/api/client/streaming", headers_for(), None)
            await head_of(connection)
        assert (await ask(found.port, "/x", method="GET")).status == 200
        refused = await ask(found.port, "/api/client/streaming", method="GET")
        assert (refused.status, "retry-after" in refused.headers) == (503, True)
        assert outcome(found, "full") == 1


async def test_above_the_bound_it_is_503_at_once_and_afterwards_200_again() -> None:
    gate = asyncio.Event()

    async def script(visit: Visit) -> None:
        await gate.wait()
        await answer(response(b"200 OK"))(visit)

    async with behind(script, unleash_max_requests=1) as (found, server), connect(found.port) as first:
        await first.send("GET", "/x", headers_for(), None)
        await until(lambda: len(server.requests) == 1)
        refused = await ask(found.port, "/x", method="GET")
        assert (refused.status, "retry-after" in refused.headers) == (503, True)
        assert (await ask(found.port)).status == 202
        gate.set()
        assert (await first.receive()).status == 200
        assert (await ask(found.port, "/x", method="GET")).status == 200


# Trouble with the server.


async def test_a_server_that_is_away_is_502_for_what_passes_and_nothing_to_the_metrics(
    capsys: pytest.CaptureFixture[str],
) -> None:
    url = f"http://127.0.0.1:{free_port()}"
    async with support.gateway(Path(), log=ScriptedLog(), unleash_url=url) as found:
        for path, method in (("/api/client/features", "GET"), ("/edge/validate", "POST"), ("/x", "HEAD")):
            reply = await ask(found.port, path, method=method)
            assert (reply.status, "retry-after" in reply.headers) == (502, True)
            assert method == "HEAD" or (set(reply.json()), reply.json()["name"]) == (JSON_ERROR, "BadGatewayError")
        assert (await ask(found.port, "/api/frontend", method="GET")).headers["access-control-allow-origin"] == "*"
        assert (await ask(found.port)).status == 202
        assert (await ask(found.port, "/readyz", method="GET")).status == 200
        assert outcome(found, "away") == 4
    seen = capsys.readouterr()
    assert (seen.out + seen.err).count("the Unleash server cannot be reached") == 1


@pytest.mark.parametrize(
    "broken",
    [
        b"nonsense\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
        b"HTTP/1.1 101 Switching\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n",
        b"",
    ],
)
async def test_an_answer_that_cannot_be_read_is_502(broken: bytes) -> None:
    async def script(visit: Visit) -> None:
        await visit.send(broken)
        visit.close()

    async with behind(script) as (found, _):
        reply = await ask(found.port, "/x", b"{}")
        assert (reply.status, set(reply.json())) == (502, JSON_ERROR)


async def test_a_server_that_does_not_begin_its_answer_is_504() -> None:
    async def script(visit: Visit) -> None:
        await visit.left()

    async with behind(script, unleash_silent_seconds=0.2) as (found, _):
        reply = await ask(found.port, "/api/client/features", method="GET")
        assert (reply.status, set(reply.json()), "retry-after" in reply.headers) == (504, JSON_ERROR, True)
        assert outcome(found, "late") == 1


async def test_a_server_that_takes_no_connection_is_504() -> None:
    async def hang(*_: object) -> None:
        await asyncio.Event().wait()

    async with behind(unleash_connect_seconds=0.2) as (found, _):
        passing(found)._server._connector._create_connection = hang
        reply = await ask(found.port, "/api/client/features", method="GET")
        assert (reply.status, set(reply.json())) == (504, JSON_ERROR)


@pytest.mark.parametrize(
    "begun",
    [
        b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n",
    ],
)
@pytest.mark.parametrize("end", ["close", "reset", "silence"])
async def test_an_answer_that_ends_in_the_middle_ends_in_the_middle_for_the_client(begun: bytes, end: str) -> None:
    async def script(visit: Visit) -> None:
        await visit.send(begun)
        if end == "silence":
            await visit.left()
        await gate.wait()
        if end == "close":
            visit.close()
        else:
            visit.reset()

    gate = asyncio.Event()
    patience = 1 if end == "silence" else 30
    async with behind(script, unleash_silent_seconds=patience) as (found, _), connect(found.port) as connection:
        connection.writer.write(b"GET /x HTTP/1.1\r\nHost: x\r\n\r\n")
        head = await head_of(connection)
        gate.set()
        rest = await connection.ended()
        assert head + rest in {begun, begun.removesuffix(b"half"), begun.removesuffix(b"4\r\nhalf\r\n")}
        assert outcome(found, "broken") == 1
        assert (await ask(found.port)).status == 202


async def test_a_kept_connection_that_the_server_closes_is_replaced_where_that_is_safe() -> None:
    async def script(visit: Visit) -> None:
        await visit.read_body()
        if len(server.requests) in {2, 4}:
            visit.close()
        else:
            await visit.send(response(b"200 OK"))

    async with behind(script) as (found, server):
        assert (await ask(found.port, "/x", method="GET")).status == 200
        assert (await ask(found.port, "/x", method="GET")).status == 200
        assert len(server.requests) == 3
        assert (await ask(found.port, "/x", b"{}")).status == 502
        assert len(server.requests) == 4


async def test_what_the_server_says_unasked_is_nobodys_answer() -> None:
    gate = asyncio.Event()

    async def script(visit: Visit) -> None:
        await visit.send(response(b"200 OK", b"mine"))
        if len(server.requests) == 1:
            await gate.wait()
            await visit.send(response(b"200 OK", b"unasked"))

    async with behind(script) as (found, server):
        assert (await ask(found.port, "/x", method="GET")).body == b"mine"
        kept = passing(found)._server._connector._conns
        [[(protocol, _)]] = kept.values()
        gate.set()
        await until(lambda: len(protocol) > 0)
        assert (await ask(found.port, "/x", method="GET")).body == b"mine"
        assert server.connections == 2


async def test_a_gateway_in_front_of_itself_ends_after_one_turn() -> None:
    async with (
        unleash() as server,
        support.gateway(Path(), log=ScriptedLog(), unleash_url=server.url) as inner,
        support.gateway(Path(), log=ScriptedLog(), unleash_url=f"http://127.0.0.1:{inner.port}") as outer,
    ):
        reply = await ask(outer.port, "/api/client/features", method="GET")
        assert (reply.status, set(reply.json())) == (508, JSON_ERROR)
        assert server.requests == []
        assert outcome(inner, "refused") == 1


async def flood(visit: Visit) -> None:
    """An answer that is too large for all buffers on its way."""
    await visit.send(b"HTTP/1.1 200 OK\r\nContent-Length: 200000000\r\n\r\n")
    for _ in range(2000):
        await visit.send(b"x" * 100_000)


async def test_a_client_that_reads_nothing_is_not_waited_for_without_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ingest_gateway.passthrough._STALLED_SECONDS", 0.2)
    async with behind(flood) as (found, _), connect(found.port) as connection:
        connection.writer.transport.pause_reading()  # type: ignore[attr-defined]
        await connection.send("GET", "/x", headers_for(), None)
        await until(lambda: outcome(found, "broken") == 1)
        assert passing(found)._requests.requests == 0


async def test_what_a_slow_reader_leaves_is_left_at_the_server(monkeypatch: pytest.MonkeyPatch) -> None:
    stopped = asyncio.Event()

    async def script(visit: Visit) -> None:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.5):
                await flood(visit)
        stopped.set()

    async with behind(script) as (found, _), connect(found.port) as connection:
        connection.writer.transport.pause_reading()  # type: ignore[attr-defined]
        await connection.send("GET", "/x", headers_for(), None)
        async with asyncio.timeout(support.SECONDS):
            await stopped.wait()
        connection.writer.transport.abort()


# The end.


async def test_the_end_closes_streams_properly_and_waits_for_nothing_else(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("ingest_gateway.server._FINISH_SECONDS", 0.3)

    async def script(visit: Visit) -> None:
        path = visit.received.line.split()[1]
        if path == b"/flood":
            await flood(visit)
        elif path == b"/half":
            await visit.send(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf")
        elif path == b"/stream":
            await visit.send(STREAM)
        await visit.left()

    async with unleash(script) as server:
        gateway = support.gateway(tmp_path, unleash_url=server.url)
        found = await gateway.__aenter__()
        async with (
            connect(found.port) as stream,
            connect(found.port) as waiting,
            connect(found.port) as half,
            connect(found.port) as stalled,
        ):
            stalled.writer.transport.pause_reading()  # type: ignore[attr-defined]
            for connection, path in ((stream, "/stream"), (waiting, "/x"), (half, "/half"), (stalled, "/flood")):
                await connection.send("GET", path, headers_for(), None)
            for connection in (stream, half):
                await head_of(connection)
            await until(lambda: len(server.requests) == 4)
            ending = asyncio.create_task(gateway.__aexit__(None, None, None))
            assert await stream.ended() == b"0\r\n\r\n"
            assert (await waiting.receive()).status == 503
            assert await half.ended() == b"half"
            async with asyncio.timeout(support.SECONDS):
                await ending


async def test_a_stream_that_begins_during_the_end_is_503() -> None:
    async with behind(events) as (found, _):
        passing(found).end_streams()
        assert (await ask(found.port, "/api/client/streaming", method="GET")).status == 503
        assert outcome(found, "ending") == 1


async def test_a_certificate_that_nobody_signed_is_not_trusted(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    async with unleash() as server:
        with TlsFront(authority.server("127.0.0.1"), server.port) as front:
            url = f"https://127.0.0.1:{front.port}"
            async with support.gateway(Path(), log=ScriptedLog(), unleash_url=url) as found:
                assert (await ask(found.port, "/api/client/features", method="GET")).status == 502
        assert server.requests == []


async def test_a_certificate_of_a_trusted_authority_is(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    authority = Authority(tmp_path / "ca")
    monkeypatch.setenv("SSL_CERT_FILE", str(authority.file))
    async with unleash() as server:
        with (
            TlsFront(authority.server("127.0.0.1"), server.port) as front,
            gateway_process(tmp_path / "data", unleash_url=f"https://127.0.0.1:{front.port}") as process,
        ):
            await asyncio.to_thread(process.await_ready)
            assert (await ask(process.port, "/api/client/features", method="GET")).status == 200
        assert server.requests[0].all(b"Host") == [f"127.0.0.1:{front.port}".encode()]


async def test_every_outcome_and_the_time_to_the_first_byte_are_counted() -> None:
    async with behind() as (found, _):
        await ask(found.port, "/x", method="GET")
        value = found.gateway._meters.registry.get_sample_value
        assert value(f"{names.PASSED_SECONDS.name}_count") == 1
        assert value(names.PASSED.name, {"outcome": "2xx"}) == 1


async def test_a_fault_of_ours_is_503_and_tells_nothing(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    value = f"{'value'}-of-the-client"  # put together: a traceback shows this very line

    def fail(*_: Any, **__: Any) -> bytes:
        raise ZeroDivisionError(value)

    async with behind() as (found, _):
        monkeypatch.setattr("ingest_gateway.forwarding.request_head", fail)
        assert (await ask(found.port, "/x", method="GET")).status == 503
        assert outcome(found, "failed") == 1
    seen = capsys.readouterr()
    assert "ZeroDivisionError" in seen.out + seen.err
    assert value not in seen.out + seen.err
