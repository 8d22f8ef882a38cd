"""The aggregator's small HTTP face: alive, ready and why not, metrics."""

import orjson
from aiohttp import web
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from aggregator.status import Status
from aggregator.worker import Worker


def make_app(worker: Worker, status: Status) -> web.Application:
    """Build the application with `/healthz`, `/readyz` and `/metrics`.

    Alive: no task died of a fault of ours. Ready: the store is fit for use and no partition is in trouble; a worker
    that owns nothing is ready, it waits for its turn.
    """

    async def healthz(_: web.Request) -> web.Response:
        broken = worker.broken
        return _json({"status": "broken", "reasons": [broken]}, 503) if broken else _json({"status": "ok"}, 200)

    async def readyz(_: web.Request) -> web.Response:
        reasons = [reason for reason in (worker.problem, worker.broken) if reason] + status.reasons
        partitions = sorted(status.owned)
        if reasons:
            return _json({"status": "not ready", "reasons": reasons, "partitions": partitions}, 503)
        return _json({"status": "ready", "partitions": partitions}, 200)

    async def metrics(_: web.Request) -> web.Response:
        return web.Response(body=generate_latest(status.registry), headers={"Content-Type": CONTENT_TYPE_LATEST})

    app = web.Application()
    app.router.add_get("/healthz", healthz)
    app.router.add_get("/readyz", readyz)
    app.router.add_get("/metrics", metrics)
    return app


def _json(content: object, status: int) -> web.Response:
    return web.Response(body=orjson.dumps(content), status=status, content_type="application/json")
