"""The store goes away and comes back; the query API stays up and says so."""

import asyncio
import time

import pytest

from query_api import sql
from query_api.store import Store, StoreAwayError
from schemas.urls import ClickHouse, parse_clickhouse
from tests.query_api.conftest import Api, Start, row
from tests.support.ports import free_port
from tests.support.store import StoreProcess
from tests.support.waiting import until

SERIES = "/v1/projects/default/results/evaluations"
ASKED = {"startDate": "2026-11-22T10:00:00Z", "endDate": "2026-11-22T11:00:00Z"}


def connected(url: str, *, query_seconds: float = 10) -> Store:
    return Store(parse_clickhouse(url), query_seconds=query_seconds, connect_seconds=1, connections=2)


async def test_it_starts_while_the_store_is_away_and_answers_once_it_is_there(own_store: StoreProcess, start: Start):
    api = await start(f"http://service:secret@127.0.0.1:{own_store.port}/flagmeter")
    answer = await api.get(SERIES, **ASKED)
    assert (answer.status, answer.headers["Retry-After"]) == (503, "1")
    assert answer.value == {
        "statusCode": 503,
        "message": "The counts cannot be read right now: the store does not answer",
        "error": "Service Unavailable",
    }
    ready = await api.ask("/readyz", token=None)
    assert (ready.status, ready.value) == (503, {"ready": False, "reasons": ["the store does not answer"]})
    assert (await api.ask("/healthz", token=None)).status == 200


async def test_the_store_is_restarted_under_it(own_store: StoreProcess, start: Start):
    own_store.start()
    api = await start(own_store.url)
    assert (await reasons(api)) == ["the store has no tables yet: run `flagmeter migrate`"]
    assert (await api.get(SERIES)).status == 503
    own_store.migrate()
    own_store.insert(row("default", "flag", "2026-11-22T10:00:00", yes=5))
    assert (await reasons(api)) == []
    assert (await api.get(SERIES, **ASKED)).points[0]["value"] == 5
    for kill in (False, True):
        (own_store.kill if kill else own_store.stop)()
        began = time.monotonic()
        away = await api.get(SERIES, **ASKED)
        assert away.status == 503
        assert time.monotonic() - began < 5
        assert (await reasons(api)) == ["the store does not answer"]
        own_store.start()

        async def back() -> bool:
            return (await api.get(SERIES, **ASKED)).status == 200

        await until(back)
        assert (await api.get(SERIES, **ASKED)).points[0]["value"] == 5


async def reasons(api: Api) -> list[str]:
    found = await api.ask("/readyz", token=None)
    assert found.status == (503 if found.value["reasons"] else 200)
    listed: list[str] = found.value["reasons"]
    return listed


async def test_a_wrong_password_is_a_reason_and_shows_no_secret(store: StoreProcess, start: Start):
    api = await start(f"http://service:hush-hush@127.0.0.1:{store.port}/flagmeter")
    assert await reasons(api) == ["the store refuses this service: check the user in FLAGMETER_CLICKHOUSE_URL"]
    answer = await api.get(SERIES)
    assert answer.status == 503
    assert b"hush" not in answer.body


async def test_a_store_that_accepts_and_never_answers_is_503_in_time(start: Start):
    async def silent(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            writer.close()

    port = free_port()
    server = await asyncio.start_server(silent, "127.0.0.1", port)
    try:
        api = await start(f"http://127.0.0.1:{port}/flagmeter", query_timeout_seconds=0.3)
        began = time.monotonic()
        answers = await asyncio.gather(*(api.get(f"/v1/projects/p{n}/results/evaluations") for n in range(10)))
        assert {answer.status for answer in answers} == {503}
        assert time.monotonic() - began < 5
        assert "did not answer within 0.3 seconds" in answers[0].value["message"]
    finally:
        server.close()


async def test_a_query_that_takes_too_long_ends_in_time(store: StoreProcess):
    client = connected(store.url, query_seconds=0.5)
    slow = sql.Statement("SELECT count() FROM numbers(1000000000000) WHERE sipHash64(number) = 1", {}, sql.NumberRow)
    try:
        began = time.monotonic()
        with pytest.raises(StoreAwayError, match=r"within 0\.5 seconds|error 159"):
            await client.rows(slow)
        assert time.monotonic() - began < 3
        assert await client.faults() == []
    finally:
        await client.close()


async def test_an_error_of_the_server_names_its_code_and_not_the_statement(store: StoreProcess):
    client = connected(store.url)
    try:
        with pytest.raises(StoreAwayError) as raised:
            await client.rows(sql.Statement("SELECT throwIf(1, 'hidden')", {}, sql.NumberRow))
        assert raised.value.reason == "the store answered with error 395"
    finally:
        await client.close()


async def test_rows_of_another_shape_are_an_error(store: StoreProcess):
    client = connected(store.url)
    try:
        with pytest.raises(StoreAwayError, match="could not be read"):
            await client.rows(sql.Statement("SELECT 'text'", {}, sql.NumberRow))
    finally:
        await client.close()


async def test_quoted_numbers_are_read_like_plain_ones(store: StoreProcess):
    client = connected(store.url)
    try:
        assert await client.rows(sql.Statement("SELECT '18446744073709551615'", {}, sql.NumberRow)) == [
            sql.NumberRow(2**64 - 1)
        ]
    finally:
        await client.close()


async def test_many_questions_at_once_share_the_connections(store: StoreProcess, start: Start):
    api = await start(store.url, query_connections=2)
    store.insert(*(row(f"many{number}", "flag", "2026-11-22T10:00:00", yes=number) for number in range(1, 41)))
    answers = await asyncio.gather(
        *(api.get(f"/v1/projects/many{number}/results/evaluations", **ASKED) for number in range(1, 41))
    )
    assert [answer.points[0]["value"] for answer in answers] == list(range(1, 41))


async def test_closing_while_it_connects_leaves_nothing_behind():
    client = Store(
        ClickHouse(secure=False, host="127.0.0.1", port=free_port(), database="flagmeter"),
        query_seconds=5,
        connect_seconds=5,
        connections=1,
    )
    asking = asyncio.create_task(client.rows(sql.tables_there()))
    await asyncio.sleep(0)
    await client.close()
    with pytest.raises((StoreAwayError, asyncio.CancelledError)):
        await asking
