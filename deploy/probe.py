"""Ask a service of ours whether it can work: one plain HTTP request, without loading a client library."""

import asyncio
from contextlib import suppress
from typing import Final
from urllib.parse import urlsplit

_SECONDS: Final = 2.0


async def answers(url: str) -> bool:
    """Say whether `GET url` is answered 200 within two seconds.

    Args:
        url: `http://host:port/path`.
    """
    try:
        async with asyncio.timeout(_SECONDS):
            return await _status(url) == b"200"
    except (OSError, TimeoutError):
        return False


async def _status(url: str) -> bytes:
    parts = urlsplit(url)
    reader, writer = await asyncio.open_connection(parts.hostname, parts.port)
    try:
        writer.write(f"GET {parts.path} HTTP/1.1\r\nHost: {parts.netloc}\r\nConnection: close\r\n\r\n".encode())
        head = await reader.readline()  # HTTP/1.1 200 OK
        return (head.split() + [b""] * 2)[1]
    finally:
        writer.close()
        with suppress(OSError):
            await writer.wait_closed()
