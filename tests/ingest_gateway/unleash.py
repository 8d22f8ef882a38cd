"""A scripted Unleash server: raw HTTP, so that every byte that arrives can be looked at, and every byte chosen."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from tests.ingest_gateway.support import SECONDS

FEATURES = b'{"version":2,"features":[]}'


@dataclass
class Received:
    """One request, as far as it was read."""

    line: bytes
    headers: list[tuple[bytes, bytes]]
    body: bytes = b""

    def all(self, name: bytes) -> list[bytes]:
        return [value for each, value in self.headers if each.lower() == name.lower()]


class Visit:
    """One request being served."""

    def __init__(self, received: Received, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.received = received
        self._reader = reader
        self._writer = writer

    async def read_body(self) -> bytes:
        """Read all of the body."""
        if self.received.all(b"Transfer-Encoding") == [b"chunked"]:
            while await self.read_chunk():
                pass
        else:
            lengths = self.received.all(b"Content-Length") or [b"0"]
            self.received.body += await self._reader.readexactly(int(lengths[0]))
        return self.received.body

    async def read_chunk(self) -> bytes:
        """Read one chunk of the body; nothing at its end."""
        size = int(await self._reader.readuntil(b"\r\n"), 16)
        chunk = await self._reader.readexactly(size)
        assert await self._reader.readexactly(2) == b"\r\n"
        self.received.body += chunk
        return chunk

    async def send(self, content: bytes) -> None:
        self._writer.write(content)
        await self._writer.drain()

    async def left(self) -> None:
        """Wait until the other side closes."""
        async with asyncio.timeout(SECONDS):
            assert await self._reader.read() == b""

    def close(self) -> None:
        self._writer.close()

    def reset(self) -> None:
        self._writer.transport.abort()


Script = Callable[[Visit], Awaitable[None]]


def answer(content: bytes) -> Script:
    """Answer every request with these bytes."""

    async def send(visit: Visit) -> None:
        await visit.read_body()
        await visit.send(content)

    return send


def response(status: bytes, body: bytes = b"", *headers: bytes) -> bytes:
    """Put an answer together, with its length."""
    return b"\r\n".join([b"HTTP/1.1 " + status, *headers, b"Content-Length: %d" % len(body), b"", body])


HELLO = answer(response(b"200 OK", FEATURES, b"Content-Type: application/json"))


@dataclass
class Unleash:
    port: int = 0
    requests: list[Received] = field(default_factory=list)
    connections: int = 0
    script: Script = HELLO

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        try:
            while True:
                line, *lines = (await reader.readuntil(b"\r\n\r\n")).split(b"\r\n")[:-2]
                pairs = [each.partition(b": ") for each in lines]
                visit = Visit(Received(line, [(name, value) for name, _, value in pairs]), reader, writer)
                self.requests.append(visit.received)
                await self.script(visit)
        except (EOFError, ConnectionError):
            writer.close()


@asynccontextmanager
async def unleash(script: Script | None = None) -> AsyncIterator[Unleash]:
    """Run such a server; its `script` may be changed while it runs."""
    made = Unleash() if script is None else Unleash(script=script)
    tasks: set[asyncio.Task[None]] = set()

    def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.create_task(made.serve(reader, writer))
        tasks.add(task)

    server = await asyncio.start_server(accept, "127.0.0.1", 0)
    made.port = server.sockets[0].getsockname()[1]
    try:
        yield made
    finally:
        server.close()
        for task in tasks:
            task.cancel()
        ended = await asyncio.gather(*tasks, return_exceptions=True)
        failed = [error for error in ended if isinstance(error, Exception)]
        assert not failed, failed
