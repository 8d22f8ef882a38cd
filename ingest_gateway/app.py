"""The one handler of the gateway: what is answered to whom, and when a 2xx is sent."""

import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from http import HTTPStatus
from typing import Final

import structlog
from aiohttp import hdrs, web
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from ingest_gateway import accept, answers, bodies, refusals
from ingest_gateway.answers import Answer, Prepared
from ingest_gateway.authorize import Tokens, authorize
from ingest_gateway.bodies import ClientLeft
from ingest_gateway.door import Door
from ingest_gateway.meters import Meters, RouteMeters
from ingest_gateway.refusals import Busy, Refused
from ingest_gateway.routing import Route, Routes, path_of
from ingest_gateway.writer import InDoubt, NotTaken, Writer
from schemas.event import Kind
from schemas.lenient import MalformedJsonError
from schemas.refusal import RefusedPayload

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

    __slots__ = ("busy", "meters", "on_lenient", "patient", "route", "silent", "success")

    def __init__(self, route: Route, meters: Meters) -> None:
        self.route = route
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
        writer: appends to the broker.
        door: bounds what is in flight.
        limits: of bodies.
        meters: what is counted.
        now_ms: the clock that is written into events.
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
    ) -> None:
        self._routes = routes
        self._tokens = tokens
        self._writer = writer
        self._door = door
        self._limits = limits
        self._meters = meters
        self._now_ms = now_ms
        self._served = {route: _Served(route, meters) for route in routes.all()}
        self._pages = {"/healthz": self._health, "/readyz": self._readiness, "/metrics": self._metrics}
        self.draining = False
        """Set at the end: not ready any more, and no connection is kept after its answer."""

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        """Answer one request."""
        route = self._routes.find(request.raw_path)
        keep = answers.keeps_alive(request) and not self.draining
        if route is None or request.method != hdrs.METH_POST:
            return self._answer_other(request, route, keep=keep)
        began = time.perf_counter()
        served = self._served[route]
        answer = await self._answer_post(request, served, keep=keep)
        served.meters.count(answer.status, time.perf_counter() - began)
        return answer

    async def _answer_post(self, request: web.BaseRequest, served: _Served, *, keep: bool) -> Answer:
        frontend = served.route.frontend
        try:
            await self._take(request, served)
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
        return served.success.to(keep=keep)

    async def _take(self, request: web.BaseRequest, served: _Served) -> None:
        """Check, read and append one post: when this returns, the broker has it durably."""
        route, limits = served.route, self._limits
        token = authorize(request.headers.get(hdrs.AUTHORIZATION), self._tokens, route)
        if route.kind is None:
            return
        visit = self._door.enter()
        try:
            body = await bodies.read(request, visit, limit=limits.body_bytes, seconds=limits.body_seconds)
            event = accept.accept(
                route,
                route.kind,
                token,
                request.headers,
                body,
                received_ms=self._now_ms(),
                on_lenient=served.on_lenient,
            )
            await self._writer.append(event, patient=served.patient)
        finally:
            visit.leave()

    def _answer_other(self, request: web.BaseRequest, route: Route | None, *, keep: bool) -> web.StreamResponse:
        """Answer whatever is not a post of an SDK."""
        path = route.path if route is not None else path_of(request.raw_path)
        page = self._pages.get(path)
        if page is not None and request.method in _READING_VERBS:
            return _without_body(page(keep=keep), request)
        if route is not None and request.method == hdrs.METH_OPTIONS:
            return answers.preflight(request, keep=keep) if route.frontend else answers.options(keep=keep)
        missing = refusals.not_found(path or "/")
        frontend = route is not None and route.frontend
        return _without_body(answers.refusal(missing, frontend=frontend, keep=keep), request)

    def _health(self, *, keep: bool) -> Answer:
        return answers.document(HTTPStatus.OK, {"status": "ok"}, keep=keep)

    def _readiness(self, *, keep: bool) -> Answer:
        trouble = "the gateway is shutting down" if self.draining else self._writer.trouble()
        status = HTTPStatus.OK if trouble is None else HTTPStatus.SERVICE_UNAVAILABLE
        reasons = [] if trouble is None else [trouble]
        return answers.document(status, {"ready": trouble is None, "reasons": reasons}, keep=keep)

    def _metrics(self, *, keep: bool) -> Answer:
        return Answer(200, generate_latest(self._meters.registry), content_type=CONTENT_TYPE_LATEST, keeps=keep)


def _without_body(answer: Answer, request: web.BaseRequest) -> Answer:
    if request.method == hdrs.METH_HEAD:
        answer.drop_body()
    return answer
