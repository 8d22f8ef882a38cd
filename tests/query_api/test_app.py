"""The HTTP side: tokens, errors in one shape, cache, conditional requests, origins, and the service's own routes."""

import asyncio
import gzip
import re
from typing import Any

import msgspec
import pytest

from query_api.app import Clock
from tests.query_api.conftest import ADMIN, BACKEND, SHOP_ADMIN, Api, Start, row
from tests.support.store import StoreProcess

SERIES = "/v1/projects/web/results/evaluations"
FEATURE = "/v1/projects/web/features/flag/results/evaluations"
SUMMARY = "/v1/projects/web/features/flag/results/summary"
ALL = [SERIES, FEATURE, SUMMARY, SERIES.replace("eval", "total-eval"), FEATURE.replace("results/", "results/total-")]
ASKED = {"startDate": "2026-11-22T10:00:00Z", "endDate": "2026-11-22T11:00:00Z"}
NOBODY = "*:*.00000000000000000000000000000009"


@pytest.fixture(scope="module", autouse=True)
def _counted(store: StoreProcess) -> None:
    hour = "2026-11-22T10:00:00"
    store.insert(row("web", "flag", hour, yes=1, no=2), row("shop", "flag", hour, yes=3))


class Hands:
    """A clock that the test moves."""

    def __init__(self) -> None:
        self.now = 1_795_342_830.5  # 2026-11-22T10:20:30.500Z

    def __call__(self) -> float:
        return self.now

    def clock(self) -> Clock:
        return Clock(wall=self, monotonic=self)


# Tokens ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ALL)
async def test_every_result_is_for_admin_tokens_alone(api: Api, path: str):
    for token, status in ((None, 401), (NOBODY, 401), (BACKEND, 403), (ADMIN, 200), (f"Bearer {ADMIN}", 200)):
        answer = await api.ask(path, ASKED.items(), token=token)
        assert answer.status == status
        assert b"0000000" not in answer.body


async def test_401_has_the_shape_of_the_reference(api: Api):
    answer = await api.ask(SERIES, token=None)
    assert answer.value == {"statusCode": 401, "message": "Unauthorized"}
    assert answer.headers["WWW-Authenticate"] == "Bearer"


async def test_403_has_the_familys_shape(api: Api):
    answer = await api.ask(SERIES, token=BACKEND)
    assert answer.value == {"statusCode": 403, "message": "Only admin tokens may read results", "error": "Forbidden"}


async def test_a_token_of_some_projects_sees_those_and_no_others(api: Api):
    def path(project: str) -> str:
        return f"/v1/projects/{project}/results/evaluations"

    own = await api.ask(path("shop"), ASKED.items(), token=SHOP_ADMIN)
    assert [point["value"] for point in own.points] == [3]
    other = await api.ask(path("web"), ASKED.items(), token=SHOP_ADMIN)
    missing = await api.ask(path("nowhere"), ASKED.items(), token=SHOP_ADMIN)
    assert other.status == missing.status == 404
    assert other.value == {"statusCode": 404, "message": "Item with key 'web' not found", "error": "Not Found"}


async def test_what_one_token_made_the_cache_keep_another_does_not_see(store: StoreProcess, start: Start):
    api = await start(store.url, cache_seconds=60)
    assert (await api.get(SERIES, **ASKED)).status == 200
    assert (await api.get(SERIES, **ASKED)).value["cached"] is True
    assert (await api.ask(SERIES, ASKED.items(), token=SHOP_ADMIN)).status == 404
    assert (await api.ask(SERIES, ASKED.items(), token=BACKEND)).status == 403


# Errors ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ALL)
async def test_400_lists_every_message(api: Api, path: str):
    query = [("period", "week"), ("sdkType", "edge"), ("startDate", "x"), ("environment", "a"), ("environment", "b")]
    answer = await api.ask(path, query)
    assert answer.status == 400
    assert answer.value == {
        "statusCode": 400,
        "message": [
            "environment must be given only once",
            "period must be one of the following values: hour, day, month",
            "sdkType must be one of the following values: server, client, mobile, api",
            "startDate must be milliseconds since the epoch or an ISO 8601 date",
        ],
        "error": "Bad Request",
    }


async def test_by_means_something_for_a_features_series_alone(api: Api):
    assert (await api.get(FEATURE, by="variation")).status == 200
    for path in (SERIES, SUMMARY):
        answer = await api.get(path, by="variation")
        assert answer.value["message"] == ["property by should not exist"]


async def test_an_answer_that_would_be_too_large_is_400(api: Api, store: StoreProcess):
    hour = "2026-11-22T10:00:00"
    store.insert(*(row("large", "flag", hour, variant=f"v{number}", count=1) for number in range(60)))
    path = "/v1/projects/large/features/flag/results/evaluations"
    answer = await api.get(path, startDate="2026-01-01", endDate="2027-01-01")
    assert answer.status == 400
    assert "shorter range" in answer.value["message"][0]
    assert (await api.get(path, startDate="2026-11-01", endDate="2026-12-01")).status == 200


@pytest.mark.parametrize(
    ("path", "key"),
    [
        ("/v1/projects/nowhere/results/evaluations", "nowhere"),
        ("/v1/projects/nowhere/features/flag/results/evaluations", "nowhere"),
        ("/v1/projects/web/features/nothing/results/evaluations", "nothing"),
        ("/v1/projects/web/features/nothing/results/summary", "nothing"),
    ],
)
async def test_what_was_never_counted_is_404(api: Api, path: str, key: str):
    answer = await api.get(path)
    assert answer.status == 404
    assert answer.value == {"statusCode": 404, "message": f"Item with key '{key}' not found", "error": "Not Found"}


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/"),
        ("GET", "/v1/projects/web/results"),
        ("GET", "/v1/projects//results/evaluations"),
        ("GET", "/v2/projects/web/results/evaluations"),
        ("PUT", "/nowhere"),
        ("POST", SERIES),
        ("DELETE", FEATURE),
        ("OPTIONS", SUMMARY),
    ],
)
async def test_what_is_not_served_is_404_in_the_familys_shape(api: Api, method: str, path: str):
    answer = await api.ask(path, method=method)
    assert answer.value == {"statusCode": 404, "message": f"Cannot {method} {path}", "error": "Not Found"}
    assert answer.status == 404


@pytest.mark.parametrize("path", ["/healthz", "/readyz", "/metrics"])
async def test_a_wrong_method_on_the_services_own_routes_is_405(api: Api, path: str):
    answer = await api.ask(path, method="POST")
    assert (answer.status, answer.headers["Allow"]) == (405, "GET, HEAD")
    assert answer.value["error"] == "Method Not Allowed"


async def test_what_nobody_expected_is_500_and_says_nothing(api: Api, monkeypatch: pytest.MonkeyPatch):
    async def broken(*_: Any) -> None:
        raise RuntimeError("secret detail")

    monkeypatch.setattr("query_api.store.Store.rows", broken)
    answer = await api.get(SERIES)
    assert answer.value == {
        "statusCode": 500,
        "message": "Internal Server Error",
        "error": "Internal Server Error",
    }


# Answers --------------------------------------------------------------------------------------------------------------


async def test_the_default_range_ends_with_the_running_hour(store: StoreProcess, start: Start):
    api = await start(store.url, clock=Hands().clock())
    answer = await api.get(SERIES)
    assert len(answer.points) == 24
    assert answer.points[-1] == {"date": "2026-11-22T10:00:00.000Z", "value": 3}
    assert answer.value["updatedAt"] == "2026-11-22T10:20:30.500Z"


async def test_an_answer_comes_from_the_cache_until_it_is_too_old(store: StoreProcess, start: Start):
    hands = Hands()
    api = await start(store.url, clock=hands.clock(), cache_seconds=2)
    store.insert(row("fresh", "flag", "2026-11-22T10:00:00", yes=1))
    path = "/v1/projects/fresh/results/evaluations"
    first = await api.get(path, **ASKED)
    store.insert(row("fresh", "flag", "2026-11-22T10:00:00", yes=1))
    hands.now += 1.5
    again = await api.get(path, **ASKED)
    same = await api.get(path.replace("evaluations", "total-evaluations"), **ASKED)
    assert [answer.value["cached"] for answer in (first, again, same)] == [False, True, True]
    assert {answer.value["updatedAt"] for answer in (first, again)} == {"2026-11-22T10:20:30.500Z"}
    assert again.result == first.result == {"evaluations": [{"date": "2026-11-22T10:00:00.000Z", "value": 1}]}
    hands.now += 0.5
    later = await api.get(path, **ASKED)
    assert (later.points[0]["value"], later.value["cached"]) == (2, False)
    assert later.value["updatedAt"] == "2026-11-22T10:20:32.500Z"


async def test_errors_are_not_kept(store: StoreProcess, start: Start):
    api = await start(store.url, cache_seconds=60)
    path = "/v1/projects/soon/results/evaluations"
    assert (await api.get(path, **ASKED)).status == 404
    store.insert(row("soon", "flag", "2026-11-22T10:00:00", yes=1))
    assert (await api.get(path, **ASKED)).status == 200


async def test_equal_questions_at_once_are_one_execution(store: StoreProcess, start: Start):
    api = await start(store.url, cache_seconds=60)
    answers = await asyncio.gather(*(api.get(FEATURE, **ASKED) for _ in range(20)))
    assert len({answer.value["updatedAt"] for answer in answers}) == 1
    metrics = (await api.ask("/metrics", token=None)).body.decode()
    assert 'flagmeter_query_cache_total{outcome="miss"} 1.0' in metrics


@pytest.mark.parametrize("path", ALL)
async def test_head_is_get_without_the_body(api: Api, path: str):
    answer = await api.ask(path, ASKED.items(), method="HEAD")
    full = await api.get(path, **ASKED)
    assert (answer.status, answer.body) == (200, b"")
    assert answer.headers["ETag"] == full.headers["ETag"]
    assert answer.headers["Content-Type"] == full.headers["Content-Type"]
    assert int(answer.headers["Content-Length"]) == len(full.body)


@pytest.mark.parametrize("method", ["GET", "HEAD"])
async def test_an_unchanged_result_is_304_for_those_who_have_it(api: Api, method: str):
    etag = (await api.get(SERIES, **ASKED)).headers["ETag"]
    assert etag.startswith('W/"')
    answer = await api.ask(SERIES, ASKED.items(), method=method, headers={"If-None-Match": etag})
    assert (answer.status, answer.body, answer.headers["ETag"]) == (304, b"", etag)


async def test_304_needs_the_token_all_the_same(api: Api):
    answer = await api.ask(SERIES, token=None, headers={"If-None-Match": "*"})
    assert answer.status == 401


async def test_a_changed_result_has_another_tag(api: Api, store: StoreProcess):
    path = "/v1/projects/changing/results/evaluations"
    store.insert(row("changing", "flag", "2026-11-22T10:00:00", yes=1))
    etag = (await api.get(path, **ASKED)).headers["ETag"]
    store.insert(row("changing", "flag", "2026-11-22T10:00:00", yes=1))
    answer = await api.ask(path, ASKED.items(), headers={"If-None-Match": etag})
    assert [point["value"] for point in answer.points] == [2]


async def test_large_answers_are_compressed(api: Api):
    url = api.client.make_url(SERIES)
    headers = {"Authorization": ADMIN, "Accept-Encoding": "gzip"}
    asked = {"startDate": "2026-01-01", "endDate": "2026-12-01"}
    session = api.client.session
    async with session.get(url, params=asked, headers=headers, auto_decompress=False) as response:  # type: ignore[call-arg]
        body = await response.read()
    assert response.headers["Content-Encoding"] == "gzip"
    assert len(msgspec.json.decode(gzip.decompress(body))["result"]["evaluations"]) == 334 * 24


# Origins --------------------------------------------------------------------------------------------------------------

ORIGIN = "https://dashboard.example"
PREFLIGHT = {"Access-Control-Request-Method": "GET", "Access-Control-Request-Headers": "authorization"}


async def test_without_origins_a_browser_is_told_nothing(api: Api):
    answer = await api.ask(SERIES, ASKED.items(), headers={"Origin": ORIGIN})
    assert answer.status == 200
    assert not [name for name in answer.headers if name.lower().startswith("access-control")]
    assert (await api.ask(SERIES, method="OPTIONS", headers={"Origin": ORIGIN, **PREFLIGHT})).status == 404


async def test_a_listed_origin_may_call(store: StoreProcess, start: Start):
    api = await start(store.url, cors_origins=f"{ORIGIN},https://other.example")
    before = await api.ask(SERIES, method="OPTIONS", token=None, headers={"Origin": ORIGIN, **PREFLIGHT})
    assert (before.status, before.headers["Access-Control-Allow-Origin"]) == (204, ORIGIN)
    assert before.headers["Access-Control-Allow-Methods"] == "GET, HEAD"
    assert "Authorization" in before.headers["Access-Control-Allow-Headers"]
    for token, status in ((ADMIN, 200), (None, 401)):
        answer = await api.ask(SERIES, ASKED.items(), token=token, headers={"Origin": ORIGIN})
        assert (answer.status, answer.headers["Access-Control-Allow-Origin"]) == (status, ORIGIN)
        assert "Origin" in answer.headers["Vary"]


@pytest.mark.parametrize("origin", ["https://dashboard.example.evil", "http://dashboard.example", "null", ""])
async def test_other_origins_may_not(store: StoreProcess, start: Start, origin: str):
    api = await start(store.url, cors_origins=ORIGIN)
    for method in ("GET", "OPTIONS"):
        answer = await api.ask(SERIES, method=method, headers={"Origin": origin, **PREFLIGHT})
        assert "Access-Control-Allow-Origin" not in answer.headers
        assert "Origin" in answer.headers["Vary"]


# The service's own routes ---------------------------------------------------------------------------------------------


async def test_it_is_alive_and_ready(api: Api):
    assert (await api.ask("/healthz", token=None)).status == 200
    ready = await api.ask("/readyz", token=None)
    assert (ready.status, ready.value) == (200, {"ready": True, "reasons": []})


async def test_metrics_name_routes_and_no_projects(api: Api):
    await api.get("/v1/projects/web/features/flag/results/summary", **ASKED)
    await api.get("/v1/projects/hidden-project/results/evaluations")
    await api.get("/nowhere/hidden-path")
    text = (await api.ask("/metrics", token=None)).body.decode()
    route = "/v1/projects/{project}/features/{feature}/results/summary"
    assert f'flagmeter_query_requests_total{{route="{route}",status="200"}} 1.0' in text
    assert 'flagmeter_query_requests_total{route="unknown",status="404"} 1.0' in text
    assert re.search(r'flagmeter_query_seconds_count\{route="/v1/projects/\{project\}/results/evaluations"\} 1.0', text)
    assert "hidden" not in text
    assert "0000000" not in text
