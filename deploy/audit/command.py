"""What `flagmeter audit` does with its options."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime

from clickhouse_connect.driver.exceptions import DatabaseError

from aggregator.adapters.clickhouse import ClickHouseStore, without_data_frames
from aggregator.adapters.clock import SystemClock
from aggregator.adapters.visit import Visit, WorkersError
from aggregator.ports import BrokerAwayError, Clock, MembershipLostError, OutOfRangeError, StoreError
from deploy import migrate
from deploy.audit import log as logs
from deploy.audit import report as reports
from deploy.audit.accept import Acceptance, Acceptor, NothingToAcceptError, decide
from deploy.audit.log import Look
from deploy.audit.markers import AT_ONCE, Marked, MarkerReader, Replayed
from deploy.audit.repair import Repairer
from deploy.audit.report import PartitionReport, Report
from deploy.migrations import RefusedMigrationError
from deploy.tool_config import LogToolConfig
from schemas.declaration import Committed
from schemas.tables import ADDITIVE

Say = Callable[[str], None]
Confirm = Callable[[Sequence[str]], bool]

FAILURES = (
    BrokerAwayError,
    MembershipLostError,
    NothingToAcceptError,
    OutOfRangeError,
    StoreError,
    WorkersError,
)
"""What ends a command, and that its text tells a person."""

_FLUSH_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class Auditor:
    """Reads markers and log.

    Attributes:
        config: where both are.
        clock: for the markers' age.
        wait_seconds: for the store to answer.
        additive: the tables that carry markers.
        at_once: markers in one question to the store.
    """

    config: LogToolConfig
    clock: Clock = field(default_factory=SystemClock)
    wait_seconds: float = 10.0
    additive: Sequence[str] = ADDITIVE
    at_once: int = AT_ONCE

    async def audit(self) -> Report:
        """Look at everything once.

        Raises:
            BrokerAwayError: the log cannot be reached.
            StoreAwayError: the store does not answer.
            RefusedMigrationError: the store refuses.
        """
        async with logs.visit(self.config) as visit:
            return await self.audit_visited(visit)

    async def repair(self, say: Say) -> Report:
        """Settle holes out of the log, and look again.

        Raises:
            BrokerAwayError: the log cannot be reached, or none is named.
            OutOfRangeError: the log dropped what was being read.
            StoreError: the store refuses or does not answer; run it again.
        """
        async with self._open() as (visit, store):
            repairer = Repairer(visit, store, self.clock, say)
            report = await self.audit_visited(visit)
            while await repairer.repair(report):
                report = await self.audit_visited(visit)
            return report

    async def accept(self, target: str, *, count_again: bool, confirm: Confirm, say: Say) -> bool:
        """Let a stopped partition go on, as a person decides.

        Args:
            target: topic id and partition, as `audit` prints them.
            count_again: count what was declared too long ago, rather than give it up.
            confirm: gets what it means, a sentence each; says whether to do it.
            say: gets a line for each thing done.

        Returns:
            False where it was not confirmed.

        Raises:
            NothingToAcceptError: there is nothing to decide.
            WorkersError: workers are members of the group.
            BrokerAwayError: the log cannot be reached, or none is named.
            StoreError: the store refuses or does not answer; run it again.
        """
        async with self._open() as (visit, store):
            partition = _partition_of(target, visit)
            acceptance, committed = await self._decide(visit, partition, count_again=count_again)
            if not confirm(acceptance.sentences):
                return False

            async def still() -> None:
                found, _ = await self._decide(visit, partition, count_again=count_again)
                if found != acceptance:
                    raise NothingToAcceptError("things changed meanwhile: look again")

            await Acceptor(visit, store, self.clock, say).accept(partition, acceptance, committed, still)
            return True

    async def _decide(self, visit: Visit, partition: int, *, count_again: bool) -> tuple[Acceptance, Committed | None]:
        now_ms = self.clock.now_ms()
        look = await logs.look(visit.log(partition), now_ms)
        key = (visit.topic_id, partition)
        marked = await asyncio.to_thread(self._read_one, key, look, now_ms)
        each = await self._partition(visit, marked, look, now_ms)
        return decide(each, look.committed, can_skip=visit.can_skip, count_again=count_again), look.committed

    @contextlib.asynccontextmanager
    async def _open(self) -> AsyncIterator[tuple[Visit, ClickHouseStore]]:
        without_data_frames()
        store = ClickHouseStore(self.config.store, flush_seconds=_FLUSH_SECONDS)
        try:
            async with logs.visit(self.config) as visit:
                if visit is None:
                    raise BrokerAwayError("no log is named: set FLAGMETER_BROKER_URL, or FLAGMETER_DATA_DIR")
                yield visit, store
        finally:
            await store.close()

    async def audit_visited(self, visit: Visit | None) -> Report:
        """Look at everything once, with a log that is open already."""
        now_ms = self.clock.now_ms()
        looks: dict[tuple[str, int], Look] = {}
        if visit is not None:
            for number in visit.partitions:
                looks[visit.topic_id, number] = await logs.look(visit.log(number), now_ms)
        marked, replayed = await asyncio.to_thread(self._read, looks, now_ms)
        found = [
            await self._partition(visit, each, looks.get((each.topic_id, each.partition)), now_ms) for each in marked
        ]
        topic_id = visit.topic_id if visit else None
        found.sort(key=lambda each: (each.log is None, each.markers.topic_id, each.markers.partition))
        return reports.of_all(found, topic_id=topic_id, replayed=replayed, now_ms=now_ms)

    def _read_one(self, key: tuple[str, int], look: Look, now_ms: int) -> Marked:
        with self._asking(now_ms) as reader:
            return reader.read(*key, young=look.young)

    def _read(self, looks: dict[tuple[str, int], Look], now_ms: int) -> tuple[list[Marked], Replayed]:
        with self._asking(now_ms) as reader:
            wanted = {*reader.partitions(), *looks}
            marked = [reader.read(*each, young=looks[each].young if each in looks else None) for each in sorted(wanted)]
            return marked, reader.replayed()

    @contextlib.contextmanager
    def _asking(self, now_ms: int) -> Iterator[MarkerReader]:
        client = migrate.connect(self.config.store, wait_seconds=self.wait_seconds, say=lambda _: None)
        today = datetime.fromtimestamp(now_ms / 1000, UTC).date()
        try:
            yield MarkerReader(client, self.config.store.database, today, additive=self.additive, at_once=self.at_once)
        except DatabaseError as error:
            raise RefusedMigrationError(f"the store refuses to say what it holds: {str(error)[:300]}") from error
        finally:
            client.close()

    async def _partition(self, visit: Visit | None, marked: Marked, look: Look | None, now_ms: int) -> PartitionReport:
        if visit is None or look is None:
            return reports.of_partition(marked, None)
        log = visit.log(marked.partition)
        end = (await log.bounds()).end
        oldest = await logs.log_time_at(log, reports.first_unstored(marked, look), end)
        told = reports.of_log(marked, look, end=end, oldest_ms=oldest, now_ms=now_ms)
        return reports.of_partition(marked, told)


def _partition_of(target: str, visit: Visit) -> int:
    """Read `TOPIC/PARTITION`; the topic's id must be that of the log: a decision about another one is a mistake."""
    topic_id, _, number = target.rpartition("/")
    if topic_id != visit.topic_id or not number.isdecimal() or int(number) not in visit.partitions:
        raise NothingToAcceptError(
            f"{target} is no partition of the log {visit.topic_id}, which has {len(visit.partitions)}: "
            f"give {visit.topic_id}/0"
        )
    return int(number)
