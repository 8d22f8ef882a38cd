"""The contract of a partition's log: what the aggregator's reading half promises, on every backend."""

import asyncio
import sqlite3
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from random import Random
from typing import Any, Protocol

import pytest
from aiokafka import AIOKafkaProducer

from aggregator.adapters import kafka_group
from aggregator.adapters.clock import SystemClock
from aggregator.adapters.kafka import KafkaMembership
from aggregator.adapters.sqlite import SqliteFile, SqliteMembership
from aggregator.ports import MembershipLostError, OutOfRangeError, PartitionLog, Record
from ingest_gateway.brokers.sqlite import LogFile
from schemas import declaration, event, urls
from schemas.event import Event, Headers
from schemas.kafka import KafkaSettings
from schemas.limits import RULES
from tests.aggregator.fakes import ManualClock, MemoryLog, headers
from tests.simulation.broker import Broker, SimulatedMembership
from tests.simulation.loop import RealTime
from tests.simulation.wire import Trace, Wire
from tests.support.kafka import Cluster

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


class KafkaBackend:
    """A topic of its own on the shared broker."""

    session_seconds = kafka_group.SESSION_SECONDS

    def __init__(self, cluster: Cluster, topic: str) -> None:
        self._cluster = cluster
        self.topic = topic
        self.broker = urls.parse_broker(cluster.url(topic))
        self.group = f"group-{topic}"
        self.members: list[Member] = []
        self._producer = AIOKafkaProducer(bootstrap_servers=cluster.address, acks="all", enable_idempotence=True)

    async def start(self) -> None:
        await self._producer.start()

    async def append(self, *values: bytes) -> None:
        for value in values:
            await self._producer.send_and_wait(
                self.topic, value, key=b"key", partition=0, headers=event.to_pairs(headers())
            )

    def join(self, name: str) -> Member:
        assert isinstance(self.broker, urls.KafkaBroker)
        member = Member()
        membership = KafkaMembership(self.broker, KafkaSettings(), SystemClock(), group=self.group)
        member.task = asyncio.create_task(membership.run(member))
        self.members.append(member)
        return member

    async def close(self) -> None:
        for member in self.members:
            await member.leave()
        await self._producer.stop()


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


class SimulatedBackend:
    """The simulation's broker, in real time."""

    def __init__(self) -> None:
        scheduler = RealTime()
        self.broker = Broker(Wire(scheduler, Random(), Trace(scheduler)), 1)  # noqa: S311
        self.broker.chunk_records = (2000,)
        self.members: list[Member] = []

    async def append(self, *values: bytes) -> None:
        for value in values:
            self.broker.partitions[0].append(headers(), value, SystemClock().now_ms())

    def join(self, name: str) -> Member:
        member = Member()
        member.task = asyncio.create_task(SimulatedMembership(self.broker).run(member))
        self.members.append(member)
        return member

    async def close(self) -> None:
        for member in self.members:
            await member.leave()


@asynccontextmanager
async def make_simulated(folder: Path) -> AsyncIterator[SimulatedBackend]:
    backend = SimulatedBackend()
    try:
        yield backend
    finally:
        await backend.close()


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


@asynccontextmanager
async def make_kafka(cluster: Cluster) -> AsyncIterator[KafkaBackend]:
    backend = KafkaBackend(cluster, await cluster.make_topic())
    await backend.start()
    try:
        yield backend
    finally:
        await backend.close()


@pytest.fixture(params=["memory", "sqlite", "kafka", "simulated"])
async def backend(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Backend]:
    match request.param:
        case "kafka":
            making: Any = make_kafka(request.getfixturevalue("kafka"))
        case "sqlite":
            making = make_sqlite(tmp_path)
        case "simulated":
            making = make_simulated(tmp_path)
        case _:
            making = make_memory(tmp_path)
    async with making as made:
        yield made


@pytest.fixture(params=["sqlite", "kafka", "simulated"])
async def grouped(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Backend]:
    """A backend whose group has more than one member."""
    match request.param:
        case "kafka":
            making: Any = make_kafka(request.getfixturevalue("kafka"))
        case "sqlite":
            making = make_sqlite(tmp_path)
        case _:
            making = make_simulated(tmp_path)
    async with making as made:
        yield made


@pytest.fixture
async def on_sqlite(tmp_path: Path) -> AsyncIterator[SqliteBackend]:
    async with make_sqlite(tmp_path) as made:
        assert isinstance(made, SqliteBackend)
        yield made


@pytest.fixture
async def on_kafka(kafka: Cluster) -> AsyncIterator[KafkaBackend]:
    async with make_kafka(kafka) as made:
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


async def test_a_position_is_found_by_its_append_time(backend: Backend) -> None:
    """The first record of that time or later, the begin for all earlier times, the end for all later ones."""
    log = await backend.join("a").owns()
    begin = (await log.bounds()).begin
    assert await log.position_at(0) == begin
    found: list[Record] = []
    position = begin
    async with asyncio.timeout(SECONDS):
        while not found or (len({record.log_time for record in found}) < 3 and not isinstance(log, MemoryLog)):
            await backend.append(b"one", b"two")
            chunk = await log.read(position, until=None, wait_seconds=5)
            found += chunk.records
            position = chunk.position
    for time in sorted({record.log_time for record in found}):
        first = next(record.offset for record in found if record.log_time == time)
        assert await log.position_at(time) == first
        before = next(record.offset for record in found if record.log_time >= time - 1)
        assert await log.position_at(time - 1) == before
    assert await log.position_at(0) == begin
    assert await log.position_at(found[-1].log_time + 3_600_000) == (await log.bounds()).end


async def test_a_read_waits_for_the_first_record(grouped: Backend) -> None:
    log = await grouped.join("a").owns()
    begin = (await log.bounds()).begin
    reading = asyncio.create_task(log.read(begin, until=None, wait_seconds=SECONDS))
    await grouped.append(b"late")
    assert [record.value for record in (await reading).records] == [b"late"]


async def test_positions_are_found_by_the_time_of_their_append(backend: Backend) -> None:
    log = await backend.join("a").owns()
    begin = (await log.bounds()).begin
    assert await log.position_at(0) == begin, "an empty log ends where it begins"
    await backend.append(b"one")
    await asyncio.sleep(0.01)
    await backend.append(b"two", b"three")
    records = (await log.read(begin, until=begin + 2, wait_seconds=5)).records
    while len(records) < 3:
        records += (await log.read(records[-1].offset + 1, until=begin + 2, wait_seconds=5)).records
    first, last = records[0].log_time, records[-1].log_time
    assert await log.position_at(0) == begin
    assert await log.position_at(first) == begin
    assert await log.position_at(last) == next(each.offset for each in records if each.log_time >= last)
    assert await log.position_at(last + 60_000) == begin + 3 == (await log.bounds()).end


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


async def test_only_one_member_owns_the_partition(grouped: Backend) -> None:
    first = grouped.join("a")
    await first.owns()
    second = grouped.join("b")
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(1.5):
            await second.owns()


async def test_a_member_that_leaves_frees_its_partition_at_once_with_what_it_committed(grouped: Backend) -> None:
    first = grouped.join("a")
    log = await first.owns()
    second = grouped.join("b")
    await log.commit(5, declaration.write(9, RULES, 1))
    await first.leave()
    async with asyncio.timeout(5):
        taken = await second.owns()
    assert first.revocations == 1
    committed = await taken.committed()
    assert committed == declaration.Committed(5, 9, RULES, 1)


async def test_a_member_whose_assignment_is_over_cannot_commit(on_sqlite: SqliteBackend) -> None:
    first = on_sqlite.join("a")
    old = await first.owns()
    await first.leave()
    new = await on_sqlite.join("b").owns()
    await new.commit(2, declaration.write(1, RULES, 1))
    member = on_sqlite.join("a")  # its file is open again; only the generation is old
    old._file = SqliteFile(on_sqlite.path)  # type: ignore[attr-defined]
    with pytest.raises(MembershipLostError):
        await old.commit(99, declaration.write(98, RULES, 1))
    await old._file.close()  # type: ignore[attr-defined]
    await member.leave()
    committed = await new.committed()
    assert committed is not None
    assert committed.offset == 2


async def test_a_silent_member_loses_its_partition_after_the_session_time_out(
    on_sqlite: SqliteBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("schemas.sqlite_log.LEASE_SECONDS", 0.5)
    first = on_sqlite.join("host-that-is-elsewhere|boot|1|1")
    old = await first.owns()
    assert first.task is not None
    monkeypatch.setattr("aggregator.adapters.sqlite._RENEW_SECONDS", 0.2)
    second = on_sqlite.join("b")
    new = await second.owns()
    await new.commit(4, declaration.write(3, RULES, 1))
    with pytest.raises(MembershipLostError):
        await old.commit(99, declaration.write(98, RULES, 1))


async def test_the_lease_of_a_process_that_is_gone_is_free_at_once(on_sqlite: SqliteBackend) -> None:
    from aggregator.adapters import holder

    first = on_sqlite.join(holder.myself().rsplit("|", 1)[0] + "|1")  # our number, but started at another time
    await first.owns()
    second = on_sqlite.join("b")
    async with asyncio.timeout(3):
        await second.owns()
    async with asyncio.timeout(SECONDS):
        while not first.revocations:
            await asyncio.sleep(0.02)


async def test_another_file_in_the_brokers_place_ends_the_assignment(on_sqlite: SqliteBackend, tmp_path: Path) -> None:
    """A copy has the same generation and topic: without looking at the file, its commits would be taken for ours."""
    await on_sqlite.append(b"one", b"two")
    member = on_sqlite.join("a")
    old = await member.owns()
    await old.commit(3, declaration.write(2, RULES, 1))
    copy = tmp_path / "copy.db"
    with sqlite3.connect(on_sqlite.path) as source, sqlite3.connect(copy) as target:
        source.backup(target)
    source.close()
    target.close()
    await on_sqlite.append(b"three")
    copy.rename(on_sqlite.path)
    for rest in ("-wal", "-shm"):
        on_sqlite.path.with_name(on_sqlite.path.name + rest).unlink(missing_ok=True)
    await on_sqlite.append(b"another three")
    with pytest.raises(MembershipLostError):
        await old.read(3, until=None, wait_seconds=5)
    with pytest.raises(MembershipLostError):
        await old.commit(4, declaration.write(3, RULES, 1))
    async with asyncio.timeout(SECONDS):
        while member.log is old or member.log is None:
            await asyncio.sleep(0.02)
    new = await member.owns()
    assert [record.value for record in (await new.read(3, until=None, wait_seconds=5)).records] == [b"another three"]


async def test_a_simulated_member_whose_generation_is_over_cannot_commit() -> None:
    """As Kafka's; on SQLite see above."""
    async with make_simulated(Path()) as simulated:
        first = simulated.join("a")
        old = await first.owns()
        await first.leave()
        new = await simulated.join("b").owns()
        await new.commit(2, declaration.write(1, RULES, 1))
        old._assignment.over = False  # type: ignore[attr-defined]  # only the generation is old
        with pytest.raises(MembershipLostError):
            await old.commit(99, declaration.write(98, RULES, 1))
        committed = await new.committed()
        assert committed is not None
        assert committed.offset == 2


async def test_a_simulated_log_has_gaps_and_loses_its_begin_as_kafkas_does() -> None:
    async with make_simulated(Path()) as simulated:
        log = await simulated.join("a").owns()
        await simulated.append(b"one")
        simulated.broker.partitions[0].skip(3)
        await simulated.append(b"two")
        chunk = await log.read(1, until=None, wait_seconds=1)
        assert [record.offset for record in chunk.records] == [4]
        assert await log.read(2, until=3, wait_seconds=1) == ([], 4)
        simulated.broker.partitions[0].prune(3)
        assert await log.bounds() == (3, 5)
        for position in (2, 6):
            with pytest.raises(OutOfRangeError):
                await log.read(position, until=None, wait_seconds=1)
