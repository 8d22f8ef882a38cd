"""The specification's own example, posted to a fresh stack, read over HTTP and in SQL (acceptance 1)."""

import subprocess
from datetime import UTC, datetime
from typing import Any

import pytest

from tests.support import needs
from tests.support.stack import Stack
from tests.support.waiting import wait_for

EXAMPLE = {
    "appName": "insurance-selector",
    "bucket": {
        "start": "1926-05-08T12:00:00.000Z",
        "stop": "1926-05-08T13:00:00.000Z",
        "toggles": {
            "myCoolToggle": {"yes": 25, "no": 42, "variants": {"blue": 6, "green": 15, "red": 46}},
            "myOtherToggle": {"yes": 0, "no": 100},
        },
    },
}
FAR = {
    "appName": "insurance-selector",
    "bucket": {
        "start": "2250-01-01T00:00:00Z",
        "stop": "2250-01-01T01:00:00Z",
        "toggles": {"farToggle": {"yes": 7, "no": 1}},
    },
}
FEATURE = "/v1/projects/default/features/myCoolToggle/results"


def ms(*moment: int) -> int:
    return int(datetime(*moment, tzinfo=UTC).timestamp() * 1000)  # type: ignore[misc,arg-type]


@pytest.fixture(scope="module")
def fed(stack: Stack) -> Stack:
    assert stack.post("/api/client/metrics", EXAMPLE).status == 202
    assert stack.post("/api/client/metrics", FAR).status == 202
    wait_for(lambda: stack.number("SELECT count() FROM evaluations") >= 3, what="the count")
    return stack


def test_up_prints_its_tokens_once_and_a_line_for_each_service(fed: Stack) -> None:
    assert set(fed.tokens) == {"backend", "frontend", "admin"}
    assert fed.tokens["backend"].startswith("default:development.")
    assert fed.tokens["admin"].startswith("*:*.")
    for service in ("gateway", "aggregator", "query", "store"):
        assert any(service in line and "http://127.0.0.1" in line for line in fed.lines), fed.lines


def test_the_features_hours(fed: Stack) -> None:
    asked = {"startDate": ms(1926, 5, 8, 11), "endDate": ms(1926, 5, 8, 14), "period": "hour"}
    points = fed.get(f"{FEATURE}/evaluations", **asked).json()["result"]["evaluations"]
    zeros = {"yes": 0, "no": 0}
    assert [point["date"] for point in points] == [f"1926-05-08T{hour}:00:00.000Z" for hour in (11, 12, 13)]
    assert [point["values"] for point in points] == [zeros, {"yes": 25, "no": 42}, zeros]
    assert [point["variants"] for point in points] == [
        {"blue": 0, "green": 0, "red": 0},
        {"blue": 6, "green": 15, "red": 46},
        {"blue": 0, "green": 0, "red": 0},
    ]


def test_the_projects_hours(fed: Stack) -> None:
    asked = {"startDate": ms(1926, 5, 8, 11), "endDate": ms(1926, 5, 8, 14), "period": "hour"}
    for name in ("evaluations", "total-evaluations"):
        points = fed.get(f"/v1/projects/default/results/{name}", **asked).json()["result"]["evaluations"]
        assert [point["value"] for point in points] == [0, 167, 0]


def test_the_summary(fed: Stack) -> None:
    asked = {"startDate": ms(1926, 5, 8, 11), "endDate": ms(1926, 5, 8, 14)}
    result = fed.get(f"{FEATURE}/summary", **asked).json()["result"]
    assert result["counts"] == {"total": 167, "withFeature": 25, "accessedFeature": 67}


@pytest.mark.parametrize(
    ("period", "start", "end", "dates"),
    [
        ("day", (1926, 5, 7), (1926, 5, 10), ["1926-05-07", "1926-05-08", "1926-05-09"]),
        ("month", (1926, 4, 1), (1926, 7, 1), ["1926-04-01", "1926-05-01", "1926-06-01"]),
    ],
)
def test_days_and_months(fed: Stack, period: str, start: Any, end: Any, dates: list[str]) -> None:
    asked = {"startDate": ms(*start), "endDate": ms(*end), "period": period}
    points = fed.get(f"{FEATURE}/evaluations", **asked).json()["result"]["evaluations"]
    assert [point["date"][:10] for point in points] == dates
    assert [point["values"]["yes"] for point in points] == [0, 25, 0]
    projects = fed.get("/v1/projects/default/results/evaluations", **asked).json()["result"]["evaluations"]
    assert [point["value"] for point in projects] == [0, 167, 0]


@pytest.mark.parametrize("period", ["hour", "day", "month"])
def test_a_flag_in_the_year_2250(fed: Stack, period: str) -> None:
    asked = {"startDate": ms(2250, 1, 1), "endDate": ms(2250, 1, 1, 1), "period": period}
    path = "/v1/projects/default/features/farToggle/results/evaluations"
    (point,) = fed.get(path, **asked).json()["result"]["evaluations"]
    assert (point["date"], point["values"]) == ("2250-01-01T00:00:00.000Z", {"yes": 7, "no": 1})


def test_plain_sql_by_curl_says_the_same(fed: Stack) -> None:
    needs.program("curl")
    query = (
        "SELECT feature, sum(yes), sum(no) FROM evaluations_hourly WHERE hour < '1930-01-01 00:00:00' "
        "AND variant = '' GROUP BY feature ORDER BY feature"
    )
    command = ["curl", "-sS", "--fail-with-body", f"{fed.store}/", "--data-binary", query]
    answer = subprocess.run(command, capture_output=True, text=True, check=False)
    assert answer.stdout == "myCoolToggle\t25\t42\nmyOtherToggle\t0\t100\n", answer


def test_control_c_ends_every_process_and_a_second_up_has_it_all(fed: Stack) -> None:
    before = fed.sql("SELECT * FROM evaluations ORDER BY ALL")
    printed = dict(fed.tokens)
    assert fed.stop() == 0
    fed.lines.clear()
    fed.start()
    assert not [line for line in fed.lines if line.startswith("token ")], "tokens are printed once"
    assert fed.sql("SELECT * FROM evaluations ORDER BY ALL") == before
    assert fed.tokens == printed
    assert fed.post("/api/client/metrics", EXAMPLE).status == 202
    wait_for(lambda: fed.number("SELECT sum(yes) FROM evaluations WHERE feature = 'myCoolToggle'") == 50)
