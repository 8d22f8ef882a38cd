"""Bring the store's tables to this version: what stands in `schemas/migrations`, in order, each once.

What was applied stands in the table `migrations` (a plain one: no deduplication window, its inserts need no token).
"""

import re
import time
from collections.abc import Callable
from typing import Any, Final

import clickhouse_connect
from clickhouse_connect.driver.client import Client
from clickhouse_connect.driver.exceptions import ClickHouseError, DatabaseError

from deploy import migrations
from deploy.migrations import Migration, RefusedMigrationError, StoreAwayError
from schemas.clickhouse import client_options, wrong_setting
from schemas.tables import EVALUATIONS, REJECTED
from schemas.urls import ClickHouse

_TABLE: Final = "migrations"
_POLL_SECONDS: Final = 0.1
_SAY_EVERY_SECONDS: Final = 5.0
_WINDOW: Final = re.compile(r"non_replicated_deduplication_window = (\d+)")
_WRONG_USER: Final = frozenset({192, 193, 194, 497, 516})
"""ClickHouse's codes: unknown user, wrong or missing password, access denied, authentication failed."""

Say = Callable[[str], None]


def run(
    clickhouse: ClickHouse,
    *,
    partitions: int,
    flush_seconds: float,
    wait_seconds: float = 30.0,
    say: Say = lambda _: None,
    pause: Callable[[float], None] = time.sleep,
) -> list[Migration]:
    """Apply what is pending; harmless to repeat, and when two run at once.

    Args:
        clickhouse: where; its database is made where it is missing.
        partitions: of the log; widens the deduplication window.
        flush_seconds: the longest time that a batch stays open; widens the window, too.
        wait_seconds: how long to wait for the store to answer.
        say: gets a line for each step.
        pause: waits so many seconds between two attempts to reach the store; may raise to give up.

    Returns:
        What was applied.

    Raises:
        StoreAwayError: no answer in time.
        RefusedMigrationError: the store does not fit this version, or refuses a statement.
    """
    width = migrations.window(partitions=partitions, flush_seconds=flush_seconds)
    client = connect(clickhouse, wait_seconds=wait_seconds, say=say, pause=pause)
    try:
        todo = migrations.pending(migrations.files(), applied(client, clickhouse.database))
        if todo:
            _make_place(client, clickhouse.database)
        for migration in todo:
            for statement in migration.statements(database=clickhouse.database, window=width):
                _command(client, statement, f"{migration.number:04}_{migration.name}.sql")
            _record(client, clickhouse.database, migration)
            say(f"applied {migration.number:04} {migration.name}")
        _widen(client, clickhouse.database, width, say)
        return todo
    finally:
        client.close()


def connect(
    clickhouse: ClickHouse, *, wait_seconds: float, say: Say, pause: Callable[[float], None] = time.sleep
) -> Client:
    """Connect as soon as the store answers.

    The database is named in each statement, not in the connection: it may not exist yet.

    Raises:
        StoreAwayError: no answer in time.
        RefusedMigrationError: it answers, but refuses the user, or TLS does not fit.
    """
    where = f"{'https' if clickhouse.secure else 'http'}://{clickhouse.host}:{clickhouse.port}"
    deadline = time.monotonic() + wait_seconds
    said = time.monotonic()
    while True:
        try:
            return clickhouse_connect.get_client(
                **client_options(clickhouse),
                database="",
                autogenerate_session_id=False,  # a session would make two statements wait for each other
                connect_timeout=5,
            )
        except ClickHouseError as error:
            if getattr(error, "code", None) in _WRONG_USER:
                raise RefusedMigrationError(
                    f"the store at {where} refuses the user {clickhouse.user or 'without name'!r}: "
                    "give user and password in FLAGMETER_CLICKHOUSE_URL"
                ) from error
            reason = wrong_setting(error)
            if reason is not None:
                raise RefusedMigrationError(f"{where}: {reason} ({_root(error)})") from error
            now = time.monotonic()
            if now >= deadline:
                raise StoreAwayError(
                    f"the store at {where} did not answer within {wait_seconds:g} s: is it running, and is "
                    f"FLAGMETER_CLICKHOUSE_URL right? ({_first_line(error)})"
                ) from error
            if now - said >= _SAY_EVERY_SECONDS:
                said = now
                say(f"waiting for the store at {where} ({deadline - now:.0f} s left)")
            pause(_POLL_SECONDS)


def applied(client: Client, database: str) -> dict[int, tuple[str, str]]:
    """Read what was applied, by number: name and SHA-256; nothing where there is no such table yet."""
    found = _rows(
        client,
        "SELECT count() FROM system.tables WHERE database = {database:String} AND name = {table:String}",
        {"database": database, "table": _TABLE},
    )
    if not found[0][0]:
        return {}
    rows = _rows(client, f"SELECT number, name, sha256 FROM `{database}`.{_TABLE} ORDER BY applied", {})  # noqa: S608 - parse_clickhouse lets only word characters through
    return {number: (name, sha256) for number, name, sha256 in rows}


def preview(clickhouse: ClickHouse, todo: list[Migration], *, partitions: int, flush_seconds: float) -> list[str]:
    """Give the statements that `run` would send for these migrations."""
    width = migrations.window(partitions=partitions, flush_seconds=flush_seconds)
    return [
        statement
        for migration in todo
        for statement in migration.statements(database=clickhouse.database, window=width)
    ]


def _make_place(client: Client, database: str) -> None:
    # Asked first: a user without the right to make databases may still use one that is there.
    if not _rows(client, "SELECT count() FROM system.databases WHERE name = {name:String}", {"name": database})[0][0]:
        _command(client, f"CREATE DATABASE IF NOT EXISTS `{database}`", "the database")
    _command(
        client,
        f"CREATE TABLE IF NOT EXISTS `{database}`.{_TABLE} (number UInt32, name String, sha256 String, "
        "applied DateTime64(3, 'UTC') DEFAULT now64(3)) ENGINE = MergeTree ORDER BY number",
        f"the table {_TABLE}",
    )


def _record(client: Client, database: str, migration: Migration) -> None:
    # As a statement: the driver's own insert loads pandas, which takes seconds and 100 MB.
    _command(
        client,
        f"INSERT INTO `{database}`.{_TABLE} (number, name, sha256) "
        "SELECT {number:UInt32}, {name:String}, {sha256:String}",
        f"the record of {migration.number:04}",
        {"number": migration.number, "name": migration.name, "sha256": migration.sha256},
    )


def _widen(client: Client, database: str, width: int, say: Say) -> None:
    """Raise the window of tables that were made for fewer partitions; it is never narrowed, which would drop tokens."""
    rows = _rows(
        client,
        "SELECT name, engine_full FROM system.tables "
        "WHERE database = {database:String} AND name IN {names:Array(String)}",
        {"database": database, "names": [EVALUATIONS, REJECTED]},
    )
    for name, engine in rows:
        found = _WINDOW.search(engine)
        if found and int(found[1]) < width:
            setting = f"ALTER TABLE `{database}`.{name} MODIFY SETTING non_replicated_deduplication_window = {width}"
            _command(client, setting, f"the deduplication window of {name}")
            say(f"{name}: deduplication window {found[1]} -> {width}")


def _command(client: Client, statement: str, what: str, parameters: dict[str, Any] | None = None) -> None:
    try:
        client.command(statement, parameters=parameters)
    except DatabaseError as error:
        raise RefusedMigrationError(f"the store refuses {what}: {_first_line(error)}") from error


def _rows(client: Client, query: str, parameters: dict[str, Any]) -> list[tuple[Any, ...]]:
    try:
        return [tuple(row) for row in client.query(query, parameters=parameters).result_rows]
    except DatabaseError as error:
        raise RefusedMigrationError(f"the store refuses to say what it holds: {_first_line(error)}") from error


def _root(error: BaseException) -> str:
    """Give the text of what the driver's errors were made from: theirs hold whole URLs."""
    while error.__cause__ or error.__context__:
        error = error.__cause__ or error.__context__ or error
    return str(error)


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:300]
