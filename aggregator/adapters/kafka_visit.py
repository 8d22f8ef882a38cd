"""A Kafka topic as one sees it who is no member of the group."""

import contextlib
from collections.abc import AsyncIterator
from typing import Final

from aiokafka import AIOKafkaConsumer, TopicPartition, errors

from aggregator.adapters import kafka_group
from aggregator.adapters.kafka import Assignment, KafkaLog
from aggregator.adapters.visit import WorkersError
from aggregator.ports import BrokerAwayError, PartitionLog
from schemas import kafka_admin
from schemas.kafka import GROUP, KafkaSettings
from schemas.kafka_admin import KafkaAwayError
from schemas.kafka_topic import UnsafeTopicError
from schemas.urls import KafkaBroker

_NOBODY: Final = frozenset({"Empty", "Dead"})
"""States of a group without members; `Dead` is one that does not exist."""


class KafkaVisit:
    """A topic, read by partitions that are taken by hand: the group does not notice."""

    can_skip = False

    def __init__(
        self,
        broker: KafkaBroker,
        settings: KafkaSettings,
        consumer: AIOKafkaConsumer,
        topic_id: str,
        partitions: tuple[int, ...],
    ) -> None:
        self._broker = broker
        self._settings = settings
        self._consumer = consumer
        self.topic_id = topic_id
        self.partitions = partitions

    @classmethod
    async def begin(cls, broker: KafkaBroker, settings: KafkaSettings) -> "KafkaVisit":
        """Connect.

        Raises:
            BrokerAwayError: no broker can be reached, or there is no such topic.
        """
        consumer = kafka_group.make_consumer(broker, settings, GROUP)
        try:
            try:
                await consumer.start()
            except (errors.KafkaError, OSError) as error:
                raise BrokerAwayError(await kafka_admin.why_away(broker, settings)) from error
            try:
                async with kafka_admin.admin(broker, settings) as client:
                    topic = await kafka_admin.look(client, broker.topic)
            except (KafkaAwayError, UnsafeTopicError) as error:
                raise BrokerAwayError(str(error)) from error
            numbers = tuple(range(topic.partitions))
            everything = [TopicPartition(broker.topic, number) for number in numbers]
            consumer.assign(everything)
            consumer.pause(*everything)  # nothing is fetched but what is asked for
            await kafka_group.bounded(consumer._coordinator.ensure_coordinator_known())  # noqa: SLF001 - offsets are asked of it
        except BaseException:
            await kafka_group.dispose(consumer)
            raise
        return cls(broker, settings, consumer, topic.id, numbers)

    def log(self, partition: int) -> PartitionLog:
        """Give a partition; its commits name no generation, which Kafka takes for a group without members only."""
        if partition not in self.partitions:
            raise BrokerAwayError(f"the topic {self._broker.topic} has no partition {partition}")
        at = TopicPartition(self._broker.topic, partition)
        self._consumer.resume(at)
        return KafkaLog(Assignment(self._consumer, GROUP, kafka_group.fence_of(self._consumer)), at, self.topic_id)

    @contextlib.asynccontextmanager
    async def alone(self, partition: int) -> AsyncIterator[PartitionLog]:
        """Make sure that the group has no members."""
        log = self.log(partition)
        try:
            async with kafka_admin.admin(self._broker, self._settings) as client:
                (answer,) = await client.describe_consumer_groups([GROUP])
        except KafkaAwayError as error:
            raise BrokerAwayError(str(error)) from error
        except errors.KafkaError as error:
            raise BrokerAwayError(
                f"Kafka does not tell of the group {GROUP}: {error or type(error).__name__}"
            ) from error
        (group,) = answer.groups
        if group[0]:
            raise BrokerAwayError(f"Kafka does not tell of the group {GROUP}: {errors.for_code(group[0]).__name__}")
        state, members = group[2], len(group[5])
        if state not in _NOBODY:
            raise WorkersError(
                f"the group {GROUP} has {members} members ({state}): end the aggregators first, and wait until Kafka "
                f"misses them ({kafka_group.SESSION_SECONDS:g} s after one that was killed)"
            )
        yield log

    async def skip_to(self, position: int) -> None:
        """Refuse: Kafka gives its positions itself."""
        raise BrokerAwayError(f"Kafka cannot be told to go on at {position}")

    async def close(self) -> None:
        """Close the connections."""
        await kafka_group.dispose(self._consumer)
