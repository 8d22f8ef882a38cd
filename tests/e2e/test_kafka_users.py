"""The whole stack on a Kafka with users and TLS; and what the services say whom it does not let in (acceptance 5)."""

import json
import subprocess
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support import client
from tests.support.environment import ROOT, variables
from tests.support.kafka import PASSWORD, USER, Cluster, KafkaProcess
from tests.support.ports import free_port
from tests.support.stack import Stack
from tests.support.store import StoreProcess
from tests.support.waiting import wait_for

TOKEN = {"token": "default:e.0123456789abcdef", "type": "backend", "projects": ["default"], "environment": "e"}
WINDOW = {"start": "2026-11-22T10:00:00Z", "stop": "2026-11-22T11:00:00Z"}


@pytest.fixture
def secured(kafka: Cluster) -> KafkaProcess:
    if kafka.process is None:
        pytest.skip("FLAGMETER_TEST_KAFKA has no users and certificates that the tests know")
    return kafka.process


def settings(secured: KafkaProcess, **changes: object) -> dict[str, object]:
    return {
        "broker_url": f"kafka://127.0.0.1:{secured.sasl_ssl}/flagmeter.{uuid.uuid4().hex}",
        "kafka_security_protocol": "SASL_SSL",
        "kafka_username": USER,
        "kafka_password": PASSWORD,
        "kafka_ca_file": secured.ca_file,
    } | changes


@pytest.fixture
def stack(secured: KafkaProcess, tmp_path: Path) -> Iterator[Stack]:
    made = Stack(
        tmp_path / "data", **{f"FLAGMETER_{name.upper()}": str(value) for name, value in settings(secured).items()}
    )
    try:
        yield made.start()
    finally:
        made.kill()


def test_posts_are_counted_over_sasl_and_tls(stack: Stack) -> None:
    for number in range(1, 6):
        toggles = {"flag": {"yes": number, "no": 0}}
        answer = stack.post("/api/client/metrics", {"appName": f"a{number}", "bucket": {**WINDOW, "toggles": toggles}})
        assert answer.status == 202, answer.text
    wait_for(lambda: stack.number("SELECT sum(yes) FROM evaluations") == 15, what="the count of all")
    assert stack.stop() == 0
    assert PASSWORD not in stack.logged()


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"kafka_password": "not-the-secret"}, "refuses the user 'flagmeter'"),
        ({"kafka_ca_file": ""}, "see FLAGMETER_KAFKA_CA_FILE"),
    ],
    ids=["password", "authority"],
)
def test_services_that_are_not_let_in_are_unready_and_name_the_setting(
    secured: KafkaProcess, store: StoreProcess, tmp_path: Path, changes: dict[str, object], said: str
) -> None:
    (tmp_path / "tokens.json").write_text(json.dumps({"tokens": [TOKEN]}))
    ports = {"ingest_gateway": ("gateway_port", free_port()), "aggregator": ("aggregator_port", free_port())}
    told = settings(secured, **changes, data_dir=tmp_path, clickhouse_url=store.url)
    running = []
    try:
        with (tmp_path / "log").open("wb") as log:
            for package, (name, port) in ports.items():
                environment = variables(**told, **{name: port})
                command = [sys.executable, "-m", package]
                running.append(subprocess.Popen(command, env=environment, stdout=log, stderr=log, cwd=ROOT))
        for _, port in ports.values():
            wait_for(
                lambda port=port: said in unready(f"http://127.0.0.1:{port}/readyz"),
                seconds=60,
                what=f"{said} on port {port}; the log: {(tmp_path / 'log').read_text()[-2000:]}",
            )
    finally:
        for process in running:
            process.terminate()
        for process in running:
            process.wait(30)
    assert "not-the-secret" not in (tmp_path / "log").read_text()


def unready(url: str) -> str:
    """Give what `/readyz` says while it is not ready; empty while nobody listens."""
    try:
        answer = client.request("GET", url)
    except OSError:
        return ""
    assert answer.status == 503
    return answer.text
