"""What a worker says about itself."""

import pytest
from prometheus_client import CollectorRegistry

from aggregator.batch import Batch, read_next
from aggregator.ports import Record
from aggregator.repeats import Repeats
from aggregator.status import UNREADABLE_IN_A_ROW, Status
from schemas.event import Unreadable
from schemas.limits import RULES
from schemas.markers import Range
from tests.aggregator.fakes import ManualClock, MemoryLog, headers, window


def batch(records: int, unreadable_at_end: int) -> Batch:
    return Batch(Range(1, records), RULES, records, 0, (), {}, {}, 0, unreadable_at_end)


def alarm(status: Status) -> float | None:
    return status.registry.get_sample_value("flagmeter_aggregator_alarm", {"partition": "0", "reason": "unreadable"})


def test_too_many_unreadable_records_in_a_row_raise_an_alarm_until_one_is_read() -> None:
    status = Status(CollectorRegistry())
    status.stored(0, batch(60, 50))
    status.stored(0, batch(UNREADABLE_IN_A_ROW - 51, UNREADABLE_IN_A_ROW - 51))
    assert not alarm(status)
    status.stored(0, batch(0, 0))
    status.stored(0, batch(1, 1))
    assert alarm(status) == 1
    assert status.reasons == [], "the partition goes on"
    status.stored(0, batch(500, 500))
    assert alarm(status) == 1
    status.stored(0, batch(50, 49))
    assert alarm(status) == 0
    status.stored(0, batch(UNREADABLE_IN_A_ROW, UNREADABLE_IN_A_ROW))
    status.released(0)
    assert alarm(status) == 0, "its new owner tells of it"


def test_one_good_record_in_between_ends_the_row() -> None:
    status = Status(CollectorRegistry())
    for _ in range(10):
        status.stored(0, batch(UNREADABLE_IN_A_ROW, UNREADABLE_IN_A_ROW - 1))
    assert not alarm(status)


@pytest.mark.parametrize(
    ("last", "at_end"),
    [
        ((headers(), window("a", 1)), 0),
        ((headers(), b"{"), 3),
        ((Unreadable(b"?", "garbage"), b""), 3),
    ],
)
async def test_a_batch_counts_the_unreadable_records_at_its_end(last: tuple[object, bytes], at_end: int) -> None:
    clock = ManualClock()
    log = MemoryLog(clock)
    log.append(b"nonsense")
    log.append(window("a", 1))
    log.append(b"nonsense")
    log.append(b"\xff\xfe")
    log.records.append(Record(log.end, log.records[-1].log_time, *last))  # type: ignore[arg-type]
    log.end += 1
    found = await read_next(log, clock, 1, Repeats(), flush_seconds=1, enough=lambda: False)
    assert found is not None
    assert (found.records, found.unreadable_at_end) == (5, at_end)
