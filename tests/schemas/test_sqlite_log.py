"""The embedded broker's file."""

import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from schemas import sqlite_log
from schemas.sqlite_log import WrongFileError

Connect = Callable[..., sqlite3.Connection]


@pytest.fixture
def connect(tmp_path: Path) -> Iterator[Connect]:
    opened: list[sqlite3.Connection] = []

    def connect(name: str = "broker.db", busy_seconds: float = 5.0) -> sqlite3.Connection:
        opened.append(sqlite_log.connect(tmp_path / name, busy_seconds=busy_seconds))
        return opened[-1]

    yield connect
    for connection in opened:
        connection.close()


def append(connection: sqlite3.Connection, value: bytes = b"v") -> int:
    row = connection.execute("INSERT INTO log (time_ms, key, headers, value) VALUES (0, x'', x'', ?)", (value,))
    assert row.lastrowid is not None
    return row.lastrowid


def test_a_commit_is_on_the_disk_before_it_is_answered(connect: Connect) -> None:
    for connection in (connect(), connect()):  # the one that makes the file, and one that finds it
        assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
        assert connection.execute("PRAGMA synchronous").fetchone() == (2,)  # FULL


def test_positions_of_removed_records_never_come_again(connect: Connect) -> None:
    first = connect()
    assert [append(first) for _ in range(3)] == [1, 2, 3]
    first.execute("DELETE FROM log")
    assert append(first) == 4
    first.execute("DELETE FROM log")
    first.close()
    assert append(connect()) == 5


def test_an_append_that_was_rolled_back_leaves_nothing_behind(connect: Connect) -> None:
    connection = connect()
    connection.execute("BEGIN IMMEDIATE")
    append(connection)
    connection.execute("ROLLBACK")
    assert connection.execute("SELECT count(*) FROM log").fetchone() == (0,)


def test_a_file_keeps_its_id_and_another_has_another(connect: Connect) -> None:
    ids = [sqlite_log.topic_id(connect()), sqlite_log.topic_id(connect()), sqlite_log.topic_id(connect("other.db"))]
    assert ids[0] == ids[1] != ids[2]
    assert len(ids[0]) == 32


def test_processes_that_make_the_file_at_once_agree_on_it(tmp_path: Path) -> None:
    ids: list[str] = []
    together = threading.Barrier(8)

    def make() -> None:
        together.wait()
        connection = sqlite_log.connect(tmp_path / "broker.db", busy_seconds=10)
        ids.append(sqlite_log.topic_id(connection))
        connection.close()

    threads = [threading.Thread(target=make) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=30)
    assert len(ids) == 8
    assert len(set(ids)) == 1


def test_a_file_of_a_newer_version_is_refused(connect: Connect) -> None:
    connect().execute("UPDATE topic SET schema_version = schema_version + 1")
    with pytest.raises(WrongFileError, match="schema 2"):
        connect()


def test_a_lock_is_waited_for_no_longer_than_asked(connect: Connect) -> None:
    holder, waiter = connect(), connect(busy_seconds=0.05)
    holder.execute("BEGIN IMMEDIATE")
    began = time.monotonic()
    with pytest.raises(sqlite3.OperationalError, match="locked"):
        append(waiter)
    assert time.monotonic() - began < 2
    holder.execute("ROLLBACK")
    assert append(waiter) == 1


def test_a_reader_is_not_held_up_by_a_writer(connect: Connect) -> None:
    writer, reader = connect(), connect(busy_seconds=0)
    append(writer)
    writer.execute("BEGIN IMMEDIATE")
    append(writer)
    assert reader.execute("SELECT count(*) FROM log").fetchone() == (1,)
    writer.execute("COMMIT")
    assert reader.execute("SELECT count(*) FROM log").fetchone() == (2,)


def test_values_come_back_byte_for_byte(connect: Connect) -> None:
    connection = connect()
    for value in (b"", b"\0\xff", b"x" * 3_000_000):
        at = append(connection, value)
        assert connection.execute("SELECT value FROM log WHERE id = ?", (at,)).fetchone() == (value,)


def test_a_value_of_another_type_is_refused_by_the_table(connect: Connect) -> None:
    with pytest.raises(sqlite3.IntegrityError):
        connect().execute("INSERT INTO log (time_ms, key, headers, value) VALUES ('soon', x'', x'', x'')")


def test_a_folder_that_does_not_exist_is_an_error(connect: Connect) -> None:
    with pytest.raises(sqlite3.OperationalError):
        connect("no/such/folder.db")


def test_pages_that_were_freed_do_not_count(connect: Connect) -> None:
    connection = connect()
    empty = sqlite_log.used_bytes(connection)
    append(connection, b"x" * 1_000_000)
    full = sqlite_log.used_bytes(connection)
    assert full - empty > 900_000
    connection.execute("DELETE FROM log")
    assert sqlite_log.used_bytes(connection) - empty < 100_000
