"""The judgement: what markers and log say together. Pure."""

from collections.abc import Iterable
from datetime import UTC, datetime

import msgspec

from deploy.audit.log import MARKER_LIFE_MS, Look
from deploy.audit.markers import Marked, Replayed, Spans
from schemas.assignment import Stop, assign
from schemas.markers import Range


class OfLog(msgspec.Struct, rename="camel"):
    """What the log adds to a partition's markers.

    Attributes:
        begin: B, the log's first position.
        end: E, the position that it gives next.
        committed: C, the first position that is not acknowledged; None where nothing was committed.
        declared: the last position of the declared range; None where none is declared.
        lag: positions that the log holds beyond the last marker.
        oldest: log time of the first record that is not stored; None where all are.
        lost: positions after the last marker that were acknowledged and have no marker, or that the log gave up.
        stopped: why no worker may go on; empty where one may.
    """

    begin: int
    end: int
    committed: int | None
    declared: int | None
    lag: int
    oldest: datetime | None
    lost: Range | None
    stopped: str


class PartitionReport(msgspec.Struct, rename="camel"):
    """One partition: what its markers say, and the log where it is the one that is written to now."""

    markers: Marked
    log: OfLog | None
    exact: bool


class Report(msgspec.Struct, rename="camel"):
    """The whole audit.

    Attributes:
        exact: neither hole nor duplicate anywhere.
        topic_id: of the log that is written to now; None where no log was looked at.
        watermark: everything appended before it is stored, over all partitions; None where no log was looked at.
        caught_up: nothing in the log waits to be stored.
        replayed: rejected rows that `flagmeter replay` counted, and those counted more than once.
        partitions: of all logs that have markers.
    """

    exact: bool
    topic_id: str | None
    watermark: datetime | None
    caught_up: bool | None
    replayed: Replayed
    partitions: list[PartitionReport]


def first_unstored(marked: Marked, look: Look) -> int:
    """Give the first position that may hold a record which is not stored."""
    after = look.young if marked.last is None else marked.last + 1
    holes = [span.first for span in marked.holes.shown]
    lost = lost_after(marked, look)
    return min([after, *holes, *([lost.first] if lost else [])])


def lost_after(marked: Marked, look: Look) -> Range | None:
    """Give what lies after the last marker and should have one: it was acknowledged, or the log gave it up."""
    acknowledged = look.committed.offset if look.committed else 0
    if marked.last is None and look.committed and acknowledged < look.begin:
        first, last = acknowledged, look.begin - 1
    elif marked.last is None:
        first, last = look.young, acknowledged - 1
    else:
        first, last = marked.last + 1, max(acknowledged, look.begin) - 1
    return Range(first, last) if first <= last else None


def of_log(marked: Marked, look: Look, *, end: int, oldest_ms: int | None, now_ms: int) -> OfLog:
    """Judge what the log says.

    Args:
        marked: the markers, read after `look`.
        look: at the log.
        end: E, asked for after the markers were read.
        oldest_ms: log time (ms) of the first record that is not stored.
        now_ms: the time.
    """
    committed = look.committed
    after = look.young if marked.last is None else marked.last + 1
    return OfLog(
        begin=look.begin,
        end=end,
        committed=committed.offset if committed else None,
        declared=committed.last if committed and committed.declared else None,
        lag=max(0, end - max(after, look.begin)),
        oldest=_time(oldest_ms),
        lost=lost_after(marked, look),
        stopped=look.trouble or _stopped(marked, look, end, now_ms),
    )


def _stopped(marked: Marked, look: Look, end: int, now_ms: int) -> str:
    committed = look.committed
    if committed and committed.stop:
        return committed.stop
    plan = assign(committed, marked.last, look.begin, end)
    if isinstance(plan, Stop):
        return plan.alarm
    unstored = committed and committed.declared and (marked.last is None or marked.last < committed.last)
    return "declared_too_long_ago" if committed and unstored and now_ms - committed.t > MARKER_LIFE_MS else ""


def of_partition(marked: Marked, log: OfLog | None) -> PartitionReport:
    """Put both together."""
    return PartitionReport(marked, log, exact=marked.is_exact and not (log and log.lost))


def of_all(partitions: Iterable[PartitionReport], *, topic_id: str | None, replayed: Replayed, now_ms: int) -> Report:
    """Sum up. The watermark of logs that hold nothing unstored is the time of the audit, `now_ms`."""
    found = list(partitions)
    logs = [each.log for each in found if each.log]
    waiting = [log.oldest for log in logs if log.oldest]
    return Report(
        exact=all(each.exact for each in found) and not replayed.twice,
        topic_id=topic_id,
        watermark=min(waiting, default=_time(now_ms)) if logs else None,
        caught_up=not (waiting or any(log.lag for log in logs)) if logs else None,
        replayed=replayed,
        partitions=found,
    )


def spans_of(marked: Marked) -> list[tuple[str, Spans]]:
    """List what is wrong with the markers, by what it is called."""
    found = [("hole", marked.holes), ("overlap", marked.overlaps), ("duplicate", marked.duplicates)]
    found += [(f"missing in {table}", spans) for table, spans in marked.missing.items()]
    found += [(f"too much in {table}", spans) for table, spans in marked.surplus.items()]
    return [(name, spans) for name, spans in found if spans.ranges]


def _time(ms: int | None) -> datetime | None:
    return None if ms is None else datetime.fromtimestamp(ms / 1000, UTC)
