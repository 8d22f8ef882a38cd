"""A simulated ClickHouse: parts, tokens in a window, markers; and a worker's side of it.

What it takes from the real one: an insert is one part for each block and ClickHouse partition; a token is known by
(partition, ordinal of the block), in a window for each table, first in first out; a known token is answered with
success. A token may be recorded while its part is lost, and tokens may be forgotten while their part is there.
"""

from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from typing import Any, Final, NamedTuple, TypeVar

from aggregator.ports import Block, StoreError
from schemas.insert import INSERT_SECONDS
from schemas.limits import MARKER_PROJECT
from schemas.markers import HOME, Range
from schemas.tables import ADDITIVE, COLUMNS, EVALUATION_COLUMNS
from tests.simulation.loop import current
from tests.simulation.wire import CALM, Odds, Wire

T = TypeVar("T")

MAX_BLOCK_ROWS: Final = 1_048_449
_ANSWER_SECONDS: Final = INSERT_SECONDS + 10.0
_PROJECT: Final = list(EVALUATION_COLUMNS).index("project")
_ENVIRONMENT: Final = list(EVALUATION_COLUMNS).index("environment")
_FEATURE: Final = list(EVALUATION_COLUMNS).index("feature")
_VARIABLE: Final = list(EVALUATION_COLUMNS).index("variable")
_VARIANT: Final = list(EVALUATION_COLUMNS).index("variant")
_DAY_SECONDS: Final = 86_400
_CODES: Final = ((159, True), (202, True), (252, True), (242, True), (999, True), (241, False))


class Marker(NamedTuple):
    """What a marker row says."""

    topic_id: str
    partition: str
    span: Range


class Part(NamedTuple):
    """Rows that came to be there at once, in the order of the table's columns."""

    table: str
    rows: list[tuple[Any, ...]]
    markers: list[Marker]
    stored: float


class _TokenKey(NamedTuple):
    month: str
    ordinal: int
    token: str


class _Known(NamedTuple):
    key: _TokenKey
    stored: float


class Tables:
    """What the server has on its disk."""

    def __init__(self, *, window: int = 100_000) -> None:
        self.window = window
        self.parts: list[Part] = []
        self.cut: Callable[[Block], list[Block]] = lambda block: [block]
        """Breaks it on purpose: into which blocks the client cuts an insert."""
        self._tokens: dict[str, deque[_Known]] = {table: deque() for table in COLUMNS}
        self._known: dict[str, set[_TokenKey]] = {table: set() for table in COLUMNS}

    def insert(self, block: Block, token: str, now: float, *, torn: bool = False) -> None:
        """Insert under a token; `torn`: the server dies between the token and the part."""
        if block.table not in COLUMNS:
            raise StoreError(f"no table {block.table}", code=60, passing=False)
        pieces = [piece for cut in self.cut(block) for piece in _below_limit(cut)]
        for ordinal, piece in enumerate(pieces):
            for month, rows in _by_month(piece):
                key = _TokenKey(month, ordinal, token)
                if key in self._known[block.table]:
                    continue
                self._remember(block.table, _Known(key, now))
                if not torn:
                    self.parts.append(Part(block.table, rows, list(_markers(block.table, rows)), now))

    def last_marked(self, topic_id: str, partition: int) -> int | None:
        """Find the last position of the largest home marker."""
        return max((each.span.last for each in self.markers(HOME, topic_id, partition)), default=None)

    def marked_tables(self, topic_id: str, partition: int, span: Range) -> frozenset[str]:
        """Say which additive tables hold a range's marker."""
        return frozenset(
            table for table in ADDITIVE if any(each.span == span for each in self.markers(table, topic_id, partition))
        )

    def ranges_beyond(self, topic_id: str, partition: int, position: int) -> list[Range]:
        """List ranges that other additive tables hold beyond a position."""
        spans = {
            each.span
            for table in ADDITIVE
            if table != HOME
            for each in self.markers(table, topic_id, partition)
            if each.span.first > position
        }
        return sorted(spans, key=lambda span: span.first)

    def markers(self, table: str, topic_id: str, partition: int) -> Iterator[Marker]:
        """List a partition's markers, in the order in which they were stored."""
        wanted = (topic_id, str(partition))
        for part in self.parts:
            if part.table == table:
                for each in part.markers:
                    if each[:2] == wanted:
                        yield each

    def sums(self) -> Counter[tuple[object, ...]]:
        """Add up the home table's rows but for markers: by key and by what was counted."""
        sums: Counter[tuple[object, ...]] = Counter()
        names = list(EVALUATION_COLUMNS)
        key = names.index("received")
        for row in self.rows(HOME):
            if row[_PROJECT] != MARKER_PROJECT:
                for at, name in enumerate(("yes", "no", "count"), start=key + 1):
                    if row[at]:
                        sums[(*row[:key], name)] += row[at]
        return sums

    def rows(self, table: str) -> Iterator[tuple[Any, ...]]:
        """List a table's rows."""
        for part in self.parts:
            if part.table == table:
                yield from part.rows

    def forget_tokens(self, newest: int) -> None:
        """Lose the newest tokens of each table: their log is not fsynced."""
        for table, log in self._tokens.items():
            for _ in range(min(newest, len(log))):
                self._known[table].discard(log.pop().key)

    def restore(self, at: float, *, tokens: bool) -> None:
        """Bring back the state as it was; `tokens` says whether the tokens' log is restored, too, or stays."""
        self.parts = [part for part in self.parts if part.stored <= at]
        if tokens:
            for table, log in self._tokens.items():
                self._tokens[table] = deque(each for each in log if each.stored <= at)
                self._known[table] = {each.key for each in self._tokens[table]}

    def _remember(self, table: str, known: _Known) -> None:
        log = self._tokens[table]
        log.append(known)
        self._known[table].add(known.key)
        while len(log) > self.window:
            self._known[table].discard(log.popleft().key)


class StoreOdds(NamedTuple):
    """How often the server, and not the wire, fails."""

    refused: float = 0.0
    torn: float = 0.0
    connecting: float = 0.0


class OpenInsert:
    """An insert that was begun."""

    def __init__(self, process: str, block: Block) -> None:
        self.process = process
        self.block = block


class Server:
    """The server: the tables, and whether it is up."""

    def __init__(self, wire: Wire, *, window: int = 100_000) -> None:
        self.wire = wire
        self.tables = Tables(window=window)
        self.odds: Odds = CALM
        self.own_odds = StoreOdds()
        self.down_until = 0.0
        self.incarnation = 0
        """Raised at a crash that breaks all connections: what was sent on them never takes effect."""
        self.open: set[OpenInsert] = set()
        """Inserts that were begun and may still take effect."""

    def crash(self, seconds: float) -> None:
        """Die, with all that was under way, and come back after a while."""
        self.incarnation += 1
        self.open.clear()
        self.down_until = self.wire.loop.time() + seconds

    def insert(self, block: Block, token: str, incarnation: int) -> None:
        """Take an insert."""
        self._assert_up(incarnation)
        drawn = self.wire.dice.random() if any(self.own_odds) else 1.0
        if drawn < self.own_odds.refused:
            code, passing = self.wire.dice.choice(_CODES)
            self.wire.trace.add("store", "refuses", token, code)
            raise StoreError(f"error {code}", code=code, passing=passing)
        now = self.wire.loop.time()
        if drawn < self.own_odds.refused + self.own_odds.torn and "-r" not in token:
            self.wire.trace.add("store", "loses", "the part of", block.table, token)
            self.tables.insert(block, token, now, torn=True)
            self.down_until = now + self.wire.dice.uniform(0.1, 3.0)
            raise StoreError("connection reset")
        before = len(self.tables.parts)
        self.tables.insert(block, token, now)
        self.wire.trace.add("store", "stored" if len(self.tables.parts) > before else "knows", block.table, token)

    def select(self, work: Callable[[], T], incarnation: int) -> T:
        """Take a question."""
        self._assert_up(incarnation)
        return work()

    def _assert_up(self, incarnation: int) -> None:
        if self.wire.loop.time() < self.down_until or incarnation != self.incarnation:
            raise StoreError("connection refused", code=210)


class SimulatedStore:
    """A worker's client of the server."""

    def __init__(self, server: Server) -> None:
        self._server = server

    async def check(self, partitions: int) -> None:
        await self._ask("check", lambda: None)

    async def last_marked(self, topic_id: str, partition: int) -> int | None:
        return await self._ask("last_marked", lambda: self._server.tables.last_marked(topic_id, partition))

    async def marked_tables(self, topic_id: str, partition: int, span: Range) -> frozenset[str]:
        return await self._ask("marked", lambda: self._server.tables.marked_tables(topic_id, partition, span))

    async def ranges_beyond(self, topic_id: str, partition: int, position: int) -> list[Range]:
        return await self._ask("ranges", lambda: self._server.tables.ranges_beyond(topic_id, partition, position))

    async def insert(self, block: Block, token: str) -> None:
        server = self._server
        incarnation = server.incarnation
        entry = OpenInsert(current(), block)
        server.open.add(entry)

        def close() -> None:
            server.open.discard(entry)

        def work() -> None:
            close()
            server.insert(block, token, incarnation)

        try:
            if server.own_odds.connecting and server.wire.dice.random() < server.own_odds.connecting:
                await server.wire.pause(server.wire.dice.uniform(0.001, 0.5))
        except BaseException:
            close()
            raise
        await server.wire.ask(
            f"insert {token}", work, odds=server.odds, patience=_ANSWER_SECONDS, away=StoreError, dropped=close
        )

    async def _ask(self, name: str, work: Callable[[], T]) -> T:
        server = self._server
        incarnation = server.incarnation
        return await server.wire.ask(
            name,
            lambda: server.select(work, incarnation),
            odds=server.odds,
            patience=_ANSWER_SECONDS,
            away=StoreError,
        )


def _below_limit(block: Block) -> list[Block]:
    if block.rows <= MAX_BLOCK_ROWS:
        return [block]
    return split(block, MAX_BLOCK_ROWS)


def split(block: Block, most: int) -> list[Block]:
    """Cut a block into several of at most so many rows."""
    return [
        Block(block.table, {name: column[at : at + most] for name, column in block.columns.items()})
        for at in range(0, block.rows, most)
    ]


def _by_month(block: Block) -> Iterator[tuple[str, list[tuple[Any, ...]]]]:
    rows = list(zip(*(block.columns[name] for name in COLUMNS[block.table]), strict=True))
    days: Sequence[int] = block.columns["received"]
    by_month: dict[str, list[tuple[Any, ...]]] = {}
    months = {day: f"{datetime.fromtimestamp(day * _DAY_SECONDS, UTC):%Y%m}" for day in sorted(set(days))}
    for row, day in zip(rows, days, strict=True):
        by_month.setdefault(months[day], []).append(row)
    yield from by_month.items()


def _markers(table: str, rows: list[tuple[Any, ...]]) -> Iterator[Marker]:
    if table not in ADDITIVE:
        return
    for row in rows:
        if row[_PROJECT] == MARKER_PROJECT:
            yield Marker(row[_ENVIRONMENT], row[_FEATURE], Range(int(row[_VARIABLE]), int(row[_VARIANT])))
