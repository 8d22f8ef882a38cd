"""A log, a store and a clock in memory, with faults on demand. They pass the contract tests of the real ones."""

import asyncio
from collections.abc import Callable

from aggregator.ports import (
    Block,
    Bounds,
    BrokerAwayError,
    Chunk,
    MembershipLostError,
    Record,
    StoreError,
)
from schemas import declaration
from schemas.declaration import Committed
from schemas.event import Headers, Kind
from schemas.limits import MARKER_PROJECT
from schemas.markers import HOME, Range, position

DAY_MS = 86_400_000


class ManualClock:
    """Time passes only by sleeping, or when a test moves it."""

    def __init__(self) -> None:
        self.seconds = 20_000.0 * 86_400
        self.slept: list[float] = []

    def monotonic(self) -> float:
        return self.seconds

    def now_ms(self) -> int:
        return int(self.seconds * 1000)

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.seconds += seconds
        await asyncio.sleep(0)


def window(flag: str, yes: int, *, app: str = "shop", hour: int = 12) -> bytes:
    return (
        f'{{"appName":"{app}","bucket":{{"start":"2026-11-22T{hour:02}:00:00Z","stop":"2026-11-22T{hour:02}:59:00Z",'
        f'"toggles":{{"{flag}":{{"yes":{yes},"no":1,"variants":{{"blue":{yes}}}}}}}}}}}'
    ).encode()


def headers(**changes: object) -> Headers:
    known = {
        "kind": Kind.METRICS,
        "route": "/api/client/metrics",
        "project": "default",
        "environment": "development",
        "token_id": "0123456789abcdef",
        "received_ms": 0,
        "body_hash": "00",
    }
    return Headers(**(known | changes))  # type: ignore[arg-type]


class MemoryLog:
    """One partition; `generation` of the log against that of the assignment fences commits."""

    partition = 0
    session_seconds = 10.0
    topic_id = "topic-a"

    def __init__(self, clock: ManualClock) -> None:
        self.clock = clock
        self.records: list[Record] = []
        self.begin = 1
        self.end = 1
        self.offset: int | None = None
        self.metadata = ""
        self.commits: list[tuple[int, int]] = []
        self.times: list[tuple[int, int]] = []
        self.lost = False
        self.failures: list[str] = []

    def append(self, value: bytes, *, skip: int = 0, log_time: int = 20_000 * DAY_MS, **changes: object) -> None:
        self.end += skip
        self.records.append(Record(self.end, log_time, headers(**changes), value))
        self.end += 1

    async def bounds(self) -> Bounds:
        await self._turn("bounds")
        return Bounds(self.begin, self.end)

    async def committed(self) -> Committed | None:
        await self._turn("committed")
        return None if self.offset is None else declaration.read(self.offset, self.metadata)

    async def commit(self, offset: int, metadata: str) -> None:
        await self._turn("commit")
        if self.lost:
            raise MembershipLostError("gone")
        self.offset, self.metadata = offset, metadata
        committed = declaration.read(offset, metadata)
        self.commits.append((offset, committed.last))
        self.times.append((offset, committed.t))

    async def read(self, position: int, *, until: int | None, wait_seconds: float) -> Chunk:
        await self._turn("read")
        last = self.end - 1 if until is None else until
        found = [record for record in self.records if position <= record.offset <= last]
        if found:
            return Chunk(found, found[-1].offset + 1 if until is None else last + 1)
        if until is None and self.end > position:
            return Chunk([], self.end)
        if until is not None:
            return Chunk([], until + 1)
        await self.clock.sleep(wait_seconds)
        return Chunk([], position)

    async def position_at(self, log_time: int) -> int:
        await self._turn("position_at")
        return next((record.offset for record in self.records if record.log_time >= log_time), self.end)

    async def _turn(self, name: str) -> None:
        await asyncio.sleep(0)
        if name in self.failures:
            self.failures.remove(name)
            raise BrokerAwayError(name)


class MemoryStore:
    """Tables with deduplication tokens; `faults` are taken one an insert."""

    def __init__(self) -> None:
        self.parts: list[tuple[str, list[dict[str, object]]]] = []
        self.tokens: set[tuple[str, str]] = set()
        self.inserts: list[tuple[str, str]] = []
        self.faults: list[str] = []
        self.before_insert: Callable[[], None] = lambda: None
        self.reads_fail = 0
        self.blind = False

    async def check(self, partitions: int) -> None:
        return None

    async def last_marked(self, topic_id: str, partition: int) -> int | None:
        await self._read()
        found = [int(str(row["variant"])) for row in self._markers(HOME, topic_id, partition)]
        return max(found, default=None)

    async def marked_tables(self, topic_id: str, partition: int, span: Range) -> frozenset[str]:
        await self._read()
        wanted = (position(span.first), position(span.last))
        found = [(row["variable"], row["variant"]) for row in self._markers(HOME, topic_id, partition)]
        return frozenset({HOME}) if wanted in found and not self.blind else frozenset()

    async def ranges_beyond(self, topic_id: str, partition: int, beyond: int) -> list[Range]:
        return []

    async def insert(self, block: Block, token: str) -> None:
        await asyncio.sleep(0)
        self.before_insert()
        self.inserts.append((block.table, token))
        fault = self.faults.pop(0) if self.faults else ""
        if fault == "refused":
            raise StoreError("no such table", code=60, passing=False)
        if fault == "away":
            raise StoreError("connection refused")
        known = (block.table, token) in self.tokens
        self.tokens.add((block.table, token))
        if not known and not fault.startswith("part lost"):
            names = list(block.columns)
            rows = [dict(zip(names, row, strict=True)) for row in zip(*block.columns.values(), strict=True)]
            self.parts.append((block.table, rows))
        if fault in {"answer lost", "part lost, answer lost"}:
            raise StoreError("timed out", code=159)

    def rows(self, table: str) -> list[dict[str, object]]:
        return [row for name, rows in self.parts if name == table for row in rows]

    def total(self, flag: str) -> int:
        return sum(
            int(str(row["yes"])) for row in self.rows(HOME) if row["feature"] == flag and row["project"] == "default"
        )

    def markers(self) -> list[tuple[int, int]]:
        rows = [row for row in self.rows(HOME) if row["project"] == MARKER_PROJECT]
        return sorted((int(str(row["variable"])), int(str(row["variant"]))) for row in rows)

    def _markers(self, table: str, topic_id: str, partition: int) -> list[dict[str, object]]:
        return [
            row
            for row in self.rows(table)
            if (row["project"], row["environment"], row["feature"]) == (MARKER_PROJECT, topic_id, str(partition))
        ]

    async def _read(self) -> None:
        await asyncio.sleep(0)
        if self.reads_fail:
            self.reads_fail -= 1
            raise StoreError("timed out", code=159)
