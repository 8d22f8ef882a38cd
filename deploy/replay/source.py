"""What the store holds of rejected rows, and which of them were replayed."""

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, NamedTuple

from clickhouse_connect.driver.client import Client
from clickhouse_connect.driver.exceptions import ClickHouseError, DatabaseError

from aggregator.ports import StoreError
from schemas.limits import MARKER_PROJECT
from schemas.markers import HOME, REPLAY, position, received_day
from schemas.tables import REJECTED, EvaluationKey, RejectedRow

CHUNK_ROWS: Final = 1000
CHUNK_BYTES: Final = 8 * 1024 * 1024
"""Rows and bytes of payloads that are held at a time."""

_PAGE: Final = 10_000


@dataclass(frozen=True, slots=True)
class Filter:
    """Which rejected rows are meant; empty means all.

    Attributes:
        reasons: why they were set aside.
        since: appended to the log at this time or later.
        project: as it was known when they were set aside.
        environment: the same; `*` is what a token says that leaves it to each entry.
    """

    reasons: Sequence[str] = ()
    since: datetime | None = None
    project: str | None = None
    environment: str | None = None

    def where(self) -> tuple[str, dict[str, Any]]:
        """Write the SQL condition and its parameters."""
        conditions, parameters = ["1"], dict[str, Any]()
        if self.reasons:
            conditions.append("reason IN {reasons:Array(String)}")
            parameters["reasons"] = list(self.reasons)
        if self.since is not None:
            conditions.append("log_time >= fromUnixTimestamp64Milli({since:Int64}, 'UTC')")
            parameters["since"] = int(self.since.timestamp() * 1000)
        for name in ("project", "environment"):
            value = getattr(self, name)
            if value is not None:
                conditions.append(f"{name} = {{{name}:String}}")
                parameters[name] = value
        return " AND ".join(conditions), parameters


class Unit(NamedTuple):
    """Rows whose replays follow one another: those of one partition's records of one day of log time (since 1970).

    It depends on the record alone. All inserts of a unit go into one ClickHouse partition, so that a token that was
    used once holds the next one off.
    """

    topic_id: str
    partition: int
    day: int

    @property
    def name(self) -> str:
        """The marker's `feature`."""
        return f"{self.topic_id}/{self.partition}"

    def token(self, number: int, attempt: int) -> str:
        """Name the unit's insert of this number; whoever inserts first under it has it."""
        return f"{REPLAY}:{self.name}:{self.day}:{number}" + (f"-r{attempt}" if attempt else "")

    def marker(self, row: RejectedRow, number: int) -> EvaluationKey:
        """Build the key of the marker that names a replayed row."""
        return EvaluationKey(
            project=MARKER_PROJECT,
            environment=REPLAY,
            feature=self.name,
            variable=position(row.offset),
            variant=position(row.row),
            hour=self.day * 86_400,
            app_name=position(number),
            platform="",
            sdk_type="",
            source="",
        )


class Progress(NamedTuple):
    """How far a unit is: the number that its next insert gets, and which rows of a range are replayed."""

    number: int
    replayed: frozenset[tuple[int, int]]


class Source:
    """Reads the tables.

    All methods raise `StoreError` where the store refuses or does not answer.
    """

    def __init__(self, client: Client, database: str) -> None:
        self._client = client
        self._database = database

    def chunks(self, wanted: Filter) -> Iterator[tuple[Unit, list[RejectedRow]]]:
        """Give the rows in the order of their logs, some at a time, each chunk of one unit."""
        condition, parameters = wanted.where()
        topics = self._rows(
            f"SELECT DISTINCT topic_id, partition FROM {self._table(REJECTED)} WHERE {condition} ORDER BY 1, 2",  # noqa: S608 - conditions of ours
            parameters,
        )
        for topic_id, partition in topics:
            yield from self._of_partition(str(topic_id), int(partition), condition, parameters)

    def _of_partition(
        self, topic_id: str, partition: int, condition: str, parameters: dict[str, Any]
    ) -> Iterator[tuple[Unit, list[RejectedRow]]]:
        known = {**parameters, "topic": topic_id, "partition": partition}
        mine = (
            f"FROM {self._table(REJECTED)} FINAL WHERE topic_id = {{topic:String}} AND partition = {{partition:UInt32}}"
        )
        after: tuple[int, int] | None = None
        while True:
            beyond = "(offset, row) > ({offset:UInt64}, {row:UInt32})" if after else "1"
            place = {"offset": after[0], "row": after[1]} if after else {}
            page = self._rows(
                "SELECT offset, row, toUnixTimestamp64Milli(log_time), length(payload) "
                f"{mine} AND {beyond} AND {condition} ORDER BY offset, row LIMIT {_PAGE}",
                {**known, **place},
            )
            if not page:
                return
            after = (int(page[-1][0]), int(page[-1][1]))
            for day, first, last in _cut(page):
                found = self._rows(
                    f"SELECT {_COLUMNS} {mine} AND (offset, row) >= ({{offset:UInt64}}, {{row:UInt32}}) "
                    f"AND (offset, row) <= ({{last_offset:UInt64}}, {{last_row:UInt32}}) AND {condition} "
                    "ORDER BY offset, row",
                    {**known, "offset": first[0], "row": first[1], "last_offset": last[0], "last_row": last[1]},
                )
                unit = Unit(topic_id, partition, day)
                rows = [RejectedRow(*row) for row in found]
                yield unit, [row for row in rows if received_day(row.log_time) == day]

    def progress(self, unit: Unit, rows: Sequence[RejectedRow]) -> Progress:
        """Read how far a unit is, in one question: the number belongs to just these markers.

        Args:
            unit: of the rows.
            rows: in order; told of are those between the first and the last.
        """
        ((last, replayed),) = self._rows(
            "SELECT max(app_name), groupUniqArrayIf((toUInt64(variable), toUInt32(variant)), "  # noqa: S608 - as above
            "variable BETWEEN {first:String} AND {last:String}) "
            f"FROM {self._table(HOME)} WHERE project = {{project:String}} AND environment = {{replay:String}} "
            "AND feature = {unit:String} AND hour = toDateTime64({hour:Int64}, 0, 'UTC')",
            {
                "project": MARKER_PROJECT,
                "replay": REPLAY,
                "unit": unit.name,
                "hour": unit.day * 86_400,
                "first": position(rows[0].offset),
                "last": position(rows[-1].offset),
            },
        )
        number = int(last) + 1 if last else 0
        return Progress(number, frozenset((int(offset), int(row)) for offset, row in replayed))

    def _table(self, name: str) -> str:
        return f"`{self._database}`.{name}"

    def _rows(self, query: str, parameters: dict[str, Any]) -> list[tuple[Any, ...]]:
        with store_errors():
            return [tuple(row) for row in self._client.query(query, parameters=parameters).result_rows]


@contextlib.contextmanager
def store_errors() -> Iterator[None]:
    """Turn the driver's errors into ours."""
    try:
        yield
    except DatabaseError as error:
        raise StoreError(str(error)[:300], code=error.code or 0, passing=False) from error
    except (ClickHouseError, OSError) as error:
        raise StoreError(f"no answer: {str(error)[:300]}") from error


def _cut(page: Sequence[tuple[Any, ...]]) -> Iterator[tuple[int, tuple[int, int], tuple[int, int]]]:
    """Cut a page into runs of one day of at most so many rows and bytes: day, first and last (offset, row)."""
    run: tuple[int, tuple[int, int], tuple[int, int]] | None = None
    rows = size = 0
    for offset, row, log_time, length in page:
        day, at = received_day(int(log_time)), (int(offset), int(row))
        if run and (day != run[0] or rows >= CHUNK_ROWS or size + length > CHUNK_BYTES):
            yield run
            run, rows, size = None, 0, 0
        run = (day, run[1] if run else at, at)
        rows, size = rows + 1, size + length
    if run:
        yield run


_COLUMNS: Final = ", ".join(
    "toUnixTimestamp64Milli(log_time)" if name == "log_time" else name for name in RejectedRow._fields
)
