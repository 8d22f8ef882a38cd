"""Make Kafka's topic before the services need it, or check the one that is there, and change it only where asked to."""

import asyncio
import time
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, TypeVar

from aiokafka import errors
from aiokafka.admin import AIOKafkaAdminClient, NewPartitions, NewTopic

from deploy.alter_configs import alter_topic
from deploy.migrations import BrokerAwayError, RefusedMigrationError
from schemas import kafka_admin, kafka_topic
from schemas.kafka import KafkaSettings
from schemas.kafka_admin import KafkaAwayError, KafkaRefusedError
from schemas.kafka_topic import MEND, Fault, MissingTopicError, Topic, UnsafeTopicError
from schemas.urls import KafkaBroker

T = TypeVar("T")

PARTITIONS: Final = 6
"""Of a new topic, where nothing is said: as many workers may share the work."""

COPIES: Final = 1
_SURVIVES_A_LOSS: Final = 3
_SETTLED_SECONDS: Final = 15.0
_POLL_SECONDS: Final = 0.1
_RETRY_SECONDS: Final = 0.5
_SAY_EVERY_SECONDS: Final = 5.0

_EXISTS: Final = 36
_WRONG_NUMBER_OF_PARTITIONS: Final = 37
_NOT_ALLOWED: Final = frozenset({29, 31})

Say = Callable[[str], None]
Pause = Callable[[float], None]


@dataclass(frozen=True, slots=True)
class Wish:
    """What a person asked for.

    Attributes:
        partitions: None leaves them as they are, or takes the default for a new topic.
        replication: the same for the copies.
        alter: an existing topic may be changed.
    """

    partitions: int | None = None
    replication: int | None = None
    alter: bool = False


@dataclass(frozen=True, slots=True)
class Plan:
    """What is to be done; nothing where all is well.

    Attributes:
        partitions: how many there will be.
        make: the copies of a new topic; None where the topic is there.
        settings: to set; of a new topic, all that we name.
        grow: partitions are to be added.
        advice: what could be better, a sentence each.
    """

    partitions: int
    make: int | None = None
    settings: Mapping[str, str] = field(default_factory=dict)
    grow: bool = False
    advice: tuple[str, ...] = ()

    @property
    def is_done(self) -> bool:
        """Say whether nothing is to be done."""
        return self.make is None and not self.settings and not self.grow


@dataclass(frozen=True, slots=True)
class Place:
    """A topic's name, and how its broker is reached.

    Attributes:
        broker: servers and topic.
        settings: of the connection.
        wait_seconds: how long to wait for Kafka to answer.
        say: gets a line for each step.
        pause: waits so many seconds between two attempts; may raise to give up.
    """

    broker: KafkaBroker
    settings: KafkaSettings
    wait_seconds: float = 30.0
    say: Say = lambda _: None
    pause: Pause = time.sleep


def settings_of_new(copies: int) -> dict[str, str]:
    """Give all settings of a new topic, also those where a cluster's own default may be another one.

    With two copies or more, a post is acknowledged by two. With exactly two this means that the gateway answers 503
    while either broker is down: a 2xx that rests on one disk alone would be worth less. Three copies give both.
    """
    return {
        **kafka_topic.SETTINGS,
        "retention.bytes": "-1",
        "unclean.leader.election.enable": "false",
        "min.insync.replicas": str(min(2, copies)),
    }


def plan(topic: Topic | None, name: str, wish: Wish) -> Plan:
    """Compare what there is with what is asked for. Pure.

    Raises:
        RefusedMigrationError: an existing topic does not fit; names every fault, and what mends it.
    """
    if topic is None:
        copies = wish.replication or COPIES
        return Plan(wish.partitions or PARTITIONS, copies, settings_of_new(copies), advice=_advice_on_copies(copies))
    found = kafka_topic.faults(topic)
    unsafe = [fault for fault in found if fault.unsafe]
    partitions = wish.partitions or topic.partitions
    refused = []
    if unsafe and not wish.alter:
        refused.append(f"the topic {name} is unsafe: {'; '.join(map(str, unsafe))}. `{MEND}` sets it")
    if partitions < topic.partitions:
        refused.append(
            f"the topic {name} has {topic.partitions} partitions, and Kafka takes none away: give --partitions "
            f"{topic.partitions}, or use a topic of another name"
        )
    elif partitions > topic.partitions and not wish.alter:
        refused.append(
            f"the topic {name} has {topic.partitions} partitions: `{MEND} --partitions {partitions}` adds the others. "
            "Posts that SDKs repeat in the 15 minutes around that may count twice, since they may reach another "
            "partition than before"
        )
    if refused:
        raise RefusedMigrationError("\n".join(refused))
    return Plan(
        partitions,
        settings={fault.setting: fault.wanted for fault in unsafe},
        grow=partitions > topic.partitions,
        advice=_advice(topic, found, wish),
    )


def look(place: Place) -> Topic | None:
    """Ask what the topic is like; None where there is none.

    Raises:
        BrokerAwayError: Kafka does not answer in time.
        RefusedMigrationError: it answers, and does not let us in, or not read the topic.
    """

    async def ask() -> Topic | None:
        async with kafka_admin.admin(place.broker, place.settings) as client:
            return await _look(client, place.broker.topic)

    return _insisting(place, ask)


def bring(place: Place, wish: Wish) -> int:
    """Make the topic, or check it and change what was asked for; harmless to repeat, and when two do it at once.

    Returns:
        How many partitions it has.

    Raises:
        BrokerAwayError: Kafka does not answer in time.
        RefusedMigrationError: the topic does not fit, or Kafka refuses a step; says what mends it.
    """

    async def work() -> int:
        async with kafka_admin.admin(place.broker, place.settings) as client:
            return await _bring(client, place, wish)

    return _insisting(place, work)


def described(topic: Topic | None, name: str) -> list[str]:
    """Say what a topic is like, a line each: what it has, then what is wrong with it."""
    if topic is None:
        return [f"the topic {name}: not made yet"]
    found = kafka_topic.faults(topic)
    fits = "unsafe" if any(fault.unsafe for fault in found) else "fits"
    said = [f"the topic {name}: {fits}; {_counted(topic.partitions, topic.replication)}, id {topic.id}"]
    return said + [f"unsafe: {fault}" if fault.unsafe else _better(fault) for fault in found]


def planned(topic: Topic | None, name: str, todo: Plan) -> list[str]:
    """Say what would be done, a line each."""
    if topic is None:
        settings = " ".join(f"{setting}={value}" for setting, value in todo.settings.items())
        said = [f"the topic {name}: would be made; {_counted(todo.partitions, todo.make or COPIES)}; {settings}"]
    else:
        said = [f"{name}: {setting} {_found(topic, setting)} -> {value}" for setting, value in todo.settings.items()]
        if todo.grow:
            said.append(f"{name}: partitions {topic.partitions} -> {todo.partitions}")
        said = said or [f"the topic {name}: nothing to do"]
    return [*said, *todo.advice]


def _advice(topic: Topic, found: list[Fault], wish: Wish) -> tuple[str, ...]:
    advice = [_better(fault) for fault in found if not fault.unsafe]
    if wish.replication is not None and wish.replication != topic.replication:
        advice.append(
            f"advice: the topic has {_copies(topic.replication)}, not {wish.replication}; Kafka's own "
            "kafka-reassign-partitions changes that"
        )
    return tuple(advice)


def _better(fault: Fault) -> str:
    return f"advice: {fault.setting} is {fault.found}, better {fault.wanted}: {fault.why}"


def _advice_on_copies(copies: int) -> tuple[str, ...]:
    if copies == COPIES:
        reason = "a 2xx rests on one broker's disk alone"
    elif copies < _SURVIVES_A_LOSS:
        reason = "each post is acknowledged by two brokers, so the gateway answers 503 while one of the two is down"
    else:
        return ()
    return (f"advice: {reason}; in production give --replication {_SURVIVES_A_LOSS}",)


async def _bring(client: AIOKafkaAdminClient, place: Place, wish: Wish) -> int:
    name = place.broker.topic
    topic = await _look(client, name)
    todo = plan(topic, name, wish)
    if topic is None:
        await _make(client, name, todo)
    else:
        await _alter(client, topic, todo, place.say)
    found = await _settled(client, name, wish)
    done = "is made" if topic is None else "fits"
    place.say(f"the topic {name} {done}: {_counted(found.partitions, found.replication)}")
    for sentence in todo.advice:
        place.say(sentence)
    return found.partitions


async def _make(client: AIOKafkaAdminClient, name: str, todo: Plan) -> None:
    if client._client.cluster.controller is None:  # noqa: SLF001 - the admin client itself fails without a word
        raise KafkaAwayError("Kafka has no controller now")
    new = NewTopic(name, todo.partitions, todo.make, topic_configs=dict(todo.settings))
    answer = await client.create_topics([new])
    ((_, code, message),) = answer.topic_errors
    if code != _EXISTS:  # another one was faster; what it made is checked like any other
        _refuse(code, message, f"make the topic {name}", "Create")


async def _alter(client: AIOKafkaAdminClient, topic: Topic, todo: Plan, say: Say) -> None:
    name = topic.name
    if todo.settings:
        code, message = await alter_topic(client._client, name, todo.settings)  # noqa: SLF001 - it gives no way to send
        _refuse(code, message, f"change the topic {name}", "AlterConfigs")
        for setting, value in todo.settings.items():
            say(f"{name}: {setting} {_found(topic, setting)} -> {value}")
    if todo.grow:
        try:
            await client.create_partitions({name: NewPartitions(todo.partitions)})
        except errors.BrokerResponseError as error:
            if error.errno != _WRONG_NUMBER_OF_PARTITIONS:  # another one was faster; it is checked below
                _refuse(error.errno, str(error), f"add partitions to the topic {name}", "Alter")
        say(
            f"{name}: partitions {topic.partitions} -> {todo.partitions}; posts that SDKs repeat in the 15 minutes "
            "around this may count twice"
        )


def _refuse(code: int, message: str | None, what: str, right: str) -> None:
    """Raise what Kafka's error code means for the caller; 0 is none."""
    if not code:
        return
    kind = errors.for_code(code)
    if kind.retriable:
        raise KafkaAwayError(f"Kafka cannot {what} now: {message or kind.__name__}")
    hint = f"; allow {right} on it" if code in _NOT_ALLOWED else ""
    raise RefusedMigrationError(f"Kafka refuses to {what}: {message or kind.__name__}{hint}")


async def _settled(client: AIOKafkaAdminClient, name: str, wish: Wish) -> Topic:
    """Wait until what was done shows, and every partition has a leader."""
    deadline = time.monotonic() + _SETTLED_SECONDS
    while True:
        topic = await _look(client, name)
        if topic is None:
            missing = "it does not appear"
        elif not plan(topic, name, wish).is_done:
            missing = "a change does not appear"
        elif await _leaders(client, name) < topic.partitions:
            missing = "a partition has no leader"
        else:
            return topic
        if time.monotonic() >= deadline:
            raise KafkaAwayError(f"the topic {name} was not ready within {_SETTLED_SECONDS:g} s: {missing}")
        await asyncio.sleep(_POLL_SECONDS)


async def _look(client: AIOKafkaAdminClient, name: str) -> Topic | None:
    try:
        return await kafka_admin.look(client, name)
    except MissingTopicError:
        return None


async def _leaders(client: AIOKafkaAdminClient, name: str) -> int:
    (topic,) = await client.describe_topics([name])
    return sum(partition["leader"] >= 0 for partition in topic["partitions"])


def _insisting(place: Place, work: Callable[[], Coroutine[Any, Any, T]]) -> T:
    """Try until Kafka answers; every step may be repeated."""
    deadline = time.monotonic() + place.wait_seconds
    said = time.monotonic()
    while True:
        try:
            return asyncio.run(work())
        except (KafkaRefusedError, UnsafeTopicError) as error:
            raise RefusedMigrationError(str(error)) from error
        except (KafkaAwayError, errors.KafkaError, OSError) as error:  # TimeoutError is an OSError
            now = time.monotonic()
            reason = str(error) or type(error).__name__
            if now >= deadline:
                raise BrokerAwayError(f"{reason} (waited {place.wait_seconds:g} s)") from error
            if now - said >= _SAY_EVERY_SECONDS:
                said = now
                place.say(f"waiting for Kafka ({deadline - now:.0f} s left): {reason}")
            place.pause(_RETRY_SECONDS)


def _counted(partitions: int, copies: int) -> str:
    return f"{partitions} partition{'s' * (partitions != 1)}, {_copies(copies)}"


def _copies(copies: int) -> str:
    return "1 copy" if copies == 1 else f"{copies} copies"


def _found(topic: Topic, setting: str) -> str:
    return topic.settings.get(setting, "unset")
