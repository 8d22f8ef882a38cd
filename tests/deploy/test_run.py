import json
import signal
import socket
import subprocess
import sys
import textwrap

import psutil
import pytest

from tests.support.environment import ROOT
from tests.support.waiting import wait_for


def child(body: str, **kwargs) -> "subprocess.Popen[str]":
    script = textwrap.dedent(
        """
        import asyncio, errno, os, signal, sys, threading
        from deploy import logs, parent, run
        logs.configure("test")
        """
    ) + textwrap.dedent(body)
    return subprocess.Popen(
        [sys.executable, "-c", script], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **kwargs
    )


WAITS = """
async def service(stop):
    print("up", flush=True)
    await stop.wait()
    print("drained", flush=True)
sys.exit(run.until_signalled(service))
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_lets_the_service_end_by_itself_with_status_0(number):
    with child(WAITS) as process:
        assert process.stdout.readline() == "up\n"
        process.send_signal(number)
        out, _ = process.communicate(timeout=10)
    assert (out, process.returncode) == ("drained\n", 0)


STUBBORN = """
async def service(stop):
    print("up", flush=True)
    await stop.wait()
    print("stopping", flush=True)
    await asyncio.Event().wait()
sys.exit(run.until_signalled(service))
"""


def test_a_second_ctrl_c_ends_a_service_that_hangs():
    with child(STUBBORN) as process:
        process.stdout.readline()
        process.send_signal(signal.SIGINT)
        assert process.stdout.readline() == "stopping\n"
        process.send_signal(signal.SIGINT)
        assert process.wait(10) == -signal.SIGINT


def test_a_second_sigterm_leaves_the_service_its_time():
    body = """
    async def service(stop):
        asyncio.get_running_loop().add_signal_handler(signal.SIGUSR1, stop.set)
        print("up", flush=True)
        await stop.wait()
        stop.clear()
        print("stopping", flush=True)
        await stop.wait()   # set again by the second SIGTERM, which must reach the handler, not the default
        print("drained", flush=True)
    sys.exit(run.until_signalled(service))
    """
    with child(body) as process:
        process.stdout.readline()
        process.send_signal(signal.SIGTERM)
        assert process.stdout.readline() == "stopping\n"
        process.send_signal(signal.SIGTERM)
        assert process.stdout.readline() == "drained\n"
        assert process.wait(10) == 0


def test_a_service_that_fails_ends_with_status_1_and_a_traceback_in_the_log():
    body = """
    async def service(stop):
        raise ValueError("broken")
    sys.exit(run.until_signalled(service))
    """
    with child(body) as process:
        _, log = process.communicate(timeout=10)
    assert process.returncode == 1
    line = json.loads(log)
    assert line["event"] == "the service failed"
    assert "ValueError: broken" in line["exception"]


def test_a_port_in_use_is_said_without_a_traceback():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        body = f"""
        async def service(stop):
            await asyncio.start_server(print, "127.0.0.1", {taken.getsockname()[1]})
        sys.exit(run.until_signalled(service))
        """
        with child(body) as process:
            _, log = process.communicate(timeout=10)
    assert process.returncode == 1
    line = json.loads(log)
    assert line["event"] == "the port is in use by another process"
    assert "127.0.0.1" in line["detail"]
    assert "exception" not in line


def test_a_child_dies_with_the_parent_that_started_it():
    body = f"""
    import subprocess
    code = {WAITS!r}
    code = "import asyncio, sys\\nfrom deploy import run\\n" + code
    child = subprocess.Popen([sys.executable, "-c", code], env={{**os.environ, parent.VARIABLE: str(os.getpid())}},
                             start_new_session=True)
    print(child.pid, flush=True)
    child.wait()
    """
    with child(body) as process:
        pid = int(process.stdout.readline())
        assert process.stdout.readline() == "up\n"  # the grandchild's
        process.kill()
        process.wait(10)
        # Its end of our pipe closes when it is gone, and nothing was said in between: no drain.
        assert process.stdout.read() == ""
    wait_for(
        lambda: not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE,
        what="the child's end",
    )


def test_a_child_whose_parent_is_already_gone_does_not_start():
    body = """
    os.environ[parent.VARIABLE] = "1"
    async def service(stop):
        print("up")
    sys.exit(run.until_signalled(service))
    """
    with child(body) as process:
        out, _ = process.communicate(timeout=10)
    assert (out, process.returncode) == ("", 1)


def test_the_watcher_of_other_systems_ends_an_orphan():
    body = """
    async def watched():
        await parent.watch(1)    # not our parent
    asyncio.run(watched())
    """
    with child(body) as process:
        process.communicate(timeout=10)
    assert process.returncode == 1


def test_a_service_may_open_as_many_files_as_the_system_allows() -> None:
    code = (
        "import resource; soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE); "
        "resource.setrlimit(resource.RLIMIT_NOFILE, (256, hard))\n"
        "from deploy import run\n"
        "async def service(stop): print(resource.getrlimit(resource.RLIMIT_NOFILE) == (hard, hard))\n"
        "run.until_signalled(service)"
    )
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=60, cwd=ROOT)
    assert done.stdout == "True\n", done.stderr
