import asyncio

import pytest
from prometheus_client import CollectorRegistry

from aggregator.adapters.points import NoPoints
from aggregator.ports import BrokerAwayError, Listener, StoreError
from aggregator.status import Status
from aggregator.worker import Worker
from tests.aggregator.fakes import ManualClock, MemoryLog, MemoryStore, window


class Membership:
    """Owns one log at once, for as long as it runs."""

    def __init__(self, log: MemoryLog) -> None:
        self.log = log
        self.trouble: str | None = None
        self.ended = False
        self.faults: list[BrokerAwayError] = []

    async def partitions(self) -> int:
        if self.faults:
            raise self.faults.pop(0)
        return 3

    async def run(self, listener: Listener) -> None:
        await listener.assigned(self.log)
        try:
            await asyncio.Event().wait()
        finally:
            await listener.revoked(self.log.partition)
            self.ended = True


class Bench:
    def __init__(self) -> None:
        self.clock = ManualClock()
        self.log = MemoryLog(self.clock)
        self.store = MemoryStore()
        self.status = Status(CollectorRegistry())
        self.worker = Worker(self.store, self.clock, NoPoints(), self.status, flush_seconds=1.0)
        self.membership = Membership(self.log)
        self.stop = asyncio.Event()

    def start(self) -> asyncio.Task[None]:
        return asyncio.ensure_future(self.worker.run(self.membership, self.stop, drain_seconds=5))


async def test_a_stop_drains_what_is_open_and_leaves_the_group() -> None:
    bench = Bench()
    bench.log.append(window("a", 7))
    running = bench.start()
    while not bench.log.commits:
        assert not running.done()
        await asyncio.sleep(0)
    bench.stop.set()
    await asyncio.wait_for(running, 10)
    assert bench.store.total("a") == 7
    assert bench.log.commits[-1] == (2, 1)
    assert bench.membership.ended
    assert bench.worker.problem == "draining"


async def test_a_fault_of_ours_ends_the_process_so_that_it_is_started_anew() -> None:
    bench = Bench()
    bench.log.append(window("a", 7))

    def fault() -> None:
        raise ZeroDivisionError

    bench.store.before_insert = fault
    with pytest.raises(ZeroDivisionError):
        await asyncio.wait_for(bench.start(), 10)
    assert bench.membership.ended


async def test_broker_and_store_that_are_not_fit_are_asked_again_until_they_are() -> None:
    bench = Bench()
    bench.membership.faults = [BrokerAwayError("the topic is unsafe")]
    problems = [StoreError("tables are missing", code=60, passing=False), StoreError("no answer")]
    seen: list[str | None] = []

    async def check(partitions: int) -> None:
        assert partitions == 3
        seen.append(bench.worker.problem)
        if problems:
            raise problems.pop(0)

    bench.store.check = check  # type: ignore[method-assign]
    running = bench.start()
    while bench.worker.problem:
        assert not running.done()
        await asyncio.sleep(0)
    assert seen == ["broker: the topic is unsafe", "store: tables are missing", "store: no answer"]
    assert bench.clock.slept[:3] == [5.0, 5.0, 1.0]
    bench.membership.trouble = "locked"
    assert bench.worker.problem == "broker: locked"
    bench.stop.set()
    await asyncio.wait_for(running, 10)


async def test_a_stop_ends_a_worker_that_still_waits_for_its_broker() -> None:
    bench = Bench()
    bench.membership.faults = [BrokerAwayError("gone")] * 1000
    running = bench.start()
    while bench.worker.problem != "broker: gone":
        await asyncio.sleep(0)
    bench.stop.set()
    await asyncio.wait_for(running, 10)
    assert not bench.membership.ended, "it never was a member"
