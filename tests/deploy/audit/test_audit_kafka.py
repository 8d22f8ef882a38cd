"""The audit on Kafka: beside the group, and what a person may decide when nobody is in it."""

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest
from aiokafka import AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.admin.records_to_delete import RecordsToDelete

from aggregator.adapters.visit import WorkersError
from deploy.audit.command import Auditor
from deploy.audit.report import Report
from deploy.tool_config import LogToolConfig
from schemas import event
from schemas.markers import HOME, Range, position
from tests.aggregator.fakes import headers, window
from tests.deploy.audit.conftest import Asked, ShortClock
from tests.support.kafka import Cluster
from tests.support.services import Deployment, ServiceProcess
from tests.support.waiting import until, wait_for

PARTITIONS = 2


class Audited:
    """A topic of two partitions with its workers, in a deployment of its own."""

    def __init__(self, deployment: Deployment, cluster: Cluster, topic: str) -> None:
        self.deployment = deployment
        self.cluster = cluster
        self.topic = topic
        config = LogToolConfig(broker_url=deployment.broker_url, clickhouse_url=deployment.store.url)
        self.auditor = Auditor(config, ShortClock())
        self.said: list[str] = []

    async def append(self, *flags: str, partition: int = 0) -> None:
        """Append a window for each flag; an empty name stands for garbage."""
        producer = AIOKafkaProducer(bootstrap_servers=self.cluster.address)
        await producer.start()
        try:
            for flag in flags:
                pairs = event.to_pairs(headers()) if flag else [("v", b"\xff"), ("kind", b"?")]
                value = window(flag, 1) if flag else b"\x00garbage"
                await producer.send_and_wait(self.topic, value, partition=partition, headers=pairs)
        finally:
            await producer.stop()

    async def drop_before(self, offset: int, partition: int = 0) -> None:
        client = AIOKafkaAdminClient(bootstrap_servers=self.cluster.address)
        await client.start()
        try:
            await client.delete_records({TopicPartition(self.topic, partition): RecordsToDelete(offset)})
        finally:
            await client.close()

    def totals(self) -> dict[str, int]:
        found = self.deployment.sql(
            f"SELECT feature, toString(sum(yes)) FROM {HOME} WHERE project = 'default' AND variant = '' GROUP BY 1"
        )
        return {flag: int(yes) for flag, yes in found}

    def stored(self, **flags: int) -> None:
        wait_for(lambda: self.totals() == flags, seconds=60, what=f"{flags}, after {self.totals()}")

    def lose(self, first: int, *flags: str) -> None:
        named = ", ".join(f"'{flag}'" for flag in flags)
        answer = self.deployment.store.service(
            f"ALTER TABLE flagmeter.{HOME} DELETE WHERE (project = '__batch__' AND feature = '0' "
            f"AND variable = '{position(first)}') OR (project = 'default' AND feature IN ({named}))",
            None,
            mutations_sync="2",
        )
        assert answer.status == 200, answer.text

    def worker(self) -> ServiceProcess:
        return self.deployment.aggregator().start()

    async def accept(self, report: Report, partition: int = 0) -> Asked:
        asked = Asked()
        target = f"{report.topic_id}/{partition}"
        assert await self.auditor.accept(target, count_again=False, confirm=asked, say=self.said.append)
        return asked


@pytest.fixture
def audited(kafka: Cluster, tmp_path: Path) -> Iterator[Audited]:
    topic = f"audit-{tmp_path.name}"
    deployment = Deployment(tmp_path / "deployment", kafka.url(topic))
    try:
        yield Audited(deployment.start(partitions=PARTITIONS), kafka, topic)
    finally:
        deployment.close()


async def test_beside_a_working_group_holes_are_seen_and_repaired(audited: Audited) -> None:
    worker = await asyncio.to_thread(audited.worker)
    for flag in ("a", "b", "c"):
        await audited.append(flag)
        await until(lambda name=flag: name in audited.totals(), seconds=60)  # type: ignore[misc]
    await audited.append("d", partition=1)
    await asyncio.to_thread(audited.stored, a=1, b=1, c=1, d=1)
    report = await audited.auditor.audit()
    assert (report.exact, [each.log.stopped for each in report.partitions if each.log]) == (True, ["", ""])
    audited.lose(1, "b")
    report = await audited.auditor.audit()
    assert (report.exact, report.partitions[0].markers.holes.shown) == (False, [Range(1, 1)])
    report = await audited.auditor.repair(audited.said.append)
    assert report.exact, audited.said
    assert audited.totals() == {"a": 1, "b": 1, "c": 1, "d": 1}
    assert worker.is_ready()
    assert "membership lost" not in worker.log.read_text()
    assert worker.log.read_text().count("partitions assigned") == 1, "the group did not notice"


async def test_a_loss_is_accepted_when_nobody_is_in_the_group(audited: Audited) -> None:
    worker = await asyncio.to_thread(audited.worker)
    await audited.append("a")
    await asyncio.to_thread(audited.stored, a=1)
    await asyncio.to_thread(worker.stop)
    await audited.append("b", "c", "d")
    await audited.drop_before(3)
    worker = await asyncio.to_thread(audited.deployment.aggregator().start, ready=False)
    await asyncio.to_thread(
        wait_for, lambda: "lost_by_log" in worker.log.read_text(), seconds=60, what="the stop of the partition"
    )
    report = await audited.auditor.audit()
    assert report.partitions[0].log is not None
    assert (report.exact, report.partitions[0].log.stopped) == (False, "lost_by_log")
    with pytest.raises(WorkersError, match="has 1 members"):
        await audited.accept(report)
    assert (await audited.auditor.audit()).partitions[0].markers.last == 0, "nothing was written"

    await asyncio.to_thread(worker.kill)
    await asyncio.to_thread(wait_for, lambda: _empty(audited.cluster), seconds=40, what="the end of the membership")
    asked = await audited.accept(report)
    assert asked.sentences == [
        "2 positions are given up: positions 1-2 will never be counted",
        "workers go on at position 3",
    ]
    worker = await asyncio.to_thread(audited.worker)
    await audited.append("e")
    await asyncio.to_thread(audited.stored, a=1, d=1, e=1)
    assert "ranges are cut anew" not in worker.log.read_text(), "it goes on by line 5"
    report = await audited.auditor.audit()
    assert (report.exact, report.partitions[0].markers.accepted.shown) == (True, [Range(1, 2)])


async def test_garbage_neither_blocks_its_partition_nor_disappears(audited: Audited) -> None:
    await asyncio.to_thread(audited.worker)
    await audited.append("a", "", "", "b", "")
    await asyncio.to_thread(audited.stored, a=1, b=1)
    await asyncio.to_thread(
        wait_for,
        lambda: (
            audited.deployment.sql("SELECT offset FROM rejected FINAL WHERE reason = 'unreadable' ORDER BY 1")
            == [[1], [2], [4]]
        ),
        seconds=30,
        what="the garbage in rejected",
    )
    assert (await audited.auditor.audit()).exact


def _empty(cluster: Cluster) -> bool:
    async def ask() -> bool:
        client = AIOKafkaAdminClient(bootstrap_servers=cluster.address)
        await client.start()
        try:
            (answer,) = await client.describe_consumer_groups(["flagmeter.aggregator"])
            return bool(answer.groups[0][2] == "Empty")
        finally:
            await client.close()

    return asyncio.run(ask())
