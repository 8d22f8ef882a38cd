"""What `flagmeter send` shows: progress while it runs, and at the end what to compare with the store."""

import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

import orjson
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from deploy.fleet import Fleet, iso
from deploy.send import Sent

_LINE_EVERY_SECONDS: Final = 5.0
_MOST_FLAGS_SHOWN: Final = 50


@contextmanager
def progress(total: int) -> Iterator[Callable[[Sent], None]]:
    """Show progress on stderr: a bar on a terminal, else a line every five seconds.

    Args:
        total: payloads in all.

    Yields:
        What is to be called after each payload.
    """
    if not sys.stderr.isatty():
        yield _lines(total)
        return
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("payloads", total=total)
        yield lambda sent: bar.update(task, completed=sent.done, description=_trouble(sent))


def show(fleet: Fleet, sent: Sent) -> None:
    """Print the totals by flag, and how to ask the store for the same."""
    console = Console(soft_wrap=True, highlight=False)
    table = Table(title=f"acknowledged by {fleet.name}", title_justify="left")
    table.add_column("flag")
    for column in ("yes", "no", "variants given"):
        table.add_column(column, justify="right")
    flags = sent.ledger.by_flag()
    for flag, counts in list(flags.items())[:_MOST_FLAGS_SHOWN]:
        table.add_row(flag, *(f"{number:,}" for number in counts))
    if len(flags) > _MOST_FLAGS_SHOWN:
        table.add_row(f"… and {len(flags) - _MOST_FLAGS_SHOWN} more (--json has all)")
    table.add_section()
    table.add_row("all", *(f"{sum(counts[at] for counts in flags.values()):,}" for at in range(3)))
    console.print(table)
    rate = sent.done / sent.seconds if sent.seconds else 0.0
    console.print(
        f"{sent.acknowledged:,} acknowledged, {sent.failed:,} failed, {len(sent.doubtful):,} doubtful "
        f"in {sent.seconds:.1f} s ({rate:,.0f} payloads/s)"
    )
    for reason, times in sorted(sent.reasons.items()):
        console.print(f"  {times:,} x {reason}")
    console.print(f"repeat it with --seed {fleet.seed} --until {iso(fleet.end_hour * 1000)[:19]}")
    console.print("\nThe store must say the same (a second or two later, at the default flush interval):")
    console.print(f"  curl 'http://127.0.0.1:{_store_port()}/' --data-binary \"{query(fleet)}\"", markup=False)


def query(fleet: Fleet) -> str:
    """Write the SQL that gives a fleet's totals by flag; its three sums are the table's columns."""
    # A name of ours: letters, digits and hyphens only.
    return (
        "SELECT feature, sum(yes), sum(no), sum(count) FROM evaluations_hourly "  # noqa: S608
        f"WHERE startsWith(app_name, '{fleet.name}-') GROUP BY feature ORDER BY feature FORMAT PrettyCompact"
    )


def as_json(fleet: Fleet, sent: Sent) -> str:
    """Write everything as one JSON document: the counts of payloads, and the total of every key."""
    document = {
        "seed": fleet.seed,
        "until": iso(fleet.end_hour * 1000),
        "acknowledged": sent.acknowledged,
        "failed": sent.failed,
        "doubtful": len(sent.doubtful),
        "doubtfulPayloads": sent.doubtful,
        "reasons": sent.reasons,
        "seconds": round(sent.seconds, 3),
        "totals": sent.ledger.rows(),
    }
    return orjson.dumps(document).decode()


def _lines(total: int, clock: Callable[[], float] = time.monotonic) -> Callable[[Sent], None]:
    said = clock()

    def say(sent: Sent) -> None:
        nonlocal said
        now = clock()
        if now - said >= _LINE_EVERY_SECONDS or sent.done == total:
            said = now
            sys.stderr.write(f"{sent.done:,} of {total:,} payloads; {_trouble(sent)}\n")

    return say


def _trouble(sent: Sent) -> str:
    bad = sent.failed + len(sent.doubtful)
    return f"{bad:,} not acknowledged" if bad else "all acknowledged"


def _store_port() -> str:
    return os.environ.get("FLAGMETER_CLICKHOUSE_PORT") or "8123"
