"""The aggregator's small HTTP face: alive, ready and why not, metrics."""

import orjson
from aiohttp import web
from prometheus_client import CONTENT_TYPE_LATEST

from aggregator.status import Status
from aggregator.worker import Worker
from schemas.peers import Alone, Peers, Report


def make_app(worker: Worker, status: Status, peers: Peers | None = None) -> web.Application:
    """Build the application with `/healthz`, `/readyz` and `/metrics`.

    Alive: no task died of a fault of ours. Ready: the store is fit for use and no partition is in trouble; a worker
    that owns nothing is ready, it waits for its turn. Of several processes each must be.

    Args:
        worker: this process's.
        status: the same.
        peers: the other processes; by default there are none.
    """
    everyone = peers or Alone()

    async def report() -> Report:
        broken = (worker.broken,) if worker.broken else ()
        problem = (worker.problem,) if worker.problem else ()
        return Report(
            unready=(*problem, *broken, *status.reasons), broken=broken, partitions=tuple(sorted(status.owned))
        )

    async def healthz(_: web.Request) -> web.Response:
        broken = (await everyone.report()).broken
        return _json({"status": "broken", "reasons": broken}, 503) if broken else _json({"status": "ok"}, 200)

    async def readyz(_: web.Request) -> web.Response:
        told = await everyone.report()
        if told.unready:
            return _json({"status": "not ready", "reasons": told.unready, "partitions": told.partitions}, 503)
        return _json({"status": "ready", "partitions": told.partitions}, 200)

    async def metrics(_: web.Request) -> web.Response:
        return web.Response(body=await everyone.metrics(), headers={"Content-Type": CONTENT_TYPE_LATEST})

    everyone.introduce(report, status.registry)

    app = web.Application()
    app.router.add_get("/healthz", healthz)
    app.router.add_get("/readyz", readyz)
    app.router.add_get("/metrics", metrics)
    return app


def _json(content: object, status: int) -> web.Response:
    return web.Response(body=orjson.dumps(content), status=status, content_type="application/json")
