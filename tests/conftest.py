"""Fixtures for all tests."""

import logging
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import structlog
from clickhouse_connect.driver import options

from deploy.logs import LEVEL_VARIABLE
from tests.support.kafka import IN_A_CONTAINER, Cluster, KafkaProcess
from tests.support.stack import Stack
from tests.support.store import StoreProcess


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--backend",
        choices=["embedded", "docker"],
        default="embedded",
        help="where the contract tests' ClickHouse and all tests' Kafka come from: the chdb wheel and a process, or "
        "containers (needs Docker)",
    )


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """The whole embedded stack, running; one for each module of tests."""
    running = Stack(tmp_path_factory.mktemp("stack") / "data").start()
    try:
        yield running
    finally:
        running.kill()


@pytest.fixture
def own_stack(tmp_path: Path) -> Iterator[Stack]:
    """A stack that the test starts, stops and breaks itself."""
    made = Stack(tmp_path / "data")
    try:
        yield made
    finally:
        made.kill()


@pytest.fixture(scope="session")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[StoreProcess]:
    """The store that most tests share, with our tables: they keep apart by the names of tables, projects or topics.

    It runs as on a machine far from UTC, so that no test depends on the machine's time zone.
    """
    running = StoreProcess(tmp_path_factory.mktemp("store") / "data", store_max_buffered_result=str(32 << 20))
    running.environment["TZ"] = "America/New_York"
    try:
        running.start().migrate()
        yield running
        assert running.stop() == 0
    finally:
        running.kill()


@pytest.fixture(scope="session")
def _mortal_store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[StoreProcess]:
    made = StoreProcess(tmp_path_factory.mktemp("mortal") / "data")
    try:
        yield made
    finally:
        made.kill()


@pytest.fixture
def mortal_store(_mortal_store: StoreProcess) -> StoreProcess:
    """A running store that tests may stop, kill and start again; they share its data, and use tables of their own."""
    return _mortal_store if _mortal_store.is_running else _mortal_store.start()


@pytest.fixture
def own_store(tmp_path: Path) -> Iterator[StoreProcess]:
    """A store that the test alone starts, stops and breaks; not started yet, and without any data."""
    made = StoreProcess(tmp_path / "data")
    try:
        yield made
    finally:
        made.kill()


@pytest.fixture(scope="session")
def kafka(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """The Kafka that tests share: the one that `FLAGMETER_TEST_KAFKA=host:port` names, or one started for this run.

    With `--backend=docker` it runs in a container; it has no users and certificates then.
    """
    if address := os.environ.get("FLAGMETER_TEST_KAFKA"):
        yield Cluster(address)
        return
    if request.config.getoption("--backend") == "docker":
        from testcontainers.community.kafka import KafkaContainer

        container = KafkaContainer("confluentinc/cp-kafka:7.9.0").with_kraft().with_envs(**IN_A_CONTAINER)
        with container as running:
            yield Cluster(running.get_bootstrap_server())
        return
    process = KafkaProcess(tmp_path_factory.mktemp("kafka"))
    try:
        process.start()
        yield Cluster(process.address, process)
    finally:
        process.kill()


@pytest.fixture
def own_kafka(tmp_path: Path) -> Iterator[KafkaProcess]:
    """A broker that the test alone starts, stops and breaks; not started yet."""
    made = KafkaProcess(tmp_path / "kafka")
    try:
        yield made
    finally:
        made.kill()


@pytest.fixture(autouse=True)
def _data_frames_as_they_were() -> Iterator[None]:
    """Undo `without_data_frames`, which is for a whole process: the next test may be about the driver's data frames."""
    before = {name: getattr(options, name) for name in ("np", "pd", "arrow", "pl")}
    yield
    for name, value in before.items():
        setattr(options, name, value)


@pytest.fixture(autouse=True)
def _logging_as_it_was() -> Iterator[None]:
    """Undo `logs.configure`, which is for a whole process: a command in one test must not silence the next test."""
    root = logging.getLogger()
    handlers, level, wanted = root.handlers[:], root.level, os.environ.get(LEVEL_VARIABLE)
    yield
    if wanted is None:
        os.environ.pop(LEVEL_VARIABLE, None)
    else:
        os.environ[LEVEL_VARIABLE] = wanted
    structlog.reset_defaults()
    logging.captureWarnings(capture=False)
    root.handlers[:] = handlers
    root.setLevel(level)
