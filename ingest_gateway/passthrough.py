"""What is not ours goes to the Unleash server behind the gateway, and its answer comes back: both unchanged.

Nothing is inflated, followed, cached or kept, and bodies flow in both directions without being held.
"""

import asyncio
import time
import traceback
from dataclasses import dataclass
from typing import Final
from urllib.parse import unquote

import structlog
from aiohttp import HttpVersion11, hdrs, web
from aiohttp.abc import AbstractStreamWriter
from aiohttp.http_exceptions import HttpProcessingError

from ingest_gateway import answers, forwarding, refusals
from ingest_gateway.answers import Answer
from ingest_gateway.door import Door
from ingest_gateway.forwarding import Incoming
from ingest_gateway.meters import Meters
from ingest_gateway.refusals import Busy, Refused
from ingest_gateway.routing import path_of
from ingest_gateway.unleash_server import Answered, Away, Exchange, Late, Presence, UnleashServer

_log = structlog.get_logger()

_CONTINUE: Final = 100
_CONTINUED: Final = b"HTTP/1.1 100 Continue\r\n\r\n"
_LAST_CHUNK: Final = b"0\r\n\r\n"
_STALLED_SECONDS: Final = 60.0
"""How long a client may leave unread what waits for it."""
_REPEATABLE: Final = frozenset({hdrs.METH_GET, hdrs.METH_HEAD, hdrs.METH_OPTIONS})
"""Asked once more where a kept connection was closed before the answer (RFC 9110, 9.2.2)."""
_FRONTEND: Final = "/api/frontend"


@dataclass(frozen=True, slots=True)
class Bounds:
    """How much passes at the same time, and how long it may take.

    Attributes:
        requests: most of them; streams are not counted.
        streams: most streams of events.
        body_bytes: most bytes of a request's body.
        body_seconds: how long a client may take to send it.
        silent_seconds: how long the server may take to begin its answer, and then between two pieces of it.
    """

    requests: int
    streams: int
    body_bytes: int
    body_seconds: float
    silent_seconds: float


class PassThrough:
    """Passes requests on.

    Args:
        server: where to.
        bounds: of all requests together, and of each.
        meters: what is counted.
        frontend_api: whether the paths for browsers pass.
    """

    def __init__(self, server: UnleashServer, bounds: Bounds, meters: Meters, *, frontend_api: bool = True) -> None:
        self._server = server
        self._bounds = bounds
        self._frontend_api = frontend_api
        self._passed = meters.passed
        self._first_byte_seconds = meters.passed_seconds
        self._requests = Door(max_bytes=0, max_requests=bounds.requests)
        self._streams = Door(max_bytes=0, max_requests=bounds.streams)
        meters.open_streams.set_function(lambda: self._streams.requests)
        self._open: dict[Exchange, web.BaseRequest] = {}
        self._open_streams: set[Exchange] = set()
        self._ending = False
        self._presence = Presence("the Unleash server cannot be reached", "the Unleash server answers again")

    def takes(self, request: web.BaseRequest) -> bool:
        """Say whether a request passes: a target that is no path never does, and those for browsers may be off."""
        target = request.raw_path
        if not target.startswith("/") or request.method == hdrs.METH_CONNECT:
            return False
        return self._frontend_api or not _is_frontend(unquote(target))

    async def answer(self, request: web.BaseRequest, *, keep: bool) -> web.StreamResponse:
        """Pass a request on, and its answer back.

        Args:
            request: one that `takes` takes.
            keep: whether the client's connection may stay open.
        """
        try:
            return await self._pass(request, keep=keep)
        except asyncio.CancelledError:
            self._passed.labels("left").inc()
            raise
        except Exception as trouble:  # noqa: BLE001 - whatever it is, it costs this request alone
            outcome, instead = self._instead(trouble, frontend=_is_frontend(request.raw_path), keep=keep)
        self._passed.labels(outcome).inc()
        if request.method == hdrs.METH_HEAD:
            instead.drop_body()
        return instead

    def end_streams(self) -> None:
        """End every stream, as the server itself would, and take no more of them."""
        self._ending = True
        for exchange in tuple(self._open_streams):
            exchange.end()

    async def emptied(self) -> None:
        """Wait until nothing is on its way."""
        await self._requests.emptied()
        await self._streams.emptied()

    def abandon(self) -> None:
        """Wait for nothing any more: cut what is on its way."""
        for exchange, request in tuple(self._open.items()):
            exchange.fail(Busy("ending"))
            exchange.cut()
            if request.protocol.writing_paused and request.transport is not None:
                request.transport.abort()

    def _instead(self, trouble: Exception, *, frontend: bool, keep: bool) -> tuple[str, Answer]:
        """Make the answer where there is none of the server; gives it with a word for the metric."""
        match trouble:
            case Refused():
                return "refused", answers.refusal(trouble, frontend=frontend, keep=keep)
            case Busy(cut=True):
                return trouble.reason, answers.cut(frontend=frontend)
            case Busy():
                outcome = "full" if trouble.reason == "requests" else trouble.reason
                return outcome, answers.busy(frontend=frontend).to(keep=keep)
            case Away():
                self._presence.note(str(trouble))
                return "away", answers.refusal(refusals.server_away(), frontend=frontend, keep=keep, again=True)
            case Late():
                self._presence.note("no answer in time")
                return "late", answers.refusal(refusals.server_late(), frontend=frontend, keep=keep, again=True)
        # Neither the message nor the values: both may hold what the client sent.
        where = "".join(traceback.format_tb(trouble.__traceback__))
        _log.error("a request could not be passed on", fault=type(trouble).__name__, where=where)
        return "failed", answers.busy(frontend=frontend).to(keep=keep)

    async def _pass(self, request: web.BaseRequest, *, keep: bool) -> web.StreamResponse:
        incoming = Incoming.of(request)
        _check(request, self._bounds)
        began = time.perf_counter()
        visit = self._requests.enter()
        try:
            exchange, answered = await self._ask(request, incoming)
            try:
                self._first_byte_seconds.observe(time.perf_counter() - began)
                if answered.stream:
                    if self._ending:
                        raise Busy("ending")
                    stream = self._streams.enter()
                    visit.leave()
                    visit = stream
                    self._open_streams.add(exchange)
                    exchange.be_patient()
                return await self._give(request, exchange, answered, keep=keep)
            finally:
                self._open_streams.discard(exchange)
                self._settle(exchange)
        finally:
            visit.leave()

    async def _ask(self, request: web.BaseRequest, incoming: Incoming) -> tuple[Exchange, Answered]:
        """Send a request, and wait for the head of its answer.

        Raises:
            Away, Late: there is no answer.
            Refused, Busy: the request is at fault.
        """
        server = self._server
        chunked = hdrs.TRANSFER_ENCODING in request.headers
        head = forwarding.request_head(incoming, authority=server.authority, prefix=server.prefix, chunked=chunked)
        try:
            return await self._attempt(request, head, chunked=chunked)
        except Away as away:
            if not away.unanswered or request.body_exists or request.method not in _REPEATABLE:
                raise
        return await self._attempt(request, head, chunked=chunked)

    async def _attempt(self, request: web.BaseRequest, head: bytes, *, chunked: bool) -> tuple[Exchange, Answered]:
        silent_seconds = self._bounds.silent_seconds
        exchange = await self._server.begin(request.method, head, chunked=chunked, silent_seconds=silent_seconds)
        self._open[exchange] = request
        try:
            if request.body_exists:
                exchange.attend(_send_body(request, exchange, self._bounds))
            else:
                exchange.sent()
            return exchange, await _head_of(exchange, request)
        except BaseException:
            self._settle(exchange)
            raise

    def _settle(self, exchange: Exchange) -> None:
        self._open.pop(exchange, None)
        exchange.settle()

    async def _give(
        self, request: web.BaseRequest, exchange: Exchange, answered: Answered, *, keep: bool
    ) -> web.StreamResponse:
        """Write an answer to the client, its body as it comes.

        Raises:
            Away: it broke off before anything was written.
        """
        endless = answered.has_body and answered.length is None
        chunked = endless and request.version >= HttpVersion11
        keep = keep and (chunked or not endless) and request.content.is_eof()
        framed = _chunk if chunked else _as_it_is
        piece = exchange.ready()
        self._presence.note()
        self._passed.labels(f"{answered.status // 100}xx").inc()
        head = forwarding.answer_head(
            answered.status, answered.reason, answered.headers, chunked=chunked, close=not keep
        )
        try:
            # One write with what is here already: each one is a call of the system, and a packet.
            await _write(request, head + framed(piece) if piece else head)
            while answered.has_body and (piece := await exchange.read()):
                await _write(request, framed(piece))
            if chunked:
                await _write(request, _LAST_CHUNK)
        except (Away, Late, ConnectionError, TimeoutError) as error:
            # The head is out: only a connection that ends too soon still tells the client.
            self._passed.labels("left" if isinstance(error, ConnectionError) else "broken").inc()
            request.protocol.force_close()
            return _ENDED
        return _KEPT if keep else _ENDED


class _Passed(web.StreamResponse):
    """Tells aiohttp that an answer is written already, and whether the connection stays open."""

    def __init__(self, *, keeps: bool) -> None:
        super().__init__()
        self._keeps = keeps

    @property
    def keep_alive(self) -> bool:
        return self._keeps

    async def prepare(self, request: web.BaseRequest) -> AbstractStreamWriter:
        return request.writer

    async def write_eof(self, data: bytes = b"") -> None:
        del data


_KEPT: Final = _Passed(keeps=True)
_ENDED: Final = _Passed(keeps=False)


async def _write(request: web.BaseRequest, content: bytes) -> None:
    async with asyncio.timeout(_STALLED_SECONDS):
        await request.writer.write(content)


def _chunk(piece: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(piece), piece)


def _as_it_is(piece: bytes) -> bytes:
    return piece


def _is_frontend(target: str) -> bool:
    path = path_of(target)
    return path == _FRONTEND or path.startswith(f"{_FRONTEND}/")


def _check(request: web.BaseRequest, bounds: Bounds) -> None:
    if forwarding.came_from_a_gateway(request.headers):
        raise refusals.loop()
    if request.headers.get(hdrs.TRANSFER_ENCODING, "chunked").lower() != "chunked":
        raise refusals.unknown_transfer_coding()
    if (request.content_length or 0) > bounds.body_bytes:
        raise refusals.too_large()


async def _head_of(exchange: Exchange, request: web.BaseRequest) -> Answered:
    answered = await exchange.answer()
    while answered.status == _CONTINUE:
        if hdrs.EXPECT in request.headers:
            await request.writer.write(_CONTINUED)
        answered = await exchange.answer()
    return answered


async def _send_body(request: web.BaseRequest, exchange: Exchange, bounds: Bounds) -> None:
    """Send a request's body as it comes; what goes wrong is what the exchange's `answer` raises."""
    size = 0
    try:
        async with asyncio.timeout(bounds.body_seconds) as whole:
            while piece := await request.content.readany():
                size += len(piece)
                if size > bounds.body_bytes:
                    raise refusals.too_large()  # noqa: TRY301 - the exchange is told here and nowhere else
                async with asyncio.timeout(bounds.silent_seconds):
                    await exchange.write(piece)
        await exchange.write_eof()
    except TimeoutError:
        exchange.fail(Busy("slow_body", cut=True) if whole.expired() else Late())
    except (web.RequestPayloadError, HttpProcessingError, ConnectionError):
        exchange.fail(Refused.with_message(400, "request aborted"))
    except Away:
        return  # it may have answered before; if not, that is what `answer` finds
    except Exception as error:  # noqa: BLE001 - nobody awaits this: it is raised where the answer is awaited
        exchange.fail(error)
