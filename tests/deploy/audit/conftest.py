"""Logs and tables of a test's own, in the store that the tests share, with the aggregator's own code in between."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from aggregator.adapters.clickhouse import ClickHouseStore, without_data_frames
from aggregator.adapters.clock import SystemClock
from aggregator.adapters.points import NoPoints
from aggregator.adapters.sqlite import SqliteFile, SqliteMembership
from aggregator.status import Status
from aggregator.worker import Worker
from deploy.audit.command import Auditor
from deploy.audit.report import PartitionReport, Report
from deploy.tool_config import LogToolConfig
from schemas import event, sqlite_log
from schemas.kafka import GROUP
from schemas.markers import HOME, Range, marker_key, position
from schemas.tables import EvaluationKey
from tests.aggregator.fakes import headers, window
from tests.support.store import StoreProcess, fresh_token
from tests.support.waiting import until

FLUSH_SECONDS = 0.05


class ShortClock(SystemClock):
    """Real time, and waits that are over soon."""

    async def sleep(self, seconds: float) -> None:
        await super().sleep(min(seconds, 0.05))


class Asked:
    """Answers for the person, and keeps what was asked."""

    def __init__(self, *, answer: bool = True) -> None:
        self.answer = answer
        self.sentences: list[str] = []

    def __call__(self, sentences: Sequence[str]) -> bool:
        self.sentences += sentences
        return self.answer


class Counted:
    """A log in SQLite, its worker, and the shared store; its counts are of an app of its own."""

    def __init__(self, folder: Path, store: StoreProcess) -> None:
        self.path = folder / "broker.db"
        self.store = store
        self.app = f"app-{folder.name}"
        self.connection = sqlite_log.connect(self.path, busy_seconds=5)
        self.topic_id = sqlite_log.topic_id(self.connection)
        self.config = LogToolConfig(
            broker_url=f"sqlite:///{self.path}",
            clickhouse_url=store.url,
            data_dir=folder,
        )
        self.auditor = Auditor(self.config, ShortClock())
        self.said: list[str] = []

    def append(self, flag: str, yes: int = 1, **changes: object) -> int:
        """Append a window of one flag; gives its position."""
        return self.append_raw(window(flag, yes, app=self.app), event.pack(headers(**changes)))

    def append_raw(self, value: bytes, packed: bytes) -> int:
        now = SystemClock().now_ms()
        row = self.connection.execute(
            "INSERT INTO log (time_ms, key, headers, value) VALUES (?, x'', ?, ?) RETURNING id", (now, packed, value)
        ).fetchone()
        return int(row[0])

    @asynccontextmanager
    async def worker(self) -> AsyncIterator[Status]:
        store = ClickHouseStore(self.store.server, flush_seconds=1)
        clock = SystemClock()
        status = Status(CollectorRegistry())
        stop = asyncio.Event()
        work = Worker(store, clock, NoPoints(), status, flush_seconds=FLUSH_SECONDS)
        membership = SqliteMembership(SqliteFile(self.path), clock, group=GROUP, worker=self._worker())
        task = asyncio.create_task(work.run(membership, stop, drain_seconds=1))
        try:
            yield status
        finally:
            stop.set()
            await task
            await store.close()

    def _worker(self) -> str:
        """Name a worker of another host; the lease of the one before it was given back."""
        return f"elsewhere|{self.end}|1|1"

    async def work(self) -> None:
        """Let a worker store everything, then end it."""
        async with self.worker():
            await self.stored_up_to()

    async def stored_up_to(self, last: int | None = None) -> None:
        wanted = self.end - 1 if last is None else last
        await until(lambda: self.marked()[-1:] and self.marked()[-1][1] >= wanted)

    async def until(self, condition: Callable[[], Any]) -> None:
        await until(condition)

    async def batch(self, *flags: str) -> tuple[int, int]:
        """Append these flags and let them become one batch, or some; gives its first and last position."""
        first = self.end
        for flag in flags:
            self.append(flag)
        await self.stored_up_to()
        return first, self.end - 1

    @property
    def end(self) -> int:
        row = self.connection.execute("SELECT seq FROM sqlite_sequence WHERE name = 'log'").fetchone()
        return (row[0] if row else 0) + 1

    def prune(self, before: int) -> None:
        self.connection.execute("DELETE FROM log WHERE id < ?", (before,))

    def committed(self) -> tuple[int | None, str | None]:
        return self.connection.execute("SELECT position, metadata FROM membership").fetchone() or (None, None)

    def commit(self, offset: int | None, metadata: str | None) -> None:
        self.connection.execute("UPDATE membership SET position = ?, metadata = ?", (offset, metadata))

    def rows(self, query: str) -> list[list[Any]]:
        answer = self.store.service(query, None, default_format="JSONCompact")
        assert answer.status == 200, answer.text
        return list(answer.json()["data"])

    def marked(self) -> list[tuple[int, int]]:
        return [
            (int(first), int(last))
            for first, last in self.rows(
                f"SELECT variable, variant FROM flagmeter.{HOME} WHERE project = '__batch__' "
                f"AND environment = '{self.topic_id}' ORDER BY 1, 2"
            )
        ]

    def totals(self) -> dict[str, int]:
        found = self.rows(
            f"SELECT feature, toString(sum(yes)) FROM flagmeter.{HOME} WHERE app_name = '{self.app}' "
            "AND variant = '' GROUP BY 1 ORDER BY 1"
        )
        return {flag: int(yes) for flag, yes in found}

    def lose(self, span: tuple[int, int], *flags: str) -> None:
        """Let the parts vanish that hold the batches of a range: their markers, and the counts of their flags."""
        named = ", ".join(f"'{flag}'" for flag in ("", *flags))
        answer = self.store.service(
            f"ALTER TABLE flagmeter.{HOME} DELETE WHERE (project = '__batch__' AND environment = '{self.topic_id}' "
            f"AND variable >= '{position(span[0])}' AND variant <= '{position(span[1])}') "
            f"OR (app_name = '{self.app}' AND feature IN ({named}))",
            None,
            mutations_sync="2",
        )
        assert answer.status == 200, answer.text

    def mark(self, span: Range, *tables: str, table: str = HOME, topic_id: str | None = None) -> None:
        """Put a marker into a table, as a part of its own."""
        key = marker_key(topic_id or self.topic_id, 0, span, tables or (HOME,), 20_000)
        columns = ", ".join(EvaluationKey._fields)
        values = ", ".join(str(value) if isinstance(value, int) else f"'{value}'" for value in key)
        answer = self.store.service(
            f"INSERT INTO flagmeter.{table} ({columns}, received, yes, no, count) VALUES ({values}, 20000, 0, 0, 1)",
            None,
            insert_deduplication_token=fresh_token(),
        )
        assert answer.status == 200, answer.text

    async def audit(self) -> Report:
        return await self.auditor.audit()

    async def own(self, report: Report | None = None) -> PartitionReport:
        """Give what an audit says of this log."""
        found = report or await self.audit()
        (own,) = [each for each in found.partitions if each.markers.topic_id == self.topic_id]
        return own

    async def repair(self) -> PartitionReport:
        return await self.own(await self.auditor.repair(self.said.append))

    async def accept(self, asked: Asked | None = None, *, count_again: bool = False) -> bool:
        return await self.auditor.accept(
            f"{self.topic_id}/0", count_again=count_again, confirm=asked or Asked(), say=self.said.append
        )


@pytest.fixture
def counted(store: StoreProcess, tmp_path: Path) -> Iterator[Counted]:
    without_data_frames()
    made = Counted(tmp_path, store)
    try:
        yield made
    finally:
        made.connection.close()
