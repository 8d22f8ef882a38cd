"""Repeats across batches, deaths and reads that fail half-way: a range that is read again gives the same rows."""

import asyncio
import random
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aggregator.ports import Chunk
from schemas import declaration
from schemas.limits import RULES
from schemas.markers import HOME
from tests.aggregator.fakes import MemoryLog
from tests.aggregator.sdks import NODE, Counts, body, post
from tests.aggregator.test_partition import Bench, Died
from tests.aggregator.test_retry_state import by_time, fleet

POINTS = ("before-declare", "after-declare", "after-insert", "before-acknowledge")
WINDOWS = [body({"a": (yes, 1, {})}, stop=60 * yes) for yes in (3, 5, 9)]


def append(log: MemoryLog, value: bytes, **changes: object) -> None:
    record = post(value, **changes)  # type: ignore[arg-type]
    log.records.append(record._replace(offset=log.end))
    log.end += 1


def repeated(bench: Bench, by: str) -> float:
    return bench.status.registry.get_sample_value("flagmeter_aggregator_repeats_total", {"by": by}) or 0.0


def stored(bench: Bench) -> Counts:
    counts: Counts = Counter()
    for row in bench.store.rows(HOME):
        if row["project"] == "default":
            for what in ("yes", "no", "count"):
                if row[what]:
                    counts[str(row["feature"]), str(row["variant"]), what] += int(str(row[what]))
    return counts


@pytest.fixture
def bench() -> Bench:
    made = Bench()
    append(made.log, WINDOWS[0])
    return made


async def test_repeats_are_recognised_within_a_batch_and_across_batches(bench: Bench) -> None:
    append(bench.log, WINDOWS[0], at=1)
    worker = bench.worker()
    task = asyncio.ensure_future(worker.run())
    while not bench.store.markers():
        await asyncio.sleep(0)
    append(bench.log, WINDOWS[1], at=2)
    append(bench.log, WINDOWS[0], at=3)
    while len(bench.store.markers()) < 2:
        await asyncio.sleep(0)
    value = bench.status.registry.get_sample_value
    assert value("flagmeter_aggregator_connections", {"partition": "0"}) == 1
    worker.drain()
    await task
    assert bench.store.total("a") == 5
    assert (repeated(bench, "bytes"), repeated(bench, "superset"), repeated(bench, "key")) == (2, 1, 0)


@pytest.mark.parametrize("point", POINTS)
async def test_a_worker_that_starts_anew_reads_back_what_was_acknowledged(bench: Bench, point: str) -> None:
    await bench.run_until(bench.acknowledged)
    append(bench.log, WINDOWS[1], at=60)
    await bench.run_killed(point)
    append(bench.log, WINDOWS[2], at=120)
    append(bench.log, WINDOWS[0], at=121)
    await bench.run_until(bench.acknowledged)
    assert bench.store.total("a") == 9
    assert repeated(bench, "superset") == 2 if point in POINTS[:2] else 1


@pytest.mark.parametrize("point", POINTS)
async def test_a_declared_range_does_not_take_its_own_records_for_repeats(bench: Bench, point: str) -> None:
    await bench.run_killed(point)
    await bench.run_until(bench.acknowledged)
    assert bench.store.total("a") == 3
    assert repeated(bench, "bytes") == 0


async def test_a_read_that_fails_half_way_does_not_make_records_repeats_of_themselves(bench: Bench) -> None:
    """A batch was judged in part when the broker went away; it is read again from its begin."""
    read, calls = bench.log.read, []

    async def one_by_one(position: int, *, until: int | None, wait_seconds: float) -> Chunk:
        if until is None and position in (2, 3):
            calls.append(position)
            if calls == [2, 3]:
                bench.log.failures.append("read")
        chunk = await read(position, until=until, wait_seconds=wait_seconds)
        return Chunk(chunk.records[:1], chunk.records[0].offset + 1) if chunk.records else chunk

    worker = bench.worker()
    task = asyncio.ensure_future(worker.run())
    while not bench.store.markers():
        await asyncio.sleep(0)
    bench.log.read = one_by_one  # type: ignore[method-assign]
    append(bench.log, WINDOWS[1], at=1)
    append(bench.log, WINDOWS[2], at=2)
    while len(bench.store.markers()) < 2:
        await asyncio.sleep(0)
    worker.drain()
    await task
    assert calls == [2, 3, 2, 3]
    assert bench.store.total("a") == 9


async def test_a_declared_range_whose_read_fails_half_way_is_judged_from_its_begin(bench: Bench) -> None:
    append(bench.log, WINDOWS[1], at=1)
    await bench.run_killed("after-declare")
    read, calls = bench.log.read, []

    async def one_by_one(position: int, *, until: int | None, wait_seconds: float) -> Chunk:
        calls.append(position)
        if len(calls) == 2:
            bench.log.failures.append("read")
        return await read(position, until=position if until else None, wait_seconds=wait_seconds)

    bench.log.read = one_by_one  # type: ignore[method-assign]
    await bench.run_until(bench.acknowledged)
    assert calls[:4] == [1, 2, 1, 2]
    assert bench.store.total("a") == 5


async def test_a_broker_that_is_away_while_reading_back_is_asked_again(bench: Bench) -> None:
    await bench.run_until(bench.acknowledged)
    append(bench.log, WINDOWS[0], at=1)
    bench.log.failures = ["position_at", "read", "read"]
    await bench.run_until(bench.acknowledged)
    assert bench.store.total("a") == 3


async def test_a_range_that_was_declared_under_the_rules_before_is_settled_under_them(bench: Bench) -> None:
    """As the version that declared it would have: every record whole. What follows is judged with all of it in mind."""
    append(bench.log, WINDOWS[0], at=1)
    await bench.run_killed("after-declare")
    bench.log.metadata = declaration.write(2, RULES - 1, bench.clock.now_ms())
    append(bench.log, WINDOWS[0], at=2)
    append(bench.log, WINDOWS[1], at=3)
    await bench.run_until(bench.acknowledged)
    assert bench.store.total("a") == 3 + 3 + 2
    assert bench.store.markers() == [(1, 2), (3, 4)]


async def test_records_that_are_stored_again_after_a_loss_are_judged_as_the_first_time(bench: Bench) -> None:
    append(bench.log, WINDOWS[2], at=1)
    append(bench.log, WINDOWS[1], at=2)
    await bench.run_until(bench.acknowledged)
    bench.store.parts, bench.store.tokens = [], set()
    append(bench.log, WINDOWS[0], at=3)
    await bench.run_until(bench.acknowledged)
    assert bench.store.total("a") == 9


@given(dice=st.randoms(use_true_random=False))
@settings(max_examples=40, deadline=None)
def test_merging_sdks_end_with_their_true_totals_with_deaths_in_between(dice: random.Random) -> None:
    async def check() -> None:
        runs = list(fleet(dice, NODE, connections=3, turns=6))
        bench = Bench()
        for record in by_time([log for _, log in runs]):
            bench.log.records.append(record._replace(offset=bench.log.end))
            bench.log.end += 1
            if dice.random() < 0.25:
                bench.store.faults = dice.choice(([], ["away"], ["answer lost"], ["part lost, answer lost"]))
                bench.log.failures = dice.choice(([], ["read"], ["position_at"], ["read", "commit"]))
                try:
                    bench.points.kill_at = dice.choice(POINTS)
                    await bench.run_until(bench.acknowledged)
                except Died:
                    pass
                bench.points.kill_at = ""
        await bench.run_until(bench.acknowledged)
        truth = sum((client.truth for client, _ in runs), Counter[tuple[str, str, str]]())
        assert stored(bench) == truth

    asyncio.run(check())
