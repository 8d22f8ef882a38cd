"""What a worker says about itself: metrics, and the reasons why it is not ready."""

from typing import Final

import structlog
from prometheus_client import CollectorRegistry

from aggregator.batch import Batch
from schemas import metric_names as names

UNREADABLE_IN_A_ROW: Final = 100
"""So many records of a partition that cannot be read at all, one after another, are an alarm: garbage is being
appended, or what a newer version appends."""

_UNREADABLE: Final = "unreadable"

_log = structlog.get_logger(__name__)


class Status:
    """Counts what was done, and keeps for each partition why it is in trouble."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.registry = registry
        self._troubles: dict[int, tuple[str, str]] = {}
        self._unreadable: dict[int, int] = {}
        self.owned: set[int] = set()
        self.records = names.counter(names.RECORDS, registry)
        self.batches = names.counter(names.BATCHES, registry)
        self.rows = names.counter(names.ROWS, registry)
        self.rejected = names.counter(names.REJECTED, registry)
        self.repeats = names.counter(names.REPEATS, registry)
        self._connections = names.gauge(names.CONNECTIONS, registry)
        self.insert_seconds = names.histogram(names.INSERT_SECONDS, registry)
        self.settled = names.counter(names.SETTLED, registry)
        self.repaired = names.counter(names.REPAIRED, registry)
        self.store_errors = names.counter(names.STORE_ERRORS, registry)
        self._alarm = names.gauge(names.ALARM, registry)
        self._lag_records = names.gauge(names.LAG_RECORDS, registry)
        self._lag_seconds = names.gauge(names.LAG_SECONDS, registry)

    def trouble(self, partition: int, reason: str, message: str) -> None:
        """Raise an alarm for a partition; the worker is unready until it is well again."""
        self.well(partition)
        self._troubles[partition] = (reason, message)
        self._alarm.labels(str(partition), reason).set(1)

    def alarm(self, partition: int, reason: str) -> None:
        """Raise an alarm that stays until the process ends: work goes on, but a person should look."""
        self._alarm.labels(str(partition), reason).set(1)

    def well(self, partition: int) -> None:
        """Lower the partition's alarm."""
        known = self._troubles.pop(partition, None)
        if known is not None:
            self._alarm.labels(str(partition), known[0]).set(0)

    def stored(self, partition: int, batch: Batch) -> None:
        """Count a batch that is in the store."""
        label = str(partition)
        self.batches.labels(label).inc()
        self.records.labels(label).inc(batch.records)
        for block in batch.blocks:
            self.rows.labels(block.table).inc(block.rows)
        for reason, times in batch.rejected.items():
            self.rejected.labels(reason).inc(times)
        for by, times in batch.repeated.items():
            self.repeats.labels(by).inc(times)
        self._connections.labels(label).set(batch.connections)
        self._watch_unreadable(partition, batch)

    def _watch_unreadable(self, partition: int, batch: Batch) -> None:
        """Raise an alarm after too many records that nobody can read, and lower it when one can be read."""
        before = self._unreadable.get(partition, 0)
        none_read = batch.unreadable_at_end == batch.records
        now = self._unreadable[partition] = batch.unreadable_at_end + (before if none_read else 0)
        if before < UNREADABLE_IN_A_ROW <= now:
            _log.error("records cannot be read", partition=partition, in_a_row=now, alarm=_UNREADABLE)
            self._alarm.labels(str(partition), _UNREADABLE).set(1)
        elif now < UNREADABLE_IN_A_ROW <= before:
            self._alarm.labels(str(partition), _UNREADABLE).set(0)

    def lag(self, partition: int, *, records: int, seconds: float) -> None:
        """Tell how far behind the log's end a partition is, without the batch in flight."""
        self._lag_records.labels(str(partition)).set(records)
        self._lag_seconds.labels(str(partition)).set(seconds)

    def released(self, partition: int) -> None:
        """Forget a partition that is not ours any more: its new owner tells of it."""
        self.owned.discard(partition)
        self.well(partition)
        if self._unreadable.pop(partition, 0) >= UNREADABLE_IN_A_ROW:
            self._alarm.labels(str(partition), _UNREADABLE).set(0)
        self.lag(partition, records=0, seconds=0.0)
        self._connections.labels(str(partition)).set(0)

    @property
    def reasons(self) -> list[str]:
        """Why the worker is not ready; empty when it is."""
        return [f"partition {at}: {message}" for at, (_, message) in sorted(self._troubles.items())]
