"""chDB, ClickHouse's engine in this process: the only module that imports it. Everything here blocks: use threads.

What was measured on chdb 4.4 (engine 26.9), and what follows from it:

- There is one engine in a process, for one directory. Its connections are independent: eight of them run eight queries
  at once, while a second query on the same one waits. So a request has a connection to itself, with a role and settings
  that nobody else sees. A new one costs 3 ms until its first answer, so idle ones are kept.
- Binary data inside the query's text is cut at the first line feed; `send_insert` takes it as it is, and squashes the
  blocks of the wire into one: 1,000,000 rows in 100 Native blocks became one part.
- `send_query` streams, but encodes each piece by itself, so only formats without a frame may be cut (`STREAMED`).
- Two processes can open one directory, and nothing stops them: the lock is ours.
"""

import fcntl
import importlib
import os
import re
import threading
import time
import uuid
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import structlog

from deploy.store import errors, privileges
from deploy.store.config import DATABASE, StoreConfig
from deploy.store.privileges import Role

STREAMED: Final = frozenset(
    {
        *("TabSeparated", "TSV", "TabSeparatedRaw", "TSVRaw", "Raw", "CSV", "RowBinary", "Native"),
        *("JSONEachRow", "JSONLines", "NDJSON", "JSONCompactEachRow", "JSONStringsEachRow"),
        *("JSONCompactStringsEachRow",),
        *("TSKV", "LineAsString", "RawBLOB", "MsgPack"),
    }
)
"""Formats whose pieces, one after another, are the whole: no header, no footer, no comma between rows."""


_log = structlog.get_logger()
_MOST_IDLE: Final = 24
_Kind = tuple[Role, str, bool, int]
_EXPLAIN: Final = b"EXPLAIN AST "


class LockedError(Exception):
    """Another process has this directory open."""


@dataclass(frozen=True, slots=True)
class Result:
    """What a query gave: its bytes, and what it read and wrote."""

    data: bytes = b""
    rows: int = 0
    read_rows: int = 0
    read_bytes: int = 0
    written_rows: int = 0
    written_bytes: int = 0


class Engine:
    """The engine, open in one directory from `open` to `close`."""

    def __init__(self, config: StoreConfig) -> None:
        self._config = config
        self._path = config.store_dir / "engine"
        self._lock: int | None = None
        self._chdb: Any = None
        self._first: Any = None  # the engine lives as long as one connection does
        self._idle: dict[_Kind, list[Session]] = {}
        self._idle_lock = threading.Lock()
        self.version = ""
        self.timezone = ""

    def open(self) -> None:
        """Lock the directory, start the engine, make the database.

        Raises:
            LockedError: another store has it.
            Fault: the engine cannot start there.
        """
        directory = self._config.store_dir
        directory.mkdir(parents=True, exist_ok=True)
        self._lock = _lock(directory / "lock")
        self._path.mkdir(exist_ok=True)
        users, server = directory / "users.xml", directory / "config.xml"
        users.write_text(privileges.users_xml(self._config), "utf-8")
        server.write_text(privileges.config_xml(self._config, users, self._path), "utf-8")
        # The engine takes its time zone from the environment, not from its configuration.
        os.environ["TZ"] = "UTC"
        time.tzset()
        # Not before it is needed: 1 s, and 400 MB of mapped code.
        _chdb: Any = importlib.import_module("chdb._chdb")
        # It would catch SIGTERM and SIGSEGV for itself.
        _chdb.reset_signal_handlers()
        self._chdb = _chdb
        try:
            self._first = _chdb.connect(f"{self._path}?config-file={server}")
            self._first.query(f"CREATE DATABASE IF NOT EXISTS {DATABASE}", "TabSeparated")
            row = self._first.query("SELECT version(), timezone()", "TabSeparated").bytes().decode()
        except RuntimeError as error:
            self.close()
            raise errors.parse(str(error)) from None
        self.version, self.timezone = row.strip().split("\t")

    def close(self) -> None:
        """Stop the engine and give the directory free. No session may be out."""
        with self._idle_lock:
            idle = [session for sessions in self._idle.values() for session in sessions]
            self._idle.clear()
        for session in idle:
            session.discard()
        if self._first is not None:
            self._first.close()
            self._first = None
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def session(
        self, role: Role, database: str, settings: Mapping[str, str], *, writes: bool, max_result: int = 0
    ) -> "Session":
        """Give a connection with a role's privileges and limits and a client's settings, an idle one if there is one.

        Args:
            role: what the connection may do; nothing that the guard lets through can change it.
            database: what unqualified names belong to.
            settings: of the client, already checked.
            writes: False for `readonly`; settings may change then, for a service any and for a visitor what the guard
                lets through. (With readonly=1 `system.settings` calls each of them readonly, and clients believe it.)
            max_result: bytes of a result, 0 for no limit but the role's.

        Raises:
            Fault: a setting or the database is unknown.
        """
        kind = (role, database, writes, max_result)
        with self._idle_lock:
            idle = self._idle.get(kind)
            session = idle.pop() if idle else None
        try:
            session = session or self._connect(kind)
            session.set(settings)
        except errors.Fault:
            if session is not None:
                session.discard()
            raise
        return session

    def _connect(self, kind: "_Kind") -> "Session":
        role, database, writes, max_result = kind
        held = privileges.limits(self._config, role)
        if max_result:
            held["max_result_bytes"] = str(min(max_result, int(held.get("max_result_bytes", max_result))))
            held["result_overflow_mode"] = "throw"
        if not writes:
            held["readonly"] = "2"
        tag = str(uuid.uuid4())
        try:
            connection = self._chdb.connect(f"{self._path}?database={database}")
        except RuntimeError as error:
            raise errors.parse(str(error)) from None
        session = Session(connection, tag, held, lambda session: self._take_back(kind, session))
        try:
            session.query(f"SET ROLE {role.value}")
            session.query(f"SET {_assignments({**held, 'log_comment': tag})}")
            if role is Role.VISITOR:
                # Its constraints hold the limits; the values of a profile do not reach a chDB connection.
                session.query("SET profile='visitor'")
        except errors.Fault:
            session.discard()
            raise
        return session

    def _take_back(self, kind: "_Kind", session: "Session") -> bool:
        with self._idle_lock:
            idle = self._idle.setdefault(kind, [])
            if self._first is None or sum(map(len, self._idle.values())) >= _MOST_IDLE:
                return False
            idle.append(session)
            return True

    def kill(self, tag: str) -> None:
        """Ask the engine to end what runs in the session of this tag; it looks at the next block."""
        connection = self._chdb.connect(f"{self._path}?database={DATABASE}")
        try:
            connection.query(f"KILL QUERY WHERE Settings['log_comment'] = {_quoted(tag)} ASYNC FORMAT Null", "Null")
        finally:
            connection.close()


class Session:
    """One connection, for one request at a time, and for one thread at a time.

    What a client sets is set back at the end; a connection that has seen an error is not used again.
    """

    def __init__(
        self, connection: Any, tag: str, held: Mapping[str, str], take_back: Callable[["Session"], bool]
    ) -> None:
        self.tag = tag
        self._connection = connection
        self._held = held
        self._take_back = take_back
        self._changed: Collection[str] = ()
        self._stream: Any = None
        self._sound = True

    def set(self, settings: Mapping[str, str]) -> None:
        """Take over a client's settings, until `close`."""
        self._changed = settings.keys()
        if settings:
            self.query(f"SET {_assignments(settings)}")

    def close(self) -> None:
        """Give the connection back, or end it: then a query that still streams is cancelled."""
        if self._stream is None and self._sound:
            try:
                if self._changed:
                    back = [
                        f"{name}={_quoted(self._held[name]) if name in self._held else 'DEFAULT'}"
                        for name in self._changed
                    ]
                    self.query(f"SET {', '.join(back)}")
                    self._changed = ()
                if self._take_back(self):
                    return
            except errors.Fault:
                _log.warning("settings could not be set back; the connection is ended", settings=list(self._changed))
        self.discard()

    @property
    def is_idle(self) -> bool:
        """Whether `close` only hands the connection back, and takes no time."""
        return self._stream is None and self._sound and not self._changed

    def discard(self) -> None:
        """End the connection."""
        connection, self._connection = self._connection, None
        if connection is None:
            return
        if self._stream is not None:
            connection.streaming_cancel_query(self._stream)
            self._stream = None
        connection.close()

    def query(
        self, text: str | bytes, output: str = "TabSeparated", parameters: Mapping[str, str] | None = None
    ) -> Result:
        """Run a statement and give its whole result.

        Args:
            text: one statement.
            output: the format, where the statement has no FORMAT clause.
            parameters: values of `{name:Type}`, escaped as in ClickHouse's HTTP interface.

        Raises:
            Fault: whatever the engine says.
        """
        try:
            found = self._connection.query(text, output, params=dict(parameters or {}))
            return Result(
                found.bytes(),
                rows=found.rows_read(),
                read_rows=found.storage_rows_read(),
                read_bytes=found.storage_bytes_read(),
                written_rows=found.rows_written(),
                written_bytes=found.bytes_written(),
            )
        except RuntimeError as error:
            raise self._fault(error) from None

    def tree(self, text: bytes, parameters: Mapping[str, str]) -> list[str]:
        """Give the engine's own tree of a statement, a line a node: 0.6 ms.

        Raises:
            Fault: it is no ClickHouse SQL, or a parameter is missing.
        """
        try:
            found = self.query(_EXPLAIN + text, "TSVRaw", parameters)
        except errors.Fault as fault:
            # The position counts from our own words.
            shift = lambda at: f"at position {max(1, int(at[1]) - len(_EXPLAIN))}"  # noqa: E731
            raise errors.Fault((fault.code, fault.name), re.sub(r"at position (\d+)", shift, fault.message)) from None
        return found.data.decode("utf-8", "replace").splitlines()

    def start(self, text: str | bytes, output: str, parameters: Mapping[str, str]) -> None:
        """Begin a query whose result `fetch` gives piece by piece."""
        try:
            self._stream = self._connection.send_query(text, output, params=dict(parameters))
        except RuntimeError as error:
            raise self._fault(error) from None

    def fetch(self) -> Result | None:
        """Give the next piece (one block of rows); None at the end.

        Raises:
            Fault: whatever the engine says; the first call says what a plain query would.
        """
        try:
            found = self._connection.streaming_fetch_result(self._stream)
            if found is None or found.rows_read() == 0:
                self._stream = None
                return None
            return Result(
                found.bytes(),
                rows=found.rows_read(),
                read_rows=found.storage_rows_read(),
                read_bytes=found.storage_bytes_read(),
            )
        except RuntimeError as error:
            self._stream = None
            raise self._fault(error) from None

    def insert(self, into: bytes, input_format: str, pieces: Iterable[bytes]) -> Result:
        """Run `INSERT INTO table (columns)` with data, in whatever pieces it comes; nothing is stored before the last.

        Raises:
            Fault: whatever the engine says; then nothing is stored.
        """
        try:
            stream = self._connection.send_insert(into, input_format)
        except RuntimeError as error:
            raise self._fault(error) from None
        try:
            for piece in pieces:
                self._connection.insert_append(stream, piece)
            done = self._connection.insert_done(stream)
        except RuntimeError as error:
            raise self._fault(error) from None
        except errors.Fault:  # the pieces themselves: a body that cannot be inflated
            self._sound = False
            self._connection.insert_cancel(stream)
            raise
        return Result(written_rows=done.rows_written(), written_bytes=done.bytes_written())

    def _fault(self, error: RuntimeError) -> errors.Fault:
        self._sound = False
        return errors.parse(str(error))


def _assignments(settings: Mapping[str, str]) -> str:
    return ", ".join(f"{name}={_quoted(value)}" for name, value in settings.items())


def _quoted(value: str) -> str:
    return "'" + value.replace("\\", "\\\\").replace("'", "\\'") + "'"


def _lock(path: Path) -> int:
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        raise LockedError(f"another store has {path.parent} open") from None
    return descriptor
