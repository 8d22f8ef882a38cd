"""Where a worker goes on when it is given a partition: the assignment table of EXACTLY_ONCE.md, 1.

One pure function of four numbers. Each line of the table is one `return`, in the table's own order but for line 2,
which asks where the others would begin.
"""

from dataclasses import dataclass
from enum import StrEnum

from schemas.declaration import Committed
from schemas.markers import Range


class Alarm(StrEnum):
    """Why a partition is stopped, or goes on under an alarm."""

    ANOTHER_LOG = "another_log"
    LOST_BY_LOG = "lost_by_log"
    LOST_BY_STORE = "lost_by_store"


@dataclass(frozen=True, slots=True)
class GoOn:
    """Read on at `at` (lines 3 and 5, and line 4 when the declared range is stored)."""

    at: int


@dataclass(frozen=True, slots=True)
class Settle:
    """Settle the declared range as it was cut, then read on after it (line 4)."""

    span: Range


@dataclass(frozen=True, slots=True)
class Recut:
    """The offsets cannot be trusted; ranges from `at` on are cut anew (lines 6 and 7).

    Tokens are no fence here: first take the ranges that other tables' markers name beyond M, then wait out late
    writers and read the markers again. `alarm` is set where the store lost what was acknowledged.
    """

    at: int
    alarm: Alarm | None = None


@dataclass(frozen=True, slots=True)
class Stop:
    """Do not touch this partition: a person must decide (lines 1 and 2).

    `missing` is the range that the log no longer has, for line 2.
    """

    alarm: Alarm
    missing: Range | None = None


Plan = GoOn | Settle | Recut | Stop


def assign(committed: Committed | None, marked: int | None, begin: int, end: int) -> Plan:
    """Decide where to go on.

    Args:
        committed: C, the group's committed offset with its declaration; None where there is none.
        marked: M, the last position of the largest home marker; None where there is none.
        begin: B, the log's first position.
        end: E, the position that the log will give next; `begin` = `end` is an empty log.

    Returns:
        The plan of the first line that fits.
    """
    declared = committed.declared if committed else None
    if (marked is not None and end <= marked) or (declared and declared.last >= end and _fits(declared, marked, begin)):
        return Stop(Alarm.ANOTHER_LOG)
    plan = _without_losses(committed, declared, marked, begin)
    start = _start_of(plan)
    if start < begin:
        return Stop(Alarm.LOST_BY_LOG, Range(start, begin - 1))
    return plan


def _without_losses(committed: Committed | None, declared: Range | None, marked: int | None, begin: int) -> Plan:
    if committed is None:
        return GoOn(begin) if marked is None else Recut(marked + 1)
    if declared is not None:
        if marked == declared.last:
            return GoOn(declared.last + 1)
        if _fits(declared, marked, begin):
            return Settle(declared)
    next_unmarked = None if marked is None else marked + 1
    if next_unmarked is None:
        if committed.offset > begin:
            return Recut(begin, Alarm.LOST_BY_STORE)
        return Settle(declared) if declared else GoOn(committed.offset)
    if committed.offset > next_unmarked:
        return Recut(next_unmarked, Alarm.LOST_BY_STORE)
    if declared is None and committed.offset == next_unmarked:
        return GoOn(next_unmarked)
    return Recut(next_unmarked)


def _fits(declared: Range, marked: int | None, begin: int) -> bool:
    """Line 4: the declared range is just the one after what is stored."""
    return declared.first == (begin if marked is None else marked + 1)


def _start_of(plan: Plan) -> int:
    match plan:
        case Settle(span):
            return span.first
        case GoOn(at) | Recut(at):
            return at
        case Stop():
            raise AssertionError("unreachable: no line below stops")
