"""The consumer group where aiokafka's public face is not enough: fenced commits, and offsets with their metadata.

aiokafka's `commit()` takes the consumer's generation of the moment: late work on a partition that went to another
worker and came back was accepted and rewound it (measured). A commit that names the generation and the member of the
assignment that it belongs to is refused by the broker as soon as that assignment is over, whoever sends it and when.
"""

import asyncio
import contextlib
from collections.abc import Awaitable
from typing import Any, Final, NamedTuple, NoReturn, TypeVar

from aiokafka import AIOKafkaConsumer, TopicPartition, errors
from aiokafka.client import ConnectionGroup
from aiokafka.protocol.commit import OffsetCommitRequest, OffsetFetchRequest

from aggregator.ports import BrokerAwayError, MembershipLostError
from schemas.kafka import MAX_MESSAGE_BYTES, KafkaSettings
from schemas.urls import KafkaBroker

T = TypeVar("T")

SESSION_SECONDS: Final = 10.0
HEARTBEAT_SECONDS: Final = 3.0
_REQUEST_SECONDS: Final = 20.0
"""Longer than a rebalance may take: the answer to a request to join comes at its end."""
_ANSWER_SECONDS: Final = 5.0
"""How long our own questions and commits may take."""
_STOP_SECONDS: Final = 5.0
_FETCH_WAIT_MS: Final = 100
"""A partition that was just read out waits for the fetch of its siblings to come back: at most so long."""
_NEVER_MS: Final = 2**31 - 1
"""A worker whose store is away reads nothing for hours, and stays a member."""

_OVER: Final = (
    errors.UnknownMemberIdError,
    errors.IllegalGenerationError,
    errors.RebalanceInProgressError,
    errors.GroupAuthorizationFailedError,
)
_COORDINATOR_MOVED: Final = (errors.GroupCoordinatorNotAvailableError, errors.NotCoordinatorForGroupError)


class Fence(NamedTuple):
    """Whose commits the broker takes: the member, in the generation of its assignment."""

    generation: int
    member_id: str


class Offset(NamedTuple):
    """A committed offset and its metadata."""

    offset: int
    metadata: str


def make_consumer(broker: KafkaBroker, settings: KafkaSettings, group: str) -> AIOKafkaConsumer:
    """Build a consumer; it commits nothing by itself, and reads from nowhere but where it is told."""
    return AIOKafkaConsumer(
        group_id=group,
        enable_auto_commit=False,
        auto_offset_reset="none",
        session_timeout_ms=int(SESSION_SECONDS * 1000),
        heartbeat_interval_ms=int(HEARTBEAT_SECONDS * 1000),
        rebalance_timeout_ms=int(SESSION_SECONDS * 1000),
        max_poll_interval_ms=_NEVER_MS,
        request_timeout_ms=int(_REQUEST_SECONDS * 1000),
        fetch_max_wait_ms=_FETCH_WAIT_MS,
        max_partition_fetch_bytes=MAX_MESSAGE_BYTES,
        fetch_max_bytes=4 * MAX_MESSAGE_BYTES,
        metadata_max_age_ms=60_000,
        **settings.client_options(broker),
    )


def fence_of(consumer: AIOKafkaConsumer) -> Fence:
    """Read the generation and the member id that the consumer has now."""
    coordinator = consumer._coordinator  # noqa: SLF001 - what this module is for
    return Fence(coordinator.generation, coordinator.member_id)


def raise_trouble(consumer: AIOKafkaConsumer) -> None:
    """Raise what stopped the consumer's background work, if anything did; it goes on when this was asked.

    Raises:
        aiokafka.errors.KafkaError: for example that the group may not be used.
    """
    consumer._coordinator.check_errors()  # noqa: SLF001
    if consumer._fetcher._fetch_task.done():  # noqa: SLF001 - reading would find nothing, for ever
        raise errors.KafkaError("the task that fetches records ended")


async def committed(consumer: AIOKafkaConsumer, group: str, partition: TopicPartition) -> Offset | None:
    """Ask for a committed offset with its metadata; None where there is none.

    aiokafka's admin client overlooks the error of a whole answer, which then looks like an offset that was never
    committed; here a partition that is not in the answer is an error.

    Raises:
        BrokerAwayError: no answer.
    """
    request = OffsetFetchRequest(group, [(partition.topic, [partition.partition])])
    answer = await _ask_coordinator(consumer, request)
    if code := getattr(answer, "error_code", 0):
        _coordinator_error(consumer, code)
    for topic, partitions in answer.topics:
        for number, offset, metadata, code in partitions:
            if (topic, number) == partition:
                if code:
                    _coordinator_error(consumer, code)
                return None if offset < 0 else Offset(offset, metadata or "")
    raise BrokerAwayError("the answer about the committed offset names another partition")


async def commit(
    consumer: AIOKafkaConsumer, group: str, fence: Fence, partition: TopicPartition, offset: Offset
) -> None:
    """Commit under the fence of one assignment.

    Raises:
        MembershipLostError: that assignment is over; nothing was written.
        BrokerAwayError: it may have been written or not.
    """
    request = OffsetCommitRequest(
        group,
        fence.generation,
        fence.member_id,
        OffsetCommitRequest.DEFAULT_RETENTION_TIME,
        [(partition.topic, [(partition.partition, offset.offset, offset.metadata)])],
    )
    # On the connection of the group's other requests: the broker sees it before a request to join anew.
    answer = await _ask_coordinator(consumer, request, group=ConnectionGroup.COORDINATION)
    codes = [code for _, partitions in answer.topics for _, code in partitions]
    if not codes:
        raise BrokerAwayError("the answer to the commit names no partition")
    if codes[0]:
        _coordinator_error(consumer, codes[0])


async def dispose(consumer: AIOKafkaConsumer) -> None:
    """Leave the group and close, in bounded time: a broker that is away must not hold up the end."""
    try:
        async with asyncio.timeout(_STOP_SECONDS):
            await consumer.stop()
    except (TimeoutError, errors.KafkaError):
        coordinator, fetcher = consumer._coordinator, consumer._fetcher  # noqa: SLF001
        tasks = []
        if coordinator is not None:
            tasks += [coordinator._coordination_task, coordinator._heartbeat_task, coordinator._commit_refresh_task]  # noqa: SLF001
        if fetcher is not None:
            tasks.append(fetcher._fetch_task)  # noqa: SLF001
        for task in tasks:
            if task is not None:
                task.cancel()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_STOP_SECONDS):
                await consumer._client.close()  # noqa: SLF001


async def bounded(call: Awaitable[T]) -> T:
    """Await one of our own questions to the broker.

    Raises:
        BrokerAwayError: it failed, or took too long.
    """
    try:
        async with asyncio.timeout(_ANSWER_SECONDS):
            return await call
    except TimeoutError as error:
        raise BrokerAwayError(f"Kafka did not answer within {_ANSWER_SECONDS:g} s") from error
    except (errors.KafkaError, OSError) as error:
        raise BrokerAwayError(f"Kafka: {error or type(error).__name__}") from error


async def _ask_coordinator(
    consumer: AIOKafkaConsumer, request: Any, *, group: ConnectionGroup = ConnectionGroup.DEFAULT
) -> Any:
    node = consumer._coordinator.coordinator_id  # noqa: SLF001
    if node is None:
        raise BrokerAwayError("the group's coordinator is not known now")
    return await bounded(consumer._client.send(node, request, group=group))  # noqa: SLF001


def _coordinator_error(consumer: AIOKafkaConsumer, code: int) -> NoReturn:
    kind = errors.for_code(code)
    if issubclass(kind, _OVER):
        raise MembershipLostError(f"the group refuses: {kind.__name__}")
    if issubclass(kind, _COORDINATOR_MOVED):
        consumer._coordinator.coordinator_dead()  # noqa: SLF001
    raise BrokerAwayError(f"Kafka: {kind()}")
