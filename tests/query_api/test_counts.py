"""What is counted in a real store: scopes and filters, unmerged parts, markers, protocols, names of every kind."""

from urllib.parse import quote

import pytest

from schemas.limits import MAX_COUNT
from tests.query_api.conftest import Api, row
from tests.support.store import StoreProcess

HOUR = "2026-11-22T10:00:00"
ASKED = {"startDate": "2026-11-22T10:00:00Z", "endDate": "2026-11-22T11:00:00Z"}
DAY = {"startDate": "2026-11-22", "endDate": "2026-11-23", "period": "day"}


async def value(api: Api, project: str, **query: str) -> int:
    (point,) = (await api.get(f"/v1/projects/{project}/results/evaluations", **(ASKED | query))).points
    found = point["value"]
    assert isinstance(found, int)
    return found


async def values(api: Api, project: str, feature: str, **query: str) -> dict[str, int]:
    path = f"/v1/projects/{project}/features/{quote(feature, safe='')}/results/evaluations"
    (point,) = (await api.get(path, **(ASKED | query))).points
    found = point["values"]
    assert isinstance(found, dict)
    return found


@pytest.mark.parametrize(
    ("query", "yes"),
    [
        ({}, 31),
        ({"environment": "development"}, 29),
        ({"environment": "production"}, 2),
        ({"platform": "Python"}, 4),
        ({"sdkType": "client"}, 8),
        ({"sdkType": "mobile"}, 0),
        ({"variable": "flag"}, 15),
        ({"variable": "other"}, 16),
        ({"environment": "development", "platform": "Python", "variable": "flag", "sdkType": "server"}, 4),
        ({"environment": "nowhere"}, 0),
        ({"platform": "nothing"}, 0),
        ({"variable": "nobody"}, 0),
        ({"variable": "flag' OR '1'='1"}, 0),
    ],
)
async def test_filters_narrow_the_counts(api: Api, store: StoreProcess, query: dict[str, str], yes: int):
    project = "filters"
    if not _inserted(project):
        store.insert(
            row(project, "flag", HOUR, yes=1),
            row(project, "flag", HOUR, yes=2, environment="production"),
            row(project, "flag", HOUR, yes=4, platform="Python"),
            row(project, "flag", HOUR, yes=8, sdk_type="client"),
            row(project, "flag", HOUR, yes=16, variable="other"),
        )
    assert await values(api, project, "flag", **query) == {"yes": yes, "no": 0}
    assert await value(api, project, **query) == yes
    summary = (await api.get(f"/v1/projects/{project}/features/flag/results/summary", **ASKED, **query)).result
    assert (summary["yes"], summary["counts"]["accessedFeature"]) == (yes, yes)
    everything = {name: text for name, text in query.items() if name != "variable"}
    assert summary["counts"]["total"] == await value(api, project, **everything)


_seen: set[str] = set()


def _inserted(project: str) -> bool:
    """Say whether this was asked before; a project's rows are inserted once for all cases of a test."""
    before = project in _seen
    _seen.add(project)
    return before


async def test_parts_are_summed_before_and_after_they_are_merged(api: Api, store: StoreProcess):
    for _ in range(5):
        store.insert(row("parts", "flag", HOUR, yes=1, no=2), row("parts", "flag", HOUR, variant="a", count=3))

    async def check() -> None:
        for asked in (ASKED, DAY):
            assert await values(api, "parts", "flag", **asked) == {"yes": 5, "no": 10}
            assert await value(api, "parts", **asked) == 15
        summary = (await api.get("/v1/projects/parts/features/flag/results/summary", **ASKED)).result
        assert summary["counts"] == {"total": 15, "withFeature": 5, "accessedFeature": 15}
        assert summary["variants"] == {"a": 15}

    await check()
    client = store.client()
    client.command("OPTIMIZE TABLE evaluations_hourly FINAL")
    client.close()
    await check()


async def test_batch_markers_are_never_seen(api: Api, store: StoreProcess):
    marker = row("__batch__", "0", HOUR, environment="topic", variable="1", variant="2", count=1, source="")
    store.insert(marker, row("marked", "flag", HOUR, yes=1))
    for path in ("__batch__/results/evaluations", "__batch__/features/0/results/evaluations"):
        assert (await api.get(f"/v1/projects/{path}", **ASKED)).status == 404
    assert await value(api, "marked") == 1


async def test_one_project_never_sees_anothers_counts(api: Api, store: StoreProcess):
    store.insert(
        row("ours", "flag", HOUR, yes=1), row("theirs", "flag", HOUR, yes=2), row("theirs", "own", HOUR, yes=4)
    )
    assert (await value(api, "ours"), await value(api, "theirs")) == (1, 6)
    assert await values(api, "ours", "flag") == {"yes": 1, "no": 0}
    answer = await api.get("/v1/projects/ours/features/own/results/evaluations", **ASKED)
    assert (answer.status, answer.value["message"]) == (404, "Item with key 'own' not found")


async def test_the_end_is_exclusive_and_hours_around_are_not_counted(api: Api, store: StoreProcess):
    store.insert(*(row("edges", "flag", f"2026-11-22T{hour}:00:00", yes=1) for hour in ("09", "10", "11")))
    assert await value(api, "edges") == 1
    path = "/v1/projects/edges/results/evaluations"
    points = (await api.get(path, startDate="2026-11-22T09:59:59.999Z", endDate="2026-11-22T10:00:00.001Z")).points
    assert [point["value"] for point in points] == [1, 1]


async def test_days_and_months_hold_their_first_and_last_hour(api: Api, store: StoreProcess):
    hours = ("2024-01-31T23:00:00", "2024-02-01T00:00:00", "2024-02-29T23:00:00", "2024-03-01T00:00:00")
    store.insert(*(row("months", "flag", hour, yes=10**number) for number, hour in enumerate(hours)))
    path = "/v1/projects/months/results/evaluations"
    months = (await api.get(path, startDate="2024-01-15", endDate="2024-03-15", period="month")).points
    assert [point["value"] for point in months] == [1, 110, 1000]
    days = (await api.get(path, startDate="2024-02-29", endDate="2024-03-02", period="day")).points
    assert [(point["date"][:10], point["value"]) for point in days] == [("2024-02-29", 100), ("2024-03-01", 1000)]


async def test_the_first_and_last_hours_that_can_be_stored(api: Api, store: StoreProcess):
    store.insert(row("ends", "flag", "1900-01-01T00:00:00", yes=1), row("ends", "flag", "2299-12-31T23:00:00", yes=2))
    path = "/v1/projects/ends/results/evaluations"
    for period in ("hour", "day", "month"):
        first = (
            await api.get(path, startDate="1899-12-31T23:00:00Z", endDate="1900-01-01T01:00:00Z", period=period)
        ).points
        last = (
            await api.get(path, startDate="2299-12-31T23:00:00Z", endDate="2300-01-01T01:00:00Z", period=period)
        ).points
        assert [point["value"] for point in first] == [0, 1]
        assert [point["value"] for point in last] == [2, 0]
    nowhere = (await api.get(path, startDate="3000-01-01", endDate="3000-01-02")).points
    assert [point["value"] for point in nowhere] == [0] * 24


async def test_other_protocols_count_by_variation(api: Api, store: StoreProcess):
    def other(**given: int | str) -> list[object]:
        return row("both", "flag", HOUR, variable="var", source="devcycle", **given)  # type: ignore[arg-type]

    store.insert(
        other(count=11),
        other(variant="on", count=10),
        other(variant="defaulted", count=1),
        row("both", "flag", HOUR, yes=3, no=4),
        row("both", "flag", HOUR, variant="blue", count=5),
    )
    assert await values(api, "both", "flag") == {"yes": 3, "no": 4, "defaulted": 1, "on": 10}
    assert await values(api, "both", "flag", by="variation") == {"blue": 5, "(none)": 2, "defaulted": 1, "on": 10}
    assert await values(api, "both", "flag", variable="var") == {"yes": 0, "no": 0, "defaulted": 1, "on": 10}
    assert await value(api, "both") == 18
    summary = (await api.get("/v1/projects/both/features/flag/results/summary", **ASKED)).result
    assert summary["counts"] == {"total": 18, "withFeature": 13, "accessedFeature": 18}
    assert summary["variants"] == {"blue": 5, "defaulted": 1, "on": 10}


async def test_applications_and_hours_of_the_summary_are_those_of_the_range(api: Api, store: StoreProcess):
    store.insert(
        row("apps", "flag", "2026-11-22T10:00:00", yes=1, app_name="web"),
        row("apps", "flag", "2026-11-22T12:00:00", variant="a", count=1, app_name="api"),
        row("apps", "flag", "2026-11-22T20:00:00", yes=1, app_name="late"),
        row("apps", "other", "2026-11-22T01:00:00", yes=1, app_name="other"),
    )
    path = "/v1/projects/apps/features/flag/results/summary"
    result = (await api.get(path, startDate="2026-11-22", endDate="2026-11-22T15:00:00Z")).result
    assert result["applications"] == ["api", "web"]
    assert (result["firstSeen"], result["lastSeen"]) == ("2026-11-22T10:00:00.000Z", "2026-11-22T12:00:00.000Z")


async def test_sums_are_clamped_in_json(api: Api, store: StoreProcess):
    store.insert(
        row("huge", "flag", HOUR, yes=2**63, no=MAX_COUNT), row("huge", "flag", HOUR, variant="a", count=2**60)
    )
    assert await values(api, "huge", "flag") == {"yes": MAX_COUNT, "no": MAX_COUNT}
    assert await value(api, "huge") == MAX_COUNT


NAMES = [
    "a/b",
    "a b",
    "a+b",
    "a%2Fb",
    "100%",
    "{braces}",
    "{project:String}",
    "quote'd",
    'double"d',
    "back\\slash",
    "tab\there",
    "new\nline",
    "grün 🏁",
    "a?b#c",
    "a;b--",
    "results",
    "\\N",
    "x" * 255,
    "🏁" * 255,
]


@pytest.mark.parametrize("name", NAMES)
async def test_a_name_of_any_kind_is_found(api: Api, store: StoreProcess, name: str):
    if not _inserted("names"):
        store.insert(
            *(row("names", each, HOUR, yes=1) for each in NAMES),
            *(row("names", each, HOUR, variant=each, count=1) for each in NAMES),
            *(row(f"in {each}"[:255], each, HOUR, yes=1, environment=each, platform=each) for each in NAMES),
        )
    path = f"/v1/projects/names/features/{quote(name, safe='')}/results/evaluations"
    (point,) = (await api.get(path, **ASKED, variable=name)).points
    assert (point["values"], point["variants"]) == ({"yes": 1, "no": 0}, {name: 1})
    project = quote(f"in {name}"[:255], safe="")
    assert await value(api, project, environment=name, platform=name) == 1
    path = f"/v1/projects/{project}/features/{quote(name, safe='')}/results/summary"
    filters = {"environment": name, "platform": name, "variable": name}
    assert (await api.get(path, **ASKED, **filters)).result["yes"] == 1


async def test_a_name_with_nul_or_too_long_is_nobodys(api: Api, store: StoreProcess):
    store.insert(row("nul", "flag", HOUR, yes=1))
    assert await value(api, "nul", environment="a\0b") == 0
    assert await value(api, "nul", environment="x" * 1000) == 0
    assert (await api.get("/v1/projects/nul/features/a%00b/results/evaluations")).status == 404
    assert (await api.get(f"/v1/projects/{'x' * 300}/results/evaluations")).status == 404
