"""What `ingest_gateway.brokers.kafka` asks of a Kafka, done by aiokafka.

aiokafka's own `stop()` sends what the producer holds, for as long as that takes; so giving up is done by hand, past its
interface, in `KafkaProducer.end`, which a test pins against a real broker that is frozen.
"""

import asyncio
import contextlib
from collections.abc import Sequence
from typing import Any, Final

from aiokafka import AIOKafkaProducer, TopicPartition, errors
from aiokafka.cluster import ClusterMetadata
from aiokafka.protocol.metadata import MetadataRequest

from schemas import event, kafka_admin
from schemas.event import Event
from schemas.kafka import PRODUCE_BYTES, KafkaSettings
from schemas.kafka_admin import KafkaAwayError
from schemas.kafka_topic import Topic
from schemas.urls import KafkaBroker

_REQUEST_SECONDS: Final = 5.0
"""After so long without an answer aiokafka connects anew, and sends the same batch again under the same number."""
_REFRESH_SECONDS: Final = 0.25
_METADATA_SECONDS: Final = 60.0
_CLOSE_SECONDS: Final = 0.5


class KafkaCluster:
    """A Kafka and one topic on it."""

    def __init__(self, broker: KafkaBroker, settings: KafkaSettings) -> None:
        self._broker = broker
        self._settings = settings

    async def look(self) -> Topic:
        """Ask what the topic is like; see `kafka_admin.look`."""
        async with kafka_admin.admin(self._broker, self._settings) as client:
            return await kafka_admin.look(client, self._broker.topic)

    async def produce(self) -> "KafkaProducer":
        """Connect a producer.

        Raises:
            KafkaAwayError: no broker takes us.
        """
        producer = AIOKafkaProducer(
            **self._settings.client_options(self._broker),
            client_id="flagmeter-gateway",
            enable_idempotence=True,
            acks="all",
            linger_ms=0,
            max_batch_size=PRODUCE_BYTES,
            max_request_size=PRODUCE_BYTES,
            request_timeout_ms=int(_REQUEST_SECONDS * 1000),
            metadata_max_age_ms=int(_METADATA_SECONDS * 1000),
        )
        started = KafkaProducer(producer, self._broker.topic)
        connected = False
        try:
            # A producer that is let in, but gets no number, tries for ever.
            async with asyncio.timeout(_REQUEST_SECONDS * 2 * (1 + len(self._broker.servers))):
                await producer.start()
                await producer.partitions_for(self._broker.topic)
            connected = True
        except (errors.ClusterAuthorizationFailedError, errors.TopicAuthorizationFailedError) as error:
            raise KafkaAwayError(f"Kafka lets no producer in ({error}): allow Write on the topic") from error
        except (errors.KafkaError, TimeoutError, OSError) as error:
            raise KafkaAwayError(f"Kafka lets no producer in: {error or type(error).__name__}") from error
        finally:
            if not connected:
                await started.end(0)
        return started


class KafkaProducer:
    """An idempotent producer of one topic; see `kafka.Producer`."""

    def __init__(self, producer: AIOKafkaProducer, topic: str) -> None:
        self._producer = producer
        self._topic = topic
        self._refreshed = 0.0

    def encode(self, events: Sequence[Event]) -> Any:
        """Make one batch of aiokafka's; None where the events are larger than `PRODUCE_BYTES`."""
        batch = self._producer.create_batch()
        for one in events:
            added = batch.append(
                timestamp=one.headers.received_ms, key=one.key, value=one.value, headers=event.to_pairs(one.headers)
            )
            if added is None:
                return None
        batch.close()
        return batch if batch.size() <= PRODUCE_BYTES else None  # the first event is added whatever its size

    async def send(self, batch: Any, partition: int) -> asyncio.Future[Any]:
        """Hand a batch over. aiokafka then sends it until it is acknowledged, or refused for good."""
        handed: asyncio.Future[Any] = await self._producer.send_batch(batch, self._topic, partition=partition)
        return handed

    def leader(self, partition: int) -> int | None:
        """Say which broker takes appends to a partition."""
        found = self._producer.client.cluster.leader_for_partition(TopicPartition(self._topic, partition))
        return None if found is None or found < 0 else int(found)

    def refresh(self) -> None:
        """Have the leaders asked for anew, not more often than is useful."""
        now = asyncio.get_running_loop().time()
        if now - self._refreshed > _REFRESH_SECONDS:
            self._refreshed = now
            self._producer.client.force_metadata_update()

    async def ask(self, broker: int) -> None:
        """Ask a broker for its metadata."""
        await self._producer.client.send(broker, MetadataRequest([self._topic]))

    async def end(self, seconds: float) -> None:
        """Wait so long for what was handed over, then drop it; afterwards nothing more is sent.

        Connections are cut, since a closed one would still send what is buffered. The sender then finds no broker to
        send to, and ends.
        """
        if seconds:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(seconds):
                    await self._producer.flush()
        client, sender = self._producer.client, self._producer._sender.sender_task  # noqa: SLF001
        client.cluster = ClusterMetadata()  # knows no broker, so that no connection is made any more
        self._cut()
        for _ in range(2):  # the first ends its loop, the second what it still waits for
            if sender is not None and not sender.done():
                sender.cancel()
                await asyncio.wait((sender,), timeout=_CLOSE_SECONDS)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_CLOSE_SECONDS):
                await client.close()
        self._cut()
        self._producer._closed = True  # noqa: SLF001 - its `stop` would send

    def _cut(self) -> None:
        for connection in tuple(self._producer.client._conns.values()):  # noqa: SLF001
            if connection._writer is not None:  # noqa: SLF001
                connection._writer.transport.abort()  # noqa: SLF001
            connection.close()
