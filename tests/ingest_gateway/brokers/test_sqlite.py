import asyncio
import sqlite3
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from ingest_gateway.brokers.sqlite import LogFile, SqliteLog
from ingest_gateway.writer import InDoubt, NotTaken
from schemas import sqlite_log
from schemas.event import Event, Headers, Kind, pack

HEADERS = Headers(
    kind=Kind.METRICS, route="/r", project="p", environment="e", token_id="t", received_ms=7, body_hash="h"
)


def events(*names: str) -> list[Event]:
    return [Event(f"key {name}".encode(), HEADERS, name.encode()) for name in names]


def rows(path: Path, columns: str = "value") -> list[Any]:
    connection = sqlite3.connect(path)
    try:
        found = connection.execute(f"SELECT {columns} FROM log ORDER BY id").fetchall()
    finally:
        connection.close()
    return [row[0] if len(row) == 1 else row for row in found]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "broker.db"


@pytest.fixture
def file(path: Path) -> Iterator[LogFile]:
    made = LogFile(path, busy_seconds=0.05, look_every=0)
    yield made
    made.close()


class FailingConnection:
    """A connection whose commit, or all of it, fails as the disk under it would."""

    def __init__(self, inner: sqlite3.Connection, statement: str, code: int) -> None:
        self._inner = inner
        self._statement = statement
        self._code = code

    @property
    def in_transaction(self) -> bool:
        return self._inner.in_transaction

    def execute(self, sql: str, *args: Any) -> sqlite3.Cursor:
        if sql.startswith(self._statement):
            error = sqlite3.OperationalError("disk I/O error")
            error.sqlite_errorcode = self._code
            raise error
        return self._inner.execute(sql, *args)

    def close(self) -> None:
        self._inner.close()


def break_it(file: LogFile, statement: str, code: int) -> None:
    assert file._connection is not None
    file._connection = FailingConnection(file._connection, statement, code)  # type: ignore[assignment]


def test_a_group_is_kept_in_order_with_key_headers_and_value(file: LogFile, path: Path) -> None:
    file.append(events("a", "b"))
    file.append(events("c"))
    assert rows(path, "id, key, headers, value") == [
        (1, b"key a", pack(HEADERS), b"a"),
        (2, b"key b", pack(HEADERS), b"b"),
        (3, b"key c", pack(HEADERS), b"c"),
    ]


@pytest.mark.parametrize("count", [1, 127, 128, 129, 700])
def test_groups_of_every_size_are_kept_whole(file: LogFile, path: Path, count: int) -> None:
    file.append(events(*map(str, range(count))))
    assert rows(path) == [str(number).encode() for number in range(count)]


def test_a_commit_is_on_the_disk_before_it_returns(file: LogFile) -> None:
    file.append(events("a"))
    assert file._connection is not None
    assert file._connection.execute("PRAGMA synchronous").fetchone() == (2,)  # FULL
    assert file._connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)


def test_log_time_never_goes_back_whatever_the_clock_does(path: Path) -> None:
    clock = iter([1000, 900, 1100])
    file = LogFile(path, clock=lambda: next(clock), monotonic=lambda: 0.0)
    for name in "abc":
        file.append(events(name))
    file.close()
    assert rows(path, "time_ms") == [1000, 1000, 1100]


def test_log_time_goes_on_after_a_clock_that_once_ran_ahead(path: Path) -> None:
    walls = iter([9_000_000, *[1000] * 2000])
    passed = iter(at * 0.0004 for at in range(3000))
    file = LogFile(path, clock=lambda: next(walls), monotonic=lambda: next(passed))
    for _ in range(1001):
        file.append(events("a"))
    file.close()
    times = rows(path, "time_ms")
    assert times == sorted(times)
    assert times[-1] - times[0] == 400, "as much as passed"


def test_log_time_never_goes_back_between_two_writers(path: Path) -> None:
    ahead, behind = (LogFile(path, clock=lambda now=now: now, monotonic=lambda: 0.0) for now in (5000, 4000))
    ahead.append(events("a"))
    behind.append(events("b"))
    ahead.close()
    behind.close()
    assert rows(path, "time_ms") == [5000, 5000]


def test_a_locked_file_takes_nothing_and_works_again_by_itself(file: LogFile, path: Path) -> None:
    file.append(events("before"))
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(NotTaken, match="locked"):
        file.append(events("during"))
    with pytest.raises(NotTaken, match="locked"):
        file.probe()
    other.close()
    file.probe()
    file.append(events("after"))
    assert rows(path) == [b"before", b"after"]


def test_a_full_disk_takes_nothing_of_a_group_and_works_again_by_itself(file: LogFile, path: Path) -> None:
    file.append(events("before"))
    assert file._connection is not None
    ((pages,),) = file._connection.execute("PRAGMA page_count").fetchall()
    file._connection.execute(f"PRAGMA max_page_count = {pages}")
    with pytest.raises(NotTaken, match="full"):
        file.append([*events("small"), Event(b"", HEADERS, b"x" * 100_000)])
    with pytest.raises(NotTaken, match="full"):
        file.probe()
    file._connection.execute(f"PRAGMA max_page_count = {pages + 1000}")
    file.probe()
    file.append(events("after"))
    assert rows(path) == [b"before", b"after"]


def test_a_probe_leaves_nothing_behind(file: LogFile, path: Path) -> None:
    file.append(events("a"))
    file.probe()
    file.append(events("b"))
    assert rows(path, "id, value") == [(1, b"a"), (2, b"b")]


def test_a_log_at_its_size_limit_takes_nothing_until_it_was_pruned(path: Path) -> None:
    file = LogFile(path, max_bytes=200_000, look_every=0)
    file.append([Event(b"", HEADERS, b"x" * 300_000)])
    with pytest.raises(NotTaken, match="size limit"):
        file.append(events("during"))
    with pytest.raises(NotTaken, match="size limit"):
        file.probe()
    pruner = sqlite3.connect(path, isolation_level=None)
    pruner.execute("DELETE FROM log")
    pruner.close()
    file.append(events("after"))
    file.close()
    assert rows(path, "id, value") == [(2, b"after")]


@pytest.mark.parametrize("code", [sqlite3.SQLITE_FULL, sqlite3.SQLITE_BUSY, sqlite3.SQLITE_IOERR_WRITE])
def test_a_commit_that_surely_failed_is_not_taken(file: LogFile, path: Path, code: int) -> None:
    file.append(events("before"))
    break_it(file, "COMMIT", code)
    with pytest.raises(NotTaken):
        file.append(events("during"))
    file.close()
    file.append(events("after"))
    assert rows(path) == [b"before", b"after"]


@pytest.mark.parametrize("code", [sqlite3.SQLITE_IOERR_FSYNC, sqlite3.SQLITE_IOERR, sqlite3.SQLITE_CORRUPT])
def test_a_commit_whose_end_nobody_knows_is_in_doubt_and_the_file_is_opened_anew(
    file: LogFile, path: Path, code: int
) -> None:
    file.append(events("before"))
    break_it(file, "COMMIT", code)
    with pytest.raises(InDoubt):
        file.append(events("during"))
    file.append(events("after"))
    assert rows(path)[-1] == b"after"


def test_an_error_before_the_commit_is_not_taken_and_the_file_is_opened_anew(file: LogFile, path: Path) -> None:
    file.append(events("before"))
    break_it(file, "INSERT", sqlite3.SQLITE_IOERR_READ)
    with pytest.raises(NotTaken):
        file.append(events("during"))
    file.append(events("after"))
    assert rows(path) == [b"before", b"after"]


def test_an_event_that_cannot_be_packed_costs_no_later_group(file: LogFile, path: Path) -> None:
    file.append(events("before"))
    (broken,) = events("broken")
    far = msgspec.structs.replace(broken, headers=msgspec.structs.replace(broken.headers, start=2**70))
    with pytest.raises(OverflowError):
        file.append([*events("with it"), far])
    file.append(events("after"))
    assert rows(path) == [b"before", b"after"]


def test_a_missing_folder_takes_nothing_until_it_is_there(tmp_path: Path) -> None:
    path = tmp_path / "later" / "broker.db"
    file = LogFile(path)
    with pytest.raises(NotTaken):
        file.append(events("early"))
    path.parent.mkdir()
    file.append(events("now"))
    file.close()
    assert rows(path) == [b"now"]


def test_a_file_that_is_no_broker_takes_nothing(path: Path) -> None:
    path.write_bytes(b"no database, but long enough to be read as one" * 100)
    file = LogFile(path)
    with pytest.raises(NotTaken):
        file.append(events("a"))
    path.unlink()
    sqlite_log.connect(path, busy_seconds=1).close()
    newer = sqlite3.connect(path, isolation_level=None)
    newer.execute("UPDATE topic SET schema_version = 99")
    newer.close()
    with pytest.raises(NotTaken, match="99"):
        file.append(events("a"))


def test_a_file_that_was_removed_is_made_anew_and_not_written_to_any_more(file: LogFile, path: Path) -> None:
    file.append(events("lost with the file"))
    for suffix in ("", "-wal", "-shm"):
        path.with_name(path.name + suffix).unlink(missing_ok=True)
    file.append(events("new"))
    assert rows(path) == [b"new"]


async def test_the_event_loop_goes_on_while_the_disk_is_slow(path: Path) -> None:
    release = threading.Event()

    class SlowFile(LogFile):
        def _commit(self, connection: sqlite3.Connection) -> None:
            assert release.wait(20)
            super()._commit(connection)

    log = SqliteLog(SlowFile(path))
    appending = asyncio.create_task(log.append(events("a")))
    turns = 0
    while turns < 50:
        await asyncio.sleep(0)
        turns += 1
    assert not appending.done()
    release.set()
    async with asyncio.timeout(20):
        await appending
        await log.probe()
        await log.close()
    assert rows(path) == [b"a"]
