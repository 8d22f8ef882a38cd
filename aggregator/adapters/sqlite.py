"""The embedded broker's reading half: one log, one partition, a lease in place of a consumer group.

EXACTLY_ONCE.md, 6. The lease row counts renewals; a worker that saw no change for ten seconds of its own monotonic
clock raises the generation and takes over. Every commit names its generation: where it changed, the membership is lost.
"""

import asyncio
import contextlib
import sqlite3
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Final, TypeVar

import structlog

from aggregator.adapters import holder
from aggregator.adapters.pruning import prune
from aggregator.ports import (
    Bounds,
    BrokerAwayError,
    Chunk,
    Clock,
    Listener,
    MembershipLostError,
    Record,
)
from schemas import declaration, event, sqlite_log
from schemas.declaration import Committed, UnreadableCommitError

T = TypeVar("T")

_BUSY_SECONDS: Final = 2.0
_RENEW_SECONDS: Final = sqlite_log.LEASE_SECONDS / 5
_POLL_SECONDS: Final = 0.05
_CHUNK_RECORDS: Final = 2000
_CHUNK_BYTES: Final = 4 * 1024 * 1024
_PRUNE_EVERY: Final = 60
"""Commits between two looks for what can be pruned."""

_log = structlog.get_logger(__name__)


class SqliteFile:
    """The broker's file on a thread of its own; opened when it is first needed, and anew after an error."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="broker")
        self._connection: sqlite3.Connection | None = None
        self._inode = 0
        self.replaced = 0
        """How often another file stood in the first one's place: each time all that was known of it is void."""

    async def call(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """Run `work` with the connection, on the thread.

        Raises:
            BrokerAwayError: the file is locked, gone, full or broken.
        """
        try:
            return await asyncio.get_running_loop().run_in_executor(self._thread, self._run, work)
        except sqlite3.Error as error:
            raise BrokerAwayError(f"broker file: {error}") from error

    def _run(self, work: Callable[[sqlite3.Connection], T]) -> T:
        if self._connection is not None and self._inode_now() != self._inode:
            self._drop()  # removed or replaced: the gateway writes to another file now
        if self._connection is None:
            self._connection = sqlite_log.connect(self._path, busy_seconds=_BUSY_SECONDS)
            inode = self._inode_now()
            self.replaced += self._inode not in {0, inode}
            self._inode = inode
        try:
            return work(self._connection)
        except sqlite3.Error:
            self._drop()
            raise

    def _inode_now(self) -> int:
        try:
            return self._path.stat().st_ino
        except OSError:
            return 0

    def _drop(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()  # rolls back what is open

    async def close(self) -> None:
        """Close the file; what is under way ends first."""
        await asyncio.get_running_loop().run_in_executor(self._thread, self._drop)
        self._thread.shutdown()


class SqliteLog:
    """The one partition, for the time of one lease."""

    partition = sqlite_log.PARTITION
    session_seconds = sqlite_log.LEASE_SECONDS

    def __init__(self, file: SqliteFile, clock: Clock, group: str, generation: int, topic_id: str) -> None:
        self._file = file
        self._clock = clock
        self._group = group
        self._generation = generation
        self._commits = 0
        self._more_to_prune = False
        self._replaced = file.replaced
        self.topic_id = topic_id

    async def bounds(self) -> Bounds:
        """Ask for the log's begin and end; an empty log begins at its end."""
        return await self._call(_bounds)

    async def committed(self) -> Committed | None:
        """Read the group's committed offset."""

        def select(connection: sqlite3.Connection) -> tuple[int | None, str | None]:
            row = connection.execute(
                "SELECT position, metadata FROM membership WHERE group_name = ?", (self._group,)
            ).fetchone()
            return row or (None, None)

        position, metadata = await self._call(select)
        return None if position is None else declaration.read(position, metadata or "")

    async def prune_expired(self) -> None:
        """Prune what is too old for its marker to be there, before the log's begin is asked for."""
        committed = await self.committed()
        while committed is not None:
            if not await self._prune(committed.offset, expired_only=True, since=committed.t):
                return

    async def commit(self, offset: int, metadata: str) -> None:
        """Commit under this lease's generation; prunes now and then."""

        def update(connection: sqlite3.Connection) -> int:
            return connection.execute(
                "UPDATE membership SET position = ?, metadata = ? WHERE group_name = ? AND generation = ?",
                (offset, metadata, self._group, self._generation),
            ).rowcount

        if await self._call(update) != 1:
            raise MembershipLostError(f"generation {self._generation} is over")
        self._commits += 1
        if self._more_to_prune or self._commits % _PRUNE_EVERY == 1:
            try:
                self._more_to_prune = await self._prune(offset) > 0
            except BrokerAwayError as error:
                _log.warning("pruning failed", error=str(error))

    async def _prune(self, acknowledged: int, *, expired_only: bool = False, since: int | None = None) -> int:
        now = self._clock.now_ms()
        removed = await self._call(
            partial(prune, acknowledged=acknowledged, now_ms=now, expired_only=expired_only, since=since)
        )
        if removed:
            _log.info("pruned", records=removed)
        return removed

    async def _call(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """Run `work`, if the file is still the one that this lease is of."""

        def checked(connection: sqlite3.Connection) -> T:
            if self._file.replaced != self._replaced:
                raise MembershipLostError("another file stands in the broker's place")
            return work(connection)

        return await self._file.call(checked)

    async def position_at(self, log_time: int) -> int:
        """Find the first position whose record was appended at `log_time` (ms) or later; the end where none was."""
        return await self._call(partial(_position_at, log_time=log_time))

    async def read(self, position: int, *, until: int | None, wait_seconds: float) -> Chunk:
        """Read on, looking for new records twenty times a second."""
        deadline = self._clock.monotonic() + wait_seconds
        last = until if until is not None else 2**63 - 1
        while True:
            records = await self._call(lambda connection: _select(connection, position, last))
            if records:
                return Chunk(records, records[-1].offset + 1)
            if until is not None and (await self.bounds()).end > until:
                return Chunk([], until + 1)  # nothing but a gap up to there
            remaining = deadline - self._clock.monotonic()
            if remaining <= 0:
                return Chunk([], position)
            await self._clock.sleep(min(_POLL_SECONDS, remaining))


class SqliteMembership:
    """A worker's lease on the one partition."""

    def __init__(self, file: SqliteFile, clock: Clock, *, group: str, worker: str | None = None) -> None:
        self._file = file
        self._clock = clock
        self._group = group
        self._me = worker or holder.myself()
        self.trouble: str | None = None

    async def partitions(self) -> int:
        """Give the one partition; the file is made where it is missing."""
        return 1

    async def run(self, listener: Listener) -> None:
        """Wait for the lease, work while it lasts, and give it back when cancelled."""
        try:
            while True:
                generation = await self._take()
                topic_id = await self._insist(sqlite_log.topic_id)
                log = SqliteLog(self._file, self._clock, self._group, generation, topic_id)
                await self._without_expired(log)
                await listener.assigned(log)
                try:
                    await self._renew(generation)
                finally:
                    await listener.revoked(sqlite_log.PARTITION)
                    await self._give_back(generation)
        finally:
            await self._file.close()

    async def _take(self) -> int:
        """Watch the lease until it is ours; gives the new generation."""
        seen: tuple[int, int] | None = None
        since = self._clock.monotonic()
        while True:
            current = await self._insist(lambda connection: _lease(connection, self._group))
            if current is None or current.holder == self._me or holder.is_gone(current.holder):
                free = True
            else:
                if (current.generation, current.renewals) != seen:
                    seen = (current.generation, current.renewals)
                    since = self._clock.monotonic()
                free = self._clock.monotonic() - since >= sqlite_log.LEASE_SECONDS
            if free:
                taken = await self._insist(partial(_take_lease, group=self._group, me=self._me, seen=current))
                if taken is not None:
                    _log.info("lease taken", generation=taken)
                    return taken
            await self._clock.sleep(_RENEW_SECONDS / 4)

    async def _renew(self, generation: int) -> None:
        """Renew until somebody else holds the lease, or until we could not renew for its whole length."""
        renewed = self._clock.monotonic()
        replaced = self._file.replaced
        while True:
            await self._clock.sleep(_RENEW_SECONDS)
            asked = self._clock.monotonic()
            try:
                kept = await self._file.call(lambda connection: _renew_lease(connection, self._group, generation))
                self.trouble = None
            except BrokerAwayError as error:
                self.trouble = str(error)
                if self._clock.monotonic() - renewed >= sqlite_log.LEASE_SECONDS:
                    _log.warning("lease could not be renewed", error=str(error))
                    return
                continue
            if not kept or self._file.replaced != replaced:
                _log.warning("lease is over", generation=generation, file_replaced=self._file.replaced != replaced)
                return
            renewed = asked

    async def _give_back(self, generation: int) -> None:
        with contextlib.suppress(BrokerAwayError):  # then it runs out by itself
            await self._file.call(lambda connection: _free_lease(connection, self._group, generation))

    async def _without_expired(self, log: SqliteLog) -> None:
        while True:
            try:
                return await log.prune_expired()
            except BrokerAwayError as error:
                self.trouble = str(error)
                _log.warning("broker away", error=str(error))
                await self._clock.sleep(1.0)
            except (UnreadableCommitError, MembershipLostError):
                return None  # the partition's work says what is wrong with it

    async def _insist(self, work: Callable[[sqlite3.Connection], T]) -> T:
        while True:
            try:
                answer = await self._file.call(work)
            except BrokerAwayError as error:
                self.trouble = str(error)
                _log.warning("broker away", error=str(error))
                await self._clock.sleep(1.0)
            else:
                self.trouble = None
                return answer


class _Lease:
    def __init__(self, generation: int, holder_: str, renewals: int) -> None:
        self.generation = generation
        self.holder = holder_
        self.renewals = renewals


def _bounds(connection: sqlite3.Connection) -> Bounds:
    (first,) = connection.execute("SELECT min(id) FROM log").fetchone()
    row = connection.execute("SELECT seq FROM sqlite_sequence WHERE name = 'log'").fetchone()
    end = (row[0] if row else 0) + 1
    return Bounds(end if first is None else first, end)


def _position_at(connection: sqlite3.Connection, log_time: int) -> int:
    # Times never fall along the log, so the first position can be found by halving; the table has no index on them.
    begin, end = _bounds(connection)
    while begin < end:
        middle = (begin + end) // 2
        row = connection.execute("SELECT id, time_ms FROM log WHERE id >= ? ORDER BY id LIMIT 1", (middle,)).fetchone()
        if row is None or row[1] >= log_time:
            end = middle
        else:
            begin = row[0] + 1
    row = connection.execute("SELECT id FROM log WHERE id >= ? ORDER BY id LIMIT 1", (begin,)).fetchone()
    return int(row[0]) if row else _bounds(connection).end


def _select(connection: sqlite3.Connection, position: int, last: int) -> list[Record]:
    records = []
    size = 0
    for offset, time_ms, headers, value in connection.execute(
        "SELECT id, time_ms, headers, value FROM log WHERE id BETWEEN ? AND ? ORDER BY id LIMIT ?",
        (position, last, _CHUNK_RECORDS),
    ):
        records.append(Record(offset, time_ms, event.unpack(headers), value))
        size += len(value)
        if size >= _CHUNK_BYTES:
            break
    return records


def _lease(connection: sqlite3.Connection, group: str) -> _Lease | None:
    row = connection.execute(
        "SELECT generation, holder, renewals FROM membership WHERE group_name = ?", (group,)
    ).fetchone()
    return None if row is None else _Lease(*row)


def _take_lease(connection: sqlite3.Connection, group: str, me: str, seen: _Lease | None) -> int | None:
    """Raise the generation, if the lease is still as it was seen; None where another worker was faster."""
    if seen is None:
        made = connection.execute(
            "INSERT OR IGNORE INTO membership (group_name, generation, holder, renewals) VALUES (?, 1, ?, 0)",
            (group, me),
        ).rowcount
        return 1 if made else None
    changed = connection.execute(
        "UPDATE membership SET generation = generation + 1, holder = ?, renewals = 0 "
        "WHERE group_name = ? AND generation = ? AND renewals = ? AND holder = ?",
        (me, group, seen.generation, seen.renewals, seen.holder),
    ).rowcount
    return seen.generation + 1 if changed else None


def _renew_lease(connection: sqlite3.Connection, group: str, generation: int) -> bool:
    changed = connection.execute(
        "UPDATE membership SET renewals = renewals + 1 WHERE group_name = ? AND generation = ?", (group, generation)
    ).rowcount
    return bool(changed)


def _free_lease(connection: sqlite3.Connection, group: str, generation: int) -> None:
    connection.execute(
        "UPDATE membership SET holder = '', renewals = renewals + 1 WHERE group_name = ? AND generation = ?",
        (group, generation),
    )
