"""What a Kafka topic holds, read with a plain consumer; and changes to it, as an operator makes them."""

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewPartitions

from deploy.alter_configs import alter_topic


async def records_of(address: str, topic: str, partitions: int) -> list[Any]:
    """Read a whole topic from its begin: aiokafka's records, each partition's in order."""
    found: list[Any] = []
    consumer = AIOKafkaConsumer(bootstrap_servers=address, auto_offset_reset="earliest")
    await consumer.start()
    try:
        of_topic = [TopicPartition(topic, number) for number in range(partitions)]
        consumer.assign(of_topic)
        ends = await consumer.end_offsets(of_topic)
        while any([await consumer.position(each) < ends[each] for each in of_topic]):
            for records in (await consumer.getmany(timeout_ms=500)).values():
                found += records
    finally:
        await consumer.stop()
    return found


@asynccontextmanager
async def _admin(address: str) -> AsyncIterator[AIOKafkaAdminClient]:
    client = AIOKafkaAdminClient(bootstrap_servers=address)
    await client.start()
    try:
        yield client
    finally:
        await client.close()


async def alter(address: str, topic: str, settings: Mapping[str, str]) -> None:
    async with _admin(address) as client:
        assert await alter_topic(client._client, topic, settings) == (0, "")


async def add_partitions(address: str, topic: str, total: int) -> None:
    async with _admin(address) as client:
        await client.create_partitions({topic: NewPartitions(total)})
