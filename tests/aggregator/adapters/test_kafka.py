"""The reading half against a real Kafka: what the group's rules are good for when members come, go and hang."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
from aiokafka import AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.admin.records_to_delete import RecordsToDelete

from aggregator.adapters import kafka_group
from aggregator.adapters.clock import SystemClock
from aggregator.adapters.kafka import KafkaLog, KafkaMembership
from aggregator.adapters.kafka_group import Offset
from aggregator.ports import BrokerAwayError, MembershipLostError, OutOfRangeError, PartitionLog
from schemas import declaration, event, urls
from schemas.event import Unreadable
from schemas.kafka import KafkaSettings
from schemas.limits import RULES
from tests.aggregator.fakes import headers
from tests.support.kafka import PASSWORD, USER, Cluster, KafkaProcess

SECONDS = 20.0


class Member:
    """A member of the group, and the partitions that it has."""

    def __init__(self, url: str, group: str, settings: KafkaSettings | None = None) -> None:
        broker = urls.parse_broker(url)
        assert isinstance(broker, urls.KafkaBroker)
        self.membership = KafkaMembership(broker, settings or KafkaSettings(), SystemClock(), group=group)
        self.logs: dict[int, PartitionLog] = {}
        self.revoking: Callable[[int], Any] = lambda _: asyncio.sleep(0)
        self.task = asyncio.create_task(self.membership.run(self))

    async def assigned(self, log: PartitionLog) -> None:
        self.logs[log.partition] = log

    async def revoked(self, partition: int) -> None:
        await self.revoking(partition)
        del self.logs[partition]

    async def has(self, count: int, *, without: PartitionLog | None = None) -> list[KafkaLog]:
        async with asyncio.timeout(SECONDS):
            while len(self.logs) != count or without in self.logs.values():
                await asyncio.sleep(0.02)
        logs = [self.logs[at] for at in sorted(self.logs)]
        assert all(isinstance(log, KafkaLog) for log in logs)
        return logs  # type: ignore[return-value]

    async def leave(self) -> None:
        self.task.cancel()
        await asyncio.wait({self.task})


class Group:
    """A topic with two partitions, and a group of its own."""

    def __init__(self, cluster: Cluster, topic: str) -> None:
        self.cluster = cluster
        self.topic = topic
        self.members: list[Member] = []

    def join(self) -> Member:
        member = Member(self.cluster.url(self.topic), f"group-{self.topic}")
        self.members.append(member)
        return member

    async def append(self, *values: bytes | None, partition: int = 0, **options: Any) -> None:
        producer = AIOKafkaProducer(bootstrap_servers=self.cluster.address, **options)
        await producer.start()
        try:
            if "transactional_id" in options:
                async with producer.transaction():
                    for value in values:
                        await producer.send_and_wait(self.topic, value, partition=partition)
                return
            for value in values:
                pairs = event.to_pairs(headers())
                await producer.send_and_wait(self.topic, value, partition=partition, headers=pairs)
        finally:
            await producer.stop()

    async def admin(self, work: Callable[[AIOKafkaAdminClient], Any]) -> Any:
        client = AIOKafkaAdminClient(bootstrap_servers=self.cluster.address)
        await client.start()
        try:
            return await work(client)
        finally:
            await client.close()


@pytest.fixture
async def group(kafka: Cluster) -> AsyncIterator[Group]:
    made = Group(kafka, await kafka.make_topic(partitions=2))
    try:
        yield made
    finally:
        for member in made.members:
            await member.leave()


def declared(first: int, last: int) -> tuple[int, str]:
    return first, declaration.write(last, RULES, 1)


async def test_partitions_are_shared_and_move_when_members_come_and_go(group: Group) -> None:
    first = group.join()
    await first.has(2)
    second = group.join()
    (ours,), (theirs,) = await first.has(1), await second.has(1)
    assert {ours.partition, theirs.partition} == {0, 1}
    await theirs.commit(*declared(0, 3))
    await second.leave()
    logs = await first.has(2)
    committed = await logs[theirs.partition].committed()
    assert committed == declaration.Committed(0, 3, RULES, 1)


async def test_what_is_under_way_has_ended_before_a_partition_is_anothers(group: Group) -> None:
    first = group.join()
    await first.has(2)
    ended: list[float] = []
    begun: list[float] = []

    async def slow(_: int) -> None:
        await asyncio.sleep(0.5)
        ended.append(time.monotonic())

    first.revoking = slow
    second = group.join()

    async def watch() -> None:
        await second.has(1)
        begun.append(time.monotonic())

    await watch()
    assert len(ended) == 2
    assert begun[0] >= max(ended)


async def test_late_work_of_an_assignment_is_refused_though_the_partition_came_back(group: Group) -> None:
    """A → B → A: aiokafka's own commit would take the generation that the member has by then."""
    first = group.join()
    old = (await first.has(2))[0]
    await old.commit(*declared(2, 5))
    second = group.join()
    await second.has(1)
    await second.leave()
    new = next(log for log in await first.has(2) if log.partition == old.partition)
    await new.commit(*declared(9, 12))
    at = TopicPartition(group.topic, old.partition)
    with pytest.raises(MembershipLostError):
        await old.commit(*declared(6, 8))
    with pytest.raises(MembershipLostError, match="IllegalGeneration"):  # past our own guards, the broker's
        await kafka_group.commit(
            new._consumer, new._assignment.group, old._assignment.fence, at, Offset(*declared(6, 8))
        )
    committed = await new.committed()
    assert committed is not None
    assert committed.offset == 9


async def test_a_commit_by_somebody_else_ends_the_assignment_and_the_group_is_joined_anew(group: Group) -> None:
    member = group.join()
    old = (await member.has(2))[0]
    await old.commit(*declared(2, 5))
    at = TopicPartition(group.topic, 0)
    await kafka_group.commit(old._consumer, old._assignment.group, old._assignment.fence, at, Offset(*declared(7, 8)))
    with pytest.raises(MembershipLostError, match="somebody else"):
        await old.commit(*declared(6, 8))
    logs = await member.has(2, without=old)
    committed = await logs[0].committed()
    assert committed is not None
    assert committed.offset == 7


async def test_positions_that_retention_took_are_out_of_range(group: Group) -> None:
    log = (await group.join().has(2))[0]
    await group.append(b"one", b"two", b"three")
    await group.admin(
        lambda client: client.delete_records({TopicPartition(group.topic, 0): RecordsToDelete(before_offset=2)})
    )
    assert (await log.bounds()).begin == 2
    with pytest.raises(OutOfRangeError):
        await log.read(0, until=None, wait_seconds=5)
    assert [record.value for record in (await log.read(2, until=None, wait_seconds=5)).records] == [b"three"]
    with pytest.raises(OutOfRangeError):
        await log.read(99, until=None, wait_seconds=5)


async def test_a_topic_made_anew_has_another_id_and_its_commits_are_gone(group: Group) -> None:
    member = group.join()
    old = (await member.has(2))[0]
    await old.commit(*declared(0, 5))
    await group.admin(lambda client: client.delete_topics([group.topic]))
    await asyncio.sleep(0.5)
    await group.cluster.make_topic(partitions=2, name=group.topic)
    with pytest.raises((MembershipLostError, BrokerAwayError)):
        await old.commit(*declared(6, 8))
    new = (await member.has(2, without=old))[0]
    assert new.topic_id != old.topic_id
    assert await new.committed() is None


async def test_gaps_of_a_log_are_passed_by_position(group: Group) -> None:
    """A transaction's marker takes an offset and is no record."""
    log = (await group.join().has(2))[0]
    await group.append(b"one")
    await group.append(b"two", transactional_id=f"t-{group.topic}")
    chunk = await log.read(0, until=None, wait_seconds=5)
    if len(chunk.records) == 1:
        chunk = await log.read(chunk.position, until=None, wait_seconds=5)
    assert chunk.records[-1].offset == 1
    async with asyncio.timeout(SECONDS):
        while (await log.bounds()).end < 3:  # the marker comes a moment after the answer
            await asyncio.sleep(0.02)
        while (chunk := await log.read(chunk.position, until=None, wait_seconds=0.2)).position < 3:
            assert not chunk.records
    again = await log.read(1, until=2, wait_seconds=5)
    while again.position <= 2:
        more = await log.read(again.position, until=2, wait_seconds=5)
        again = more._replace(records=again.records + more.records)
    assert [record.value for record in again.records] == [b"two"]


async def test_foreign_records_are_read_and_said_to_be_unreadable(group: Group) -> None:
    log = (await group.join().has(2))[0]
    producer = AIOKafkaProducer(bootstrap_servers=group.cluster.address)
    await producer.start()
    await producer.send_and_wait(group.topic, None, key=b"tombstone", partition=0)
    await producer.stop()
    (record,) = (await log.read(0, until=None, wait_seconds=5)).records
    assert record.value == b""
    assert isinstance(record.headers, Unreadable)


@pytest.mark.parametrize("codec", ["gzip", "lz4", "snappy", "zstd"])
async def test_a_topic_that_the_broker_compresses_is_read(kafka: Cluster, codec: str) -> None:
    group = Group(kafka, await kafka.make_topic(partitions=1, compression_type=codec))
    (log,) = await group.join().has(1)
    await group.append(b"x" * 1000)
    assert [record.value for record in (await log.read(0, until=None, wait_seconds=10)).records] == [b"x" * 1000]
    await group.members[0].leave()


async def test_a_question_that_the_group_refuses_loses_the_assignment_and_not_the_partition_for_good(
    group: Group, monkeypatch: pytest.MonkeyPatch
) -> None:
    member = group.join()
    old = (await member.has(2))[0]

    async def refused(*_: object) -> None:
        raise MembershipLostError("the group refuses: GroupAuthorizationFailedError")

    with monkeypatch.context() as patch:
        patch.setattr(kafka_group, "committed", refused)
        with pytest.raises(MembershipLostError):
            await old.committed()
    await member.has(2, without=old)


async def test_reading_that_died_is_noticed_and_the_group_joined_anew(group: Group) -> None:
    member = group.join()
    old = (await member.has(2))[0]
    old._consumer._fetcher._fetch_task.cancel()
    new = (await member.has(2, without=old))[0]
    await group.append(b"after")
    assert [record.value for record in (await new.read(0, until=None, wait_seconds=10)).records] == [b"after"]


async def test_what_was_fetched_and_not_taken_is_read_again_without_asking(group: Group) -> None:
    log = (await group.join().has(2))[0]
    await group.append(*(str(at).encode() for at in range(50)))
    chunk = await log.read(0, until=None, wait_seconds=5)
    while chunk.position < 50:
        chunk = await log.read(chunk.position, until=None, wait_seconds=5)
    first = await log.read(0, until=None, wait_seconds=5)
    assert len(first.records) > 10
    for position in (3, 7, 7, 9):  # forward within what is held, as a batch that is full goes on
        assert (await log.read(position, until=None, wait_seconds=0)).records[0].offset == position
    assert (await log.read(1, until=4, wait_seconds=5)).records[-1].offset == 4  # back: it seeks
    assert (await log.read(20, until=None, wait_seconds=5)).records[0].offset == 20


async def test_the_topic_is_looked_at_before_taking_part(group: Group, kafka: Cluster) -> None:
    assert await group.join().membership.partitions() == 2
    unsafe = await kafka.make_topic(message_timestamp_type="CreateTime")
    with pytest.raises(BrokerAwayError, match=r"message\.timestamp\.type.*flagmeter migrate --alter-topic"):
        await Member(kafka.url(unsafe), "g").membership.partitions()
    with pytest.raises(BrokerAwayError, match="there is no topic nowhere: run `flagmeter migrate`"):
        await Member(kafka.url("nowhere"), "g").membership.partitions()


async def test_wrong_credentials_are_said_and_right_ones_read(tmp_path: Path, own_kafka: KafkaProcess) -> None:
    own_kafka.start()
    cluster = Cluster(own_kafka.address)
    topic = await cluster.make_topic()
    url = f"kafka://127.0.0.1:{own_kafka.sasl_ssl}/{topic}"

    def settings(password: str) -> KafkaSettings:
        return KafkaSettings(
            kafka_security_protocol="SASL_SSL",
            kafka_username=USER,
            kafka_password=password,  # type: ignore[arg-type]
            kafka_ca_file=own_kafka.ca_file,
        )

    wrong = Member(url, "g", settings("not it"))
    with pytest.raises(BrokerAwayError, match="SaslAuthenticationFailed"):
        await wrong.membership.partitions()
    async with asyncio.timeout(SECONDS):
        while "SaslAuthenticationFailed" not in (wrong.membership.trouble or ""):
            await asyncio.sleep(0.05)
    await wrong.leave()
    right = Member(url, "g", settings(PASSWORD))
    assert await right.membership.partitions() == 1
    (log,) = await right.has(1)
    await log.commit(*declared(0, -1))
    await right.leave()


@pytest.mark.slow
async def test_a_frozen_broker_is_told_in_time_and_work_goes_on_after_it(own_kafka: KafkaProcess) -> None:
    own_kafka.start()
    cluster = Cluster(own_kafka.address)
    group = Group(cluster, await cluster.make_topic(partitions=2))
    member = group.join()
    log = (await member.has(2))[0]
    await log.commit(*declared(0, -1))
    own_kafka.freeze()
    try:
        for call in (log.bounds, log.committed, lambda: log.commit(*declared(1, 4))):
            began = time.monotonic()
            with pytest.raises(BrokerAwayError):
                await call()
            assert time.monotonic() - began < 8
        async with asyncio.timeout(SECONDS):
            while not member.membership.trouble:
                await asyncio.sleep(0.1)
    finally:
        own_kafka.thaw()
    async with asyncio.timeout(60):
        while member.membership.trouble or len(member.logs) != 2:
            await asyncio.sleep(0.1)
    await group.append(b"after")
    assert [record.value for record in (await member.logs[0].read(0, until=None, wait_seconds=10)).records] == [
        b"after"
    ]
    await member.leave()


@pytest.mark.slow
async def test_a_killed_broker_comes_back_and_the_member_with_it(own_kafka: KafkaProcess) -> None:
    own_kafka.start()
    cluster = Cluster(own_kafka.address)
    group = Group(cluster, await cluster.make_topic(partitions=2))
    member = group.join()
    log = (await member.has(2))[0]
    await log.commit(*declared(3, 7))
    own_kafka.kill()
    with pytest.raises((BrokerAwayError, MembershipLostError)):
        await log.commit(*declared(8, 9))
    began = time.monotonic()
    await member.leave()  # leaving is bounded, though nobody answers
    assert time.monotonic() - began < 15
    own_kafka.start()
    member = group.join()
    new = (await member.has(2))[0]
    committed = await new.committed()
    assert committed is not None
    assert committed.offset == 3
    await member.leave()
