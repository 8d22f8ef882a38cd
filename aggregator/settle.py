"""Settling a range: making sure, after any doubt, that each of its tables holds it exactly once (EXACTLY_ONCE.md, 1).

Read the markers; insert what is missing under the range's token, which fences late writers; read again. Only where an
insert was *answered with success* and its marker is still absent is it repeated under a token with a higher number:
an error or a time-out never raises it.
"""

from collections.abc import Iterable

import structlog

from aggregator.batch import Batch
from aggregator.ports import Block, PartitionLog, Store
from aggregator.status import Status
from schemas.markers import HOME, token
from schemas.tables import ADDITIVE

_log = structlog.get_logger(__name__)


async def settle(log: PartitionLog, store: Store, status: Status, batch: Batch, attempts: dict[str, int]) -> None:
    """Settle one range; returns when all of its tables hold it.

    Args:
        log: the partition, for its name.
        store: where the batch belongs.
        status: counts repairs.
        batch: the range with its blocks, rolled up again from the log.
        attempts: the number of the token for each table, raised here. Must be kept by the caller while it tries this
            range again: a number once used stays used.

    Raises:
        StoreError: the doubt remains; settle again.
    """
    while pending := await _pending(log, store, batch):
        answered = []
        for block in pending:
            await store.insert(block, token(log.topic_id, log.partition, batch.span, attempts.get(block.table, 0)))
            answered.append(block.table)
        missing = {block.table for block in await _pending(log, store, batch)}
        for table in _additive(answered):
            if table in missing:
                attempts[table] = attempts.get(table, 0) + 1
                status.repaired.inc()
                _log.warning("repairing", table=table, range=str(batch.span), attempt=attempts[table])


async def _pending(log: PartitionLog, store: Store, batch: Batch) -> list[Block]:
    """List the blocks whose table does not hold the range: all but the marked ones, or none once home is marked.

    The home table is written last, so its marker stands for the tables that carry none.
    """
    marked = await store.marked_tables(log.topic_id, log.partition, batch.span)
    if HOME in marked:
        return []
    return [block for block in batch.blocks if block.table not in marked]


def _additive(tables: Iterable[str]) -> list[str]:
    return [table for table in tables if table in ADDITIVE]
