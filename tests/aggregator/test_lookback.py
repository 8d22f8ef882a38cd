import asyncio
from unittest import mock

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aggregator import lookback, repeats
from aggregator.lookback import Lookback, read_back
from aggregator.ports import BrokerAwayError, Chunk, Record
from aggregator.repeats import By, Repeats
from schemas.limits import REPEAT_WINDOW_MS
from tests.aggregator.fakes import DAY_MS, ManualClock, MemoryLog
from tests.aggregator.test_retry_state import records

NOON = 20_000 * DAY_MS


class WatchedLog(MemoryLog):
    """Remembers where it was read from."""

    def __init__(self, *, step: int = 1000) -> None:
        super().__init__(ManualClock())
        self.starts: list[int] = []
        self.questions = 0
        self.step = step

    async def read(self, position: int, *, until: int | None, wait_seconds: float) -> Chunk:
        self.starts.append(position)
        assert until is not None
        return await super().read(position, until=min(until, position + self.step - 1), wait_seconds=wait_seconds)

    async def position_at(self, log_time: int) -> int:
        assert log_time >= 0, "Kafka knows no times before the epoch"
        self.questions += 1
        return await super().position_at(log_time)


def of_times(*times: int) -> WatchedLog:
    log = WatchedLog()
    for time in times:
        log.append(b"{}", log_time=time)
    return log


async def started_at(log: WatchedLog, first: int) -> int | None:
    """Where reading back for this position began; the first read asks for one append time only."""
    await read_back(log, first)
    return log.starts[1] if len(log.starts) > 1 else None


async def test_reading_back_begins_less_than_fifteen_minutes_of_log_time_before() -> None:
    log = of_times(NOON, NOON + 1, NOON + 2, NOON + 1 + REPEAT_WINDOW_MS)
    assert await started_at(log, 5) == 3


async def test_an_append_time_that_fell_is_not_taken_for_log_time() -> None:
    """The record before the position was appended by a slow clock, when log time was an hour further."""
    log = of_times(NOON, NOON + 3_600_000, NOON + 1, NOON + 2)
    assert await started_at(log, 5) == 2


async def test_usually_three_questions_and_one_record_tell_where_to_begin() -> None:
    log = of_times(*range(NOON, NOON + 10 * REPEAT_WINDOW_MS, 20_000))
    await read_back(log, log.end)
    assert log.questions == 3


async def test_no_more_records_are_read_back_than_a_repeat_is_looked_for_among(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("aggregator.lookback.REPEAT_RECORDS", 4)
    log = of_times(*range(NOON, NOON + 10))
    await read_back(log, 10)
    assert log.starts == [9, 6, 7], "two to learn of log time"


async def test_log_time_is_known_where_reading_back_begins_late(monkeypatch: pytest.MonkeyPatch) -> None:
    """An append time an hour ahead lies further back than is read: what follows it has its log time all the same."""
    for module in ("lookback", "repeats"):
        monkeypatch.setattr(f"aggregator.{module}.REPEAT_RECORDS", 3)
    log = of_times(NOON + 3_600_000, NOON, NOON)
    log.append(b"{}", connection="c", log_time=NOON)
    log.append(b"{}", connection="c", log_time=NOON + REPEAT_WINDOW_MS)
    state = await read_back(log, 5)
    repeat = state.judge(log.records[4])
    assert repeat is not None
    assert repeat.by is By.BYTES


async def test_a_log_that_keeps_less_is_read_from_its_begin() -> None:
    log = of_times(NOON, NOON + 1, NOON + 2)
    log.begin = 2
    del log.records[0]
    assert await started_at(log, 4) == 2


@pytest.mark.parametrize("first", [1, 6])
async def test_where_nothing_came_before_nothing_is_read(first: int) -> None:
    log = WatchedLog()
    log.begin = log.end = 1
    log.append(b"{}", skip=5)
    assert (await read_back(log, first)).connections == 0
    assert log.starts == []


async def test_a_gap_before_the_position_hides_nothing() -> None:
    log = of_times(NOON - REPEAT_WINDOW_MS, NOON - REPEAT_WINDOW_MS + 1, NOON)
    log.append(b"{}", skip=5)
    assert await started_at(log, 8) == 2


async def test_a_broker_that_is_away_is_asked_again_by_the_caller() -> None:
    for call in ("bounds", "position_at", "read"):
        log = of_times(NOON, NOON)
        log.failures = [call]
        with pytest.raises(BrokerAwayError):
            await read_back(log, 3)


async def test_a_slow_broker_is_waited_for() -> None:
    log = of_times(NOON, NOON)
    fast, silent = log.read, [True, True]

    async def read(position: int, *, until: int | None, wait_seconds: float) -> Chunk:
        return Chunk([], position) if silent and silent.pop() else await fast(position, until=until, wait_seconds=1)

    log.read = read  # type: ignore[method-assign]
    assert await started_at(log, 3) == 1


@given(records(), st.sampled_from((1, 3, 10, 1000)), st.data())
def test_a_state_that_was_read_back_decides_as_one_that_saw_the_whole_log(
    records: list[Record], horizon: int, data: st.DataObject
) -> None:
    async def check() -> None:
        log = WatchedLog(step=data.draw(st.integers(1, 7)))
        for record in records:
            log.end += data.draw(st.integers(0, 2))
            log.records.append(record._replace(offset=log.end))
            log.end += 1
        first = data.draw(st.integers(1, log.end))
        at = sum(record.offset < first for record in log.records)
        whole = Repeats()
        expected = [whole.judge(record) for record in log.records]
        read = await read_back(log, first)
        assert [read.judge(record) for record in log.records[at:]] == expected[at:]

    with mock.patch.object(lookback, "REPEAT_RECORDS", horizon), mock.patch.object(repeats, "REPEAT_RECORDS", horizon):
        asyncio.run(check())


async def test_what_is_put_back_is_carried_on() -> None:
    log = of_times(NOON, NOON)
    carried = Lookback(log)
    state = await carried.take(3)
    carried.put(5, state)
    log.starts.clear()
    assert await carried.take(5) is state
    assert log.starts == []


async def test_a_state_of_another_position_is_not_used() -> None:
    log = of_times(NOON, NOON)
    carried = Lookback(log)
    carried.put(2, Repeats())
    log.append(b"{}", connection="c")
    log.append(b"{}", connection="c")
    state = await carried.take(4)
    repeat = state.judge(log.records[3])
    assert repeat is not None
    assert repeat.by is By.BYTES


async def test_a_state_that_was_not_put_back_is_rebuilt() -> None:
    """Whoever took it may have judged half a batch with it: the same records would be repeats of themselves."""
    log = of_times()
    log.append(b"{}", connection="c")
    carried = Lookback(log)
    carried.put(1, Repeats())
    half = await carried.take(1)
    assert half.judge(log.records[0]) is None
    again = await carried.take(1)
    assert again.judge(log.records[0]) is None
