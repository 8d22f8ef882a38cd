"""Settling from outside of a worker: no declaration stands behind it, so none can be too old."""

from aggregator.batch import Batch
from aggregator.ports import Clock, PartitionLog, Store
from aggregator.settle import settle
from aggregator.status import Status


async def settle_once(log: PartitionLog, store: Store, status: Status, clock: Clock, batch: Batch) -> None:
    """Settle a range that no worker touches, in one try.

    Raises:
        StoreError: the doubt remains; the command may be repeated.
    """
    await settle(log, store, status, batch, {}, replaced=set(), assert_fresh=lambda: None, salt=str(clock.now_ms()))
