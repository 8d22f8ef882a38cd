"""Closing a batch: read records until it is large enough or has been open for long enough.

A batch covers a range of positions that begins just after the one before it, and ends by position.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from aggregator.ports import Block, Clock, PartitionLog, Record
from aggregator.repeats import Repeats
from aggregator.rollup import Rollup
from schemas.insert import MAX_ROWS
from schemas.limits import MAX_BODY_BYTES, RULES
from schemas.markers import Range

MAX_BYTES: Final = 8 * MAX_BODY_BYTES
"""A batch is closed at this many bytes of values: what a worker holds in memory is bounded by it."""

_TURN_SECONDS: Final = 0.25
"""Longest wait in one read, so that a worker that is asked to drain notices."""


@dataclass(frozen=True, slots=True)
class Batch:
    """A range with its blocks, the home table's last.

    `oldest` is the log time (ms) of its first record, None without records; `repeated` says how many records counted
    nothing or only in part, by how they were recognised, and `connections` how many are remembered for that.
    `unreadable_at_end` counts the last records that could not be read at all, one after another.
    """

    span: Range
    rules: int
    records: int
    oldest: int | None
    blocks: tuple[Block, ...]
    rejected: dict[str, int]
    repeated: dict[str, int]
    connections: int
    unreadable_at_end: int = 0


async def read_next(
    log: PartitionLog,
    clock: Clock,
    first: int,
    repeats: Repeats,
    *,
    flush_seconds: float,
    enough: Callable[[], bool],
) -> Batch | None:
    """Read the next batch from `first` on.

    It is closed when it is full, `flush_seconds` after its first records came, or when `enough` says so; None where
    nothing came for that long. `repeats`, the state before the batch, is the state after it when this returns; where
    this raises it is worth nothing.
    """
    rollup = Rollup(repeats, RULES)
    position = first
    deadline = clock.monotonic() + flush_seconds
    while True:
        remaining = deadline - clock.monotonic()
        if enough() or remaining <= 0 or rollup.rows >= MAX_ROWS or rollup.bytes >= MAX_BYTES:
            break
        chunk = await log.read(position, until=None, wait_seconds=min(remaining, _TURN_SECONDS))
        if position == first and chunk.position > first:
            deadline = clock.monotonic() + flush_seconds
        position = _take(log, rollup, chunk.records, chunk.position)
    return None if position == first else _close(log, rollup, Range(first, position - 1))


async def read_again(log: PartitionLog, span: Range, repeats: Repeats, rules: int) -> Batch:
    """Read a declared range again, just as it was cut, under the rules of its declaration; `repeats` as above."""
    rollup = Rollup(repeats, rules)
    position = span.first
    while position <= span.last:
        chunk = await log.read(position, until=span.last, wait_seconds=1.0)
        position = _take(log, rollup, chunk.records, chunk.position, whole=True)
    return _close(log, rollup, span)


async def read_part(log: PartitionLog, span: Range, repeats: Repeats) -> Batch:
    """Read a range from its begin until it ends or the batch is full; where that is depends on the log alone."""
    rollup = Rollup(repeats, RULES)
    position = span.first
    while position <= span.last and rollup.rows < MAX_ROWS and rollup.bytes < MAX_BYTES:
        chunk = await log.read(position, until=span.last, wait_seconds=1.0)
        position = _take(log, rollup, chunk.records, chunk.position)
    return _close(log, rollup, Range(span.first, position - 1))


def _take(log: PartitionLog, rollup: Rollup, records: list[Record], position: int, *, whole: bool = False) -> int:
    """Roll up a chunk's records until the batch is full; give the position after the last one taken."""
    for record in records:
        if not whole and (rollup.rows >= MAX_ROWS or rollup.bytes >= MAX_BYTES):
            return record.offset
        rollup.add(log.topic_id, log.partition, record)
    return position


def _close(log: PartitionLog, rollup: Rollup, span: Range) -> Batch:
    rejected: dict[str, int] = {}
    for row in rollup.rejected:
        rejected[row.reason] = rejected.get(row.reason, 0) + 1
    return Batch(
        span=span,
        rules=rollup.rules,
        records=rollup.records,
        oldest=rollup.oldest,
        blocks=tuple(rollup.blocks(log.topic_id, log.partition, span)),
        rejected=rejected,
        repeated=rollup.repeated,
        connections=rollup.connections,
        unreadable_at_end=rollup.unreadable_at_end,
    )
