"""A client that we had no part in, and that shares no code with clickhouse-connect: aiochclient, over plain HTTP."""

import datetime as dt
from collections.abc import AsyncIterator
from typing import Any

import pytest

from tests.support import needs
from tests.support.store import StoreProcess, fresh_token

aiochclient = needs.module("aiochclient")
ChClient, ChClientError = aiochclient.ChClient, aiochclient.ChClientError

SETTINGS = {"async_insert": 0, "deduplicate_insert": "enable", "wait_end_of_query": 1}
DAY = dt.date(2026, 11, 22)
ROWS = [
    (DAY, "a;\n'\\\t\u4e2d", 2**64 - 1, None, ["x", "it's"]),
    (DAY + dt.timedelta(days=1), "", 0, -1.5, []),
]


@pytest.fixture(params=[False, True], ids=["plain", "compressed"])
async def visitor(request: pytest.FixtureRequest, store: StoreProcess) -> AsyncIterator[Any]:
    async with ChClient(url=f"{store.front}/", database="flagmeter", compress_response=request.param) as client:
        yield client


@pytest.fixture
async def service(store: StoreProcess) -> AsyncIterator[Any]:
    """As our services: its settings are parameters of the URL, its credentials are headers."""
    async with ChClient(
        url=f"{store.front}/",
        user="service",
        password=store.secret,
        database="flagmeter",
        insert_deduplication_token=fresh_token(),
        **SETTINGS,
    ) as client:
        yield client


@pytest.fixture(scope="module")
def table(store: StoreProcess) -> str:
    # Not LowCardinality(String): this client takes its escapes off twice, and a backslash is lost on its side.
    made = store.service(
        "CREATE TABLE other_clients (day Date, feature String, yes UInt64, ratio Nullable(Float64), "
        "tags Array(String)) ENGINE = MergeTree ORDER BY day SETTINGS non_replicated_deduplication_window = 100"
    )
    assert made.status == 200, made.text
    return "other_clients"


async def test_a_visitor_reads_typed_values(visitor: Any) -> None:
    assert await visitor.is_alive()
    found = await visitor.fetchrow(
        "SELECT toUInt64(18446744073709551615) AS large, 'it''s \\\\ \\t\\n' AS text, ['a', 'b'] AS list, "
        "toDate('2026-11-22') AS day, toDateTime('2026-11-22 10:00:00', 'UTC') AS moment, NULL::Nullable(Int8) AS none"
    )
    assert found is not None
    assert dict(found) == {
        "large": 2**64 - 1,
        "text": "it's \\ \t\n",
        "list": ["a", "b"],
        "day": DAY,
        "moment": dt.datetime(2026, 11, 22, 10),  # noqa: DTZ001 - the client gives naive ones
        "none": None,
    }
    assert await visitor.fetch("SELECT 1 AS a WHERE 0") == []


async def test_a_visitor_reads_with_parameters(visitor: Any, store: StoreProcess) -> None:
    """Its own are written into the query's text by the client; a server's are parameters of the URL."""
    text = "it's \\ \t\n {x}"
    asked = "SELECT {text} AS text, {number} + 1 AS number, {day} AS day"
    found = await visitor.fetchrow(asked, params={"text": text, "number": 41, "day": DAY})
    assert found is not None
    assert (found["text"], found["number"], found["day"]) == (text, 42, DAY.isoformat())
    async with ChClient(url=f"{store.front}/", param_p="it\\'s", param_n=2**64 - 1) as bound:
        row = await bound.fetchrow("SELECT {p:String}, {n:UInt64}")
        assert row is not None
        assert tuple(row.values()) == ("it's", 2**64 - 1)


async def test_a_visitor_reads_rows_as_they_come_and_as_json(visitor: Any) -> None:
    seen = 0
    async for row in visitor.iterate("SELECT number, number * 2 AS twice FROM numbers(200000)"):
        assert row[0] * 2 == row["twice"]
        seen += 1
    assert seen == 200_000
    assert [row["a"] for row in await visitor.fetch("SELECT number AS a FROM numbers(3)", json=True)] == [0, 1, 2]


async def test_a_visitor_does_not_write(visitor: Any, table: str) -> None:
    with pytest.raises(ChClientError, match="Code: 164"):
        await visitor.execute(f"INSERT INTO {table} VALUES", ROWS[0])


async def test_the_servers_errors_are_raised(visitor: Any) -> None:
    with pytest.raises(ChClientError, match=r"^Code: 60\. DB::Exception: "):
        await visitor.fetch("SELECT * FROM nothing")


async def test_a_service_inserts_once_under_a_token_and_a_visitor_reads_it(
    service: Any, visitor: Any, table: str, store: StoreProcess
) -> None:
    assert store.service(f"TRUNCATE TABLE {table}").status == 200
    for _ in range(2):
        await service.execute(f"INSERT INTO {table} VALUES", *ROWS)
    found = await visitor.fetch(f"SELECT * FROM {table} ORDER BY day")
    assert [tuple(row.values()) for row in found] == ROWS


async def test_a_service_inserts_a_file(service: Any, visitor: Any, table: str, store: StoreProcess) -> None:
    assert store.service(f"TRUNCATE TABLE {table}").status == 200
    await service.insert_file(f"INSERT INTO {table} (day, feature) FORMAT CSV", b'2026-11-22,"a;\n"\n2026-11-23,b\n')
    assert await visitor.fetchval(f"SELECT groupArray(feature) FROM {table}") == ["a;\n", "b"]


async def test_a_wrong_password_is_refused(store: StoreProcess) -> None:
    async with ChClient(url=f"{store.front}/", user="service", password="wrong") as client:
        assert not await client.is_alive()
        with pytest.raises(ChClientError, match="Code: 516"):
            await client.fetch("SELECT 1")
