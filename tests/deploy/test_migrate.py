"""Migrations on the real engine, and what the tables made by them do."""

import re
import threading
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta

import clickhouse_connect
import pytest

from deploy import migrate, migrations
from deploy.migrations import Migration, RefusedMigrationError
from schemas import insert, markers
from schemas.limits import MARKER_DAYS
from schemas.markers import Range
from schemas.tables import EVALUATION_COLUMNS, EVALUATIONS, REJECTED, REJECTED_COLUMNS, EvaluationKey
from tests.support.store import fresh_token

TODAY = datetime.now(UTC).date()
DAY = (TODAY - date(1970, 1, 1)).days
SEED_HOUR = datetime(1926, 5, 8, 12, tzinfo=UTC)
FAR_HOUR = datetime(2250, 1, 2, 23, tzinfo=UTC)


def say_nothing(_: str) -> None:
    return


@pytest.fixture(scope="module")
def client(store):
    made = store.client()
    truncate(made)
    yield made
    made.close()


@pytest.fixture
def empty(client):
    truncate(client)
    return client


def truncate(client) -> None:
    for table in (EVALUATIONS, REJECTED):
        client.command(f"TRUNCATE TABLE {table}")


def rows(client, query: str, **parameters):
    return [tuple(row) for row in client.query(query, parameters=parameters).result_rows]


def put(client, *counted, received: date = TODAY, written: date = TODAY, token: str | None = None) -> None:
    """Insert (key, yes, no, count) rows as the aggregator does: one insert, one token."""
    values = [
        (*key[:5], datetime.fromtimestamp(key.hour, UTC), *key[6:], received, *numbers, written)
        for key, *numbers in counted
    ]
    insert_rows(client, EVALUATIONS, (*EVALUATION_COLUMNS, "written"), values, token or fresh_token())


def insert_rows(client, table: str, columns: tuple[str, ...], values: list[tuple[object, ...]], token: str) -> None:
    """Insert as text, so that pandas is not loaded; `written` is the server's own, and given here to make rows old."""
    settings = insert.settings((26, 9), token) | {"insert_allow_materialized_columns": 1}
    text = ", ".join(f"({', '.join(map(_literal, row))})" for row in values)
    client.command(f"INSERT INTO {table} ({', '.join(columns)}) VALUES {text}", settings=settings)


def _literal(value: object) -> str:
    if isinstance(value, datetime):
        return f"toDateTime64({int(value.timestamp())}, 0, 'UTC')"
    return str(value) if isinstance(value, int) else f"'{value}'"


def key(feature: str = "f", variant: str = "", hour: datetime = SEED_HOUR, app: str = "app", **more) -> EvaluationKey:
    made = EvaluationKey(
        "default", "development", feature, feature, variant, int(hour.timestamp()), app, "", "server", "unleash"
    )
    return made._replace(**more)


# The runner ----------------------------------------------------------------------------------------------------------


def test_a_second_run_finds_nothing_to_do(real_store, client):
    assert migrate.run(real_store, partitions=1, flush_seconds=1.0) == []


def test_every_migration_is_recorded_with_its_hash(client):
    recorded = migrate.applied(client, "flagmeter")
    assert recorded == {each.number: (each.name, each.sha256) for each in migrations.files()}


def test_the_tables_have_the_columns_that_the_services_write(client):
    for table, columns in ((EVALUATIONS, EVALUATION_COLUMNS), (REJECTED, REJECTED_COLUMNS)):
        found = rows(
            client,
            "SELECT name FROM system.columns WHERE database = 'flagmeter' AND default_kind != 'MATERIALIZED' "
            f"AND table = '{table}'",
        )
        assert {name for (name,) in found} == set(columns)


def test_the_table_of_migrations_has_no_deduplication_window(client):
    ((engine,),) = rows(client, "SELECT engine_full FROM system.tables WHERE name = 'migrations'")
    assert "deduplication_window" not in engine


def test_more_partitions_or_a_shorter_flush_widen_the_window_and_nothing_narrows_it(real_store, client):
    said: list[str] = []
    migrate.run(real_store, partitions=64, flush_seconds=0.5, say=said.append)
    assert f"{EVALUATIONS}: deduplication window 100000 -> 1843200" in said
    migrate.run(real_store, partitions=1, flush_seconds=1.0)
    for table in (EVALUATIONS, REJECTED):
        ((engine,),) = rows(client, f"SELECT engine_full FROM system.tables WHERE name = '{table}'")
        assert "non_replicated_deduplication_window = 1843200" in engine


def test_a_changed_file_and_a_newer_store_are_refused_and_nothing_is_done(real_store, client, monkeypatch):
    known = migrations.files()
    changed = [*known[:-1], Migration(known[-1].number, known[-1].name, "SELECT 1")]
    more = Migration(len(known) + 1, "more", "CREATE TABLE {database}.more (a Int8) ENGINE = Memory")
    monkeypatch.setattr(migrations, "files", lambda: [*changed, more])
    with pytest.raises(RefusedMigrationError, match="was applied with another text"):
        migrate.run(real_store, partitions=1, flush_seconds=1.0)
    monkeypatch.setattr(migrations, "files", lambda: known[:-1])
    with pytest.raises(RefusedMigrationError, match="newer"):
        migrate.run(real_store, partitions=1, flush_seconds=1.0)
    assert rows(client, "SELECT count() FROM system.tables WHERE name = 'more'") == [(0,)]


def test_two_runs_at_once_are_harmless(real_store, client):
    client.command("DROP TABLE migrations")
    failed: list[BaseException] = []
    together = threading.Barrier(3)

    def run() -> None:
        together.wait(10)
        try:
            migrate.run(real_store, partitions=1, flush_seconds=1.0)
        except BaseException as error:  # noqa: BLE001 - a thread; looked at below
            failed.append(error)

    threads = [threading.Thread(target=run) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert failed == []
    assert migrate.run(real_store, partitions=1, flush_seconds=1.0) == []


def test_a_run_that_ended_in_the_middle_is_finished_by_the_next(real_store, client):
    client.command("DROP VIEW variants")
    client.command("ALTER TABLE migrations DELETE WHERE number = 3", settings={"mutations_sync": 1})
    assert [each.number for each in migrate.run(real_store, partitions=1, flush_seconds=1.0)] == [3]
    assert rows(client, "SELECT count() FROM variants") == [(0,)]


def test_a_dry_run_shows_the_statements_with_everything_filled_in(real_store):
    shown = migrate.preview(real_store, migrations.files(), partitions=64, flush_seconds=1.0)
    assert shown[0].startswith("CREATE TABLE IF NOT EXISTS `flagmeter`.evaluations_hourly")
    assert "non_replicated_deduplication_window = 921600" in shown[0]


def test_a_store_that_does_not_answer_is_waited_for_and_named(real_store):
    away = replace(real_store, port=1)
    waits: list[float] = []
    with pytest.raises(migrate.StoreAwayError, match=r"http://127\.0\.0\.1:1 did not answer within 0\.3 s"):
        migrate.run(away, partitions=1, flush_seconds=1.0, wait_seconds=0.3, pause=waits.append)
    assert waits


def test_a_wrong_password_is_said_at_once_and_not_shown(real_store):
    wrong = replace(real_store, password="not-the-secret")
    with pytest.raises(RefusedMigrationError, match="refuses the user 'service'") as raised:
        migrate.run(wrong, partitions=1, flush_seconds=1.0, wait_seconds=30, pause=lambda _: pytest.fail("waited"))
    assert "not-the-secret" not in str(raised.value)


def test_a_visitor_may_not_migrate(real_store, client):
    client.command("DROP TABLE IF EXISTS migrations")
    visitor = replace(real_store, user="", password="")
    with pytest.raises(RefusedMigrationError, match="readonly"):
        migrate.run(visitor, partitions=1, flush_seconds=1.0)
    migrate.run(real_store, partitions=1, flush_seconds=1.0)


# The tables ----------------------------------------------------------------------------------------------------------


def test_the_years_1926_and_2250_are_kept_and_summed_over_parts(empty):
    for _ in range(2):
        put(empty, (key(), 25, 42, 0), (key(variant="blue"), 0, 0, 6), (key(hour=FAR_HOUR), 1, 2, 0))
    found = rows(empty, "SELECT feature, toString(hour), yes, no, evaluations FROM evaluations ORDER BY hour")
    assert found == [("f", "1926-05-08 12:00:00", 50, 84, 134), ("f", "2250-01-02 23:00:00", 2, 4, 6)]
    assert rows(empty, "SELECT variant, count FROM variants") == [("blue", 12)]
    empty.command(f"OPTIMIZE TABLE {EVALUATIONS} FINAL")
    assert rows(empty, f"SELECT count(), sum(yes), sum(no), sum(count) FROM {EVALUATIONS}") == [(3, 52, 88, 12)]


def test_the_query_of_the_readme_needs_no_more_than_the_tables_name(empty):
    put(empty, (key(), 25, 42, 0))
    put(empty, (key(hour=FAR_HOUR), 1, 0, 0))
    assert rows(empty, "SELECT feature, sum(yes), sum(no) FROM evaluations_hourly GROUP BY feature") == [("f", 26, 42)]


def test_the_daily_projection_answers_for_1926_and_2250_also_after_merges(empty):
    for _ in range(3):
        put(empty, (key(), 25, 42, 0), (key(hour=FAR_HOUR), 1, 2, 0), (key(variant="blue"), 0, 0, 6))
    daily = (
        "SELECT toString(date_trunc('day', hour)) AS day, sum(yes), sum(no), sum(count) FROM evaluations_hourly "
        "WHERE project = 'default' AND feature = 'f' "
        "AND date_trunc('day', hour) >= toDateTime64('1926-01-01', 0, 'UTC') "
        "GROUP BY date_trunc('day', hour) ORDER BY date_trunc('day', hour) SETTINGS force_optimize_projection = 1"
    )
    expected = [("1926-05-08 00:00:00", 75, 126, 18), ("2250-01-02 00:00:00", 3, 6, 0)]
    assert rows(empty, daily) == expected
    empty.command(f"OPTIMIZE TABLE {EVALUATIONS} FINAL")
    assert rows(empty, daily) == expected


def test_an_insert_is_one_part_whatever_its_hours_and_counts_once_under_its_token(empty):
    hours = [datetime(1926 + year, 1, 1, tzinfo=UTC) for year in range(150)]
    batch = [(key(hour=hour), 1, 0, 0) for hour in hours]
    for rest in (batch, batch, batch[:1]):  # the token alone decides, not the content
        put(empty, *rest, token="topic:0:1-10")
    parts = rows(empty, f"SELECT rows FROM system.parts WHERE table = '{EVALUATIONS}' AND active AND rows > 0")
    assert parts == [(150,)]
    assert rows(empty, "SELECT sum(yes) FROM evaluations") == [(150,)]


def test_equal_rows_under_two_tokens_both_count(empty):
    put(empty, (key(), 1, 0, 0), token="topic:0:1-1")
    put(empty, (key(), 1, 0, 0), token="topic:0:2-2")
    assert rows(empty, "SELECT yes FROM evaluations") == [(2,)]


def test_markers_stay_apart_when_parts_merge_and_the_views_hide_them(empty):
    for first, last in ((0, 99), (100, 199)):
        marker = markers.marker_key("topic", 0, Range(first, last), [EVALUATIONS], DAY)
        put(empty, (marker, 0, 0, 1), (key(), 1, 1, 0))
    empty.command(f"OPTIMIZE TABLE {EVALUATIONS} FINAL")
    found = rows(
        empty, f"SELECT variable, variant, count FROM {EVALUATIONS} WHERE project = '__batch__' ORDER BY variable"
    )
    assert found == [(f"{first:020}", f"{last:020}", 1) for first, last in ((0, 99), (100, 199))]
    assert rows(empty, "SELECT DISTINCT project FROM evaluations") == [("default",)]
    assert rows(empty, "SELECT count() FROM variants") == [(0,)]


def test_old_markers_go_and_old_counts_stay(empty):
    for first, days in ((0, MARKER_DAYS + 1), (10, MARKER_DAYS - 1)):
        marker = markers.marker_key("topic", 0, Range(first, first + 9), [EVALUATIONS], DAY)
        put(empty, (marker, 0, 0, 1), (key(), 7, 0, 0), written=TODAY - timedelta(days=days))
    empty.command(f"OPTIMIZE TABLE {EVALUATIONS} FINAL")
    assert rows(empty, f"SELECT variable FROM {EVALUATIONS} WHERE project = '__batch__'") == [(f"{10:020}",)]
    assert rows(empty, "SELECT yes FROM evaluations") == [(14,)]


def test_a_marker_of_old_records_lives_as_long_as_any_other(empty):
    """After a long outage the records are old, but the batch that holds them is new, and so is its doubt."""
    old = TODAY - timedelta(days=200)
    put(empty, (markers.marker_key("topic", 0, Range(0, 9), [EVALUATIONS], 0), 0, 0, 1), received=old)
    empty.command(f"OPTIMIZE TABLE {EVALUATIONS} FINAL")
    assert rows(empty, f"SELECT count() FROM {EVALUATIONS}") == [(1,)]


def test_old_rejected_rows_go_and_a_settled_batch_replaces_its_own(empty):
    def reject(offset: int, written: date, token: str) -> None:
        row = (
            "topic",
            0,
            offset,
            0,
            0,
            "metrics",
            "/api/client/metrics",
            "name_too_long",
            "p",
            "e",
            "a",
            "f",
            "{}",
            TODAY,
            written,
        )
        insert_rows(empty, REJECTED, (*REJECTED_COLUMNS, "written"), [row], token)

    reject(1, TODAY - timedelta(days=MARKER_DAYS + 1), "a")
    reject(2, TODAY, "b")
    reject(2, TODAY, "c")
    empty.command(f"OPTIMIZE TABLE {REJECTED} FINAL")
    assert rows(empty, f"SELECT offset FROM {REJECTED}") == [(2,)]


@pytest.mark.parametrize("view", ["evaluations", "variants"])
def test_conditions_on_a_view_reach_the_tables_key(empty, view):
    for feature in ("a", "b", "f"):
        put(empty, *((key(feature, variant, hour=SEED_HOUR), 1, 1, 1) for variant in ("", "blue")))
    plan = rows(
        empty,
        f"EXPLAIN indexes = 1 SELECT * FROM {view} WHERE project = 'default' AND environment = 'development' "
        "AND feature = 'f' AND hour >= toDateTime64('1926-01-01', 0, 'UTC')",
    )
    text = "\n".join(line for (line,) in plan)
    used = text.split("PrimaryKey", 1)[1].split("Condition", 1)[0].split()
    assert {"project", "environment", "feature", "hour"} <= set(used)
    assert "hour_minmax" in text
    parts = re.findall(r"Parts: (\d+)/(\d+)", text)
    assert parts
    assert parts[-1][0] == "1", "one part holds the flag, whether or not the three were merged"


def test_the_views_need_no_rights_beyond_reading(real_store, empty):
    put(empty, (key(), 25, 42, 0))
    visitor = clickhouse_connect.get_client(
        host=real_store.host, port=real_store.port, database="flagmeter", autogenerate_session_id=False
    )
    try:
        assert rows(visitor, "SELECT yes, no FROM evaluations") == [(25, 42)]
    finally:
        visitor.close()
