"""ClickHouse over TLS, for all who speak to it: what is trusted is used, what is not is named, mending is enough."""

import uuid
from collections.abc import Iterator
from datetime import UTC, date, datetime
from pathlib import Path

import pytest

from aggregator.adapters.clickhouse import ClickHouseStore
from aggregator.ports import Block, StoreError
from deploy import migrate
from deploy.migrations import RefusedMigrationError
from query_api import sql
from query_api.store import Store, StoreAwayError
from schemas.clickhouse import ClickHouseSettings
from schemas.markers import HOME, Range, marker_key, token
from schemas.tables import EVALUATION_COLUMNS
from schemas.urls import ClickHouse
from tests.support.store import StoreProcess
from tests.support.tls import Authority, TlsFront


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture(scope="module")
def stranger(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("stranger"))


@pytest.fixture
def front(store: StoreProcess, authority: Authority) -> Iterator[TlsFront]:
    with TlsFront(authority.server("127.0.0.1"), store.port) as running:
        yield running


def server(store: StoreProcess, front: TlsFront, *, secret: str = "", **files: Path | None) -> ClickHouse:
    made = ClickHouseSettings.model_validate({f"clickhouse_{name}": file for name, file in files.items()})
    return made.clickhouse(f"https://service:{secret or store.secret}@127.0.0.1:{front.port}/flagmeter")


def reader(where: ClickHouse) -> Store:
    return Store(where, query_seconds=10, connect_seconds=5, connections=2)


def marker(topic: str, span: Range) -> Block:
    """Make a block of one row."""
    day = (datetime.now(UTC).date() - date(1970, 1, 1)).days
    key = marker_key(topic, 0, span, [HOME], day)
    row = {**key._asdict(), "received": day, "yes": 0, "no": 0, "count": 1}
    return Block(HOME, {name: [row[name]] for name in EVALUATION_COLUMNS})


async def check(store: ClickHouseStore) -> StoreError | None:
    """Give the aggregator's reason for not being ready."""
    try:
        await store.check(1)
    except StoreError as error:
        return error
    return None


async def test_all_three_work_over_tls(store: StoreProcess, front: TlsFront, authority: Authority) -> None:
    where = server(store, front, ca_file=authority.file)
    assert migrate.run(where, partitions=1, flush_seconds=1.0, wait_seconds=0) == []

    topic, span = f"topic-{uuid.uuid4().hex}", Range(0, 0)
    writing = ClickHouseStore(where, flush_seconds=1.0)
    try:
        await writing.check(1)
        await writing.insert(marker(topic, span), token(topic, 0, span))
        assert await writing.marked_tables(topic, 0, span) == {HOME}
    finally:
        await writing.close()

    reading = reader(where)
    try:
        assert await reading.faults() == []
        count = sql.Statement(
            f"SELECT count() FROM {HOME} WHERE environment = {{topic:String}}", {"topic": topic}, sql.NumberRow
        )
        assert await reading.rows(count) == [sql.NumberRow(1)]
    finally:
        await reading.close()


async def test_a_certificate_that_is_not_trusted_is_named_and_goes_on_when_the_file_is_mended(
    store: StoreProcess, front: TlsFront, authority: Authority, stranger: Authority, tmp_path: Path
) -> None:
    trusted = tmp_path / "trusted.pem"
    trusted.write_bytes(stranger.file.read_bytes())
    where = server(store, front, ca_file=trusted)
    writing, reading = ClickHouseStore(where, flush_seconds=1.0), reader(where)
    try:
        found = await check(writing)
        assert found is not None
        assert str(found).startswith("the store's certificate is not trusted: see FLAGMETER_CLICKHOUSE_CA_FILE")
        assert not found.passing
        with pytest.raises(StoreAwayError) as raised:
            await reading.rows(sql.tables_there())
        assert raised.value.reason == "the store's certificate is not trusted: see FLAGMETER_CLICKHOUSE_CA_FILE"
        with pytest.raises(RefusedMigrationError, match=r"is not trusted: see FLAGMETER_CLICKHOUSE_CA_FILE \(.*verify"):
            migrate.run(where, partitions=1, flush_seconds=1.0, pause=lambda _: pytest.fail("waited"))

        trusted.write_bytes(authority.file.read_bytes())
        assert await check(writing) is None
        assert await reading.faults() == []
        assert migrate.run(where, partitions=1, flush_seconds=1.0) == []
    finally:
        await writing.close()
        await reading.close()


async def test_a_certificate_of_another_host_is_not_trusted(store: StoreProcess, authority: Authority) -> None:
    with TlsFront(authority.server("clickhouse.example"), store.port) as other:
        where = server(store, other, ca_file=authority.file)
        writing, reading = ClickHouseStore(where, flush_seconds=1.0), reader(where)
        try:
            assert "is not trusted" in str(await check(writing))
            assert await reading.faults() == [
                "the store's certificate is not trusted: see FLAGMETER_CLICKHOUSE_CA_FILE"
            ]
            with pytest.raises(RefusedMigrationError, match="is not trusted"):
                migrate.run(where, partitions=1, flush_seconds=1.0)
        finally:
            await writing.close()
            await reading.close()


async def test_the_systems_certificates_alone_do_not_trust_it(store: StoreProcess, front: TlsFront) -> None:
    writing = ClickHouseStore(server(store, front), flush_seconds=1.0)
    try:
        assert "FLAGMETER_CLICKHOUSE_CA_FILE" in str(await check(writing))
    finally:
        await writing.close()
    with pytest.raises(RefusedMigrationError, match="FLAGMETER_CLICKHOUSE_CA_FILE"):
        migrate.run(server(store, front), partitions=1, flush_seconds=1.0)


async def test_a_wrong_password_over_tls_is_named_and_not_shown(
    store: StoreProcess, front: TlsFront, authority: Authority
) -> None:
    where = server(store, front, secret="hush-hush", ca_file=authority.file)
    writing, reading = ClickHouseStore(where, flush_seconds=1.0), reader(where)
    try:
        found = await check(writing)
        assert found is not None
        assert "refuses the user: see user and password in FLAGMETER_CLICKHOUSE_URL" in str(found)
        assert (found.code, found.passing) == (516, False)
        (reason,) = await reading.faults()
        assert "FLAGMETER_CLICKHOUSE_URL" in reason
        with pytest.raises(RefusedMigrationError, match="FLAGMETER_CLICKHOUSE_URL") as refused:
            migrate.run(where, partitions=1, flush_seconds=1.0)
        assert "hush" not in f"{found} {reason} {refused.value}"
    finally:
        await writing.close()
        await reading.close()


async def test_a_server_that_asks_for_our_certificate_gets_it(
    store: StoreProcess, authority: Authority, stranger: Authority
) -> None:
    certificate, key = stranger.client("service")
    with TlsFront(authority.server("127.0.0.1", client=stranger), store.port) as asking:
        where = server(store, asking, ca_file=authority.file, cert_file=certificate, key_file=key)
        without = server(store, asking, ca_file=authority.file)
        writing, reading = ClickHouseStore(where, flush_seconds=1.0), reader(where)
        refused = ClickHouseStore(without, flush_seconds=1.0)
        try:
            assert await check(writing) is None
            assert await reading.faults() == []
            assert migrate.run(where, partitions=1, flush_seconds=1.0) == []
            assert await check(refused) is not None
        finally:
            await writing.close()
            await reading.close()
            await refused.close()


async def test_a_store_without_tls_is_said_to_have_none(store: StoreProcess, authority: Authority) -> None:
    made = ClickHouseSettings.model_validate({"clickhouse_ca_file": authority.file})
    where = made.clickhouse(store.url.replace("http://", "https://"))
    writing, reading = ClickHouseStore(where, flush_seconds=1.0), reader(where)
    try:
        assert "the store refuses our TLS: see FLAGMETER_CLICKHOUSE_URL" in str(await check(writing))
        assert await reading.faults() == [
            "the store refuses our TLS: see FLAGMETER_CLICKHOUSE_URL and FLAGMETER_CLICKHOUSE_CERT_FILE"
        ]
        with pytest.raises(RefusedMigrationError, match="the store refuses our TLS"):
            migrate.run(where, partitions=1, flush_seconds=1.0)
    finally:
        await writing.close()
        await reading.close()
