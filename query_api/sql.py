"""The statements that the query API sends, with every value bound on the server (`{name:Type}`).

Parts may not be merged yet, so every statement sums and groups. Hours are `DateTime64(0, 'UTC')`: `date_trunc` keeps
1926 and 2250 whole, while `toDate`, `toDateTime` and `toStartOf…` would not. Instants travel as epoch seconds.
Conditions begin with the primary key (project, environment, feature, variable, variant). Days and months are grouped
by `date_trunc('day', hour)`, in WHERE too, so that the daily projection serves them.
Batch markers have a project of their own, and no statement is built for it (`results`).
"""

# ruff: noqa: S608 - the texts are put together from constants of this module alone; every value is bound

from dataclasses import dataclass
from typing import Final, Generic, TypeVar

import msgspec

from query_api.buckets import Period
from query_api.parameters import Filters, Range
from schemas.limits import MAX_HOUR, MIN_HOUR
from schemas.tables import EVALUATIONS

MAX_ROWS: Final = 500_000
"""The most rows of one answer; a statement asks for one more, which says that there are too many."""

MAX_APPLICATIONS: Final = 10_000

_LAST: Final = MAX_HOUR + 3599
"""The last second that the column can hold; a later bound would wrap."""

_DAY: Final = "date_trunc('day', hour)"
_BUCKET: Final = {
    Period.HOUR: "hour",
    Period.DAY: _DAY,
    Period.MONTH: f"date_trunc('month', {_DAY})",
}


class SeriesRow(msgspec.Struct, frozen=True, array_like=True):
    """A feature's counts in one bucket (epoch seconds) under one variant of one protocol."""

    bucket: int
    variant: str
    source: str
    yes: int
    no: int
    count: int


class ProjectRow(msgspec.Struct, frozen=True, array_like=True):
    """A project's counts in one bucket (epoch seconds)."""

    bucket: int
    yes: int
    no: int
    count: int


class SummaryRow(msgspec.Struct, frozen=True, array_like=True):
    """A feature's counts over a range under one variant of one protocol; hours are epoch seconds."""

    variant: str
    source: str
    yes: int
    no: int
    count: int
    first_hour: int
    last_hour: int
    applications: list[str]


class TotalRow(msgspec.Struct, frozen=True, array_like=True):
    """Everything in a scope."""

    yes: int
    no: int
    count: int


class TextRow(msgspec.Struct, frozen=True, array_like=True):
    """A single text."""

    text: str


class NumberRow(msgspec.Struct, frozen=True, array_like=True):
    """A single number."""

    number: int


RowT = TypeVar("RowT", bound=msgspec.Struct)


@dataclass(frozen=True, slots=True)
class Statement(Generic[RowT]):
    """A statement, the values of its parameters, and the shape of its rows."""

    text: str
    parameters: dict[str, str | int]
    row: type[RowT]


def feature_series(project: str, feature: str, filters: Filters, span: Range) -> Statement[SeriesRow]:
    """Ask for a feature's counts by bucket, variant and protocol."""
    where, parameters = _scope(project, feature, filters, span)
    return Statement(
        f"SELECT {_seconds(_BUCKET[span.period])} AS bucket, variant, source, sum(yes), sum(no), sum(count)"
        f" FROM {EVALUATIONS} WHERE {where} GROUP BY bucket, variant, source LIMIT {MAX_ROWS + 1}",
        parameters,
        SeriesRow,
    )


def project_series(project: str, filters: Filters, span: Range) -> Statement[ProjectRow]:
    """Ask for a project's evaluations by bucket: the rows with an empty variant (DESIGN.md, Tables)."""
    where, parameters = _scope(project, None, filters, span)
    return Statement(
        f"SELECT {_seconds(_BUCKET[span.period])} AS bucket, sum(yes), sum(no), sum(count)"
        f" FROM {EVALUATIONS} WHERE {where} AND variant = '' GROUP BY bucket",
        parameters,
        ProjectRow,
    )


def feature_summary(project: str, feature: str, filters: Filters, span: Range) -> Statement[SummaryRow]:
    """Ask for a feature's counts over the whole range, with its hours and applications."""
    where, parameters = _scope(project, feature, filters, span)
    return Statement(
        f"SELECT variant, source, sum(yes), sum(no), sum(count), {_seconds('min(hour)')}, {_seconds('max(hour)')},"
        f" groupUniqArray({MAX_APPLICATIONS})(app_name)"
        f" FROM {EVALUATIONS} WHERE {where} GROUP BY variant, source LIMIT {MAX_ROWS + 1}",
        parameters,
        SummaryRow,
    )


def project_total(project: str, filters: Filters, span: Range) -> Statement[TotalRow]:
    """Ask for all evaluations of a project over the range, whatever the feature and variable."""
    everything = Filters(filters.environment, filters.platform, None, filters.sdk_type)
    where, parameters = _scope(project, None, everything, span)
    return Statement(
        f"SELECT sum(yes), sum(no), sum(count) FROM {EVALUATIONS} WHERE {where} AND variant = ''",
        parameters,
        TotalRow,
    )


def sources(project: str, feature: str) -> Statement[TextRow]:
    """Ask which protocols a feature was ever counted by; no row: never."""
    return Statement(
        f"SELECT source FROM {EVALUATIONS} WHERE project = {{project:String}} AND feature = {{feature:String}}"
        " GROUP BY source",
        {"project": project, "feature": feature},
        TextRow,
    )


def project_seen(project: str) -> Statement[NumberRow]:
    """Ask whether a project was ever counted; no row: never."""
    return Statement(
        f"SELECT 1 FROM {EVALUATIONS} WHERE project = {{project:String}} LIMIT 1", {"project": project}, NumberRow
    )


def tables_there() -> Statement[NumberRow]:
    """Read nothing from the table: an error says that it is not there, or may not be read."""
    return Statement(f"SELECT count() FROM {EVALUATIONS} WHERE project = '' AND count > 0", {}, NumberRow)


def _scope(project: str, feature: str | None, filters: Filters, span: Range) -> tuple[str, dict[str, str | int]]:
    """Give the conditions in the order of the primary key, and their values."""
    equal = {
        "project": project,
        "environment": filters.environment,
        "feature": feature,
        "variable": filters.variable,
        "platform": filters.platform,
        "sdk_type": filters.sdk_type,
    }
    parameters: dict[str, str | int] = {name: value for name, value in equal.items() if value is not None}
    conditions = [f"{name} = {{{name}:String}}" for name in parameters]
    moment = "hour" if span.period is Period.HOUR else _DAY
    conditions += [f"{moment} >= {_instant('start')}", f"{moment} < {_instant('end')}"]
    parameters |= {"start": _storable(span.start), "end": _storable(span.end)}
    return " AND ".join(conditions), parameters


def _storable(instant: int) -> int:
    return min(max(instant, MIN_HOUR), _LAST)


def _instant(name: str) -> str:
    return f"fromUnixTimestamp64Second({{{name}:Int64}}, 'UTC')"


def _seconds(moment: str) -> str:
    # Months come as Date32 (a Date before enable_extended_results_for_datetime_functions).
    return f"toUnixTimestamp64Second(toDateTime64({moment}, 0, 'UTC'))"
