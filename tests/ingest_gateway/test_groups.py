import asyncio
import contextlib
import gc
import weakref
from collections.abc import AsyncIterator, Awaitable
from contextlib import asynccontextmanager

import pytest
from prometheus_client import CollectorRegistry

from ingest_gateway.groups import Bounds, GroupedWriter
from ingest_gateway.meters import Meters
from ingest_gateway.writer import InDoubt, NotTaken
from schemas import metric_names as names
from schemas.event import Event, Headers, Kind
from tests.ingest_gateway.support import QUICK, SECONDS, ScriptedLog
from tests.support.waiting import until

HEADERS = Headers(
    kind=Kind.METRICS, route="/r", project="p", environment="e", token_id="t", received_ms=0, body_hash="h"
)


def event(name: str, size: int = 0) -> Event:
    return Event(b"key", HEADERS, name.encode() + b"." * size)


def values(log: ScriptedLog) -> list[list[str]]:
    return [[found.value.decode().rstrip(".") for found in group] for group in log.groups]


class Writing:
    """A writer over a scripted log, its registry, and appends that run on their own."""

    def __init__(self, bounds: Bounds) -> None:
        self.log = ScriptedLog()
        self.registry = CollectorRegistry()
        self.writer = GroupedWriter(self.log, Meters(self.registry), bounds)

    def append(self, name: str, *, patient: bool = False, size: int = 0) -> asyncio.Task[None]:
        return asyncio.create_task(self.writer.append(event(name, size), patient=patient))

    def count(self, name: str, **labels: str) -> float | None:
        return self.registry.get_sample_value(name, labels)


@asynccontextmanager
async def writing(bounds: Bounds = QUICK) -> AsyncIterator[Writing]:
    made = Writing(bounds)
    await until(lambda: made.writer.trouble() is None)
    try:
        yield made
    finally:
        made.log.gate.set()
        await made.writer.close()


async def outcome(task: Awaitable[None]) -> Exception | None:
    try:
        async with asyncio.timeout(SECONDS):
            await task
    except (NotTaken, InDoubt) as error:
        return error
    return None


async def test_what_arrives_during_an_append_goes_together_in_the_next_in_order() -> None:
    async with writing(Bounds()) as found:
        found.log.gate.clear()
        first = found.append("first")
        await until(lambda: found.log.entered == 1)
        rest = [found.append(f"{number}") for number in range(5)]
        await asyncio.sleep(0)
        assert not first.done()
        found.log.gate.set()
        assert [await outcome(task) for task in (first, *rest)] == [None] * 6
        assert values(found.log) == [["first"], ["0", "1", "2", "3", "4"]]
        assert found.count(names.APPENDED.name) == 6


async def test_a_group_is_bounded_in_events_and_in_bytes() -> None:
    async with writing(Bounds(group_events=3, group_bytes=10_000)) as found:
        found.log.gate.clear()
        found.append("first")
        await until(lambda: found.log.entered == 1)
        tasks = [found.append(f"{number}") for number in range(4)]
        tasks += [found.append("large", size=9_900), found.append("last")]
        await asyncio.sleep(0)
        found.log.gate.set()
        assert [await outcome(task) for task in tasks] == [None] * 6
        assert values(found.log) == [["first"], ["0", "1", "2"], ["3"], ["large"], ["last"]]


async def test_a_failed_group_is_not_taken_and_the_next_one_is_tried_anew() -> None:
    async with writing() as found:
        found.log.fault = found.log.probe_fault = NotTaken("locked")
        assert isinstance(await outcome(found.append("lost")), NotTaken)
        assert found.writer.trouble() == "locked"
        found.log.fault = None
        assert await outcome(found.append("kept")) is None
        assert found.writer.trouble() is None
        assert values(found.log) == [["kept"]]
        assert found.count(names.APPEND_ERRORS.name, outcome="not_taken") == 1


async def test_an_event_that_was_never_handed_over_is_withdrawn_and_never_appended() -> None:
    async with writing() as found:
        found.log.gate.clear()
        stuck = found.append("stuck", patient=True)
        await until(lambda: found.log.entered == 1)
        late = found.append("late", patient=True)
        assert isinstance(await outcome(late), NotTaken)
        found.log.gate.set()
        assert await outcome(stuck) is None
        assert values(found.log) == [["stuck"]]


async def test_an_impatient_event_is_in_doubt_at_the_deadline_and_a_patient_one_waits() -> None:
    async with writing() as found:
        found.log.gate.clear()
        single, bulk = found.append("single"), found.append("bulk", patient=True)
        await until(lambda: found.log.entered == 1)
        assert isinstance(await outcome(single), InDoubt)
        assert found.writer.trouble() == "the broker does not answer"
        assert not bulk.done()
        found.log.gate.set()
        assert await outcome(bulk) is None
        await until(lambda: found.writer.trouble() is None)


async def test_a_failed_commit_leaves_everyone_in_doubt() -> None:
    async with writing() as found:
        found.log.fault = InDoubt("fsync")
        assert isinstance(await outcome(found.append("single")), InDoubt)
        assert isinstance(await outcome(found.append("bulk", patient=True)), InDoubt)
        assert found.count(names.APPEND_ERRORS.name, outcome="in_doubt") == 2


async def test_a_fault_of_ours_ends_no_writer() -> None:
    async with writing() as found:
        found.log.fault = ZeroDivisionError()
        assert isinstance(await outcome(found.append("one")), InDoubt)
        found.log.fault = None
        assert await outcome(found.append("two")) is None


@pytest.mark.parametrize("bounds", [Bounds(held_events=3), Bounds(held_bytes=3 * 525)])
async def test_what_would_be_too_much_to_hold_is_refused_at_once(bounds: Bounds) -> None:
    async with writing(bounds) as found:
        found.log.gate.clear()
        waiting = [found.append("first")]
        await until(lambda: found.log.entered == 1)
        waiting += [found.append("a"), found.append("b")]
        await asyncio.sleep(0)
        assert isinstance(await outcome(found.append("c")), NotTaken)
        found.log.gate.set()
        assert [await outcome(task) for task in waiting] == [None] * 3


async def test_who_leaves_does_not_take_the_event_along() -> None:
    async with writing(Bounds()) as found:
        found.log.gate.clear()
        found.append("first")
        await until(lambda: found.log.entered == 1)
        left, stayed = found.append("left"), found.append("stayed")
        await asyncio.sleep(0)
        left.cancel()
        found.log.gate.set()
        assert await outcome(stayed) is None
        assert values(found.log) == [["first"], ["left", "stayed"]]


class WatchedEvent(Event, weakref=True, frozen=True):
    """An event whose end can be seen."""


async def test_a_refused_event_is_free_at_once_and_not_at_the_next_garbage_collection() -> None:
    async with writing() as found:
        found.log.fault = found.log.probe_fault = NotTaken("locked")

        async def refused() -> "weakref.ref[WatchedEvent]":
            event = WatchedEvent(b"key", HEADERS, b"body")
            with contextlib.suppress(NotTaken):
                await found.writer.append(event)
            return weakref.ref(event)

        gc.disable()
        try:
            watched = await refused()
            await until(lambda: found.log.probes > 1)  # whatever held the group has let go of it
            assert watched() is None
        finally:
            gc.enable()


async def test_trouble_ends_without_any_traffic() -> None:
    async with writing() as found:
        found.log.fault = found.log.probe_fault = NotTaken("locked")
        await outcome(found.append("lost"))
        assert found.writer.trouble() == "locked"
        found.log.probe_fault = None
        await until(lambda: found.writer.trouble() is None)


async def test_a_probe_that_hangs_holds_nobody_up_for_long() -> None:
    async with writing() as found:
        found.log.fault = found.log.probe_fault = NotTaken("locked")
        await outcome(found.append("lost"))
        found.log.gate.clear()
        probes = found.log.probes
        await until(lambda: found.log.probes > probes)
        assert isinstance(await outcome(found.append("late")), NotTaken)


async def test_it_is_in_trouble_until_the_broker_was_reached() -> None:
    log = ScriptedLog()
    log.probe_fault = NotTaken("no such folder")
    writer = GroupedWriter(log, Meters(CollectorRegistry()), QUICK)
    assert writer.trouble()
    await until(lambda: writer.trouble() == "no such folder")
    log.probe_fault = None
    await until(lambda: writer.trouble() is None)
    await writer.close()


async def test_closing_appends_what_waits_and_takes_nothing_more() -> None:
    async with writing(Bounds()) as found:
        found.log.gate.clear()
        first = found.append("first")
        await until(lambda: found.log.entered == 1)
        waiting = found.append("waiting")
        await asyncio.sleep(0)
        closing = asyncio.create_task(found.writer.close())
        await asyncio.sleep(0)
        assert isinstance(await outcome(found.append("too late")), NotTaken)
        found.log.gate.set()
        await outcome(closing)
        assert (await outcome(first), await outcome(waiting)) == (None, None)
        assert values(found.log) == [["first"], ["waiting"]]
        assert found.log.closed
