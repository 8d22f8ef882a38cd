"""The example of specification 001, and a flag of the year 2250, in a real store."""

import pytest

from tests.query_api.conftest import Api, row
from tests.support.store import StoreProcess

HOUR = "1926-05-08T12:00:00"
PROJECT = "/v1/projects/example/results"
FEATURE = "/v1/projects/example/features/myCoolToggle/results"
DAYTIME = {"startDate": "-1377522000000", "endDate": "-1377511200000"}  # 11:00 to 14:00
NOTHING = {"yes": 0, "no": 0}
NO_VARIANTS = {"blue": 0, "green": 0, "red": 0}
VARIANTS = {"blue": 6, "green": 15, "red": 46}


@pytest.fixture(scope="module", autouse=True)
def _example(store: StoreProcess) -> None:
    def cool(**counts: int | str) -> list[object]:
        return row("example", "myCoolToggle", HOUR, app_name="insurance-selector", **counts)  # type: ignore[arg-type]

    store.insert(
        cool(yes=25, no=42),
        *(cool(variant=name, count=count) for name, count in VARIANTS.items()),
        row("example", "myOtherToggle", HOUR, no=100, app_name="insurance-selector"),
        row("example", "farToggle", "2250-02-03T04:00:00", yes=1, no=2),
    )


@pytest.mark.parametrize("kind", ["evaluations", "total-evaluations"])
async def test_the_features_hours(api: Api, kind: str):
    answer = await api.get(f"{FEATURE}/{kind}", period="hour", **DAYTIME)
    assert answer.points == [
        {"date": "1926-05-08T11:00:00.000Z", "values": NOTHING, "variants": NO_VARIANTS},
        {"date": "1926-05-08T12:00:00.000Z", "values": {"yes": 25, "no": 42}, "variants": VARIANTS},
        {"date": "1926-05-08T13:00:00.000Z", "values": NOTHING, "variants": NO_VARIANTS},
    ]
    assert answer.value["cached"] is False
    assert set(answer.value) == {"result", "cached", "updatedAt"}


@pytest.mark.parametrize("kind", ["evaluations", "total-evaluations"])
async def test_the_projects_hours(api: Api, kind: str):
    answer = await api.get(f"{PROJECT}/{kind}", period="hour", **DAYTIME)
    assert answer.points == [
        {"date": "1926-05-08T11:00:00.000Z", "value": 0},
        {"date": "1926-05-08T12:00:00.000Z", "value": 167},
        {"date": "1926-05-08T13:00:00.000Z", "value": 0},
    ]


@pytest.mark.parametrize("period", ["hour", "day", "month"])
async def test_the_summary(api: Api, period: str):
    answer = await api.get(f"{FEATURE}/summary", period=period, **DAYTIME)
    assert answer.result == {
        "counts": {"total": 167, "withFeature": 25, "accessedFeature": 67},
        "yes": 25,
        "no": 42,
        "variants": VARIANTS,
        "applications": ["insurance-selector"],
        "firstSeen": "1926-05-08T12:00:00.000Z",
        "lastSeen": "1926-05-08T12:00:00.000Z",
    }


@pytest.mark.parametrize(
    ("period", "first", "dates"),
    [
        ("day", "1926-05-07", ["1926-05-07", "1926-05-08", "1926-05-09"]),
        ("month", "1926-04-01", ["1926-04-01", "1926-05-01"]),
    ],
)
async def test_days_and_months(api: Api, period: str, first: str, dates: list[str]):
    asked = {"startDate": first, "endDate": "1926-05-09T00:00:00.001Z", "period": period}
    of_feature = (await api.get(f"{FEATURE}/evaluations", **asked)).points
    of_project = (await api.get(f"{PROJECT}/evaluations", **asked)).points
    assert [point["date"] for point in of_feature] == [f"{date}T00:00:00.000Z" for date in dates]
    assert [point["values"] for point in of_feature][:2] == [NOTHING, {"yes": 25, "no": 42}]
    assert [point["variants"] for point in of_feature][:2] == [NO_VARIANTS, VARIANTS]
    assert [point["value"] for point in of_project] == [0, 167, 0][: len(dates)]


async def test_by_variation(api: Api):
    answer = await api.get(f"{FEATURE}/evaluations", by="variation", **DAYTIME)
    assert [point["values"] for point in answer.points] == [
        {**NO_VARIANTS, "(none)": 0},
        {**VARIANTS, "(none)": 0},
        {**NO_VARIANTS, "(none)": 0},
    ]


@pytest.mark.parametrize("period", ["hour", "day", "month"])
async def test_a_flag_of_the_year_2250(api: Api, period: str):
    asked = {"startDate": "2250-02-03T04:00:00Z", "endDate": "2250-02-03T05:00:00Z", "period": period}
    path = "/v1/projects/example/features/farToggle/results"
    (point,) = (await api.get(f"{path}/evaluations", **asked)).points
    start = {"hour": "2250-02-03T04", "day": "2250-02-03T00", "month": "2250-02-01T00"}[period]
    assert point == {"date": f"{start}:00:00.000Z", "values": {"yes": 1, "no": 2}, "variants": {}}
    summary = (await api.get(f"{path}/summary", **asked)).result
    assert summary["counts"] == {"total": 3, "withFeature": 1, "accessedFeature": 3}
    assert summary["firstSeen"] == "2250-02-03T04:00:00.000Z"


async def test_centuries_at_once_by_month(api: Api):
    asked = {"startDate": "1700-01-01", "endDate": "2400-01-01", "period": "month"}
    points = (await api.get(f"{PROJECT}/evaluations", **asked)).points
    assert len(points) == 8400
    assert {point["date"]: point["value"] for point in points if point["value"]} == {
        "1926-05-01T00:00:00.000Z": 167,
        "2250-02-01T00:00:00.000Z": 3,
    }
