"""Events that arrive while an append is under way wait for the next one, and go together: group commit.

One group is in flight at a time, so that little is ever in doubt; what still waits here is surely not taken. All
state belongs to the event loop: there are no locks.
"""

import asyncio
import contextlib
from collections import deque
from collections.abc import Coroutine, Sequence
from dataclasses import dataclass
from typing import Any, Final

import structlog

from ingest_gateway.meters import Meters
from ingest_gateway.writer import InDoubt, Log, NotTaken
from schemas.event import Event

_log = structlog.get_logger()
_OVERHEAD_BYTES: Final = 512
"""What an event costs in memory besides its key and value, about."""


@dataclass(frozen=True, slots=True)
class Bounds:
    """How much is held, and for how long (seconds)."""

    held_events: int = 20_000
    """Waiting or in flight, in all partitions together."""
    held_bytes: int = 48 * 1024 * 1024
    """The same in bytes: also what is stuck in flight after its request was answered is bounded by it."""
    group_events: int = 2_000
    group_bytes: int = 8 * 1024 * 1024
    withdraw_after: float = 1.5
    """An event that was not handed over by then is withdrawn: 503 within 2 s (EXACTLY_ONCE.md, 5)."""
    doubt_after: float = 4.4
    """An event that was handed over and not acknowledged by then is in doubt: 503 at 4.5 s."""
    sweep_every: float = 0.1
    probe_every: float = 1.0


class _Waiting:
    """An event and whoever waits for it."""

    __slots__ = ("event", "outcome", "patient", "since", "size")

    def __init__(self, event: Event, since: float, outcome: asyncio.Future[Exception | None], *, patient: bool) -> None:
        self.event = event
        self.since = since
        self.outcome = outcome
        self.patient = patient
        self.size = len(event.value) + len(event.key) + _OVERHEAD_BYTES

    def settle(self, failure: Exception | None) -> bool:
        """Say what became of the event; False where nobody asks any more."""
        if self.outcome.done():
            return False
        self.outcome.set_result(failure)
        return True


class Room:
    """What may still be held, in events and in bytes; shared by the writers of all partitions."""

    __slots__ = ("_bytes", "_events")

    def __init__(self, bounds: Bounds) -> None:
        self._events = bounds.held_events
        self._bytes = bounds.held_bytes

    def take(self, size: int) -> bool:
        """Make room for an event of this size; False where there is none."""
        if not self._events or size > self._bytes:
            return False
        self._events -= 1
        self._bytes -= size
        return True

    def give_back(self, waiting: _Waiting) -> None:
        """Free the place of an event that is held no longer."""
        self._events += 1
        self._bytes += waiting.size


class GroupedWriter:
    """A `Writer` over one log. Make it in a running event loop.

    Args:
        log: one partition.
        meters: what is counted.
        bounds: how much may wait, and for how long.
        room: shared with the writers of other partitions; by default this is the only one.
        tell: log when the broker begins or ceases to take events; else somebody else does.
    """

    def __init__(
        self,
        log: Log,
        meters: Meters,
        bounds: Bounds | None = None,
        *,
        room: Room | None = None,
        tell: bool = True,
    ) -> None:
        self._log = log
        self._meters = meters
        self._bounds = bounds or Bounds()
        self._room = room or Room(self._bounds)
        self._tells = tell
        self._loop = asyncio.get_running_loop()
        self._queue: deque[_Waiting] = deque()
        self._wake = asyncio.Event()
        self._closing = False
        self._trouble: str | None = "the broker was not reached yet"
        self._handed_over: float | None = None
        self._running = self._loop.create_task(self._run(), name="group commit")

    async def append(self, event: Event, *, patient: bool = False) -> None:
        """Append an event with whatever else waits; see `Writer.append`."""
        waiting = _Waiting(event, self._loop.time(), self._loop.create_future(), patient=patient)
        if self._closing:
            raise NotTaken("closing")
        if not self._room.take(waiting.size):
            raise NotTaken("too much waits already")
        self._queue.append(waiting)
        self._wake.set()
        failure = await waiting.outcome
        if failure is not None:
            try:
                raise failure
            finally:
                del failure, waiting  # they would keep each other, and the body, until the next garbage collection

    def trouble(self) -> str | None:
        """Say why appends fail now, or that one takes longer than it may wait."""
        if self._handed_over is not None and self._loop.time() - self._handed_over > self._bounds.withdraw_after:
            return "the broker does not answer"
        if self._running.done() and not self._closing:
            return "fault: nothing appends any more"
        return self._trouble

    async def close(self) -> None:
        """Append what waits, then close the log."""
        self._closing = True
        self._wake.set()
        await self._running
        await self._log.close()

    async def _run(self) -> None:
        while True:
            if self._queue:
                await self._append(self._take())
            elif self._closing:
                return
            else:
                await self._rest()

    async def _rest(self) -> None:
        """Wait for work; while in trouble look now and then whether it is over, since no traffic may come to tell."""
        self._wake.clear()
        if self._trouble is None:
            await self._wake.wait()
            return
        await self._carry_out(self._log.probe(), ())
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._bounds.probe_every if self._trouble else None):
                await self._wake.wait()

    def _take(self) -> list[_Waiting]:
        bounds, queue = self._bounds, self._queue
        group: list[_Waiting] = []
        size = 0
        while queue and len(group) < bounds.group_events:
            size += queue[0].size
            if group and size > bounds.group_bytes:
                break
            group.append(queue.popleft())
        return group

    async def _append(self, group: Sequence[_Waiting]) -> None:
        began = self._loop.time()
        failure = await self._carry_out(self._log.append([waiting.event for waiting in group]), group)
        self._meters.append_seconds.observe(self._loop.time() - began)
        if failure is None:
            self._meters.appended.inc(len(group))
        else:
            outcome = "not_taken" if isinstance(failure, NotTaken) else "in_doubt"
            self._meters.append_errors.labels(outcome).inc(len(group))
        for waiting in group:
            self._room.give_back(waiting)
            waiting.settle(None if failure is None else type(failure)(*failure.args))

    async def _carry_out(
        self, action: Coroutine[Any, Any, None], group: Sequence[_Waiting]
    ) -> NotTaken | InDoubt | None:
        """Await an append or a probe; meanwhile answer whoever waited for too long."""
        self._handed_over = self._loop.time()
        doing = self._loop.create_task(self._attempt(action))
        while True:
            done, _ = await asyncio.wait({doing}, timeout=self._bounds.sweep_every)
            if done:
                self._handed_over = None
                return doing.result()
            self._sweep(group)

    async def _attempt(self, action: Coroutine[Any, Any, None]) -> NotTaken | InDoubt | None:
        """Await an append or a probe; remember, and log once, whether the broker is in trouble."""
        failure: NotTaken | InDoubt | None = None
        try:
            await action
        except (NotTaken, InDoubt) as error:
            failure = type(error)(*error.args)  # without its traceback, which holds the whole group
        except Exception as error:  # noqa: BLE001 - a fault of ours must not end the only task that appends
            failure = InDoubt(f"fault: {type(error).__name__}")
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if task is not None and task.cancelling():
                raise
            failure = InDoubt("fault: what it waited for was cancelled")  # by somebody else, below us
        trouble = str(failure) if failure else None
        if self._tells and trouble != self._trouble:
            if trouble is None:
                _log.info("the broker takes events")
            else:
                _log.warning("the broker takes no events", why=trouble)
        self._trouble = trouble
        return failure

    def _sweep(self, group: Sequence[_Waiting]) -> None:
        """Answer whoever waited for too long, while a group is in flight."""
        now, bounds = self._loop.time(), self._bounds
        while self._queue and now - self._queue[0].since > bounds.withdraw_after:
            late = self._queue.popleft()
            self._room.give_back(late)
            if late.settle(NotTaken("it waited for too long")):
                self._meters.append_errors.labels("withdrawn").inc()
        for waiting in group:
            if not waiting.patient and now - waiting.since > bounds.doubt_after:
                waiting.settle(InDoubt("the broker does not answer"))
