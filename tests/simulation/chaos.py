"""What goes wrong in a run, and when: drawn from the seed, and within what EXACTLY_ONCE.md promises to survive.

What is not promised is not drawn (docs/guarantees.md):

- a process that is frozen for long with an insert begun while offsets are lost;
- offsets that are lost or rolled back before anything is stored, or by just the last declaration, while its insert
  may still arrive: what is left looks like the ordinary state before it;
- a store that is restored from a backup while workers go on, or while requests from before are still under way;
- a range whose part is lost more than three times while its tokens are kept (it says so, and goes no further);
- a log that loses records and grows past what is stored before a worker looks at it.
"""

from collections.abc import Callable
from random import Random
from typing import Final

from schemas.limits import REPEAT_WINDOW_MS
from tests.simulation.loop import State
from tests.simulation.store import StoreOdds
from tests.simulation.wire import Odds
from tests.simulation.world import Scenario, World

_PROFILES: Final[dict[str, dict[str, int]]] = {
    "calm": {"jump": 1, "gap": 1},
    "network": {"jump": 1, "gap": 1, "broker_away": 2, "store_away": 2},
    "kills": {"kill": 4, "kill_later": 6, "drain": 2, "jump": 1, "broker_away": 1},
    "zombies": {"freeze": 5, "freeze_later": 6, "kill_later": 1, "drain": 1, "jump": 1},
    "store": {"store_away": 2, "power_loss": 3, "kill_later": 3, "freeze_later": 1},
    "offsets": {
        "offsets_lost": 3,
        "offsets_back": 3,
        "hang_and_lose": 3,
        "kill_later": 3,
        "freeze_later": 3,
        "drain": 1,
    },
    "backup": {"restore": 2, "kill_later": 2, "jump": 1},
    "log": {"jump": 2, "prune": 3, "gap": 3, "prune_unstored": 1, "make_anew": 1, "truncate": 1, "kill_later": 3},
}
_ALL: Final = {name: weight for profile in _PROFILES.values() for name, weight in profile.items()}
_FRAGILE: Final = frozenset({"offsets_lost", "offsets_back", "hang_and_lose", "restore"})


def draw_scenario(dice: Random) -> Scenario:
    """Draw what a run is like: one kind of trouble, or all of them."""
    name = dice.choices([*_PROFILES, "wild"], [1, 3, 4, 4, 4, 4, 3, 4, 4])[0]
    actions = _ALL if name == "wild" else _PROFILES[name]
    return Scenario(
        name=name,
        partitions=dice.choice((1, 1, 2, 3)),
        workers=dice.choice((1, 2, 2, 3)),
        posts=dice.randint(4, 30),
        seconds=dice.uniform(5.0, 30.0),
        flush_seconds=dice.choice((1.0, 1.0, 3.0)),
        actions=actions,
        many=dice.randint(1, 6),
    )


class Chaos:
    """Draws faults for one world, and ends them."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._dice = world.dice
        self._restores = 0
        name = world.scenario.name
        world.fragile = bool(_FRAGILE & world.scenario.actions.keys())
        if name != "calm":
            level = self._dice.choice((0.0, 0.02, 0.05, 0.12))
            world.broker.odds = Odds(level / 4, level / 4, level / 4, level / 4, level / 2, late_seconds=9.0)
            world.server.odds = Odds(level / 4, level / 4, level / 2, level / 2, level, late_seconds=25.0)
        if name in {"store", "wild"}:
            world.server.own_odds = StoreOdds(0.03, 0.15, 0.2)
        elif name in {"zombies", "offsets"}:
            world.server.own_odds = StoreOdds(connecting=0.5)
            world.server.odds = world.server.odds._replace(late=0.1, unanswered=0.05)
        if name in {"kills", "zombies", "offsets", "wild", "store"}:
            world.point_odds = self._dice.choice((0.0, 0.02, 0.06))

    async def run(self) -> None:
        """Let things go wrong until the scenario's time is over, then for good let them be well."""
        world = self._world
        times = sorted(self._dice.uniform(0.0, world.scenario.seconds * 1.3) for _ in range(world.scenario.many))
        names = list(world.scenario.actions)
        weights = list(world.scenario.actions.values())
        for when in times:
            await world.wire.pause(max(0.0, when - world.loop.time()))
            name = self._dice.choices(names, weights)[0]
            action: Callable[[], None] = getattr(self, f"_{name}")
            world.trace.add("chaos", name)
            action()
        await world.wire.pause(max(0.0, world.scenario.seconds - world.loop.time()))

    async def epilogue(self) -> None:
        """Once all is appended: sometimes lose just the last batches, so that they may be cut as they were before."""
        world = self._world
        if "restore" in world.scenario.actions and self._dice.random() < 0.6:
            await world.wire.pause(self._dice.uniform(2.0, 10.0))
            world.trace.add("chaos", "restore")
            self._restore()

    def end(self) -> None:
        """Let everything be well."""
        world = self._world
        world.trace.add("chaos", "ends")
        world.broker.odds = world.server.odds = Odds()
        world.server.own_odds = StoreOdds()
        world.broker.away_until = world.server.down_until = 0.0
        world.point_odds = 0.0
        world.hang_and_lose = None
        for worker in world.workers:
            worker.process.fuse = 0
            worker.revive()

    def _kill(self) -> None:
        self._dice.choice(self._world.workers).kill()

    def _kill_later(self) -> None:
        worker = self._dice.choice(self._world.workers)
        worker.process.on_fuse = worker.kill
        worker.process.fuse = self._dice.randint(1, 150)

    def _freeze(self) -> None:
        self._dice.choice(self._world.workers).freeze(self._seconds())

    def _freeze_later(self) -> None:
        worker = self._dice.choice(self._world.workers)
        seconds = self._seconds()
        worker.process.on_fuse = lambda: worker.freeze(seconds)
        worker.process.fuse = self._dice.randint(1, 150)

    def _drain(self) -> None:
        worker = self._dice.choice(self._world.workers)
        if worker.alive:
            worker.stop.set()

    def _broker_away(self) -> None:
        self._world.broker.away_until = self._world.loop.time() + self._seconds() / 2

    def _store_away(self) -> None:
        self._world.server.down_until = self._world.loop.time() + self._seconds()

    def _power_loss(self) -> None:
        server = self._world.server
        server.crash(self._dice.uniform(0.1, 5.0))
        server.tables.forget_tokens(self._dice.randint(0, 5))

    def _restore(self) -> None:
        world = self._world
        if world.restored == 2 or world.truncated:  # a range's tokens have three numbers; the log's loss is not covered
            return
        for worker in world.workers:
            worker.kill(back_after=self._dice.uniform(0.5, 10.0))
        world.restored += 1
        world.server.crash(0.4)
        at = world.loop.time() - self._dice.uniform(0.0, 12.0)
        if world.server.tables.parts and self._dice.random() < 0.6:
            at = self._dice.choice(world.server.tables.parts[-4:]).stored - 1e-6
        world.server.tables.restore(at, tokens=self._dice.random() < 0.5)

    def _offsets_lost(self) -> None:
        partition = self._dice.randrange(self._world.scenario.partitions)
        if self._world.last_marked(partition) is not None and not self._frozen_insert():
            self._world.broker.committed.pop(partition, None)

    def _hang_and_lose(self) -> None:
        """Let a worker hang that declared a batch and did not begin its insert, and then lose all offsets."""

        def lose() -> None:
            world.trace.add("chaos", "loses all offsets")
            if not self._frozen_insert():
                for partition in range(world.scenario.partitions):
                    if world.last_marked(partition) is not None:
                        world.broker.committed.pop(partition, None)

        world = self._world
        world.hang_and_lose = lose

    def _offsets_back(self) -> None:
        world = self._world
        partition = self._dice.randrange(world.scenario.partitions)
        marked = world.last_marked(partition)
        if marked is None or self._frozen_insert():
            return
        earlier = [
            each
            for each in world.broker.commits[partition]
            if _last_of(each.metadata) < marked and '"stop"' not in each.metadata
        ]
        if earlier:
            world.broker.committed[partition] = self._dice.choice(earlier)

    def _frozen_insert(self) -> bool:
        return any(each.process.state is State.FROZEN and each.inserting for each in self._world.workers)

    def _jump(self) -> None:
        self._world.shift += self._dice.choice((-1.0, 20.0, 61.0, 400.0, 880.0, 905.0))

    def _gap(self) -> None:
        at = self._dice.randrange(self._world.scenario.partitions)
        if at not in self._world.held_back:
            self._world.broker.partitions[at].skip(self._dice.randint(1, 4))

    def _prune(self) -> None:
        """Let retention take what is stored, acknowledged, and out of the sight of any repeat."""
        world = self._world
        for at, partition in enumerate(world.broker.partitions):
            marked, committed = world.last_marked(at), world.declared(at)
            if marked is None or committed is None:
                continue
            needed = min(marked + 1, committed.offset)
            latest = max((each.log_time for each in partition.records if each.offset < needed), default=0)
            kept = next(
                (each.offset for each in partition.records if each.log_time > latest - REPEAT_WINDOW_MS), needed
            )
            partition.prune(min(kept, needed))

    def _prune_unstored(self) -> None:
        """Let retention take all: days went by."""
        world = self._world
        at = self._dice.randrange(world.scenario.partitions)
        if world.last_marked(at) is not None:
            world.broker.partitions[at].prune(world.broker.partitions[at].end)
            world.shift += 1000.0

    def _make_anew(self) -> None:
        world = self._world
        if len(world.topics) > 1 or world.truncated:
            return
        world.broker.make_anew(f"topic-{len(world.topics)}")
        world.topics.append((world.broker.topic_id, world.broker.partitions))

    def _truncate(self) -> None:
        """Let the log lose records that are stored; nothing comes until somebody looks."""
        world = self._world
        at = self._dice.randrange(world.scenario.partitions)
        marked = world.last_marked(at)
        partition = world.broker.partitions[at]
        if marked is None or partition.begin > marked - 1:
            return
        world.truncated.add(at)
        world.held_back.add(at)
        partition.truncate(self._dice.randint(partition.begin, marked))

    def _seconds(self) -> float:
        """Draw how long something lasts: often about a session time-out."""
        return self._dice.choice(
            (self._dice.uniform(0.1, 5.0), self._dice.uniform(8.0, 16.0), self._dice.uniform(16, 60))
        )


def _last_of(metadata: str) -> int:
    return int(metadata.partition('"last":')[2].partition(",")[0])
