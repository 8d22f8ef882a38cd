"""A Kafka that fails in chosen ways, as `ingest_gateway.brokers.kafka` sees it."""

import asyncio
from collections.abc import Sequence
from typing import Any

from schemas.event import Event
from schemas.kafka_topic import SETTINGS, Topic


class ScriptedProducer:
    """Acknowledges what it is handed at once, unless told otherwise."""

    def __init__(self) -> None:
        self.handed: list[tuple[int, list[bytes]]] = []
        self.open: list[asyncio.Future[None]] = []
        """What is handed over and has no end yet."""
        self.answers = True
        self.fits = True
        self.send_fault: Exception | None = None
        self.leaders: dict[int, int | None] = {}
        self.refreshed = 0
        self.asked: list[int] = []
        self.answer = asyncio.Event()
        self.answer.set()
        self.ask_fault: Exception | None = None
        self.ended_within: list[float] = []
        self.finishes = False
        """Whether its other batches are appended while it is ended."""

    def encode(self, events: Sequence[Event]) -> Any:
        return [event.value for event in events] if self.fits else None

    async def send(self, batch: Any, partition: int) -> asyncio.Future[Any]:
        if self.send_fault is not None:
            raise self.send_fault
        assert not self.ended_within, "nothing is handed to a producer that was given up"
        self.handed.append((partition, batch))
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        if self.answers:
            future.set_result(None)
        else:
            self.open.append(future)
        return future

    def leader(self, partition: int) -> int | None:
        return self.leaders.get(partition, 1)

    def refresh(self) -> None:
        self.refreshed += 1

    async def ask(self, broker: int) -> None:
        self.asked.append(broker)
        await self.answer.wait()
        if self.ask_fault is not None:
            raise self.ask_fault

    async def end(self, seconds: float) -> None:
        self.ended_within.append(seconds)
        await asyncio.sleep(0)
        if self.finishes:
            for future in self.open:
                if not future.done():
                    future.set_result(None)


class ScriptedCluster:
    """A topic that is what it is told to be, and the producers that were asked for."""

    def __init__(self, partitions: int = 2) -> None:
        self.topic = topic(partitions)
        self.look_fault: Exception | None = None
        self.looks = 0
        self.producers: list[ScriptedProducer] = []
        self.produce_fault: Exception | None = None
        self.lets_in = asyncio.Event()
        self.lets_in.set()

    async def look(self) -> Topic:
        self.looks += 1
        await asyncio.sleep(0)
        if self.look_fault is not None:
            raise self.look_fault
        return self.topic

    async def produce(self) -> ScriptedProducer:
        await self.lets_in.wait()
        if self.produce_fault is not None:
            raise self.produce_fault
        self.producers.append(ScriptedProducer())
        return self.producers[-1]


def topic(partitions: int, *, identity: str = "id", **settings: str) -> Topic:
    """A safe topic, but for these settings."""
    changed = {name.replace("_", "."): value for name, value in settings.items()}
    return Topic("flagmeter.metrics", identity, partitions, 1, {**SETTINGS, **changed})
