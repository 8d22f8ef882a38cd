"""A worker among the processes of its service: whichever of them is asked, the answer is that of all.

Each listens on a socket in the private folder that their parent made, and tells the others how it is. Nobody keeps
anything of another: who does not answer now is not ready now.
"""

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Final, Generic, TypeVar

import msgspec
import structlog
from prometheus_client import CollectorRegistry

from deploy import logs, shared_metrics
from deploy.shared_metrics import Family
from schemas.peers import Alone, Peers, Report, Reporter, starting

T = TypeVar("T")

NUMBER: Final = logs.WORKER_VARIABLE
"""Set by the parent for its workers: each one's number, from 1."""
FOLDER: Final = "FLAGMETER_WORKERS_DIR"
"""Set by the parent for its workers: the folder that they share."""

_SECONDS: Final = 2.5
"""How long to wait for another worker: longer than a query API needs to find that its store is away."""
_REPORT: Final = b"report\n"
_GAUGES: Final = b"gauges\n"

_log = structlog.get_logger()
_encode = msgspec.msgpack.Encoder().encode


class NotRunningError(Exception):
    """Nobody listens there: the worker is not up, and its parent starts it again."""


class SilentError(Exception):
    """A worker is there and does not answer in time."""


def is_worker() -> bool:
    """Say whether this process was started as one of several workers."""
    return NUMBER in os.environ and FOLDER in os.environ


def socket_of(folder: Path, number: int) -> Path:
    """Give the path of a worker's socket."""
    return folder / f"{number}.sock"


@contextlib.asynccontextmanager
async def joined(workers: int) -> AsyncIterator[Peers]:
    """Take part for as long as the block runs: give all processes of the service, or this one alone.

    Args:
        workers: how many there are in all.
    """
    if not is_worker():
        yield Alone()
        return
    team = Team(Path(os.environ[FOLDER]), int(os.environ[NUMBER]), workers)
    shared_metrics.keep_in_files(team.folder, team.number)
    async with team.listening():
        yield team


class Team:
    """The workers of a service, as one of them sees them; see `Peers`."""

    shares_port = True

    def __init__(self, folder: Path, number: int, workers: int) -> None:
        self.folder = folder
        self.number = number
        self._workers = workers
        self._reporter: Reporter = starting
        self._registry = CollectorRegistry()
        self.report = _Shared(self._report)
        self.metrics = _Shared(self._metrics)

    def introduce(self, reporter: Reporter, registry: CollectorRegistry) -> None:
        """See `Peers.introduce`."""
        self._reporter = reporter
        self._registry = registry

    @contextlib.asynccontextmanager
    async def listening(self) -> AsyncIterator[None]:
        """Answer the others for as long as the block runs."""
        path = socket_of(self.folder, self.number)
        path.unlink(missing_ok=True)  # of a process that had the number before
        server = await asyncio.start_unix_server(self._tell, path)
        try:
            yield
        finally:
            server.close()
            path.unlink(missing_ok=True)

    async def _tell(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            async with asyncio.timeout(_SECONDS):
                question = await reader.readline()
                told = await self._reporter() if question == _REPORT else shared_metrics.gauges(self._registry)
                writer.write(_encode(told))
                await writer.drain()
        except (OSError, TimeoutError) as error:  # the other has gone, or what it asked for took too long
            _log.debug("a worker was not answered", fault=type(error).__name__)
        finally:
            writer.close()

    async def _report(self) -> Report:
        numbers = range(1, self._workers + 1)
        reports = await asyncio.gather(*(self._report_of(number) for number in numbers))
        told = list(zip(numbers, reports, strict=True))
        return Report(
            unready=tuple(f"worker {number}: {why}" for number, report in told for why in report.unready),
            broken=tuple(f"worker {number}: {why}" for number, report in told for why in report.broken),
            partitions=tuple(sorted({partition for report in reports for partition in report.partitions})),
        )

    async def _report_of(self, number: int) -> Report:
        if number == self.number:
            return await self._reporter()
        try:
            return await self._ask(number, _REPORT, Report)
        except NotRunningError:
            return Report(unready=("is not running",))
        except SilentError:
            return Report(unready=("does not answer",), broken=("does not answer",))

    async def _metrics(self) -> bytes:
        numbers = range(1, self._workers + 1)
        told = await asyncio.gather(*(self._gauges_of(number) for number in numbers))
        return await asyncio.to_thread(shared_metrics.page, self.folder, dict(zip(numbers, told, strict=True)))

    async def _gauges_of(self, number: int) -> list[Family]:
        if number == self.number:
            return shared_metrics.gauges(self._registry)
        try:
            return await self._ask(number, _GAUGES, list[Family])
        except (NotRunningError, SilentError) as error:
            _log.debug("a worker's gauges are missing", of=number, why=type(error).__name__)
            return []

    async def _ask(self, number: int, question: bytes, kind: type[T]) -> T:
        try:
            async with asyncio.timeout(_SECONDS):
                return msgspec.msgpack.decode(await _asked(socket_of(self.folder, number), question), type=kind)
        except (FileNotFoundError, ConnectionRefusedError):
            raise NotRunningError from None
        except (OSError, TimeoutError, msgspec.DecodeError):
            raise SilentError from None


class _Shared(Generic[T]):
    """An action whose callers share one run: questions of strangers do not multiply among the workers."""

    def __init__(self, action: Callable[[], Awaitable[T]]) -> None:
        self._action = action
        self._run: asyncio.Future[T] | None = None

    async def __call__(self) -> T:
        if self._run is None or self._run.done():
            self._run = asyncio.ensure_future(self._action())
        return await asyncio.shield(self._run)


async def answers(path: str) -> bool:
    """Say whether a worker listens on the socket of that path, and tells how it is."""
    try:
        async with asyncio.timeout(_SECONDS):
            return bool(await _asked(Path(path), _REPORT))
    except (OSError, TimeoutError):
        return False


async def _asked(path: Path, question: bytes) -> bytes:
    reader, writer = await asyncio.open_unix_connection(path)
    try:
        writer.write(question)
        return await reader.read()
    finally:
        writer.close()
