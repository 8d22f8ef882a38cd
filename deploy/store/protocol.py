"""ClickHouse's HTTP interface, the pure part: what a request asks for, and the headers of an answer.

The interface: clickhouse.com/docs/interfaces/http. Left out, and answered 501: sessions' state, external tables,
ClickHouse's own block compression (`compress=1`, `decompress=1`), roles by URL.
"""

import json
import re
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from deploy.store import privileges
from deploy.store.config import DATABASE
from deploy.store.engine import Result
from deploy.store.errors import (
    ACCESS_DENIED,
    BAD_ARGUMENTS,
    NOT_IMPLEMENTED,
    READONLY,
    UNKNOWN_DATABASE,
    UNKNOWN_FORMAT,
    Fault,
)
from deploy.store.privileges import Role

DEFAULT_FORMAT: Final = "TabSeparated"

_TRANSPORT: Final = frozenset(
    {
        *("query", "database", "user", "password", "default_format", "query_id", "wait_end_of_query", "quota_key"),
        *("session_id", "session_timeout", "session_check", "close_session", "buffer_size", "client_protocol_version"),
        *("compress", "decompress", "role", "readonly", "enable_http_compression", "http_zlib_compression_level"),
        *("send_progress_in_http_headers", "http_headers_progress_interval_ms", "http_wait_end_of_query"),
        *("http_response_buffer_size", "add_http_cors_header", "cancel_http_readonly_queries_on_client_close"),
        *("http_write_exception_in_output_format", "stacktrace", "log_queries", "send_logs_level", "log_comment"),
        *("receive_timeout", "send_timeout", "connect_timeout"),
    }
)
"""URL parameters that are for the front, or that mean nothing to an engine without a network."""

_WORD: Final = re.compile(r"\w+", re.ASCII)
_QUERY_ID: Final = re.compile(r"[\w.:-]{1,128}", re.ASCII)
_ON: Final = frozenset({"1", "true"})


@dataclass(frozen=True, slots=True)
class Call:
    """What a request asks for beside its text."""

    role: Role
    query: str
    database: str
    query_id: str
    default_format: str
    settings: dict[str, str]
    parameters: dict[str, str]
    wait: bool
    compress: bool
    writes: bool
    """False for GET and HEAD, which only read."""


def read(role: Role, method: str, parameters: Mapping[str, str], headers: Mapping[str, str]) -> Call:
    """Read a request's URL and headers.

    Args:
        role: whom it is for.
        method: GET and HEAD only read.
        parameters: of the URL, and of a form; the first one of a name counts.
        headers: `X-ClickHouse-Database` and `-Format` stand for the parameters of that name.

    Raises:
        Fault: a parameter is refused or cannot be used.
    """
    for name in ("compress", "decompress", "role"):
        if parameters.get(name, "0") not in {"", "0", "false"}:
            raise Fault(NOT_IMPLEMENTED, f"The embedded store does not know the parameter '{name}'")
    database = parameters.get("database") or headers.get("X-ClickHouse-Database") or DATABASE
    if not _WORD.fullmatch(database):
        raise Fault(UNKNOWN_DATABASE, f"Database {database[:80]} does not exist")
    output = parameters.get("default_format") or headers.get("X-ClickHouse-Format") or DEFAULT_FORMAT
    if not _WORD.fullmatch(output):
        raise Fault(UNKNOWN_FORMAT, f"Unknown format {output[:80]}")
    query_id = parameters.get("query_id", "")
    if query_id and not _QUERY_ID.fullmatch(query_id):
        raise Fault(BAD_ARGUMENTS, "A query_id has at most 128 letters, digits, and '_', '.', ':', '-'")
    return Call(
        role=role,
        query=parameters.get("query", ""),
        database=database,
        query_id=query_id or str(uuid.uuid4()),
        default_format=output,
        settings=_settings(role, parameters),
        parameters={name[6:]: value for name, value in parameters.items() if name.startswith("param_")},
        wait=parameters.get("wait_end_of_query") in _ON or parameters.get("http_wait_end_of_query") in _ON,
        compress=parameters.get("enable_http_compression") in _ON,
        writes=method == "POST",
    )


def _settings(role: Role, parameters: Mapping[str, str]) -> dict[str, str]:
    settings = {}
    for name, value in parameters.items():
        if name in _TRANSPORT or name.startswith("param_"):
            continue
        if not privileges.may_set(role, name):
            if role is Role.VISITOR:
                raise Fault(READONLY, f"Cannot modify '{name[:80]}' setting in readonly mode")
            raise Fault(ACCESS_DENIED, f"Cannot modify '{name[:80]}' setting in the embedded store")
        settings[name] = value
    if role is Role.VISITOR and parameters.get("readonly", "1") not in {"1", "2"}:
        raise Fault(READONLY, "Cannot modify 'readonly' setting in readonly mode")
    return settings


_CONTENT_TYPES: Final = {
    "TabSeparated": "text/tab-separated-values; charset=UTF-8",
    "TSV": "text/tab-separated-values; charset=UTF-8",
    "CSV": "text/csv; charset=UTF-8; header=absent",
    "CSVWithNames": "text/csv; charset=UTF-8; header=present",
    "JSONEachRow": "application/x-ndjson; charset=UTF-8",
    "XML": "application/xml; charset=UTF-8",
    "Native": "application/octet-stream",
    "RowBinary": "application/octet-stream",
    "Parquet": "application/octet-stream",
    "Arrow": "application/octet-stream",
    "ArrowStream": "application/octet-stream",
}


def content_type(output: str) -> str:
    """Give the Content-Type of a format, as ClickHouse names it."""
    if output.startswith("JSON") and "EachRow" not in output:
        return "application/json; charset=UTF-8"
    return _CONTENT_TYPES.get(output, "text/plain; charset=UTF-8")


def base_headers(query_id: str, timezone: str) -> dict[str, str]:
    """Give the headers of every answer, errors too."""
    return {
        "X-ClickHouse-Server-Display-Name": "flagmeter",
        "X-ClickHouse-Query-Id": query_id,
        "X-ClickHouse-Timezone": timezone,
    }


def summary(result: Result, seconds: float) -> str:
    """Give X-ClickHouse-Summary: counts as strings, as a server writes them."""
    counts = {
        "read_rows": result.read_rows,
        "read_bytes": result.read_bytes,
        "written_rows": result.written_rows,
        "written_bytes": result.written_bytes,
        "total_rows_to_read": result.read_rows,
        "result_rows": result.rows or result.written_rows,
        "result_bytes": len(result.data) or result.written_bytes,
        "elapsed_ns": int(seconds * 1e9),
    }
    return json.dumps({name: str(count) for name, count in counts.items()}, separators=(",", ":"))


def late_error(message: str, tag: str) -> bytes:
    """Give what follows a result that broke off: ClickHouse's marked block, as servers from 25.11 write it."""
    text = message.encode()
    mark = tag.encode()
    return b"\r\n__exception__\r\n%b\r\n%b%d %b\r\n__exception__\r\n" % (mark, text, len(text), mark)
