"""What `flagmeter replay` does with its options, and what it prints."""

from dataclasses import dataclass

import orjson
from rich.console import Console
from rich.table import Table

from aggregator.adapters.clickhouse import ClickHouseStore, without_data_frames
from aggregator.ports import StoreError
from deploy import migrate
from deploy.replay.replay import Done, Replayer
from deploy.replay.source import Filter, Source
from deploy.tool_config import StoreToolConfig

FAILURES = (StoreError,)
"""What ends the command, and that its text tells a person."""

_FLUSH_SECONDS = 1.0
_LISTED = 50


@dataclass(frozen=True, slots=True)
class Job:
    """One call of the command.

    Attributes:
        config: where the store is.
        wanted: which rows.
        limit: of rows that are replayed; None: all.
        partial: also rows of which only a part can be counted.
        dry_run: only say what would be done.
        wait_seconds: for the store to answer.
    """

    config: StoreToolConfig
    wanted: Filter = Filter()  # noqa: RUF009 - frozen
    limit: int | None = None
    partial: bool = False
    dry_run: bool = False
    wait_seconds: float = 10.0

    async def run(self) -> Done:
        """Replay.

        Raises:
            StoreAwayError: the store does not answer at all.
            RefusedMigrationError: it refuses the user.
            StoreError: it failed on the way; what was replayed stays so, run it again.
        """
        without_data_frames()
        client = migrate.connect(self.config.store, wait_seconds=self.wait_seconds, say=lambda _: None)
        store = ClickHouseStore(self.config.store, flush_seconds=_FLUSH_SECONDS)
        try:
            source = Source(client, self.config.store.database)
            replayer = Replayer(source, store, partial=self.partial, dry_run=self.dry_run, limit=self.limit)
            return await replayer.run(self.wanted)
        finally:
            await store.close()
            client.close()


def as_json(done: Done, *, dry_run: bool) -> str:
    """Write everything as one JSON document."""
    document = {
        "dryRun": dry_run,
        "replayed": done.replayed,
        "replayedBefore": done.before,
        "stays": done.stays,
        "givenUp": done.given_up,
        "yes": done.yes,
        "no": done.no,
        "count": done.count,
        "counts": [
            {
                "project": key.project,
                "environment": key.environment,
                "feature": key.feature,
                "variant": key.variant,
                "hour": key.hour,
                "app": key.app_name,
                "yes": sums[0],
                "no": sums[1],
                "count": sums[2],
            }
            for key, sums in done.keys.items()
        ],
    }
    return orjson.dumps(document).decode()


def show(done: Done, *, dry_run: bool) -> None:
    """Print it for people."""
    console = Console(soft_wrap=True, highlight=False)
    if done.keys:
        table = Table(title="would be counted" if dry_run else "counted", title_justify="left")
        for column in ("project", "environment", "flag", "variant", "app"):
            table.add_column(column)
        for column in ("yes", "no", "variant given"):
            table.add_column(column, justify="right")
        for key, sums in list(done.keys.items())[:_LISTED]:
            names = (key.project, key.environment, key.feature, key.variant, key.app_name)
            table.add_row(*(name[:60] for name in names), *(f"{number:,}" for number in sums))
        if len(done.keys) > _LISTED:
            table.add_row("… and more (--json has the first 1,000)")
        console.print(table)
    would = "would be replayed" if dry_run else "replayed"
    console.print(f"{done.replayed:,} rejected rows {would}; {done.before:,} had been before")
    if done.given_up:
        console.print(f"{done.given_up:,} of them only in part; the rest of these is given up")
    for reason, rows in sorted(done.stays.items()):
        console.print(f"{rows:,} rows stay: {reason}", markup=False)
