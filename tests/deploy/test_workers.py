"""The parent of several workers, with a tiny service in place of a real one."""

import json
import os
import signal
import socket
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from deploy import peers, workers
from tests.support.client import request
from tests.support.environment import ROOT, variables
from tests.support.ports import free_port
from tests.support.waiting import wait_for

SECONDS = 60


class Workers:
    """`python -m tests.deploy.worker_stand_in` with what it wrote."""

    def __init__(self, folder: Path, number: int, behaviour: str, port: int | None) -> None:
        self.diary = folder / "diary"
        self.log = folder / "log"
        self.diary.touch()
        self.port = free_port() if port is None else port
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "tests.deploy.worker_stand_in"],
                cwd=ROOT,
                env=variables(workers=number, gateway_port=self.port)
                | {"DIARY": str(self.diary), "BEHAVIOUR": behaviour},
                stderr=log,
                start_new_session=True,
            )

    def entries(self, what: str) -> list[tuple[str, int]]:
        """Who wrote that, and as which process."""
        words = [line.split() for line in self.diary.read_text().splitlines()]
        return [(who, int(pid)) for who, entry, pid in words if entry == what]

    def logged(self) -> list[dict]:
        return [json.loads(line) for line in self.log.read_text().splitlines() if line.endswith("}")]

    def events(self, event: str) -> list[dict]:
        return [line for line in self.logged() if line["event"] == event]

    def get(self, path: str = "/"):
        return request("GET", f"http://127.0.0.1:{self.port}{path}")

    def is_ready(self) -> bool:
        assert self.process.poll() is None, self.log.read_text()
        try:
            return self.get("/readyz").status == 200
        except OSError:
            return False

    def await_ready(self) -> "Workers":
        wait_for(self.is_ready, seconds=SECONDS, what="the readiness of all workers")
        return self

    def await_event(self, event: str, times: int = 1) -> None:
        wait_for(lambda: len(self.events(event)) >= times, seconds=SECONDS, what=f"the log's {event!r}")

    def counted(self) -> float:
        (line,) = [
            line
            for line in self.get("/metrics").text.splitlines()
            if line.startswith("flagmeter_gateway_appended_total ")
        ]
        return float(line.split()[1])

    def pids(self) -> set[int]:
        return {pid for _, pid in self.entries("started")}

    def end(self, number: int = signal.SIGTERM) -> int:
        self.process.send_signal(number)
        return self.process.wait(SECONDS)


def runs(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


@pytest.fixture
def start(tmp_path) -> Iterator:
    started: list[Workers] = []

    def begin(number: int = 3, behaviour: str = "", port: int | None = None) -> Workers:
        folder = tmp_path / str(len(started))
        folder.mkdir()
        made = Workers(folder, number, behaviour, port)
        started.append(made)
        return made

    yield begin
    for each in started:
        if each.process.poll() is None:
            each.process.kill()
            each.process.wait()


def test_one_worker_is_the_process_that_was_started(start):
    one = start(1).await_ready()
    assert one.entries("started") == [("parent", one.process.pid)]
    assert one.get().text == "0"
    assert one.end() == 0


def test_all_workers_answer_on_one_port_and_count_together(start):
    three = start(3).await_ready()
    assert [who for who, _ in sorted(three.entries("started"))] == ["1", "2", "3"]
    answered = Counter(three.get().text for _ in range(100))
    assert set(answered) == {"1", "2", "3"}
    assert {three.counted() for _ in range(10)} == {100.0}
    assert "flagmeter_gateway_in_flight_bytes 30.0" in three.get("/metrics").text


def test_sigterm_lets_all_end_by_themselves_and_leaves_nothing(start):
    three = start(3).await_ready()
    environment = psutil.Process(next(iter(three.pids()))).environ()
    folder = Path(environment[peers.FOLDER])
    assert folder.exists()
    assert three.end() == 0
    assert len(three.entries("asked")) == len(three.entries("ended")) == 3
    assert not any(runs(pid) for pid in three.pids())
    assert not folder.exists()


def test_ctrl_c_reaches_the_parent_alone_and_ends_all(start):
    two = start(2).await_ready()
    assert {os.getsid(pid) for pid in two.pids()} == two.pids()
    assert two.end(signal.SIGINT) == 0
    assert len(two.entries("ended")) == 2


def test_a_worker_that_is_killed_comes_back_under_its_number_and_no_count_falls(start):
    three = start(3).await_ready()
    for _ in range(60):
        three.get()
    number, pid = three.entries("started")[0]
    psutil.Process(pid).kill()
    three.await_event("a service died and is started again")
    assert three.counted() == 60
    wait_for(lambda: len(three.entries("started")) == 4, seconds=SECONDS, what="the worker's return")
    three.await_ready()
    assert three.entries("started")[3][0] == number
    assert three.counted() == 60
    for _ in range(40):
        three.get()
    assert three.counted() == 100
    (death,) = three.events("a service died and is started again")
    assert (death["child"], death["pid"], death["exit"]) == (f"worker {number}", pid, "SIGKILL")


def test_one_worker_in_trouble_is_named_whichever_answers(start):
    three = start(3).await_ready()
    (frozen,) = [pid for who, pid in three.entries("started") if who == "2"]
    psutil.Process(frozen).suspend()
    try:
        said: set[str] = set()

        def all_said() -> bool:
            try:
                # A new connection may be given to the frozen worker, and is not answered then.
                answer = request("GET", f"http://127.0.0.1:{three.port}/readyz", timeout=5)
            except OSError:
                return False
            said.add(answer.text)
            assert answer.status == 503
            return True

        wait_for(all_said, seconds=SECONDS, what="an answer")
        assert said == {"worker 2: does not answer"}
    finally:
        psutil.Process(frozen).resume()
    three.await_ready()


def test_all_workers_die_with_a_parent_that_is_killed(start):
    three = start(3).await_ready()
    three.process.kill()
    three.process.wait()
    wait_for(lambda: not any(runs(pid) for pid in three.pids()), seconds=SECONDS, what="the workers' end")
    assert three.entries("asked") == []
    again = start(2, port=three.port).await_ready()
    assert again.counted() == 0
    assert again.end() == 0


def test_a_worker_that_does_not_end_in_time_is_killed(start):
    two = start(2, "stubborn").await_ready()
    assert two.end() == 0
    assert (len(two.entries("asked")), len(two.entries("ended"))) == (2, 0)
    assert not any(runs(pid) for pid in two.pids())
    assert len(two.events("a service did not end in time and is killed")) == 2


def test_workers_that_refuse_their_settings_end_the_parent_with_that_status(start):
    three = start(3, "wrong")
    assert three.process.wait(SECONDS) == 2
    (said,) = three.events("a worker cannot start")
    assert "refused its settings" in said["why"]
    assert three.entries("started") == []


def test_a_refusal_after_the_first_start_leaves_the_others_serving(start):
    two = start(2, "spoilt").await_ready()
    two.await_event("all workers run")  # before that a refusal is that of a first start
    (killed,) = [pid for who, pid in two.entries("started") if who == "1"]
    psutil.Process(killed).kill()
    wait_for(lambda: len(two.entries("refused")) >= 2, seconds=SECONDS, what="two refusals")
    assert {two.get().text for _ in range(10)} == {"2"}
    assert two.get("/readyz").text == "worker 1: is not running"
    assert two.end() == 0


@pytest.mark.parametrize("number", [1, 2])
def test_a_second_instance_on_the_port_is_refused_with_a_clear_error(start, number):
    first = start(2).await_ready()
    second = start(number, port=first.port)
    assert second.process.wait(SECONDS) == 1
    (said,) = second.events("the port is in use by another process")
    assert str(first.port) in said["detail"]
    assert second.entries("started") == []
    assert {first.get().text for _ in range(20)} == {"1", "2"}


def test_a_port_on_which_somebody_else_listens_is_refused(start):
    with socket.create_server(("127.0.0.1", 0)) as foreign:
        two = start(2, port=foreign.getsockname()[1])
        assert two.process.wait(SECONDS) == 1
    assert two.events("the port is in use by another process")


def test_port_0_is_one_port_for_all(start):
    three = start(3, port=0)
    three.await_event("all workers run")
    three.port = three.events("all workers run")[0]["port"]
    three.await_ready()
    assert {three.get().text for _ in range(100)} == {"1", "2", "3"}


def test_logs_carry_the_workers_number(start):
    two = start(2)
    two.await_event("all workers run")
    (ready,) = two.events("all workers run")
    assert (ready["workers"], ready["port"], ready.get("worker")) == (2, two.port, None)
    assert sorted(line["worker"] for line in two.events("it listens")) == [1, 2]
    one = start(1).await_ready()
    assert [line.get("worker") for line in one.events("it listens")] == [None]


def test_an_end_while_workers_still_start_ends_all(start):
    three = start(3)
    three.await_event("a service was started", 3)
    assert three.end() == 0
    assert not any(runs(pid) for pid in three.pids())


def test_a_worker_is_no_parent(monkeypatch):
    monkeypatch.delenv(peers.NUMBER, raising=False)
    assert not workers.wanted(1)
    assert workers.wanted(2)
    monkeypatch.setenv(peers.NUMBER, "1")
    monkeypatch.setenv(peers.FOLDER, "/nowhere")
    assert not workers.wanted(2)
