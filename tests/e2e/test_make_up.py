"""`make up`, as typed into a terminal and ended by Ctrl-C (acceptance 1 and 10)."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from tests.support import needs
from tests.support.client import request
from tests.support.environment import ROOT, variables
from tests.support.ports import free_port
from tests.support.waiting import wait_for


@pytest.mark.slow
def test_make_up_runs_the_stack_and_control_c_ends_all_of_it(tmp_path: Path) -> None:
    needs.program("make")
    if Path(sys.prefix) != ROOT / ".venv":
        pytest.skip("these tests do not run in the environment that make sets up")
    gateway, *others = (free_port() for _ in range(5))
    names = ("--query-port", "--management-port", "--clickhouse-port", "--aggregator-port")
    ports = " ".join(f"{name} {port}" for name, port in zip(names, others, strict=True))
    arguments = f"ARGS=--data-dir {tmp_path / 'data'} --gateway-port {gateway} {ports}"
    out = tmp_path / "out"
    with out.open("wb") as sink:
        terminal = subprocess.Popen(
            ["make", "up", arguments], cwd=ROOT, stdout=sink, stderr=sink, env=variables(), start_new_session=True
        )
    try:
        wait_for(lambda: "is ready" in out.read_text(), seconds=90, what="the line that says ready")
        assert request("GET", f"http://127.0.0.1:{gateway}/readyz").status == 200
        running = psutil.Process(terminal.pid).children(recursive=True)
        assert len(running) >= 5, "up and its four services"
        os.killpg(terminal.pid, signal.SIGINT)  # what a terminal does
        terminal.wait(timeout=60)
        _, alive = psutil.wait_procs(running, timeout=10)
        assert not alive
    finally:
        if terminal.poll() is None:
            os.killpg(terminal.pid, signal.SIGKILL)
