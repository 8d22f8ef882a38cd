"""What the markers in the store say of one partition: computed by ClickHouse, some 200,000 markers at a time."""

from collections.abc import Sequence
from datetime import date, timedelta
from typing import Any, Final

import msgspec
from clickhouse_connect.driver.client import Client

from schemas.limits import MARKER_DAYS, MARKER_PROJECT
from schemas.markers import HOME, LOST, REPLAY, Range, position
from schemas.tables import ADDITIVE, COLUMNS

AT_ONCE: Final = 200_000
"""Markers in one question: about 40 MB in ClickHouse, however many there are in all."""

SHOWN: Final = 100
"""So many ranges of each kind are listed; the others are counted."""


class Spans(msgspec.Struct):
    """Ranges of one kind: how many, how many positions they hold, and the first of them."""

    ranges: int = 0
    positions: int = 0
    shown: list[Range] = msgspec.field(default_factory=list)

    def add(self, ranges: int, positions: int, shown: Sequence[tuple[int, int]]) -> None:
        """Count more of them."""
        self.ranges += ranges
        self.positions += positions
        self.shown += [Range(*span) for span in sorted(shown)[: SHOWN - len(self.shown)]]

    def add_one(self, span: Range) -> None:
        """Count one more."""
        self.add(1, span.last - span.first + 1, [(span.first, span.last)])


class Marked(msgspec.Struct):
    """What all markers of a partition say together.

    Attributes:
        topic_id: of the log.
        partition: of the log.
        floor: the first position that is judged; what is below may have had markers that are too old by now.
        first: of the smallest marker; None where there is none.
        last: M, of the largest one.
        batches: how many markers there are.
        holes: ranges between markers that none covers.
        overlaps: ranges that two markers cover.
        duplicates: ranges whose marker was stored more than once.
        accepted: ranges that the log lost, and that were accepted as lost.
        missing: by additive table, batches whose home marker names a table that does not hold them.
        surplus: by additive table, batches that are there twice, or that no home marker names.
    """

    topic_id: str
    partition: int
    floor: int
    first: int | None = None
    last: int | None = None
    batches: int = 0
    holes: Spans = msgspec.field(default_factory=Spans)
    overlaps: Spans = msgspec.field(default_factory=Spans)
    duplicates: Spans = msgspec.field(default_factory=Spans)
    accepted: Spans = msgspec.field(default_factory=Spans)
    missing: dict[str, Spans] = msgspec.field(default_factory=dict)
    surplus: dict[str, Spans] = msgspec.field(default_factory=dict)

    @property
    def is_exact(self) -> bool:
        """Say whether every position is marked once, in each of its tables."""
        spans = [self.holes, self.overlaps, self.duplicates, *self.missing.values(), *self.surplus.values()]
        return not any(each.ranges for each in spans)


class Replayed(msgspec.Struct):
    """What `flagmeter replay` counted: rejected rows, and those among them that were counted more than once."""

    rows: int
    twice: int


class MarkerReader:
    """Asks the store about its markers.

    Args:
        client: to the store; its database is named in each question.
        database: with the tables.
        today: markers that are older than their life on this day are not looked at: some of them are gone already.
        additive: the tables that carry markers.
        at_once: markers in one question.
    """

    def __init__(
        self,
        client: Client,
        database: str,
        today: date,
        *,
        additive: Sequence[str] = ADDITIVE,
        at_once: int = AT_ONCE,
    ) -> None:
        self._client = client
        self._database = database
        self._since = today - timedelta(days=MARKER_DAYS)
        self._others = [table for table in additive if table != HOME]
        self._at_once = at_once

    def partitions(self) -> list[tuple[str, int]]:
        """List the partitions that have markers: topic id and number."""
        rows = self._rows(
            f"SELECT DISTINCT environment, toUInt32(feature) FROM {self._table(HOME)} "  # noqa: S608 - names of ours
            "WHERE project = {project:String} AND environment != {replay:String} AND written > {since:Date} "
            "ORDER BY 1, 2",
            {},
        )
        return [(str(topic_id), int(partition)) for topic_id, partition in rows]

    def replayed(self) -> Replayed:
        """Count the rejected rows that were replayed."""
        ((rows, twice),) = self._rows(
            "SELECT count(), countIf(times > 1) FROM (SELECT sum(count) AS times "  # noqa: S608 - as above
            f"FROM {self._table(HOME)} WHERE project = {{project:String}} AND environment = {{replay:String}} "
            "GROUP BY feature, variable, variant)",
            {},
        )
        return Replayed(int(rows), int(twice))

    def read(self, topic_id: str, partition: int, *, young: int | None) -> Marked:
        """Judge one partition.

        Args:
            topic_id: of the log.
            partition: of the log.
            young: the first position in the log whose marker must still be there; None where the log is not known.
                From there on is judged, and from the oldest day of markers on: those of a day go together.
        """
        where = {"topic": topic_id, "partition": str(partition)}
        ((batches, first, last, oldest),) = self._rows(
            "SELECT count(), min(variable), max(variant), argMin(variable, (written, variable)) "  # noqa: S608 - as above
            f"FROM {self._table(HOME)} WHERE {_OURS}",
            where,
        )
        if not batches:
            return Marked(topic_id, partition, young or 0)
        floor = int(oldest) if young is None else min(int(oldest), young)
        found = Marked(topic_id, partition, floor, int(first), int(last))
        begin: str | None = str(first)
        reached = 0
        while begin is not None:
            end = self._end_of_chunk(where, begin)
            # All positions have 20 digits: `~` is beyond them.
            reached = self._judge(found, {**where, "begin": begin, "end": end or "~", "reached": reached})
            begin = end
        return found

    def _end_of_chunk(self, where: dict[str, Any], begin: str) -> str | None:
        rows = self._rows(
            f"SELECT variable FROM {self._table(HOME)} WHERE {_OURS} AND variable > {{begin:String}} "  # noqa: S608 - as above
            f"ORDER BY variable LIMIT 1 OFFSET {self._at_once}",
            {**where, "begin": begin},
        )
        return str(rows[0][0]) if rows else None

    def _judge(self, found: Marked, chunk: dict[str, Any]) -> int:
        """Judge the markers that begin in one range of positions; give the position after all so far."""
        ((batches, reached, duplicates, overlaps, holes, accepted),) = self._rows(
            _JUDGE.format(table=self._table(HOME), ours=_OURS, shown=SHOWN),
            {**chunk, "floor": found.floor, "lost": LOST},
        )
        found.batches += batches
        for spans, told in (
            (found.duplicates, duplicates),
            (found.overlaps, overlaps),
            (found.holes, holes),
            (found.accepted, accepted),
        ):
            spans.add(*told)
        for table in self._others:
            ((missing, surplus),) = self._rows(
                _AGREE.format(
                    home=self._table(HOME),
                    table=self._table(table),
                    ours=_OURS,
                    times="count" if "count" in COLUMNS.get(table, {}) else "1",
                    shown=SHOWN,
                ),
                {**chunk, "name": table, "last": position(found.last or 0)},
            )
            found.missing.setdefault(table, Spans()).add(*missing)
            found.surplus.setdefault(table, Spans()).add(*surplus)
        return int(max(reached, chunk["reached"]))

    def _table(self, name: str) -> str:
        return f"`{self._database}`.{name}"

    def _rows(self, query: str, parameters: dict[str, Any]) -> list[tuple[Any, ...]]:
        known = {"project": MARKER_PROJECT, "replay": REPLAY, "since": self._since, **parameters}
        used = {name: value for name, value in known.items() if f"{{{name}:" in query}
        return [tuple(row) for row in self._client.query(query, parameters=used).result_rows]


_OURS: Final = (
    "project = {project:String} AND environment = {topic:String} AND feature = {partition:String} "
    "AND written > {since:Date}"
)

# Of each kind: how many ranges, how many positions, and the first ones.
_JUDGE: Final = """
WITH
    batches AS (
        SELECT toUInt64(variable) AS first, toUInt64(variant) AS last, sum(count) AS times,
               max(app_name = {{lost:String}}) AS was_lost
        FROM {table}
        WHERE {ours} AND variable >= {{begin:String}} AND variable < {{end:String}}
        GROUP BY variable, variant
    ),
    placed AS (
        SELECT first, last, times, was_lost,
               greatest({{reached:UInt64}}, max(last + 1) OVER (
                   ORDER BY first, last ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING)) AS reached,
               greatest(reached, {{floor:UInt64}}) AS hole
        FROM batches
    )
SELECT count(), max(last + 1),
    (countIf(times > 1), sumIf(last - first + 1, times > 1),
     groupArrayIf({shown})((first, last), times > 1)),
    (countIf(first < reached), sumIf(least(last + 1, reached) - first, first < reached),
     groupArrayIf({shown})((first, least(last + 1, reached) - 1), first < reached)),
    (countIf(first > hole), sumIf(first - hole, first > hole),
     groupArrayIf({shown})((hole, first - 1), first > hole)),
    (countIf(was_lost), sumIf(last - first + 1, was_lost),
     groupArrayIf({shown})((first, last), was_lost))
FROM placed
"""

_AGREE: Final = """
SELECT
    (countIf(named AND times = 0), sumIf(last - first + 1, named AND times = 0),
     groupArrayIf({shown})((first, last), named AND times = 0)),
    (countIf(wrong), sumIf(last - first + 1, wrong), groupArrayIf({shown})((first, last), wrong))
FROM (
    SELECT toUInt64(variable) AS first, toUInt64(variant) AS last, max(is_named) AS named, sum(stored) AS times,
           times > 1 OR (times > 0 AND NOT named AND variant <= {{last:String}}) AS wrong
    FROM (
        SELECT variable, variant, has(splitByChar(',', app_name), {{name:String}}) AS is_named, 0 AS stored
        FROM {home} WHERE {ours} AND variable >= {{begin:String}} AND variable < {{end:String}}
        UNION ALL
        SELECT variable, variant, 0 AS is_named, toUInt64({times}) AS stored
        FROM {table}
        WHERE project = {{project:String}} AND environment = {{topic:String}} AND feature = {{partition:String}}
          AND variable >= {{begin:String}} AND variable < {{end:String}}
    )
    GROUP BY variable, variant
)
"""
