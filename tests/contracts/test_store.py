"""The contract of the store: tokens, markers and blocks, in ClickHouse's engine and in the simulated one."""

import time
import uuid
from collections.abc import AsyncIterator
from random import Random
from typing import Any

import pytest

from aggregator.adapters.clickhouse import ClickHouseStore
from aggregator.ports import Block, Record, Store, StoreError
from aggregator.repeats import Repeats
from aggregator.rollup import Rollup
from schemas import urls
from schemas.markers import HOME, Range, token
from schemas.tables import COLUMNS, REJECTED
from tests.aggregator.fakes import MemoryStore, headers, window
from tests.simulation.loop import RealTime
from tests.simulation.store import Server, SimulatedStore, split
from tests.simulation.wire import Trace, Wire


class ClickHouseBackend:
    """The real adapter over the real engine."""

    def __init__(self, url: str) -> None:
        self.store = ClickHouseStore(urls.parse_clickhouse(url), flush_seconds=1.0)

    async def rows(self, table: str, topic: str, columns: str) -> list[tuple[Any, ...]]:
        where = f"app_name = '{topic}'" if table == HOME else f"topic_id = '{topic}'"
        final = "FINAL" if table == REJECTED else ""
        return await self.store._rows(f"SELECT {columns} FROM {table} {final} WHERE {where} ORDER BY ALL", {})

    async def parts_of(self, topic: str) -> int:
        rows = await self.store._rows(f"SELECT uniq(_part) FROM {HOME} WHERE app_name = '{topic}'", {})
        return int(rows[0][0])

    async def close(self) -> None:
        await self.store.close()


class MemoryBackend:
    """The store that the unit tests use."""

    def __init__(self, url: str) -> None:
        self.store = MemoryStore()

    async def rows(self, table: str, topic: str, columns: str) -> list[tuple[Any, ...]]:
        names = columns.split(", ")
        found = [row for row in self.store.rows(table) if topic in (row["app_name"], row.get("topic_id"))]
        return sorted(tuple(row[name] for name in names) for row in found)

    async def parts_of(self, topic: str) -> int:
        return sum(any(row["app_name"] == topic for row in rows) for table, rows in self.store.parts if table == HOME)

    async def close(self) -> None:
        return None


class SimulatedBackend:
    """The simulation's store, in real time."""

    def __init__(self, url: str) -> None:
        scheduler = RealTime()
        self.server = Server(Wire(scheduler, Random(), Trace(scheduler)))  # noqa: S311
        self.store = SimulatedStore(self.server)

    async def rows(self, table: str, topic: str, columns: str) -> list[tuple[Any, ...]]:
        names = list(COLUMNS[table])
        wanted = [names.index(name) for name in columns.split(", ")]
        name = names.index("app_name" if table == HOME else "topic_id")
        found = [tuple(row[at] for at in wanted) for row in self.server.tables.rows(table) if row[name] == topic]
        return sorted(set(found) if table == REJECTED else found)

    async def parts_of(self, topic: str) -> int:
        at = list(COLUMNS[HOME]).index("app_name")
        parts = [part for part in self.server.tables.parts if part.table == HOME]
        return sum(any(row[at] == topic for row in part.rows) for part in parts)

    async def close(self) -> None:
        return None


@pytest.fixture(params=[MemoryBackend, ClickHouseBackend, SimulatedBackend], ids=["memory", "clickhouse", "simulated"])
async def backend(request: pytest.FixtureRequest) -> AsyncIterator[Any]:
    url = request.getfixturevalue("clickhouse_url") if request.param is ClickHouseBackend else ""
    made = request.param(url)
    try:
        yield made
    finally:
        await made.close()


@pytest.fixture
def topic() -> str:
    """Also the name of the app, so that a test finds its own rows."""
    return f"topic-{uuid.uuid4().hex}"


def blocks(topic: str, span: Range, *values: bytes) -> dict[str, Block]:
    rollup = Rollup(Repeats())
    for at, value in enumerate(values):
        rollup.add(topic, 0, Record(span.first + at, int(time.time() * 1000), headers(), value))
    return {block.table: block for block in rollup.blocks(topic, 0, span)}


async def insert(store: Store, topic: str, span: Range, *values: bytes, attempt: int = 0) -> None:
    for block in blocks(topic, span, *values).values():
        await store.insert(block, token(topic, 0, span, attempt))


async def yes_of(backend: Any, topic: str) -> int:
    """Add up, since parts may have been merged meanwhile."""
    return sum(int(row[0]) for row in await backend.rows(HOME, topic, "yes"))


async def test_a_fresh_topic_has_no_marker(backend: Any, topic: str) -> None:
    await backend.store.check(1)
    assert await backend.store.last_marked(topic, 0) is None
    assert await backend.store.marked_tables(topic, 0, Range(1, 2)) == frozenset()
    assert await backend.store.ranges_beyond(topic, 0, -1) == []


async def test_rows_and_marker_are_there_together(backend: Any, topic: str) -> None:
    await insert(backend.store, topic, Range(1, 2), window("a", 3, app=topic), window("b", 4, app=topic))
    found = await backend.rows(HOME, topic, "feature, variant, yes, no, count")
    assert found == [("a", "", 3, 1, 0), ("a", "blue", 0, 0, 3), ("b", "", 4, 1, 0), ("b", "blue", 0, 0, 4)]
    assert await backend.store.last_marked(topic, 0) == 2
    assert await backend.store.marked_tables(topic, 0, Range(1, 2)) == {HOME}
    assert await backend.parts_of(topic) == 1


async def test_a_marker_stands_for_its_own_range_alone(backend: Any, topic: str) -> None:
    await insert(backend.store, topic, Range(1, 9), window("a", 1, app=topic))
    for other in (Range(1, 8), Range(2, 9), Range(1, 10), Range(10, 10)):
        assert await backend.store.marked_tables(topic, 0, other) == frozenset()
    assert await backend.store.last_marked(topic, 1) is None
    assert await backend.store.last_marked(topic + "x", 0) is None


async def test_the_largest_marker_counts_as_a_number_not_as_a_text(backend: Any, topic: str) -> None:
    for span in (Range(1, 9), Range(10, 99), Range(100, 100)):
        await insert(backend.store, topic, span, window("a", 1, app=topic))
    assert await backend.store.last_marked(topic, 0) == 100


async def test_a_known_token_is_answered_with_success_and_inserts_nothing(backend: Any, topic: str) -> None:
    for _ in range(3):
        await insert(backend.store, topic, Range(1, 1), window("a", 3, app=topic))
    assert await backend.rows(HOME, topic, "feature, variant, yes") == [("a", "", 3), ("a", "blue", 0)]


async def test_a_known_token_drops_other_rows_too(backend: Any, topic: str) -> None:
    await insert(backend.store, topic, Range(1, 1), window("a", 3, app=topic))
    await insert(backend.store, topic, Range(1, 1), window("b", 5, app=topic))
    assert await backend.rows(HOME, topic, "feature, variant, yes") == [("a", "", 3), ("a", "blue", 0)]


async def test_another_attempt_is_another_token(backend: Any, topic: str) -> None:
    for attempt in (0, 1, 1):
        await insert(backend.store, topic, Range(1, 1), window("a", 3, app=topic), attempt=attempt)
    assert await yes_of(backend, topic) == 6


async def test_equal_rows_of_honest_batches_are_both_kept(backend: Any, topic: str) -> None:
    for span in (Range(1, 1), Range(2, 2)):
        await insert(backend.store, topic, span, window("a", 3, app=topic))
    assert await yes_of(backend, topic) == 6


async def test_rows_of_four_hundred_years_are_one_part(backend: Any, topic: str) -> None:
    years = [1900, 1926, 1969, 1970, 2026, 2106, 2150, 2250, 2299]
    bodies = [window("a", 1, app=topic).replace(b"2026-11-22", f"{year}-05-08".encode()) for year in years]
    await insert(backend.store, topic, Range(1, 9), *bodies)
    hours = [row[0] for row in await backend.rows(HOME, topic, "hour, variant") if row[1] == ""]
    assert len(set(hours)) == len(years)
    assert await backend.parts_of(topic) == 1


async def test_counts_keep_all_64_bits(backend: Any, topic: str) -> None:
    largest = window("a", 2**53 - 1, app=topic)
    await insert(backend.store, topic, Range(1, 2047), *[largest] * 2047)
    assert (await backend.rows(HOME, topic, "variant, yes"))[0] == ("", 2047 * (2**53 - 1))


async def test_rejected_rows_hold_their_place_and_any_text(backend: Any, topic: str) -> None:
    odd = window("nul\\u0000 \\ud800 \u00e9", 3, app=topic)
    for _ in range(2):
        await insert(backend.store, topic, Range(7, 8), odd, b"\xff\x00 nonsense")
    found = await backend.rows(REJECTED, topic, "offset, row, reason, kind")
    assert found == [(7, 0, "nul_in_name", "metrics"), (8, 0, "unreadable", "metrics")]


async def test_two_hundred_thousand_rows_are_one_part(backend: Any, topic: str) -> None:
    toggles = ",".join(f'"f{at}":{{"yes":1}}' for at in range(200_000))
    body = f'{{"appName":"{topic}","bucket":{{"start":0,"stop":1,"toggles":{{{toggles}}}}}}}'.encode()
    (block,) = blocks(topic, Range(1, 1), body).values()
    for _ in range(2):
        await backend.store.insert(block, token(topic, 0, Range(1, 1), 0))
    assert await backend.parts_of(topic) == 1
    assert len(await backend.rows(HOME, topic, "feature")) == 200_000


LONG = "\U0001f600" * 255


@pytest.mark.parametrize("prefix", ["", "\\u0000"], ids=["good", "set aside"])
async def test_the_worst_post_is_still_one_insert(backend: Any, topic: str, prefix: str) -> None:
    """Two megabytes of tiny variants under the longest names, on top of an almost full batch."""
    app = topic + LONG[len(topic) :]
    variants = ",".join(f'"{prefix}{at:x}":1' for at in range(2_000_000 // (len(prefix) + 10)))
    body = (
        f'{{"appName":"{app}","platformName":"{LONG}","bucket":{{"start":0,"stop":1,"toggles":'
        f'{{"{LONG}":{{"yes":1,"variants":{{{variants}}}}}}}}}}}'
    ).encode()
    assert len(body) < 2 * 1024**2
    many = ",".join(f'"{at:x}":{{"yes":1}}' for at in range(100_000))
    other = f'{{"appName":"{app}","bucket":{{"start":0,"stop":1,"toggles":{{{many}}}}}}}'.encode()
    await insert(backend.store, topic, Range(1, 3), other, other, body)
    assert await backend.store.last_marked(topic, 0) == 3


async def test_a_store_that_does_not_answer_is_a_passing_error() -> None:
    store = ClickHouseStore(urls.parse_clickhouse("http://127.0.0.1:9/flagmeter"), flush_seconds=1.0)
    with pytest.raises(StoreError) as caught:
        await store.last_marked("topic", 0)
    assert caught.value.passing
    await store.close()


async def test_a_refusal_tells_its_code_and_does_not_pass_by_itself(clickhouse_url: str, topic: str) -> None:
    store = ClickHouseStore(urls.parse_clickhouse(clickhouse_url), flush_seconds=1.0)
    wrong = Block("no_such_table", {"a": (1,)})
    COLUMNS["no_such_table"] = {"a": "UInt8"}
    try:
        with pytest.raises(StoreError) as caught:
            await store.insert(wrong, topic)
    finally:
        del COLUMNS["no_such_table"]
        await store.close()
    assert (caught.value.code, caught.value.passing) == (60, False)


async def test_tables_that_keep_too_few_tokens_are_refused_with_the_cure(clickhouse_url: str) -> None:
    store = ClickHouseStore(urls.parse_clickhouse(clickhouse_url), flush_seconds=1.0)
    with pytest.raises(StoreError, match=r"ALTER TABLE .* MODIFY SETTING"):
        await store.check(1000)
    await store.close()


async def test_a_token_is_known_for_each_partition_and_block_in_a_window_of_its_table(topic: str) -> None:
    """What was measured of ClickHouse, and what the simulation relies on: not content, but ordinals and counts."""
    simulated = SimulatedBackend("")
    store, tables = simulated.store, simulated.server.tables
    tables.window = 3
    for first in (1, 2, 3, 1):
        await insert(store, topic, Range(first, first), window("a", 1, app=topic))
    assert await yes_of(simulated, topic) == 3, "the first one is still known"
    for first in (4, 1):
        await insert(store, topic, Range(first, first), window("a", 1, app=topic))
    assert await yes_of(simulated, topic) == 5, "first in, first out"
    tables.cut = lambda block: split(block, 1)
    await insert(store, topic, Range(4, 4), window("a", 1, app=topic))
    assert sum(row[0] for row in await simulated.rows(HOME, topic, "count")) == 6, "one block first and several then"
    tables.cut = lambda block: [block]
    for days in (0, 31):
        made = blocks(topic, Range(9, 9), window("b", 1, app=topic))[HOME]
        made.columns["received"] = [day + days for day in made.columns["received"]]
        await store.insert(made, token(topic, 0, Range(9, 9)))
    assert [row[0] for row in await simulated.rows(HOME, topic, "feature, variant")].count("b") == 4, "two partitions"
