"""The gateway on a real Kafka."""

import json
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr

from ingest_gateway.brokers import kafka as kafka_topics
from ingest_gateway.server import Running
from schemas import metric_names as names
from schemas.event import Headers, Kind, from_pairs, partition_of
from schemas.kafka_topic import SETTINGS
from tests.ingest_gateway.support import ask, gateway, window
from tests.support.environment import ROOT
from tests.support.kafka import PASSWORD, USER, Cluster, KafkaProcess
from tests.support.topics import add_partitions, alter, records_of
from tests.support.waiting import until

PARTITIONS = 3


@pytest.fixture
def looks_often(monkeypatch: pytest.MonkeyPatch) -> None:
    """The topic is looked at more often than once a minute."""
    often = partial(kafka_topics.Pauses, look_every=0.2, again_after=0.2)
    monkeypatch.setattr(kafka_topics, "Pauses", often)


@pytest.fixture
def secured(kafka: Cluster) -> KafkaProcess:
    if kafka.process is None:
        pytest.skip("this Kafka has no users and certificates that the tests know")
    return kafka.process


async def post(found: Running, connection: str) -> int:
    return (await ask(found.port, body=window(connectionId=connection))).status


async def readiness(found: Running) -> tuple[int, list[str]]:
    reply = await ask(found.port, "/readyz", method="GET")
    return reply.status, reply.json()["reasons"]


async def is_refused_for(found: Running, *texts: str) -> bool:
    status, reasons = await readiness(found)
    return status == 503 and all(text in " ".join(reasons) for text in texts)


async def test_what_is_answered_202_is_in_the_partition_of_its_key(kafka: Cluster, tmp_path: Path) -> None:
    topic = await kafka.make_topic(partitions=PARTITIONS)
    async with gateway(tmp_path, broker_url=kafka.url(topic)) as found:
        assert await readiness(found) == (200, [])
        assert [await post(found, f"connection {number % 10}") for number in range(30)] == [202] * 30
        page = (await ask(found.port, "/metrics", method="GET")).body.decode()
    assert f"{names.APPENDED.name} 30.0" in page
    records = await records_of(kafka.address, topic, PARTITIONS)
    assert len(records) == 30
    assert len({record.partition for record in records}) == PARTITIONS
    for record in records:
        headers = from_pairs(record.headers)
        assert isinstance(headers, Headers)
        assert headers.kind is Kind.METRICS
        assert json.loads(record.value)["connectionId"] == headers.connection
        assert record.partition == partition_of(record.key, PARTITIONS)
    assert not (tmp_path / "broker.db").exists()


@pytest.mark.usefixtures("looks_often")
@pytest.mark.parametrize(
    "settings",
    [
        {"max.message.bytes": "1048588"},
        {"message.timestamp.type": "CreateTime"},
        {"cleanup.policy": "compact"},
    ],
    ids=["small", "CreateTime", "compacted"],
)
async def test_an_unsafe_topic_is_refused_with_the_command_that_mends_it(
    kafka: Cluster, tmp_path: Path, settings: dict[str, str]
) -> None:
    ((name, value),) = settings.items()
    topic = await kafka.make_topic(**{name.replace(".", "_"): value})
    async with gateway(tmp_path, broker_url=kafka.url(topic), ready=False) as found:
        await until(lambda: is_refused_for(found, f"{name} is {value}", "flagmeter migrate --alter-topic"))
        reply = await ask(found.port)
        assert (reply.status, "retry-after" in reply.headers) == (503, True)
        await alter(kafka.address, topic, {name: SETTINGS[name]})
        await until(lambda: found.writer.trouble() is None)
        assert await post(found, "c") == 202
    assert len(await records_of(kafka.address, topic, 1)) == 1


@pytest.mark.usefixtures("looks_often")
async def test_a_topic_that_becomes_unsafe_is_refused_while_it_runs(kafka: Cluster, tmp_path: Path) -> None:
    topic = await kafka.make_topic()
    async with gateway(tmp_path, broker_url=kafka.url(topic)) as found:
        assert await post(found, "c") == 202
        await alter(kafka.address, topic, {"cleanup.policy": "compact"})
        await until(lambda: is_refused_for(found, "cleanup.policy"))
        assert await post(found, "c") == 503
    assert len(await records_of(kafka.address, topic, 1)) == 1


async def test_a_refusal_by_the_broker_is_in_doubt_and_the_producer_is_made_anew(
    kafka: Cluster, tmp_path: Path
) -> None:
    """The topic shrinks, and a post is refused before the topic is looked at again."""
    topic = await kafka.make_topic()
    async with gateway(tmp_path, broker_url=kafka.url(topic)) as found:
        assert await post(found, "c") == 202
        await alter(kafka.address, topic, {"max.message.bytes": "10000"})

        async def is_refused() -> bool:
            return (await ask(found.port, body=window() + b" " * 20_000)).status == 503

        await until(is_refused)
        await until(lambda: is_refused_for(found, "max.message.bytes is 10000"))
        page = (await ask(found.port, "/metrics", method="GET")).body.decode()
        assert f"{names.PRODUCERS_FAILED.name} 1.0" in page
        assert f'{names.APPEND_ERRORS.name}{{outcome="in_doubt"}} 1.0' in page
        await alter(kafka.address, topic, {"max.message.bytes": SETTINGS["max.message.bytes"]})
        await until(lambda: found.writer.trouble() is None)
        assert await post(found, "last") == 202
    sizes = [len(record.value) for record in await records_of(kafka.address, topic, 1)]
    assert sizes[0] < 1000
    assert sizes[-1] < 1000


@pytest.mark.usefixtures("looks_often")
async def test_a_missing_topic_is_awaited(kafka: Cluster, tmp_path: Path) -> None:
    name = "flagmeter.made-later"
    async with gateway(tmp_path, broker_url=kafka.url(name), ready=False) as found:
        await until(lambda: is_refused_for(found, f"there is no topic {name}", "flagmeter migrate"))
        assert await post(found, "c") == 503
        await kafka.make_topic(name=name)
        await until(lambda: found.writer.trouble() is None)
        assert await post(found, "c") == 202


@pytest.mark.usefixtures("looks_often")
async def test_added_partitions_are_used_without_a_restart(kafka: Cluster, tmp_path: Path) -> None:
    topic = await kafka.make_topic(partitions=1)
    async with gateway(tmp_path, broker_url=kafka.url(topic)) as found:
        assert await post(found, "c") == 202
        await add_partitions(kafka.address, topic, PARTITIONS)

        async def spreads() -> bool:
            await post(found, "c")
            for number in range(10):
                await post(found, f"connection {number}")
            records = await records_of(kafka.address, topic, PARTITIONS)
            return {record.partition for record in records} == set(range(PARTITIONS))

        await until(spreads)


async def test_it_logs_in_over_tls(kafka: Cluster, secured: KafkaProcess, tmp_path: Path) -> None:
    topic = await kafka.make_topic()
    settings = {
        "broker_url": f"kafka://127.0.0.1:{secured.sasl_ssl}/{topic}",
        "kafka_security_protocol": "SASL_SSL",
        "kafka_username": USER,
        "kafka_password": SecretStr(PASSWORD),
        "kafka_ca_file": secured.ca_file,
    }
    async with gateway(tmp_path, **settings) as found:
        assert await post(found, "c") == 202
    assert len(await records_of(kafka.address, topic, 1)) == 1


@pytest.mark.usefixtures("looks_often")
@pytest.mark.parametrize(
    ("listener", "settings", "named"),
    [
        (
            "sasl",
            {"kafka_security_protocol": "SASL_PLAINTEXT", "kafka_username": USER, "kafka_password": "wrong-pass-word"},
            "FLAGMETER_KAFKA_PASSWORD",
        ),
        ("ssl", {"kafka_security_protocol": "SSL"}, "FLAGMETER_KAFKA_CA_FILE"),
        ("sasl", {}, "PLAINTEXT"),
        ("plain", {"kafka_security_protocol": "SSL"}, "SSL"),
    ],
    ids=["password", "trust", "no login", "not TLS"],
)
async def test_who_is_not_let_in_is_unready_and_told_why(
    secured: KafkaProcess,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    listener: str,
    settings: dict[str, Any],
    named: str,
) -> None:
    url = f"kafka://127.0.0.1:{getattr(secured, listener)}/flagmeter.any"
    async with gateway(tmp_path, broker_url=url, ready=False, **settings) as found:
        await until(lambda: is_refused_for(found, "Kafka cannot be reached", named))
        assert await post(found, "c") == 503
        _, reasons = await readiness(found)
    told = " ".join(reasons) + "".join(capsys.readouterr())
    assert "wrong-pass-word" not in told


def test_kafkas_client_is_loaded_only_where_it_is_used() -> None:
    code = "import sys, ingest_gateway.__main__, ingest_gateway.server; sys.exit('aiokafka' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0
