"""Deliberate breaks, one for each thing that the guarantee rests on: the simulation must see every one of them."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, Final
from unittest import mock

from aggregator import lookback, partition, settle
from aggregator.batch import Batch
from aggregator.lookback import Lookback
from aggregator.partition import PartitionWorker
from aggregator.ports import Block, PartitionLog, StoreError
from aggregator.repeats import Repeats
from aggregator.rollup import Rollup
from schemas.assignment import GoOn, Plan, Recut, Settle, assign
from schemas.declaration import Committed
from schemas.markers import Range, token
from schemas.tables import ADDITIVE
from tests.simulation.run import Verdict, run
from tests.simulation.store import SimulatedStore, split
from tests.simulation.world import World

Sabotage = Callable[[World], None]


def _nothing(world: World) -> None:
    """Leave the world as it is."""


class Mutant:
    """A way of breaking the product, or what it relies on."""

    def __init__(
        self, patches: Callable[[], AbstractContextManager[object]] = nullcontext, sabotage: Sabotage = _nothing
    ) -> None:
        self._patches = patches
        self._sabotage = sabotage

    def run(self, seed: int, *, with_trace: bool = False) -> Verdict:
        """Run one seed, broken."""
        with self._patches():
            return run(seed, with_trace=with_trace, sabotage=self._sabotage)


def _patch(target: object, name: str, new: object, **options: Any) -> Callable[[], AbstractContextManager[object]]:
    return lambda: mock.patch.object(target, name, new, **options)


@contextmanager
def _no_token() -> Iterator[None]:
    insert = SimulatedStore.insert
    sent = 0

    async def without(self: SimulatedStore, block: Block, _token: str) -> None:
        nonlocal sent
        sent += 1
        await insert(self, block, f"{_token}-none-{sent}")

    with mock.patch.object(SimulatedStore, "insert", without):
        yield


async def _insert_before_reading(
    log: PartitionLog, store: SimulatedStore, status: Any, batch: Batch, attempts: Any, **rest: Any
) -> None:
    for block in batch.blocks:
        rest["assert_fresh"]()
        name = token(log.topic_id, log.partition, batch.span)
        await store.insert(block, name if block.table in ADDITIVE else f"{name}-s{rest['salt']}")
    await settle.settle(log, store, status, batch, attempts, **rest)


async def _raise_on_doubt(
    log: PartitionLog, store: SimulatedStore, status: Any, batch: Batch, attempts: dict[str, int], **rest: Any
) -> None:
    try:
        await settle.settle(log, store, status, batch, attempts, **rest)
    except StoreError:
        for block in batch.blocks:
            attempts[block.table] = attempts.get(block.table, 0) + 1
        raise


async def _cut_anew(_self: PartitionWorker, span: Range, _committed: Committed | None) -> int:
    return span.first


def _in_several_blocks(world: World) -> None:
    world.server.tables.cut = lambda block: split(block, world.dice.randint(1, 6))


def _without_window(world: World) -> None:
    world.server.tables.window = 0


def _without_fence(world: World) -> None:
    world.broker.fenced = False


def _further_of_both(committed: Committed | None, marked: int | None, begin: int, end: int) -> Plan:
    stored = begin if marked is None else marked + 1
    if committed is None:
        return GoOn(max(begin, stored))
    if committed.declared and committed.offset >= stored:
        return Settle(committed.declared)
    return GoOn(max(begin, stored, committed.last + 1 if committed.declared else committed.offset))


def _loss_unseen(committed: Committed | None, marked: int | None, begin: int, end: int) -> Plan:
    plan = assign(committed, marked, begin, end)
    return GoOn(committed.offset) if isinstance(plan, Recut) and plan.alarm and committed else plan


async def _nothing_read_back(_log: PartitionLog, _first: int) -> Repeats:
    return Repeats()


def _home_first(self: Rollup, topic_id: str, number: int, span: Range) -> list[Block]:
    return _blocks(self, topic_id, number, span)[::-1]


_blocks = Rollup.blocks


async def _no_waiting(self: PartitionWorker, at: int, _alarm: object) -> None:
    await self._settle_foreign(at)


async def _take_and_keep(self: Lookback, first: int) -> Repeats:
    kept = self._kept
    return kept[1] if kept is not None and kept[0] == first else await lookback.read_back(self._log, first)


async def _errors_ignored(self: PartitionWorker, batch: Batch) -> None:
    for block in batch.blocks:
        try:
            await self._insert(batch, block)
        except (StoreError, settle.TooLateError):
            continue


def _always_fresh(_self: PartitionWorker) -> None:
    """Insert, however old the declaration is."""


_WORKER: Final = PartitionWorker
MUTANTS: Final[dict[str, Mutant]] = {
    "no token": Mutant(_no_token),
    "insert before checking the marker": Mutant(_patch(partition, "settle", _insert_before_reading)),
    "-rN raised on doubt": Mutant(_patch(partition, "settle", _raise_on_doubt)),
    "commit after a rebalance not guarded": Mutant(sabotage=_without_fence),
    "range cut differently on replay": Mutant(_patch(_WORKER, "_settle_declared", _cut_anew)),
    "several blocks in an insert": Mutant(sabotage=_in_several_blocks),
    "window of 0": Mutant(sabotage=_without_window),
    "the further of two offsets": Mutant(_patch(partition, "assign", _further_of_both)),
    "retry state not rebuilt": Mutant(_patch(lookback, "read_back", _nothing_read_back)),
    "home marker not last": Mutant(_patch(Rollup, "blocks", _home_first)),
    "a known token's success believed": Mutant(
        _patch(_WORKER, "_doubtful_before", property(lambda _self: 0, lambda _self, _value: None), create=True)
    ),
    "inserts under an old declaration": Mutant(_patch(_WORKER, "_assert_fresh", _always_fresh)),
    "late writers not waited out": Mutant(_patch(_WORKER, "_wait_out_late_writers", _no_waiting)),
    "the store's loss not seen": Mutant(_patch(partition, "assign", _loss_unseen)),
    "retry state used twice after a failed read": Mutant(_patch(Lookback, "take", _take_and_keep)),
    "errors of inserts ignored": Mutant(_patch(_WORKER, "_insert_all", _errors_ignored)),
}
