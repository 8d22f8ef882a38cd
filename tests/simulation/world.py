"""One run's world: broker, store, gateways, and workers as processes that can die."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from random import Random
from typing import Final

from prometheus_client import CollectorRegistry

from aggregator.status import Status
from aggregator.worker import Worker
from schemas import declaration
from tests.simulation.broker import Broker, Partition, SimulatedMembership
from tests.simulation.loop import Process, SimulatedLoop, State
from tests.simulation.posts import Post, Posts
from tests.simulation.store import Server, SimulatedStore
from tests.simulation.wire import Odds, Trace, Wire

_NOON: Final = 1_795_348_800
_MONTHS_END: Final = 1_796_083_185
"""15 seconds before December."""
_DRAIN_SECONDS: Final = 20.0


class SimulatedClock:
    """A process's clocks: the same speed, another start, and a wall clock that is wrong by a little."""

    def __init__(self, wire: Wire, epoch: float) -> None:
        self._wire = wire
        self._epoch = epoch + wire.dice.uniform(-30, 30)
        self._start = wire.dice.uniform(0, 1e6)

    def monotonic(self) -> float:
        return self._start + self._wire.loop.time()

    def now_ms(self) -> int:
        return int((self._epoch + self._wire.loop.time()) * 1000)

    async def sleep(self, seconds: float) -> None:
        await self._wire.pause(seconds)


class SimulatedPoints:
    """The protocol's named points: sometimes a process dies just there, or hangs."""

    def __init__(self, worker: "WorkerProcess") -> None:
        self._worker = worker

    async def reached(self, name: str) -> None:
        world = self._worker.world
        if world.hang_and_lose and name == "after-declare":
            lose, world.hang_and_lose = world.hang_and_lose, None
            if world.dice.random() < 0.5:
                self._worker.freeze(world.dice.uniform(60.0, 110.0))
                world.loop.in_world(world.dice.uniform(0.0, 20.0), lose)
            else:  # its insert is late, and it dies meanwhile
                odds = world.server.odds
                world.server.odds = odds._replace(late=1.0, refused=0.0, lost=0.0)
                world.loop.in_world(0.4, self._worker.kill)
                world.loop.in_world(0.4, world.set_odds, odds)
                world.loop.in_world(0.5, lose)
            await world.wire.pause(0.0)
            return
        drawn = world.dice.random() if world.point_odds else 1.0
        if drawn < world.point_odds:
            world.trace.add(self._worker.process.name, "at", name)
            if drawn < world.point_odds / 2:
                self._worker.kill()
            else:
                self._worker.freeze(world.dice.uniform(1.0, 60.0))
            await world.wire.pause(0.0)


@dataclass
class Scenario:
    """What may happen in a run; drawn from the seed."""

    name: str
    partitions: int
    workers: int
    posts: int
    seconds: float
    flush_seconds: float
    actions: dict[str, int] = field(default_factory=dict)
    """Faults of the driver, by name, with their weights."""
    many: int = 0
    """How many of them."""


class WorkerProcess:
    """A worker as a process: started, killed, frozen, drained, started again."""

    def __init__(self, world: "World", number: int) -> None:
        self.world = world
        self.number = number
        self.started = 0
        self.start()

    def start(self) -> None:
        """Begin anew, with nothing in memory."""
        world = self.world
        self.started += 1
        self.process = Process(f"w{self.number}.{self.started}")
        self.stop = asyncio.Event()
        self.membership = SimulatedMembership(world.broker)
        self.status = Status(CollectorRegistry())
        worker = Worker(
            SimulatedStore(world.server),
            SimulatedClock(world.wire, world.epoch),
            SimulatedPoints(self),
            self.status,
            flush_seconds=world.scenario.flush_seconds,
        )
        self.task = world.loop.spawn(
            self.process, worker.run(self.membership, self.stop, drain_seconds=_DRAIN_SECONDS), "worker"
        )
        self.task.add_done_callback(self._ended, context=world.loop.world.context)
        world.trace.add(self.process.name, "starts")

    def _ended(self, _task: object) -> None:
        """A supervisor starts what ended by itself."""
        world = self.world
        if not world.closing:
            world.trace.add(self.process.name, "ended")
            world.loop.in_world(world.dice.uniform(0.1, 8.0), self.revive)

    @property
    def alive(self) -> bool:
        """It runs, or would if it were not frozen."""
        return self.process.state is not State.DEAD and not self.task.done()

    @property
    def inserting(self) -> bool:
        """It began an insert that may still take effect."""
        return any(each.process == self.process.name for each in self.world.server.open)

    def kill(self, back_after: float | None = None) -> None:
        """Die at once; come back after a while."""
        if self.process.state is State.DEAD:
            return
        world = self.world
        world.trace.add(self.process.name, "killed")
        world.note_end(self)
        world.loop.kill(self.process)
        world.loop.in_world(world.dice.uniform(0.05, 12.0) if back_after is None else back_after, self.revive)

    def revive(self) -> None:
        """Start again, if it is not running."""
        if not self.alive and not self.world.closing:
            if self.process.state is not State.DEAD:
                self.world.note_end(self)
            self.start()

    def freeze(self, seconds: float) -> None:
        """Hang for so long, as far as the guarantee goes."""
        if self.process.state is not State.RUNNING:
            return
        if self.world.fragile and self.inserting:
            # A longer one across lost offsets, with an insert under way, is not covered (EXACTLY_ONCE.md, 8).
            seconds = min(seconds, 9.0)
        self.world.trace.add(self.process.name, f"frozen for {seconds:.2f} s")
        process = self.process
        self.world.loop.freeze(process)
        self.world.loop.in_world(seconds, self.world.thaw, process)


class World:
    """All that a run consists of."""

    def __init__(self, loop: SimulatedLoop, dice: Random, trace: Trace, scenario: Scenario) -> None:
        self.loop = loop
        self.dice = dice
        self.trace = trace
        self.scenario = scenario
        self.wire = Wire(loop, dice, trace)
        self.epoch = float(dice.choice((_NOON, _MONTHS_END)))
        self.broker = Broker(self.wire, scenario.partitions, first=dice.choice((0, 0, 1, 97)))
        self.server = Server(self.wire)
        self.point_odds = 0.0
        self.fragile = False
        """Offsets may be lost in this run, and tokens are no fence then: nothing may be frozen for long."""
        self.topics: list[tuple[str, list[Partition]]] = [(self.broker.topic_id, self.broker.partitions)]
        self.shift = 0.0
        """By how much the broker's clock is ahead (s)."""
        self.truncated: set[int] = set()
        self.restored = 0
        self.held_back: set[int] = set()
        """Partitions that nothing is appended to."""
        self.hang_and_lose: Callable[[], None] | None = None
        """Called some time after the next worker that declared a batch hangs, or dies while its insert is under way."""
        self.closing = False
        """Nobody is started any more."""
        self.deaths: list[str] = []
        self.workers = [WorkerProcess(self, number) for number in range(scenario.workers)]

    def set_odds(self, odds: Odds) -> None:
        """Let requests to the store fail as often as that from now on."""
        self.server.odds = odds

    def note_end(self, worker: WorkerProcess) -> None:
        """Look at what a worker ended with: a fault of its own is one of ours."""
        if worker.task.done() and not worker.task.cancelled() and (error := worker.task.exception()) is not None:
            self.deaths.append(f"{worker.process.name} died of {error!r}")

    def thaw(self, process: Process) -> None:
        """Let a frozen process go on."""
        if process.state is State.FROZEN:
            self.trace.add(process.name, "thawed")
            self.loop.thaw(process)

    def append(self, post: Post) -> None:
        """Append what a gateway took; the broker's clock may fall a little, where a leader changes."""
        at = post.sender % self.scenario.partitions
        if at in self.held_back:
            return
        now = self.epoch + self.loop.time() + self.shift - (self.dice.random() if self.dice.random() < 0.1 else 0.0)
        offset = self.broker.partitions[at].append(post.headers, post.value, int(now * 1000))
        self.trace.add("gateway", "appended", at, offset)

    async def gateways(self) -> None:
        """Append posts, a few at a time, until the scenario's number is reached."""
        posts = Posts(self.dice)
        late: list[tuple[int, Post]] = []
        pause = self.scenario.seconds / max(1, self.scenario.posts)
        for turn in range(self.scenario.posts):
            late += [(turn + post.delay, post) for post in posts.draw()]
            due = [post for when, post in late if when <= turn]
            late = [(when, post) for when, post in late if when > turn]
            for post in due:
                self.append(post)
            if self.dice.random() < 0.7:
                await self.wire.pause(self.dice.uniform(0.0, 2.8 * pause))
        for _, post in late:
            self.append(post)

    @property
    def frozen(self) -> bool:
        """Some worker is."""
        return any(worker.process.state is State.FROZEN for worker in self.workers)

    def stopped(self, partition: int) -> str | None:
        """Say why a partition is stopped; None where it is not."""
        for worker in self.workers:
            if worker.alive and (trouble := worker.status._troubles.get(partition)) is not None:
                reason, message = trouble
                if "a person must decide" in message:
                    return reason
        return None

    def last_marked(self, partition: int) -> int | None:
        """Read M as it is now."""
        return self.server.tables.last_marked(self.broker.topic_id, partition)

    def declared(self, partition: int) -> declaration.Committed | None:
        """Read C as it is now."""
        found = self.broker.committed.get(partition)
        return None if found is None else declaration.read(found.offset, found.metadata)
