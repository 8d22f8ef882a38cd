"""The order in which the stack starts and ends, with tiny services; the real ones are in tests/e2e."""

import asyncio
import os
import signal
import subprocess
import sys
import uuid
from collections.abc import Iterator

import psutil
import pytest

from deploy.up import READY
from tests.support.environment import variables
from tests.support.ports import free_port
from tests.support.waiting import wait_for


class Up:
    def __init__(self, home, *behaviours: str) -> None:
        self.home = home
        self.diary = home.parent / "diary"
        self.diary.touch()
        self.ports = [free_port() for _ in range(4)]
        self.behaviours = behaviours
        self.log = home.parent / "log"
        self.settings: dict[str, object] = {}
        self.said: list[str] = []

    def start(self) -> "Up":
        command = [sys.executable, "-m", "tests.deploy.up_with_stand_ins", str(self.home), str(self.diary)]
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [*command, *map(str, self.ports), *self.behaviours],
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                env=variables(**self.settings),
                start_new_session=True,
            )
        return self

    def until_ready(self) -> "Up":
        for line in self.process.stdout:
            self.said.append(line.rstrip("\n"))
            if line.rstrip("\n") == READY:
                return self
        raise AssertionError((self.said, self.log.read_text()))

    def end(self, number: int = signal.SIGINT) -> int:
        self.process.send_signal(number)
        self.said += self.process.stdout.read().splitlines()
        return self.process.wait(30)

    def entries(self) -> list[tuple[str, str]]:
        return [(line.split()[0], line.split()[1]) for line in self.diary.read_text().splitlines()]

    def pids(self) -> list[int]:
        return [int(line.split()[2]) for line in self.diary.read_text().splitlines() if line.split()[1] == "started"]

    def kill(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait(10)
        self.process.stdout.close()


@pytest.fixture
def made(tmp_path) -> Iterator[object]:
    started: list[Up] = []

    def make(*behaviours: str) -> Up:
        started.append(Up(tmp_path / "data", *behaviours))
        return started[-1]

    yield make
    for each in started:
        each.kill()


def gone(pids: list[int]) -> bool:
    return not any(psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE for pid in pids)


def test_the_stack_starts_and_ends_in_its_order_and_says_tokens_once_and_logs_none(made):
    first = made().start().until_ready()
    started = first.entries()
    assert started[:2] == [("store", "started"), ("migrate", "done")]
    assert {name for name, _ in started[2:]} == {"gateway", "aggregator", "query-api"}
    assert first.end(signal.SIGINT) == 0
    assert [name for name, what in first.entries() if what == "ended"] == [
        "gateway",
        "aggregator",
        "query-api",
        "store",
    ]
    assert gone(first.pids())

    kinds = ("backend", "frontend", "admin")
    assert [line.split()[:2] for line in first.said[:3]] == [["token", kind] for kind in kinds]
    assert first.said[3] == f"store http://127.0.0.1:{first.ports[0]}"
    assert sorted(first.said[4:7]) == sorted(
        f"{name} http://127.0.0.1:{port}"
        for name, port in zip(("gateway", "aggregator", "query-api"), first.ports[1:], strict=True)
    )
    assert first.said[7:] == [READY]

    second = made().start().until_ready()
    assert second.end(signal.SIGTERM) == 0
    assert not [line for line in second.said if "token" in line]

    secrets = [line.split()[2].partition(".")[2] for line in first.said[:3]]
    secrets.append((first.home / "store.secret").read_text().strip())
    logged = first.log.read_text()
    assert "a service was started" in logged
    for secret in secrets:
        assert secret not in logged


def test_a_terminal_that_is_closed_ends_it_too(made):
    up = made().start().until_ready()
    assert up.end(signal.SIGHUP) == 0
    assert up.entries()[-1] == ("store", "ended")


def test_a_service_that_is_killed_comes_back(made):
    up = made().start().until_ready()
    (pid,) = [
        int(line.split()[2]) for line in up.diary.read_text().splitlines() if line.startswith("aggregator started")
    ]
    os.kill(pid, signal.SIGKILL)
    wait_for(lambda: up.entries().count(("aggregator", "started")) == 2, what="the aggregator's return")
    assert "SIGKILL" in up.log.read_text()
    assert up.end() == 0


def test_no_child_outlives_an_up_that_is_killed(made):
    up = made().start().until_ready()
    pids = up.pids()
    assert len(pids) == 4
    up.process.kill()
    wait_for(lambda: gone(pids), what="the end of all children")
    assert ("gateway", "ended") not in up.entries()


def test_a_second_ctrl_c_kills(made):
    up = made("gateway=stubborn", "--patient=").start().until_ready()
    up.process.send_signal(signal.SIGINT)
    wait_for(lambda: ("gateway", "asked") in up.entries(), what="the first Ctrl-C's effect")
    assert up.end(signal.SIGINT) == 130
    assert ("store", "ended") not in up.entries()
    assert gone(up.pids())


def test_a_second_sigterm_does_not(made):
    up = made("gateway=stubborn").start().until_ready()
    up.process.send_signal(signal.SIGTERM)
    wait_for(lambda: ("gateway", "asked") in up.entries(), what="the first signal's effect")
    assert up.end(signal.SIGTERM) == 0
    assert up.entries()[-1] == ("store", "ended")


def test_a_service_that_hangs_at_the_end_is_killed_and_the_others_end_well(made):
    up = made("aggregator=stubborn").start().until_ready()
    assert up.end() == 0
    ended = [name for name, what in up.entries() if what == "ended"]
    assert ended == ["gateway", "query-api", "store"]
    assert "did not end in time" in up.log.read_text()


def test_a_signal_while_it_starts_ends_what_was_started(made):
    up = made("store=unready").start()
    wait_for(lambda: ("store", "started") in up.entries(), what="the store's start")
    assert up.end() == 0
    assert up.entries() == [("store", "started"), ("store", "asked"), ("store", "ended")]
    assert READY not in up.said


def test_a_service_that_refuses_its_settings_ends_everything_with_status_1(made):
    up = made("query-api=wrong").start()
    said = up.process.stdout.read()
    assert up.process.wait(30) == 1
    assert "complains: query-api refused its settings" in said
    assert gone(up.pids())
    assert ("store", "ended") in up.entries()


def test_one_data_directory_has_one_up(made):
    first = made().start().until_ready()
    second = made().start()
    said = second.process.stdout.read()
    assert second.process.wait(30) == 1
    assert f"another flagmeter up (process {first.process.pid}) uses the data directory" in said
    assert first.end() == 0


def test_ports_in_use_are_named_before_anything_is_made(made, tmp_path):
    first = made().start().until_ready()
    second = made()
    second.home = tmp_path / "other"
    second.ports[1] = first.ports[1]
    second.start()
    said = second.process.stdout.read()
    assert second.process.wait(30) == 1
    assert f"port {first.ports[1]} (gateway) is in use" in said
    assert "--gateway-port" in said
    assert "token" not in said
    assert not (second.home / "tokens.json").exists()


def test_a_broken_tokens_file_is_named(made):
    up = made()
    up.home.mkdir()
    (up.home / "tokens.json").write_text("{")
    up.start()
    said = up.process.stdout.read()
    assert up.process.wait(30) == 1
    assert f"the tokens file {up.home / 'tokens.json'} cannot be used" in said


def test_a_broker_of_another_kind_is_named(made):
    up = made()
    up.home.mkdir()
    (up.home / "broker.db").write_bytes(b"this is no database, but long enough to be taken for one" * 20)
    up.start()
    said = up.process.stdout.read()
    assert up.process.wait(30) == 1
    assert "broker.db cannot be used" in said
    assert gone(up.pids())


def test_a_kafka_of_ones_own_gets_its_topic_before_the_services_start(made, kafka):
    topic = f"flagmeter.{uuid.uuid4().hex}"
    up = made()
    up.settings["broker_url"] = kafka.url(topic)
    up.start().until_ready()
    assert up.entries()[1] == ("migrate", "done")
    assert "migrate done 6\n" in up.diary.read_text(), "the tables are told of the topic's partitions"
    assert f"the topic {topic} is made: 6 partitions, 1 copy" in up.log.read_text()
    assert not (up.home / "broker.db").exists()
    assert up.end() == 0


def test_an_unsafe_topic_is_named_with_its_cure(made, kafka):
    topic = asyncio.run(kafka.make_topic(message_timestamp_type="CreateTime"))
    up = made()
    up.settings["broker_url"] = kafka.url(topic)
    up.start()
    said = up.process.stdout.read()
    assert up.process.wait(30) == 1
    assert f"complains: the topic {topic} is unsafe: message.timestamp.type is CreateTime" in said
    assert "`flagmeter migrate --alter-topic` sets it" in said
    assert gone(up.pids())


def test_a_signal_while_it_waits_for_kafka_ends_it(made):
    up = made()
    up.settings["broker_url"] = f"kafka://127.0.0.1:{free_port()}/t"
    up.start()
    wait_for(lambda: "waiting for Kafka" in up.log.read_text(), what="the wait for Kafka")
    assert up.end() == 0
    assert [entry for entry in up.entries() if entry[0] != "store"] == []
    assert up.entries()[-1] == ("store", "ended")
