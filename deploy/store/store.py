"""The store between HTTP and engine: who waits, what runs in which thread, what is checked before it runs."""

import asyncio
import contextlib
import itertools
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Final, TypeVar

from deploy.store import compression, guard, tree
from deploy.store.config import StoreConfig
from deploy.store.engine import STREAMED, Engine, Result, Session
from deploy.store.errors import (
    QUERY_IS_TOO_LARGE,
    READONLY,
    TOO_MANY_ROWS_OR_BYTES,
    TOO_MANY_SIMULTANEOUS_QUERIES,
    Fault,
)
from deploy.store.guard import Read, Statement
from deploy.store.inserts import Insert
from deploy.store.privileges import Role
from deploy.store.protocol import Call

T = TypeVar("T")

_PEEKED: Final = 2
"""So many pieces are fetched before the answer begins: a result of one has a length and a full summary."""
_PLANNED_HERE: Final = 1 << 14
"""Requests up to so many bytes are checked on the event loop: it takes less than the way to a thread and back."""
_SPARE_THREADS: Final = 4
"""For checking statements, killing queries and ending connections."""
_LOOK_SECONDS: Final = 0.5
"""How often a running query looks whether its client is still there."""
_LARGEST_LEXED_VALUES: Final = 1 << 20
_LITERALS_ONLY: Final = {
    "input_format_values_interpret_expressions": "0",
    "input_format_values_deduce_templates_of_expressions": "0",
}


@dataclass(frozen=True, slots=True)
class Body:
    """A request's body as it came, and its Content-Encoding."""

    pieces: tuple[bytes, ...] = ()
    coding: str = ""

    @property
    def size(self) -> int:
        """Bytes on the wire."""
        return sum(map(len, self.pieces))


@dataclass(frozen=True, slots=True)
class Plan:
    """A statement that passed the first check, with the data of an INSERT."""

    statement: Statement
    data: Iterable[bytes] = ()


class _Gate:
    """Lets so many through at a time; so many more may wait, the others are refused at once."""

    def __init__(self, running: int, waiting: int) -> None:
        self._free = asyncio.Semaphore(running)
        self._may_wait = waiting
        self._waiting = 0

    @contextlib.asynccontextmanager
    async def entered(self) -> AsyncGenerator[None]:
        if self._free.locked() and self._waiting >= self._may_wait:
            raise Fault(TOO_MANY_SIMULTANEOUS_QUERIES, f"Too many simultaneous queries: {self._waiting} wait already")
        self._waiting += 1
        try:
            await self._free.acquire()
        finally:
            self._waiting -= 1
        try:
            yield
        finally:
            self._free.release()


class Store:
    """Runs what requests ask for. Visitors, reads and writes have places of their own: none keeps another waiting."""

    def __init__(self, config: StoreConfig) -> None:
        self._config = config
        self._engine = Engine(config)
        visits = max(1, config.store_max_reads // 2)
        running = {"visits": visits, "reads": config.store_max_reads, "writes": config.store_max_writes}
        self._threads = ThreadPoolExecutor(sum(running.values()) + _SPARE_THREADS, "store")
        self._visits, self._reads, self._writes = (_Gate(each, config.store_max_waiting) for each in running.values())

    @property
    def version(self) -> str:
        """The engine's version."""
        return self._engine.version

    @property
    def timezone(self) -> str:
        """The engine's time zone."""
        return self._engine.timezone

    def open(self) -> None:
        """Start the engine: about a second. Raises what `Engine.open` raises."""
        self._engine.open()

    def close(self) -> None:
        """Wait for what still runs, then stop the engine."""
        self._threads.shutdown(wait=True)
        self._engine.close()

    async def plan(self, call: Call, body: Body) -> Plan:
        """Find out what a request's text is, and check it.

        Raises:
            Fault: it is refused.
        """
        limit = self._config.store_max_body
        if not body.coding and body.size + len(call.query) <= _PLANNED_HERE:
            plan = _plan(call, body, limit)
        else:
            plan = await self._in_thread(lambda: _plan(call, body, limit))
        if not call.writes and not isinstance(plan.statement, Read):
            raise Fault(
                READONLY,
                "Cannot execute query in readonly mode. For queries over HTTP, method GET implies readonly. "
                "You should use method POST for modifying queries",
            )
        return plan

    async def write(self, call: Call, plan: Plan) -> Result:
        """Run an INSERT with data, or a change; it is finished even when its client goes away."""
        async with self._writes.entered():
            return await self._finish(lambda: self._write(call, plan))

    @contextlib.asynccontextmanager
    async def reading(
        self, call: Call, statement: Read, is_gone: Callable[[], bool]
    ) -> AsyncGenerator[tuple[list[Result], AsyncIterator[Result]]]:
        """Run a reading statement; gives the first pieces of its result (all, when less than two), and the others.

        Args:
            call: the request.
            statement: from `plan`.
            is_gone: whether the client has left; its query is then ended.
        """
        whole = guard.WHOLE_RESULT & call.settings.keys()
        streams = statement.streams and not whole and (statement.format or call.default_format) in STREAMED
        gate = self._visits if call.role is Role.VISITOR else self._reads
        async with gate.entered():
            session: list[Session] = []
            try:
                begun = await self._watched(
                    session, is_gone, lambda: self._begin(call, statement, session, streams=streams)
                )
                yield begun, self._others(session, is_gone)
            finally:
                if session and session[0].is_idle:
                    session[0].close()
                elif session:
                    await self._finish(session[0].close)

    async def _others(self, session: list[Session], is_gone: Callable[[], bool]) -> AsyncIterator[Result]:
        while (piece := await self._watched(session, is_gone, session[0].fetch)) is not None:
            yield piece

    def _begin(self, call: Call, statement: Read, opened: list[Session], *, streams: bool) -> list[Result]:
        session = self._engine.session(
            call.role,
            call.database,
            call.settings,
            writes=call.role is Role.SERVICE and call.writes,
            max_result=0 if streams else self._config.store_max_buffered_result,
        )
        opened.append(session)
        self._check_tree(session, call, statement.text)
        text = statement.text.encode("latin-1")
        if not streams:
            result = session.query(text, call.default_format, call.parameters)
            # The engine's own limit does not see what a format adds, nor that a constant is written in every row.
            check_buffered(len(result.data), self._config.store_max_buffered_result)
            return [result]
        session.start(text, call.default_format, call.parameters)
        return [piece for _ in range(_PEEKED) if (piece := session.fetch()) is not None]

    def _check_tree(self, session: Session, call: Call, text: str) -> None:
        lines = session.tree(text.encode("latin-1"), call.parameters)
        tree.check(lines, call.role, call.database)

    def _write(self, call: Call, plan: Plan) -> Result:
        statement = plan.statement
        settings = dict(call.settings)
        if isinstance(statement, Insert):
            settings |= statement.settings
            data = plan.data
            if statement.format.lower() == "values":
                data, literals_only = _checked_values(data)
                settings |= literals_only
            with contextlib.closing(self._engine.session(call.role, call.database, settings, writes=True)) as session:
                return session.insert(statement.into.encode("latin-1"), statement.format, data)
        with contextlib.closing(self._engine.session(call.role, call.database, settings, writes=True)) as session:
            self._check_tree(session, call, statement.text)
            return session.query(statement.text.encode("latin-1"), call.default_format, call.parameters)

    async def _watched(self, session: list[Session], is_gone: Callable[[], bool], work: Callable[[], T]) -> T:
        """Run in a thread; when the client goes or the store ends, the query is killed, and its end awaited."""
        running = asyncio.get_running_loop().run_in_executor(self._threads, work)
        killed = False
        while True:
            try:
                done, _ = await asyncio.wait({running}, timeout=_LOOK_SECONDS)
            except asyncio.CancelledError:
                await self._kill(session)
                await asyncio.wait({running})
                running.exception()
                raise
            if done:
                return running.result()
            if session and not killed and is_gone():
                killed = True
                await self._kill(session)

    async def _kill(self, session: list[Session]) -> None:
        if session:
            await self._in_thread(lambda: self._engine.kill(session[0].tag))

    async def _finish(self, work: Callable[[], T]) -> T:
        """Run in a thread to its end, even when this task is cancelled meanwhile."""
        running = asyncio.get_running_loop().run_in_executor(self._threads, work)
        try:
            return await asyncio.shield(running)
        except asyncio.CancelledError:
            await asyncio.wait({running})
            raise

    async def _in_thread(self, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._threads, work)


def _plan(call: Call, body: Body, limit: int) -> Plan:
    pieces = compression.inflate(body.coding, body.pieces, limit)
    query = call.query.encode()
    if query:
        # ClickHouse: the parameter, a line feed, the body.
        pieces = itertools.chain((query, b"\n"), pieces)
    head, size = [], 0
    for piece in pieces:
        head.append(piece)
        size += len(piece)
        if size > guard.MAX_QUERY_BYTES:
            break
    begun = b"".join(head)
    statement = guard.check(begun.decode("latin-1"), call.role)
    if isinstance(statement, Insert):
        return Plan(statement, itertools.chain((begun[statement.data_at :],), pieces))
    return Plan(statement)


def _checked_values(data: Iterable[bytes]) -> tuple[Iterator[bytes], dict[str, str]]:
    """Check the expressions in VALUES; where they are too long for that, only literals are read."""
    pieces = iter(data)
    begun = b""
    for piece in pieces:
        begun += piece
        if len(begun) > _LARGEST_LEXED_VALUES:
            return itertools.chain((begun,), pieces), dict(_LITERALS_ONLY)
    guard.check_values(begun.decode("latin-1"))
    return iter((begun,)), {}


def joined(results: list[Result]) -> Result:
    """Add up the pieces of a result."""
    if len(results) == 1:
        return results[0]
    return replace(
        Result(b"".join(piece.data for piece in results)),
        rows=sum(piece.rows for piece in results),
        read_rows=max((piece.read_rows for piece in results), default=0),
        read_bytes=max((piece.read_bytes for piece in results), default=0),
    )


def check_buffered(size: int, limit: int) -> None:
    """Refuse a result that is too large to be held whole."""
    if size > limit:
        raise Fault(
            TOO_MANY_ROWS_OR_BYTES, f"Limit for result exceeded, max bytes: {limit}; take a format that streams"
        )


def check_held(size: int, limit: int) -> None:
    """Refuse a body when all bodies together are too large to be held."""
    if size > limit:
        raise Fault(TOO_MANY_SIMULTANEOUS_QUERIES, "Too many large requests at the same time")


def check_body(size: int, limit: int) -> None:
    """Refuse a request's body that is too large."""
    if size > limit:
        raise Fault(QUERY_IS_TOO_LARGE, f"The request's body is larger than {limit} bytes")
