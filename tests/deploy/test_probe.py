import asyncio

import pytest

from deploy import probe
from tests.support.ports import free_port


async def asked(reply: bytes) -> tuple[bool, bytes]:
    """Answer one probe with these bytes; give its verdict and what it sent."""
    heard: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heard.append(await reader.readuntil(b"\r\n\r\n"))
        writer.write(reply)
        await writer.drain()
        writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        return await probe.answers(f"http://127.0.0.1:{port}/readyz"), heard[0]


async def test_200_is_yes():
    verdict, request = await asked(b"HTTP/1.1 200 OK\r\n\r\n")
    assert verdict is True
    assert request.startswith(b"GET /readyz HTTP/1.1\r\nHost: 127.0.0.1:")


@pytest.mark.parametrize(
    "reply", [b"HTTP/1.1 503 Service Unavailable\r\n\r\n", b"", b"\n", b"nonsense\r\n", b"200\r\n"]
)
async def test_everything_else_is_no(reply):
    verdict, _ = await asked(reply)
    assert verdict is False


async def test_nobody_there_is_no():
    assert await probe.answers(f"http://127.0.0.1:{free_port()}/readyz") is False


async def test_silence_is_no_after_a_while(monkeypatch):
    monkeypatch.setattr(probe, "_SECONDS", 0.05)

    async def say_nothing(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    async with await asyncio.start_server(say_nothing, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        assert await probe.answers(f"http://127.0.0.1:{port}/readyz") is False
