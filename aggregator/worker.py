"""A worker: owns partitions as the group gives them, and works on each in a task of its own."""

import asyncio
from collections.abc import Coroutine
from typing import Any

import structlog

from aggregator.partition import PartitionWorker
from aggregator.ports import BrokerAwayError, Clock, Membership, PartitionLog, Points, Store, StoreError
from aggregator.status import Status

_CHECK_AGAIN_SECONDS = 5.0

_log = structlog.get_logger(__name__)


class Worker:
    """Tells each partition's task when it begins and when it must have ended."""

    def __init__(self, store: Store, clock: Clock, points: Points, status: Status, *, flush_seconds: float) -> None:
        self._store = store
        self._clock = clock
        self._points = points
        self._status = status
        self._flush_seconds = flush_seconds
        self._tasks: dict[int, tuple[PartitionWorker, asyncio.Task[None]]] = {}
        self._membership: Membership | None = None
        self._died: asyncio.Future[None] | None = None
        self._problem: str | None = "broker and store were not looked at yet"

    async def run(self, membership: Membership, stop: asyncio.Event, *, drain_seconds: float) -> None:
        """Work until `stop`, then drain: close and store the open batches, acknowledge, leave the group."""
        if not await self._checked(membership, stop):
            return
        self._membership = membership
        group = asyncio.create_task(membership.run(self), name="membership")
        stopping = asyncio.create_task(stop.wait(), name="stop")
        self._died = asyncio.get_running_loop().create_future()
        try:
            awaited: set[asyncio.Future[Any]] = {group, stopping, self._died}
            await asyncio.wait(awaited, return_when=asyncio.FIRST_COMPLETED)
            if self._died.done():
                self._died.result()  # a fault of ours: end the process, its supervisor starts it anew
            elif not group.done():
                await self._drain(drain_seconds)
        finally:
            stopping.cancel()
            group.cancel()
            await asyncio.wait({group})
            if not group.cancelled() and (error := group.exception()):
                raise error

    async def assigned(self, log: PartitionLog) -> None:
        """Begin to work on a partition."""
        worker = PartitionWorker(
            log, self._store, self._clock, self._points, self._status, flush_seconds=self._flush_seconds
        )
        task = asyncio.create_task(worker.run(), name=f"partition-{log.partition}")
        task.add_done_callback(self._report)
        self._tasks[log.partition] = (worker, task)
        self._status.owned.add(log.partition)

    async def revoked(self, partition: int) -> None:
        """End the work on a partition; returns when nothing of it is under way."""
        entry = self._tasks.pop(partition, None)
        self._status.released(partition)
        if entry is not None:
            _, task = entry
            task.cancel()
            await asyncio.wait({task})

    @property
    def problem(self) -> str | None:
        """Why the worker as a whole is not ready; None when it is."""
        away = self._membership.trouble if self._membership else None
        return self._problem or (f"broker: {away}" if away else None)

    @property
    def broken(self) -> str | None:
        """Why the process is not alive: a partition's task died of a fault of ours; None when all is well."""
        for partition, (_, task) in self._tasks.items():
            if task.done() and not task.cancelled() and task.exception() is not None:
                return f"partition {partition}: {task.exception()!r}"
        return None

    async def _checked(self, membership: Membership, stop: asyncio.Event) -> bool:
        """Wait until broker and store are fit for use; False where the end came first."""
        while not stop.is_set():
            pause = _CHECK_AGAIN_SECONDS
            try:
                await self._store.check(await membership.partitions())
            except BrokerAwayError as error:
                self._problem = f"broker: {error}"
                _log.warning("broker not fit for use", error=str(error))
            except StoreError as error:
                self._problem = f"store: {error}"
                _log.warning("store not fit for use", error=str(error), code=error.code)
                pause = 1.0 if error.passing else _CHECK_AGAIN_SECONDS
            else:
                self._problem = None
                return True
            await _first(self._clock.sleep(pause), stop.wait())
        return False

    async def _drain(self, seconds: float) -> None:
        self._problem = "draining"
        tasks = {task for worker, task in self._tasks.values() if not task.done()}
        for worker, _ in self._tasks.values():
            worker.drain()
        if tasks:
            _, late = await asyncio.wait(tasks, timeout=seconds)
            if late:
                _log.warning("drain took too long; the next start settles what is open", partitions=len(late))

    def _report(self, task: asyncio.Task[None]) -> None:
        if task.cancelled() or (error := task.exception()) is None:
            return
        _log.error("partition task died", task=task.get_name(), exc_info=error)
        if self._died is not None and not self._died.done():
            self._died.set_exception(error)


async def _first(*waits: Coroutine[Any, Any, object]) -> None:
    """Wait for the first of them."""
    tasks = [asyncio.ensure_future(wait) for wait in waits]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
