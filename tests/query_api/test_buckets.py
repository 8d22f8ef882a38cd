from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from query_api import buckets
from query_api.buckets import Period

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
instants = st.integers(min_value=-62_135_596_800, max_value=253_402_300_799)
periods = st.sampled_from(list(Period))


def at(text: str) -> int:
    return int((datetime.fromisoformat(text) - _EPOCH).total_seconds())


@pytest.mark.parametrize(
    ("period", "floor", "ceil"),
    [
        (Period.HOUR, "1926-05-08T12:00:00Z", "1926-05-08T13:00:00Z"),
        (Period.DAY, "1926-05-08T00:00:00Z", "1926-05-09T00:00:00Z"),
        (Period.MONTH, "1926-05-01T00:00:00Z", "1926-06-01T00:00:00Z"),
    ],
)
def test_an_instant_before_1970_lies_in_its_own_bucket(period: Period, floor: str, ceil: str):
    instant = at("1926-05-08T12:34:56Z")
    assert buckets.floor(instant, period) == at(floor)
    assert buckets.ceil(instant, period) == at(ceil)


@pytest.mark.parametrize("period", Period)
def test_the_start_of_a_bucket_is_its_own_floor_and_ceiling(period: Period):
    start = at("2250-02-01T00:00:00Z")
    assert buckets.floor(start, period) == buckets.ceil(start, period) == start


@given(instant=instants, period=periods)
def test_an_instant_lies_between_its_floor_and_the_next_bucket(instant: int, period: Period):
    start = buckets.floor(instant, period)
    assert start <= instant < buckets.shift(start, period, 1)
    assert buckets.ceil(instant, period) in (start, buckets.shift(start, period, 1))
    assert buckets.ceil(instant, period) >= instant


@given(instant=instants)
def test_floors_agree_with_the_calendar_of_the_standard_library(instant: int):
    moment = _EPOCH + timedelta(seconds=instant)
    month = moment.replace(day=1, hour=0, minute=0, second=0)
    assert buckets.floor(instant, Period.MONTH) == (month - _EPOCH) // timedelta(seconds=1)
    day = moment.replace(hour=0, minute=0, second=0)
    assert buckets.floor(instant, Period.DAY) == (day - _EPOCH) // timedelta(seconds=1)


@given(instant=instants)
def test_a_stamp_is_the_instant_as_the_standard_library_writes_it(instant: int):
    moment = _EPOCH + timedelta(seconds=instant)
    assert buckets.stamp(instant) == moment.strftime(f"{moment.year:04}-%m-%dT%H:%M:%S.000Z")


def test_a_stamp_has_its_milliseconds():
    assert buckets.stamp(0, 7) == "1970-01-01T00:00:00.007Z"


@given(instant=instants, period=periods, number=st.integers(min_value=-5000, max_value=5000))
def test_shifting_there_and_back_ends_where_it_began(instant: int, period: Period, number: int):
    start = buckets.floor(instant, period)
    there = buckets.shift(start, period, number)
    assert buckets.shift(there, period, -number) == start
    assert buckets.count(start, there, period) == number


@given(instant=instants, period=periods, number=st.integers(min_value=0, max_value=60))
def test_the_series_is_dense_and_its_end_is_exclusive(instant: int, period: Period, number: int):
    start = buckets.floor(instant, period)
    end = buckets.shift(start, period, number)
    assert list(buckets.each(start, end, period)) == [buckets.shift(start, period, n) for n in range(number)]


def test_months_follow_the_calendar_over_leap_days_and_years():
    months = list(buckets.each(at("2023-12-01T00:00:00Z"), at("2024-04-01T00:00:00Z"), Period.MONTH))
    assert [buckets.stamp(month)[:10] for month in months] == ["2023-12-01", "2024-01-01", "2024-02-01", "2024-03-01"]


def test_the_last_month_of_year_9999_has_an_end():
    assert buckets.ceil(at("9999-12-31T23:59:59Z"), Period.MONTH) == 253_402_300_800
