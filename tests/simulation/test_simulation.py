import os
import subprocess
import sys
from collections.abc import Iterator

import pytest
import structlog

from tests.simulation.many import Tally, run_many
from tests.simulation.run import run

QUICK, ALL = 300, 3_000
"""Seeds in a quick run, and in CI; `python -m tests.simulation --seeds 10000` runs more."""

FAULTS = {
    "fault: broker_away",
    "fault: drain",
    "fault: freeze",
    "fault: freeze_later",
    "fault: gap",
    "fault: jump",
    "fault: kill",
    "fault: kill_later",
    "fault: loses all offsets",
    "fault: make_anew",
    "fault: offsets_back",
    "fault: offsets_lost",
    "fault: power_loss",
    "fault: prune",
    "fault: prune_unstored",
    "fault: restore",
    "fault: store_away",
    "fault: truncate",
    "process killed",
    "process thawed",
    "request late",
    "request lost",
    "request refused",
    "request unanswered",
    "store knows",
    "store loses",
    "store refuses",
    "store repaired",
}
"""What must have happened in a few hundred runs, or they show little."""


@pytest.fixture(autouse=True)
def _logs() -> Iterator[None]:
    yield
    structlog.reset_defaults()


def assert_sound(tally: Tally) -> None:
    told = [f"seed {each.seed} ({each.scenario}): {each.violations[:3]}" for each in tally.failed]
    assert not told, "\n".join([*told, "repeat one with: python -m tests.simulation --seed N"])


def test_every_record_is_stored_once_whatever_goes_wrong() -> None:
    tally = Tally()
    for seed in range(QUICK):
        tally.add(run(seed))
    assert_sound(tally)
    assert FAULTS - tally.events.keys() == set()
    assert len(tally.scenarios) == 9


def test_the_same_seed_gives_the_same_trace_in_another_process() -> None:
    seeds = (3, 5, 11, 16, 35)
    here = [run(seed).digest for seed in seeds]
    assert len(set(here)) == len(seeds)
    assert [run(seed).digest for seed in seeds] == here
    script = f"from tests.simulation.run import run\nprint(*(run(seed).digest for seed in {seeds}))"
    there = subprocess.run(
        [sys.executable, "-c", script],
        env=os.environ | {"PYTHONHASHSEED": "7"},
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    assert there.stdout.split() == here


def test_a_trace_tells_what_the_workers_said_and_does_not_change_the_run() -> None:
    told = run(5, with_trace=True)
    assert any("event=assigned" in line for line in told.trace)
    assert (told.steps, told.seconds) == (run(5).steps, run(5).seconds)


@pytest.mark.slow
def test_every_record_is_stored_once_in_thousands_of_runs() -> None:
    tally = Tally()
    for verdict in run_many(range(ALL), jobs=2):
        tally.add(verdict)
    print(f"{tally.runs} runs, {tally.steps} steps: {dict(sorted(tally.events.items()))}")
    assert_sound(tally)
