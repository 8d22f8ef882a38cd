"""ClickHouse's HTTP interface, as curl and tools see it."""

import gzip
import http.client
import json
import threading
import time
import zlib

import lz4.frame
import pytest
import zstandard

from tests.support.store import StoreProcess


@pytest.mark.parametrize("path", ["/ping", "/", "/replicas_status"])
def test_probes_are_answered(store: StoreProcess, path: str) -> None:
    answer = store.ask("GET", path)
    assert (answer.status, answer.text) == (200, "Ok.\n")


def test_an_unknown_path_is_404(store: StoreProcess) -> None:
    assert store.ask("GET", "/nothing").status == 404


def test_get_head_and_post_answer_the_same(store: StoreProcess) -> None:
    got = store.ask("GET", "/?query=SELECT+1")
    assert (got.status, got.text) == (200, "1\n")
    assert store.ask("POST", "/?query=SELECT+1", "").text == "1\n"
    assert store.ask("POST", "/", "SELECT 1").text == "1\n"
    assert store.ask("POST", "/?query=SELECT+1", "+ 2").text == "3\n"
    head = store.ask("HEAD", "/?query=SELECT+1")
    assert (head.status, head.body) == (200, b"")
    assert store.ask("HEAD", "/?query=SELECT+number+FROM+numbers(1000000)").status == 200
    assert store.ask("GET", "/?query=SELECT+'%ff%00'").status == 200


def test_headers_are_a_servers(store: StoreProcess) -> None:
    headers = store.visitor("SELECT number FROM numbers(3) FORMAT JSONEachRow", query_id="my-id.1").headers
    assert headers["X-ClickHouse-Query-Id"] == "my-id.1"
    assert headers["X-ClickHouse-Format"] == "JSONEachRow"
    assert headers["X-ClickHouse-Timezone"] == "UTC"
    assert headers["X-ClickHouse-Server-Display-Name"]
    assert headers["Content-Type"] == "application/x-ndjson; charset=UTF-8"
    counts = json.loads(headers["X-ClickHouse-Summary"])
    assert (counts["read_rows"], counts["result_rows"], counts["written_rows"]) == ("3", "3", "0")
    assert store.visitor("SELECT 1").headers["X-ClickHouse-Query-Id"] != headers["X-ClickHouse-Query-Id"]


def test_the_format_is_that_of_the_query_then_of_the_request(store: StoreProcess) -> None:
    assert store.visitor("SELECT 1 AS a FORMAT JSONCompactEachRow", default_format="CSV").text == "[1]\n"
    assert store.visitor("SELECT 'a'", default_format="CSV").text == '"a"\n'
    assert store.ask("POST", "/", "SELECT 'a'", {"X-ClickHouse-Format": "CSV"}).text == '"a"\n'
    assert store.visitor("SELECT 'a' FORMAT CSV SETTINGS extremes = 0;  -- end").text == '"a"\n'
    whole = store.visitor("SELECT number AS n FROM numbers(40000) FORMAT JSON")
    assert whole.headers["Content-Type"] == "application/json; charset=UTF-8"
    assert len(json.loads(whole.body)["data"]) == 40_000
    assert store.visitor("SELECT 1 AS a FORMAT CSVWithNames").text == '"a"\n1\n'
    assert store.visitor("SELECT 1 FORMAT Nonsense").code == 73


def test_an_empty_result_has_no_rows_and_a_status(store: StoreProcess) -> None:
    assert store.visitor("SELECT 1 WHERE 0").body == b""
    assert store.visitor("SELECT 1 AS a WHERE 0 FORMAT TabSeparatedWithNames").text == "a\n"


def test_totals_are_part_of_the_result(store: StoreProcess) -> None:
    answer = store.visitor("SELECT number % 2 AS k, sum(number) FROM numbers(4) GROUP BY k WITH TOTALS ORDER BY k")
    assert answer.text == "0\t2\n1\t4\n\n0\t6\n"
    array = store.visitor("SELECT number FROM numbers(300000) FORMAT JSONEachRow", output_format_json_array_of_rows="1")
    assert len(json.loads(array.body)) == 300_000
    assert store.visitor("SELECT number FROM numbers(3)", extremes="1").text == "0\n1\n2\n\n0\n2\n"


def test_the_database_is_flagmeter_unless_named(store: StoreProcess) -> None:
    assert store.visitor("SELECT currentDatabase()").text == "flagmeter\n"
    assert store.visitor("SELECT currentDatabase()", database="system").text == "system\n"
    assert store.ask("POST", "/", "SELECT currentDatabase()", {"X-ClickHouse-Database": "system"}).text == "system\n"
    unknown = store.visitor("SELECT 1", database="nothing")
    assert (unknown.status, unknown.code) == (404, 81)


@pytest.mark.parametrize(
    ("placeholder", "value", "shown"),
    [
        ("{p:String}", "it's", "it\\'s"),
        ("{p:String}", "a\\tb\\\\", "a\\tb\\\\"),
        ("{p:String}", "\u00e4\u4e2d", "\u00e4\u4e2d"),
        ("{p:UInt64}", "18446744073709551615", "18446744073709551615"),
        ("{p:Array(String)}", "['a','b\\'c']", "['a','b\\'c']"),
        ("{p:Nullable(String)}", "\\N", "\\N"),
        ("{p:DateTime64(3, 'UTC')}", "1926-01-01 00:00:00.123", "1926-01-01 00:00:00.123"),
        ("{p:Map(String, UInt8)}", "{'a':1}", "{'a':1}"),
        ("(SELECT count() FROM system.{p:Identifier})", "one", "1"),
    ],
)
def test_parameters_are_typed(store: StoreProcess, placeholder: str, value: str, shown: str) -> None:
    answer = store.visitor(f"SELECT {placeholder}", param_p=value)
    assert answer.text == shown + "\n"


@pytest.mark.parametrize(("value", "code"), [("x", 457), (None, 456)])
def test_a_parameter_that_cannot_be_used_is_an_error(store: StoreProcess, value: str | None, code: int) -> None:
    given = {} if value is None else {"param_p": value}
    assert store.visitor("SELECT {p:UInt8}", **given).code == code


def test_a_form_may_carry_the_query_and_its_parameters(store: StoreProcess) -> None:
    fields = {"query": "SELECT {p:String}", "param_p": "x" * 100_000}
    body = "".join(
        f'--B\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{value}\r\n' for name, value in fields.items()
    )
    headers = {"Content-Type": "multipart/form-data; boundary=B"}
    assert store.ask("POST", "/", body + "--B--\r\n", headers).text == "x" * 100_000 + "\n"
    assert store.ask("POST", "/?query=SELECT+1", "nonsense", {"Content-Type": "multipart/form-data"}).status == 400
    file = '--B\r\nContent-Disposition: form-data; name="t"; filename="t"\r\n\r\n1\r\n--B--\r\n'
    assert store.ask("POST", "/?query=SELECT+1", file, headers).status == 501


def test_settings_of_the_url_shape_the_answer_for_visitors_too(store: StoreProcess) -> None:
    query = "SELECT toTypeName(date_trunc('day', toDateTime64('1926-01-01 10:00:00', 0, 'UTC')))"
    setting = "enable_extended_results_for_datetime_functions"
    assert store.visitor("SELECT 1 AS a FORMAT JSON", output_format_json_quote_64bit_integers="1").status == 200
    assert store.visitor(query, **{setting: "1"}).text.startswith("DateTime64")
    assert store.visitor(f"{query} SETTINGS {setting} = 1").text.startswith("DateTime64")
    assert store.service("SELECT getSetting('max_threads')", max_threads="1").text == "1\n"
    assert store.service("SELECT 1", no_such_setting="1").code == 115
    assert store.visitor("SELECT 1", readonly="1", session_id="s", wait_end_of_query="1").text == "1\n"


@pytest.mark.parametrize(
    ("query", "status", "code", "name"),
    [
        ("SELECT * FROM nothing", 404, 60, "UNKNOWN_TABLE"),
        ("SELECT nothing", 404, 47, "UNKNOWN_IDENTIFIER"),
        ("SELECT noSuchFunction(1)", 404, 46, "UNKNOWN_FUNCTION"),
        ("SELECT toUInt8('x')", 400, 6, "CANNOT_PARSE_TEXT"),
        ("SELECT 1 +", 400, 62, "SYNTAX_ERROR"),
        ("SELECTED", 400, 62, "SYNTAX_ERROR"),
        ("SELECT throwIf(1)", 500, 395, "FUNCTION_THROW_IF_VALUE_IS_NON_ZERO"),
        ("SELECT * FROM system.users", 403, 497, "ACCESS_DENIED"),
        ("SET a = 1", 403, 497, "ACCESS_DENIED"),
    ],
)
def test_errors_have_the_code_the_name_and_the_status_of_a_server(
    store: StoreProcess, query: str, status: int, code: int, name: str
) -> None:
    answer = store.visitor(query)
    assert (answer.status, answer.code) == (status, code), answer.text
    assert answer.text.startswith(f"Code: {code}. DB::Exception: ")
    assert answer.text.count("Code: ") == 1
    assert f"({name}) (version 26." in answer.text


def test_a_syntax_error_is_placed_in_the_clients_own_text(store: StoreProcess) -> None:
    answer = store.visitor("SELECT 1 FROM FROM x WHERE )")
    assert "failed at position 20 (x)" in answer.text
    assert "')' at position 28 has no matching" in answer.text


CODINGS = {
    "gzip": (gzip.compress, gzip.decompress),
    "deflate": (zlib.compress, zlib.decompress),
    "lz4": (lz4.frame.compress, lz4.frame.decompress),
    "zstd": (zstandard.compress, lambda data: zstandard.ZstdDecompressor().decompressobj().decompress(data)),
}


@pytest.mark.parametrize("coding", CODINGS)
def test_bodies_may_be_compressed_both_ways(store: StoreProcess, coding: str) -> None:
    compress, decompress = CODINGS[coding]
    query = b"SELECT number FROM numbers(150000)"
    plain = store.visitor(query)
    answer = store.ask("POST", "/", compress(query), {"Content-Encoding": coding})
    assert answer.body == plain.body
    headers = {"Accept-Encoding": coding}
    packed = store.ask("POST", "/?enable_http_compression=1", query, headers)
    assert packed.headers["Content-Encoding"] == coding
    assert decompress(packed.body) == plain.body
    small = store.ask("POST", "/?enable_http_compression=1", "SELECT 1", headers)
    assert decompress(small.body) == b"1\n"
    assert "Content-Encoding" not in store.ask("POST", "/", query, headers).headers


def test_an_unknown_coding_is_415_and_clickhouses_own_blocks_are_501(store: StoreProcess) -> None:
    assert store.ask("POST", "/", "SELECT 1", {"Content-Encoding": "br"}).status == 415
    assert store.ask("POST", "/?decompress=1", "SELECT 1").status == 501
    assert store.ask("POST", "/?compress=1", "SELECT 1").status == 501


def test_a_large_result_comes_in_pieces_and_whole(store: StoreProcess) -> None:
    answer = store.visitor("SELECT number FROM numbers(3000000)")
    assert answer.headers["Transfer-Encoding"] == "chunked"
    assert answer.body.count(b"\n") == 3_000_000
    assert answer.body.endswith(b"2999999\n")
    waited = store.visitor("SELECT number FROM numbers(3000000)", wait_end_of_query="1")
    assert waited.headers["Content-Length"] == str(len(answer.body))
    assert waited.body == answer.body


def test_an_error_behind_the_first_pieces_breaks_the_answer_off_with_a_mark(store: StoreProcess) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", store.port, timeout=60)
    connection.request("POST", "/", "SELECT throwIf(number = 900000) FROM numbers(1000000)")
    response = connection.getresponse()
    assert response.status == 200
    with pytest.raises(http.client.IncompleteRead) as broken:
        response.read()
    mark = response.headers["X-ClickHouse-Exception-Tag"]
    assert f"__exception__\r\n{mark}\r\nCode: 395. DB::Exception: ".encode() in broken.value.partial
    waited = store.visitor("SELECT throwIf(number = 900000) FROM numbers(1000000)", wait_end_of_query="1")
    assert (waited.status, waited.code) == (500, 395)


def test_a_result_that_cannot_stream_is_bounded(store: StoreProcess) -> None:
    answer = store.visitor("SELECT repeat('x', 1000) FROM numbers(40000) FORMAT JSON")
    assert answer.code == 396
    assert store.visitor("SELECT randomString(1000) FROM numbers(40000) FORMAT JSON").code == 396


def test_long_queries_neither_hold_others_up_nor_outlive_their_client(store: StoreProcess) -> None:
    slow = "SELECT count() FROM numbers(100000000000) WHERE NOT ignore(sipHash64(number))"
    running = (
        "SELECT count() FROM system.processes WHERE query LIKE '%sipHash64(number)%' AND query NOT LIKE '%processes%'"
    )
    leaving = http.client.HTTPConnection("127.0.0.1", store.port)
    leaving.request("POST", "/", slow)
    deadline = time.monotonic() + 20
    while store.service(running).text != "1\n":
        assert time.monotonic() < deadline
    started = time.monotonic()
    assert store.visitor("SELECT 1").text == "1\n"
    assert time.monotonic() - started < 5
    leaving.close()
    while store.service(running).text != "0\n":
        assert time.monotonic() < deadline + 20


def test_eight_queries_run_at_once(store: StoreProcess) -> None:
    answers = []
    asked = [threading.Thread(target=lambda: answers.append(store.service("SELECT sleep(1)").text)) for _ in range(8)]
    started = time.monotonic()
    for each in asked:
        each.start()
    for each in asked:
        each.join()
    assert answers == ["0\n"] * 8
    assert time.monotonic() - started < 5
