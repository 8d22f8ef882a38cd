"""One partition, from its assignment to its revocation: assign, read, declare, roll up, insert, settle, acknowledge.

One coroutine, one batch at a time. It keeps nothing that a restart would miss: the log, the committed offset with its
declaration, and the markers in the store say all.
"""

from collections.abc import Awaitable, Callable
from typing import Final, TypeVar

import structlog

from aggregator import batch as batches
from aggregator.batch import Batch
from aggregator.lookback import Lookback
from aggregator.ports import (
    Block,
    Bounds,
    BrokerAwayError,
    Clock,
    MembershipLostError,
    OutOfRangeError,
    PartitionLog,
    Points,
    Store,
    StoreError,
)
from aggregator.rollup import UnknownRulesError
from aggregator.settle import TooLateError, settle
from aggregator.status import Status
from schemas import declaration
from schemas.assignment import Alarm, GoOn, Recut, Settle, Stop, assign
from schemas.declaration import Committed, UnreadableCommitError
from schemas.insert import INSERT_SECONDS
from schemas.limits import MARKER_DAYS, RULES
from schemas.markers import Range, token

T = TypeVar("T")

_QUICK_SECONDS: Final = 0.5
_SLOW_SECONDS: Final = 30.0
"""Pauses between tries: after errors that pass by themselves, and after those that a person must mend."""

_QUIET_SECONDS: Final = 10.0
"""Where the log has more, and nothing of it comes for so long, something is wrong with reading."""

_MARKER_LIFE_MS: Final = (MARKER_DAYS - 1) * 86_400_000

_log = structlog.get_logger(__name__)


class PartitionWorker:
    """Works on one partition for the time of one assignment."""

    def __init__(
        self, log: PartitionLog, store: Store, clock: Clock, points: Points, status: Status, *, flush_seconds: float
    ) -> None:
        self._broker = log
        self._store = store
        self._clock = clock
        self._points = points
        self._status = status
        self._flush_seconds = flush_seconds
        self._declared_at = 0.0
        self._doubtful_before = 0
        """Batches that begin below this position are settled: the store may know their tokens and lack their rows."""
        self._quiet_since: float | None = None
        """Since when the log has more and nothing comes (monotonic seconds); None while all is well."""
        self._open: Batch | None = None
        """The batch that is being stored."""
        self._log = _log.bind(partition=log.partition)
        self._lookback = Lookback(log)
        self._drain = False

    def drain(self) -> None:
        """Ask to finish: the open batch is closed and stored, and all is acknowledged."""
        self._drain = True

    async def run(self) -> None:
        """Work until drained or cancelled, or until the membership is lost."""
        try:
            while True:
                try:
                    return await self._consume(await self._begin())
                except OutOfRangeError as error:
                    self._log.error("the log does not have what is next", why=str(error))
                    await self._clock.sleep(_QUICK_SECONDS)
        except MembershipLostError as error:
            self._log.warning("membership lost", why=str(error))
        finally:
            self._status.well(self._broker.partition)

    async def _begin(self) -> int:  # noqa: C901 - one arm for each kind of plan
        """Carry out the assignment table's plan; give the position to read on from."""
        recut_from: int | None = None
        while True:
            bounds = await self._insist(self._broker.bounds)
            committed = await self._insist(self._broker.committed)
            self._report_backlog(bounds, committed)
            marked = await self._insist(lambda: self._store.last_marked(self._broker.topic_id, self._broker.partition))
            if committed and committed.stop:
                await self._stop(committed.stop, None)
                continue
            plan = assign(committed, marked, bounds.begin, bounds.end)
            if not isinstance(plan, Stop):
                self._status.well(self._broker.partition)
            # The store may know the tokens of what it lost, also where an earlier start of a worker saw the loss: until
            # the log's end each batch is settled, for a plain insert under a known token is answered with success.
            self._doubtful_before = bounds.end
            self._log.info("assigned", plan=repr(plan), committed=committed and committed.offset, marked=marked)
            match plan:
                case GoOn(at):
                    if committed and committed.declared:
                        self._log.warning("settled", range=str(committed.declared), cause="assignment", was_stored=True)
                    return at
                case Settle(span) if committed and self._too_old(committed.t):
                    await self._stop("declared_too_long_ago", span)
                case Settle(span):
                    return await self._settle_declared(span, committed)
                case Recut(at, alarm):
                    if recut_from == at:
                        return at
                    await self._wait_out_late_writers(at, alarm)
                    recut_from = at
                case Stop(alarm, missing):
                    if alarm is Alarm.ANOTHER_LOG:
                        await self._stop_for_good(alarm, committed, bounds.begin)
                    await self._stop(alarm, missing)

    async def _settle_declared(self, span: Range, committed: Committed | None) -> int:
        """Settle the range that was found declared; give the position after it."""
        rules, since = (committed.rules, committed.t) if committed else (RULES, None)
        batch = await self._insist(lambda: self._again(span, rules))
        await self._settle(batch, cause="assignment", since=since)
        return span.last + 1

    async def _wait_out_late_writers(self, at: int, alarm: Alarm | None) -> None:
        if alarm:
            self._status.alarm(self._broker.partition, alarm)
        self._log.error("ranges are cut anew", at=at, alarm=alarm)
        await self._settle_foreign(at)
        await self._clock.sleep(self._broker.session_seconds + INSERT_SECONDS)

    def _too_old(self, declared: int) -> bool:
        """Say whether a marker may have come and gone since (ms): then its absence proves nothing."""
        return self._clock.now_ms() - declared > _MARKER_LIFE_MS

    async def _stop_for_good(self, alarm: Alarm, committed: Committed | None, begin: int) -> None:
        """Write the stop into the committed metadata: this log goes on growing, and soon looks like the right one."""
        offset, last = (committed.offset, committed.last) if committed else (begin, begin - 1)
        metadata = declaration.write(last, RULES, committed.t if committed else 0, stop=alarm)
        await self._insist(lambda: self._broker.commit(offset, metadata))

    async def _stop(self, alarm: str, span: Range | None) -> None:
        where = f" (records {span})" if span else ""
        self._status.trouble(self._broker.partition, alarm, f"{alarm}: stopped, a person must decide{where}")
        self._log.error("partition stopped", alarm=alarm, range=span and str(span))
        await self._clock.sleep(_SLOW_SECONDS)

    async def _settle_foreign(self, at: int) -> None:
        """Take the ranges that other tables' markers name, just as cut there: their home marker is what is missing."""
        spans = await self._insist(
            lambda: self._store.ranges_beyond(self._broker.topic_id, self._broker.partition, at - 1)
        )
        for span in spans:
            batch = await self._insist(lambda span=span: self._again(span, RULES))  # type: ignore[misc]
            await self._settle(batch, cause="foreign")

    async def _again(self, span: Range, rules: int) -> Batch:
        repeats = await self._lookback.take(span.first)
        batch = await batches.read_again(self._broker, span, repeats, rules)
        self._lookback.put(span.last + 1, repeats)
        return batch

    async def _next(self, first: int) -> Batch | None:
        repeats = await self._lookback.take(first)
        batch = await batches.read_next(
            self._broker, self._clock, first, repeats, flush_seconds=self._flush_seconds, enough=lambda: self._drain
        )
        self._lookback.put(batch.span.last + 1 if batch else first, repeats)
        return batch

    async def _consume(self, position: int) -> None:
        acknowledged = False
        while not self._drain:
            began = self._clock.monotonic()
            batch = await self._insist(lambda at=position: self._next(at))  # type: ignore[misc]
            if batch is None:
                if not acknowledged:
                    await self._acknowledge(position)
                    acknowledged = True
                await self._report_quiet(position)
                continue
            self._quiet_since = None
            await self._store_batch(batch)
            position = batch.span.last + 1
            acknowledged = False
            await self._report_lag(position, batch)
            spare = self._flush_seconds / 4 - (self._clock.monotonic() - began)
            if spare > 0 and not self._drain:
                await self._clock.sleep(spare)
        if not acknowledged:
            await self._acknowledge(position)

    async def _store_batch(self, batch: Batch) -> None:
        self._open = batch
        await self._points.reached("before-declare")
        await self._declare(batch.span, batch.rules)
        await self._points.reached("after-declare")
        began = self._clock.monotonic()
        if batch.span.first < self._doubtful_before:
            await self._settle(batch, cause="catch_up", declared=True)
        else:
            await self._insert_all(batch)
        self._log.info(
            "stored",
            range=str(batch.span),
            records=batch.records,
            rows=sum(block.rows for block in batch.blocks),
            seconds=round(self._clock.monotonic() - began, 4),
        )
        await self._points.reached("after-insert")
        await self._points.reached("before-acknowledge")
        self._open = None

    async def _insert_all(self, batch: Batch) -> None:
        try:
            for block in batch.blocks:
                await self._insert(batch, block)
        except (StoreError, TooLateError) as error:
            await self._told(error, batch.span)
            await self._settle(batch, cause="insert")
        else:
            self._status.stored(self._broker.partition, batch)

    async def _insert(self, batch: Batch, block: Block) -> None:
        began = self._clock.monotonic()
        self._assert_fresh()
        await self._store.insert(block, token(self._broker.topic_id, self._broker.partition, batch.span))
        self._status.insert_seconds.labels(block.table).observe(self._clock.monotonic() - began)

    def _assert_fresh(self) -> None:
        """Refuse to insert under a declaration that is too old to trust (EXACTLY_ONCE.md, 2)."""
        if self._clock.monotonic() - self._declared_at > self._broker.session_seconds / 2:
            raise TooLateError("the declaration is older than half a session time-out")

    async def _settle(self, batch: Batch, *, cause: str, since: int | None = None, declared: bool = False) -> None:
        """Settle a range, for as long as it takes; each try first makes sure that the range is still ours.

        Args:
            batch: the range.
            cause: for logs and metrics.
            since: when the range was first declared (ms); by default now. Declaring it again keeps that time.
            declared: it was declared just now.
        """
        attempts: dict[str, int] = {}
        replaced: set[str] = set()
        since = self._clock.now_ms() if since is None else since
        say = self._log.info if cause == "catch_up" else self._log.warning
        say("settling", range=str(batch.span), cause=cause)
        while True:
            if self._too_old(since):
                await self._stop("declared_too_long_ago", batch.span)
                continue
            if not declared:
                await self._declare(batch.span, batch.rules, since)
            declared = False
            try:
                await settle(
                    self._broker,
                    self._store,
                    self._status,
                    batch,
                    attempts,
                    replaced=replaced,
                    assert_fresh=self._assert_fresh,
                    salt=str(self._clock.now_ms()),
                )
            except (StoreError, TooLateError) as error:
                await self._told(error, batch.span)
                continue
            self._status.well(self._broker.partition)
            self._status.settled.labels(cause).inc()
            self._status.stored(self._broker.partition, batch)
            say("settled", range=str(batch.span), cause=cause)
            return

    async def _declare(self, span: Range, rules: int, since: int | None = None) -> None:
        """Commit the batch's range: this acknowledges the batch before, and declares this one."""
        metadata = declaration.write(span.last, rules, self._clock.now_ms() if since is None else since)

        async def commit() -> None:
            asked = self._clock.monotonic()  # a process that hangs until the answer is read must not seem fresh
            await self._broker.commit(span.first, metadata)
            self._declared_at = asked

        await self._insist(commit)

    async def _acknowledge(self, position: int) -> None:
        """Commit that everything before `position` is stored, and declare nothing."""
        metadata = declaration.write(position - 1, RULES, self._clock.now_ms())
        await self._insist(lambda: self._broker.commit(position, metadata))

    async def _report_quiet(self, position: int) -> None:
        """Tell the lag where nothing came: nothing to read, or nothing that can be read."""
        end = (await self._insist(self._broker.bounds)).end
        now = self._clock.monotonic()
        if end <= position:
            self._quiet_since = None
        elif self._quiet_since is None:
            self._quiet_since = now
        quiet = 0.0 if self._quiet_since is None else now - self._quiet_since
        self._status.lag(self._broker.partition, records=max(0, end - position), seconds=quiet)
        if quiet > _QUIET_SECONDS:
            why = f"the log goes on to {end}, and nothing can be read from {position} on"
            self._status.trouble(self._broker.partition, "nothing_read", why)
            self._log.warning("nothing can be read", position=position, end=end, seconds=quiet)
        else:
            self._status.well(self._broker.partition)

    def _report_backlog(self, bounds: Bounds, committed: Committed | None) -> None:
        """Tell the lag before it is known where to go on: as far as the offsets say."""
        behind = max(0, bounds.end - (committed.offset if committed else bounds.begin))
        age = (self._clock.now_ms() - committed.t) / 1000 if behind and committed else 0.0
        self._status.lag(self._broker.partition, records=behind, seconds=max(0.0, age))

    async def _report_lag(self, position: int, batch: Batch) -> None:
        bounds = await self._insist(self._broker.bounds)
        behind = max(0, bounds.end - position)
        age = max(0.0, (self._clock.now_ms() - (batch.oldest or 0)) / 1000) if behind and batch.oldest else 0.0
        self._status.lag(self._broker.partition, records=behind, seconds=age)

    async def _report_stuck(self, batch: Batch) -> None:
        """Count a batch that cannot be stored now among what is behind."""
        try:
            bounds = await self._broker.bounds()
        except BrokerAwayError as error:
            self._log.warning("the lag is not known", why=str(error))
            return
        age = (self._clock.now_ms() - (batch.oldest or self._clock.now_ms())) / 1000
        self._status.lag(self._broker.partition, records=bounds.end - batch.span.first, seconds=max(0.0, age))

    async def _insist(self, call: Callable[[], Awaitable[T]]) -> T:
        """Do it again until it works: nothing is ever skipped, and mending the cause is enough."""
        troubled = False
        while True:
            try:
                answer = await call()
            except (BrokerAwayError, StoreError, UnreadableCommitError, UnknownRulesError) as error:
                troubled = True
                await self._told(error, None)
            else:
                if troubled:
                    self._status.well(self._broker.partition)
                return answer

    async def _told(self, error: Exception, span: Range | None) -> None:
        """Say what is wrong and wait before the next try: shortly where it passes, half a minute where it does not."""
        passing = isinstance(error, BrokerAwayError | TooLateError) or (isinstance(error, StoreError) and error.passing)
        code = error.code if isinstance(error, StoreError) else None
        if isinstance(error, StoreError):
            self._status.store_errors.labels(str(error.code)).inc()
        self._status.trouble(self._broker.partition, type(error).__name__, str(error))
        self._log.warning("trying again", error=str(error), code=code, range=span and str(span), passing=passing)
        if self._open is not None and not isinstance(error, BrokerAwayError):
            await self._report_stuck(self._open)
        await self._clock.sleep(_QUICK_SECONDS if passing else _SLOW_SECONDS)
