"""Many seeds, on several processors."""

import multiprocessing
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from tests.simulation.run import Verdict, run


@dataclass
class Tally:
    """What many runs came to."""

    runs: int = 0
    steps: int = 0
    scenarios: Counter[str] = field(default_factory=Counter)
    events: Counter[str] = field(default_factory=Counter)
    failed: list[Verdict] = field(default_factory=list)

    def add(self, verdict: Verdict) -> None:
        """Count one more run."""
        self.runs += 1
        self.steps += verdict.steps
        self.scenarios[verdict.scenario] += 1
        self.events += verdict.events
        if verdict.violations:
            self.failed.append(verdict)


def run_many(seeds: Iterable[int], jobs: int) -> Iterator[Verdict]:
    """Run seeds; gives the verdicts in the seeds' order."""
    if jobs == 1:
        yield from map(run, seeds)
        return
    with multiprocessing.get_context("spawn").Pool(jobs) as pool:
        yield from pool.imap(run, seeds, chunksize=25)
