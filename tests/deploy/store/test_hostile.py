"""What nobody may do, whoever asks; and what a visitor may not."""

from pathlib import Path

import pytest

from tests.support.store import StoreProcess

CANARY = "flagmeter-canary-4711"
DISK = "type = object_storage, object_storage_type = local, metadata_type = local"
# {file}: a file with the canary; {target}: a file that must not come into being; {url}: an address that nobody serves.
HOSTILE = [
    # Reading files
    "SELECT * FROM file('{file}', 'LineAsString')",
    "SELECT file('{file}')",
    "SELECT FiLe('{file}')",
    "SELECT `file`('{file}')",
    "SELECT \"file\" ('{file}')",
    "SELECT file/* a comment */('{file}')",
    "SELECT file -- a comment\n ('{file}')",
    "/* first */ SELECT /* then */ file(\n\t'{file}')",
    "SELECT // a comment\n file('{file}')",
    "SELECT `fi\\x6ce`('{file}')",
    "SELECT * APPLY(file) FROM values('a String', '{file}')",
    "SELECT COLUMNS('a') APPLY file FROM values('a String', '{file}')",
    "SELECT arrayMap(file, ['{file}'])",
    "SELECT arrayMap(x -> file(x), ['{file}'])",
    "WITH file('{file}') AS x SELECT x",
    "WITH t AS (SELECT * FROM file('{file}', 'LineAsString')) SELECT * FROM t",
    "SELECT (SELECT file('{file}'))",
    "SELECT 1 WHERE 'x' IN (SELECT * FROM file('{file}', 'LineAsString'))",
    "SELECT * FROM view(SELECT file('{file}'))",
    "SELECT * FROM viewExplain('EXPLAIN', '', (SELECT file('{file}')))",
    "SELECT * FROM eval('SELECT file(''{file}'')')",
    "SELECT * FROM eval('SELECT file(''{file}'')') SETTINGS allow_experimental_eval_table_function = 1",
    "(SELECT file('{file}'))",
    "file('{file}')",
    "FROM file('{file}', 'LineAsString') SELECT *",
    "SELECT * FROM (SELECT 1) UNION ALL SELECT file('{file}')",
    "SELECT 1 ORDER BY file('{file}')",
    "EXPLAIN SELECT file('{file}')",
    "EXPLAIN PLAN actions = 1 SELECT file('{file}')",
    "EXPLAIN SYNTAX SELECT * FROM file('{file}', 'LineAsString')",
    "EXPLAIN TABLE OVERRIDE mysql('127.0.0.1:1', 'a', 'b', 'c', 'd') PARTITION BY 1",
    "DESCRIBE file('{file}', 'LineAsString')",
    "DESCRIBE TABLE file('{file}')",
    "SHOW CREATE TABLE file('{file}')",
    "SELECT * FROM default.`{file}`",
    "SELECT * FROM filesystem('{file}')",
    "SELECT * FROM sqlite('{file}', 't')",
    "SELECT * FROM icebergLocal('{file}')",
    "SELECT * FROM deltaLakeLocal('{file}')",
    "SELECT 1 FORMAT Template SETTINGS format_template_resultset = '{file}'",
    "SELECT formatRow('Template', 1) SETTINGS format_template_row = '{file}'",
    "SELECT * FROM system.one FORMAT Protobuf SETTINGS format_schema = '{file}:x'",
    "SELECT * FROM system.one SETTINGS additional_table_filters = {{'system.one': 'file(\\'{file}\\') = 1'}}",
    "SELECT 1 SETTINGS additional_result_filter = 'file(\\'{file}\\') = 1'",
    "SELECT 1 SETTINGS dialect = 'prql'",
    "INSERT INTO hostile FROM INFILE '{file}' FORMAT LineAsString",
    "INSERT INTO hostile (a) FROM INFILE '{file}' COMPRESSION 'none' FORMAT LineAsString",
    "INSERT INTO hostile VALUES (file('{file}'))",
    "INSERT INTO hostile FORMAT Values (file('{file}'))",
    "INSERT INTO hostile SELECT file('{file}')",
    "INSERT INTO hostile SELECT * FROM input('a String')",
    "ALTER TABLE hostile ADD COLUMN b String DEFAULT file('{file}')",
    "ALTER TABLE hostile UPDATE a = file('{file}') WHERE 1",
    "DELETE FROM hostile WHERE a = file('{file}')",
    "CREATE TABLE stolen (a String DEFAULT file('{file}')) ENGINE = MergeTree ORDER BY a",
    "CREATE TABLE stolen ENGINE = MergeTree ORDER BY tuple() AS SELECT file('{file}') AS a",
    "CREATE TABLE stolen AS file('{file}', 'LineAsString')",
    "CREATE TABLE stolen (a String) ENGINE = File(LineAsString, '{file}')",
    "CREATE TABLE stolen (a String) ENGINE=`File`(LineAsString, '{file}')",
    "CREATE VIEW stolen AS SELECT file('{file}')",
    "CREATE MATERIALIZED VIEW stolen ENGINE = MergeTree ORDER BY tuple() AS SELECT file('{file}') AS a FROM hostile",
    "CREATE DICTIONARY stolen (a String) PRIMARY KEY a SOURCE(FILE(path '{file}' format 'CSV')) LAYOUT(FLAT())",
    "CREATE DATABASE stolen ENGINE = Filesystem('/')",
    "ATTACH TABLE stolen FROM '{file}' (a String) ENGINE = MergeTree ORDER BY a",
    "ATTACH TABLE stolen",
    "SELECT catboostEvaluate('{file}', 1)",
    # Writing files
    "SELECT 1 INTO OUTFILE '{target}'",
    "SELECT 1 into\n/**/outfile '{target}' TRUNCATE FORMAT CSV",
    "SELECT 1 INTO OUTFILE '{target}' AND STDOUT",
    "INSERT INTO FUNCTION file('{target}', 'CSV', 'a UInt8') VALUES (1)",
    "INSERT INTO TABLE FUNCTION file('{target}', 'CSV', 'a UInt8') SELECT 1",
    "CREATE TABLE stolen (a UInt8) ENGINE = File(CSV, '{target}')",
    "CREATE TABLE stolen (a Int8) ENGINE = MergeTree ORDER BY a SETTINGS disk = disk(type = local, path = '{target}/')",
    f"CREATE TABLE stolen (a Int8) ENGINE = MergeTree ORDER BY a SETTINGS disk = disk({DISK}, path = '{{target}}/')",
    "ALTER TABLE hostile MODIFY SETTING storage_policy = 'other'",
    "ALTER TABLE hostile FREEZE",
    "BACKUP TABLE hostile TO File('{target}')",
    "RESTORE TABLE hostile FROM File('{target}')",
    # The network
    "SELECT * FROM url('{url}', 'LineAsString')",
    "SELECT * FROM s3('{url}', 'CSV')",
    "SELECT * FROM remote('127.0.0.1', system.one)",
    "SELECT * FROM remoteSecure('127.0.0.1', 'system', 'one')",
    "SELECT * FROM cluster('default', system.one)",
    "SELECT * FROM mysql('127.0.0.1:1', 'a', 'b', 'c', 'd')",
    "SELECT * FROM postgresql('127.0.0.1:1', 'a', 'b', 'c', 'd')",
    "SELECT * FROM mongodb('127.0.0.1:1', 'a', 'b', 'c', 'd', 'a Int8')",
    "SELECT * FROM redis('127.0.0.1:1', 'a', 'a String')",
    "SELECT * FROM hdfs('hdfs://127.0.0.1:1/a', 'CSV')",
    "SELECT * FROM azureBlobStorage('{url}', 'a', 'b')",
    "SELECT reverseDNSQuery('127.0.0.1')",
    "SELECT aiGenerate('a', 'b')",
    "INSERT INTO FUNCTION url('{url}', 'CSV', 'a UInt8') VALUES (1)",
    "CREATE TABLE stolen (a String) ENGINE = URL('{url}', 'CSV')",
    "CREATE TABLE stolen (a String) ENGINE = Kafka('127.0.0.1:1', 'a', 'b', 'CSV')",
    # Programs
    "SELECT * FROM executable('cat', 'CSV', 'a String')",
    "SELECT * FROM python('os')",
    "SELECT * FROM Python(os)",
    "CREATE TABLE stolen (a String) ENGINE = Executable('cat', CSV)",
    "CREATE FUNCTION stolen AS x -> x",
    # Control
    "KILL QUERY WHERE 1",
    "kill mutation where 1",
    "SYSTEM STOP MERGES",
    "SYSTEM FLUSH LOGS",
    "SYSTEM SHUTDOWN",
    "SET max_memory_usage = 1",
    "SET ROLE ALL",
    "SET profile = 'default'",
    "USE system",
    "DETACH TABLE hostile",
    "GRANT ALL ON *.* TO default",
    "REVOKE ALL ON *.* FROM default",
    "CREATE USER stolen",
    "CREATE ROLE stolen",
    "ALTER USER default IDENTIFIED BY 'x'",
    "DROP USER default",
    "DROP DATABASE flagmeter",
    "CREATE DATABASE stolen",
    "EXECUTE AS service SELECT 1",
    "BEGIN TRANSACTION",
    "SHOW USERS",
    "SHOW ACCESS",
    # More than one statement
    "SELECT 1; SELECT 2",
    "SELECT 1; DROP TABLE hostile",
    "SELECT 1;;SYSTEM STOP MERGES",
    "SELECT 1 PARALLEL WITH SELECT 2",
    "DROP TABLE nothing PARALLEL WITH DROP TABLE hostile",
    "INSERT INTO hostile VALUES ('a'); DROP TABLE hostile",
    # What might be read in two ways
    "SELECT /* /* */ file('{file}') /* */ */ 1",
    "SELECT \u201cfile\u201d('{file}')",
    "SELECT 'not closed",
    "SELECT $x$ not closed",
    "SELECT 1 #file",
    "SELECT 1 \\G",
    "",
    ";",
    "-- nothing",
    # Secrets
    "SELECT * FROM system.users",
    "SELECT * FROM system.roles",
    "SELECT * FROM system.grants",
    "SELECT * FROM system.settings_profiles",
    "SELECT getServerSetting('max_server_memory_usage')",
    "SELECT addressToLine(1)",
]
FOR_SERVICES_ONLY = [
    "INSERT INTO hostile VALUES ('a')",
    "INSERT INTO hostile FORMAT CSV\na\n",
    "INSERT INTO hostile SELECT 'a'",
    "insert into flagmeter.hostile values ('a')",
    "/* SELECT */ INSERT INTO hostile VALUES ('a')",
    "ALTER TABLE hostile ADD COLUMN b UInt8",
    "ALTER TABLE hostile DELETE WHERE 1",
    "DELETE FROM hostile WHERE 1",
    "DROP TABLE hostile",
    "TRUNCATE TABLE hostile",
    "OPTIMIZE TABLE hostile FINAL",
    "CREATE TABLE own (a UInt8) ENGINE = Memory",
    "CREATE VIEW own AS SELECT 1",
    "RENAME TABLE hostile TO other",
    "EXCHANGE TABLES hostile AND other",
    "CHECK TABLE hostile",
    "SELECT 1 SETTINGS max_memory_usage = 0",
    "SELECT 1 SETTINGS max_execution_time = 0",
    "SELECT 1 SETTINGS readonly = 0",
    "SELECT 1 SETTINGS extremes = 1, max_threads = 64",
    "SELECT * FROM system.processes",
    'SELECT query FROM `system`."processes"',
    "SELECT * FROM system.disks",
    "SELECT * FROM system.server_settings",
    "SELECT 1 WHERE ('a', 'b') IN system.named_collections",
    "SELECT * FROM merge('system', 'processes')",
    "SHOW PROCESSLIST",
    "SELECT sleep(1)",
    "SELECT sleepEachRow(1) FROM numbers(10)",
]


@pytest.fixture(scope="module")
def prepared(store: StoreProcess) -> StoreProcess:
    made = store.service("CREATE TABLE IF NOT EXISTS hostile (a String) ENGINE = MergeTree ORDER BY a")
    assert made.status == 200, made.text
    assert store.service("INSERT INTO hostile VALUES ('here')").status == 200
    return store


@pytest.fixture
def places(tmp_path: Path) -> dict[str, str]:
    canary = tmp_path / "canary"
    canary.write_text(CANARY + "\n")
    return {"file": str(canary), "target": str(tmp_path / "target"), "url": "http://127.0.0.1:1/"}


@pytest.mark.parametrize("who", ["visitor", "service"])
@pytest.mark.parametrize("statement", HOSTILE)
def test_nobody_may(prepared: StoreProcess, places: dict[str, str], who: str, statement: str) -> None:
    answer = getattr(prepared, who)(statement.format(**places))
    assert answer.status >= 400, answer.text
    assert answer.code > 0
    assert CANARY not in answer.text
    assert not Path(places["target"]).exists()
    assert prepared.visitor("SELECT count() FROM hostile").text == "1\n"
    assert prepared.visitor("EXISTS TABLE stolen").text == "0\n"


@pytest.mark.parametrize("statement", FOR_SERVICES_ONLY)
def test_a_visitor_may_not(prepared: StoreProcess, statement: str) -> None:
    answer = prepared.visitor(statement)
    assert answer.status >= 400, answer.text
    assert answer.code in {164, 497}
    assert prepared.visitor("SELECT * FROM hostile").text == "here\n"


@pytest.mark.parametrize(
    "parameters",
    [
        {"max_memory_usage": "0"},
        {"max_execution_time": "0"},
        {"readonly": "0"},
        {"profile": "default"},
        {"max_threads": "64"},
        {"format_schema": "/etc/passwd:x"},
        {"format_template_row": "/etc/passwd"},
        {"additional_table_filters": "{'system.one': '1'}"},
        {"allow_python_table_function": "1"},
        {"dialect": "prql"},
        {"log_queries_probability": "0"},
        {"max_result_bytes": "0"},
        {"x' = 1, readonly": "0"},
    ],
)
def test_a_visitor_may_not_change_such_a_setting_by_url(store: StoreProcess, parameters: dict[str, str]) -> None:
    answer = store.visitor("SELECT 1", **parameters)
    assert (answer.status, answer.code) == (500, 164), answer.text


@pytest.mark.parametrize(
    "parameters",
    [
        {"format_schema": "/etc/passwd:x"},
        {"format_template_row": "/etc/passwd"},
        {"additional_table_filters": "{'system.one': '1'}"},
        {"input_format_record_errors_file_path": "x"},
        {"allow_python_table_function": "1"},
        {"allow_introspection_functions": "1"},
        {"dialect": "prql"},
        {"profile": "default"},
        {"storage_policy": "x"},
        {"implicit_select": "1"},
        {"no-name": "1"},
    ],
)
def test_a_service_may_not_change_such_a_setting_by_url(store: StoreProcess, parameters: dict[str, str]) -> None:
    assert store.service("SELECT 1", **parameters).code == 497


@pytest.mark.parametrize(
    ("statement", "parameters"),
    [
        ("SELECT {x:String}", {"param_x": "'; DROP TABLE hostile; --"}),
        ("SELECT * FROM {x:Identifier}", {"param_x": "hostile; DROP TABLE hostile"}),
        ("SELECT * FROM {x:Identifier}", {"param_x": "file('/etc/passwd')"}),
        ("SELECT * FROM system.{x:Identifier}", {"param_x": "processes"}),
        ("SELECT * FROM {d:Identifier}.{x:Identifier}", {"param_d": "system", "param_x": "processes"}),
        ("SELECT arrayMap({x:Identifier}, ['/etc/passwd'])", {"param_x": "file"}),
        ("SELECT {x:UInt8}", {"param_x": "1) FROM file('/etc/passwd'"}),
        ("SELECT * FROM processes", {"database": "system"}),
        ("SELECT 1", {"database": "flagmeter?config-file=/etc/passwd"}),
        ("SELECT 1", {"default_format": "CSV INTO OUTFILE 'x'"}),
    ],
)
def test_parameters_carry_no_sql(prepared: StoreProcess, statement: str, parameters: dict[str, str]) -> None:
    answer = prepared.visitor(statement, **parameters)
    assert "root:" not in answer.text
    assert answer.status >= 400 or answer.text == "\\'; DROP TABLE hostile; --\n"
    assert prepared.visitor("SELECT count() FROM hostile").text == "1\n"


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "http://evil.example"},
        {"Origin": "null"},
        {"Origin": "http://127.0.0.1:8123"},
        {"Host": "evil.example"},
        {"Host": "evil.example:8123"},
        {"Host": "127.0.0.1.evil.example"},
        {"Host": "127.0.0.2"},
        {"Host": "127.0.0.1:8123@evil.example"},
        {"Host": ""},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
    ],
)
@pytest.mark.parametrize("path", ["/?query=SELECT+1", "/ping"])
def test_requests_of_web_pages_and_foreign_names_are_refused(
    store: StoreProcess, headers: dict[str, str], path: str
) -> None:
    answer = store.ask("GET", path, headers=headers)
    assert (answer.status, answer.code) == (403, 497)


@pytest.mark.parametrize("host", ["127.0.0.1", "127.0.0.1:1", "localhost:8123", "LOCALHOST", "[::1]", "[::1]:8123"])
def test_loopbacks_own_names_are_answered(store: StoreProcess, host: str) -> None:
    assert store.ask("GET", "/?query=SELECT+1", headers={"Host": host, "Sec-Fetch-Site": "none"}).text == "1\n"


@pytest.mark.parametrize(
    ("headers", "parameters"),
    [
        ({"X-ClickHouse-User": "service", "X-ClickHouse-Key": "wrong"}, ""),
        ({"X-ClickHouse-User": "service"}, ""),
        ({"X-ClickHouse-User": "root"}, ""),
        ({"X-ClickHouse-Key": "wrong"}, ""),
        ({"Authorization": "Basic c2VydmljZTp3cm9uZw=="}, ""),
        ({"Authorization": "Basic !"}, ""),
        ({"Authorization": "Bearer abc"}, ""),
        ({}, "user=service&password=wrong"),
        ({"X-ClickHouse-User": "default"}, "user=default"),
    ],
)
def test_wrong_credentials_are_refused_in_clickhouses_words(
    store: StoreProcess, headers: dict[str, str], parameters: str
) -> None:
    answer = store.ask("POST", f"/?{parameters}", "SELECT 1", headers)
    assert (answer.status, answer.code) == (403, 516)
    assert answer.text.startswith("Code: 516. DB::Exception: ")
    assert "AUTHENTICATION_FAILED" in answer.text


def test_get_only_reads_even_with_the_secret(prepared: StoreProcess) -> None:
    credentials = {"X-ClickHouse-User": "service", "X-ClickHouse-Key": prepared.secret}
    answer = prepared.ask("GET", "/?query=DROP+TABLE+hostile", headers=credentials)
    assert answer.code == 164
    assert prepared.ask("GET", "/?query=SELECT+count()+FROM+hostile", headers=credentials).text == "1\n"
