"""Rows of the store to the answers: dense series and summaries. Pure.

What one evaluation is (DESIGN.md, Tables): Unleash's row with an empty variant carries `yes` and `no`, and its rows
with a variant break them down. The other protocols' row with an empty variant carries `count`, beside a row for each
variation (or `defaulted`), which add up to it.
"""

from collections import defaultdict
from collections.abc import Collection, Iterable
from typing import Final

from query_api import buckets
from query_api.parameters import Range
from query_api.sql import MAX_ROWS, ProjectRow, SeriesRow, SummaryRow, TotalRow
from schemas.answers import Counts, FeatureEvaluations, FeaturePoint, ProjectEvaluations, ProjectPoint, Summary
from schemas.limits import MAX_COUNT
from schemas.tables import Source

NO_VARIANT: Final = "(none)"
DEFAULTED: Final = "defaulted"
MAX_VALUES: Final = MAX_ROWS
"""The most numbers in one series: buckets times keys. About 10 MB of JSON."""

_YES: Final = "yes"
_NO: Final = "no"


class TooLargeError(ValueError):
    """The answer would hold too much; the message says what to ask instead."""


class _Bucket:
    """What one bucket adds up to."""

    __slots__ = ("no", "variants", "variations", "yes")

    def __init__(self) -> None:
        self.yes = 0
        self.no = 0
        self.variants: dict[str, int] = {}
        self.variations: dict[str, int] = {}

    def add(self, row: SeriesRow | SummaryRow) -> None:
        if row.source != Source.UNLEASH:
            if row.variant:
                _add(self.variations, row.variant, row.count)
        elif row.variant:
            _add(self.variants, row.variant, row.count)
        else:
            self.yes += row.yes
            self.no += row.no

    def values(self, *, by_variation: bool) -> dict[str, int]:
        """Give numbers that add up to the evaluations; a key that both protocols use holds the sum."""
        values = dict(self.variations)
        if not by_variation:
            _add(values, _YES, self.yes)
            _add(values, _NO, self.no)
            return values
        for name, count in self.variants.items():
            _add(values, name, count)
        _add(values, NO_VARIANT, max(self.yes + self.no - sum(self.variants.values()), 0))
        return values


def feature_series(
    rows: Iterable[SeriesRow], span: Range, sources: Collection[str], *, by_variation: bool
) -> FeatureEvaluations:
    """Make a feature's dense series.

    Args:
        rows: in any order; of the range.
        span: the range.
        sources: the protocols that the feature was ever counted by; Unleash's `yes` and `no` stand in every point.
        by_variation: puts Unleash's variants into `values`, and what has none under `(none)`.

    Raises:
        TooLargeError: more numbers than `MAX_VALUES`.
    """
    found: defaultdict[int, _Bucket] = defaultdict(_Bucket)
    of_unleash = Source.UNLEASH in sources
    variants: set[str] = set()
    variations: set[str] = set()
    for number, row in enumerate(rows):
        if number >= MAX_ROWS:
            raise _too_large()
        found[row.bucket].add(row)
        if row.source == Source.UNLEASH:
            of_unleash = True
            variants.add(row.variant)
        else:
            variations.add(row.variant)
    variant_keys = sorted(variants - {""})
    keys = _keys(variant_keys, sorted(variations - {""}), of_unleash=of_unleash, by_variation=by_variation)
    if len(span) * (len(keys) + len(variant_keys)) > MAX_VALUES:
        raise _too_large()
    no_values, no_variants = dict.fromkeys(keys, 0), dict.fromkeys(variant_keys, 0)
    points = []
    for start in buckets.each(span.start, span.end, span.period):
        bucket = found.get(start)
        if bucket is None:
            points.append(FeaturePoint(buckets.stamp(start), no_values, no_variants))
            continue
        values = bucket.values(by_variation=by_variation)
        points.append(
            FeaturePoint(
                buckets.stamp(start),
                {key: _clamped(values.get(key, 0)) for key in keys},
                {key: _clamped(bucket.variants.get(key, 0)) for key in variant_keys},
            )
        )
    return FeatureEvaluations(points)


def project_series(rows: Iterable[ProjectRow], span: Range) -> ProjectEvaluations:
    """Make a project's dense series."""
    found = {row.bucket: row.yes + row.no + row.count for row in rows}
    return ProjectEvaluations(
        [
            ProjectPoint(buckets.stamp(start), _clamped(found.get(start, 0)))
            for start in buckets.each(span.start, span.end, span.period)
        ]
    )


def summary(rows: Iterable[SummaryRow], total: TotalRow) -> Summary:
    """Make a feature's summary.

    `firstSeen` and `lastSeen` are the starts of the first and last hour of the range that have counts; `applications`
    are sorted. `variants` holds Unleash's variants and the other protocols' variations.

    Raises:
        TooLargeError: more variants than `MAX_ROWS`.
    """
    whole = _Bucket()
    accessed = 0
    applications: set[str] = set()
    hours: set[int] = set()
    for number, row in enumerate(rows):
        if number >= MAX_ROWS:
            raise _too_large()
        whole.add(row)
        applications.update(row.applications)
        hours.update((row.first_hour, row.last_hour))
        if not row.variant:
            accessed += row.yes + row.no + row.count
    answered = whole.yes + sum(count for variation, count in whole.variations.items() if variation != DEFAULTED)
    names = whole.variants.keys() | whole.variations.keys()
    return Summary(
        counts=Counts(
            total=_clamped(total.yes + total.no + total.count),
            with_feature=_clamped(answered),
            accessed_feature=_clamped(accessed),
        ),
        yes=_clamped(whole.yes),
        no=_clamped(whole.no),
        variants={
            name: _clamped(whole.variants.get(name, 0) + whole.variations.get(name, 0)) for name in sorted(names)
        },
        applications=sorted(applications),
        first_seen=buckets.stamp(min(hours)) if hours else None,
        last_seen=buckets.stamp(max(hours)) if hours else None,
    )


def _keys(variants: list[str], variations: list[str], *, of_unleash: bool, by_variation: bool) -> list[str]:
    """Give the keys of `values` in their order; one that both protocols use stands once."""
    own = ([*variants, NO_VARIANT] if by_variation else [_YES, _NO]) if of_unleash else []
    return list(dict.fromkeys([*own, *variations]))


def _add(sums: dict[str, int], key: str, count: int) -> None:
    sums[key] = sums.get(key, 0) + count


def _clamped(count: int) -> int:
    return min(count, MAX_COUNT)


def _too_large() -> TooLargeError:
    return TooLargeError(
        f"the answer would hold more than {MAX_VALUES} numbers: ask for a shorter range or a longer period"
    )
