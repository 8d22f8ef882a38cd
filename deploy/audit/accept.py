"""What a person may decide about a partition that is stopped: which records are given up, and where to go on."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final

from prometheus_client import CollectorRegistry

from aggregator.adapters.visit import Visit
from aggregator.batch import Batch
from aggregator.ports import Clock, MembershipLostError, PartitionLog, Store
from aggregator.status import Status
from deploy.audit.report import PartitionReport
from deploy.audit.settling import settle_once
from deploy.home_block import home_block
from schemas import declaration
from schemas.assignment import Alarm
from schemas.declaration import Committed
from schemas.insert import INSERT_SECONDS
from schemas.limits import RULES
from schemas.markers import LOST, Range, marker_key

Say = Callable[[str], None]

TOO_LONG_AGO: Final = "declared_too_long_ago"


class NothingToAcceptError(Exception):
    """The partition needs no decision, or none that can be made here; says why."""


@dataclass(frozen=True, slots=True)
class Acceptance:
    """A decision, before anybody confirmed it. Pure data.

    Attributes:
        why: what it resolves.
        lost: ranges that get a marker `lost`.
        taken: positions of this log that count as stored, since the store has other records under them.
        again: a declared range that is declared anew, and so stored by the next worker, maybe a second time.
        skip_to: the position that the log is to give next.
        at: where workers go on; None where nothing is committed.
    """

    why: str
    lost: tuple[Range, ...] = ()
    taken: Range | None = None
    again: Range | None = None
    skip_to: int | None = None
    at: int | None = None

    @property
    def sentences(self) -> list[str]:
        """Say what confirming it means, with the number of positions that are given up."""
        said = [f"{_count(span)} given up: {_where(span)} will never be counted" for span in self.lost]
        if self.taken:
            said.append(
                f"{_count(self.taken)} given up: {_where(self.taken)} of this log will never be counted, since the "
                "store holds records of another log under these numbers"
            )
        if self.again:
            said.append(
                f"{_count(self.again)} to be counted: {_where(self.again)}. What was stored of it before counts twice"
            )
        if self.skip_to is not None:
            said.append(f"the log gives no position below {self.skip_to} any more")
        if self.at is not None and not self.again:
            said.append(f"workers go on at position {self.at}")
        return said


def decide(each: PartitionReport, committed: Committed | None, *, can_skip: bool, count_again: bool) -> Acceptance:
    """Find the decision that lets a partition go on.

    Args:
        each: the partition's part of an audit, with its log.
        committed: C.
        can_skip: the log can be told to leave positions out.
        count_again: store what was declared too long ago once more, rather than give it up.

    Raises:
        NothingToAcceptError: there is nothing to decide, or it cannot be decided so.
    """
    marked, log = each.markers, each.log
    if log is None:
        raise NothingToAcceptError("this is not a partition of the log that is written to now")
    gone = tuple(
        Range(span.first, min(span.last, log.begin - 1)) for span in marked.holes.shown if span.first < log.begin
    )
    if count_again and log.stopped != TOO_LONG_AGO:
        raise NothingToAcceptError(
            f"--count-again is for {TOO_LONG_AGO}; this partition is {log.stopped or 'not stopped'}"
        )
    match log.stopped:
        case Alarm.LOST_BY_LOG:
            first = marked.last + 1 if marked.last is not None else _first(committed)
            return Acceptance(Alarm.LOST_BY_LOG, lost=(*gone, Range(first, log.begin - 1)), at=log.begin)
        case Alarm.ANOTHER_LOG:
            return _another_log(marked.last, log.begin, log.end, gone, can_skip=can_skip)
        case "declared_too_long_ago" if committed is not None and committed.declared is not None:
            declared = committed.declared
            if count_again:
                return Acceptance(TOO_LONG_AGO, again=declared, at=declared.first)
            return Acceptance(TOO_LONG_AGO, lost=(*gone, declared), at=declared.last + 1)
        case "" if gone:
            return Acceptance("holes that the log does not have any more", lost=gone)
        case "":
            raise NothingToAcceptError("there is nothing to accept: the partition is not stopped")
        case other:
            raise NothingToAcceptError(f"this cannot be accepted: {other}")


def _count(span: Range) -> str:
    number = span.last - span.first + 1
    return "1 position is" if number == 1 else f"{number:,} positions are"


def _where(span: Range) -> str:
    return f"position {span.first}" if span.first == span.last else f"positions {span}"


def _first(committed: Committed | None) -> int:
    if committed is None:
        raise AssertionError("unreachable: without marker and offset nothing is lost")
    return committed.offset


def _another_log(last: int | None, begin: int, end: int, gone: tuple[Range, ...], *, can_skip: bool) -> Acceptance:
    """Go on after what is stored; what this log has below it cannot be told from what the other one had."""
    if last is None:
        return Acceptance(Alarm.ANOTHER_LOG, at=begin)
    if end > last:
        at = max(last + 1, begin)
        lost = (Range(last + 1, begin - 1),) if begin > last + 1 else ()
        taken = Range(begin, last) if begin <= last else None
        return Acceptance(Alarm.ANOTHER_LOG, lost=(*gone, *lost), taken=taken, at=at)
    if not can_skip:
        raise NothingToAcceptError(
            f"the topic ends at {end - 1} and the store holds its positions up to {last}: whatever gets these "
            "positions from now on would not be counted. Make a new topic, and let gateways and aggregators use it; "
            f"or, when the topic has grown beyond {last}, accept what it then says"
        )
    taken = Range(begin, end - 1) if begin < end else None
    return Acceptance(Alarm.ANOTHER_LOG, lost=gone, taken=taken, skip_to=last + 1, at=last + 1)


class Acceptor:
    """Carries a confirmed decision out."""

    def __init__(self, visit: Visit, store: Store, clock: Clock, say: Say) -> None:
        self._visit = visit
        self._store = store
        self._clock = clock
        self._say = say
        self._status = Status(CollectorRegistry())

    async def accept(
        self, partition: int, acceptance: Acceptance, committed: Committed | None, still: Callable[[], Awaitable[None]]
    ) -> None:
        """Write the markers, then commit; nothing is written while a worker is there.

        Args:
            partition: of the log.
            acceptance: the decision.
            committed: C, as it was when it was made.
            still: looks again; raises where something else would be decided now.

        Raises:
            WorkersError: workers are members of the group.
            NothingToAcceptError: things changed since.
            BrokerAwayError: the log cannot be reached.
            StoreError: the store refuses or does not answer; run it again.
        """
        if acceptance.at is None:
            await self._mark(self._visit.log(partition), acceptance.lost)
            return
        async with self._visit.alone(partition) as log:
            if committed is not None and committed.declared is not None:
                seconds = log.session_seconds + INSERT_SECONDS
                self._say(f"waiting {seconds:g} s for an insert that may still be under way")
                await self._clock.sleep(seconds)
            await still()
            if await log.committed() != committed:
                raise NothingToAcceptError("somebody committed meanwhile: look again")
            if acceptance.skip_to is not None:
                await self._visit.skip_to(acceptance.skip_to)
            await self._mark(log, acceptance.lost)
            await self._commit(log, acceptance, committed)

    async def _mark(self, log: PartitionLog, lost: tuple[Range, ...]) -> None:
        for span in lost:
            block = home_block({}, [marker_key(log.topic_id, log.partition, span, [LOST], 0)], 0)
            batch = Batch(span, RULES, 0, None, (block,), {}, {}, 0)
            await settle_once(log, self._store, self._status, self._clock, batch)
            self._say(f"partition {log.partition}: {span} is marked as lost")

    async def _commit(self, log: PartitionLog, acceptance: Acceptance, committed: Committed | None) -> None:
        at, again = acceptance.at or 0, acceptance.again
        rules = committed.rules if committed and again else RULES
        metadata = declaration.write(again.last if again else at - 1, rules, self._clock.now_ms())
        try:
            await log.commit(at, metadata)
        except MembershipLostError as error:
            raise NothingToAcceptError(
                f"a worker came meanwhile, nothing was committed: end it and repeat this ({error})"
            ) from error
        self._say(f"partition {log.partition}: committed {at}; start the aggregators")
