"""Kafka's topic, as `flagmeter migrate` makes, checks and changes it; on a real broker."""

import asyncio
import threading
import uuid
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from aiokafka.errors import NodeNotReadyError
from pydantic import SecretStr

from deploy import broker_topic
from deploy.broker_topic import Place, Wish
from deploy.config import MigrateConfig
from deploy.migrations import BrokerAwayError, RefusedMigrationError
from schemas import kafka_admin
from schemas.kafka_topic import MEND, SETTINGS, Topic, refuse_unsafe
from schemas.urls import KafkaBroker
from tests.support.kafka import PASSWORD, USER, Cluster, KafkaProcess
from tests.support.ports import free_port

FITTING = Topic("t", str(uuid.UUID(int=1)), 6, 3, broker_topic.settings_of_new(3))


def fresh() -> str:
    return f"flagmeter.{uuid.uuid4().hex}"


def place(kafka: Cluster, topic: str, said: list[str] | None = None) -> Place:
    return Place(
        KafkaBroker((kafka.address,), topic),
        MigrateConfig(),
        wait_seconds=20,
        say=(said if said is not None else []).append,
    )


def setting(kafka: Cluster, topic: str, name: str) -> str:
    async def ask() -> str:
        client = AIOKafkaAdminClient(bootstrap_servers=kafka.address)
        await client.start()
        try:
            (answer,) = await client.describe_configs(
                [ConfigResource(ConfigResourceType.TOPIC, topic, configs={name: ""})]
            )
            return str(answer.resources[0][4][0][1])
        finally:
            await client.close()

    return asyncio.run(ask())


def make(kafka: Cluster, **settings: str) -> str:
    return asyncio.run(kafka.make_topic(partitions=2, **settings))


# What is to be done: pure ---------------------------------------------------------------------------------------------


def test_a_topic_that_fits_is_left_alone() -> None:
    todo = broker_topic.plan(FITTING, "t", Wish())
    assert todo.is_done
    assert (todo.partitions, todo.advice) == (6, ())
    assert broker_topic.planned(FITTING, "t", todo) == ["the topic t: nothing to do"]


def test_a_new_topic_gets_six_partitions_and_all_settings_whatever_the_clusters_defaults_are() -> None:
    todo = broker_topic.plan(None, "t", Wish())
    assert (todo.partitions, todo.make, todo.is_done) == (6, 1, False)
    assert todo.settings == {
        **SETTINGS,
        "retention.bytes": "-1",
        "unclean.leader.election.enable": "false",
        "min.insync.replicas": "1",
    }
    assert refuse_unsafe(replace(FITTING, replication=1, settings=todo.settings)) == []


@pytest.mark.parametrize(("copies", "in_sync", "advised"), [(1, "1", True), (2, "2", True), (3, "2", False)])
def test_a_post_is_acknowledged_by_two_where_there_are_two(copies: int, in_sync: str, advised: bool) -> None:
    todo = broker_topic.plan(None, "t", Wish(replication=copies))
    assert (todo.make, todo.settings["min.insync.replicas"]) == (copies, in_sync)
    assert any("--replication 3" in sentence for sentence in todo.advice) is advised


def test_every_fault_is_named_at_once_with_the_command_that_mends_it() -> None:
    wrong = {
        "max.message.bytes": "1048588",
        "message.timestamp.type": "CreateTime",
        "cleanup.policy": "compact,delete",
        "retention.ms": str(40 * 86_400_000),
        "unclean.leader.election.enable": "true",
        "min.insync.replicas": "4",
    }
    topic = replace(FITTING, settings={**FITTING.settings, **wrong})
    with pytest.raises(RefusedMigrationError) as raised:
        broker_topic.plan(topic, "t", Wish(partitions=4))
    text = str(raised.value)
    for name, value in wrong.items():
        assert f"{name} is {value}, must be {FITTING.settings[name]}: " in text
    assert f"`{MEND}` sets it" in text
    assert "has 6 partitions, and Kafka takes none away" in text
    assert broker_topic.plan(topic, "t", Wish(alter=True)).settings == {name: FITTING.settings[name] for name in wrong}


def test_what_is_only_worse_is_advice() -> None:
    topic = replace(FITTING, settings={**FITTING.settings, "min.insync.replicas": "1", "retention.bytes": "1000000"})
    todo = broker_topic.plan(topic, "t", Wish(replication=2, alter=True))
    assert todo.is_done
    assert [sentence.partition(":")[0] for sentence in todo.advice] == ["advice"] * 3
    text = "\n".join(todo.advice)
    assert "min.insync.replicas is 1, better 2" in text
    assert "retention.bytes is 1000000, better -1" in text
    assert "the topic has 3 copies, not 2" in text


def test_a_retention_below_a_day_is_advised_against() -> None:
    topic = replace(FITTING, settings={**FITTING.settings, "retention.ms": "3600000"})
    (advice,) = broker_topic.plan(topic, "t", Wish()).advice
    assert "retention.ms is 3600000, better 604800000: posts that wait longer" in advice


def test_partitions_are_added_only_where_it_is_asked_for_twice() -> None:
    with pytest.raises(
        RefusedMigrationError, match=r"`flagmeter migrate --alter-topic --partitions 12` adds"
    ) as raised:
        broker_topic.plan(FITTING, "t", Wish(partitions=12))
    assert "15 minutes" in str(raised.value)
    todo = broker_topic.plan(FITTING, "t", Wish(partitions=12, alter=True))
    assert (todo.grow, todo.partitions, todo.settings) == (True, 12, {})
    assert broker_topic.planned(FITTING, "t", todo) == ["t: partitions 6 -> 12"]


# On a broker ----------------------------------------------------------------------------------------------------------


def test_a_topic_is_made_checked_and_left_alone_by_the_next_run(kafka: Cluster) -> None:
    name, said = fresh(), []
    there = place(kafka, name, said)
    assert broker_topic.look(there) is None
    assert broker_topic.bring(there, Wish(partitions=3)) == 3
    assert said[0] == f"the topic {name} is made: 3 partitions, 1 copy"
    made = broker_topic.look(there)
    assert made is not None
    assert (made.partitions, made.replication) == (3, 1)
    assert made.settings == broker_topic.settings_of_new(1)
    assert broker_topic.bring(there, Wish()) == 3
    assert said[-1] == f"the topic {name} fits: 3 partitions, 1 copy"
    assert broker_topic.look(there) == made


def test_a_new_topic_has_six_partitions_where_nothing_is_said(kafka: Cluster) -> None:
    assert broker_topic.bring(place(kafka, fresh()), Wish()) == 6


def test_two_at_once_make_one_topic(kafka: Cluster) -> None:
    name = fresh()
    together = threading.Barrier(3)
    done: list[int | BaseException] = []

    def run() -> None:
        together.wait(10)
        try:
            done.append(broker_topic.bring(place(kafka, name), Wish(partitions=2)))
        except BaseException as error:  # noqa: BLE001 - a thread; looked at below
            done.append(error)

    threads = [threading.Thread(target=run) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert done == [2, 2, 2]


def test_one_that_was_made_meanwhile_is_checked_like_any_other(kafka: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    name = make(kafka, message_timestamp_type="CreateTime")
    real, looks = kafka_admin.look, []

    async def too_early(client: AIOKafkaAdminClient, topic: str) -> Topic:
        looks.append(topic)
        if len(looks) == 1:
            raise kafka_admin.MissingTopicError("not yet")
        return await real(client, topic)

    monkeypatch.setattr(kafka_admin, "look", too_early)
    with pytest.raises(RefusedMigrationError, match=r"message\.timestamp\.type is CreateTime"):
        broker_topic.bring(place(kafka, name), Wish(partitions=2))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("max.message.bytes", "1048588"),
        ("message.timestamp.type", "CreateTime"),
        ("cleanup.policy", "compact"),
        ("retention.ms", "-1"),
        ("retention.ms", str(35 * 86_400_000)),
        ("min.insync.replicas", "2"),
    ],
)
def test_an_unsafe_topic_is_refused_and_mended_by_the_command_that_is_named(
    kafka: Cluster, name: str, value: str
) -> None:
    topic, said = make(kafka, **{name.replace(".", "_"): value, "segment_bytes": "12345678"}), []
    there = place(kafka, topic, said)
    with pytest.raises(RefusedMigrationError, match=f"{name} is {value}, must be .*`flagmeter migrate --alter-topic`"):
        broker_topic.bring(there, Wish())
    assert setting(kafka, topic, name) == value
    wanted = broker_topic.settings_of_new(1)[name]
    assert broker_topic.bring(there, Wish(alter=True)) == 2
    assert said[:2] == [f"{topic}: {name} {value} -> {wanted}", f"the topic {topic} fits: 2 partitions, 1 copy"]
    assert setting(kafka, topic, name) == wanted
    assert setting(kafka, topic, "segment.bytes") == "12345678", "a setting that is not ours stays"


def test_partitions_are_added_and_never_taken_away(kafka: Cluster) -> None:
    topic, said = make(kafka), []
    there = place(kafka, topic, said)
    with pytest.raises(
        RefusedMigrationError, match="has 2 partitions: `flagmeter migrate --alter-topic --partitions 5`"
    ):
        broker_topic.bring(there, Wish(partitions=5))
    assert broker_topic.bring(there, Wish(partitions=5, alter=True)) == 5
    assert said[0].startswith(f"{topic}: partitions 2 -> 5; posts that SDKs repeat in the 15 minutes")
    with pytest.raises(RefusedMigrationError, match="has 5 partitions, and Kafka takes none away: give --partitions 5"):
        broker_topic.bring(there, Wish(partitions=4, alter=True))
    assert broker_topic.bring(there, Wish(partitions=5)) == 5


def test_partitions_that_another_run_added_meanwhile_are_no_fault(
    kafka: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    topic = make(kafka)
    real, looks = kafka_admin.look, []

    async def outdated(client: AIOKafkaAdminClient, name: str) -> Topic:
        looks.append(name)
        found = await real(client, name)
        return replace(found, partitions=1) if len(looks) == 1 else found

    monkeypatch.setattr(kafka_admin, "look", outdated)
    assert broker_topic.bring(place(kafka, topic), Wish(partitions=2, alter=True)) == 2


def test_what_other_brokers_do_not_know_yet_is_waited_for(kafka: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each question goes to any broker, and one may lag behind."""
    real, looks = kafka_admin.look, []

    async def lagging(client: AIOKafkaAdminClient, name: str) -> Topic:
        looks.append(name)
        if len(looks) == 2:
            raise kafka_admin.MissingTopicError("not here yet")
        found = await real(client, name)
        return replace(found, partitions=1) if len(looks) == 3 else found

    monkeypatch.setattr(kafka_admin, "look", lagging)
    assert broker_topic.bring(place(kafka, make(kafka)), Wish(partitions=3, alter=True)) == 3
    assert len(looks) == 4


def test_what_never_shows_is_said(kafka: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    topic = make(kafka, message_timestamp_type="CreateTime")
    real, looks = kafka_admin.look, []

    async def outdated(client: AIOKafkaAdminClient, name: str) -> Topic:
        looks.append(looks[0] if looks else await real(client, name))
        return looks[0]

    monkeypatch.setattr(kafka_admin, "look", outdated)
    monkeypatch.setattr(broker_topic, "_SETTLED_SECONDS", 0.0)
    with pytest.raises(BrokerAwayError, match="was not ready within 0 s: a change does not appear"):
        broker_topic.bring(replace(place(kafka, topic), wait_seconds=0), Wish(alter=True))


def test_trouble_that_passes_is_no_refusal() -> None:
    with pytest.raises(kafka_admin.KafkaAwayError, match="Kafka cannot make the topic t now: timed out"):
        broker_topic._refuse(7, "timed out", "make the topic t", "Create")
    with pytest.raises(RefusedMigrationError, match="Kafka refuses to make the topic t: PolicyViolation"):
        broker_topic._refuse(44, None, "make the topic t", "Create")
    broker_topic._refuse(0, "", "make the topic t", "Create")


def test_more_copies_than_brokers_are_refused_in_kafkas_own_words(kafka: Cluster) -> None:
    name = fresh()
    with pytest.raises(RefusedMigrationError, match=f"refuses to make the topic {name}: .*replication factor of 9"):
        broker_topic.bring(place(kafka, name), Wish(replication=9))


def test_what_a_topic_is_like_is_described_with_its_faults(kafka: Cluster) -> None:
    missing = fresh()
    assert broker_topic.described(None, missing) == [f"the topic {missing}: not made yet"]
    topic = make(kafka, cleanup_policy="compact", retention_bytes="1000000")
    found = broker_topic.look(place(kafka, topic))
    assert found is not None
    first, *faults = broker_topic.described(found, topic)
    assert first == f"the topic {topic}: unsafe; 2 partitions, 1 copy, id {found.id}"
    assert faults[0].startswith("unsafe: cleanup.policy is compact, must be delete: ")
    assert faults[1].startswith("advice: retention.bytes is 1000000, better -1: ")


# Broker away, and strangers -------------------------------------------------------------------------------------------


@pytest.fixture
def secured(kafka: Cluster) -> KafkaProcess:
    """The shared broker, with its listeners for TLS and users."""
    if kafka.process is None:
        pytest.skip("FLAGMETER_TEST_KAFKA has no users and certificates that the tests know")
    return kafka.process


def as_user(port: int, protocol: str, **settings: object) -> Place:
    config = MigrateConfig.model_validate(
        {"kafka_security_protocol": protocol, "kafka_username": USER, "kafka_password": SecretStr(PASSWORD)} | settings
    )
    return Place(KafkaBroker((f"127.0.0.1:{port}",), fresh()), config, pause=lambda _: pytest.fail("waited"))


def test_users_and_tls_let_in_who_is_known(secured: KafkaProcess) -> None:
    assert broker_topic.look(as_user(secured.sasl, "SASL_PLAINTEXT")) is None
    assert broker_topic.look(as_user(secured.sasl_ssl, "SASL_SSL", kafka_ca_file=secured.ca_file)) is None
    assert broker_topic.bring(as_user(secured.ssl, "SSL", kafka_ca_file=secured.ca_file), Wish(partitions=1)) == 1


def test_a_wrong_password_is_said_at_once_with_the_settings_and_is_not_shown(secured: KafkaProcess) -> None:
    with pytest.raises(RefusedMigrationError, match=r"refuses the user .*FLAGMETER_KAFKA_PASSWORD") as raised:
        broker_topic.look(as_user(secured.sasl, "SASL_PLAINTEXT", kafka_password=SecretStr("not-the-secret")))
    assert "not-the-secret" not in str(raised.value)


def test_a_mechanism_that_the_broker_does_not_offer_is_said(secured: KafkaProcess) -> None:
    with pytest.raises(RefusedMigrationError, match="does not support the requested SASL mechanism"):
        broker_topic.look(as_user(secured.sasl, "SASL_PLAINTEXT", kafka_sasl_mechanism="PLAIN"))


def test_a_certificate_that_is_not_trusted_is_said_with_the_setting(secured: KafkaProcess) -> None:
    with pytest.raises(RefusedMigrationError, match=r"is not trusted \(.*\): see FLAGMETER_KAFKA_CA_FILE"):
        broker_topic.look(as_user(secured.ssl, "SSL"))


@pytest.mark.parametrize(("port", "protocol"), [("sasl", "PLAINTEXT"), ("ssl", "PLAINTEXT"), ("plain", "SSL")])
def test_the_wrong_protocol_is_named(secured: KafkaProcess, port: str, protocol: str) -> None:
    there = replace(
        as_user(getattr(secured, port), protocol, kafka_ca_file=secured.ca_file), wait_seconds=0, pause=lambda _: None
    )
    with pytest.raises(BrokerAwayError, match=f"(hangs up on|does not answer as a Kafka broker with) {protocol}"):
        broker_topic.look(there)


def test_a_broker_that_is_away_is_waited_for_and_named() -> None:
    port, waits, said = free_port(), [], []
    there = Place(
        KafkaBroker((f"127.0.0.1:{port}",), "t"), MigrateConfig(), wait_seconds=0.2, say=said.append, pause=waits.append
    )
    with pytest.raises(BrokerAwayError, match=rf"Kafka cannot be reached: 127\.0\.0\.1:{port}: .* \(waited 0\.2 s\)"):
        broker_topic.look(there)
    assert waits


def test_whoever_waits_may_give_up() -> None:
    def give_up(_: float) -> None:
        raise KeyboardInterrupt

    there = Place(KafkaBroker((f"127.0.0.1:{free_port()}",), "t"), MigrateConfig(), pause=give_up)
    with pytest.raises(KeyboardInterrupt):
        broker_topic.look(there)


def test_a_broker_that_leaves_in_the_middle_is_asked_again(kafka: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    real, calls = AIOKafkaAdminClient.create_topics, []

    async def create(*given: object, **named: object) -> object:
        calls.append(given)
        if len(calls) == 1:
            raise NodeNotReadyError
        return await real(*given, **named)

    monkeypatch.setattr(AIOKafkaAdminClient, "create_topics", create)
    assert broker_topic.bring(place(kafka, fresh()), Wish(partitions=1)) == 1
    assert len(calls) == 2


def test_a_cluster_without_a_controller_is_waited_for(kafka: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    from aiokafka.cluster import ClusterMetadata

    seen: Iterator[bool] = iter([True])
    real = ClusterMetadata.update_metadata

    def update(cluster: ClusterMetadata, metadata: object) -> None:
        real(cluster, metadata)
        if next(seen, False):
            cluster.controller = None

    monkeypatch.setattr(ClusterMetadata, "update_metadata", update)
    reasons: list[str] = []
    there = replace(place(kafka, fresh(), reasons), pause=lambda seconds: reasons.append(f"waited {seconds}"))
    assert broker_topic.bring(there, Wish(partitions=1)) == 1
    assert reasons[0] == "waited 0.5"


def test_a_key_needs_its_certificate(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="FLAGMETER_KAFKA_CERT_FILE and FLAGMETER_KAFKA_KEY_FILE belong together"):
        MigrateConfig(kafka_key_file=tmp_path / "key.pem")
