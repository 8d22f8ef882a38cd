"""Carrying the retry state from batch to batch, and rebuilding it from the log's last fifteen minutes."""

from typing import Final

from aggregator.ports import Chunk, OutOfRangeError, PartitionLog
from aggregator.repeats import Repeats
from schemas.limits import REPEAT_RECORDS, REPEAT_WINDOW_MS

_WAIT_SECONDS: Final = 1.0
_NEVER_MS: Final = 2**43
"""Longer than any two append times lie apart: a log without a record so late ends before the position asked for."""


class Lookback:
    """The retry state of a partition, for the time of one assignment.

    Whoever judges records takes it out and puts it back when it is done. What is not put back, since reading failed
    half-way, is rebuilt: a record must never be judged twice by the same state.
    """

    def __init__(self, log: PartitionLog) -> None:
        self._log = log
        self._kept: tuple[int, Repeats] | None = None

    async def take(self, first: int) -> Repeats:
        """Take the state that all records before `first` gave; raises as `read_back` does."""
        kept, self._kept = self._kept, None
        return kept[1] if kept is not None and kept[0] == first else await read_back(self._log, first)

    def put(self, position: int, repeats: Repeats) -> None:
        """Keep the state that all records before `position` gave."""
        self._kept = (position, repeats)


async def read_back(log: PartitionLog, first: int) -> Repeats:
    """Rebuild the state in which the record at `first` is to be judged, and all after it.

    Log time is the running maximum of append times, which may fall where a partition's leader changes. `position_at`
    finds the first record at or after a time, hence also the first one where the running maximum reaches it: all
    before it are out of sight, and from it on the maximum is known. Where retention took part of the fifteen minutes
    away, what is left is read.

    Raises:
        BrokerAwayError: ask again; nothing is kept of what was read.
        OutOfRangeError: the log lost what was being read.
    """
    latest = await _log_time_before(log, first)
    if latest is None:
        return Repeats()
    repeats = Repeats()
    position = await log.position_at(max(0, latest - REPEAT_WINDOW_MS + 1))
    near = first - REPEAT_RECORDS + 1
    if position < near:
        position, before = near, await _log_time_before(log, near)
        repeats = Repeats(-1 if before is None else before)
    while position < first:
        chunk = await _read_before(log, position, first)
        for record in chunk.records:
            repeats.judge(record)
        position = chunk.position
    return repeats


async def _log_time_before(log: PartitionLog, first: int) -> int | None:
    """Find the largest append time (ms) of all records before `first`; None where the log has none."""
    if first <= (await log.bounds()).begin or await log.position_at(0) >= first:
        return None
    low, step = await _guess(log, first), 1
    while await log.position_at(low + step) < first:
        low += step
        step *= 2
        if step > _NEVER_MS:
            raise OutOfRangeError(f"the log ends before position {first}")
    high = low + step
    while high - low > 1:
        middle = (low + high) // 2
        if await log.position_at(middle) < first:
            low = middle
        else:
            high = middle
    return low


async def _guess(log: PartitionLog, first: int) -> int:
    """Give an append time (ms) that a record before `first` has, or 0: mostly it is the largest already."""
    position = first - 1
    while position < first:
        chunk = await _read_before(log, position, first)
        if chunk.records:
            return max(0, chunk.records[-1].log_time)
        position = chunk.position
    return 0


async def _read_before(log: PartitionLog, position: int, first: int) -> Chunk:
    """Read what comes before `first`; where nothing does, the log may have lost it."""
    chunk = await log.read(position, until=first - 1, wait_seconds=_WAIT_SECONDS)
    if chunk.position == position and (await log.bounds()).end < first:
        raise OutOfRangeError(f"the log ends before position {first}")
    return chunk
