"""`FLAGMETER_WORKERS`: the process that was started keeps several of its service, which share its port.

The parent serves nothing itself. It holds the port, makes the folder that the workers share, starts again whichever
dies, and ends with all of them; a parent that is killed takes them along (`deploy/parent.py`).
"""

import asyncio
import math
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import structlog

from deploy import peers, run, run_dir, shared_port
from deploy.settings import WRONG_SETTINGS
from deploy.supervisor import Backoff, Child, Service, StartFailedError

_log = structlog.get_logger()
_POLL_SECONDS: Final = 0.2


@dataclass(frozen=True, slots=True)
class Plan:
    """What to keep running.

    Attributes:
        package: run by `python -m` with this process's interpreter.
        workers: how many.
        host: where they listen.
        port: the one that they share; 0 lets the system choose.
        port_variable: tells them the port.
        stop_seconds: how long each may take to end; then it is killed.
    """

    package: str
    workers: int
    host: str
    port: int
    port_variable: str
    stop_seconds: float


def wanted(workers: int) -> bool:
    """Say whether this process is to be the parent of several."""
    return workers > 1 and not peers.is_worker()


def keep(plan: Plan, *, backoff: Backoff | None = None) -> int:
    """Keep the workers running until SIGTERM or SIGINT, which they all get at once.

    Returns:
        The exit status: 0 after the end of all; that of wrong settings where a worker refuses them as it starts for
        the first time; 1 where the port cannot be had. A later refusal, of a tokens file that was spoilt meanwhile, is
        tried again: the others serve on.
    """
    parent = _Parent(plan, backoff)
    status = run.until_signalled(parent.run)
    return WRONG_SETTINGS if parent.refused else status


class _Parent:
    """One run of all workers."""

    def __init__(self, plan: Plan, backoff: Backoff | None) -> None:
        self._plan = plan
        self._backoff = backoff
        self.refused = False

    async def run(self, stop: asyncio.Event) -> None:
        """Start all, keep them until `stop`, and end all.

        Raises:
            OSError: the port or the folder cannot be had.
        """
        plan = self._plan
        with shared_port.held(plan.host, plan.port) as port, run_dir.made() as folder:
            children = [Child(self._service(n + 1, port, folder), backoff=self._backoff) for n in range(plan.workers)]
            stopping = asyncio.create_task(stop.wait())
            starting = asyncio.gather(*(self._start(child) for child in children))
            either: set[asyncio.Future[Any]] = {starting, stopping}
            try:
                await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
                if starting.done():
                    starting.result()
                    _log.info("all workers run", workers=plan.workers, host=plan.host, port=port)
                    await stopping
            except StartFailedError as error:
                self.refused = True
                _log.error("a worker cannot start", why=str(error))
            finally:
                starting.cancel()
                stopping.cancel()
                await asyncio.gather(*(child.stop() for child in children))
                await asyncio.gather(starting, stopping, return_exceptions=True)

    async def _start(self, child: Child) -> None:
        child.start()
        await child.ready(peers.answers, seconds=math.inf, poll=_POLL_SECONDS)

    def _service(self, number: int, port: int, folder: Path) -> Service:
        plan = self._plan
        return Service(
            name=f"worker {number}",
            argv=(sys.executable, "-m", plan.package),
            url="",
            ready_url=str(peers.socket_of(folder, number)),
            environment={peers.NUMBER: str(number), peers.FOLDER: str(folder), plan.port_variable: str(port)},
            stop_seconds=plan.stop_seconds,
        )
