"""The one handler of the gateway: what is answered to whom, and when a 2xx is sent."""

import time
import traceback
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial
from http import HTTPStatus
from typing import Final

import structlog
from aiohttp import hdrs, web
from prometheus_client import CONTENT_TYPE_LATEST

from ingest_gateway import accept, answers, bodies, refusals
from ingest_gateway.answers import Answer, Prepared
from ingest_gateway.authorize import Tokens, UnknownToken, Upstream, authorize, authorize_by
from ingest_gateway.bodies import ClientLeft
from ingest_gateway.door import Door
from ingest_gateway.large_bodies import LARGE_BYTES, LargeBodies
from ingest_gateway.meters import Meters, RouteMeters
from ingest_gateway.mirror import Mirror
from ingest_gateway.passthrough import PassThrough
from ingest_gateway.rates import Rates, Throttled
from ingest_gateway.refusals import Busy, Refused
from ingest_gateway.routing import VALIDATE, Route, Routes, path_of
from ingest_gateway.validation import MAX_BODY_BYTES, Validation
from ingest_gateway.writer import InDoubt, NotTaken, Writer
from schemas.event import Event, Kind
from schemas.lenient import MalformedJsonError
from schemas.peers import Alone, Peers, Report
from schemas.refusal import RefusedPayload
from schemas.tokens import Token

_log = structlog.get_logger()
_READING_VERBS: Final = frozenset({hdrs.METH_GET, hdrs.METH_HEAD})


@dataclass(frozen=True, slots=True)
class Limits:
    """How large a body may be (bytes), and how long it may take (seconds)."""

    body_bytes: int
    body_seconds: float


def _now_ms() -> int:
    return time.time_ns() // 1_000_000


class _Served:
    """A route with what was made for it beforehand."""

    __slots__ = ("act", "busy", "meters", "on_lenient", "patient", "route", "silent", "success")

    def __init__(
        self, route: Route, meters: Meters, act: Callable[[web.BaseRequest, "_Served"], Awaitable[bytes | None]]
    ) -> None:
        self.route = route
        self.act = act
        self.meters = RouteMeters(meters, route.path)
        self.on_lenient = meters.lenient.labels(route.kind or "").inc
        self.success: Prepared = answers.success(route)
        self.busy: Prepared = answers.busy(frontend=route.frontend)
        # An Edge that gets no answer repeats the same bytes; one that gets a 503 merges them beyond recognition.
        self.patient = route.kind is Kind.BULK
        self.silent = route.kind is not Kind.REGISTER and not route.frontend


class Gateway:
    """Takes every request of the port.

    Args:
        routes: what takes posts.
        tokens: the known ones.
        upstream: asked for tokens that are not known; None where there is nobody to ask.
        writer: appends to the broker.
        door: bounds what is in flight.
        rates: how often a token may post; None where it may as often as it likes.
        limits: of bodies.
        meters: what is counted.
        now_ms: the clock that is written into events.
        peers: the other processes of the gateway.
        passing: takes what is not ours; None where nobody does.
        mirror: told what was accepted; None where nobody is.
    """

    def __init__(
        self,
        *,
        routes: Routes,
        tokens: Tokens,
        writer: Writer,
        door: Door,
        limits: Limits,
        meters: Meters,
        now_ms: Callable[[], int] = _now_ms,
        rates: Rates | None = None,
        peers: Peers | None = None,
        upstream: Upstream | None = None,
        passing: PassThrough | None = None,
        mirror: Mirror | None = None,
    ) -> None:
        self._routes = routes
        self._tokens = tokens
        self._upstream = upstream
        self._validation = Validation(tokens, upstream)
        self._writer = writer
        self._door = door
        self._rates = rates
        self._large = LargeBodies()
        self._limits = limits
        self._meters = meters
        self._now_ms = now_ms
        self._passing = passing
        self._mirror = mirror
        self._peers = peers or Alone()
        self._peers.introduce(self._report, meters.registry)
        self._served = {
            route: _Served(route, meters, self._validate if route is VALIDATE else self._take) for route in routes.all()
        }
        self._pages = {"/healthz": self._health, "/readyz": self._readiness, "/metrics": self._metrics}
        self.draining = False
        """Set at the end: not ready any more, and no connection is kept after its answer."""

    def close(self) -> None:
        """Let go of what it made for itself, once no request is left."""
        self._large.close()

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        """Answer one request."""
        route = self._routes.find(request.raw_path)
        keep = answers.keeps_alive(request) and not self.draining
        if route is None or request.method != hdrs.METH_POST:
            return await self._answer_other(request, route, keep=keep)
        began = time.perf_counter()
        served = self._served[route]
        answer = await self._answer_post(request, served, keep=keep)
        served.meters.count(answer.status, time.perf_counter() - began)
        return answer

    async def _answer_post(  # noqa: C901 - one line for each way to end
        self, request: web.BaseRequest, served: _Served, *, keep: bool
    ) -> Answer:
        frontend = served.route.frontend
        try:
            document = await served.act(request, served)
        except Refused as refused:
            return answers.refusal(refused, frontend=frontend, keep=keep)
        except RefusedPayload as refused:
            final = refusals.of_payload(refused, silent=served.silent)
            return answers.refusal(final, frontend=frontend, keep=keep)
        except MalformedJsonError as error:
            return answers.refusal(Refused.with_message(400, str(error)), frontend=frontend, keep=keep)
        except Busy as busy:
            self._meters.shed.labels(busy.reason).inc()
            return answers.cut(frontend=frontend) if busy.cut else served.busy.to(keep=keep)
        except Throttled as throttled:
            self._meters.shed.labels("rate").inc()
            return answers.throttled(throttled.seconds, frontend=frontend, keep=keep)
        except NotTaken:
            return served.busy.to(keep=keep)
        except (InDoubt, ClientLeft) as error:
            if isinstance(error, ClientLeft) or served.patient:
                request.protocol.force_close()  # nobody is there, or no answer is the right one
            return served.busy.to(keep=keep)
        except Exception as error:  # noqa: BLE001 - a fault of ours costs this request, with an answer that keeps SDKs
            # Neither the message nor the values: both may hold what the client sent.
            where = "".join(traceback.format_tb(error.__traceback__))
            _log.error("a request failed", route=served.route.path, fault=type(error).__name__, where=where)
            return served.busy.to(keep=keep)
        if document is not None:
            return Answer(HTTPStatus.OK, document, content_type=answers.JSON, keeps=keep)
        return served.success.to(keep=keep)

    async def _take(self, request: web.BaseRequest, served: _Served) -> None:
        """Check, read and append one post: when this returns, the broker has it durably."""
        route, limits = served.route, self._limits
        try:
            token = authorize(request.headers.get(hdrs.AUTHORIZATION), self._tokens, route)
        except UnknownToken:
            if self._upstream is None:
                raise
            token = await self._authorize_by(self._upstream, request, route)
        if route.kind is None:
            return
        if self._mirror is not None and self._mirror.is_echo(request):
            raise refusals.loop()
        if self._rates is not None:
            self._rates.take(token.id)
        visit = self._door.enter(token.id)
        try:
            body = await bodies.read(request, visit, limit=limits.body_bytes, seconds=limits.body_seconds)
            if len(body) <= LARGE_BYTES:
                event = self._event(served, route.kind, token, request, body)
            else:
                event = await self._large.read(partial(self._event, served, route.kind, token, request, body))
            await self._writer.append(event, patient=served.patient)
            if self._mirror is not None:
                self._mirror.offer(request, body)
        finally:
            visit.leave()

    def _event(self, served: _Served, kind: Kind, token: Token, request: web.BaseRequest, body: bytes) -> Event:
        return accept.accept(
            served.route,
            kind,
            token,
            request.headers,
            body,
            received_ms=self._now_ms(),
            on_lenient=served.on_lenient,
        )

    async def _authorize_by(self, upstream: Upstream, request: web.BaseRequest, route: Route) -> Token:
        """Ask for a token that is not known; whoever waits counts as in flight."""
        visit = self._door.enter()
        try:
            return await authorize_by(upstream, request.headers.get(hdrs.AUTHORIZATION), route)
        finally:
            visit.leave()

    async def _validate(self, request: web.BaseRequest, served: _Served) -> bytes:
        """Say which of the tokens in the body are known; whoever asks needs none."""
        del served
        visit = self._door.enter()
        try:
            body = await bodies.read(request, visit, limit=MAX_BODY_BYTES, seconds=self._limits.body_seconds)
            return await self._validation.answer(body)
        finally:
            visit.leave()

    async def _answer_other(self, request: web.BaseRequest, route: Route | None, *, keep: bool) -> web.StreamResponse:
        """Answer whatever is not a post of an SDK."""
        path = route.path if route is not None else path_of(request.raw_path)
        page = self._pages.get(path)
        if page is not None and request.method in _READING_VERBS:
            return _without_body(await page(keep=keep), request)
        if route is not None and request.method == hdrs.METH_OPTIONS:
            return answers.preflight(request, keep=keep) if route.frontend else answers.options(keep=keep)
        if self._passing is not None and self._passing.takes(request):
            return await self._passing.answer(request, keep=keep)
        missing = refusals.not_found(path or "/")
        frontend = route is not None and route.frontend
        return _without_body(answers.refusal(missing, frontend=frontend, keep=keep), request)

    async def _health(self, *, keep: bool) -> Answer:
        return answers.document(HTTPStatus.OK, {"status": "ok"}, keep=keep)

    async def _report(self) -> Report:
        trouble = "the gateway is shutting down" if self.draining else self._writer.trouble()
        return Report(unready=() if trouble is None else (trouble,))

    async def _readiness(self, *, keep: bool) -> Answer:
        reasons = (await self._peers.report()).unready
        status = HTTPStatus.SERVICE_UNAVAILABLE if reasons else HTTPStatus.OK
        return answers.document(status, {"ready": not reasons, "reasons": reasons}, keep=keep)

    async def _metrics(self, *, keep: bool) -> Answer:
        return Answer(200, await self._peers.metrics(), content_type=CONTENT_TYPE_LATEST, keeps=keep)


def _without_body(answer: Answer, request: web.BaseRequest) -> Answer:
    if request.method == hdrs.METH_HEAD:
        answer.drop_body()
    return answer
