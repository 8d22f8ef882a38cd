"""The writer over all partitions of a topic, with logs that fail in chosen ways."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest
import structlog
from prometheus_client import CollectorRegistry

from ingest_gateway import partitions
from ingest_gateway.groups import Bounds
from ingest_gateway.meters import Meters
from ingest_gateway.partitions import PartitionedWriter
from ingest_gateway.writer import InDoubt, NotTaken
from schemas import metric_names as names
from schemas.event import Event, Headers, Kind, partition_of
from tests.ingest_gateway.support import QUICK, SECONDS, ScriptedLog
from tests.support.waiting import until

HEADERS = Headers(
    kind=Kind.METRICS, route="/r", project="p", environment="e", token_id="t", received_ms=0, body_hash="h"
)


class ScriptedTopic:
    """A topic with as many partitions as it is told."""

    def __init__(self, number: int) -> None:
        self.logs: list[ScriptedLog] = []
        self.number = number
        self.told = asyncio.Event()
        self.why: str | None = None
        self.closed = False

    def partition(self, number: int) -> ScriptedLog:
        self.logs.insert(number, ScriptedLog())
        return self.logs[number]

    def trouble(self) -> str | None:
        return self.why

    def become(self, number: int) -> None:
        self.number = number
        self.told.set()

    async def follow(self, found: Callable[[int], None]) -> None:
        while True:
            if self.number:
                found(self.number)
            await self.told.wait()
            self.told.clear()

    async def close(self) -> None:
        self.closed = True


class Writing:
    def __init__(self, number: int, bounds: Bounds) -> None:
        self.topic = ScriptedTopic(number)
        self.registry = CollectorRegistry()
        self.writer = PartitionedWriter(self.topic, Meters(self.registry), bounds)

    def append(self, partition: int, name: str = "x", *, patient: bool = False) -> "asyncio.Task[None]":
        """Append an event whose key leads to this partition."""
        keys = (f"{number}".encode() for number in range(10_000))
        key = next(key for key in keys if partition_of(key, self.topic.number) == partition)
        return asyncio.create_task(self._append(Event(key, HEADERS, name.encode()), patient=patient))

    async def _append(self, event: Event, *, patient: bool) -> None:
        await self.writer.append(event, patient=patient)

    def values(self) -> list[list[bytes]]:
        return [[event.value for event in log.events] for log in self.topic.logs]

    @property
    def away(self) -> float | None:
        return self.registry.get_sample_value(names.PARTITIONS_AWAY.name)


@asynccontextmanager
async def writing(number: int = 2, bounds: Bounds = QUICK) -> AsyncIterator[Writing]:
    made = Writing(number, bounds)
    if number:
        await until(lambda: made.writer.trouble() is None and made.away == 0)
    try:
        yield made
    finally:
        for log in made.topic.logs:
            log.gate.set()
        await made.writer.close()


async def outcome(task: "asyncio.Task[None]") -> Exception | None:
    try:
        async with asyncio.timeout(SECONDS):
            await task
    except (NotTaken, InDoubt) as error:
        return error
    return None


async def test_an_event_goes_to_the_partition_of_its_key() -> None:
    async with writing(3) as found:
        for number in (2, 0, 1, 2):
            assert await outcome(found.append(number, f"to {number}")) is None
        assert found.values() == [[b"to 0"], [b"to 1"], [b"to 2", b"to 2"]]


async def test_before_the_partitions_are_known_nothing_is_taken_and_the_reason_is_told() -> None:
    async with writing(0) as found:
        found.topic.why = "no such topic"
        with pytest.raises(NotTaken, match="no such topic"):
            await found.writer.append(Event(b"key", HEADERS, b""))
        assert found.writer.trouble() == "no such topic"
        found.topic.why = None
        assert found.writer.trouble()
        found.topic.become(1)
        await until(lambda: found.writer.trouble() is None)


@pytest.mark.parametrize("bounds", [Bounds(held_events=3), Bounds(held_bytes=3 * 520)])
async def test_all_partitions_together_hold_no_more_than_one_bound(bounds: Bounds) -> None:
    async with writing(2, bounds) as found:
        for log in found.topic.logs:
            log.gate.clear()
        stuck = [found.append(0), found.append(1)]
        await until(lambda: all(log.entered == 1 for log in found.topic.logs))
        stuck.append(found.append(1))
        await asyncio.sleep(0)
        assert isinstance(await outcome(found.append(0)), NotTaken)
        found.topic.logs[0].gate.set()
        assert await outcome(stuck[0]) is None
        assert await outcome(found.append(0)) is None, "what was appended makes room for the others"
        found.topic.logs[1].gate.set()
        assert [await outcome(task) for task in stuck] == [None] * 3


async def test_one_stuck_partition_holds_up_nobody_else() -> None:
    async with writing(2) as found:
        found.topic.logs[0].gate.clear()
        stuck = found.append(0)
        assert isinstance(await outcome(stuck), InDoubt)
        assert await outcome(found.append(1)) is None
        assert found.away == 1
        assert found.writer.trouble() is None, "a partition takes events"


async def test_it_is_in_trouble_when_no_partition_takes_events() -> None:
    async with writing(2) as found:
        for number, log in enumerate(found.topic.logs):
            log.fault = log.probe_fault = NotTaken("no leader")
            assert isinstance(await outcome(found.append(number)), NotTaken)
        assert found.writer.trouble() == "no leader"
        assert found.away == 2
        found.topic.logs[1].fault = found.topic.logs[1].probe_fault = None
        await until(lambda: found.writer.trouble() is None)


async def test_added_partitions_are_used_from_then_on() -> None:
    async with writing(1) as found:
        assert await outcome(found.append(0, "first")) is None
        found.topic.become(3)
        await until(lambda: len(found.topic.logs) == 3)
        assert await outcome(found.append(2, "later")) is None
        assert found.values() == [[b"first"], [], [b"later"]]


async def test_partitions_that_are_gone_are_closed_once_they_are_empty() -> None:
    async with writing(2) as found:
        gone = found.topic.logs[1]
        gone.gate.clear()
        waiting = found.append(1)
        await until(lambda: gone.entered == 1)
        found.topic.become(1)
        await until(lambda: not found.topic.told.is_set())
        assert await outcome(found.append(0)) is None
        assert not gone.closed
        gone.gate.set()
        assert await outcome(waiting) is None
        await until(lambda: gone.closed)


async def test_closing_appends_what_waits_then_lets_go_of_the_topic() -> None:
    async with writing(2, Bounds()) as found:
        log = found.topic.logs[1]
        log.gate.clear()
        waiting = [found.append(1), found.append(1)]
        await until(lambda: log.entered == 1)
        closing = asyncio.create_task(found.writer.close())
        await asyncio.sleep(0)
        assert isinstance(await outcome(found.append(0)), NotTaken)
        assert not found.topic.closed
        log.gate.set()
        await closing
        assert [await outcome(task) for task in waiting] == [None, None]
        assert found.topic.closed


async def test_the_end_does_not_wait_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(partitions, "_FINISH_SECONDS", 0.05)
    found = Writing(2, Bounds())
    await until(lambda: found.writer.trouble() is None)
    found.topic.logs[0].gate.clear()
    stuck = found.append(0)
    await until(lambda: found.topic.logs[0].entered == 1)
    with pytest.raises(TimeoutError):
        await found.writer.close()
    assert found.topic.closed
    stuck.cancel()


async def test_what_changes_is_logged_in_one_line_for_all_partitions(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(partitions, "_LOOK_SECONDS", 0.001)
    with structlog.testing.capture_logs() as lines:
        async with writing(3) as found:
            await until(lambda: any(line["log_level"] == "info" for line in lines))
            lines.clear()
            for number in (0, 2):
                log = found.topic.logs[number]
                log.fault = log.probe_fault = NotTaken("no leader")
            await asyncio.gather(*(outcome(found.append(number)) for number in (0, 2)))
            await until(lambda: lines and lines[-1].get("partitions") == {0: "no leader", 2: "no leader"})
            for log in found.topic.logs:
                log.fault = log.probe_fault = None
            await until(lambda: lines[-1]["log_level"] == "info")
            found.topic.why = "the topic is unsafe"
            await until(lambda: lines[-1].get("why") == "the topic is unsafe")
            seen = len(lines)
            await asyncio.sleep(0.01)
            assert len(lines) == seen, "once for each change"
