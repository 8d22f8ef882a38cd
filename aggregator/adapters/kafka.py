"""The reading half on Kafka: a member of the consumer group, and each partition for the time of one assignment.

EXACTLY_ONCE.md, 3. Members are dynamic: aiokafka does not fence static ones. Everything that belongs to an assignment
names its generation; when the partitions are taken back, all of it has ended before the group goes on.
"""

import asyncio
from bisect import bisect_left
from collections.abc import Iterable
from typing import Final

import structlog
from aiokafka import AIOKafkaConsumer, TopicPartition, errors
from aiokafka.abc import ConsumerRebalanceListener

from aggregator.adapters import kafka_group
from aggregator.adapters.kafka_group import Fence, Offset
from aggregator.ports import (
    Bounds,
    BrokerAwayError,
    Chunk,
    Clock,
    Listener,
    MembershipLostError,
    OutOfRangeError,
    Record,
)
from schemas import declaration, event, kafka_admin, kafka_topic
from schemas.declaration import Committed
from schemas.kafka import GROUP, KafkaSettings
from schemas.kafka_admin import KafkaAwayError
from schemas.kafka_topic import UnsafeTopicError
from schemas.urls import KafkaBroker

_CHUNK_RECORDS: Final = 2000
_CHUNK_BYTES: Final = 4 * 1024 * 1024
_LOOK_SECONDS: Final = 2.0
"""How often the broker is asked whether it is there, and whether the topic is still the same."""
_CHECK_SECONDS: Final = 60.0
"""How often the topic's settings are looked at."""
_PATIENCE_SECONDS: Final = kafka_group.HEARTBEAT_SECONDS + 2.0
"""How long after a lost assignment the group may take to tell us of it, before we leave and join anew."""
_AGAIN_SECONDS: Final = 1.0
_GROWN: Final = "run `flagmeter migrate`, which lets the tables remember more tokens, and start the workers anew"

_log = structlog.get_logger(__name__)


class Assignment:
    """What the partitions of one assignment share."""

    def __init__(self, consumer: AIOKafkaConsumer, group: str, fence: Fence) -> None:
        self.consumer = consumer
        self.group = group
        self.fence = fence
        self.over = asyncio.Event()
        """The group took it back, or we are leaving."""
        self.lost = asyncio.Event()
        """The broker, or another's commit, told us that it is not ours any more."""

    def check(self) -> None:
        """Refuse to go on after the end.

        Raises:
            MembershipLostError: it is over.
        """
        if self.over.is_set():
            raise MembershipLostError(f"generation {self.fence.generation} is over")


class KafkaLog:
    """One partition, for the time of one assignment."""

    session_seconds = kafka_group.SESSION_SECONDS

    def __init__(self, assignment: Assignment, partition: TopicPartition, topic_id: str) -> None:
        self._assignment = assignment
        self._consumer = assignment.consumer
        self._at = partition
        self._written: tuple[Offset | None, ...] | None = None
        """What may stand at the broker: what was read or written last, and what was sent without an answer."""
        self._held: list[Record] = []
        self._from = self._to = -1
        """`_held` is what the log has from one position up to, but without, the other."""
        self.topic_id = topic_id

    @property
    def partition(self) -> int:
        """Number of the partition."""
        return int(self._at.partition)

    async def bounds(self) -> Bounds:
        """Ask for the log's begin and end."""
        self._assignment.check()
        begin, end = await kafka_group.bounded(
            asyncio.gather(self._consumer.beginning_offsets([self._at]), self._consumer.end_offsets([self._at]))
        )
        return Bounds(begin[self._at], end[self._at])

    async def position_at(self, log_time: int) -> int:
        """Find the first position whose record was appended at `log_time` (ms) or later; the end where none was."""
        self._assignment.check()
        found = await kafka_group.bounded(self._consumer.offsets_for_times({self._at: log_time}))
        if found[self._at] is not None:
            return int(found[self._at].offset)
        return (await self.bounds()).end

    async def committed(self) -> Committed | None:
        """Read the group's committed offset."""
        found = await self._committed()
        self._written = (found,)
        return None if found is None else declaration.read(found.offset, found.metadata)

    async def commit(self, offset: int, metadata: str) -> None:
        """Commit under this assignment's generation, if nobody else committed in between."""
        found = await self._committed()
        if self._written is not None and found not in self._written:
            raise self._lost(f"somebody else committed {found}, after {self._written[0]} of ours")
        if found is None:
            await self._assert_same_topic()
        wanted = Offset(offset, metadata)
        self._written = (found, wanted)  # until it is answered, either may stand there
        await self._fenced(wanted)
        self._written = (wanted,)

    async def _assert_same_topic(self) -> None:
        """Refuse what may have been read from a topic made anew; an offset that was committed would have gone with it.

        Raises:
            MembershipLostError: the topic has another id.
            BrokerAwayError: it is missing, or no answer.
        """
        try:
            found = await kafka_group.bounded(kafka_admin.topic_id(self._consumer._client, self._at.topic))  # noqa: SLF001
        except UnsafeTopicError as error:
            raise BrokerAwayError(str(error)) from error
        if found != self.topic_id:
            raise self._lost(f"the topic was made anew: it was {self.topic_id} and is {found}")

    async def _committed(self) -> Offset | None:
        self._assignment.check()
        try:
            return await kafka_group.committed(self._consumer, self._assignment.group, self._at)
        except MembershipLostError as error:
            raise self._lost(str(error)) from error

    def _lost(self, why: str) -> MembershipLostError:
        """Note that the assignment is lost: where the group does not tell of it soon, it is joined anew."""
        self._assignment.lost.set()
        return MembershipLostError(why)

    async def _fenced(self, wanted: Offset) -> None:
        self._assignment.check()
        try:
            await kafka_group.commit(self._consumer, self._assignment.group, self._assignment.fence, self._at, wanted)
        except MembershipLostError as error:
            raise self._lost(str(error)) from error

    async def read(self, position: int, *, until: int | None, wait_seconds: float) -> Chunk:
        """Read on; what was fetched and not taken stays here for the next call."""
        self._assignment.check()
        self._drop_before(position)
        if not self._held and (until is None or self._to <= until):
            await self._fetch(wait_seconds)
        return self._serve(until)

    def _drop_before(self, position: int) -> None:
        if self._from <= position <= self._to:
            del self._held[: bisect_left(self._held, position, key=lambda record: record.offset)]
        else:
            try:
                self._consumer.seek(self._at, position)
            except errors.IllegalStateError as error:  # taken back a moment ago
                raise self._lost(str(error)) from error
            self._held, self._to = [], position
        self._from = position

    async def _fetch(self, wait_seconds: float) -> None:
        """Wait for records after `_to`."""
        try:
            found = await self._consumer.getmany(
                self._at, timeout_ms=int(wait_seconds * 1000), max_records=_CHUNK_RECORDS
            )
            reached = await self._consumer.position(self._at)
        except errors.OffsetOutOfRangeError as error:
            self._forget()
            raise OutOfRangeError(f"the log does not have position {self._to} any more, or not yet") from error
        except errors.IllegalStateError as error:  # taken back while we waited
            raise self._lost(str(error)) from error
        except errors.KafkaError as error:
            self._forget()
            raise BrokerAwayError(f"Kafka: {error or type(error).__name__}") from error
        self._held = [
            Record(found.offset, found.timestamp, event.from_pairs(found.headers), found.value or b"")
            for found in found.get(self._at, ())
            if found.offset >= self._to
        ]
        self._to = max(self._to, reached)

    def _forget(self) -> None:
        """Seek at the next read, wherever it is."""
        self._from, self._to, self._held = -1, -1, []

    def _serve(self, until: int | None) -> Chunk:
        records: list[Record] = []
        size = 0
        for record in self._held:
            if until is not None and record.offset > until:
                return Chunk(records, until + 1)
            if records and size + len(record.value) > _CHUNK_BYTES:
                return Chunk(records, record.offset)
            records.append(record)
            size += len(record.value)
        return Chunk(records, self._to if until is None else min(self._to, until + 1))


class KafkaMembership:
    """A worker's place in the consumer group; joined anew after whatever ended it."""

    def __init__(self, broker: KafkaBroker, settings: KafkaSettings, clock: Clock, *, group: str = GROUP) -> None:
        self._broker = broker
        self._settings = settings
        self._clock = clock
        self._group = group
        self.trouble: str | None = "the group was not joined yet"

    async def partitions(self) -> int:
        """Look at the topic; give its number of partitions."""
        try:
            async with kafka_admin.admin(self._broker, self._settings) as client:
                topic = await kafka_admin.look(client, self._broker.topic)
            advice = kafka_topic.refuse_unsafe(topic)
        except (KafkaAwayError, UnsafeTopicError) as error:
            raise BrokerAwayError(str(error)) from error
        for fault in advice:
            _log.info("the topic could be safer", topic=topic.name, advice=str(fault))
        return topic.partitions

    async def run(self, listener: Listener) -> None:
        """Be a member until cancelled."""
        while True:
            try:
                await _Session(self, listener).run()
            except BrokerAwayError as error:
                self.say(str(error))
            except Exception as error:  # noqa: BLE001 - must not end the process, nor leave it without a member
                _log.exception("a fault in the group's session; it is joined anew")
                self.say(f"fault: {type(error).__name__}")
            await self._clock.sleep(_AGAIN_SECONDS)

    def say(self, trouble: str | None) -> None:
        """Note, and log once, why the group cannot be reached."""
        if trouble != self.trouble:
            if trouble:
                _log.warning("trouble with the group", why=trouble)
            else:
                _log.info("the group is well")
        self.trouble = trouble

    def consumer(self) -> AIOKafkaConsumer:
        """Build a consumer."""
        return kafka_group.make_consumer(self._broker, self._settings, self._group)

    async def joined(self, consumer: AIOKafkaConsumer, listener: ConsumerRebalanceListener) -> None:
        """Let a consumer join the group.

        Raises:
            BrokerAwayError: no broker can be reached, or none lets us in.
        """
        try:
            await consumer.start()
        except (errors.KafkaError, OSError) as error:
            raise BrokerAwayError(await kafka_admin.why_away(self._broker, self._settings)) from error
        consumer.subscribe([self._broker.topic], listener=listener)

    async def topic_id(self, consumer: AIOKafkaConsumer) -> str:
        """Ask for the topic's id.

        Raises:
            BrokerAwayError: no answer, or no such topic.
        """
        try:
            return await kafka_group.bounded(kafka_admin.topic_id(consumer._client, self._broker.topic))  # noqa: SLF001
        except UnsafeTopicError as error:
            raise BrokerAwayError(str(error)) from error

    def assignment(self, consumer: AIOKafkaConsumer) -> Assignment:
        """Take down what the consumer was just assigned under."""
        return Assignment(consumer, self._group, kafka_group.fence_of(consumer))

    def now(self) -> float:
        """Read the monotonic clock, in seconds."""
        return self._clock.monotonic()


class _Session(ConsumerRebalanceListener):
    """One consumer, from joining the group to leaving it.

    The group's callbacks must return quickly when partitions come, since no heartbeat is sent meanwhile; when
    partitions go, they return once all work on them has ended.
    """

    def __init__(self, membership: KafkaMembership, listener: Listener) -> None:
        self._membership = membership
        self._listener = listener
        self._consumer = membership.consumer()
        self._assignment: Assignment | None = None
        self._waiting: list[TopicPartition] = []
        self._given: set[int] = set()
        self._changing = asyncio.Lock()
        self._came = asyncio.Event()
        self._checked = membership.now()
        self._unsafe: str | None = None
        self._partitions = 0

    async def run(self) -> None:
        """Take part until it has to be joined anew.

        Raises:
            BrokerAwayError: the broker is away, or refuses us.
        """
        try:
            await self._membership.joined(self._consumer, self)
            topic_id = await self._membership.topic_id(self._consumer)
            while await self._goes_on(topic_id):
                await self._hand_over(topic_id)
        finally:
            await self._take_back()
            await kafka_group.dispose(self._consumer)

    async def _goes_on(self, topic_id: str) -> bool:
        """Wait until something comes, and look now and then whether all is well; False to join anew."""
        await self._something_or(_LOOK_SECONDS)
        assignment = self._assignment
        try:
            kafka_group.raise_trouble(self._consumer)
            found = await self._membership.topic_id(self._consumer)
        except BrokerAwayError as error:
            self._membership.say(str(error))
        except errors.KafkaError as error:
            raise BrokerAwayError(f"Kafka: {error}") from error
        else:
            if found != topic_id:
                _log.error("the topic was made anew", was=topic_id, now=found)
                return False
            await self._look_at_topic()
            if assignment is not None:  # while the group is being balanced nothing new is known
                self._membership.say(self._unsafe)
        return assignment is None or not assignment.lost.is_set() or await self._told_of_it(assignment)

    async def _told_of_it(self, lost: Assignment) -> bool:
        """Wait for the group to tell us that an assignment is over: usually it does so at the next heartbeat."""
        deadline = self._membership.now() + _PATIENCE_SECONDS
        while self._assignment is lost and (rest := deadline - self._membership.now()) > 0:
            await asyncio.wait({ended := asyncio.ensure_future(lost.over.wait())}, timeout=rest)
            ended.cancel()
            if lost.over.is_set():
                async with self._changing:  # until all work on it has ended
                    pass
        return self._assignment is not lost

    async def _something_or(self, seconds: float) -> None:
        """Wait for partitions, for the loss of the assignment, or for so long."""
        waits = {asyncio.ensure_future(self._came.wait())}
        if self._assignment is not None:
            waits.add(asyncio.ensure_future(self._assignment.lost.wait()))
        try:
            await asyncio.wait(waits, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for wait in waits:
                wait.cancel()

    async def _look_at_topic(self) -> None:
        if self._membership.now() - self._checked < _CHECK_SECONDS:
            return
        self._checked = self._membership.now()
        try:
            partitions = await self._membership.partitions()
        except BrokerAwayError as error:
            self._unsafe = str(error)
            return
        except Exception as error:  # noqa: BLE001 - this look is not worth the membership
            _log.exception("a fault while looking at the topic")
            self._unsafe = f"fault: {type(error).__name__}"
            return
        self._partitions = self._partitions or partitions
        grown = partitions != self._partitions
        self._unsafe = f"the topic has {partitions} partitions now, not {self._partitions}: {_GROWN}" if grown else None

    async def on_partitions_assigned(self, assigned: Iterable[TopicPartition]) -> None:
        """Note what came; it is handed over outside of the callback."""
        self._assignment = self._membership.assignment(self._consumer)
        self._waiting = sorted(assigned)
        self._came.set()
        _log.info("partitions assigned", partitions=[at.partition for at in self._waiting])

    async def on_partitions_revoked(self, revoked: Iterable[TopicPartition]) -> None:
        """End all work on what goes."""
        del revoked  # all that we have: every assignor of aiokafka is eager
        await self._take_back()

    async def _hand_over(self, topic_id: str) -> None:
        self._came.clear()
        async with self._changing:
            assignment = self._assignment
            while assignment is not None and self._waiting:
                at = self._waiting.pop(0)
                self._given.add(at.partition)
                await self._listener.assigned(KafkaLog(assignment, at, topic_id))

    async def _take_back(self) -> None:
        if self._assignment is not None:
            self._assignment.over.set()
        async with self._changing:
            self._waiting = []
            given, self._given = self._given, set()
            await asyncio.gather(*(self._listener.revoked(partition) for partition in sorted(given)))
            self._assignment = None
