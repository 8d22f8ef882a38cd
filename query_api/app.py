"""The routes: DevCycle's five result endpoints, and the service's own three.

Each request goes the same way: token (401, 403), project within its reach (404), query string (400), cache, store
(404 where nothing was ever counted, 503 where it is away).
"""

import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final

import msgspec
from aiohttp import hdrs, web
from aiohttp.typedefs import Handler
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry

from query_api import access, middlewares, parameters, problems, reply, results
from query_api.access import Tokens
from query_api.cache import Answer, Outcome, ResultCache
from query_api.config import Config
from query_api.parameters import Query
from query_api.problems import RefusedError
from query_api.results import NotFoundError
from query_api.shape import TooLargeError
from query_api.store import Store
from schemas import metric_names
from schemas.answers import FeatureEvaluations, ProjectEvaluations, Summary
from schemas.peers import Alone, Peers, Report

Result = FeatureEvaluations | ProjectEvaluations | Summary
Compute = Callable[[Store, str, str, Query], Awaitable[Result]]

_PROJECT: Final = "/v1/projects/{project}"
_FEATURE: Final = _PROJECT + "/features/{feature}"
_encode = msgspec.json.Encoder().encode


@dataclass(frozen=True, slots=True)
class Clock:
    """Where time comes from: `wall` in epoch seconds, `monotonic` in seconds."""

    wall: Callable[[], float] = time.time
    monotonic: Callable[[], float] = time.monotonic


@dataclass(frozen=True, slots=True)
class _Endpoint:
    """What one path answers. Equal questions on paths with the same `name` have the same answer."""

    name: str
    compute: Compute
    takes_by: bool = False


async def _of_project(store: Store, project: str, _: str, query: Query) -> ProjectEvaluations:
    return await results.project_evaluations(store, project, query)


_FEATURE_SERIES: Final = _Endpoint("feature evaluations", results.feature_evaluations, takes_by=True)
_PROJECT_SERIES: Final = _Endpoint("project evaluations", _of_project)
_SUMMARY: Final = _Endpoint("summary", results.summary)

ENDPOINTS: Final = {
    f"{_FEATURE}/results/summary": _SUMMARY,
    f"{_FEATURE}/results/evaluations": _FEATURE_SERIES,
    f"{_FEATURE}/results/total-evaluations": _FEATURE_SERIES,
    f"{_PROJECT}/results/evaluations": _PROJECT_SERIES,
    f"{_PROJECT}/results/total-evaluations": _PROJECT_SERIES,
}
"""By path. Both kinds of evaluations are totals: Unleash's SDKs name no users, so there are no unique ones."""


def build(config: Config, store: Store, tokens: Tokens, clock: Clock, peers: Peers | None = None) -> web.Application:
    """Build the application; it holds no connection of its own, and `store` is closed by the caller.

    Args:
        config: the settings.
        store: answers the questions.
        tokens: the known ones.
        clock: where time comes from.
        peers: the other processes of the query API; by default there are none.
    """
    registry = CollectorRegistry()
    service = _Service(
        store=store,
        tokens=tokens,
        clock=clock,
        cache=ResultCache(
            seconds=config.cache_seconds,
            entries=config.cache_entries,
            size=config.cache_bytes,
            clock=clock.monotonic,
        ),
        registry=registry,
        peers=peers or Alone(),
    )
    app = web.Application(
        middlewares=[
            middlewares.measured(registry),
            middlewares.shared_with(frozenset(config.cors_origins)),
            middlewares.in_one_shape,
        ]
    )
    for path, endpoint in ENDPOINTS.items():
        # Any name: aiohttp's own pattern would leave out those with braces.
        app.router.add_get(path.replace("}", ":[^/]+}"), service.handler(endpoint))
    app.router.add_get("/healthz", _alive)
    app.router.add_get("/readyz", service.ready)
    app.router.add_get("/metrics", service.metrics)
    return app


class _Service:
    """The handlers, and what they share."""

    def __init__(
        self,
        *,
        store: Store,
        tokens: Tokens,
        clock: Clock,
        cache: ResultCache,
        registry: CollectorRegistry,
        peers: Peers,
    ) -> None:
        self._store = store
        self._tokens = tokens
        self._clock = clock
        self._cache = cache
        self._peers = peers
        peers.introduce(self._report, registry)
        self._lookups = metric_names.counter(metric_names.CACHE, registry)

    def handler(self, endpoint: _Endpoint) -> Handler:
        """Make the handler of one path."""

        async def handle(request: web.Request) -> web.StreamResponse:
            token = access.authorize(request.headers.get(hdrs.AUTHORIZATION), self._tokens)
            project, feature = request.match_info["project"], request.match_info.get("feature", "")
            access.check_project(token, project)
            try:
                query = parameters.read(request.query.items(), int(self._clock.wall()), takes_by=endpoint.takes_by)
                found, outcome = await self._find(endpoint, project, feature, query)
            except parameters.WrongParametersError as error:
                raise RefusedError(problems.bad_request(error.messages)) from None
            except TooLargeError as error:
                raise RefusedError(problems.bad_request([str(error)])) from None
            except NotFoundError as error:
                raise RefusedError(problems.item_not_found(error.key)) from None
            return await reply.response(found, cached=outcome is Outcome.HIT, request_headers=request.headers)

        return handle

    async def _find(self, endpoint: _Endpoint, project: str, feature: str, query: Query) -> tuple[Answer, Outcome]:
        async def compute() -> Answer:
            now = self._clock.wall()  # before the store is asked: the answer holds what was there then
            return reply.answer(await endpoint.compute(self._store, project, feature, query), now)

        found, outcome = await self._cache.get((endpoint.name, project, feature, query), compute)
        self._lookups.labels(outcome).inc()
        return found, outcome

    async def _report(self) -> Report:
        return Report(unready=tuple(await self._store.faults()))

    async def ready(self, _: web.Request) -> web.StreamResponse:
        """Say whether questions can be answered, and if not, why."""
        reasons = (await self._peers.report()).unready
        return web.Response(
            body=_encode({"ready": not reasons, "reasons": reasons}),
            status=503 if reasons else 200,
            content_type="application/json",
        )

    async def metrics(self, _: web.Request) -> web.StreamResponse:
        """Give the metrics in Prometheus' text format."""
        return web.Response(body=await self._peers.metrics(), headers={hdrs.CONTENT_TYPE: CONTENT_TYPE_LATEST})


async def _alive(_: web.Request) -> web.StreamResponse:
    return web.Response(body=_encode({"alive": True}), content_type="application/json")
