"""Around every request: metrics, the listed origins, and errors in one shape."""

from time import perf_counter
from typing import Final

import structlog
from aiohttp import hdrs, web
from aiohttp.typedefs import Handler, Middleware
from prometheus_client import CollectorRegistry

from query_api import problems
from query_api.problems import RefusedError
from query_api.store import StoreAwayError
from schemas import metric_names

_log = structlog.get_logger()
_RETRY_AFTER: Final[dict[str, str]] = {hdrs.RETRY_AFTER: "1"}
_API: Final = "/v1/"
_UNKNOWN: Final = "unknown"
_PREFLIGHT: Final[dict[str, str]] = {
    hdrs.ACCESS_CONTROL_ALLOW_METHODS: "GET, HEAD",
    hdrs.ACCESS_CONTROL_ALLOW_HEADERS: "Authorization, If-None-Match",
    hdrs.ACCESS_CONTROL_MAX_AGE: "600",
}
_EXPOSED: Final[dict[str, str]] = {hdrs.ACCESS_CONTROL_EXPOSE_HEADERS: "ETag, Retry-After"}


def measured(registry: CollectorRegistry) -> Middleware:
    """Count requests and their seconds by route; what nobody serves is one route."""
    requests = metric_names.counter(metric_names.QUERIES, registry)
    seconds = metric_names.histogram(metric_names.QUERY_SECONDS, registry)

    @web.middleware
    async def middleware(request: web.Request, handler: Handler) -> web.StreamResponse:
        resource = request.match_info.route.resource
        route = resource.canonical if resource is not None else _UNKNOWN
        began = perf_counter()
        status = 500
        try:
            response = await handler(request)
            status = response.status
        finally:
            requests.labels(route, str(status)).inc()
            seconds.labels(route).observe(perf_counter() - began)
        return response

    return middleware


def shared_with(origins: frozenset[str]) -> Middleware:
    """Let the listed origins call from a browser; others, and none by default, see no such headers."""

    @web.middleware
    async def middleware(request: web.Request, handler: Handler) -> web.StreamResponse:
        if not origins:
            return await handler(request)
        origin = request.headers.get(hdrs.ORIGIN, "")
        asks_first = request.method == hdrs.METH_OPTIONS and hdrs.ACCESS_CONTROL_REQUEST_METHOD in request.headers
        response: web.StreamResponse
        if origin in origins and asks_first:
            response = web.Response(status=web.HTTPNoContent.status_code, headers=_PREFLIGHT)
        else:
            response = await handler(request)
        if origin in origins:
            response.headers[hdrs.ACCESS_CONTROL_ALLOW_ORIGIN] = origin
            response.headers.update(_EXPOSED)
        # Also for other origins: a shared cache must not hand them this answer.
        response.headers[hdrs.VARY] = ", ".join(filter(None, (response.headers.get(hdrs.VARY), hdrs.ORIGIN)))
        return response

    return middleware


@web.middleware
async def in_one_shape(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Turn every error into a problem. A wrong method on the API is 404, as the reference decided; elsewhere 405."""
    try:
        return await handler(request)
    except RefusedError as refused:
        return problems.response(refused.problem, refused.headers)
    except StoreAwayError as away:
        return problems.response(problems.unavailable(away.reason), _RETRY_AFTER)
    except web.HTTPMethodNotAllowed as error:
        allowed: dict[str, str] = {hdrs.ALLOW: ", ".join(sorted(error.allowed_methods))}
        if request.path.startswith(_API):
            return problems.response(problems.no_route(request.method, request.path), allowed)
        return problems.response(problems.of_status(error.status), allowed)
    except web.HTTPNotFound:
        return problems.response(problems.no_route(request.method, request.path))
    except Exception:  # noqa: BLE001 - the last resort of a request: logged, and answered
        _log.exception("a request failed", route=request.path)
        return problems.response(problems.of_status(500))
