from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from query_api import buckets, parameters
from query_api.buckets import Period
from query_api.parameters import MAX_BUCKETS, Filters, Query, WrongParametersError

NOW = int(datetime(2026, 11, 22, 10, 20, 30, tzinfo=UTC).timestamp())


def read(*pairs: tuple[str, str], by: bool = False) -> Query:
    return parameters.read(pairs, NOW, takes_by=by)


def span(*pairs: tuple[str, str]) -> tuple[str, str]:
    found = read(*pairs).span
    return buckets.stamp(found.start), buckets.stamp(found.end)


def messages(*pairs: tuple[str, str], by: bool = False) -> list[str]:
    with pytest.raises(WrongParametersError) as refused:
        read(*pairs, by=by)
    return refused.value.messages


def test_without_parameters_it_is_the_last_24_hours_with_the_running_one():
    assert span() == ("2026-11-21T11:00:00.000Z", "2026-11-22T11:00:00.000Z")
    assert read() == Query(read().span, Filters(), by_variation=False)
    assert read().span.period is Period.HOUR


def test_days_default_to_the_last_30():
    assert span(("period", "day")) == ("2026-10-24T00:00:00.000Z", "2026-11-23T00:00:00.000Z")


def test_months_default_to_the_last_12():
    assert span(("period", "month")) == ("2025-12-01T00:00:00.000Z", "2026-12-01T00:00:00.000Z")


def test_a_start_alone_gives_the_default_length_from_it():
    assert span(("startDate", "1926-05-08T11:30:00Z")) == ("1926-05-08T11:00:00.000Z", "1926-05-09T11:00:00.000Z")


def test_an_end_alone_gives_the_default_length_before_it():
    assert span(("endDate", "1926-05-08T11:30:00Z")) == ("1926-05-07T12:00:00.000Z", "1926-05-08T12:00:00.000Z")


@pytest.mark.parametrize(
    ("period", "expected"),
    [
        ("hour", ("1926-05-08T11:00:00.000Z", "1926-05-08T14:00:00.000Z")),
        ("day", ("1926-05-08T00:00:00.000Z", "1926-05-09T00:00:00.000Z")),
        ("month", ("1926-05-01T00:00:00.000Z", "1926-06-01T00:00:00.000Z")),
    ],
)
def test_the_start_is_floored_and_the_end_raised(period: str, expected: tuple[str, str]):
    given_pairs = (("startDate", "1926-05-08T11:00:00.001Z"), ("endDate", "1926-05-08T13:00:00.000000001Z"))
    assert span(*given_pairs, ("period", period)) == expected


@pytest.mark.parametrize(
    "text",
    [
        "-1377518400000",
        "1926-05-08T12:00:00Z",
        "1926-05-08T12:00:00.000Z",
        "1926-05-08t12:00:00z",
        "1926-05-08T14:00:00+02:00",
        "1926-05-08T14:00:00 02:00",
        "1926-05-08T14:00:00.000 0200",
        "1926-05-08T12:00Z",
        "1926-05-08T12:00",
        "1926-05-08T14:00+02:00",
        "1926-05-08T14:00 02:00",
        "1926-05-08 12:00:00",
    ],
)
def test_every_way_to_write_an_instant_is_read_alike(text: str):
    assert span(("startDate", text))[0] == "1926-05-08T12:00:00.000Z"


def test_a_day_alone_is_its_midnight_in_utc():
    assert span(("startDate", "1926-05-08"))[0] == "1926-05-08T00:00:00.000Z"


@pytest.mark.parametrize("text", ["yesterday", "2026-13-01", "2026-02-30", "1.5", "NaN", "2026-W01", "9" * 30, "٢٠٢٦"])
def test_what_is_no_date_is_refused(text: str):
    assert messages(("startDate", text)) == ["startDate must be milliseconds since the epoch or an ISO 8601 date"]


@pytest.mark.parametrize("name", ["startDate", "endDate"])
@pytest.mark.parametrize("text", ["8640000000000000", "-8640000000000000", "253402300800000", "-62135596800001"])
def test_years_without_four_digits_are_refused(name: str, text: str):
    assert messages((name, text)) == [f"{name} must lie within the years 1 to 9999"]


def test_a_range_that_leaves_the_calendar_is_refused():
    expected = ["startDate and endDate must lie within the years 1 to 9999"]
    assert messages(("startDate", "9999-12-31T12:00:00Z")) == expected
    assert messages(("endDate", "0001-01-01T12:00:00Z")) == expected


def test_the_last_bucket_of_year_9999_can_be_asked_for():
    assert len(read(("startDate", "9999-12-31T23:00:00Z"), ("endDate", "9999-12-31T23:59:59Z")).span) == 1


@pytest.mark.parametrize("end", ["1926-05-08T12:00:00Z", "1926-05-08T11:59:59Z", "1900-01-01"])
def test_a_start_that_is_not_before_the_end_is_refused(end: str):
    assert messages(("startDate", "1926-05-08T12:00:00Z"), ("endDate", end)) == ["startDate must be before endDate"]


@pytest.mark.parametrize("period", Period)
def test_ten_thousand_buckets_are_the_most(period: Period):
    end = buckets.shift(0, period, MAX_BUCKETS)
    bounds = ("startDate", "0"), ("period", period.value)
    assert len(read(*bounds, ("endDate", f"{end * 1000}")).span) == MAX_BUCKETS
    assert messages(*bounds, ("endDate", f"{end * 1000 + 1}")) == [
        f"startDate to endDate must have at most 10000 {period}s, and has 10001"
    ]


@pytest.mark.parametrize("value", ["week", "Hour", "hour ", "HOUR"])
def test_an_unknown_period_is_refused(value: str):
    assert messages(("period", value)) == ["period must be one of the following values: hour, day, month"]


@pytest.mark.parametrize("value", ["server", "client", "mobile", "api"])
def test_the_four_sdk_types_are_taken(value: str):
    assert read(("sdkType", value)).filters == Filters(sdk_type=value)


def test_an_unknown_sdk_type_is_refused():
    assert messages(("sdkType", "edge")) == ["sdkType must be one of the following values: server, client, mobile, api"]


def test_filters_are_taken_as_they_are():
    pairs = (("environment", "développement"), ("platform", "C#"), ("variable", "a' OR 1=1 --"))
    assert read(*pairs).filters == Filters("développement", "C#", "a' OR 1=1 --")


def test_by_variation_is_taken_where_it_means_something():
    assert read(("by", "variation"), by=True).by_variation
    assert messages(("by", "user"), by=True) == ["by must be one of the following values: variation"]
    assert messages(("by", "variation")) == ["property by should not exist"]


def test_an_unknown_parameter_is_refused():
    assert messages(("enviroment", "production")) == ["property enviroment should not exist"]


@pytest.mark.parametrize("name", ["startDate", "endDate", "period", "environment", "platform", "variable", "sdkType"])
def test_an_empty_or_repeated_parameter_is_refused(name: str):
    assert messages((name, "")) == [f"{name} should not be empty"]
    assert messages((name, "hour"), (name, "hour")) == [f"{name} must be given only once"]


def test_every_message_comes_at_once():
    found = messages(
        ("startDate", "x"),
        ("endDate", "y"),
        ("period", "week"),
        ("sdkType", "edge"),
        ("environment", "a"),
        ("environment", "b"),
        ("platform", ""),
        ("nonsense", "1"),
        by=True,
    )
    assert found == [
        "environment must be given only once",
        "platform should not be empty",
        "property nonsense should not exist",
        "period must be one of the following values: hour, day, month",
        "sdkType must be one of the following values: server, client, mobile, api",
        "startDate must be milliseconds since the epoch or an ISO 8601 date",
        "endDate must be milliseconds since the epoch or an ISO 8601 date",
    ]


@given(st.lists(st.tuples(st.sampled_from(["startDate", "endDate", "period", "by", "variable"]), st.text(max_size=30))))
def test_any_query_string_is_understood_or_refused_with_reasons(pairs: list[tuple[str, str]]):
    try:
        found = parameters.read(pairs, NOW, takes_by=True)
    except WrongParametersError as refused:
        assert refused.messages  # noqa: PT017
    else:
        assert 0 < len(found.span) <= MAX_BUCKETS


@given(
    start=st.integers(min_value=-70_000_000_000_000, max_value=260_000_000_000_000),
    length=st.integers(min_value=-10, max_value=40_000_000_000),
    period=st.sampled_from(list(Period)),
)
def test_a_range_that_is_taken_covers_what_was_asked(start: int, length: int, period: Period):
    pairs = (("startDate", str(start)), ("endDate", str(start + length)), ("period", period.value))
    try:
        found = read(*pairs).span
    except WrongParametersError as refused:
        assert refused.messages  # noqa: PT017
        return
    assert found.start * 1000 <= start < start + length <= found.end * 1000
    assert buckets.shift(found.start, period, len(found)) == found.end
