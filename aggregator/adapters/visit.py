"""The log as one sees it who takes no part in the work: reads anything, disturbs nobody, commits where nobody works."""

import asyncio
import contextlib
import sqlite3
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Final, Protocol

from aggregator.adapters.sqlite import SqliteFile, SqliteLog, SqliteMembership
from aggregator.ports import BrokerAwayError, Clock, PartitionLog
from schemas import sqlite_log
from schemas.kafka import GROUP

_TAKE_SECONDS: Final = sqlite_log.LEASE_SECONDS + 5.0
_NO_GENERATION: Final = -1


class WorkersError(Exception):
    """Workers are members of the group: what was asked for is safe only while nobody works."""


class Visit(Protocol):
    """A look at a whole log. All methods may raise `BrokerAwayError`."""

    @property
    def topic_id(self) -> str:
        """The log's own id."""
        ...

    @property
    def partitions(self) -> tuple[int, ...]:
        """The partitions' numbers."""
        ...

    @property
    def can_skip(self) -> bool:
        """Whether `skip_to` works."""
        ...

    def log(self, partition: int) -> PartitionLog:
        """Give a partition to read from; its commits are refused while the group has members."""
        ...

    def alone(self, partition: int) -> contextlib.AbstractAsyncContextManager[PartitionLog]:
        """Keep workers away from a partition, as far as the broker can, and give it to commit to.

        Raises:
            WorkersError: workers are members.
        """
        ...

    async def skip_to(self, position: int) -> None:
        """Let the log give no position below this one any more."""
        ...

    async def close(self) -> None:
        """Close what is open."""
        ...


class SqliteVisit:
    """The embedded broker's file."""

    can_skip = True
    partitions = (sqlite_log.PARTITION,)

    def __init__(self, path: Path, clock: Clock, topic_id: str, file: SqliteFile) -> None:
        self._path = path
        self._clock = clock
        self._file = file
        self.topic_id = topic_id

    @classmethod
    async def begin(cls, path: Path, clock: Clock) -> "SqliteVisit":
        """Open the file.

        Raises:
            BrokerAwayError: there is none, or it cannot be read.
        """
        if not await asyncio.to_thread(path.exists):
            raise BrokerAwayError(f"there is no broker's file {path}")
        file = SqliteFile(path)
        return cls(path, clock, await file.call(sqlite_log.topic_id), file)

    def log(self, partition: int) -> PartitionLog:
        """Give the partition; its commits name a generation that never was."""
        if partition not in self.partitions:
            raise BrokerAwayError(f"the embedded log has no partition {partition}")
        return SqliteLog(self._file, self._clock, GROUP, _NO_GENERATION, self.topic_id)

    @contextlib.asynccontextmanager
    async def alone(self, partition: int) -> AsyncIterator[PartitionLog]:
        """Take the lease as a worker does, keep it meanwhile, and give it back."""
        self.log(partition)
        held = _Held()
        membership = SqliteMembership(SqliteFile(self._path), self._clock, group=GROUP)
        task = asyncio.create_task(membership.run(held))
        try:
            try:
                async with asyncio.timeout(_TAKE_SECONDS):
                    log = await asyncio.shield(held.log)
            except TimeoutError:
                raise WorkersError(
                    "an aggregator holds the lease of the broker's file: end it (and `flagmeter up`) first"
                ) from None
            yield log
        finally:
            task.cancel()
            await asyncio.wait({task})

    async def skip_to(self, position: int) -> None:
        """Raise the number that the next record gets."""

        def raise_it(connection: sqlite3.Connection) -> None:
            connection.execute("BEGIN IMMEDIATE")
            try:
                changed = connection.execute(
                    "UPDATE sqlite_sequence SET seq = max(seq, ?) WHERE name = 'log'", (position - 1,)
                ).rowcount
                if not changed:
                    connection.execute("INSERT INTO sqlite_sequence (name, seq) VALUES ('log', ?)", (position - 1,))
            except BaseException:
                connection.execute("ROLLBACK")
                raise
            connection.execute("COMMIT")

        await self._file.call(raise_it)

    async def close(self) -> None:
        """Close the file."""
        await self._file.close()


class _Held:
    """Waits for the lease."""

    def __init__(self) -> None:
        self.log: asyncio.Future[PartitionLog] = asyncio.get_running_loop().create_future()

    async def assigned(self, log: PartitionLog) -> None:
        if not self.log.done():
            self.log.set_result(log)

    async def revoked(self, partition: int) -> None:
        """Commits name their generation: nothing is to be ended."""
