"""What people point at a ClickHouse works unchanged: clickhouse-connect, sync and async, and curl."""

import asyncio
import datetime as dt
import gzip
import subprocess

import clickhouse_connect
import pytest
from clickhouse_connect.driver.client import Client
from clickhouse_connect.driver.exceptions import DatabaseError, StreamFailureError

from tests.support import needs
from tests.support.store import StoreProcess

SETTINGS = {"async_insert": 0, "deduplicate_insert": "enable", "wait_end_of_query": 1}
NAMES = ["hour", "feature", "labels", "yes", "ratio", "tags"]
HOUR = dt.datetime(1926, 12, 31, 23, tzinfo=dt.UTC)
ROWS = [
    [HOUR, "a;\n'\\\x00\u4e2d", {"k": "v"}, 2**64 - 1, None, ["x", "y"]],
    [HOUR + dt.timedelta(hours=1), "", {}, 0, -1.5, []],
]


@pytest.fixture(scope="module")
def client(store: StoreProcess) -> Client:
    made = clickhouse_connect.get_client(
        host="127.0.0.1", port=store.port, username="service", password=store.secret, database="flagmeter"
    )
    made.command(
        "CREATE TABLE IF NOT EXISTS clients (hour DateTime64(0, 'UTC'), feature LowCardinality(String), "
        "labels Map(String, String), yes UInt64, ratio Nullable(Float64), tags Array(String)) "
        "ENGINE = MergeTree ORDER BY hour SETTINGS non_replicated_deduplication_window = 100"
    )
    return made


def test_the_sync_client_inserts_once_and_reads_back(client: Client) -> None:
    client.command("TRUNCATE TABLE clients")
    for _ in range(2):
        summary = client.insert("clients", ROWS, NAMES, settings={**SETTINGS, "insert_deduplication_token": "sync"})
        assert summary.written_rows == 2
    found = client.query("SELECT * FROM clients ORDER BY hour")
    assert found.column_names == tuple(NAMES)
    assert [row[1:] for row in found.result_rows] == [tuple(row[1:]) for row in ROWS]
    assert [row[0].replace(tzinfo=dt.UTC) for row in found.result_rows] == [row[0] for row in ROWS]


def test_the_client_binds_parameters_and_lists_settings(client: Client) -> None:
    asked = "SELECT {text:String}, {list:Array(Int32)}, {time:DateTime}"
    given = {"text": "it's \\ \t\n 'x'", "list": [1, -2], "time": dt.datetime(2024, 2, 29, 1, 2, 3)}  # noqa: DTZ001 - the client gives naive ones back
    assert client.query(asked, parameters=given).result_rows == [tuple(given.values())]
    assert client.query("SELECT %(text)s", parameters={"text": given["text"]}).result_rows == [(given["text"],)]
    assert len(client.server_settings) > 1000
    assert client.query("SELECT 1 AS a WHERE 0").result_rows == []
    assert client.query("SELECT 1 AS a LIMIT 0").column_names == ("a",)
    assert client.ping()


def test_the_client_streams(client: Client) -> None:
    with client.query_rows_stream("SELECT number FROM numbers(500000)") as rows:
        assert sum(1 for _ in rows) == 500_000
    with (
        pytest.raises(StreamFailureError, match="395"),
        client.query_rows_stream("SELECT throwIf(number = 900000) FROM numbers(1000000)") as rows,
    ):
        assert sum(1 for _ in rows) < 1_000_000


def test_the_client_sends_and_takes_raw_formats(client: Client) -> None:
    client.command("TRUNCATE TABLE clients")
    line = gzip.compress(b'{"hour": "2024-01-01 00:00:00", "feature": "raw"}\n')
    client.raw_insert("clients", insert_block=line, fmt="JSONEachRow", compression="gzip")
    assert client.raw_query("SELECT feature FROM clients", fmt="CSV") == b'"raw"\n'
    assert client.query_arrow("SELECT number FROM numbers(3)").num_rows == 3
    assert client.command("SELECT count() FROM clients") == 1


def test_the_client_raises_the_servers_error(client: Client) -> None:
    with pytest.raises(DatabaseError, match="code: 60"):
        client.query("SELECT * FROM nothing")


@pytest.mark.parametrize("compress", [False, "lz4", "zstd", "gzip"])
def test_every_compression_of_the_client_works_for_a_visitor(store: StoreProcess, compress: bool | str) -> None:
    visitor = clickhouse_connect.get_client(host="127.0.0.1", port=store.port, compress=compress)
    assert visitor.query("SELECT sum(number) FROM numbers(1000)").result_rows == [(499500,)]
    assert len(visitor.query("SELECT number FROM numbers(300000)").result_rows) == 300_000
    with pytest.raises(DatabaseError, match="code: 164"):
        visitor.command("CREATE TABLE x (a UInt8) ENGINE = Memory")
    visitor.close()


async def test_the_async_client_inserts_and_reads_side_by_side(store: StoreProcess, client: Client) -> None:
    client.command("TRUNCATE TABLE clients")
    made = await clickhouse_connect.get_async_client(
        host="127.0.0.1", port=store.port, username="service", password=store.secret, database="flagmeter"
    )
    async with made:
        await asyncio.gather(
            *(
                made.insert(
                    "clients", ROWS, NAMES, settings={**SETTINGS, "insert_deduplication_token": f"async{n % 3}"}
                )
                for n in range(9)
            )
        )
        assert (await made.query("SELECT count() FROM clients")).result_rows == [(6,)]
        with pytest.raises(DatabaseError, match="code: 62"):
            await made.query("SELECT )")


def test_curl_works(store: StoreProcess) -> None:
    needs.program("curl")

    def run(*arguments: str, data: str = "") -> str:
        command = ["curl", "-sS", "--fail-with-body", *arguments]
        return subprocess.run(command, input=data, capture_output=True, text=True, check=False, timeout=60).stdout

    url = f"http://127.0.0.1:{store.port}/"
    assert run(url + "?query=SELECT%201") == "1\n"
    assert run(url, "-d", "SELECT 1 FORMAT JSONEachRow") == '{"1":1}\n'
    assert run(url, "--compressed", "-H", "Accept-Encoding: gzip", "-d", "SELECT 2") == "2\n"
    own = f"http://service:{store.secret}@127.0.0.1:{store.port}/"
    run(own, "-d", "CREATE TABLE IF NOT EXISTS curl (a UInt8, b String) ENGINE = MergeTree ORDER BY a")
    run(own + "?query=INSERT%20INTO%20curl%20FORMAT%20CSV", "-X", "POST", "--data-binary", "@-", data="1,x\n2,y\n")
    assert run(url, "-d", "SELECT * FROM curl ORDER BY a") == "1\tx\n2\ty\n"
    run(own + "?query=INSERT%20INTO%20curl%20FORMAT%20CSV", "-T", "-", "-X", "POST", data="3,z\n")  # chunked
    assert run(url, "-d", "SELECT count() FROM curl") == "3\n"
