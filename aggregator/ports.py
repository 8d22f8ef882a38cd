"""What the aggregator needs from outside: a broker, a store and a clock, each handed in.

Errors are typed by what the caller does next: try again, give the partition up, or stop it.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol

from schemas.declaration import Committed
from schemas.event import Headers, Unreadable
from schemas.markers import Range


class BrokerAwayError(Exception):
    """The broker did not do it, or did not say so: try again."""


class MembershipLostError(Exception):
    """This assignment is over: another worker may own the partition. Stop, write nothing more."""


class OutOfRangeError(Exception):
    """The log does not have this position any more, or not yet: look anew where to go on."""


class StoreError(Exception):
    """The store refused or did not answer: what was sent may be stored or not, so the range must be settled.

    Attributes:
        code: ClickHouse's error code; 0 where there was no answer.
        passing: True where it is known to go away by itself; else a person must mend the cause.
    """

    def __init__(self, message: str, *, code: int = 0, passing: bool = True) -> None:
        super().__init__(message)
        self.code = code
        self.passing = passing


class Record(NamedTuple):
    """One record of the log; `log_time` is the broker's append time in milliseconds since the epoch."""

    offset: int
    log_time: int
    headers: Headers | Unreadable
    value: bytes


class Chunk(NamedTuple):
    """Records in order, and the position after them: logs have gaps, so it may lie beyond the last record's."""

    records: list[Record]
    position: int


class Bounds(NamedTuple):
    """The log's first position, and the one that it will give next."""

    begin: int
    end: int


class Block(NamedTuple):
    """One insert: a table, and its columns by name, all of the same length."""

    table: str
    columns: dict[str, Sequence[Any]]

    @property
    def rows(self) -> int:
        """Number of rows."""
        return len(next(iter(self.columns.values())))


class PartitionLog(Protocol):
    """One partition, for the time of one assignment. All methods may raise `BrokerAwayError`."""

    @property
    def topic_id(self) -> str:
        """The log's own id; a topic made anew has another."""
        ...

    @property
    def partition(self) -> int:
        """Number of the partition."""
        ...

    @property
    def session_seconds(self) -> float:
        """How long a silent member keeps its partitions."""
        ...

    async def bounds(self) -> Bounds:
        """Ask for the log's begin and end."""
        ...

    async def committed(self) -> Committed | None:
        """Read the group's committed offset.

        Raises:
            UnreadableCommitError: its metadata is not ours.
        """
        ...

    async def commit(self, offset: int, metadata: str) -> None:
        """Commit, if this assignment still holds and nobody else committed since this worker last read or wrote.

        Raises:
            MembershipLostError: neither holds; nothing was written.
        """
        ...

    async def read(self, position: int, *, until: int | None, wait_seconds: float) -> Chunk:
        """Read records from `position` on, up to and with `until`; wait for the first at most so long.

        Returns at most a few megabytes. An empty chunk at the same position: nothing came in time.

        Raises:
            OutOfRangeError: the log has no such position.
        """
        ...

    async def position_at(self, log_time: int) -> int:
        """Find the first position whose record was appended at `log_time` (ms) or later; the end where none was."""
        ...


class Listener(Protocol):
    """Who is told what this worker owns."""

    async def assigned(self, log: PartitionLog) -> None:
        """A partition is ours from now on."""
        ...

    async def revoked(self, partition: int) -> None:
        """It is not ours any more when this returns: every insert and commit of it has ended."""
        ...


class Membership(Protocol):
    """A worker's place in the consumer group."""

    @property
    def trouble(self) -> str | None:
        """Why the group cannot be reached now; None while it can."""
        ...

    async def partitions(self) -> int:
        """Look at the log before taking part; give its number of partitions.

        Raises:
            BrokerAwayError: it cannot be reached, is missing, or would not keep the promise; says what mends it.
        """
        ...

    async def run(self, listener: Listener) -> None:
        """Take part until cancelled: tell the listener what is ours, keep the membership alive, then leave."""
        ...


class Store(Protocol):
    """The tables. All methods may raise `StoreError`."""

    async def check(self, partitions: int) -> None:
        """Refuse tables that are missing, or whose settings would not keep the promise; says what mends it.

        Args:
            partitions: of the log; the more, the more tokens the tables must remember.
        """
        ...

    async def last_marked(self, topic_id: str, partition: int) -> int | None:
        """Read M: the last position of the largest home marker; None where there is none."""
        ...

    async def marked_tables(self, topic_id: str, partition: int, span: Range) -> frozenset[str]:
        """Say which additive tables hold the marker of just this range."""
        ...

    async def ranges_beyond(self, topic_id: str, partition: int, position: int) -> list[Range]:
        """List the ranges beyond `position` that markers of tables other than the home table name, in order."""
        ...

    async def insert(self, block: Block, token: str) -> None:
        """Insert one block under a token; returns when it is stored."""
        ...


class Clock(Protocol):
    """Time. The monotonic one decides deadlines; the other is for metrics and metadata only."""

    def monotonic(self) -> float:
        """Seconds from an arbitrary start."""
        ...

    def now_ms(self) -> int:
        """Milliseconds since the epoch."""
        ...

    async def sleep(self, seconds: float) -> None:
        """Wait."""
        ...


class Points(Protocol):
    """Named points of the protocol, where tests let a worker die."""

    async def reached(self, name: str) -> None:
        """Tell that this point was reached."""
        ...
