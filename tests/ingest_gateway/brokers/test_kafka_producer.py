"""The producer on a real Kafka: what it writes, how it fails, and that one which is given up sends nothing more."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from aiokafka import TopicPartition, errors
from pydantic import SecretStr

from ingest_gateway.brokers import kafka as kafka_topics
from ingest_gateway.brokers.kafka_producer import KafkaCluster, KafkaProducer
from ingest_gateway.config import Config
from ingest_gateway.groups import _Waiting
from schemas.event import Event, Headers, Kind, from_pairs, partition_key
from schemas.kafka import PRODUCE_BYTES, KafkaSettings
from schemas.kafka_admin import KafkaAwayError
from schemas.limits import MAX_NAME
from schemas.urls import KafkaBroker
from tests.support.kafka import PASSWORD, STRANGER, USER, Cluster, KafkaProcess
from tests.support.topics import records_of

WIDEST = "\U0001f600" * MAX_NAME
"""The longest name that a header or a token can have, in bytes."""
SECONDS = 20.0


def headers(**fields: Any) -> Headers:
    known = {"kind": Kind.METRICS, "route": "/r", "project": "p", "environment": "e", "token_id": "t"}
    return Headers(**{**known, "received_ms": 1_790_000_000_000, "body_hash": "h", **fields})


def events(*values: bytes) -> list[Event]:
    return [Event(b"key", headers(sdk=f"sdk {number}"), value) for number, value in enumerate(values)]


@asynccontextmanager
async def producing(
    address: str, topic: str, settings: KafkaSettings | None = None, *, end_within: float = 5
) -> AsyncIterator[KafkaProducer]:
    producer = await KafkaCluster(KafkaBroker((address,), topic), settings or Config()).produce()
    try:
        yield producer
    finally:
        await producer.end(end_within)


async def sent(producer: KafkaProducer, partition: int, *values: bytes) -> None:
    async with asyncio.timeout(SECONDS):
        await (await producer.send(producer.encode(events(*values)), partition))


@pytest.fixture
def secured(kafka: Cluster) -> KafkaProcess:
    if kafka.process is None:
        pytest.skip("this Kafka has no users and certificates that the tests know")
    return kafka.process


async def test_events_arrive_with_their_keys_and_headers_in_order(kafka: Cluster) -> None:
    topic = await kafka.make_topic(partitions=2)
    async with producing(kafka.address, topic) as producer:
        assert producer.leader(0) == producer.leader(1) != None  # noqa: E711 - one broker leads both
        assert producer.leader(2) is None
        await sent(producer, 1, b"one", b"two \xff\x00")
        await sent(producer, 1, b"three")
        await producer.ask(producer.leader(1) or 0)
    found = await records_of(kafka.address, topic, 2)
    assert [(record.partition, record.key, record.value) for record in found] == [
        (1, b"key", b"one"),
        (1, b"key", b"two \xff\x00"),
        (1, b"key", b"three"),
    ]
    assert [from_pairs(record.headers) for record in found[:2]] == [headers(sdk="sdk 0"), headers(sdk="sdk 1")]


async def test_the_largest_groups_fit_one_batch(kafka: Cluster) -> None:
    """Groups are cut by an estimate of their size; with the longest headers they are larger than that."""
    widest = headers(
        kind=Kind.REGISTER,
        route="/api/frontend/client/register",
        project=WIDEST,
        environment=WIDEST,
        token_id="0" * 16,
        body_hash="0" * 32,
        connection=WIDEST,
        sdk=WIDEST,
        idempotency_key=WIDEST,
        start=-(10**18),
    )
    key = partition_key(widest, app=WIDEST)
    overhead = _Waiting(Event(key, widest, b""), 0.0, asyncio.Future(), patient=False).size
    value = b"x" * (kafka_topics.GROUP_BYTES // kafka_topics.GROUP_EVENTS - overhead)
    topic = await kafka.make_topic()
    async with producing(kafka.address, topic) as producer:
        many = producer.encode([Event(key, widest, value)] * kafka_topics.GROUP_EVENTS)
        assert many is not None
        largest = Config.model_fields["max_body_bytes"].metadata[1].le
        one = producer.encode([Event(key, widest, b"x" * largest)])
        assert one is not None
        for batch in (many, one):
            assert batch.size() <= PRODUCE_BYTES
            async with asyncio.timeout(SECONDS):
                await (await producer.send(batch, 0))


async def test_what_is_larger_is_not_even_handed_over(kafka: Cluster) -> None:
    topic = await kafka.make_topic()
    async with producing(kafka.address, topic) as producer:
        assert producer.encode(events(b"x" * PRODUCE_BYTES)) is None
        assert producer.encode(events(b"x" * (PRODUCE_BYTES // 2), b"x" * (PRODUCE_BYTES // 2))) is None
        await sent(producer, 0, b"small")


async def test_after_one_refusal_every_later_batch_fails(kafka: Cluster) -> None:
    """Why a producer is made anew after any batch that failed."""
    topic = await kafka.make_topic(max_message_bytes="10000")
    async with producing(kafka.address, topic) as producer:
        await sent(producer, 0, b"small")
        with pytest.raises(errors.MessageSizeTooLargeError):
            await sent(producer, 0, b"x" * 20_000)
        with pytest.raises(errors.OutOfOrderSequenceNumber):
            await sent(producer, 0, b"small")
    async with producing(kafka.address, topic) as producer:
        await sent(producer, 0, b"small")


async def test_a_producer_that_runs_out_of_sequence_numbers_fails_and_the_next_one_goes_on(kafka: Cluster) -> None:
    """aiokafka counts on below zero; a partition gets there after two thousand million events of one producer."""
    topic = await kafka.make_topic()
    async with producing(kafka.address, topic) as producer:
        numbers = producer._producer._txn_manager._sequence_numbers
        numbers[TopicPartition(topic, 0)] = 2**31 - 1
        await sent(producer, 0, b"first")
        with pytest.raises(errors.KafkaError):
            await sent(producer, 0, b"refused")
    async with producing(kafka.address, topic) as producer:
        await sent(producer, 0, b"last")
    assert [record.value for record in await records_of(kafka.address, topic, 1)] == [b"first", b"last"]


async def test_it_logs_in_over_tls(kafka: Cluster, secured: KafkaProcess) -> None:
    topic = await kafka.make_topic()
    settings = Config(
        kafka_security_protocol="SASL_SSL",
        kafka_username=USER,
        kafka_password=SecretStr(PASSWORD),
        kafka_ca_file=secured.ca_file,
    )
    address = f"127.0.0.1:{secured.sasl_ssl}"
    assert (await KafkaCluster(KafkaBroker((address,), topic), settings).look()).partitions == 1
    async with producing(address, topic, settings) as producer:
        await sent(producer, 0, b"secret")
    assert [record.value for record in await records_of(kafka.address, topic, 1)] == [b"secret"]


async def test_who_may_not_write_is_told_so(kafka: Cluster, secured: KafkaProcess) -> None:
    topic = await kafka.make_topic()
    settings = Config(
        kafka_security_protocol="SASL_PLAINTEXT", kafka_username=STRANGER, kafka_password=SecretStr(PASSWORD)
    )
    cluster = KafkaCluster(KafkaBroker((f"127.0.0.1:{secured.sasl}",), topic), settings)
    with pytest.raises(KafkaAwayError, match="allow Write"):
        await cluster.produce()


async def test_a_producer_that_is_given_up_sends_nothing_more(own_kafka: KafkaProcess) -> None:
    await asyncio.to_thread(own_kafka.start)
    topic = await Cluster(own_kafka.address).make_topic(partitions=3)
    async with producing(own_kafka.address, topic) as producer:
        await sent(producer, 0, b"before")
        own_kafka.freeze()
        # More than a socket's buffers hold: of the first most is still here, and the second was not sent at all.
        open_ends = [
            await producer.send(producer.encode(events(f"stuck {number}".encode() + b"x" * 3_000_000)), number)
            for number in (1, 2)
        ]
        await asyncio.sleep(0.5)
        began = time.monotonic()
        await producer.end(0.2)
        assert time.monotonic() - began < 5
        assert not any(end.done() for end in open_ends)
        assert not [task for task in asyncio.all_tasks() if "aiokafka" in repr(task)], "nothing is left running"
        own_kafka.thaw()
        async with producing(own_kafka.address, topic) as other:
            await sent(other, 0, b"after")
    found = [record.value for record in await records_of(own_kafka.address, topic, 3)]
    assert found == [b"before", b"after"]
