"""What `flagmeter migrate` does with its options: log and tables are made, listed, or only shown."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from deploy import broker_file, migrate, migrations
from deploy.config import MigrateConfig
from deploy.migrations import RefusedMigrationError
from schemas import urls

if TYPE_CHECKING:
    from deploy import broker_topic

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Job:
    """One call of the command.

    Attributes:
        config: where broker and store are.
        partitions: of the log; None leaves them as they are, or takes the broker's default for a new one.
        replication: of a new topic; None takes the default. The embedded broker has one copy, whatever it says.
        alter_topic: an existing topic may be changed.
        wait_seconds: for broker and store to answer.
    """

    config: MigrateConfig
    partitions: int | None = None
    replication: int | None = None
    alter_topic: bool = False
    wait_seconds: float = 30.0

    def run(self, say: Say) -> None:
        """Make or update the log and the tables.

        Raises:
            RefusedMigrationError: one of them does not fit.
            BrokerAwayError: Kafka does not answer.
            StoreAwayError: the store does not answer.
        """
        partitions = self._make_log(say)
        done = migrate.run(
            self._clickhouse,
            partitions=partitions,
            flush_seconds=self.config.flush_seconds,
            wait_seconds=self.wait_seconds,
            say=say,
        )
        say(f"the tables are up to date ({len(done)} applied)")

    def status(self, say: Say) -> None:
        """Say what the topic is like, and list each migration and how it stands; changes nothing."""
        self._show_topic(say)
        for number, name, state in migrations.states(migrations.files(), self._applied(say)):
            say(f"{number:04} {name}: {state}")

    def dry_run(self, say: Say) -> None:
        """Print what `run` would do to the topic, as SQL comments, and the SQL that it would send; changes nothing."""
        partitions = self._planned(lambda line: say(f"-- {line}"))
        todo = migrations.pending(migrations.files(), self._applied(lambda _: None))
        statements = migrate.preview(
            self._clickhouse, todo, partitions=partitions, flush_seconds=self.config.flush_seconds
        )
        for statement in statements:
            say(f"{statement};\n")
        if not statements:
            say("-- nothing to do")

    @property
    def _clickhouse(self) -> urls.ClickHouse:
        return self.config.clickhouse(self.config.clickhouse_url)

    @property
    def _broker(self) -> urls.SqliteBroker | urls.KafkaBroker:
        url = self.config.broker_url.get_secret_value() if self.config.broker_url is not None else None
        return urls.parse_broker(url) if url else urls.SqliteBroker(self.config.data_dir.absolute() / "broker.db")

    def _applied(self, say: Say) -> dict[int, tuple[str, str]]:
        client = migrate.connect(self._clickhouse, wait_seconds=self.wait_seconds, say=say)
        try:
            return migrate.applied(client, self._clickhouse.database)
        finally:
            client.close()

    def _make_log(self, say: Say) -> int:
        """Make or check the log; gives its number of partitions."""
        broker = self._broker
        if isinstance(broker, urls.KafkaBroker):
            from deploy import broker_topic  # noqa: PLC0415 - aiokafka is loaded where there is a Kafka

            return broker_topic.bring(self._place(broker, say), self._wish())
        self._refuse_for_embedded()
        broker_file.make(broker.path)
        say(f"the broker's file is {broker.path}")
        return 1

    def _planned(self, say: Say) -> int:
        """Say what would be done to the log; gives the number of partitions that it would have."""
        broker = self._broker
        if isinstance(broker, urls.KafkaBroker):
            from deploy import broker_topic  # noqa: PLC0415 - as above

            topic = broker_topic.look(self._place(broker, say))
            todo = broker_topic.plan(topic, broker.topic, self._wish())
            for line in broker_topic.planned(topic, broker.topic, todo):
                say(line)
            return todo.partitions
        self._refuse_for_embedded()
        return 1

    def _show_topic(self, say: Say) -> None:
        broker = self._broker
        if isinstance(broker, urls.KafkaBroker):
            from deploy import broker_topic  # noqa: PLC0415 - as above

            for line in broker_topic.described(broker_topic.look(self._place(broker, say)), broker.topic):
                say(line)

    def _place(self, broker: urls.KafkaBroker, say: Say) -> "broker_topic.Place":
        from deploy import broker_topic  # noqa: PLC0415 - as above

        return broker_topic.Place(broker, self.config, wait_seconds=self.wait_seconds, say=say)

    def _wish(self) -> "broker_topic.Wish":
        from deploy import broker_topic  # noqa: PLC0415 - as above

        return broker_topic.Wish(self.partitions, self.replication, alter=self.alter_topic)

    def _refuse_for_embedded(self) -> None:
        if self.partitions not in {None, 1}:
            raise RefusedMigrationError("the embedded broker has one partition: leave --partitions at 1")
        if self.alter_topic:
            raise RefusedMigrationError("the embedded broker has no topic to change: leave --alter-topic away")
