"""`flagmeter migrate` with Kafka: what the command prints, and how it ends."""

import asyncio
import os
import re
import uuid

import pytest
from click.testing import CliRunner, Result

from deploy import broker_topic, cli
from deploy.broker_topic import Place
from deploy.config import MigrateConfig
from schemas.tables import EVALUATIONS
from schemas.urls import KafkaBroker
from tests.support.kafka import PASSWORD, USER, Cluster
from tests.support.ports import free_port
from tests.support.store import StoreProcess


@pytest.fixture(autouse=True)
def _own_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("FLAGMETER_")]:
        monkeypatch.delenv(name)


def migrate(url: str, store: StoreProcess, *options: str, **environment: str) -> Result:
    settings = {"FLAGMETER_BROKER_URL": url, "FLAGMETER_CLICKHOUSE_URL": store.url, **environment}
    return CliRunner().invoke(cli.main, ["migrate", *options], env=settings)


def window(store: StoreProcess) -> int:
    """Ask how many tokens the table remembers."""
    engine = store.service(f"SELECT engine_full FROM system.tables WHERE name = '{EVALUATIONS}'").text
    return int(re.findall(r"non_replicated_deduplication_window = (\d+)", engine)[0])


def test_status_dry_run_and_the_real_run_say_the_same_of_topic_and_tables(
    kafka: Cluster, own_store: StoreProcess
) -> None:
    own_store.start()
    topic = f"flagmeter.{uuid.uuid4().hex}"
    url = kafka.url(topic)

    status = migrate(url, own_store, "--status")
    assert (status.exit_code, status.output.splitlines()[:2]) == (
        0,
        [f"the topic {topic}: not made yet", "0001 evaluations_hourly: pending"],
    )

    dry = migrate(url, own_store, "--dry-run", "--partitions", "8")
    assert dry.exit_code == 0
    assert dry.output.startswith(
        f"-- the topic {topic}: would be made; 8 partitions, 1 copy; max.message.bytes=4194304 "
    )
    assert "non_replicated_deduplication_window = 115200" in dry.output, "four hours of eight partitions"
    assert all(line.startswith("-- ") for line in dry.output.split("CREATE", 1)[0].splitlines())
    assert migrate(url, own_store, "--status").output == status.output, "nothing was changed"

    made = migrate(url, own_store, "--partitions", "8", "--replication", "1")
    assert made.exit_code == 0, made.output
    assert made.output.startswith(f"the topic {topic} is made: 8 partitions, 1 copy\n")
    assert "applied 0001 evaluations_hourly" in made.output
    assert window(own_store) == 115_200

    again = migrate(url, own_store)
    assert (again.exit_code, again.output) == (
        0,
        f"the topic {topic} fits: 8 partitions, 1 copy\nthe tables are up to date (0 applied)\n",
    )
    status = migrate(url, own_store, "--status")
    assert f"the topic {topic}: fits; 8 partitions, 1 copy, id " in status.output
    assert "0001 evaluations_hourly: applied" in status.output

    refused = migrate(url, own_store, "--partitions", "12")
    assert refused.exit_code == 1
    assert "`flagmeter migrate --alter-topic --partitions 12` adds the others" in refused.output
    grown = migrate(url, own_store, "--partitions", "12", "--alter-topic")
    assert grown.exit_code == 0, grown.output
    assert f"{topic}: partitions 8 -> 12" in grown.output
    assert window(own_store) == 172_800, "the tables follow the topic"


def test_an_unsafe_topic_ends_the_run_before_the_tables_are_touched(kafka: Cluster, own_store: StoreProcess) -> None:
    own_store.start()
    topic = asyncio.run(kafka.make_topic(max_message_bytes="1048588", message_timestamp_type="CreateTime"))
    url = kafka.url(topic)
    refused = migrate(url, own_store)
    assert refused.exit_code == 1
    assert f"the topic {topic} is unsafe: " in refused.output
    for fault in ("max.message.bytes is 1048588, must be 4194304", "message.timestamp.type is CreateTime"):
        assert fault in refused.output
    assert "`flagmeter migrate --alter-topic` sets it" in refused.output
    status = migrate(url, own_store, "--status")
    assert status.exit_code == 0
    assert "unsafe: max.message.bytes is 1048588" in status.output
    assert "0001 evaluations_hourly: pending" in status.output
    dry = migrate(url, own_store, "--dry-run", "--alter-topic")
    assert f"-- {topic}: max.message.bytes 1048588 -> 4194304\n" in dry.output

    mended = migrate(url, own_store, "--alter-topic")
    assert mended.exit_code == 0, mended.output
    assert f"{topic}: message.timestamp.type CreateTime -> LogAppendTime\n" in mended.output
    assert f"the topic {topic} fits: 1 partition, 1 copy\n" in mended.output
    assert "the tables are up to date" in mended.output
    found = broker_topic.look(Place(KafkaBroker((kafka.address,), topic), MigrateConfig()))
    assert found is not None
    assert broker_topic.described(found, topic)[0].startswith(f"the topic {topic}: fits; ")


def test_a_broker_that_is_away_and_wrong_credentials_are_one_sentence_each(kafka: Cluster, store: StoreProcess) -> None:
    away = migrate(f"kafka://127.0.0.1:{free_port()}/t", store, "--wait", "0")
    assert away.exit_code == 1
    assert away.output.startswith("flagmeter: Kafka cannot be reached: 127.0.0.1:")
    assert len(away.output.splitlines()) == 1
    if kafka.process is None:
        return
    wrong = migrate(
        f"kafka://127.0.0.1:{kafka.process.sasl}/t",
        store,
        FLAGMETER_KAFKA_SECURITY_PROTOCOL="SASL_PLAINTEXT",
        FLAGMETER_KAFKA_USERNAME=USER,
        FLAGMETER_KAFKA_PASSWORD=f"{PASSWORD}-not",
    )
    assert wrong.exit_code == 1
    assert "refuses the user 'flagmeter'" in wrong.output
    assert PASSWORD not in wrong.output
    assert len(wrong.output.splitlines()) == 1


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"FLAGMETER_KAFKA_SECURITY_PROTOCOL": "SASL_SSL"}, "needs FLAGMETER_KAFKA_USERNAME"),
        ({"FLAGMETER_KAFKA_SECURITY_PROTOCOL": "SSL", "FLAGMETER_KAFKA_CA_FILE": "/nowhere"}, "CA_FILE cannot be read"),
        (
            {"FLAGMETER_BROKER_URL": "kafka://b:9092/a topic"},
            "FLAGMETER_BROKER_URL: a kafka URL names brokers and a topic",
        ),
    ],
)
def test_wrong_settings_end_with_status_2(settings: dict[str, str], said: str) -> None:
    ended = CliRunner().invoke(cli.main, ["migrate"], env={"FLAGMETER_BROKER_URL": "kafka://b:9092/t"} | settings)
    assert ended.exit_code == 2
    assert said in ended.output


def test_the_embedded_broker_has_no_topic_to_change(store: StoreProcess, tmp_path: object) -> None:
    refused = migrate(f"sqlite:///{tmp_path}/broker.db", store, "--alter-topic")
    assert refused.exit_code == 1
    assert "no topic to change" in refused.output
