import pytest

from deploy.store import guard
from deploy.store.errors import Fault
from deploy.store.guard import Change, Read
from deploy.store.inserts import Insert
from deploy.store.privileges import Role


@pytest.mark.parametrize("role", Role)
@pytest.mark.parametrize(
    ("source", "format_", "streams"),
    [
        ("SELECT 1", None, True),
        ("select 1 format Native", "Native", True),
        ("WITH 1 AS x SELECT x FORMAT JSON SETTINGS join_use_nulls = 1", "JSON", True),
        ("SELECT format('{}', 1), 1 AS format FROM t", None, True),
        ("SELECT * FROM (SELECT 1 AS a) FORMAT CSV;", "CSV", True),
        ("(SELECT 1) UNION ALL (SELECT 2)", None, True),
        ("SELECT 1 WITH TOTALS", None, False),
        ("SELECT 1 SETTINGS extremes = 1", None, False),
        ("SHOW TABLES FORMAT JSON", "JSON", False),
        ("SHOW CREATE TABLE t", None, False),
        ("DESCRIBE TABLE t", None, False),
        ("EXISTS TABLE t", None, False),
        ("EXPLAIN indexes = 1, actions = 0 SELECT 1", None, False),
        ("EXPLAIN PIPELINE WITH 1 AS x SELECT x", None, False),
        ("FROM numbers(3) SELECT *", None, True),
        ("SELECT t.file, profile FROM t", None, True),
        ("SELECT ';', 'INTO OUTFILE' -- ; DROP", None, True),
        ("SELECT settings FROM t WHERE settings = 1", None, True),
    ],
)
def test_reads_pass_for_everybody(role, source, format_, streams):
    found = guard.check(source, role)
    assert isinstance(found, Read)
    assert (found.format, found.streams) == (format_, streams)
    assert source.startswith(found.text)
    assert not found.text.endswith(";")


@pytest.mark.parametrize(
    "source",
    [
        "CREATE TABLE IF NOT EXISTS t (a UInt8, b String DEFAULT upper('x')) ENGINE = MergeTree ORDER BY a",
        "CREATE TABLE t (h DateTime64(0, 'UTC')) ENGINE = SummingMergeTree((yes, no)) ORDER BY h SETTINGS fsync = 1",
        "CREATE TABLE t (a Date) ENGINE=MergeTree ORDER BY a TTL a + INTERVAL 35 DAY DELETE WHERE p = '__batch__'",
        "CREATE TABLE t AS other",
        "CREATE OR REPLACE VIEW v AS SELECT 1",
        "CREATE MATERIALIZED VIEW m TO t AS SELECT 1",
        "CREATE DATABASE IF NOT EXISTS flagmeter",
        "ALTER TABLE t MODIFY SETTING non_replicated_deduplication_window = 5",
        "ALTER TABLE t DELETE WHERE a = 1 SETTINGS mutations_sync = 2",
        "DROP TABLE IF EXISTS t SYNC",
        "DROP VIEW v",
        "TRUNCATE TABLE t",
        "OPTIMIZE TABLE t FINAL",
        "RENAME TABLE a TO b",
        "EXCHANGE TABLES a AND b",
        "DELETE FROM t WHERE a = 1",
        "CHECK TABLE t",
        "INSERT INTO t SELECT 1",
        "INSERT INTO t (a, b) WITH 1 AS x SELECT x, 2",
        "INSERT INTO t (SELECT 1)",
        "INSERT INTO t SETTINGS async_insert = 0 SELECT 1",
    ],
)
def test_changes_pass_for_services_only(source):
    assert guard.check(source, Role.SERVICE) == Change(source)
    with pytest.raises(Fault) as refused:
        guard.check(source, Role.VISITOR)
    assert refused.value.code == 164


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("INSERT INTO t FORMAT CSV\n1,2", Insert("INSERT INTO t", "CSV", {}, 25)),
        ("INSERT INTO t FORMAT CSV 1,2", Insert("INSERT INTO t", "CSV", {}, 25)),
        ("INSERT INTO t FORMAT CSV  \r\n\n1", Insert("INSERT INTO t", "CSV", {}, 28)),
        (
            "insert into table d.`t` (a, `b`) format Native\n\x00'",
            Insert("INSERT INTO d.`t` (a, `b`)", "Native", {}, 47),
        ),
        ("INSERT INTO t VALUES (1)", Insert("INSERT INTO t", "Values", {}, 20)),
        ("INSERT INTO t", Insert("INSERT INTO t", "Values", {}, 13)),
        (
            "INSERT INTO t(a) SETTINGS async_insert = 0, insert_deduplication_token='x' FORMAT TSV\n",
            Insert("INSERT INTO t(a)", "TSV", {"async_insert": "0", "insert_deduplication_token": "x"}, 86),
        ),
    ],
)
def test_an_inserts_text_ends_where_its_data_begins(source, expected):
    assert guard.check(source, Role.SERVICE) == expected


@pytest.mark.parametrize(
    ("source", "code"),
    [
        ("INSERT", 62),
        ("INSERT INTO 'x'", 62),
        ("INSERT INTO t.", 62),
        ("INSERT INTO t (a", 62),
        ("INSERT INTO t (a + 1) VALUES (1)", 62),
        ("INSERT INTO t FORMAT", 62),
        ("INSERT INTO t FORMAT 'x'", 62),
        ("INSERT INTO t FORMAT CSV; 1", 62),
        ("INSERT INTO t SETTINGS a FORMAT CSV", 62),
        ("INSERT INTO t SETTINGS async_insert = (1) FORMAT CSV", 62),
        ("INSERT INTO t SETTINGS async_insert = 1 x", 62),
        ("INSERT INTO t SETTINGS insert_deduplication_token = 'a''b' FORMAT CSV", 62),
        ("INSERT INTO t SETTINGS format_schema = 'x' FORMAT CSV", 497),
        ("INSERT INTO t WATCH v", 497),
        ("INSERT INTO FUNCTION file('x') VALUES (1)", 497),
        ("ALTER", 497),
        ("CREATE", 497),
        ("CREATE OR REPLACE", 497),
        ("CREATE TABLE t (a UInt8) ENGINE", 497),
        ("SHOW", 497),
        ("EXPLAIN", 62),
        ("EXPLAIN INSERT INTO t SELECT 1", 497),
        ("SELECT " + "1," * 600_000 + "1", 62),
    ],
)
def test_what_is_half_a_statement_is_an_error_of_its_own(source, code):
    with pytest.raises(Fault) as refused:
        guard.check(source, Role.SERVICE)
    assert refused.value.code == code


def test_values_may_hold_expressions_but_not_every_function():
    guard.check_values("(1, upper('file')), (2, now());")
    for data in ("(file('x'))", "(1); DROP TABLE t", "(url('x'))"):
        with pytest.raises(Fault):
            guard.check_values(data)


@pytest.mark.parametrize("role", list(Role))
def test_thousands_of_settings_clauses_are_refused(role: Role) -> None:
    """Each clause may be read to the end: a megabyte of them held the interpreter for minutes."""
    with pytest.raises(Fault, match="More than 64 SETTINGS clauses"):
        guard.check("SELECT 1 " + "SETTINGS max_threads " * 65, role)


def test_a_visitors_statement_is_shorter_than_a_services() -> None:
    text = "SELECT '" + "x" * guard.VISITOR_QUERY_BYTES + "'"
    assert guard.check(text, Role.SERVICE)
    with pytest.raises(Fault, match="Max query size exceeded"):
        guard.check(text, Role.VISITOR)
