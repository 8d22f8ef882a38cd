"""A seeded event loop with a virtual clock.

Whose callback runs next is drawn among the processes that have one; within a process callbacks run in the order in
which asyncio promises it. When nobody has one, time jumps to the next timer. A process can be killed or frozen before
any of its callbacks, hence at any await.
"""

import asyncio
import contextvars
import heapq
from collections import deque
from collections.abc import Callable, Coroutine
from enum import Enum, auto
from random import Random
from typing import Any, Final, Protocol, TypeVar

T = TypeVar("T")

MAX_STEPS: Final = 400_000


class State(Enum):
    """What the scheduler does with a process's callbacks."""

    RUNNING = auto()
    FROZEN = auto()
    """They are withheld; its timers fall due meanwhile."""
    DEAD = auto()
    """They never run again."""


class Process:
    """What lives and dies together. `fuse` counts callbacks down to `on_fuse`."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.state = State.RUNNING
        self.ready: deque[asyncio.Handle] = deque()
        self.fuse = 0
        self.on_fuse: Callable[[], None] | None = None
        self.context = contextvars.copy_context()
        self.context.run(_PROCESS.set, self)


_PROCESS: contextvars.ContextVar[Process] = contextvars.ContextVar("process")


def current() -> str:
    """Name the process whose callback is running."""
    process = _PROCESS.get(None)
    return process.name if process else ""


class Scheduler(Protocol):
    """What servers and wires need of a loop: this one, or a real one where they pass the contract tests."""

    def time(self) -> float: ...
    def create_future(self) -> asyncio.Future[Any]: ...
    def call_later(self, delay: float, callback: Callable[..., object], *args: Any) -> asyncio.TimerHandle: ...
    def in_world(self, delay: float, callback: Callable[..., object], *args: Any) -> None: ...


class RealTime:
    """The running loop, on which time passes by itself and nobody dies."""

    def __init__(self) -> None:
        loop = asyncio.get_running_loop()
        self.time = loop.time
        self.create_future = loop.create_future
        self.call_later = loop.call_later

    def in_world(self, delay: float, callback: Callable[..., object], *args: Any) -> None:
        """Call back after `delay` seconds."""
        self.call_later(delay, callback, *args)


class EndlessRunError(Exception):
    """The run took more callbacks than any run needs: something spins."""


class SimulatedLoop(asyncio.BaseEventLoop):
    """The scheduler; what belongs to no process belongs to the world, which never dies."""

    def __init__(self, dice: Random) -> None:
        super().__init__()
        self.steps = 0
        self.faults: list[str] = []
        """What asyncio found wrong in a callback."""
        self.world = Process("world")
        self._dice = dice
        self._now = 0.0
        self._runnable: list[Process] = []
        self._timers: list[tuple[float, int, asyncio.TimerHandle]] = []
        self._made = 0
        self._tasks: list[asyncio.Task[Any]] = []
        self._processes = [self.world]
        self.set_task_factory(self._make_task)  # type: ignore[arg-type]
        self.set_exception_handler(self._note)

    def time(self) -> float:
        """Seconds since the run began."""
        return self._now

    def call_soon(  # type: ignore[override]
        self, callback: Callable[..., object], *args: Any, context: contextvars.Context | None = None
    ) -> asyncio.Handle:
        handle = asyncio.Handle(callback, args, self, context)
        self._enqueue(handle)
        return handle

    call_soon_threadsafe = call_soon  # type: ignore[assignment]  # there are no threads

    def call_at(  # type: ignore[override]
        self, when: float, callback: Callable[..., object], *args: Any, context: contextvars.Context | None = None
    ) -> asyncio.TimerHandle:
        handle = asyncio.TimerHandle(when, callback, args, self, context)
        self._made += 1
        heapq.heappush(self._timers, (when, self._made, handle))
        return handle

    def in_world(self, delay: float, callback: Callable[..., object], *args: Any) -> None:
        """Call back after `delay` seconds, whatever becomes of the process that asked for it."""
        self.call_at(self._now + delay, callback, *args, context=self.world.context)

    def spawn(self, process: Process, work: Coroutine[Any, Any, T], name: str) -> asyncio.Task[T]:
        """Begin a task of a process."""
        if process not in self._processes:
            self._processes.append(process)
        return self.create_task(work, name=name, context=process.context)

    def kill(self, process: Process) -> None:
        """End a process at once: none of its callbacks runs any more, not even a `finally`."""
        process.state = State.DEAD
        if process in self._runnable:
            self._runnable.remove(process)

    def freeze(self, process: Process) -> None:
        """Withhold a process's callbacks."""
        if process.state is State.RUNNING:
            process.state = State.FROZEN
            if process in self._runnable:
                self._runnable.remove(process)

    def thaw(self, process: Process) -> None:
        """Let a frozen process go on."""
        if process.state is State.FROZEN:
            process.state = State.RUNNING
            if process.ready:
                self._runnable.append(process)

    def dispose(self) -> None:
        """End all tasks, those of the dead too, so that nothing is left to the garbage collector."""
        self.set_exception_handler(lambda _loop, _context: None)
        for process in self._processes:
            process.fuse = 0
            process.state = State.RUNNING
        self._runnable = [process for process in self._processes if process.ready]
        asyncio._set_running_loop(self)
        try:
            self._end_tasks()
        finally:
            asyncio._set_running_loop(None)
        self._timers.clear()
        self.close()

    def _end_tasks(self) -> None:
        while waiting := [task for task in self._tasks if not task.done()]:
            for task in waiting:
                task.cancel()
            while self._runnable:
                self._run_next()
        for task in self._tasks:
            if task.done() and not task.cancelled():
                task.exception()

    def _make_task(
        self, _loop: asyncio.AbstractEventLoop, work: Coroutine[Any, Any, T], **options: Any
    ) -> asyncio.Task[T]:
        task = asyncio.Task(work, loop=self, **options)
        self._tasks.append(task)
        return task

    def _enqueue(self, handle: asyncio.Handle) -> None:
        process = handle._context.get(_PROCESS, self.world)  # type: ignore[attr-defined]
        process.ready.append(handle)
        if len(process.ready) == 1 and process.state is State.RUNNING:
            self._runnable.append(process)

    def _run_once(self) -> None:
        while not self._runnable:
            if not self._timers:
                raise EndlessRunError("nothing will ever happen again")
            self._pass_time()
        self._run_next()
        self.steps += 1
        if self.steps > MAX_STEPS:
            raise EndlessRunError(f"{self.steps} callbacks")

    def _pass_time(self) -> None:
        timers = self._timers
        self._now = max(self._now, timers[0][0])
        while timers and timers[0][0] <= self._now:
            handle = heapq.heappop(timers)[2]
            if not handle.cancelled():
                self._enqueue(handle)

    def _run_next(self) -> None:
        many = len(self._runnable)
        at = 0 if many == 1 else int(self._dice.random() * many)
        process = self._runnable[at]
        if process.fuse:
            process.fuse -= 1
            if not process.fuse and process.on_fuse is not None:
                process.on_fuse()
                return
        handle = process.ready.popleft()
        if not process.ready:
            self._runnable[at] = self._runnable[-1]
            self._runnable.pop()
        if not handle.cancelled():
            handle._run()

    def _timer_handle_cancelled(self, handle: asyncio.TimerHandle) -> None:
        """Cancelled timers are dropped when they fall due."""

    def _note(self, _loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        if "never retrieved" not in context["message"]:  # an answer to somebody who died meanwhile
            self.faults.append(f"{context['message']}: {context.get('exception')!r}")
