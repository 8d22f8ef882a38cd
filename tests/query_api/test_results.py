"""Which statements are asked, and when something is not found; a store that is made of lists."""

from typing import Any

import msgspec
import pytest

from query_api import parameters, results, sql
from query_api.results import NotFoundError
from query_api.sql import Statement

QUERY = parameters.read((("startDate", "0"), ("endDate", "7200000")), 0)


class Answers:
    """Answers each kind of row with a list; remembers what was asked."""

    def __init__(self, *rows: msgspec.Struct) -> None:
        self._rows = rows
        self.asked: list[type] = []

    async def rows(self, statement: Statement[Any]) -> list[Any]:
        self.asked.append(statement.row)
        return [row for row in self._rows if isinstance(row, statement.row)]


async def missing(store: Answers, *, project: str = "default", feature: str = "flag") -> str:
    with pytest.raises(NotFoundError) as refused:
        await results.feature_evaluations(store, project, feature, QUERY)
    with pytest.raises(NotFoundError):
        await results.summary(store, project, feature, QUERY)
    return refused.value.key


async def test_an_unleash_feature_with_counts_takes_one_question():
    store = Answers(sql.SeriesRow(0, "", "unleash", 1, 2, 0))
    found = await results.feature_evaluations(store, "default", "flag", QUERY)
    assert found.evaluations[0].values == {"yes": 1, "no": 2}
    assert store.asked == [sql.SeriesRow]


async def test_a_known_feature_without_counts_gives_zeros_under_its_own_keys():
    found = await results.feature_evaluations(Answers(sql.TextRow("unleash")), "default", "flag", QUERY)
    assert [point.values for point in found.evaluations] == [{"yes": 0, "no": 0}] * 2


async def test_a_feature_of_both_protocols_has_yes_and_no_where_only_the_other_counted():
    rows = [sql.SeriesRow(0, "", "devcycle", 0, 0, 3), sql.SeriesRow(0, "on", "devcycle", 0, 0, 3)]
    store = Answers(*rows, sql.TextRow("devcycle"), sql.TextRow("unleash"))
    found = await results.feature_evaluations(store, "default", "flag", QUERY)
    assert [point.values for point in found.evaluations] == [
        {"yes": 0, "no": 0, "on": 3},
        {"yes": 0, "no": 0, "on": 0},
    ]


async def test_a_feature_that_was_never_counted_is_not_found():
    assert await missing(Answers(sql.NumberRow(1), sql.TotalRow(1, 1, 1))) == "flag"


async def test_a_project_that_was_never_counted_is_not_found():
    assert await missing(Answers(sql.TotalRow(0, 0, 0))) == "default"
    with pytest.raises(NotFoundError, match="default"):
        await results.project_evaluations(Answers(), "default", QUERY)


async def test_a_known_project_without_counts_gives_zeros():
    found = await results.project_evaluations(Answers(sql.NumberRow(1)), "default", QUERY)
    assert [point.value for point in found.evaluations] == [0, 0]


async def test_a_known_feature_without_counts_has_a_summary_of_zeros():
    store = Answers(sql.TextRow("unleash"), sql.TotalRow(10, 0, 0))
    found = await results.summary(store, "default", "flag", QUERY)
    assert (found.counts.total, found.counts.accessed_feature, found.yes) == (10, 0, 0)


async def test_the_total_is_asked_after_the_feature_so_that_it_is_never_less():
    store = Answers(sql.SummaryRow("", "unleash", 1, 0, 0, 0, 0, ["app"]), sql.TotalRow(1, 0, 0))
    await results.summary(store, "default", "flag", QUERY)
    assert store.asked == [sql.SummaryRow, sql.TotalRow]


@pytest.mark.parametrize("project", ["__batch__", "__", "__other"])
async def test_reserved_projects_are_never_asked_for(project: str):
    store = Answers(sql.NumberRow(1), sql.TextRow("unleash"), sql.TotalRow(1, 1, 1), sql.ProjectRow(0, 1, 1, 1))
    assert await missing(store, project=project) == project
    with pytest.raises(NotFoundError):
        await results.project_evaluations(store, project, QUERY)
    assert store.asked == []


@pytest.mark.parametrize("name", ["a\0b", "x" * 256])
async def test_names_that_nothing_is_counted_under_are_never_asked_for(name: str):
    store = Answers(sql.NumberRow(1), sql.TextRow("unleash"), sql.TotalRow(1, 1, 1))
    await missing(store, project=name)
    await missing(store, feature=name)
    assert store.asked == []


async def test_a_large_answer_is_the_same_as_a_small_one():
    rows = [sql.SeriesRow(0, f"v{number}", "unleash", 0, 0, 1) for number in range(20_000)]
    found = await results.feature_evaluations(Answers(*rows), "default", "flag", QUERY)
    assert sum(found.evaluations[0].variants.values()) == 20_000
