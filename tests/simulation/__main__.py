"""Run the simulation: many seeds, or one with its trace."""

import sys
import time

import click
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from tests.simulation.many import Tally, run_many
from tests.simulation.mutants import MUTANTS, Mutant
from tests.simulation.run import Verdict


@click.command()
@click.option("--seeds", default=1000, show_default=True, help="How many seeds to run.")
@click.option("--first", default=0, show_default=True, help="The first of them.")
@click.option("--seed", type=int, help="Repeat just this one, and print its trace.")
@click.option("--jobs", default=2, show_default=True, help="How many processes.")
@click.option("--mutant", type=click.Choice(list(MUTANTS)), help="Break it on purpose, until a seed shows it.")
def main(seeds: int, first: int, seed: int | None, jobs: int, mutant: str | None) -> None:
    """Simulate the path from broker to table; exits with 1 where a record is not stored exactly once."""
    console = Console()
    broken = MUTANTS[mutant] if mutant else Mutant()
    if seed is not None:
        sys.exit(_report(console, broken.run(seed, with_trace=True)))
    if mutant:
        caught = next((at for at in range(first, first + seeds) if broken.run(at).harm), None)
        console.print(f"{mutant}: " + ("not caught" if caught is None else f"caught at seed {caught}"))
        sys.exit(caught is None)
    sys.exit(_run(console, range(first, first + seeds), jobs))


def _run(console: Console, seeds: range, jobs: int) -> bool:
    tally = Tally()
    began = time.monotonic()
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console) as progress:
        bar = progress.add_task("seeds", total=len(seeds))
        for verdict in run_many(seeds, jobs):
            tally.add(verdict)
            if verdict.violations:
                progress.console.print(f"[red]seed {verdict.seed}[/] ({verdict.scenario}): {verdict.violations[0]}")
            progress.advance(bar)
    seconds = time.monotonic() - began
    table = Table("what happened", "times")
    for name, times in sorted(tally.events.items()):
        table.add_row(name, str(times))
    console.print(table)
    console.print(
        f"{tally.runs} seeds in {seconds:.0f} s, {tally.runs / seconds:.0f} a second, "
        f"{tally.steps // max(1, tally.runs)} steps each, {len(tally.failed)} with a violation"
    )
    if tally.failed:
        worst = min(tally.failed, key=lambda verdict: verdict.steps)
        console.print(f"the shortest: python -m tests.simulation --seed {worst.seed}")
    return bool(tally.failed)


def _report(console: Console, verdict: Verdict) -> bool:
    for line in verdict.trace:
        console.print(line, markup=False, highlight=False, soft_wrap=True)
    console.print(
        f"seed {verdict.seed}, scenario {verdict.scenario}: {verdict.steps} steps, {verdict.seconds:.0f} s of virtual "
        f"time, trace {verdict.digest[:16]}"
    )
    for violation in verdict.violations:
        console.print(f"[red]violation[/] {violation}")
    return bool(verdict.violations)


if __name__ == "__main__":
    main()
