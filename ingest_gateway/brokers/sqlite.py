"""The writing half of the embedded broker: groups of events into the log of `schemas.sqlite_log`.

A group is one transaction, committed with `synchronous=FULL`: when the commit returns, it is on the disk.
"""

import asyncio
import math
import os
import sqlite3
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from typing import Any, Final

from ingest_gateway.writer import InDoubt, NotTaken
from schemas import sqlite_log
from schemas.event import Event, pack

_BUSY_SECONDS: Final = 0.6
"""How long a statement waits for another process's lock: twice this, and the answer, stay below 2 s."""

_LOOK_SECONDS: Final = 1.0
"""How often the file's size is looked at; it may grow past its limit by what is appended in between."""

_ROWS_A_STATEMENT: Final = 128
"""Each statement hands the interpreter's lock back and forth once; under load that costs more than a row does."""

# The commit cannot have happened: another's lock, no space, or a page that could not be written. All else, a failed
# fsync above all, leaves the question open.
_SURELY_UNDONE: Final = frozenset({sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_FULL})
_PRIMARY_CODE: Final = 0xFF
# These say that the file is fine and only now not available; after any other error it is opened anew.
_PASSING: Final = _SURELY_UNDONE

_INSERT: Final = "INSERT INTO log (time_ms, key, headers, value) VALUES (?,?,?,?)"
_LAST_TIME: Final = "SELECT time_ms FROM log ORDER BY id DESC LIMIT 1"


def _now_ms() -> int:
    return time.time_ns() // 1_000_000


class LogFile:
    """The broker's file. Every method blocks; used by one thread at a time."""

    def __init__(
        self,
        path: Path,
        *,
        busy_seconds: float = _BUSY_SECONDS,
        max_bytes: int = sqlite_log.PRUNE_BYTES,
        clock: Callable[[], int] = _now_ms,
        monotonic: Callable[[], float] = time.monotonic,
        look_every: float = _LOOK_SECONDS,
    ) -> None:
        self._path = path
        self._busy_seconds = busy_seconds
        self._max_bytes = max_bytes
        self._clock = clock
        self._look_every = look_every
        self._looked = -math.inf
        self._monotonic = monotonic
        self._floor_ms = 0
        self._floor_at = monotonic()
        self._connection: sqlite3.Connection | None = None
        self._inode = 0

    def append(self, events: Sequence[Event]) -> None:
        """Append a group in one transaction.

        Raises:
            NotTaken: the file is locked, full, away, or not a broker; nothing of the group is in it.
            InDoubt: the commit itself failed, and nobody knows whether it is on the disk.
        """
        connection = self._opened()
        try:
            connection.execute("BEGIN IMMEDIATE")
            self._refuse_when_full(connection)
            now = self._log_time(connection)
            for at in range(0, len(events), _ROWS_A_STATEMENT):
                part = events[at : at + _ROWS_A_STATEMENT]
                connection.execute(_insert(len(part)), _values(part, now))
        except (sqlite3.Error, NotTaken) as error:
            self._undo(error)
            raise NotTaken(_reason(error)) from error
        except Exception as error:
            self._undo(error)  # a fault of ours must not leave the transaction open
            raise
        self._commit(connection)

    def probe(self) -> None:
        """Commit a change that changes nothing: finds a lock, a full disk, and a disk that cannot be written.

        Raises:
            NotTaken: an append would fail.
        """
        connection = self._opened()
        try:
            connection.execute("BEGIN IMMEDIATE")
            self._refuse_when_full(connection)
            # Needs new pages, as an append would, and gives them back.
            connection.execute("SAVEPOINT probe")
            connection.execute("INSERT INTO log (time_ms, key, headers, value) VALUES (0, x'', x'', zeroblob(65536))")
            connection.execute("ROLLBACK TO probe")
            connection.execute("UPDATE topic SET schema_version = schema_version")
            connection.execute("COMMIT")
        except (sqlite3.Error, NotTaken) as error:
            self._undo(error)
            raise NotTaken(_reason(error)) from error

    def close(self) -> None:
        """Close the file."""
        if self._connection is not None:
            with suppress(sqlite3.Error):
                self._connection.close()
            self._connection = None

    def _opened(self) -> sqlite3.Connection:
        if self._connection is not None and not self._is_the_file():
            self.close()  # it was removed or replaced: what is written to the old one is lost to everyone
        if self._connection is None:
            try:
                self._connection = sqlite_log.connect(self._path, busy_seconds=self._busy_seconds)
                self._inode = os.stat(self._path).st_ino  # noqa: PTH116 - as in _is_the_file
            except (sqlite3.Error, sqlite_log.WrongFileError, OSError) as error:
                self.close()
                raise NotTaken(_reason(error)) from error
        return self._connection

    def _is_the_file(self) -> bool:
        try:
            return os.stat(self._path).st_ino == self._inode  # noqa: PTH116 - once a group; a plain stat
        except OSError:
            return False

    def _refuse_when_full(self, connection: sqlite3.Connection) -> None:
        if time.monotonic() < self._looked + self._look_every:
            return
        ((pages,), (free,), (size,)) = (
            connection.execute(f"PRAGMA {what}").fetchone() for what in ("page_count", "freelist_count", "page_size")
        )
        if (pages - free) * size >= self._max_bytes:
            raise NotTaken("the log has reached its size limit")
        self._looked = time.monotonic()

    def _log_time(self, connection: sqlite3.Connection) -> int:
        """Give the time of the next records: never before the last one's, and never slower than time passes.

        A clock that once ran ahead leaves records of the future; if the log stood at their time until the clock caught
        up, nothing would ever be old enough to be pruned.
        """
        last: tuple[int] | None = connection.execute(_LAST_TIME).fetchone()
        at = self._monotonic()
        passed = self._floor_ms + int((at - self._floor_at) * 1000)
        known = max(self._clock(), last[0] if last else 0)
        if known > passed:
            self._floor_ms, self._floor_at = known, at
        return max(known, passed)

    def _commit(self, connection: sqlite3.Connection) -> None:
        try:
            connection.execute("COMMIT")
        except sqlite3.Error as error:
            code = getattr(error, "sqlite_errorcode", 0)
            undone = code & _PRIMARY_CODE in _SURELY_UNDONE or code == sqlite3.SQLITE_IOERR_WRITE
            undone = self._undo(error) and undone
            raise (NotTaken if undone else InDoubt)(_reason(error)) from error

    def _undo(self, error: Exception) -> bool:
        """Roll back; open the file anew next time, unless the trouble is a passing one."""
        connection = self._connection
        if connection is None:
            return False
        try:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
        except sqlite3.Error:
            self.close()
            return False
        if not (isinstance(error, NotTaken) or _code(error) & _PRIMARY_CODE in _PASSING):
            self.close()
        return True


class SqliteLog:
    """A `LogFile` in a thread of its own: a slow disk never holds up the event loop."""

    def __init__(self, file: LogFile) -> None:
        self._file = file
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="broker")

    async def append(self, events: Sequence[Event]) -> None:
        """Append a group; see `LogFile.append`."""
        await asyncio.get_running_loop().run_in_executor(self._thread, self._file.append, events)

    async def probe(self) -> None:
        """See `LogFile.probe`."""
        await asyncio.get_running_loop().run_in_executor(self._thread, self._file.probe)

    async def close(self) -> None:
        """Close the file and end the thread."""
        await asyncio.get_running_loop().run_in_executor(self._thread, self._file.close)
        self._thread.shutdown()


@lru_cache(maxsize=_ROWS_A_STATEMENT)
def _insert(rows: int) -> str:
    return ",".join([_INSERT, *["(?,?,?,?)"] * (rows - 1)])


def _values(events: Sequence[Event], now: int) -> list[Any]:
    values: list[Any] = []
    for event in events:
        values += (now, event.key, pack(event.headers), event.value)
    return values


def _code(error: Exception) -> int:
    return getattr(error, "sqlite_errorcode", 0) or 0


def _reason(error: Exception) -> str:
    name = getattr(error, "sqlite_errorname", None)
    return f"{error} ({name})" if name else str(error)
