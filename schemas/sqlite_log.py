"""The embedded broker's file: one log of one partition in SQLite, which gateway and aggregator share.

The gateway appends, the aggregator reads, commits and prunes (EXACTLY_ONCE.md, 6).
"""

import sqlite3
import uuid
from pathlib import Path
from typing import Final

PARTITION: Final = 0
SCHEMA_VERSION: Final = 1
PRUNE_AGE_MS: Final = 24 * 3600 * 1000
"""Acknowledged records older than this are removed, in milliseconds of log time."""
PRUNE_BYTES: Final = 4 * 1024**3
"""Above this size acknowledged records are removed earlier; with nothing to remove the log is full."""
LEASE_SECONDS: Final = 10.0
"""A lease that did not change for this long on the watcher's monotonic clock may be taken."""

# AUTOINCREMENT: ids of pruned rows never come again. A reused position would meet a known token and vanish.
_TABLES: Final = """
CREATE TABLE IF NOT EXISTS topic (
    only_row INTEGER PRIMARY KEY CHECK (only_row = 1),
    id TEXT NOT NULL,
    schema_version INTEGER NOT NULL
) STRICT;
CREATE TABLE IF NOT EXISTS log (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    time_ms INTEGER NOT NULL,
    key BLOB NOT NULL,
    headers BLOB NOT NULL,
    value BLOB NOT NULL
) STRICT;
CREATE TABLE IF NOT EXISTS membership (
    group_name TEXT PRIMARY KEY,
    generation INTEGER NOT NULL,
    holder TEXT NOT NULL,
    renewals INTEGER NOT NULL,
    position INTEGER,
    metadata TEXT
) STRICT;
"""


class WrongFileError(Exception):
    """The file is not a broker of this version."""


def connect(path: Path, *, busy_seconds: float) -> sqlite3.Connection:
    """Open the broker's file, and make it where it does not exist yet.

    Autocommit: a transaction begins where the caller says `BEGIN IMMEDIATE`. May be used from one thread at a time,
    whichever it is.

    Args:
        path: of the file; its folder must exist.
        busy_seconds: how long a statement waits for another process's lock.

    Raises:
        sqlite3.OperationalError: the file is locked, unreadable, or the disk is full.
        WrongFileError: made by a newer version.
    """
    connection = sqlite3.connect(path, timeout=busy_seconds, isolation_level=None, check_same_thread=False)
    try:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = FULL")
        _make(connection)
    except BaseException:
        connection.close()
        raise
    return connection


def _make(connection: sqlite3.Connection) -> None:
    made = connection.execute("SELECT 1 FROM sqlite_schema WHERE name = 'topic'").fetchone()
    if not made:
        connection.execute("BEGIN IMMEDIATE")
        try:
            for statement in _TABLES.split(";"):
                connection.execute(statement)
            connection.execute("INSERT OR IGNORE INTO topic VALUES (1, ?, ?)", (uuid.uuid4().hex, SCHEMA_VERSION))
        except BaseException:
            connection.execute("ROLLBACK")
            raise
        connection.execute("COMMIT")
    (version,) = connection.execute("SELECT schema_version FROM topic").fetchone()
    if version != SCHEMA_VERSION:
        raise WrongFileError(
            f"the broker's file has schema {version}; this version of flagmeter reads {SCHEMA_VERSION}"
        )


def topic_id(connection: sqlite3.Connection) -> str:
    """Give the log's own id: a UUID made with the file, so that tokens of an older file mean nothing here."""
    (found,) = connection.execute("SELECT id FROM topic").fetchone()
    return str(found)


def used_bytes(connection: sqlite3.Connection) -> int:
    """Give the size of what the file holds, in bytes; pages that pruning freed do not count."""
    (pages,) = connection.execute("PRAGMA page_count").fetchone()
    (free,) = connection.execute("PRAGMA freelist_count").fetchone()
    (size,) = connection.execute("PRAGMA page_size").fetchone()
    return int((pages - free) * size)
