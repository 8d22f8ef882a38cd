"""The aggregator's HTTP face."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import Any

from aiohttp.test_utils import TestClient, TestServer
from prometheus_client import CollectorRegistry

from aggregator.health import make_app
from aggregator.status import Status
from schemas import metric_names
from schemas.peers import Report


@asynccontextmanager
async def face(
    status: Status, *, problem: str | None = None, broken: str | None = None, peers: Any = None
) -> AsyncIterator[TestClient[Any, Any]]:
    worker = SimpleNamespace(problem=problem, broken=broken)
    async with TestClient(TestServer(make_app(worker, status, peers))) as client:  # type: ignore[arg-type]
        yield client


async def get(client: TestClient[Any, Any], path: str) -> tuple[int, Any]:
    async with client.get(path) as answer:
        return answer.status, await answer.json()


async def test_a_worker_without_troubles_is_alive_and_ready() -> None:
    status = Status(CollectorRegistry())
    status.owned |= {3, 1}
    async with face(status) as client:
        assert await get(client, "/healthz") == (200, {"status": "ok"})
        assert await get(client, "/readyz") == (200, {"status": "ready", "partitions": [1, 3]})


async def test_every_trouble_is_a_reason_and_only_a_fault_of_ours_is_an_end() -> None:
    status = Status(CollectorRegistry())
    status.trouble(0, "StoreError", "no answer")
    async with face(status, problem="store: away", broken="partition 1: ValueError()") as client:
        assert await get(client, "/healthz") == (503, {"status": "broken", "reasons": ["partition 1: ValueError()"]})
        code, told = await get(client, "/readyz")
        assert (code, told["status"], told["partitions"]) == (503, "not ready", [])
        assert told["reasons"] == ["store: away", "partition 1: ValueError()", "partition 0: no answer"]
    async with face(status) as client:
        assert (await get(client, "/healthz"))[0] == 200
        assert (await get(client, "/readyz"))[0] == 503


async def test_of_several_workers_the_answer_is_that_of_all() -> None:
    class Others:
        shares_port = True

        def introduce(self, reporter: Any, registry: CollectorRegistry) -> None:
            self.reporter = reporter

        async def report(self) -> Report:
            own = await self.reporter()
            return Report(("worker 2: draining",), ("worker 2: a fault",), (*own.partitions, 7))

        async def metrics(self) -> bytes:
            return b"all\n"

    status = Status(CollectorRegistry())
    status.owned.add(1)
    async with face(status, peers=Others()) as client:
        assert await get(client, "/healthz") == (503, {"status": "broken", "reasons": ["worker 2: a fault"]})
        assert await get(client, "/readyz") == (
            503,
            {"status": "not ready", "reasons": ["worker 2: draining"], "partitions": [1, 7]},
        )
        async with client.get("/metrics") as answer:
            assert await answer.text() == "all\n"


async def test_a_worker_alone_shows_its_own_metrics() -> None:
    status = Status(CollectorRegistry())
    status.repaired.inc()
    async with face(status) as client, client.get("/metrics") as answer:
        assert f"{metric_names.REPAIRED.name} 1.0" in await answer.text()
        assert "version=" in answer.headers["Content-Type"]
