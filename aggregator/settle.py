"""Settling a range: making sure, after any doubt, that each of its tables holds it exactly once (EXACTLY_ONCE.md, 1).

Read the markers; insert what is missing under the range's token, which fences late writers; read again. Only where an
insert was *answered with success* and its marker is still absent is it repeated under a token with a higher number:
an error or a time-out never raises it.
"""

from collections.abc import Callable, Iterable
from typing import Final

import structlog

from aggregator.batch import Batch
from aggregator.ports import Block, PartitionLog, Store, StoreError
from aggregator.status import Status
from schemas.markers import HOME, token
from schemas.tables import ADDITIVE

_MOST_ATTEMPTS: Final = 3
"""A part that was lost with its token known needs one; a worker that forgot its numbers in between, one more each."""

_log = structlog.get_logger(__name__)


class TooLateError(Exception):
    """The declaration is older than half a session time-out: the range must be settled anew."""


async def settle(
    log: PartitionLog,
    store: Store,
    status: Status,
    batch: Batch,
    attempts: dict[str, int],
    *,
    replaced: set[str],
    assert_fresh: Callable[[], None],
    salt: str,
) -> None:
    """Settle one range; returns when all of its tables hold it.

    Args:
        log: the partition, for its name.
        store: where the batch belongs.
        status: counts repairs.
        batch: the range with its blocks, rolled up again from the log.
        attempts: the number of the token for each table, raised here. Must be kept by the caller while it tries this
            range again: a number once used stays used.
        replaced: tables without markers that hold the range, filled here and kept as `attempts` is: where the store is
            slow, each try gets further than the one before.
        assert_fresh: raises `TooLateError` where the declaration is too old to insert under.
        salt: makes tokens that were never used before, for tables where a repeat replaces itself. Under a known token
            their rows would stay away where the store lost them, and no marker of theirs would tell.

    Raises:
        StoreError: the doubt remains; settle again. Not passing where a marker does not appear however often its
            insert was answered with success: then reads and inserts do not meet the same data.
        TooLateError: settle again.
    """
    while pending := await _pending(log, store, batch, replaced):
        answered = []
        for block in pending:
            assert_fresh()
            name = token(log.topic_id, log.partition, batch.span, attempts.get(block.table, 0))
            await store.insert(block, name if block.table in ADDITIVE else f"{name}-s{salt}")
            answered.append(block.table)
            if block.table not in ADDITIVE:
                replaced.add(block.table)
        missing = {block.table for block in await _pending(log, store, batch, replaced)}
        for table in _additive(answered):
            if table in missing:
                if attempts.get(table, 0) >= _MOST_ATTEMPTS:
                    raise StoreError(
                        f"the marker of {batch.span} does not appear in {table}, though {_MOST_ATTEMPTS + 1} inserts "
                        "were answered with success: does the URL lead to one server for reads and writes?",
                        passing=False,
                    )
                attempts[table] = attempts.get(table, 0) + 1
                status.repaired.inc()
                _log.warning("repairing", table=table, range=str(batch.span), attempt=attempts[table])


async def _pending(log: PartitionLog, store: Store, batch: Batch, replaced: set[str]) -> list[Block]:
    """List the blocks whose table does not hold the range: all but the marked ones, or none once home is marked.

    The home table is written last, so its marker stands for the tables that carry none.
    """
    marked = await store.marked_tables(log.topic_id, log.partition, batch.span)
    if HOME in marked:
        return []
    return [block for block in batch.blocks if block.table not in marked | replaced]


def _additive(tables: Iterable[str]) -> list[str]:
    return [table for table in tables if table in ADDITIVE]
