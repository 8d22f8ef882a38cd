import os
import subprocess
import sys

from aggregator.adapters import holder


def test_a_running_process_is_not_gone() -> None:
    assert not holder.is_gone(holder.myself())
    assert not holder.is_gone(holder._name(os.getppid()))


def test_a_lease_that_was_given_back_is_free() -> None:
    assert holder.is_gone("")


def test_a_process_that_ended_is_gone_even_before_its_parent_noticed() -> None:
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as child:
        name = holder._name(child.pid)
        assert not holder.is_gone(name)
        child.kill()
        os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
        assert holder.is_gone(name)
    assert holder.is_gone(name)


def test_a_number_that_came_again_is_another_process() -> None:
    host, boot, number, _ = holder.myself().split("|")
    assert holder.is_gone(f"{host}|{boot}|{number}|12345")
    assert holder.is_gone(f"{host}|another-boot|{number}|12345")


def test_nothing_is_known_of_another_host() -> None:
    assert not holder.is_gone("elsewhere|boot|1|1")
