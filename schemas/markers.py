"""Batch markers: the row that proves that a batch is in a table (EXACTLY_ONCE.md, 1.4).

A marker is stored in the same insert as the batch's data, hence in the same part: both are there or neither.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from schemas.limits import MARKER_PROJECT
from schemas.tables import EVALUATIONS, EvaluationKey

_DIGITS: Final = 20
_LAST_DATE: Final = 2**16 - 1
LOST: Final = "lost"
"""`app_name` of a marker that stands for records which the log lost and an operator accepted as such."""
REPLAY: Final = "replay"
"""`environment` of the markers of rejected rows that were replayed; no log has such an id."""


@dataclass(frozen=True, slots=True)
class Range:
    """A range of log positions, both ends included; `last` = `first` - 1 is an empty range."""

    first: int
    last: int

    def __str__(self) -> str:
        return f"{self.first}-{self.last}"


def marker_key(topic_id: str, partition: int, span: Range, tables: Iterable[str], received: int) -> EvaluationKey:
    """Build the marker's key; its counts are yes = no = 0 and count = 1.

    Everything that distinguishes a batch stands in the key: numbers outside it would be summed when parts merge.

    Args:
        topic_id: the log's own id; a topic made anew has another.
        partition: of the log.
        span: the range of positions that the batch covers.
        tables: all tables of the batch, the home table among them.
        received: the batch's `received`, in days since the epoch; its midnight stands in the hour's column.
    """
    return EvaluationKey(
        project=MARKER_PROJECT,
        environment=topic_id,
        feature=str(partition),
        variable=position(span.first),
        variant=position(span.last),
        hour=received * 86_400,
        app_name=",".join(sorted(tables)),
        platform="",
        sdk_type="",
        source="",
    )


def position(offset: int) -> str:
    """Write a position so that text order is number order: 20 digits, zero-padded."""
    return f"{offset:0{_DIGITS}d}"


def token(topic_id: str, partition: int, span: Range, attempt: int = 0) -> str:
    """Name an insert for deduplication; `attempt` rises only after a success whose marker never appeared."""
    return f"{topic_id}:{partition}:{span}" + (f"-r{attempt}" if attempt else "")


def received_day(log_time: int) -> int:
    """Give a batch's `received` in days since the epoch: the UTC day of its first record's log time (ms).

    Clamped to what a `Date` holds, 1970 to 2149: a broken clock must never make a batch that no table takes.
    """
    return min(max(log_time // 86_400_000, 0), _LAST_DATE)


HOME: Final = EVALUATIONS
"""The table whose marker is written last and stands for the whole batch."""
