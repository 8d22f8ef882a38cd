"""The contract of a partition's log: what the aggregator's reading half promises, on every backend."""

import asyncio
import sqlite3
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Protocol

import pytest

from aggregator.adapters.clock import SystemClock
from aggregator.adapters.sqlite import SqliteFile, SqliteMembership
from aggregator.ports import MembershipLostError, PartitionLog
from ingest_gateway.brokers.sqlite import LogFile
from schemas import declaration
from schemas.event import Event, Headers
from schemas.limits import RULES
from tests.aggregator.fakes import ManualClock, MemoryLog, headers

SECONDS = 15.0


class Backend(Protocol):
    """One topic with one partition, and a consumer group."""

    async def append(self, *values: bytes) -> None: ...
    def join(self, name: str) -> "Member": ...


class Member:
    """A worker in the group, and what it owns."""

    def __init__(self) -> None:
        self.log: PartitionLog | None = None
        self.revocations = 0
        self._changed = asyncio.Condition()
        self.task: asyncio.Task[None] | None = None

    async def assigned(self, log: PartitionLog) -> None:
        async with self._changed:
            self.log = log
            self._changed.notify_all()

    async def revoked(self, partition: int) -> None:
        async with self._changed:
            assert self.log is not None
            assert self.log.partition == partition
            self.log = None
            self.revocations += 1
            self._changed.notify_all()

    async def owns(self) -> PartitionLog:
        async with asyncio.timeout(SECONDS), self._changed:
            await self._changed.wait_for(lambda: self.log is not None)
            assert self.log is not None
            return self.log

    async def leave(self) -> None:
        assert self.task is not None
        self.task.cancel()
        await asyncio.wait({self.task})


class SqliteBackend:
    def __init__(self, folder: Path) -> None:
        self.path = folder / "broker.db"
        self._writer = LogFile(self.path)
        self.members: list[Member] = []

    async def append(self, *values: bytes) -> None:
        await asyncio.to_thread(self._writer.append, [Event(b"key", headers(), value) for value in values])

    def join(self, name: str) -> Member:
        member = Member()
        membership = SqliteMembership(SqliteFile(self.path), SystemClock(), group="group", worker=name)
        member.task = asyncio.create_task(membership.run(member))
        self.members.append(member)
        return member

    async def close(self) -> None:
        for member in self.members:
            await member.leave()
        self._writer.close()


class MemoryBackend:
    """The log that the unit tests use; it has no group, a member owns it at once."""

    def __init__(self) -> None:
        self.log = MemoryLog(ManualClock())
        self.members: list[Member] = []

    async def append(self, *values: bytes) -> None:
        for value in values:
            self.log.append(value)

    def join(self, name: str) -> Member:
        member = Member()
        member.task = asyncio.create_task(member.assigned(self.log))
        self.members.append(member)
        return member

    async def close(self) -> None:
        for member in self.members:
            await member.leave()


@asynccontextmanager
async def make_sqlite(folder: Path) -> AsyncIterator[Backend]:
    backend = SqliteBackend(folder)
    try:
        yield backend
    finally:
        await backend.close()


@asynccontextmanager
async def make_memory(folder: Path) -> AsyncIterator[Backend]:
    backend = MemoryBackend()
    try:
        yield backend
    finally:
        await backend.close()


@pytest.fixture(params=[make_memory, make_sqlite], ids=["memory", "sqlite"])
async def backend(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Backend]:
    async with request.param(tmp_path) as made:
        yield made


@pytest.fixture
async def grouped(tmp_path: Path) -> AsyncIterator[SqliteBackend]:
    """A backend whose group has more than one member."""
    async with make_sqlite(tmp_path) as made:
        assert isinstance(made, SqliteBackend)
        yield made


async def test_an_empty_log_begins_at_its_end_and_has_no_committed_offset(backend: Backend) -> None:
    await backend.append()
    log = await backend.join("a").owns()
    bounds = await log.bounds()
    assert bounds.begin == bounds.end
    assert await log.committed() is None
    chunk = await log.read(bounds.begin, until=None, wait_seconds=0.05)
    assert chunk == ([], bounds.begin)


async def test_records_come_in_order_with_their_headers_and_bytes(backend: Backend) -> None:
    log = await backend.join("a").owns()
    begin = (await log.bounds()).begin
    await backend.append(b"one", b"two")
    await backend.append(b"three \xff\x00")
    chunk = await log.read(begin, until=None, wait_seconds=5)
    assert [record.value for record in chunk.records] == [b"one", b"two", b"three \xff\x00"]
    assert [record.offset for record in chunk.records] == [begin, begin + 1, begin + 2]
    assert chunk.position == begin + 3 == (await log.bounds()).end
    assert all(isinstance(record.headers, Headers) for record in chunk.records)
    times = [record.log_time for record in chunk.records]
    assert times == sorted(times)


async def test_a_read_stops_at_the_end_of_a_declared_range(backend: Backend) -> None:
    log = await backend.join("a").owns()
    begin = (await log.bounds()).begin
    await backend.append(b"one", b"two", b"three")
    chunk = await log.read(begin, until=begin + 1, wait_seconds=5)
    assert [record.value for record in chunk.records] == [b"one", b"two"]
    assert chunk.position == begin + 2


async def test_a_read_waits_for_the_first_record(grouped: SqliteBackend) -> None:
    log = await grouped.join("a").owns()
    begin = (await log.bounds()).begin
    reading = asyncio.create_task(log.read(begin, until=None, wait_seconds=SECONDS))
    await grouped.append(b"late")
    assert [record.value for record in (await reading).records] == [b"late"]


async def test_a_commit_keeps_the_offset_and_its_declaration(backend: Backend) -> None:
    log = await backend.join("a").owns()
    await log.commit(3, declaration.write(7, RULES, 1))
    committed = await log.committed()
    assert committed == declaration.Committed(3, 7, RULES, 1)
    await log.commit(8, declaration.write(7, RULES, 2))
    committed = await log.committed()
    assert committed is not None
    assert committed.declared is None


async def test_a_commit_backward_is_accepted(backend: Backend) -> None:
    log = await backend.join("a").owns()
    await log.commit(9, declaration.write(8, RULES, 1))
    await log.commit(3, declaration.write(4, RULES, 1))
    committed = await log.committed()
    assert committed is not None
    assert committed.offset == 3


async def test_the_topic_has_an_id_that_stays(backend: Backend) -> None:
    first = backend.join("a")
    topic_id = (await first.owns()).topic_id
    assert topic_id
    await first.leave()
    assert (await backend.join("b").owns()).topic_id == topic_id


async def test_only_one_member_owns_the_partition(grouped: SqliteBackend) -> None:
    first = grouped.join("a")
    await first.owns()
    second = grouped.join("b")
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(1.5):
            await second.owns()


async def test_a_member_that_leaves_frees_its_partition_at_once_with_what_it_committed(grouped: SqliteBackend) -> None:
    first = grouped.join("a")
    log = await first.owns()
    second = grouped.join("b")
    await log.commit(5, declaration.write(9, RULES, 1))
    await first.leave()
    async with asyncio.timeout(3):
        taken = await second.owns()
    assert first.revocations == 1
    committed = await taken.committed()
    assert committed == declaration.Committed(5, 9, RULES, 1)


async def test_a_member_whose_assignment_is_over_cannot_commit(grouped: SqliteBackend) -> None:
    first = grouped.join("a")
    old = await first.owns()
    await first.leave()
    new = await grouped.join("b").owns()
    await new.commit(2, declaration.write(1, RULES, 1))
    member = grouped.join("a")  # its file is open again; only the generation is old
    old._file = SqliteFile(grouped.path)  # type: ignore[attr-defined]
    with pytest.raises(MembershipLostError):
        await old.commit(99, declaration.write(98, RULES, 1))
    await old._file.close()  # type: ignore[attr-defined]
    await member.leave()
    committed = await new.committed()
    assert committed is not None
    assert committed.offset == 2


async def test_a_silent_member_loses_its_partition_after_the_session_time_out(
    grouped: SqliteBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("schemas.sqlite_log.LEASE_SECONDS", 0.5)
    first = grouped.join("host-that-is-elsewhere|boot|1|1")
    old = await first.owns()
    assert first.task is not None
    monkeypatch.setattr("aggregator.adapters.sqlite._RENEW_SECONDS", 0.2)
    second = grouped.join("b")
    new = await second.owns()
    await new.commit(4, declaration.write(3, RULES, 1))
    with pytest.raises(MembershipLostError):
        await old.commit(99, declaration.write(98, RULES, 1))


async def test_the_lease_of_a_process_that_is_gone_is_free_at_once(grouped: SqliteBackend) -> None:
    from aggregator.adapters import holder

    first = grouped.join(holder.myself().rsplit("|", 1)[0] + "|1")  # our number, but started at another time
    await first.owns()
    second = grouped.join("b")
    async with asyncio.timeout(3):
        await second.owns()
    async with asyncio.timeout(SECONDS):
        while not first.revocations:
            await asyncio.sleep(0.02)


async def test_another_file_in_the_brokers_place_ends_the_assignment(grouped: SqliteBackend, tmp_path: Path) -> None:
    """A copy has the same generation and topic: without looking at the file, its commits would be taken for ours."""
    await grouped.append(b"one", b"two")
    member = grouped.join("a")
    old = await member.owns()
    await old.commit(3, declaration.write(2, RULES, 1))
    copy = tmp_path / "copy.db"
    with sqlite3.connect(grouped.path) as source, sqlite3.connect(copy) as target:
        source.backup(target)
    source.close()
    target.close()
    await grouped.append(b"three")
    copy.rename(grouped.path)
    for rest in ("-wal", "-shm"):
        grouped.path.with_name(grouped.path.name + rest).unlink(missing_ok=True)
    await grouped.append(b"another three")
    with pytest.raises(MembershipLostError):
        await old.read(3, until=None, wait_seconds=5)
    with pytest.raises(MembershipLostError):
        await old.commit(4, declaration.write(3, RULES, 1))
    async with asyncio.timeout(SECONDS):
        while member.log is old or member.log is None:
            await asyncio.sleep(0.02)
    new = await member.owns()
    assert [record.value for record in (await new.read(3, until=None, wait_seconds=5)).records] == [b"another three"]
