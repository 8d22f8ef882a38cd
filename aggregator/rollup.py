"""Records to blocks: a pure function of the records, the retry state and the rules (EXACTLY_ONCE.md, 1.3).

Rows of the same key are summed, so a batch of a thousand posts of one app is a few rows.
"""

from collections.abc import Callable, Iterable, Iterator
from typing import Final

from aggregator.ports import Block, Record
from aggregator.repeats import Repeat, Repeats
from schemas import limits, rows
from schemas.event import Headers, Unreadable
from schemas.markers import HOME, Range, marker_key, received_day
from schemas.rows import Counted, Outcome, Reason
from schemas.tables import EVALUATION_COLUMNS, REJECTED, REJECTED_COLUMNS, EvaluationKey, RejectedRow


def _whole(record: Record, repeat: Repeat | None) -> Iterator[Outcome]:  # noqa: ARG001 - as it was under rules 1
    return rows.of_record(record.headers, record.value)


def _once(record: Record, repeat: Repeat | None) -> Iterable[Outcome]:
    headers = record.headers
    if repeat is None or isinstance(headers, Unreadable):
        return rows.of_record(headers, record.value)
    return () if repeat.adds is None else rows.of_metrics(headers, repeat.adds)


_BY_VERSION: Final[dict[int, Callable[[Record, Repeat | None], Iterable[Outcome]]]] = {1: _whole, 2: _once}


class UnknownRulesError(Exception):
    """The range was declared under rules that this version does not know: run a version that does."""

    def __init__(self, rules: int) -> None:
        super().__init__(
            f"the batch was declared under rules {rules}, this version knows {sorted(_BY_VERSION)}: "
            "let a worker of the version that declared it finish, or run that version again"
        )


class Rollup:
    """Rolls up the records of one batch, in the order of the log.

    Args:
        repeats: the retry state that all records before the batch gave; carried on by each one added.
        rules: under which the batch is, or was, declared.
    """

    def __init__(self, repeats: Repeats, rules: int = limits.RULES) -> None:
        if rules not in _BY_VERSION:
            raise UnknownRulesError(rules)
        self.rules = rules
        self.records = 0
        self.bytes = 0
        """Bytes of values, and of what was set aside of them: a bound of what the batch holds in memory."""
        self.oldest: int | None = None
        """Log time of the first record, in milliseconds."""
        self.rejected: list[RejectedRow] = []
        self.repeated: dict[str, int] = {}
        """How many records counted nothing or only in part, by how they were recognised."""
        self.unreadable_at_end = 0
        """How many records at the end could not be read at all, one after another."""
        self._repeats = repeats
        self._outcomes_of = _BY_VERSION[rules]
        self._counts: dict[EvaluationKey, list[int]] = {}

    @property
    def connections(self) -> int:
        """How many connections the retry state remembers."""
        return self._repeats.connections

    @property
    def rows(self) -> int:
        """Rows so far, in all tables."""
        return len(self._counts) + len(self.rejected)

    def add(self, topic_id: str, partition: int, record: Record) -> None:
        """Roll up one more record."""
        self.records += 1
        self.bytes += len(record.value)
        if self.oldest is None:
            self.oldest = record.log_time
        counts = self._counts
        aside = 0
        unreadable = False
        repeat = self._repeats.judge(record)
        if repeat is not None:
            self.repeated[repeat.by] = self.repeated.get(repeat.by, 0) + 1
        for outcome in self._outcomes_of(record, repeat):
            if isinstance(outcome, Counted):
                key, yes, no, other = outcome
                sums = counts.get(key)
                if sums is None:
                    counts[key] = [yes, no, other]
                else:
                    sums[0] += yes
                    sums[1] += no
                    sums[2] += other
                continue
            unreadable = outcome.reason is Reason.UNREADABLE
            headers = record.headers if isinstance(record.headers, Headers) else None
            # What is set aside repeats names: 4 kB of bad ones may become 300 kB.
            self.bytes += len(outcome.payload) + len(outcome.app_name) + len(outcome.feature)
            self.rejected.append(
                RejectedRow(
                    topic_id=topic_id,
                    partition=partition,
                    offset=record.offset,
                    row=aside,
                    log_time=record.log_time,
                    kind=headers.kind if headers else "",
                    route=headers.route if headers else "",
                    reason=outcome.reason,
                    project=headers.project if headers else "",
                    environment=headers.environment if headers else "",
                    app_name=outcome.app_name,
                    feature=outcome.feature,
                    payload=outcome.payload.decode("utf-8", "replace"),
                )
            )
            aside += 1
        self.unreadable_at_end = self.unreadable_at_end + 1 if unreadable else 0

    def blocks(self, topic_id: str, partition: int, span: Range) -> list[Block]:
        """Build the inserts of the batch: the home table with its marker stands last.

        A batch without records (a gap in the log) has `received` 1970-01-01: it depends on nothing but the log.
        """
        received = received_day(self.oldest or 0)
        blocks = []
        if self.rejected:
            columns = dict(zip(RejectedRow._fields, zip(*self.rejected, strict=True), strict=True))
            blocks.append(_block(REJECTED, REJECTED_COLUMNS, columns, received, len(self.rejected)))
        marker = marker_key(topic_id, partition, span, [HOME, *(block.table for block in blocks)], received)
        keys = [*self._counts, marker]
        sums = [*self._counts.values(), [0, 0, 1]]
        columns = dict(zip(EvaluationKey._fields, zip(*keys, strict=True), strict=True))
        for at, name in enumerate(("yes", "no", "count")):
            columns[name] = tuple(each[at] % limits.COUNT_MODULUS for each in sums)
        blocks.append(_block(HOME, EVALUATION_COLUMNS, columns, received, len(keys)))
        return blocks


def _block(
    table: str, order: dict[str, str], columns: dict[str, tuple[object, ...]], received: int, rows: int
) -> Block:
    columns["received"] = (received,) * rows
    return Block(table, {name: columns[name] for name in order})
