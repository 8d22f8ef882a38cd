import asyncio
from collections.abc import Callable

import pytest
from prometheus_client import CollectorRegistry

from aggregator.lookback import read_back
from aggregator.partition import PartitionWorker
from aggregator.ports import Block, Chunk, OutOfRangeError
from aggregator.status import Status
from schemas import declaration
from schemas.limits import RULES
from schemas.markers import Range
from schemas.tables import REJECTED
from tests.aggregator.fakes import ManualClock, MemoryLog, MemoryStore, window


class Died(BaseException):
    """The worker was killed."""


class Points:
    def __init__(self) -> None:
        self.kill_at = ""

    async def reached(self, name: str) -> None:
        if name == self.kill_at:
            self.kill_at = ""
            raise Died(name)


class Bench:
    """A worker over a log and a store in memory."""

    def __init__(self) -> None:
        self.clock = ManualClock()
        self.log = MemoryLog(self.clock)
        self.store = MemoryStore()
        self.points = Points()
        self.status = Status(CollectorRegistry())

    def worker(self) -> PartitionWorker:
        return PartitionWorker(self.log, self.store, self.clock, self.points, self.status, flush_seconds=1.0)

    async def run_until(self, condition: Callable[[], bool], turns: int = 5000) -> None:
        """Run a worker until the condition holds, then let it drain."""
        worker = self.worker()
        task = asyncio.ensure_future(worker.run())
        for _ in range(turns):
            if condition() or task.done():
                break
            await asyncio.sleep(0)
        assert task.done() or condition(), "the worker made no progress"
        worker.drain()
        await task

    async def run_killed(self, point: str) -> None:
        self.points.kill_at = point
        with pytest.raises(Died):
            await self.worker().run()

    def acknowledged(self) -> bool:
        return bool(self.log.commits) and self.log.commits[-1] == (self.log.end, self.log.end - 1)


@pytest.fixture
def bench() -> Bench:
    bench = Bench()
    for times in (1, 10, 100):
        bench.log.append(window("checkout", times))
    return bench


async def test_records_are_counted_once_and_acknowledged(bench: Bench) -> None:
    await bench.run_until(bench.acknowledged)
    assert bench.store.total("checkout") == 111
    assert bench.store.markers() == [(1, 3)]
    assert bench.log.commits == [(1, 3), (4, 3)]


async def test_the_next_declaration_acknowledges_the_batch_before(bench: Bench) -> None:
    worker = bench.worker()
    task = asyncio.ensure_future(worker.run())
    while not bench.store.markers():
        await asyncio.sleep(0)
    bench.log.append(window("checkout", 1000))
    while len(bench.store.markers()) < 2:
        await asyncio.sleep(0)
    worker.drain()
    await task
    assert (4, 4) in bench.log.commits
    assert bench.store.total("checkout") == 1111


@pytest.mark.parametrize("point", ["before-declare", "after-declare", "after-insert", "before-acknowledge"])
async def test_a_worker_that_dies_anywhere_leaves_nothing_lost_and_nothing_twice(bench: Bench, point: str) -> None:
    await bench.run_killed(point)
    bench.log.append(window("checkout", 1000))
    await bench.run_until(bench.acknowledged)
    assert bench.store.total("checkout") == 1111
    assert bench.acknowledged()


async def test_a_declared_range_is_settled_as_it_was_cut_though_more_records_came(bench: Bench) -> None:
    await bench.run_killed("after-declare")
    bench.log.append(window("checkout", 1000))
    await bench.run_until(bench.acknowledged)
    assert bench.store.markers() == [(1, 3), (4, 4)]


@pytest.mark.parametrize("fault", ["away", "answer lost", "part lost, answer lost", "refused"])
async def test_a_failed_insert_is_settled(bench: Bench, fault: str) -> None:
    bench.store.faults = [fault]
    await bench.run_until(bench.acknowledged)
    assert bench.store.total("checkout") == 111
    assert bench.store.markers() == [(1, 3)]


async def test_only_a_success_without_marker_raises_the_number_of_the_token(bench: Bench) -> None:
    bench.store.faults = ["part lost, answer lost"]
    await bench.run_until(bench.acknowledged)
    assert [token for _, token in bench.store.inserts] == ["topic-a:0:1-3", "topic-a:0:1-3", "topic-a:0:1-3-r1"]
    assert bench.store.total("checkout") == 111


async def test_a_doubtful_insert_never_raises_the_number_of_the_token(bench: Bench) -> None:
    bench.store.faults = ["away"] * 5
    await bench.run_until(bench.acknowledged)
    assert {token for _, token in bench.store.inserts} == {"topic-a:0:1-3"}
    assert bench.store.total("checkout") == 111


async def test_an_error_that_a_person_must_mend_is_tried_every_half_minute_and_makes_it_unready(bench: Bench) -> None:
    bench.store.faults = ["refused"] * 3
    seen: list[str] = []
    bench.store.before_insert = lambda: seen.extend(bench.status.reasons)
    await bench.run_until(bench.acknowledged)
    assert bench.clock.slept.count(30.0) == 3
    assert "no such table" in seen[0]
    assert bench.status.reasons == []


async def test_an_insert_long_after_its_declaration_is_settled_first(bench: Bench) -> None:
    class LatePoints(Points):
        async def reached(self, name: str) -> None:
            if name == "after-declare":
                bench.clock.seconds += 6.0

    bench.points = LatePoints()
    await bench.run_until(bench.acknowledged)
    assert bench.log.commits[:2] == [(1, 3), (1, 3)], "the range is declared again before it is inserted"
    assert bench.store.total("checkout") == 111


async def test_a_worker_that_hangs_until_it_reads_the_answer_to_its_declaration_does_not_take_it_for_fresh(
    bench: Bench,
) -> None:
    commit, hangs = bench.log.commit, [True]

    async def answered_late(offset: int, metadata: str) -> None:
        await commit(offset, metadata)
        bench.clock.seconds += 6.0 if hangs and hangs.pop() else 0.0

    bench.log.commit = answered_late  # type: ignore[method-assign]
    await bench.run_until(bench.acknowledged)
    assert bench.log.commits[:2] == [(1, 3), (1, 3)], "the range is declared again before it is inserted"
    assert bench.store.total("checkout") == 111


async def test_a_lost_membership_ends_the_work_without_another_write(bench: Bench) -> None:
    bench.log.lost = True
    await bench.worker().run()
    assert bench.store.inserts == []
    assert bench.log.commits == []


async def test_a_broker_that_is_away_for_a_while_is_asked_again(bench: Bench) -> None:
    bench.log.failures = ["bounds", "committed", "read", "commit", "commit"]
    await bench.run_until(bench.acknowledged)
    assert bench.store.total("checkout") == 111


async def test_gaps_in_the_log_belong_to_the_range_around_them() -> None:
    bench = Bench()
    bench.log.append(window("checkout", 1))
    bench.log.append(window("checkout", 10), skip=5)
    bench.log.end += 2
    await bench.run_until(bench.acknowledged)
    assert bench.store.total("checkout") == 11
    assert bench.store.markers()[0][0] == 1
    assert bench.store.markers()[-1][1] == 9


async def test_newer_rules_leave_the_partition_alone(bench: Bench) -> None:
    await bench.run_killed("after-declare")
    bench.log.metadata = declaration.write(3, RULES + 1, bench.clock.now_ms())
    task = asyncio.ensure_future(bench.worker().run())
    while not bench.status.reasons:
        await asyncio.sleep(0)
    for _ in range(100):
        await asyncio.sleep(0)
    assert f"rules {RULES + 1}" in bench.status.reasons[0]
    assert bench.store.inserts == []
    task.cancel()
    await asyncio.wait({task})


async def test_another_log_stops_the_partition(bench: Bench) -> None:
    await bench.run_until(bench.acknowledged)
    bench.log.records, bench.log.end, bench.log.offset = [], 1, None
    task = asyncio.ensure_future(bench.worker().run())
    while not bench.status.reasons:
        await asyncio.sleep(0)
    assert "another_log" in bench.status.reasons[0]
    task.cancel()
    await asyncio.wait({task})


async def test_a_declaration_older_than_the_markers_life_is_left_to_a_person(bench: Bench) -> None:
    await bench.run_killed("after-insert")
    bench.clock.seconds += 34.1 * 86_400
    bench.store.parts = []  # the marker expired
    task = asyncio.ensure_future(bench.worker().run())
    while not bench.status.reasons:
        await asyncio.sleep(0)
    for _ in range(100):
        await asyncio.sleep(0)
    assert "declared_too_long_ago" in bench.status.reasons[0]
    assert len(bench.store.inserts) == 1
    task.cancel()
    await asyncio.wait({task})


async def test_lost_offsets_wait_out_late_writers_and_go_on_after_the_largest_marker(bench: Bench) -> None:
    await bench.run_until(bench.acknowledged)
    bench.log.offset = None
    bench.log.append(window("checkout", 1000))
    bench.clock.slept.clear()
    await bench.run_until(lambda: bench.store.total("checkout") == 1111)
    assert 40.0 in bench.clock.slept, "one session time-out and the insert's longest time"
    assert bench.store.markers() == [(1, 3), (4, 4)]


async def test_a_store_that_lost_acknowledged_batches_gets_them_again(bench: Bench) -> None:
    await bench.run_until(bench.acknowledged)
    bench.store.parts, bench.store.tokens = [], set()
    await bench.run_until(lambda: bench.store.total("checkout") == 111)
    assert bench.store.total("checkout") == 111
    assert bench.status.registry.get_sample_value(
        "flagmeter_aggregator_alarm", {"partition": "0", "reason": "lost_by_store"}
    )


async def test_a_store_that_lost_rows_and_kept_their_tokens_gets_the_rows_again(bench: Bench) -> None:
    """A token that is known answers with success: after a recut only a marker is a proof."""
    await bench.run_until(bench.acknowledged)
    bench.store.parts = []
    await bench.run_until(lambda: bench.store.total("checkout") == 111)
    assert bench.store.markers() == [(1, 3)]
    assert [token for _, token in bench.store.inserts[1:]] == ["topic-a:0:1-3", "topic-a:0:1-3-r1"]


async def test_another_log_stays_stopped_when_it_grows_past_what_is_stored(bench: Bench) -> None:
    await bench.run_until(bench.acknowledged)
    bench.log.records, bench.log.end, bench.log.offset = [], 1, None
    task = asyncio.ensure_future(bench.worker().run())
    while not bench.status.reasons:
        await asyncio.sleep(0)
    for _ in range(9):
        bench.log.append(window("checkout", 1000))
    for _ in range(300):
        await asyncio.sleep(0)
    task.cancel()
    await asyncio.wait({task})
    restarted = asyncio.ensure_future(bench.worker().run())
    for _ in range(300):
        await asyncio.sleep(0)
    assert "another_log" in bench.status.reasons[0]
    assert bench.store.total("checkout") == 111
    restarted.cancel()
    await asyncio.wait({restarted})


async def test_a_marker_that_never_appears_is_a_trouble_and_not_an_endless_row_of_inserts(bench: Bench) -> None:
    bench.store.faults = ["answer lost"]
    bench.store.blind = True
    task = asyncio.ensure_future(bench.worker().run())
    while not any("does not appear" in reason for reason in bench.status.reasons):
        await asyncio.sleep(0)
    for _ in range(500):
        await asyncio.sleep(0)
    attempts = {token for _, token in bench.store.inserts}
    assert attempts == {"topic-a:0:1-3", "topic-a:0:1-3-r1", "topic-a:0:1-3-r2", "topic-a:0:1-3-r3"}
    task.cancel()
    await asyncio.wait({task})


async def test_a_settling_insert_is_not_sent_under_an_old_declaration(bench: Bench) -> None:
    bench.store.faults = ["away"]
    read = bench.store.marked_tables
    slow = [True]

    async def slow_read(topic_id: str, partition: int, span: Range) -> frozenset[str]:
        if slow.pop() if slow else False:
            bench.clock.seconds += 6.0
        return await read(topic_id, partition, span)

    bench.store.marked_tables = slow_read  # type: ignore[method-assign]
    await bench.run_until(bench.acknowledged)
    assert [commit for commit in bench.log.commits if commit == (1, 3)] == [(1, 3)] * 3
    assert bench.store.total("checkout") == 111


async def test_rejected_rows_that_the_store_lost_with_their_token_known_are_written_again() -> None:
    bench = Bench()
    bench.log.append(b"nonsense")
    bench.store.faults = ["part lost, answer lost"]
    await bench.run_until(bench.acknowledged)
    assert [row["reason"] for row in bench.store.rows(REJECTED)] == ["unreadable"]


async def test_declaring_a_range_again_does_not_make_it_younger(bench: Bench) -> None:
    bench.store.faults = ["away"] * 3
    await bench.run_until(bench.acknowledged)
    declared = {t for offset, t in bench.log.times if offset == 1}
    assert len(declared) == 1, "one time for all tries of settling it"


async def test_what_cannot_be_stored_is_set_aside_with_its_place_and_costs_its_neighbours_nothing() -> None:
    bench = Bench()
    bench.log.append(window("good", 5))
    bench.log.append(b"\x00 not json")
    bench.log.append(window("", 7))
    bench.log.append(window("good", 50))
    await bench.run_until(bench.acknowledged)
    assert bench.store.total("good") == 55
    assert [(row["offset"], row["reason"]) for row in bench.store.rows(REJECTED)] == [
        (2, "unreadable"),
        (3, "empty_feature"),
    ]


async def test_the_first_batch_with_rejected_rows_names_both_tables_in_its_marker() -> None:
    bench = Bench()
    bench.log.append(b"nonsense")
    await bench.run_until(bench.acknowledged)
    (marker,) = bench.store.rows("evaluations_hourly")
    assert marker["app_name"] == "evaluations_hourly,rejected"
    assert [table for table, _ in bench.store.inserts] == ["rejected", "evaluations_hourly"]


async def test_reading_back_before_a_position_beyond_the_logs_end_is_out_of_range(bench: Bench) -> None:
    """The log lost its newest records while the state was being rebuilt."""
    with pytest.raises(OutOfRangeError):
        await read_back(bench.log, 10)


async def test_reading_back_where_the_log_now_ends_does_not_wait_for_records_that_are_gone(bench: Bench) -> None:
    read = bench.log.read

    async def up_to_the_end(position: int, *, until: int | None, wait_seconds: float) -> Chunk:
        return (
            Chunk([], position)
            if position == bench.log.end
            else await read(position, until=until, wait_seconds=wait_seconds)
        )

    bench.log.read = up_to_the_end  # type: ignore[method-assign]
    with pytest.raises(OutOfRangeError):
        await read_back(bench.log, bench.log.end + 1)


async def test_a_log_that_goes_on_and_gives_nothing_is_behind_and_soon_a_trouble(bench: Bench) -> None:
    bench.log.end += 1000  # as a broker that names an end, and answers no fetch
    read = bench.log.read
    lags: list[float] = []

    async def silent(position: int, *, until: int | None, wait_seconds: float) -> Chunk:
        if position <= 3:
            return await read(position, until=3, wait_seconds=wait_seconds)
        await bench.clock.sleep(wait_seconds)
        lags.append(sample(bench, "flagmeter_aggregator_lag_records"))
        return Chunk([], position)

    bench.log.read = silent  # type: ignore[method-assign]
    said: list[str] = []
    await bench.run_until(lambda: bool(said.extend(bench.status.reasons) or said))
    assert "nothing can be read from 4 on" in said[0]
    assert lags[-1] == 1000


async def test_a_store_that_is_slow_gets_each_table_once_and_not_the_same_again_and_again() -> None:
    bench = Bench()
    bench.log.append(b"nonsense")
    insert = bench.store.insert

    async def slow(block: Block, token: str) -> None:
        await insert(block, token)
        bench.clock.seconds += 6.0  # longer than half a session

    bench.store.insert = slow  # type: ignore[method-assign]
    await bench.run_until(bench.acknowledged)
    assert [table for table, _ in bench.store.inserts] == ["rejected", "evaluations_hourly"]


def sample(bench: Bench, name: str) -> float:
    return bench.status.registry.get_sample_value(name, {"partition": "0"}) or 0.0
