"""The gateway as a running service: its parts wired, its port opened, and its end without losing an answer."""

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Final

import structlog
from aiohttp import web
from prometheus_client import CollectorRegistry, ProcessCollector

from ingest_gateway import answers, mirror
from ingest_gateway.app import Gateway, Limits
from ingest_gateway.authorize import Tokens
from ingest_gateway.behind import Behind
from ingest_gateway.brokers.sqlite import LogFile, SqliteLog
from ingest_gateway.config import Config
from ingest_gateway.door import Door
from ingest_gateway.groups import Bounds, GroupedWriter
from ingest_gateway.known_tokens import KnownTokens
from ingest_gateway.meters import Meters
from ingest_gateway.partitions import PartitionedWriter
from ingest_gateway.rates import Rates
from ingest_gateway.refusals import Refused
from ingest_gateway.routing import Routes
from ingest_gateway.token_cache import Lasting
from ingest_gateway.token_questions import Bounds as QuestionBounds
from ingest_gateway.token_upstream import HttpUpstream
from ingest_gateway.writer import Log, Writer
from schemas import urls
from schemas.peers import Alone, Peers

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
_LAST_ANSWERS_SECONDS: Final = 1.0
"""How long kept connections are still served once the port is closed: a busy one ends with its next answer."""
_FIRST_CONTACT_SECONDS: Final = 3.0
"""How long the port stays closed for the broker's sake; then 503 and `/readyz` say what is wrong."""
_LOOK_SECONDS: Final = 0.02
STOP_SECONDS: Final = _LAST_ANSWERS_SECONDS + 2 * _FINISH_SECONDS + mirror.CLOSE_SECONDS + _CLOSE_SECONDS + 2.0
"""The longest end once the port is closed: requests, connections, mirror, broker, and what a busy machine adds."""
_BACKLOG: Final = 2048


@dataclass(frozen=True, slots=True)
class Running:
    """A gateway that listens; `port` is the real one, also where the configuration says 0."""

    port: int
    gateway: Gateway
    door: Door
    writer: Writer


async def serve(config: Config, tokens: Tokens, stop: asyncio.Event, peers: Peers | None = None) -> None:
    """Run the gateway until `stop` is set; what was answered with a 2xx is in the broker when this returns."""
    async with running(config, tokens, peers=peers) as gateway:
        _log.info("the gateway listens", host=config.host, port=gateway.port)
        await stop.wait()
        _log.info("the gateway ends")


@contextlib.asynccontextmanager
async def running(
    config: Config,
    tokens: Tokens,
    *,
    log: Log | None = None,
    bounds: Bounds | None = None,
    peers: Peers | None = None,
) -> AsyncIterator[Running]:
    """Open the gateway's port for as long as the block runs.

    Args:
        config: where it listens, and its limits.
        tokens: the known ones.
        log: what to append to; by default the configured broker.
        bounds: how long an append may wait.
        peers: the other processes of this gateway; by default there are none.

    Raises:
        OSError: the port is in use.
    """
    peers = peers or Alone()
    registry = CollectorRegistry()
    ProcessCollector(registry=registry)
    meters = Meters(registry)
    door = Door(
        max_bytes=config.max_in_flight_bytes, max_requests=config.max_in_flight_requests, share=config.max_token_share
    )
    door.show(meters.in_flight_bytes)
    writer = _writer(config, log, meters, bounds)
    asking = _asking(config, tokens, meters)
    behind = Behind(config, meters)
    alone = behind.passing is None
    gateway = Gateway(
        routes=Routes(frontend_api=config.frontend_api, validate=alone, edge_data=alone),
        tokens=asking or tokens,
        upstream=asking,
        writer=writer,
        door=door,
        rates=Rates(rate=config.token_rate, burst=config.burst) if config.token_rate else None,
        limits=Limits(body_bytes=config.max_body_bytes, body_seconds=config.body_seconds),
        meters=meters,
        peers=peers,
        passing=behind.passing,
        mirror=behind.mirror,
    )
    server = _Server(gateway.handle, handler_cancellation=True)
    runner = web.ServerRunner(server, shutdown_timeout=_FINISH_SECONDS)
    try:
        await runner.setup()
        await _first_contact(writer)
        site = web.TCPSite(runner, config.host, config.gateway_port, backlog=_BACKLOG, reuse_port=peers.shares_port)
        await site.start()
        yield Running(site.port, gateway, door, writer)
        gateway.draining = True
        await asyncio.sleep(config.unready_seconds)
        await site.stop()
        behind.end_streams()
        await _last_answers(server)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_FINISH_SECONDS):
                await door.emptied()
                await behind.emptied()
    finally:
        behind.abandon()
        await runner.cleanup()
        gateway.close()
        await behind.close()
        if asking is not None:
            await asking.close()
        try:
            async with asyncio.timeout(_CLOSE_SECONDS):
                await writer.close()
        except TimeoutError:
            _log.error("the broker did not answer at the end; nothing that it holds back was acknowledged")


async def _first_contact(writer: Writer) -> None:
    """Wait until the broker takes events, a few seconds at most: a restart answers no 503 then."""
    await _wait_while(lambda: writer.trouble() is not None, seconds=_FIRST_CONTACT_SECONDS)


async def _last_answers(server: web.Server) -> None:
    """Serve on until no connection is left, for a second at most.

    Each answer says `Connection: close` now. To close a connection that is in use instead would leave its client
    without an answer for what it just sent, and without a way to tell whether it was taken.
    """
    await _wait_while(lambda: bool(server.connections), seconds=_LAST_ANSWERS_SECONDS)


async def _wait_while(condition: Callable[[], bool], *, seconds: float) -> None:
    """Look again and again, for so long at most: nobody tells when either of these changes."""
    loop = asyncio.get_running_loop()
    until = loop.time() + seconds
    while condition() and loop.time() < until:  # noqa: ASYNC110
        await asyncio.sleep(_LOOK_SECONDS)


def _writer(config: Config, log: Log | None, meters: Meters, bounds: Bounds | None) -> Writer:
    """Choose what appends. Kafka's client is loaded only where it is used: it costs time at the start, and memory."""
    broker = config.broker
    if log is not None:
        return GroupedWriter(log, meters, bounds)
    if isinstance(broker, urls.KafkaBroker):
        from ingest_gateway.brokers import kafka, kafka_producer  # noqa: PLC0415 - see above

        cluster = kafka_producer.KafkaCluster(broker, config)
        return PartitionedWriter(kafka.KafkaTopic(cluster, meters), meters, kafka.bounds(bounds))
    return GroupedWriter(SqliteLog(LogFile(broker.path)), meters, bounds)


def _asking(config: Config, tokens: Tokens, meters: Meters) -> KnownTokens | None:
    """Put the tokens' upstream behind the file's tokens, where there is one."""
    if config.tokens_url is None:
        return None
    bounds = QuestionBounds(wait=config.tokens_wait_seconds)
    lasting = Lasting(
        refresh=config.tokens_refresh_seconds,
        grace=config.tokens_grace_seconds,
        unknown=config.tokens_unknown_seconds,
        entries=config.tokens_cache_entries,
    )
    upstream = HttpUpstream(urls.parse_http_server(config.tokens_url), connections=bounds.posts)
    return KnownTokens(tokens, upstream, lasting, bounds, meters)


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
