import re

import pytest

from query_api import sql
from query_api.buckets import Period
from query_api.parameters import Filters, Range
from query_api.sql import Statement
from schemas.limits import MAX_HOUR, MIN_HOUR

HOSTILE = "x' OR 1=1; DROP TABLE evaluations_hourly --"
ALL = Filters(HOSTILE, HOSTILE, HOSTILE, "server")


def span(period: Period = Period.HOUR, start: int = 0, end: int = 3600) -> Range:
    return Range(start, end, period)


def statements(period: Period) -> list[Statement]:
    return [
        sql.feature_series(HOSTILE, HOSTILE, ALL, span(period)),
        sql.project_series(HOSTILE, ALL, span(period)),
        sql.feature_summary(HOSTILE, HOSTILE, ALL, span(period)),
        sql.project_total(HOSTILE, ALL, span(period)),
        sql.sources(HOSTILE, HOSTILE),
        sql.project_seen(HOSTILE),
        sql.tables_there(),
    ]


@pytest.mark.parametrize("period", Period)
def test_no_value_stands_in_a_text_and_every_placeholder_has_one(period: Period):
    for statement in statements(period):
        assert HOSTILE not in statement.text
        assert set(re.findall(r"\{(\w+):", statement.text)) == set(statement.parameters)


@pytest.mark.parametrize("period", Period)
def test_no_function_touches_hours_that_would_wrap_1926(period: Period):
    for statement in statements(period):
        assert not re.search(r"\btoDate\b|\btoDateTime\b|\btoStartOf|\btoUnixTimestamp\b", statement.text)


def test_conditions_follow_the_primary_key():
    text = sql.feature_series("p", "f", ALL, span()).text
    names = re.findall(r"(\w+) = \{", text)
    assert names == ["project", "environment", "feature", "variable", "platform", "sdk_type"]


def test_a_filter_that_is_not_given_is_no_condition():
    statement = sql.feature_series("p", "f", Filters(), span())
    assert set(statement.parameters) == {"project", "feature", "start", "end"}


def test_days_and_months_ask_the_daily_projection_in_where_too():
    for period in (Period.DAY, Period.MONTH):
        text = sql.feature_series("p", "f", Filters(), span(period)).text
        assert text.count("date_trunc('day', hour)") == 3
        assert re.search(r"date_trunc\('day', hour\) >= .* AND date_trunc\('day', hour\) < ", text)


def test_the_total_is_of_the_whole_project_whatever_the_variable():
    statement = sql.project_total("p", Filters("e", "Python", "v", "server"), span())
    assert set(statement.parameters) == {"project", "environment", "platform", "sdk_type", "start", "end"}


@pytest.mark.parametrize(
    ("bound", "expected"),
    [
        (-62_135_596_800, MIN_HOUR),
        (MIN_HOUR - 1, MIN_HOUR),
        (-1, -1),
        (MAX_HOUR + 3600, MAX_HOUR + 3599),
        (253_402_300_800, MAX_HOUR + 3599),
    ],
)
def test_bounds_are_kept_within_what_the_column_holds(bound: int, expected: int):
    assert sql.project_series("p", Filters(), span(start=bound, end=bound)).parameters["start"] == expected
    assert sql.project_series("p", Filters(), span(start=bound, end=bound)).parameters["end"] == expected
