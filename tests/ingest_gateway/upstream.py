"""Upstreams for tokens that do as they are told: one in this process, and one behind HTTP."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any

from aiohttp import web
from aiohttp.test_utils import TestServer
from prometheus_client import CollectorRegistry

from ingest_gateway.meters import Meters
from ingest_gateway.token_upstream import NoAnswer
from schemas.tokens import Token, TokenEntry, TokenType, token_of


def token(text: str, *, kind: TokenType = TokenType.BACKEND, environment: str = "development") -> Token:
    return token_of(TokenEntry(token=text, type=kind, projects=["default"], environment=environment))


def entry(text: str, **changes: Any) -> dict[str, Any]:
    """What a real server says of a token."""
    return {"token": text, "type": "client", "projects": ["default"], "environment": "development"} | changes


class Clock:
    """Seconds that pass when a test says so."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class Metered:
    """Meters of their own, and what they show."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.meters = Meters(self.registry)

    def value(self, name: str, **labels: str) -> float:
        return self.registry.get_sample_value(name, labels) or 0.0


class FakeUpstream:
    """Knows some tokens; may be told to wait, to fail, or to leave tokens without an answer."""

    def __init__(self, *known: str) -> None:
        self.known = {text: token(text) for text in known}
        self.silent: set[str] = set()
        self.asked: list[list[str]] = []
        self.fault: Exception | None = None
        self.gate = asyncio.Event()
        self.gate.set()
        self.closed = False

    async def ask(self, texts: Sequence[str]) -> dict[str, Token | None]:
        self.asked.append(list(texts))
        await self.gate.wait()
        if self.fault is not None:
            raise self.fault
        return {text: self.known.get(text) for text in texts if text not in self.silent}

    async def close(self) -> None:
        self.closed = True

    def fail(self, why: str = "status 500") -> None:
        self.fault = NoAnswer(why)


class HttpUpstreamStub:
    """A server with `POST /edge/validate`, as an Unleash server answers it; `answer` replaces what it says."""

    def __init__(self) -> None:
        self.known: dict[str, dict[str, Any]] = {}
        self.asked: list[list[str]] = []
        self.headers: list[dict[str, str]] = []
        self.answer: Callable[[], web.Response] | None = None
        self.status = 200
        self.gate = asyncio.Event()
        self.gate.set()
        self.root = ""
        self.server = TestServer(self._application())

    def _application(self) -> web.Application:
        application = web.Application()
        application.router.add_post("/edge/validate", self._validate)
        application.router.add_post("/behind/a/prefix/edge/validate", self._validate)
        return application

    async def _validate(self, request: web.Request) -> web.StreamResponse:
        texts = json.loads(await request.read())["tokens"]
        self.asked.append(texts)
        self.headers.append(dict(request.headers))
        await self.gate.wait()
        if self.answer is not None:
            return self.answer()
        found = [self.known[text] for text in texts if text in self.known]
        return web.json_response({"tokens": found}, status=self.status)

    def add(self, text: str, **changes: Any) -> str:
        self.known[text] = entry(text, **changes)
        return text


@asynccontextmanager
async def http_upstream() -> AsyncIterator[HttpUpstreamStub]:
    stub = HttpUpstreamStub()
    await stub.server.start_server()
    stub.root = f"http://127.0.0.1:{stub.server.port}"
    try:
        yield stub
    finally:
        stub.gate.set()
        await stub.server.close()
