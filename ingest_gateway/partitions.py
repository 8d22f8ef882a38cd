"""Events spread over the partitions of a topic: each partition groups its own, and all share one bound on memory."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, Final, Protocol

import structlog

from ingest_gateway.groups import Bounds, GroupedWriter, Room
from ingest_gateway.meters import Meters
from ingest_gateway.writer import Log, NotTaken
from schemas.event import Event, partition_of

_log = structlog.get_logger()
_FINISH_SECONDS: Final = 5.0
"""How long the end waits for what is under way: longer than a request waits for the broker."""
_LOOK_SECONDS: Final = 1.0
"""How often it is looked at, for the log, which partitions take events."""


class Topic(Protocol):
    """A broker's topic, whose number of partitions is found out, and may grow."""

    def partition(self, number: int) -> Log:
        """Give the log of one partition."""
        ...

    def trouble(self) -> str | None:
        """Say why no partition at all takes events now; None where some do."""
        ...

    async def follow(self, found: Callable[[int], None]) -> None:
        """Stay connected until cancelled; tells the number of partitions whenever the topic was looked at."""
        ...

    async def close(self) -> None:
        """Let go of the broker, within a few seconds even where it does not answer."""
        ...


class PartitionedWriter:
    """A `Writer` over all partitions of a topic. Make it in a running event loop.

    It is ready while any partition takes events: to take a gateway out of the load balancer because of a partition
    that no gateway can append to would help nobody. What is sent to that partition is answered 503 meanwhile.
    """

    def __init__(self, topic: Topic, meters: Meters, bounds: Bounds | None = None) -> None:
        self._topic = topic
        self._meters = meters
        self._bounds = bounds or Bounds()
        self._room = Room(self._bounds)
        self._writers: list[GroupedWriter] = []
        self._surplus: set[asyncio.Task[None]] = set()
        self._closing = False
        loop = asyncio.get_running_loop()
        self._tasks = [
            loop.create_task(topic.follow(self._spread), name="topic"),
            loop.create_task(self._tell(), name="partitions"),
        ]
        meters.partitions_away.set_function(lambda: len(self._troubles()))

    def append(self, event: Event, *, patient: bool = False) -> Coroutine[Any, Any, None]:
        """Append an event to the partition of its key; see `Writer.append`."""
        writers = self._writers
        if not writers:
            raise NotTaken(self.trouble() or "")
        return writers[partition_of(event.key, len(writers))].append(event, patient=patient)

    def trouble(self) -> str | None:
        """Say why no partition takes events now; None while at least one does."""
        trouble = self._topic.trouble()
        if trouble is not None:
            return trouble
        troubles = self._troubles()
        if len(troubles) < len(self._writers):
            return None
        return next(iter(troubles.values()), "the topic's partitions are not known yet")

    async def close(self) -> None:
        """Append what waits, then let go of the broker.

        Raises:
            TimeoutError: the broker did not take it in time; nothing of it was acknowledged.
        """
        self._closing = True
        try:
            async with asyncio.timeout(_FINISH_SECONDS):
                await asyncio.gather(*(writer.close() for writer in self._writers), *self._surplus)
        finally:
            for task in self._tasks:
                task.cancel()
            await asyncio.wait(self._tasks, timeout=_LOOK_SECONDS)
            await self._topic.close()

    def _spread(self, partitions: int) -> None:
        """Write to this many partitions from now on. Fewer than before: the topic was made anew."""
        if self._closing:
            return
        for number in range(len(self._writers), partitions):
            log = self._topic.partition(number)
            self._writers.append(GroupedWriter(log, self._meters, self._bounds, room=self._room, tell=False))
        for writer in self._writers[partitions:]:
            closing = asyncio.ensure_future(writer.close())
            self._surplus.add(closing)
            closing.add_done_callback(self._surplus.discard)
        del self._writers[partitions:]

    def _troubles(self) -> dict[int, str]:
        """Which partitions take no events now, and why."""
        found = ((number, writer.trouble()) for number, writer in enumerate(self._writers))
        return {number: trouble for number, trouble in found if trouble is not None}

    async def _tell(self) -> None:
        """Log when partitions begin or cease to take events: one line for all of them."""
        told: str | dict[int, str] = self.trouble() or {}  # that nothing was reached yet is no news
        while True:
            state = self.trouble() or self._troubles()
            if state != told:
                told = state
                if isinstance(state, str):
                    _log.warning("the broker takes no events", why=state)
                elif state:
                    _log.warning("some partitions take no events", partitions=state)
                else:
                    _log.info("the broker takes events", partitions=len(self._writers))
            await asyncio.sleep(_LOOK_SECONDS)
