import msgspec
import pytest

from query_api import buckets, shape
from query_api.buckets import Period
from query_api.parameters import Range
from query_api.shape import NO_VARIANT, TooLargeError
from query_api.sql import MAX_ROWS, ProjectRow, SeriesRow, SummaryRow, TotalRow
from schemas.answers import Counts, FeaturePoint
from schemas.limits import MAX_COUNT

HOUR = 3600
SPAN = Range(0, 3 * HOUR, Period.HOUR)
DATES = ["1970-01-01T00:00:00.000Z", "1970-01-01T01:00:00.000Z", "1970-01-01T02:00:00.000Z"]
UNLEASH = {"unleash"}


def unleash(bucket: int, yes: int, no: int) -> SeriesRow:
    return SeriesRow(bucket, "", "unleash", yes, no, 0)


def variant(bucket: int, name: str, count: int) -> SeriesRow:
    return SeriesRow(bucket, name, "unleash", 0, 0, count)


def devcycle(bucket: int, variations: dict[str, int], source: str = "devcycle") -> list[SeriesRow]:
    whole = SeriesRow(bucket, "", source, 0, 0, sum(variations.values()))
    return [whole, *(SeriesRow(bucket, name, source, 0, 0, count) for name, count in variations.items())]


def points(rows: list[SeriesRow], sources: set[str], *, by_variation: bool = False) -> list[FeaturePoint]:
    return shape.feature_series(rows, SPAN, sources, by_variation=by_variation).evaluations


def test_a_series_is_dense_and_every_point_has_every_key():
    rows = [unleash(HOUR, 25, 42), variant(HOUR, "red", 46), variant(HOUR, "blue", 6)]
    assert points(rows, UNLEASH) == [
        FeaturePoint(DATES[0], {"yes": 0, "no": 0}, {"blue": 0, "red": 0}),
        FeaturePoint(DATES[1], {"yes": 25, "no": 42}, {"blue": 6, "red": 46}),
        FeaturePoint(DATES[2], {"yes": 0, "no": 0}, {"blue": 0, "red": 0}),
    ]


def test_a_key_of_one_bucket_stands_in_all_of_them():
    found = points([variant(0, "a", 1), variant(2 * HOUR, "b", 2)], UNLEASH)
    assert [point.variants for point in found] == [{"a": 1, "b": 0}, {"a": 0, "b": 0}, {"a": 0, "b": 2}]


def test_a_quiet_unleash_feature_has_yes_and_no():
    assert points([], UNLEASH) == [FeaturePoint(date, {"yes": 0, "no": 0}, {}) for date in DATES]


def test_a_quiet_feature_of_another_protocol_has_no_keys():
    assert points([], {"devcycle"}) == [FeaturePoint(date, {}, {}) for date in DATES]


def test_rows_of_the_same_bucket_are_summed():
    assert points([unleash(0, 1, 2), unleash(0, 10, 20), variant(0, "a", 1), variant(0, "a", 2)], UNLEASH)[0] == (
        FeaturePoint(DATES[0], {"yes": 11, "no": 22}, {"a": 3})
    )


def test_devcycles_values_are_its_variations_and_add_up_to_the_evaluations():
    found = points(devcycle(0, {"on": 7, "off": 2, "defaulted": 1}), {"devcycle"})
    assert found[0] == FeaturePoint(DATES[0], {"defaulted": 1, "off": 2, "on": 7}, {})
    assert found[1].values == {"defaulted": 0, "off": 0, "on": 0}


def test_a_feature_of_both_protocols_has_all_keys():
    rows = [unleash(0, 3, 4), variant(0, "blue", 3), *devcycle(HOUR, {"on": 5}), *devcycle(HOUR, {"on": 1}, "otel")]
    found = points(rows, {"unleash", "devcycle", "otel"})
    assert [point.values for point in found[:2]] == [{"yes": 3, "no": 4, "on": 0}, {"yes": 0, "no": 0, "on": 6}]
    assert [point.variants for point in found[:2]] == [{"blue": 3}, {"blue": 0}]


def test_a_variation_named_yes_is_added_to_unleashs_yes():
    rows = [unleash(0, 3, 4), *devcycle(0, {"yes": 10})]
    assert points(rows, {"unleash", "devcycle"})[0].values == {"yes": 13, "no": 4}


def test_unleash_rows_count_even_where_the_known_sources_are_older_than_they():
    assert points([unleash(0, 1, 1)], set())[0].values == {"yes": 1, "no": 1}


def test_by_variation_puts_variants_into_values_and_the_rest_under_none():
    rows = [unleash(0, 25, 42), variant(0, "blue", 6), variant(0, "red", 46), unleash(HOUR, 1, 2)]
    found = points(rows, UNLEASH, by_variation=True)
    assert found[0] == FeaturePoint(DATES[0], {"blue": 6, "red": 46, NO_VARIANT: 15}, {"blue": 6, "red": 46})
    assert [sum(point.values.values()) for point in found] == [67, 3, 0]


def test_by_variation_a_feature_without_variants_has_none_alone():
    assert [p.values for p in points([unleash(0, 1, 2)], UNLEASH, by_variation=True)] == [
        {NO_VARIANT: 3},
        {NO_VARIANT: 0},
        {NO_VARIANT: 0},
    ]


def test_by_variation_never_goes_below_zero():
    rows = [unleash(0, 1, 0), variant(0, "blue", 5)]
    assert points(rows, UNLEASH, by_variation=True)[0].values == {"blue": 5, NO_VARIANT: 0}


def test_by_variation_adds_variants_and_variations_of_the_same_name():
    rows = [unleash(0, 5, 0), variant(0, "blue", 5), *devcycle(0, {"blue": 2})]
    assert points(rows, {"unleash", "devcycle"}, by_variation=True)[0].values == {"blue": 7, NO_VARIANT: 0}


def test_sums_are_clamped_to_what_json_readers_hold_exactly():
    found = points([unleash(0, MAX_COUNT, 2**64 - 1), variant(0, "a", 2**63)], UNLEASH)[0]
    assert found == FeaturePoint(DATES[0], {"yes": MAX_COUNT, "no": MAX_COUNT}, {"a": MAX_COUNT})


def test_days_and_months_have_their_own_dates():
    start = buckets.floor(-1_377_518_400, Period.MONTH)
    span = Range(start, buckets.shift(start, Period.MONTH, 2), Period.MONTH)
    found = shape.feature_series([unleash(start, 1, 0)], span, UNLEASH, by_variation=False).evaluations
    assert [(point.date, point.values["yes"]) for point in found] == [
        ("1926-05-01T00:00:00.000Z", 1),
        ("1926-06-01T00:00:00.000Z", 0),
    ]


def test_too_many_numbers_are_refused_with_advice():
    span = Range(0, 10_000 * HOUR, Period.HOUR)
    rows = [variant(0, f"v{number}", 1) for number in range(48)]
    assert len(shape.feature_series(rows, span, UNLEASH, by_variation=False).evaluations) == 10_000
    with pytest.raises(TooLargeError, match="shorter range or a longer period"):
        shape.feature_series([*rows, variant(0, "one more", 1)], span, UNLEASH, by_variation=False)


def test_too_many_rows_are_refused():
    with pytest.raises(TooLargeError):
        shape.feature_series([unleash(0, 1, 1)] * (MAX_ROWS + 1), SPAN, UNLEASH, by_variation=False)
    with pytest.raises(TooLargeError):
        shape.summary([SummaryRow("v", "unleash", 0, 0, 1, 0, 0, [])] * (MAX_ROWS + 1), TotalRow(0, 0, 0))


def test_a_projects_series_is_dense_and_adds_yes_no_and_count():
    found = shape.project_series([ProjectRow(HOUR, 25, 142, 3), ProjectRow(2 * HOUR, 2**63, 0, 0)], SPAN).evaluations
    assert [(point.date, point.value) for point in found] == list(zip(DATES, [0, 170, MAX_COUNT], strict=True))


def test_the_summary_of_the_specifications_example():
    rows = [
        SummaryRow("", "unleash", 25, 42, 0, -1_377_518_400, -1_377_518_400, ["insurance-selector"]),
        SummaryRow("blue", "unleash", 0, 0, 6, -1_377_518_400, -1_377_518_400, ["insurance-selector"]),
    ]
    found = shape.summary(rows, TotalRow(25, 142, 0))
    assert msgspec.to_builtins(found) == {
        "counts": {"total": 167, "withFeature": 25, "accessedFeature": 67},
        "yes": 25,
        "no": 42,
        "variants": {"blue": 6},
        "applications": ["insurance-selector"],
        "firstSeen": "1926-05-08T12:00:00.000Z",
        "lastSeen": "1926-05-08T12:00:00.000Z",
    }


def test_the_summary_of_a_feature_of_both_protocols():
    rows = [
        SummaryRow("", "unleash", 3, 4, 0, 2 * HOUR, 5 * HOUR, ["b"]),
        SummaryRow("red", "unleash", 0, 0, 3, 2 * HOUR, 2 * HOUR, ["b"]),
        SummaryRow("", "devcycle", 0, 0, 11, HOUR, 3 * HOUR, ["a", "b"]),
        SummaryRow("on", "devcycle", 0, 0, 10, HOUR, 3 * HOUR, ["a"]),
        SummaryRow("defaulted", "devcycle", 0, 0, 1, HOUR, HOUR, ["c"]),
    ]
    found = shape.summary(rows, TotalRow(3, 4, 11))
    assert found.counts == Counts(total=18, with_feature=13, accessed_feature=18)
    assert (found.yes, found.no) == (3, 4)
    assert found.variants == {"defaulted": 1, "on": 10, "red": 3}
    assert found.applications == ["a", "b", "c"]
    assert (found.first_seen, found.last_seen) == ("1970-01-01T01:00:00.000Z", "1970-01-01T05:00:00.000Z")


def test_the_summary_of_a_quiet_feature_is_all_zeros():
    found = shape.summary([], TotalRow(1, 2, 3))
    assert found.counts == Counts(total=6, with_feature=0, accessed_feature=0)
    assert (found.variants, found.applications, found.first_seen, found.last_seen) == ({}, [], None, None)


def test_the_summarys_sums_are_clamped():
    rows = [SummaryRow("", "unleash", 2**63, 2**63, 0, 0, 0, []), SummaryRow("v", "unleash", 0, 0, 2**60, 0, 0, [])]
    found = shape.summary(rows, TotalRow(2**63, 2**63, 0))
    assert found.counts == Counts(MAX_COUNT, MAX_COUNT, MAX_COUNT)
    assert (found.yes, found.no, found.variants) == (MAX_COUNT, MAX_COUNT, {"v": MAX_COUNT})
