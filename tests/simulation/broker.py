"""A simulated Kafka: partitions, a consumer group with generations, and a worker's side of both.

What it takes from the real one: commits are fenced by member and generation as they were when they were sent, and are
taken while the group is still being balanced; a member that is silent for a session time-out is put out; all
partitions are taken back before a rebalance (eager); requests of one member arrive in the order in which they were
sent. The worker's side does what `aggregator.adapters.kafka` does.
"""

import asyncio
import contextlib
from bisect import bisect_left
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from aggregator.ports import (
    Bounds,
    BrokerAwayError,
    Chunk,
    Listener,
    MembershipLostError,
    OutOfRangeError,
    Record,
)
from schemas import declaration
from schemas.declaration import Committed
from schemas.event import Headers, Unreadable
from tests.simulation.loop import current
from tests.simulation.wire import CALM, Channel, Odds, Reply, Wire

SESSION_SECONDS: Final = 10.0
_HEARTBEAT_SECONDS: Final = 3.0
_REBALANCE_SECONDS: Final = 10.0
_ANSWER_SECONDS: Final = 5.0
_JOIN_SECONDS: Final = 20.0
_TICK_SECONDS: Final = 1.0


class Offset(NamedTuple):
    """A committed offset and its metadata."""

    offset: int
    metadata: str


class Partition:
    """One log. `history` keeps all that was ever appended, also what the log lost, for the oracle."""

    def __init__(self, first: int) -> None:
        self.first = self.begin = self.end = first
        self.records: list[Record] = []
        self.history: dict[int, Record] = {}
        self.waiting: list[asyncio.Future[None]] = []

    def append(self, headers: Headers | Unreadable, value: bytes, log_time: int) -> int:
        """Append a record; gives its offset."""
        record = Record(self.end, log_time, headers, value)
        self.records.append(record)
        self.history[record.offset] = record
        self.end += 1
        self.changed()
        return record.offset

    def skip(self, many: int) -> None:
        """Leave a gap, as transaction markers do."""
        self.end += many
        self.changed()

    def prune(self, begin: int) -> None:
        """Let retention take all before `begin`."""
        self.begin = max(self.begin, min(begin, self.end))
        del self.records[: self._index(self.begin)]

    def truncate(self, end: int) -> None:
        """Lose the newest records, as an unclean election does."""
        self.end = max(self.begin, end)
        del self.records[self._index(self.end) :]
        self.changed()

    def fetch(self, position: int, until: int | None, most: int) -> Chunk:
        """Give records from `position` on."""
        if not self.begin <= position <= self.end:
            raise OutOfRangeError(f"the log has {self.begin} to {self.end}, not {position}")
        stop = self.end if until is None else min(self.end, until + 1)
        found = self.records[self._index(position) : self._index(stop)]
        if len(found) > most:
            return Chunk(found[:most], found[most - 1].offset + 1)
        return Chunk(found, max(position, stop))

    def position_at(self, log_time: int) -> int:
        """Find the first record appended at `log_time` or later."""
        return next((record.offset for record in self.records if record.log_time >= log_time), self.end)

    def changed(self) -> None:
        """Wake those who wait for something new."""
        waiting, self.waiting = self.waiting, []
        for future in waiting:
            if not future.done():
                future.set_result(None)

    def _index(self, position: int) -> int:
        return bisect_left(self.records, position, key=lambda record: record.offset)


@dataclass
class _Member:
    seen: float
    joining: Reply | None = None


class Grant(NamedTuple):
    """The answer to a member that joined."""

    generation: int
    partitions: list[int]


class Broker:
    """The topic and its group, as the servers have them."""

    def __init__(self, wire: Wire, partitions: int, *, first: int = 0) -> None:
        self.wire = wire
        self.odds: Odds = CALM
        self.away_until = 0.0
        self.fenced = True
        """False breaks it on purpose: commits are taken whatever generation they name."""
        self.chunk_records: tuple[int, ...] = (1, 2, 3, 8, 50)
        """Most records in one answer; drawn from these."""
        self.topic_id = "topic-0"
        self.partitions = [Partition(first) for _ in range(partitions)]
        self.committed: dict[int, Offset] = {}
        self.commits: dict[int, list[Offset]] = {at: [] for at in range(partitions)}
        """What was committed in the order of its arrival; for rolling back."""
        self.generation = 0
        self._members: dict[str, _Member] = {}
        self._deadline: float | None = None
        self._named = 0
        wire.loop.in_world(_TICK_SECONDS, self._tick)

    def make_anew(self, topic_id: str) -> None:
        """Delete the topic and make it again; the group's offsets go with it."""
        old = self.partitions
        self.topic_id = topic_id
        self.partitions = [Partition(0) for _ in old]
        self.committed.clear()
        for each in self.commits.values():
            each.clear()
        for partition in old:
            partition.changed()

    def name_member(self) -> str:
        """Give a new member its id."""
        self._named += 1
        return f"member-{self._named}"

    def join(self, member: str, reply: Reply) -> None:
        """Take a member into the next generation; answered when that begins."""
        known = self._members.setdefault(member, _Member(self.wire.loop.time()))
        known.seen = self.wire.loop.time()
        known.joining = reply
        self._rebalance()
        self._complete_if_all()

    def heartbeat(self, member: str, generation: int) -> str:
        """Note that a member lives; tell it `ok`, `rebalance` or `unknown`."""
        known = self._members.get(member)
        if known is None:
            return "unknown"
        known.seen = self.wire.loop.time()
        return "rebalance" if self._deadline is not None or generation != self.generation else "ok"

    def leave(self, member: str) -> None:
        """Let a member go."""
        if self._members.pop(member, None) is not None and self._members:
            self._rebalance()
            self._complete_if_all()

    def commit(self, member: str, generation: int, partition: int, offset: Offset) -> None:
        """Commit, if that member's generation still lasts."""
        if self.fenced and (member not in self._members or generation != self.generation):
            raise MembershipLostError(f"generation {generation} of {member} is over")
        self.committed[partition] = offset
        self.commits[partition].append(offset)
        self.wire.trace.add("broker", "committed", partition, *offset)

    def _rebalance(self) -> None:
        if self._deadline is None:
            self._deadline = self.wire.loop.time() + _REBALANCE_SECONDS

    def _complete_if_all(self) -> None:
        if self._deadline is not None and all(each.joining is not None for each in self._members.values()):
            self._complete()

    def _complete(self) -> None:
        self._deadline = None
        self._members = {name: each for name, each in self._members.items() if each.joining is not None}
        if not self._members:
            return
        self.generation += 1
        names = sorted(self._members)
        self.wire.dice.shuffle(names)
        self.wire.trace.add("broker", "generation", self.generation, *names)
        for at, name in enumerate(names):
            member = self._members[name]
            member.seen = self.wire.loop.time()
            reply, member.joining = member.joining, None
            assert reply is not None
            reply(Grant(self.generation, list(range(len(self.partitions)))[at :: len(names)]))

    def _tick(self) -> None:
        now = self.wire.loop.time()
        silent = [
            name for name, each in self._members.items() if each.joining is None and now - each.seen > SESSION_SECONDS
        ]
        for name in silent:
            self.wire.trace.add("broker", "expired", name)
            del self._members[name]
        if silent and self._members:
            self._rebalance()
        if self._deadline is not None and now >= self._deadline:
            self._complete()
        else:
            self._complete_if_all()
        self.wire.loop.in_world(_TICK_SECONDS, self._tick)


@dataclass
class _Client:
    """A worker's connection to the broker."""

    broker: Broker
    channel: Channel = field(default_factory=Channel)

    async def ask(self, name: str, work: Callable[[], object], *, ordered: bool = False) -> object:
        """Ask the broker.

        Raises:
            BrokerAwayError: no answer; if it was to write, it may have done so.
        """
        broker = self.broker

        def unless_away() -> object:
            if broker.wire.loop.time() < broker.away_until:
                raise BrokerAwayError(f"{name}: the broker is away")
            return work()

        return await broker.wire.ask(
            name,
            unless_away,
            odds=broker.odds,
            patience=_ANSWER_SECONDS,
            away=BrokerAwayError,
            channel=self.channel if ordered else None,
        )


class _Assignment:
    def __init__(self, member: str, generation: int, lost: asyncio.Future[None]) -> None:
        self.member = member
        self.generation = generation
        self.over = False
        self.lost = lost

    def lose(self) -> None:
        if not self.lost.done():
            self.lost.set_result(None)


class SimulatedLog:
    """One partition, for the time of one assignment."""

    session_seconds = SESSION_SECONDS

    def __init__(self, client: _Client, assignment: _Assignment, partition: int, topic_id: str) -> None:
        self._client = client
        self._broker = client.broker
        self._assignment = assignment
        self._written: tuple[Offset | None, ...] | None = None
        self._patient = False
        self.partition = partition
        self.topic_id = topic_id

    @property
    def _log(self) -> Partition:
        return self._broker.partitions[self.partition]

    async def bounds(self) -> Bounds:
        self._check()
        answer = await self._client.ask("bounds", lambda: Bounds(self._log.begin, self._log.end))
        assert isinstance(answer, Bounds)
        return answer

    async def position_at(self, log_time: int) -> int:
        self._check()
        answer = await self._client.ask("position_at", lambda: self._log.position_at(log_time))
        assert isinstance(answer, int)
        return answer

    async def committed(self) -> Committed | None:
        found = await self._committed()
        self._written = (found,)
        return None if found is None else declaration.read(found.offset, found.metadata)

    async def commit(self, offset: int, metadata: str) -> None:
        assignment, fenced = self._assignment, self._broker.fenced
        if fenced:
            found = await self._committed()
            if self._written is not None and found not in self._written:
                assignment.lose()
                raise MembershipLostError(f"somebody else committed {found}")
            if found is None:
                await self._assert_same_topic()
            wanted = Offset(offset, metadata)
            self._written = (found, wanted)
            self._check()
        else:
            wanted = Offset(offset, metadata)
        broker, member, generation = self._broker, assignment.member, assignment.generation
        try:
            await self._client.ask(
                "commit", lambda: broker.commit(member, generation, self.partition, wanted), ordered=True
            )
        except MembershipLostError:
            assignment.lose()
            raise
        self._written = (wanted,)

    async def read(self, position: int, *, until: int | None, wait_seconds: float) -> Chunk:
        self._check()
        log = self._log
        if position == log.end and wait_seconds > 0:
            await self._broker.wire.pause(wait_seconds, log.waiting)
            if log is self._log and position == log.end:
                return Chunk([], position)
        most = self._broker.wire.dice.choice(self._broker.chunk_records)
        answer = await self._client.ask("read", lambda: self._log.fetch(position, until, most))
        assert isinstance(answer, Chunk)
        return answer

    async def _committed(self) -> Offset | None:
        self._check()
        answer = await self._client.ask("committed", lambda: self._broker.committed.get(self.partition))
        assert answer is None or isinstance(answer, Offset)
        return answer

    async def _assert_same_topic(self) -> None:
        if await self._client.ask("topic_id", lambda: self._broker.topic_id) != self.topic_id:
            self._assignment.lose()
            raise MembershipLostError("the topic was made anew")

    def _check(self) -> None:
        if self._assignment.over and self._broker.fenced:
            raise MembershipLostError(f"generation {self._assignment.generation} is over")


class SimulatedMembership:
    """A worker's place in the group."""

    def __init__(self, broker: Broker) -> None:
        self._broker = broker
        self._client = _Client(broker)
        self._given: list[int] = []
        self._assignment: _Assignment | None = None
        self.trouble: str | None = "the group was not joined yet"

    async def partitions(self) -> int:
        answer = await self._client.ask("topic", lambda: len(self._broker.partitions))
        assert isinstance(answer, int)
        return answer

    async def run(self, listener: Listener) -> None:
        while True:
            try:
                await self._session(listener)
            except BrokerAwayError as error:
                self.trouble = str(error)
            await self._broker.wire.pause(1.0)

    async def _session(self, listener: Listener) -> None:
        member = self._broker.name_member()
        try:
            topic_id = await self._client.ask("topic_id", lambda: self._broker.topic_id)
            assert isinstance(topic_id, str)
            while True:
                grant = await self._join(member)
                loop = self._broker.wire.loop
                self._assignment = assignment = _Assignment(member, grant.generation, loop.create_future())
                self.trouble = None
                for partition in grant.partitions:
                    self._given.append(partition)
                    await listener.assigned(SimulatedLog(self._client, assignment, partition, topic_id))
                if not await self._until_rebalance(assignment, topic_id):
                    return
                await self._take_back(listener)
        finally:
            await self._take_back(listener)
            with contextlib.suppress(BrokerAwayError):
                await self._client.ask("leave", lambda: self._broker.leave(member), ordered=True)

    async def _join(self, member: str) -> Grant:
        broker = self._broker
        broker.wire.trace.add(current(), "joins", member)

        def work(reply: Reply) -> None:
            if broker.wire.loop.time() < broker.away_until:
                raise BrokerAwayError("join: the broker is away")
            broker.join(member, reply)

        answer = await broker.wire.ask_held(
            "join",
            work,
            odds=broker.odds,
            patience=_JOIN_SECONDS,
            away=BrokerAwayError,
            channel=self._client.channel,
        )
        assert isinstance(answer, Grant)
        return answer

    async def _until_rebalance(self, assignment: _Assignment, topic_id: str) -> bool:
        """Send heartbeats until the group is balanced anew; False to join it as a new member."""
        broker = self._broker
        heard = broker.wire.loop.time()
        while True:
            await asyncio.wait([assignment.lost], timeout=_HEARTBEAT_SECONDS)
            if assignment.lost.done():
                return False
            try:
                answer = await self._client.ask(
                    "heartbeat",
                    lambda: (broker.heartbeat(assignment.member, assignment.generation), broker.topic_id),
                    ordered=True,
                )
            except BrokerAwayError as error:
                self.trouble = str(error)
                if broker.wire.loop.time() - heard > SESSION_SECONDS:
                    return False
                continue
            heard = broker.wire.loop.time()
            self.trouble = None
            if answer != ("ok", topic_id):
                return answer == ("rebalance", topic_id)

    async def _take_back(self, listener: Listener) -> None:
        if self._assignment is not None:
            self._assignment.over = True
        given, self._given = self._given, []
        await asyncio.gather(*(listener.revoked(partition) for partition in given))
        self._assignment = None
