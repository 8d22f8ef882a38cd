"""One run: a world, what goes wrong in it, and whether all was well in the end."""

import asyncio
import hashlib
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import pairwise
from random import Random
from typing import Final

import structlog

from schemas.markers import HOME, Range
from schemas.tables import REJECTED, REJECTED_COLUMNS
from tests.simulation.broker import Partition
from tests.simulation.chaos import Chaos, draw_scenario
from tests.simulation.loop import EndlessRunError, SimulatedLoop, current
from tests.simulation.oracle import judge
from tests.simulation.wire import Trace
from tests.simulation.world import World

_SETTLE_SECONDS: Final = 400.0
"""How long everything may take to be stored once nothing is wrong any more."""
_LATE_SECONDS: Final = 31.0
"""After so long no insert is under way any more."""
_UNACKNOWLEDGED: Final = "did not acknowledge"


@dataclass
class Verdict:
    """How a run ended; `violations` is empty where all was well."""

    seed: int
    scenario: str
    violations: list[str]
    steps: int
    seconds: float
    digest: str
    """Of the whole trace."""
    events: Counter[str] = field(default_factory=Counter)
    """What happened how often: faults, repairs, stops."""
    trace: list[str] = field(default_factory=list)

    @property
    def harm(self) -> list[str]:
        """What is wrong in the tables, or not stored: a mutant is caught by nothing less."""
        return [each for each in self.violations if _UNACKNOWLEDGED not in each]


def run(seed: int, *, with_trace: bool = False, sabotage: Callable[[World], None] = lambda world: None) -> Verdict:
    """Run one seed.

    Args:
        seed: decides everything.
        with_trace: keep the trace, with the workers' logs.
        sabotage: breaks a world on purpose.
    """
    dice = Random(seed)  # noqa: S311 - it must be repeatable
    loop = SimulatedLoop(dice)
    trace = Trace(loop)
    _quieten(trace if with_trace else None)
    violations: list[str] = []
    scenario = draw_scenario(dice)
    trace.add("world", repr(scenario))

    async def live() -> World:
        world = World(loop, dice, trace, scenario)
        sabotage(world)
        violations.extend(await _live(world))
        return world

    try:
        world = loop.run_until_complete(loop.spawn(loop.world, live(), "run"))
    except EndlessRunError as error:
        violations.append(f"endless: {error}")
    else:
        violations.extend([*world.deaths, *loop.faults])
    digest = hashlib.sha256("\n".join(trace.lines()).encode()).hexdigest()
    verdict = Verdict(seed, scenario.name, violations, loop.steps, loop.time(), digest, _count(trace))
    if with_trace:
        verdict.trace = trace.lines()
    loop.dispose()
    return verdict


async def _live(world: World) -> list[str]:
    chaos = Chaos(world)
    posting = asyncio.create_task(world.gateways())
    await chaos.run()
    await posting
    await chaos.epilogue()
    chaos.end()
    deadline = world.loop.time() + _SETTLE_SECONDS
    while not all(_complete(world, at) for at in range(world.scenario.partitions)) or world.frozen:
        if world.frozen:
            deadline = world.loop.time() + _SETTLE_SECONDS
        elif world.loop.time() > deadline:
            return [f"not stored {_SETTLE_SECONDS:g} s after the last fault", *_violations(world)]
        await world.wire.pause(1.0)
    stopped = {at: reason for at in range(world.scenario.partitions) if (reason := world.stopped(at))}
    world.closing = True
    for worker in world.workers:
        worker.stop.set()
    for worker in world.workers:
        await asyncio.wait([worker.task], timeout=60.0)
        world.note_end(worker)
    undrained = [f"{worker.process.name} does not end" for worker in world.workers if not worker.task.done()]
    await world.wire.pause(_LATE_SECONDS)
    return [*undrained, *_unacknowledged(world, stopped), *_violations(world, stopped)]


def _spans(world: World, topic_id: str, partition: int) -> list[Range]:
    """List the ranges that are marked in the home table, by position."""
    marked = world.server.tables.markers(HOME, topic_id, partition)
    return sorted((each.span for each in marked), key=lambda span: (span.first, span.last))


def _complete(world: World, partition: int) -> bool:
    log = world.broker.partitions[partition]
    if reason := world.stopped(partition):
        marked = world.last_marked(partition)
        return _is_right(world, partition, reason, log.first if marked is None else marked + 1)
    if partition in world.truncated:
        return False
    return log.end == log.first or world.last_marked(partition) == log.end - 1


def _unacknowledged(world: World, stopped: dict[int, str]) -> Iterator[str]:
    """A drain acknowledges all; one that met a rebalance leaves the last declaration, and its marker."""
    for at, log in enumerate(world.broker.partitions):
        committed = world.declared(at)
        calm = world.scenario.name == "calm" and len(world.workers) == 1
        if at in stopped or world.fragile or (log.end == log.first and not calm):
            continue
        if committed is None or committed.last != log.end - 1 or (calm and committed.declared):
            yield f"partition {at}: {_UNACKNOWLEDGED} {log.end}, but {committed}"


def _violations(world: World, stopped: dict[int, str] | None = None) -> Iterator[str]:
    """Hold the tables against the log."""
    sums: Counter[tuple[object, ...]] = Counter()
    rejected: Counter[tuple[object, ...]] = Counter()
    for topic_id, partitions in world.topics:
        for at, log in enumerate(partitions):
            spans = _spans(world, topic_id, at)
            yield from _gaps(world, topic_id, at, log, spans, (stopped or {}).get(at))
            judged = judge(log.history.values())
            for span in spans:
                for offset in range(span.first, span.last + 1):
                    if offset in judged:
                        sums += judged[offset].sums
                        for row in range(judged[offset].rejected):
                            rejected[topic_id, at, offset, row] = 1
    yield from _differences(sums, world.server.tables.sums())
    columns = list(REJECTED_COLUMNS)
    wanted = [columns.index(name) for name in ("topic_id", "partition", "offset", "row")]
    stored = {tuple(row[at] for at in wanted) for row in world.server.tables.rows(REJECTED)}
    for missing in sorted(map(repr, rejected.keys() - stored)):
        yield f"rejected row {missing} is missing"
    known = {
        (topic_id, at, span.first, span.last)
        for topic_id, partitions in world.topics
        for at in range(len(partitions))
        for span in _spans(world, topic_id, at)
    }
    for extra in sorted(stored - rejected.keys(), key=repr):
        if any(each[:2] == extra[:2] and each[2] <= extra[2] <= each[3] for each in known):
            yield f"rejected row {extra!r} should not be"


def _gaps(
    world: World, topic_id: str, at: int, log: Partition, spans: list[Range], stopped: str | None
) -> Iterator[str]:
    """Say where markers overlap or leave a hole that nobody was told of."""
    name = f"{topic_id}/{at}"
    if spans and spans[0].first != log.first and not (world.restored and spans[0].first <= log.begin):
        yield f"{name}: begins at {log.first}, marked from {spans[0].first}"
    for before, after in pairwise(spans):
        if after.first != before.last + 1:
            yield f"{name}: {before} and then {after}: {'twice' if after.first <= before.last else 'a hole'}"
    end = spans[-1].last + 1 if spans else log.first
    if topic_id != world.broker.topic_id:
        return  # what it had not stored went with the topic
    if stopped is None:
        if end != log.end:
            yield f"{name}: stored up to {end}, the log ends at {log.end}"
    elif not _is_right(world, at, stopped, end):
        yield f"{name}: stopped by {stopped}, stored up to {end}, the log has {log.begin} to {log.end}"


def _is_right(world: World, partition: int, reason: str, end: int) -> bool:
    """Say whether stopping is right where all before `end` is stored."""
    if reason == "lost_by_log":
        return end < world.broker.partitions[partition].begin
    return reason == "another_log" and (partition in world.truncated or len(world.topics) > 1)


def _differences(wanted: Counter[tuple[object, ...]], found: Counter[tuple[object, ...]]) -> Iterator[str]:
    for key in sorted(wanted.keys() | found.keys(), key=repr):
        if wanted[key] != found[key]:
            yield f"{key}: {found[key]} stored, {wanted[key]} in the log"


def _count(trace: Trace) -> Counter[str]:
    events: Counter[str] = Counter()
    for _, who, what in trace.events:
        if who == "chaos":
            events[f"fault: {what[0]}"] += 1
        elif who == "store":
            events[f"store {what[0]}"] += 1
            if what[0] == "stored" and "-r" in str(what[2]):
                events["store repaired"] += 1
        elif who.startswith("w") and what[0] in {"killed", "thawed"}:
            events[f"process {what[0]}"] += 1
        elif len(what) > 1 and what[1] in {"refused", "lost", "late", "unanswered"}:
            events[f"request {what[1]}"] += 1
    return events


def _quieten(trace: Trace | None) -> None:
    """Let the workers' logs go into the trace, or nowhere."""
    if trace is None:
        structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(50))
        return

    def note(_logger: object, _method: str, event: structlog.typing.EventDict) -> structlog.typing.EventDict:
        trace.add(current(), "says", *(f"{name}={value}" for name, value in event.items()))
        raise structlog.DropEvent

    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(0), processors=[note])
