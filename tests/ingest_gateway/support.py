"""A gateway in this process, raw HTTP to speak to it, and brokers that fail in chosen ways."""

import asyncio
import json
import sqlite3
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ingest_gateway.config import Config
from ingest_gateway.groups import Bounds
from ingest_gateway.server import Running, running
from ingest_gateway.writer import Log
from schemas import sqlite_log, tokens
from schemas.event import Event, Headers, unpack
from tests.support.waiting import until

BACKEND_DEV = "default:development.unit-backend"
BACKEND_PROD = "*:production.unit-backend"
BACKEND_ANY = "*:*.unit-backend"
FRONTEND_DEV = "default:development.unit-frontend"
ADMIN = "*:*.unit-admin"
SECONDS = 20.0

TOKENS_FILE = json.dumps(
    {
        "tokens": [
            {"token": BACKEND_DEV, "type": "backend", "projects": ["default"], "environment": "development"},
            {"token": BACKEND_PROD, "type": "backend", "projects": ["*"], "environment": "production"},
            {"token": BACKEND_ANY, "type": "backend", "projects": ["*"], "environment": "*"},
            {"token": FRONTEND_DEV, "type": "frontend", "projects": ["default"], "environment": "development"},
            {"token": ADMIN, "type": "admin", "projects": ["*"], "environment": "*"},
        ]
    }
).encode()
TABLE = tokens.read(TOKENS_FILE)

WINDOW = {
    "appName": "shop",
    "instanceId": "i1",
    "bucket": {
        "start": "2026-11-22T12:00:00Z",
        "stop": "2026-11-22T12:01:00Z",
        "toggles": {"flagA": {"yes": 1, "no": 2, "variants": {"blue": 1}}},
    },
}
BULK: dict[str, Any] = {"applications": [], "metrics": []}
REGISTRATION = {"appName": "shop", "strategies": ["default"], "started": "2026-11-22T00:00:00Z", "interval": 15000}

QUICK = Bounds(withdraw_after=0.15, doubt_after=0.3, sweep_every=0.02, probe_every=0.05)


def window(flag: str = "flagA", **fields: Any) -> bytes:
    """One SDK's window with one flag, as bytes."""
    bucket = {**WINDOW["bucket"], "toggles": {flag: {"yes": 1, "no": 0}}}  # type: ignore[dict-item]
    return json.dumps({**WINDOW, "bucket": bucket, **fields}).encode()


@dataclass(frozen=True)
class Reply:
    status: int
    headers: dict[str, str]
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)


class Connection:
    """One raw HTTP/1.1 connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self.writer = writer

    async def send(
        self, method: str, path: str, headers: Sequence[tuple[str, str]], body: bytes | None, *, length: bool = True
    ) -> None:
        lines = [f"{method} {path} HTTP/1.1", "Host: gateway", *(f"{name}: {value}" for name, value in headers)]
        if body is not None and length:
            lines.append(f"Content-Length: {len(body)}")
        self.writer.write("\r\n".join([*lines, "", ""]).encode("latin-1") + (body or b""))
        await self.writer.drain()

    async def receive(self, *, head_only: bool = False, seconds: float = SECONDS) -> Reply:
        async with asyncio.timeout(seconds):
            head = (await self._reader.readuntil(b"\r\n\r\n")).decode("latin-1")
            first, *lines = head.split("\r\n")[:-2]
            headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
            body = b"" if head_only else await self._reader.readexactly(int(headers.get("content-length", "0")))
            return Reply(int(first.split()[1]), headers, body)

    async def ended(self) -> bytes:
        """Read until the other side closes; gives what still came."""
        async with asyncio.timeout(SECONDS):
            return await self._reader.read()


@asynccontextmanager
async def connect(port: int) -> AsyncIterator[Connection]:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        yield Connection(reader, writer)
    finally:
        writer.close()


def headers_for(
    token: str | None = BACKEND_DEV, content_type: str = "application/json", **more: str
) -> list[tuple[str, str]]:
    found = [("Authorization", token)] if token is not None else []
    if content_type:
        found.append(("Content-Type", content_type))
    return found + [(name.replace("_", "-"), value) for name, value in more.items()]


async def ask(
    port: int,
    path: str = "/api/client/metrics",
    body: bytes | None = None,
    headers: Sequence[tuple[str, str]] | None = None,
    method: str = "POST",
) -> Reply:
    """Send one request on a connection of its own."""
    async with connect(port) as connection:
        sent = headers_for() if headers is None else headers
        await connection.send(method, path, sent, window() if body is None and method == "POST" else body)
        return await connection.receive(head_only=method == "HEAD")


@asynccontextmanager
async def gateway(
    folder: Path, *, log: Log | None = None, bounds: Bounds | None = None, ready: bool = True, **settings: Any
) -> AsyncIterator[Running]:
    """Run a gateway on a free port, by default on a SQLite broker in `folder`."""
    config = Config(data_dir=folder, gateway_port=0, **settings)
    async with running(config, TABLE, log=log, bounds=bounds) as found:
        if ready:
            await until(lambda: found.writer.trouble() is None)
        yield found


def log_of(folder: Path) -> list[tuple[Headers, bytes]]:
    """Read what the broker's file holds."""
    connection = sqlite_log.connect(folder / "broker.db", busy_seconds=1)
    try:
        rows = connection.execute("SELECT headers, value FROM log ORDER BY id").fetchall()
    finally:
        connection.close()
    found = [(unpack(headers), value) for headers, value in rows]
    assert all(isinstance(headers, Headers) for headers, _ in found)
    return found  # type: ignore[return-value]


@asynccontextmanager
async def locked(folder: Path) -> AsyncIterator[None]:
    """Hold the broker's file as another process would."""
    connection = sqlite3.connect(folder / "broker.db", isolation_level=None)
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
    finally:
        connection.close()


class ScriptedLog:
    """A log that does what it is told; by default it keeps everything at once."""

    def __init__(self) -> None:
        self.groups: list[list[Event]] = []
        self.fault: Exception | None = None
        self.probe_fault: Exception | None = None
        self.gate = asyncio.Event()
        self.gate.set()
        self.entered = 0
        self.probes = 0
        self.closed = False

    async def append(self, events: Sequence[Event]) -> None:
        self.entered += 1
        await self.gate.wait()
        if self.fault is not None:
            raise type(self.fault)(*self.fault.args)
        self.groups.append(list(events))

    async def probe(self) -> None:
        self.probes += 1
        await self.gate.wait()
        if self.probe_fault is not None:
            raise type(self.probe_fault)(*self.probe_fault.args)

    async def close(self) -> None:
        self.closed = True

    @property
    def events(self) -> list[Event]:
        return [event for group in self.groups for event in group]
