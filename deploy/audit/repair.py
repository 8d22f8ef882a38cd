"""Settling holes out of the log.

A hole below the last marker is touched by no worker: they go on after it. So it is settled as any range in doubt, under
its own token, with the aggregator's own code. It is cut by size alone, from its begin: two repairs that run at once
cut alike, and the second insert of a range is none.
"""

from collections.abc import Callable

from prometheus_client import CollectorRegistry

from aggregator import batch as batches
from aggregator.adapters.visit import Visit
from aggregator.batch import Batch
from aggregator.lookback import Lookback
from aggregator.ports import Clock, PartitionLog, Store
from aggregator.status import Status
from deploy.audit.report import PartitionReport, Report
from deploy.audit.settling import settle_once
from schemas.assignment import Alarm
from schemas.limits import RULES
from schemas.markers import Range

Say = Callable[[str], None]


class Repairer:
    """Settles what an audit found.

    Args:
        visit: the log.
        store: the tables.
        clock: for tokens of tables where a repeat replaces itself.
        say: gets a line for each thing done, or left.
    """

    def __init__(self, visit: Visit, store: Store, clock: Clock, say: Say) -> None:
        self._visit = visit
        self._store = store
        self._clock = clock
        self._say = say
        self._status = Status(CollectorRegistry())

    async def repair(self, report: Report) -> int:
        """Settle the holes that the report lists; give how many ranges were stored.

        Raises:
            BrokerAwayError: the log cannot be read; what was settled stays.
            OutOfRangeError: the log dropped what was being read.
            StoreError: the store refuses or does not answer; run it again.
        """
        stored = 0
        for each in report.partitions:
            if each.log is not None:
                stored += await self._partition(each)
        return stored

    async def _partition(self, each: PartitionReport) -> int:
        number, told = each.markers.partition, each.log
        if told is not None and told.lost is not None:
            self._say(
                f"partition {number}: {told.lost} is left to the workers: it lies after the last marker, and they look "
                "at it when they are given the partition"
            )
        holes = each.markers.holes.shown
        if not holes:
            return 0
        if told is not None and told.stopped == Alarm.ANOTHER_LOG:
            self._say(f"partition {number}: left, this is another log than the one that was stored")
            return 0
        log = self._visit.log(number)
        lookback = Lookback(log)
        return sum([await self._hole(log, lookback, hole) for hole in holes])

    async def _hole(self, log: PartitionLog, lookback: Lookback, hole: Range) -> int:
        begin = (await log.bounds()).begin
        if hole.first < begin:
            gone = Range(hole.first, min(hole.last, begin - 1))
            self._say(
                f"partition {log.partition}: {hole} is left: the log does not have {gone} any more. First accept that "
                f"loss: flagmeter audit --accept-loss {log.topic_id}/{log.partition}"
            )
            return 0
        named = await self._named(log, hole)
        if named is None:
            return 0
        stored, position = 0, hole.first
        for span in named:
            if position < span.first:
                stored += await self._cut(log, lookback, Range(position, span.first - 1))
            repeats = await lookback.take(span.first)
            batch = await batches.read_again(log, span, repeats, RULES)
            lookback.put(span.last + 1, repeats)
            await self._settle(log, batch)
            stored, position = stored + 1, span.last + 1
        if position <= hole.last:
            stored += await self._cut(log, lookback, Range(position, hole.last))
        return stored

    async def _named(self, log: PartitionLog, hole: Range) -> list[Range] | None:
        """List the ranges in the hole that other tables hold, which must be settled just as cut there."""
        beyond = await self._store.ranges_beyond(log.topic_id, log.partition, hole.first - 1)
        named = [span for span in beyond if span.first <= hole.last]
        at = hole.first
        for span in named:
            if span.first < at or span.last > hole.last:
                self._say(
                    f"partition {log.partition}: {hole} is left: another table's marker {span} does not fit into it"
                )
                return None
            at = span.last + 1
        return named

    async def _cut(self, log: PartitionLog, lookback: Lookback, span: Range) -> int:
        stored = 0
        while span.first <= span.last:
            repeats = await lookback.take(span.first)
            batch = await batches.read_part(log, span, repeats)
            lookback.put(batch.span.last + 1, repeats)
            await self._settle(log, batch)
            span = Range(batch.span.last + 1, span.last)
            stored += 1
        return stored

    async def _settle(self, log: PartitionLog, batch: Batch) -> None:
        await settle_once(log, self._store, self._status, self._clock, batch)
        rows = sum(block.rows for block in batch.blocks)
        self._say(f"partition {log.partition}: {batch.span} is stored: {batch.records:,} records, {rows:,} rows")
