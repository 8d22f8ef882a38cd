"""The writing half on Kafka: a topic over one idempotent producer, and the log of each of its partitions.

EXACTLY_ONCE.md, 3 and 5. A group of events is one batch of the producer, and a partition has one batch in flight. What
fails before it is handed to the producer is surely not taken; what fails afterwards is in doubt, and is never sent
again by us. A producer that failed is given up, and made anew.
"""

import asyncio
import contextlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final, Protocol

import structlog

from ingest_gateway.groups import Bounds
from ingest_gateway.meters import Meters
from ingest_gateway.writer import InDoubt, NotTaken
from schemas.event import Event
from schemas.kafka_admin import KafkaAwayError
from schemas.kafka_topic import Topic, UnsafeTopicError, refuse_unsafe

_log = structlog.get_logger()

GROUP_EVENTS: Final = 256
GROUP_BYTES: Final = 2 * 1024 * 1024
"""With the longest headers that a request can have, a group of this size still fits one batch (`PRODUCE_BYTES`)."""


@dataclass(frozen=True, slots=True)
class Pauses:
    """How long things may take, in seconds."""

    look_every: float = 60.0
    """How often the topic's settings and partitions are looked at, and whether Kafka is there where nobody posts."""
    again_after: float = 2.0
    """How soon it is tried again where Kafka is away, or the topic is unsafe."""
    stuck_after: float = 1.5
    """A broker that holds a batch for longer, and acknowledged nothing else meanwhile, is asked whether it is there."""
    answer_within: float = 1.0
    """If it does not answer within this, it gets no further batch: what is not handed over is not in doubt."""
    ask_again_after: float = 0.25
    """Between questions to a broker that cannot be reached at all."""
    end_within: float = 2.0
    """How long a producer that failed may take to bring its other batches to an end."""
    first_backoff: float = 1.0
    """Before the third producer, where one after another failed without having appended anything; then doubled."""
    longest_backoff: float = 30.0


class Producer(Protocol):
    """An idempotent producer of one topic, connected."""

    def encode(self, events: Sequence[Event]) -> Any:
        """Make one batch; None where the events do not fit into one."""
        ...

    async def send(self, batch: Any, partition: int) -> asyncio.Future[Any]:
        """Hand a batch over; the future ends when it is appended, or failed. An error here: it was not handed over."""
        ...

    def leader(self, partition: int) -> int | None:
        """Say which broker takes appends to a partition; None where nobody does, as far as is known."""
        ...

    def refresh(self) -> None:
        """Have the leaders asked for anew."""
        ...

    async def ask(self, broker: int) -> None:
        """Ask a broker something that changes nothing; raises where it does not answer."""
        ...

    async def end(self, seconds: float) -> None:
        """Wait so long for what was handed over, then drop it: afterwards nothing more is sent."""
        ...


class Cluster(Protocol):
    """A Kafka and one topic on it."""

    async def look(self) -> Topic:
        """Ask what the topic is like.

        Raises:
            UnsafeTopicError: there is none, or we may not see it.
            KafkaAwayError: no answer.
        """
        ...

    async def produce(self) -> Producer:
        """Connect a producer.

        Raises:
            KafkaAwayError: no broker takes us.
        """
        ...


@dataclass(frozen=True, slots=True)
class _Handed:
    """A batch in flight: to whom it was handed, and when."""

    producer: Producer
    since: float
    acknowledged: asyncio.Future[Any]


class KafkaTopic:
    """A topic as `ingest_gateway.partitions` needs it."""

    def __init__(self, cluster: Cluster, meters: Meters, pauses: Pauses | None = None) -> None:
        self._cluster = cluster
        self._meters = meters
        self._pauses = pauses or Pauses()
        self._loop = asyncio.get_running_loop()
        self._producer: Producer | None = None
        self._failed: Producer | None = None
        """A producer that is to be given up."""
        self._failures = 0
        """Producers that failed, one after another, without having appended anything."""
        self._refusal: str | None = "Kafka was not reached yet"
        """Why nothing is handed over."""
        self._away: str | None = None
        """Why Kafka could not be looked at, and no broker answers either: seen where nobody posts."""
        self._seen: Topic | None = None
        self._advice: frozenset[str] = frozenset()
        self._wake = asyncio.Event()
        self._in_flight: dict[int, _Handed] = {}
        self._questions: dict[int, asyncio.Task[None]] = {}
        self._heard: dict[int, float] = {}
        """When each broker last acknowledged a batch, or answered."""
        self._unheard: dict[int, float] = {}
        """Since when each broker is asked in vain."""

    # The topic -------------------------------------------------------------------------------------------------------

    def partition(self, number: int) -> "KafkaPartition":
        """Give the log of one partition."""
        return KafkaPartition(self, number)

    def trouble(self) -> str | None:
        """Say why no partition at all takes events now."""
        producer, seen = self._producer, self._seen
        if self._refusal is not None or producer is None or seen is None:
            return self._refusal or "Kafka was not reached yet"
        leaders = {producer.leader(number) for number in range(seen.partitions)} - {None}
        if not leaders:
            return f"no partition of the topic {seen.name} has a leader"
        return self._away if leaders - self._silent(producer) else _no_answer(*leaders)

    async def follow(self, found: Callable[[int], None]) -> None:
        """Look at the topic now and then, and keep a producer, until cancelled; see `partitions.Topic`."""
        while True:
            pause = self._pauses.again_after
            try:
                await self._give_up()
                topic = await self._cluster.look()
                await self._take(topic)
                found(topic.partitions)
                pause = self._pauses.look_every
            except UnsafeTopicError as error:
                self._refusal = str(error)
            except KafkaAwayError as error:
                if self._producer is None:
                    self._refusal = str(error)
                elif not await self._is_there(self._producer):
                    self._away = str(error)
            except Exception as error:  # noqa: BLE001 - a fault of ours must not end the only task that connects
                _log.exception("a fault while connecting to Kafka")
                if self._producer is None:
                    self._refusal = f"fault: {type(error).__name__}"
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(pause):
                    await self._wake.wait()

    async def close(self) -> None:
        """Drop what is still in flight, and disconnect."""
        self._refusal = "closing"
        for producer in filter(None, (self._failed, self._producer)):
            await self._end(producer, 0)
        self._producer = self._failed = None

    async def _take(self, topic: Topic) -> None:
        """Go on with the topic as it is now, if it is safe."""
        advice = refuse_unsafe(topic)
        if frozenset(map(str, advice)) != self._advice:
            self._advice = frozenset(map(str, advice))
            for fault in advice:
                _log.warning("the topic could be safer", topic=topic.name, advice=str(fault))
        if self._seen is not None and self._seen.id != topic.id and self._producer is not None:
            self._fail(self._producer, "the topic was made anew")
        self._away = None
        if self._producer is None:
            await self._give_up()
            self._producer = await self._cluster.produce()
            self._unheard.clear()
        if self._seen is None or self._seen.partitions != topic.partitions:
            self._producer.refresh()
        self._seen = topic
        self._refusal = None

    async def _is_there(self, producer: Producer) -> bool:
        """Ask all leaders; True where one answers, whatever became of the look at the topic."""
        leaders = {producer.leader(number) for number in range(self._seen.partitions if self._seen else 0)}
        asked = [self._ask(producer, leader) for leader in leaders if leader is not None]
        if asked:
            await asyncio.wait(asked, timeout=self._pauses.answer_within)
        return any(each.done() and not each.cancelled() and each.exception() is None for each in asked)

    async def _give_up(self) -> None:
        """End a producer that failed; where one after another does, wait before the next one."""
        self._wake.clear()
        failed, self._failed = self._failed, None
        if failed is None:
            return
        try:
            await self._end(failed, self._pauses.end_within)
        except asyncio.CancelledError:
            self._failed = failed
            raise
        if self._failures > 1:
            longest = self._pauses.longest_backoff
            await asyncio.sleep(min(self._pauses.first_backoff * 2 ** min(self._failures - 2, 16), longest))

    async def _end(self, producer: Producer, seconds: float) -> None:
        """End a producer; who still waits for one of its batches learns that nobody knows."""
        for question in tuple(self._questions.values()):
            question.cancel()
        try:
            await producer.end(seconds)
        finally:
            for handed in self._in_flight.values():
                if handed.producer is producer:
                    handed.acknowledged.cancel()

    def _fail(self, producer: Producer, why: str) -> None:
        """Hand nothing more to this producer: its sequence numbers have a gap, and every later batch would fail."""
        if producer is not self._producer:
            return
        self._failed, self._producer = producer, None
        self._failures += 1
        self._refusal = f"the producer is made anew: {why}"
        self._meters.producers_failed.inc()
        _log.error("the producer failed and is made anew", why=why)
        self._wake.set()

    # A partition -----------------------------------------------------------------------------------------------------

    async def append(self, partition: int, events: Sequence[Event]) -> None:
        """Append a group to a partition; see `Log.append`."""
        producer, _ = self._ready(partition)
        batch = producer.encode(events)
        if batch is None:
            raise NotTaken("the group does not fit one batch")
        try:
            acknowledged = await producer.send(batch, partition)
        except Exception as error:
            self._fail(producer, _text(error))
            raise NotTaken(f"the producer takes nothing: {_text(error)}") from error
        del batch
        self._in_flight[partition] = _Handed(producer, self._loop.time(), acknowledged)
        try:
            await asyncio.wait((acknowledged,))
        finally:
            del self._in_flight[partition]
        if acknowledged.cancelled():
            raise InDoubt("its producer was given up")
        refused = acknowledged.exception()
        if refused is not None:
            self._fail(producer, _text(refused))
            raise InDoubt(_text(refused))
        self._failures = 0
        if (leader := producer.leader(partition)) is not None:
            self._hear(leader)

    async def probe(self, partition: int) -> None:
        """Find out whether a partition would take an append; see `Log.probe`."""
        producer, leader = self._ready(partition)
        question = self._ask(producer, leader)
        await asyncio.wait((question,), timeout=self._pauses.answer_within)
        if not question.done() or question.cancelled():
            raise NotTaken(_no_answer(leader))
        if (error := question.exception()) is not None:
            raise NotTaken(f"broker {leader}: {_text(error)}")

    def _ask(self, producer: Producer, leader: int) -> asyncio.Task[None]:
        """Ask a broker whether it is there.

        A question is not cancelled when it takes too long, and asked again only when it has ended: to connect again
        and again would fill a frozen broker's backlog.
        """
        question = self._questions.get(leader)
        if question is None:
            question = self._questions[leader] = self._loop.create_task(self._question(producer, leader))
            question.add_done_callback(lambda ended: self._answered(leader, ended))
        return question

    async def _question(self, producer: Producer, leader: int) -> None:
        try:
            await producer.ask(leader)
        except Exception:
            await asyncio.sleep(self._pauses.ask_again_after)
            raise

    def _answered(self, leader: int, question: asyncio.Task[None]) -> None:
        del self._questions[leader]
        if not question.cancelled() and question.exception() is None:
            self._hear(leader)

    def _hear(self, leader: int) -> None:
        self._heard[leader] = self._loop.time()
        self._unheard.pop(leader, None)
        self._away = None

    def _ready(self, partition: int) -> tuple[Producer, int]:
        """Give the producer, and the broker that takes appends to a partition.

        Raises:
            NotTaken: nothing can be handed over now.
        """
        producer = self._producer
        if self._refusal is not None or producer is None:
            raise NotTaken(self._refusal or "")
        leader = producer.leader(partition)
        if leader is None:
            producer.refresh()
            raise NotTaken("the partition has no leader")
        if leader in self._silent(producer):
            raise NotTaken(_no_answer(leader))
        return producer, leader

    def _silent(self, producer: Producer) -> set[int | None]:
        """Find the brokers that hold a batch for too long and do not answer; asks those that may be so.

        One that answers may have too few replicas in sync for one partition, and takes batches for others.
        """
        silent: set[int | None] = set()
        now = self._loop.time()
        stuck = now - self._pauses.stuck_after
        for number, handed in self._in_flight.items():
            leader = producer.leader(number)
            if leader is None or handed.since >= stuck or self._heard.get(leader, stuck) > stuck:
                continue
            self._ask(producer, leader)
            if self._unheard.setdefault(leader, now) < now - self._pauses.answer_within:
                silent.add(leader)
        return silent


class KafkaPartition:
    """One partition: a `Log`."""

    def __init__(self, topic: KafkaTopic, number: int) -> None:
        self._topic = topic
        self._number = number

    async def append(self, events: Sequence[Event]) -> None:
        """Append a group as one batch; see `KafkaTopic.append`."""
        await self._topic.append(self._number, events)

    async def probe(self) -> None:
        """See `KafkaTopic.probe`."""
        await self._topic.probe(self._number)

    async def close(self) -> None:
        """Nothing is held for one partition alone."""


def bounds(given: Bounds | None = None) -> Bounds:
    """Give the bounds of a writer to Kafka: those that are given, but groups that always fit one batch."""
    return replace(given or Bounds(), group_events=GROUP_EVENTS, group_bytes=GROUP_BYTES)


def _no_answer(*brokers: int | None) -> str:
    named = ", ".join(str(broker) for broker in sorted(broker for broker in brokers if broker is not None))
    return f"Kafka does not answer (broker {named})"


def _text(error: BaseException) -> str:
    return str(error) or type(error).__name__
