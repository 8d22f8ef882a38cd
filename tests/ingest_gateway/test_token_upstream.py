"""The question over HTTP, and everything that may be wrong with its answer."""

import asyncio
import json
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest
import trustme
from aiohttp import web

from ingest_gateway.token_upstream import HttpUpstream, NoAnswer
from schemas import urls
from tests.ingest_gateway.upstream import HttpUpstreamStub, entry, http_upstream
from tests.support.ports import free_port

A, B = "default:development.aaaaaaaaaaaaaaaa", "default:development.bbbbbbbbbbbbbbbb"

Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@asynccontextmanager
async def upstream_at(root: str) -> AsyncIterator[HttpUpstream]:
    upstream = HttpUpstream(urls.parse_http_server(root), connections=2)
    try:
        yield upstream
    finally:
        await upstream.close()


@pytest.fixture
async def stub() -> AsyncIterator[HttpUpstreamStub]:
    async with http_upstream() as running:
        yield running


@pytest.fixture
async def upstream(stub: HttpUpstreamStub) -> AsyncIterator[HttpUpstream]:
    async with upstream_at(stub.root) as running:
        yield running


@asynccontextmanager
async def raw_server(handler: Handler) -> AsyncIterator[str]:
    server = await asyncio.start_server(handler, "127.0.0.1", 0)
    async with server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"


async def test_it_asks_as_an_edge_does_and_reads_what_unleash_answers(
    stub: HttpUpstreamStub, upstream: HttpUpstream
) -> None:
    stub.add(A, projects=["shop"])
    found = await upstream.ask([A, B])
    assert stub.asked == [[A, B]]
    assert found[B] is None
    token = found[A]
    assert token is not None
    assert (token.type, token.project, token.environment) == ("backend", "shop", "development")
    assert "Authorization" not in stub.headers[0]
    assert stub.headers[0]["Content-Type"] == "application/json"


async def test_a_server_may_stand_behind_a_prefix(stub: HttpUpstreamStub) -> None:
    stub.add(A)
    async with upstream_at(f"{stub.root}/behind/a/prefix/") as upstream:
        assert (await upstream.ask([A]))[A] is not None


async def test_connections_are_kept(stub: HttpUpstreamStub, upstream: HttpUpstream) -> None:
    for _ in range(5):
        await upstream.ask([A])
    assert len({headers["Host"] for headers in stub.headers}) == 1
    assert len(stub.server.runner.server.connections) == 1  # type: ignore[union-attr]


async def test_a_kept_connection_that_the_server_closes_is_replaced_unseen() -> None:
    answered = 0

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal answered
        await reader.readuntil(b"\r\n\r\n")
        body = b'{"tokens":[]}'
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body))
        answered += 1
        await reader.readuntil(b"}")
        await reader.readuntil(b"\r\n\r\n")  # the next question on this connection gets no answer
        writer.close()

    async with raw_server(serve) as root, upstream_at(root) as upstream:
        assert await upstream.ask([A]) == {A: None}
        assert await upstream.ask([A]) == {A: None}
    assert answered == 2


@pytest.mark.parametrize("status", [201, 204, 301, 302, 307, 400, 401, 403, 404, 413, 429, 500, 503])
async def test_any_status_but_200_is_no_answer_and_no_redirect_is_followed(
    status: int, stub: HttpUpstreamStub, upstream: HttpUpstream
) -> None:
    elsewhere = {"Location": f"{stub.root}/behind/a/prefix/edge/validate"}
    stub.answer = lambda: web.Response(status=status, headers=elsewhere)
    with pytest.raises(NoAnswer, match=f"^status {status}$"):
        await upstream.ask([A])
    assert len(stub.asked) == 1


@pytest.mark.parametrize(
    "body", [b"", b"<html>sign in</html>", b"{}", b'{"tokens":{}}', b"null", b'{"tokens":[', b"\x1f\x8b\x08garbage"]
)
async def test_nonsense_is_no_answer(body: bytes, stub: HttpUpstreamStub, upstream: HttpUpstream) -> None:
    stub.answer = lambda: web.Response(body=body, content_type="application/json")
    with pytest.raises(NoAnswer, match="cannot be read"):
        await upstream.ask([A])


async def test_a_broken_entry_leaves_the_others_in_the_dark_and_not_unknown(
    stub: HttpUpstreamStub, upstream: HttpUpstream
) -> None:
    stub.answer = lambda: web.json_response({"tokens": [entry(A), {"token": B, "type": 5}]})
    found = await upstream.ask([A, B])
    assert list(found) == [A]


async def test_a_token_that_cannot_be_used_is_unknown_and_logged_by_its_id(
    stub: HttpUpstreamStub, upstream: HttpUpstream, capsys: pytest.CaptureFixture[str]
) -> None:
    stub.add(A, projects=["__batch__"])
    assert await upstream.ask([A]) == {A: None}
    seen = capsys.readouterr()
    assert "reserved" in seen.out
    assert A not in seen.out + seen.err


async def test_an_endless_answer_is_cut_off() -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        try:
            while True:
                writer.write(b"10000\r\n" + b" " * 65536 + b"\r\n")
                await writer.drain()
        except ConnectionError:
            writer.close()

    async with raw_server(serve) as root, upstream_at(root) as upstream:
        with pytest.raises(NoAnswer, match="too long"):
            await upstream.ask([A])


async def test_nobody_there_is_no_answer() -> None:
    async with upstream_at(f"http://127.0.0.1:{free_port()}") as upstream:
        with pytest.raises(NoAnswer, match="ClientConnectorError"):
            await upstream.ask([A])


@pytest.mark.parametrize("said", [b"", b"\x00\x01\x02\r\n\r\n", b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n{"])
async def test_a_connection_that_breaks_is_no_answer(said: bytes) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(said)
        writer.close()

    async with raw_server(serve) as root, upstream_at(root) as upstream:
        with pytest.raises(NoAnswer) as no_answer:
            await upstream.ask([A])
    assert A not in str(no_answer.value)


async def test_a_certificate_that_nobody_vouches_for_is_no_answer() -> None:
    own_certificate = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    trustme.CA().issue_cert("127.0.0.1").configure_cert(own_certificate)

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 13\r\n\r\n" + b'{"tokens":[]}')
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=own_certificate)
    async with server, upstream_at(f"https://127.0.0.1:{server.sockets[0].getsockname()[1]}") as upstream:
        with pytest.raises(NoAnswer, match="Certificate"):
            await upstream.ask([A])


async def test_compression_is_not_asked_for_and_cookies_are_not_kept(
    stub: HttpUpstreamStub, upstream: HttpUpstream
) -> None:
    stub.answer = lambda: web.json_response({"tokens": []}, headers={"Set-Cookie": "session=1"})
    await upstream.ask([A])
    await upstream.ask([A])
    assert [headers.get("Accept-Encoding") for headers in stub.headers] == ["identity", "identity"]
    assert all("Cookie" not in headers for headers in stub.headers)
    assert json.dumps(stub.asked) == json.dumps([[A], [A]])
