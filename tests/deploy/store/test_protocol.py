import json

import pytest

from deploy.store import protocol
from deploy.store.engine import Result
from deploy.store.errors import Fault
from deploy.store.privileges import Role


def test_parameters_are_sorted_into_what_they_mean():
    given = {
        "query": "SELECT 1",
        "param_a": "x",
        "insert_deduplication_token": "t",
        "wait_end_of_query": "1",
        "enable_http_compression": "1",
        "session_id": "s",
        "user": "service",
        "password": "p",
    }
    call = protocol.read(Role.SERVICE, "POST", given, {})
    assert (call.query, call.database, call.default_format) == ("SELECT 1", "flagmeter", "TabSeparated")
    assert call.settings == {"insert_deduplication_token": "t"}
    assert call.parameters == {"a": "x"}
    assert (call.wait, call.compress, call.writes) == (True, True, True)
    assert call.query_id
    assert not protocol.read(Role.SERVICE, "GET", given, {}).writes


@pytest.mark.parametrize(
    ("parameters", "code"),
    [
        ({"compress": "1"}, 48),
        ({"decompress": "1"}, 48),
        ({"role": "x"}, 48),
        ({"database": "a b"}, 81),
        ({"database": "x?y=z"}, 81),
        ({"default_format": "CSV;"}, 73),
        ({"query_id": "a\nb"}, 36),
        ({"query_id": "x" * 129}, 36),
        ({"max_threads": "1"}, 164),
        ({"readonly": "0"}, 164),
    ],
)
def test_a_parameter_that_cannot_be_used_is_an_error(parameters, code):
    with pytest.raises(Fault) as refused:
        protocol.read(Role.VISITOR, "POST", parameters, {})
    assert refused.value.code == code


def test_headers_stand_for_parameters_and_yield_to_them():
    headers = {"X-ClickHouse-Database": "system", "X-ClickHouse-Format": "CSV"}
    call = protocol.read(Role.VISITOR, "POST", {}, headers)
    assert (call.database, call.default_format) == ("system", "CSV")
    call = protocol.read(Role.VISITOR, "POST", {"database": "a", "default_format": "TSV", "compress": "0"}, headers)
    assert (call.database, call.default_format) == ("a", "TSV")


def test_a_summary_counts_in_strings():
    counts = json.loads(protocol.summary(Result(b"12", rows=1, read_rows=5, read_bytes=40), 0.5))
    assert counts["read_rows"] == "5"
    assert (counts["result_rows"], counts["result_bytes"], counts["elapsed_ns"]) == ("1", "2", "500000000")


@pytest.mark.parametrize(
    ("output", "expected"),
    [
        ("JSON", "application/json; charset=UTF-8"),
        ("JSONCompact", "application/json; charset=UTF-8"),
        ("Native", "application/octet-stream"),
        ("Pretty", "text/plain; charset=UTF-8"),
    ],
)
def test_content_types(output, expected):
    assert protocol.content_type(output) == expected
