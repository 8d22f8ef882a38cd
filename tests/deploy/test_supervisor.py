import asyncio
import os
import signal
import sys
import time

import psutil
import pytest
from structlog.testing import capture_logs

from deploy.supervisor import Backoff, Child, Service, StartFailedError, exit_text
from tests.support.client import is_ok
from tests.support.ports import free_port
from tests.support.waiting import until

QUICK = Backoff(first=0.01, longest=0.04, stayed_up=60)


@pytest.fixture
def diary(tmp_path):
    path = tmp_path / "diary"
    path.touch()
    return path


@pytest.fixture
async def made(diary):
    children: list[Child] = []

    def make(behaviour: str = "", *, stop_seconds: float = 10.0) -> Child:
        port = free_port()
        service = Service(
            name="stand-in",
            argv=(sys.executable, "-m", "tests.deploy.stand_in", "one", str(port), str(diary), behaviour),
            url=f"http://127.0.0.1:{port}",
            ready_url=f"http://127.0.0.1:{port}/readyz",
            stop_seconds=stop_seconds,
        )
        child = Child(service, backoff=QUICK)
        children.append(child)
        return child

    yield make
    await asyncio.gather(*(child.kill() for child in children))


async def probe(url: str) -> bool:
    return await asyncio.to_thread(is_ok, url)


def entries(diary) -> list[str]:
    return [line.split()[1] for line in diary.read_text().splitlines()]


async def test_a_child_is_ready_when_it_answers_and_ends_by_itself(made, diary):
    child = made()
    child.start()
    await child.ready(probe, seconds=20)
    pid = child.pid
    await child.stop()
    assert entries(diary) == ["started", "asked", "ended"]
    assert child.pid is None
    assert not psutil.pid_exists(pid)


async def test_a_child_that_is_killed_is_started_again_and_its_end_is_logged(made, diary):
    child = made()
    with capture_logs() as logged:
        child.start()
        await child.ready(probe, seconds=20)
        first = child.pid
        os.kill(first, signal.SIGKILL)
        await until(lambda: child.pid not in {None, first})
        await child.ready(probe, seconds=20)
        await child.stop()
    assert entries(diary) == ["started", "started", "asked", "ended"]
    (death,) = [line for line in logged if line["log_level"] == "error"]
    assert (death["child"], death["pid"], death["exit"]) == ("stand-in", first, "SIGKILL")


async def test_a_child_that_dies_at_once_is_tried_again_with_longer_waits(made, diary):
    child = made("dies")
    with capture_logs() as logged:
        child.start()
        await until(lambda: len(entries(diary)) >= 4)
        await child.stop()
    deaths = [line for line in logged if line["log_level"] == "error"]
    assert [line["again_in_seconds"] for line in deaths][:3] == [0.01, 0.02, 0.04]
    assert {line["exit"] for line in deaths} == {"status 3"}


async def test_no_child_is_started_once_the_end_has_begun(made, diary):
    child = made("dies")
    child.start()
    await until(lambda: child.starts >= 1)
    await child.stop()
    assert child.pid is None
    assert child._task.done()


async def test_a_child_that_does_not_end_in_time_is_killed(made, diary):
    child = made("stubborn", stop_seconds=0.2)
    child.start()
    await child.ready(probe, seconds=20)
    pid = child.pid
    with capture_logs() as logged:
        await child.stop()
    assert [line["event"] for line in logged] == ["a service did not end in time and is killed"]
    assert entries(diary) == ["started", "asked"]
    assert not psutil.pid_exists(pid)


async def test_a_child_that_refuses_its_settings_fails_the_start(made):
    child = made("wrong")
    child.start()
    with pytest.raises(StartFailedError, match="stand-in refused its settings"):
        await child.ready(probe, seconds=20)


async def test_a_child_that_never_gets_ready_fails_the_start_after_its_time(made, diary):
    child = made("unready")
    child.start()
    await until(lambda: entries(diary) == ["started"])
    began = time.monotonic()
    with pytest.raises(StartFailedError, match=r"not ready within 0\.2 s"):
        await child.ready(probe, seconds=0.2)
    assert time.monotonic() - began < 10


async def test_waiting_for_a_child_ends_when_it_is_stopped(made):
    child = made("unready")
    child.start()
    waiting = asyncio.create_task(child.ready(probe, seconds=60))
    await until(lambda: child.pid is not None)
    await child.stop()
    with pytest.raises(StartFailedError, match="was stopped"):
        await waiting


async def test_a_child_has_a_session_of_its_own_so_that_ctrl_c_reaches_us_alone(made):
    child = made()
    child.start()
    await child.ready(probe, seconds=20)
    assert os.getsid(child.pid) == child.pid != os.getsid(0)


async def test_a_child_that_never_started_can_be_stopped(made):
    await made().stop()


def test_waits_double_up_to_the_longest_and_begin_anew_after_it_stayed_up():
    backoff = Backoff()
    waits: list[float] = []
    previous = None
    for uptime in (0.1, 0.1, 0.1, 0.1, 0.1, 0.1, 0.1, 11.0, 0.1):
        previous = backoff.next(previous, uptime)
        waits.append(previous)
    assert waits == [0.5, 1.0, 2.0, 4.0, 8.0, 10.0, 10.0, 0.5, 1.0]


@pytest.mark.parametrize(("status", "text"), [(0, "status 0"), (3, "status 3"), (-9, "SIGKILL"), (-250, "signal 250")])
def test_exit_statuses_are_written_for_people(status, text):
    assert exit_text(status) == text


async def test_a_child_that_cannot_be_started_for_the_moment_is_tried_again(made, diary, monkeypatch):
    child = made()
    spawn = child._spawn
    refusals = [BlockingIOError(11, "Resource temporarily unavailable")]

    async def scarce():
        if refusals:
            raise refusals.pop()
        return await spawn()

    monkeypatch.setattr(child, "_spawn", scarce)
    with capture_logs() as logged:
        child.start()
        await until(lambda: len(entries(diary)) >= 1)
    assert [line["why"] for line in logged if line["event"] == "a service could not be started"] == [
        "[Errno 11] Resource temporarily unavailable"
    ]
    await child.stop()
