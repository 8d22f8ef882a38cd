"""What `flagmeter migrate` does with its options: log and tables are made, listed, or only shown."""

from collections.abc import Callable
from dataclasses import dataclass

from deploy import broker_file, migrate, migrations
from deploy.config import MigrateConfig
from deploy.migrations import RefusedMigrationError
from schemas import urls

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Job:
    """One call of the command.

    Attributes:
        config: where broker and store are.
        partitions: of the log.
        replication: of the log; the embedded broker has one copy, whatever it says.
        wait_seconds: for the store to answer.
    """

    config: MigrateConfig
    partitions: int
    replication: int
    wait_seconds: float

    def run(self, say: Say) -> None:
        """Make or update the log and the tables.

        Raises:
            RefusedMigrationError: one of them does not fit.
            StoreAwayError: the store does not answer.
        """
        self._make_log(say)
        done = migrate.run(
            self._clickhouse,
            partitions=self.partitions,
            flush_seconds=self.config.flush_seconds,
            wait_seconds=self.wait_seconds,
            say=say,
        )
        say(f"the tables are up to date ({len(done)} applied)")

    def status(self, say: Say) -> None:
        """List each migration and how it stands; changes nothing."""
        for number, name, state in migrations.states(migrations.files(), self._applied(say)):
            say(f"{number:04} {name}: {state}")

    def dry_run(self, say: Say) -> None:
        """Print the SQL that `run` would send; changes nothing."""
        todo = migrations.pending(migrations.files(), self._applied(lambda _: None))
        statements = migrate.preview(
            self._clickhouse, todo, partitions=self.partitions, flush_seconds=self.config.flush_seconds
        )
        for statement in statements:
            say(f"{statement};\n")
        if not statements:
            say("-- nothing to do")

    @property
    def _clickhouse(self) -> urls.ClickHouse:
        return urls.parse_clickhouse(self.config.clickhouse_url.get_secret_value())

    def _applied(self, say: Say) -> dict[int, tuple[str, str]]:
        client = migrate.connect(self._clickhouse, wait_seconds=self.wait_seconds, say=say)
        try:
            return migrate.applied(client, self._clickhouse.database)
        finally:
            client.close()

    def _make_log(self, say: Say) -> None:
        url = self.config.broker_url.get_secret_value() if self.config.broker_url is not None else None
        broker = urls.parse_broker(url) if url else urls.SqliteBroker(self.config.data_dir.absolute() / "broker.db")
        if isinstance(broker, urls.KafkaBroker):
            say(f"the topic {broker.topic} is left alone: this version makes the embedded broker's log only")
            return
        if self.partitions != 1:
            raise RefusedMigrationError("the embedded broker has one partition: leave --partitions at 1")
        broker_file.make(broker.path)
        say(f"the broker's file is {broker.path}")
