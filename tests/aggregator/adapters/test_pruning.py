import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest

from aggregator.adapters import pruning
from aggregator.adapters.clock import SystemClock
from aggregator.adapters.sqlite import SqliteFile, SqliteMembership
from schemas import declaration, sqlite_log
from schemas.limits import RULES
from tests.contracts.test_log import Member

HOUR = 3_600_000
NOW = 20_000 * 24 * HOUR


@pytest.fixture
def log(tmp_path: Path) -> Iterator[sqlite3.Connection]:
    connection = sqlite_log.connect(tmp_path / "broker.db", busy_seconds=1)
    yield connection
    connection.close()


def fill(connection: sqlite3.Connection, *times: int) -> None:
    connection.executemany(
        "INSERT INTO log (time_ms, key, headers, value) VALUES (?, x'', x'', x'')", [(time,) for time in times]
    )


def left(connection: sqlite3.Connection) -> list[int]:
    return [row[0] for row in connection.execute("SELECT id FROM log ORDER BY id")]


def test_acknowledged_records_older_than_a_day_go(log: sqlite3.Connection) -> None:
    fill(log, NOW - 25 * HOUR, NOW - 25 * HOUR, NOW - 23 * HOUR, NOW)
    assert pruning.prune(log, acknowledged=5, now_ms=NOW) == 2
    assert left(log) == [3, 4]


def test_what_is_not_acknowledged_stays_however_old(log: sqlite3.Connection) -> None:
    fill(log, *[NOW - 1000 * HOUR] * 4)
    assert pruning.prune(log, acknowledged=3, now_ms=NOW) == 2
    assert left(log) == [3, 4]


def test_a_log_that_stood_still_keeps_what_a_restored_store_would_need(log: sqlite3.Connection) -> None:
    fill(log, NOW - 100 * HOUR, NOW - 90 * HOUR)
    assert pruning.prune(log, acknowledged=3, now_ms=NOW) == 0


def test_a_log_that_stood_still_is_pruned_before_its_markers_expire(log: sqlite3.Connection) -> None:
    fill(log, NOW - 34 * 24 * HOUR - 1, NOW - 34 * 24 * HOUR)
    assert pruning.prune(log, acknowledged=3, now_ms=NOW) == 1
    assert left(log) == [2]


def test_a_log_of_the_future_is_pruned_too_when_nothing_was_committed_for_long(log: sqlite3.Connection) -> None:
    """A clock that ran ahead gave log times that look young; their markers were written, and expire, by true time."""
    fill(log, NOW + 240 * HOUR, NOW + 240 * HOUR)
    long_ago = NOW - 35 * 24 * HOUR
    assert pruning.prune(log, acknowledged=3, now_ms=NOW, expired_only=True) == 0
    assert pruning.prune(log, acknowledged=3, now_ms=NOW, expired_only=True, since=long_ago) == 2


def test_a_pass_is_bounded_in_bytes(log: sqlite3.Connection, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pruning, "BYTES_AT_ONCE", 2500)
    log.executemany(
        "INSERT INTO log (time_ms, key, headers, value) VALUES (?, x'', x'', zeroblob(1000))", [(1,)] * 5 + [(NOW,)]
    )
    assert pruning.prune(log, acknowledged=7, now_ms=NOW) == 2
    assert left(log) == [3, 4, 5, 6]


def test_a_large_log_keeps_a_quarter_of_an_hour(log: sqlite3.Connection, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sqlite_log, "PRUNE_BYTES", 1)
    fill(log, NOW - HOUR, NOW - HOUR // 4 - 1, NOW - HOUR // 4, NOW)
    assert pruning.prune(log, acknowledged=5, now_ms=NOW) == 2
    assert left(log) == [3, 4]


@pytest.mark.parametrize("limit", [1, sqlite_log.PRUNE_BYTES])
def test_what_a_worker_reads_back_stays_however_far_behind_it_is(
    log: sqlite3.Connection, monkeypatch: pytest.MonkeyPatch, limit: int
) -> None:
    """Repeats are looked for in the quarter of an hour before the first record that is not acknowledged."""
    monkeypatch.setattr(sqlite_log, "PRUNE_BYTES", limit)
    then = NOW - 30 * HOUR
    fill(log, then - HOUR // 4 - 1, then - HOUR // 4, then - 1, then, NOW)
    assert pruning.prune(log, acknowledged=4, now_ms=NOW) == 1
    assert left(log) == [2, 3, 4, 5]


def test_an_empty_log_has_nothing_to_prune(log: sqlite3.Connection) -> None:
    assert pruning.prune(log, acknowledged=1, now_ms=NOW) == 0


def test_a_pass_is_bounded(log: sqlite3.Connection, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pruning, "AT_ONCE", 3)
    fill(log, *[NOW - 1000 * HOUR] * 5)
    assert pruning.prune(log, acknowledged=6, now_ms=NOW) == 3
    assert left(log) == [4, 5]


async def test_old_acknowledged_records_are_gone_before_the_partition_is_assigned(
    log: sqlite3.Connection, tmp_path: Path
) -> None:
    """After two months without a start all markers have expired: such records would look lost by the store."""
    fill(log, *[NOW - 1000 * HOUR] * 25_000)
    log.execute(
        "INSERT INTO membership VALUES ('group', 1, '', 0, ?, ?)", (25_001, declaration.write(25_000, RULES, 0))
    )
    member = Member()
    import asyncio

    membership = SqliteMembership(SqliteFile(tmp_path / "broker.db"), SystemClock(), group="group", worker="a")
    member.task = asyncio.create_task(membership.run(member))
    bounds = await (await member.owns()).bounds()
    assert (bounds.begin, bounds.end) == (25_001, 25_001)
    await member.leave()
