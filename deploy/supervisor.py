"""Keep one child process running: start it, start it again when it dies, end it in time."""

import asyncio
import contextlib
import os
import signal
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field

import structlog

from deploy import parent
from deploy.settings import WRONG_SETTINGS

_log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Service:
    """What one child is.

    Attributes:
        name: in logs and in the lines that `up` prints.
        argv: its command.
        url: where people reach it.
        ready_url: answers 200 when it can work.
        environment: variables beside those of this process.
        stop_seconds: how long it may take to end after SIGTERM; then it is killed, which loses nothing that was
            acknowledged, but leaves work to settle.
    """

    name: str
    argv: tuple[str, ...]
    url: str
    ready_url: str
    environment: Mapping[str, str] = field(default_factory=dict, repr=False)
    stop_seconds: float = 10.0


@dataclass(frozen=True, slots=True)
class Backoff:
    """How long to wait before a child is started again, in seconds: doubled each time, until it stayed up."""

    first: float = 0.5
    longest: float = 10.0
    stayed_up: float = 10.0

    def next(self, previous: float | None, uptime: float) -> float:
        """Give the next wait.

        Args:
            previous: the last wait; None where there was none.
            uptime: how long the child ran this time.
        """
        if previous is None or uptime >= self.stayed_up:
            return self.first
        return min(previous * 2, self.longest)


class StartFailedError(Exception):
    """A service did not get ready; says which, and what to look at."""


class Child:
    """One supervised process."""

    def __init__(
        self, service: Service, *, backoff: Backoff | None = None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.service = service
        self.starts = 0
        self._backoff = backoff or Backoff()
        self._clock = clock
        self._ending = asyncio.Event()
        self._process: asyncio.subprocess.Process | None = None
        self._status: int | None = None
        self._task: asyncio.Task[None] | None = None

    @property
    def pid(self) -> int | None:
        """The running process; None while there is none."""
        return self._process.pid if self._process is not None else None

    def start(self) -> None:
        """Start it, and keep it running until `stop` or `kill`."""
        self._task = asyncio.create_task(self._keep_running(), name=f"keep {self.service.name} running")

    async def ready(self, probe: Callable[[str], Awaitable[bool]], *, seconds: float, poll: float = 0.05) -> None:
        """Wait until it can work.

        Args:
            probe: asks a URL whether it answers 200.
            seconds: the longest wait.
            poll: seconds between two questions.

        Raises:
            StartFailedError: it refused its settings, or is not ready in time.
        """
        deadline = self._clock() + seconds
        while True:
            pid = self.pid
            # The process that was there before the answer must be there after it: else something else answered.
            if pid is not None and await probe(self.service.ready_url) and self.pid == pid:
                return
            if self._status == WRONG_SETTINGS:
                raise StartFailedError(f"{self.service.name} refused its settings; its reasons stand above")
            if self._task is None or self._task.done() or self._ending.is_set():
                raise StartFailedError(f"{self.service.name} was stopped before it was ready")
            if self._clock() >= deadline:
                raise StartFailedError(
                    f"{self.service.name} was not ready within {seconds:g} s; its log stands above "
                    "(FLAGMETER_LOG_LEVEL=debug says more)"
                )
            await asyncio.sleep(poll)

    async def stop(self) -> None:
        """Ask it to end, wait for it, and kill it when it takes too long."""
        self._ending.set()
        if self._task is None:
            return
        if self._process is not None:
            self._signal(signal.SIGTERM)
        _, running = await asyncio.wait({self._task}, timeout=self.service.stop_seconds)
        if running:
            _log.warning("a service did not end in time and is killed", child=self.service.name)
            await self.kill()

    async def kill(self) -> None:
        """End it at once, with everything that it started."""
        self._ending.set()
        if self._process is not None:
            self._signal(signal.SIGKILL)
        if self._task is not None:
            await asyncio.wait({self._task})

    async def _keep_running(self) -> None:
        wait: float | None = None
        while not self._ending.is_set():
            began = self._clock()
            try:
                self._process = await self._spawn()
            except OSError as error:  # no memory, or too many processes, for the moment
                wait = self._backoff.next(wait, 0.0)
                _log.error(
                    "a service could not be started", child=self.service.name, why=str(error), again_in_seconds=wait
                )
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._ending.wait(), wait)
                continue
            if self._ending.is_set():  # asked to end while it was being started
                self._signal(signal.SIGTERM)
            self._status = await self._process.wait()
            pid, self._process = self._process.pid, None
            if self._ending.is_set():
                return
            wait = self._backoff.next(wait, self._clock() - began)
            _log.error(
                "a service died and is started again",
                child=self.service.name,
                pid=pid,
                exit=exit_text(self._status),
                again_in_seconds=wait,
            )
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._ending.wait(), wait)

    async def _spawn(self) -> asyncio.subprocess.Process:
        self.starts += 1
        process = await asyncio.create_subprocess_exec(
            *self.service.argv,
            env={**os.environ, **self.service.environment, parent.VARIABLE: str(os.getpid())},
            stdin=asyncio.subprocess.DEVNULL,
            stdout=2,  # ours is for the few lines that people and scripts read
            # A session of its own: Ctrl-C reaches the whole foreground group of a terminal, and must reach `up` only.
            start_new_session=True,
        )
        _log.info("a service was started", child=self.service.name, pid=process.pid)
        return process

    def _signal(self, number: signal.Signals) -> None:
        process = self._process
        if process is None:
            return
        with contextlib.suppress(ProcessLookupError):
            if number is signal.SIGKILL:
                os.killpg(process.pid, number)  # its session's only group: what it started, too
            else:
                process.send_signal(number)


def exit_text(status: int) -> str:
    """Write an exit status for people: `status 1`, or the signal's name."""
    if status >= 0:
        return f"status {status}"
    try:
        return signal.Signals(-status).name
    except ValueError:
        return f"signal {-status}"
