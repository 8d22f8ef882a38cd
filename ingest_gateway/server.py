"""The gateway as a running service: its parts wired, its port opened, and its end without losing an answer."""

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Final

import structlog
from aiohttp import web
from prometheus_client import CollectorRegistry, ProcessCollector

from ingest_gateway import answers
from ingest_gateway.app import Gateway, Limits
from ingest_gateway.authorize import Tokens
from ingest_gateway.brokers.sqlite import LogFile, SqliteLog
from ingest_gateway.config import Config
from ingest_gateway.door import Door
from ingest_gateway.groups import Bounds, GroupedWriter
from ingest_gateway.meters import Meters
from ingest_gateway.refusals import Refused
from ingest_gateway.routing import Routes
from ingest_gateway.writer import Log

_log = structlog.get_logger()

_KEEP_ALIVE_SECONDS: Final = 75.0
"""SDKs post every 60 s: their connections stay open in between."""
_LINGERING_SECONDS: Final = 3.0
"""How long the rest of a refused body is read and dropped, so that the client sees its answer and no reset."""
_READ_BUFFER_BYTES: Final = 16 * 1024
"""aiohttp pauses a connection at twice this: what a thousand of them hold unread is bounded, and not counted."""
_FINISH_SECONDS: Final = 6.0
"""Longer than any request waits for the broker (4.5 s)."""
_CLOSE_SECONDS: Final = 10.0
_BACKLOG: Final = 2048


@dataclass(frozen=True, slots=True)
class Running:
    """A gateway that listens; `port` is the real one, also where the configuration says 0."""

    port: int
    gateway: Gateway
    door: Door
    writer: GroupedWriter


async def serve(config: Config, tokens: Tokens, stop: asyncio.Event) -> None:
    """Run the gateway until `stop` is set; what was answered with a 2xx is in the broker when this returns."""
    async with running(config, tokens) as gateway:
        _log.info("the gateway listens", host=config.host, port=gateway.port)
        await stop.wait()
        _log.info("the gateway ends")


@contextlib.asynccontextmanager
async def running(
    config: Config, tokens: Tokens, *, log: Log | None = None, bounds: Bounds | None = None
) -> AsyncIterator[Running]:
    """Open the gateway's port for as long as the block runs.

    Args:
        config: where it listens, and its limits.
        tokens: the known ones.
        log: what to append to; by default the configured broker.
        bounds: how long an append may wait.

    Raises:
        OSError: the port is in use.
    """
    registry = CollectorRegistry()
    ProcessCollector(registry=registry)
    meters = Meters(registry)
    door = Door(max_bytes=config.max_in_flight_bytes, max_requests=config.max_in_flight_requests)
    door.show(meters.in_flight_bytes)
    writer = GroupedWriter(log or SqliteLog(LogFile(config.broker.path)), meters, bounds)
    gateway = Gateway(
        routes=Routes(frontend_api=config.frontend_api),
        tokens=tokens,
        writer=writer,
        door=door,
        limits=Limits(body_bytes=config.max_body_bytes, body_seconds=config.body_seconds),
        meters=meters,
    )
    runner = web.ServerRunner(_Server(gateway.handle, handler_cancellation=True), shutdown_timeout=_FINISH_SECONDS)
    try:
        await runner.setup()
        site = web.TCPSite(runner, config.host, config.gateway_port, backlog=_BACKLOG)
        await site.start()
        yield Running(site.port, gateway, door, writer)
        gateway.draining = True
        await asyncio.sleep(config.unready_seconds)
        await site.stop()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_FINISH_SECONDS):
                await door.emptied()
    finally:
        await runner.cleanup()
        try:
            async with asyncio.timeout(_CLOSE_SECONDS):
                await writer.close()
        except TimeoutError:
            _log.error("the broker did not answer at the end; nothing that it holds back was acknowledged")


class _Protocol(web.RequestHandler):
    """A connection; what is not HTTP is answered without repeating any of it: it may hold a token."""

    __slots__ = ()

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        del request, message
        _log.debug("a request could not be read", status=status, fault=type(exc).__name__)
        return answers.refusal(Refused.with_message(status, "bad request"), frontend=False, keep=False)

    def log_exception(self, *args: object, **kw: object) -> None:
        """Log that a connection failed, and of which fault; never what was in it."""
        del args
        _log.error("a connection failed", fault=type(kw.get("exc_info")).__name__)


class _Server(web.Server):
    """aiohttp's server without an application: one handler, no middlewares, no access log, no inflating."""

    def __call__(self) -> web.RequestHandler:
        return _Protocol(
            self,
            loop=self._loop,
            access_log=None,  # type: ignore[arg-type]  # aiohttp's own way to switch it off
            auto_decompress=False,
            keepalive_timeout=_KEEP_ALIVE_SECONDS,
            lingering_time=_LINGERING_SECONDS,
            read_bufsize=_READ_BUFFER_BYTES,
            logger=_silent,
        )


# aiohttp logs what it could not parse, word for word.
_silent: Final = logging.getLogger("ingest_gateway.http")
_silent.disabled = True
