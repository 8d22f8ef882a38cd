"""The rights that `docs/operations.md` lists are enough, and what is missing is named; on a real broker."""

import asyncio
import functools
import uuid
from enum import IntEnum

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, OffsetAndMetadata, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.protocol.admin import CreateAclsRequest, DescribeAclsRequest

from deploy import broker_topic
from deploy.broker_topic import Place, Wish
from deploy.config import MigrateConfig
from deploy.migrations import RefusedMigrationError
from schemas import kafka_admin
from schemas.kafka import GROUP
from schemas.kafka_topic import refuse_unsafe
from schemas.urls import KafkaBroker
from tests.support.kafka import PASSWORD, STRANGER, Cluster, KafkaProcess
from tests.support.waiting import until

_TOPIC, _GROUP = 2, 3
_LITERAL, _ALLOW = 3, 3


class Right(IntEnum):
    """Kafka's numbers of operations."""

    READ = 3
    WRITE = 4
    CREATE = 5
    ALTER = 7
    DESCRIBE = 8
    DESCRIBE_CONFIGS = 10
    ALTER_CONFIGS = 11


@pytest.fixture
def secured(kafka: Cluster) -> KafkaProcess:
    if kafka.process is None:
        pytest.skip("FLAGMETER_TEST_KAFKA has no users that the tests know")
    return kafka.process


@pytest.fixture
def topic() -> str:
    return f"flagmeter.{uuid.uuid4().hex}"


def config() -> MigrateConfig:
    return MigrateConfig.model_validate(
        {"kafka_security_protocol": "SASL_PLAINTEXT", "kafka_username": STRANGER, "kafka_password": PASSWORD}
    )


def place(secured: KafkaProcess, topic: str) -> Place:
    return Place(broker(secured, topic), config(), pause=lambda _: pytest.fail("waited"))


def broker(secured: KafkaProcess, topic: str) -> KafkaBroker:
    return KafkaBroker((f"127.0.0.1:{secured.sasl}",), topic)


def allow(secured: KafkaProcess, name: str, *rights: Right, resource: int = _TOPIC) -> None:
    """Allow the stranger so much, as `kafka-acls --add` does."""

    async def work() -> None:
        client = AIOKafkaAdminClient(bootstrap_servers=secured.address)
        await client.start()
        try:
            for right in rights:
                named = (resource, name, _LITERAL, f"User:{STRANGER}", "*", right, _ALLOW)
                answer = await client._send_to_controller(CreateAclsRequest(*named))
                assert answer.creation_responses[0][0] == 0, answer
                in_force = functools.partial(_is_known, client, named)
                await until(in_force)
        finally:
            await client.close()

    asyncio.run(work())


async def _is_known(client: AIOKafkaAdminClient, named: tuple[object, ...]) -> bool:
    """Say whether the broker's authorizer has the rule: it learns of it a moment after the controller."""
    answer = await client._send_request(DescribeAclsRequest(*named))
    return bool(answer.resources)


def test_migrate_names_each_right_that_it_lacks_and_needs_no_more(secured: KafkaProcess, topic: str) -> None:
    there = place(secured, topic)
    with pytest.raises(RefusedMigrationError, match=f"the topic {topic} cannot be seen: allow Describe on it"):
        broker_topic.bring(there, Wish())
    allow(secured, topic, Right.DESCRIBE)
    with pytest.raises(RefusedMigrationError, match=f"refuses to make the topic {topic}: .*; allow Create on it"):
        broker_topic.bring(there, Wish(partitions=1))
    allow(secured, topic, Right.CREATE)
    with pytest.raises(RefusedMigrationError, match=r"settings of the topic .*: allow DescribeConfigs on it"):
        broker_topic.bring(there, Wish(partitions=1))
    allow(secured, topic, Right.DESCRIBE_CONFIGS)
    assert broker_topic.bring(there, Wish()) == 1
    with pytest.raises(RefusedMigrationError, match=r"refuses to add partitions .*; allow Alter on it"):
        broker_topic.bring(there, Wish(partitions=2, alter=True))
    allow(secured, topic, Right.ALTER)
    assert broker_topic.bring(there, Wish(partitions=2, alter=True)) == 2


def test_migrate_needs_alter_configs_to_mend_a_topic(secured: KafkaProcess, kafka: Cluster) -> None:
    topic = asyncio.run(kafka.make_topic(cleanup_policy="compact"))
    allow(secured, topic, Right.DESCRIBE, Right.DESCRIBE_CONFIGS)
    with pytest.raises(RefusedMigrationError, match=r"refuses to change the topic .*; allow AlterConfigs on it"):
        broker_topic.bring(place(secured, topic), Wish(alter=True))
    allow(secured, topic, Right.ALTER_CONFIGS)
    assert broker_topic.bring(place(secured, topic), Wish(alter=True)) == 1


async def check(secured: KafkaProcess, topic: str) -> None:
    """Do what each service does before it starts its work."""
    async with kafka_admin.admin(broker(secured, topic), config()) as client:
        refuse_unsafe(await kafka_admin.look(client, topic))


def test_a_gateway_needs_write_and_describe_configs(secured: KafkaProcess, kafka: Cluster) -> None:
    topic = asyncio.run(kafka.make_topic())
    allow(secured, topic, Right.WRITE, Right.DESCRIBE_CONFIGS)

    async def append() -> int:
        await check(secured, topic)
        options = config().client_options(broker(secured, topic))
        async with AIOKafkaProducer(**options, acks="all", enable_idempotence=True) as producer:
            return int((await producer.send_and_wait(topic, b"event")).offset)

    assert asyncio.run(append()) == 0


def test_an_aggregator_needs_read_and_describe_configs_and_its_group(secured: KafkaProcess, kafka: Cluster) -> None:
    topic = asyncio.run(kafka.make_topic())
    allow(secured, topic, Right.READ, Right.DESCRIBE_CONFIGS)
    allow(secured, GROUP, Right.READ, resource=_GROUP)
    partition = TopicPartition(topic, 0)

    async def read() -> str:
        await check(secured, topic)
        async with AIOKafkaProducer(bootstrap_servers=secured.address) as producer:
            await producer.send_and_wait(topic, b"event")
        options = config().client_options(broker(secured, topic))
        consumer = AIOKafkaConsumer(
            topic, **options, group_id=GROUP, enable_auto_commit=False, auto_offset_reset="earliest"
        )
        async with consumer:
            record = await asyncio.wait_for(consumer.getone(), 20)
            await consumer.commit({partition: OffsetAndMetadata(record.offset, "declared")})
            async with kafka_admin.admin(broker(secured, topic), config()) as client:
                known = await client.list_consumer_group_offsets(GROUP, partitions=[partition])
                return str(known[partition].metadata)

    assert asyncio.run(read()) == "declared"
