"""`flagmeter up` as a process, with everything that a test asks of it."""

import json
import queue
import signal
import subprocess
import sys
import threading
import time
import urllib.parse
from pathlib import Path
from typing import Any

import psutil

from tests.support.client import Answer, is_ok, request
from tests.support.environment import variables
from tests.support.ports import free_port
from tests.support.waiting import wait_for

READY_SECONDS = 60
STOP_SECONDS = 40
MODULES = {"gateway": "ingest_gateway", "aggregator": "aggregator", "query-api": "query_api", "store": "deploy.store"}


class Stack:
    """The embedded stack in a data directory; may be stopped and started again."""

    def __init__(self, data_dir: Path, **environment: str) -> None:
        self.data_dir = data_dir
        self.gateway_port, self.query_port, self.store_port, self.aggregator_port, self.management_port = (
            free_port() for _ in range(5)
        )
        self.environment = environment
        self.tokens: dict[str, str] = {}
        self.lines: list[str] = []
        self.log = data_dir.with_suffix(".log")
        self.process: subprocess.Popen[str] | None = None

    # Life ------------------------------------------------------------------------------------------------------------

    def start(self, *options: str) -> "Stack":
        command = [sys.executable, "-m", "deploy.cli", "up", "--data-dir", str(self.data_dir)]
        command += ["--gateway-port", str(self.gateway_port), "--query-port", str(self.query_port)]
        command += ["--clickhouse-port", str(self.store_port), "--aggregator-port", str(self.aggregator_port)]
        command += ["--management-port", str(self.management_port), *options]
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                command,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                env=variables() | self.environment,
                start_new_session=True,
            )
        lines: queue.Queue[str | None] = queue.Queue()
        threading.Thread(target=self._read, args=(self.process, lines), daemon=True).start()
        deadline = time.monotonic() + READY_SECONDS
        while True:
            try:
                line = lines.get(timeout=max(0.01, deadline - time.monotonic()))
            except queue.Empty:
                line = None
            if line is None:
                self.kill()
                raise AssertionError(f"up was not ready; it said {self.lines}\n{self.log.read_text()[-4000:]}")
            if line.startswith("token "):
                _, kind, text = line.split()
                self.tokens[kind] = text
            if "is ready" in line:
                return self

    def _read(self, process: subprocess.Popen[str], lines: "queue.Queue[str | None]") -> None:
        assert process.stdout is not None
        for line in process.stdout:
            self.lines.append(line.rstrip("\n"))
            lines.put(line.rstrip("\n"))
        lines.put(None)

    def stop(self, signal_number: int = signal.SIGINT) -> int:
        """End `up` as a user does; gives its exit status."""
        assert self.process is not None
        children = psutil.Process(self.process.pid).children(recursive=True)
        self.process.send_signal(signal_number)
        status = self.process.wait(timeout=STOP_SECONDS)
        assert not [child for child in children if child.is_running() and child.status() != psutil.STATUS_ZOMBIE]
        self.process = None
        return status

    def kill(self) -> None:
        """End `up` without asking; its children follow."""
        if self.process is None:
            return
        children = psutil.Process(self.process.pid).children(recursive=True) if self.process.poll() is None else []
        self.process.kill()
        self.process.wait(timeout=STOP_SECONDS)
        _, alive = psutil.wait_procs(children, timeout=10)
        for child in alive:
            child.kill()
        self.process = None
        assert not alive, "children outlived their parent"

    def child(self, service: str) -> psutil.Process:
        """Find the running process of a service."""
        assert self.process is not None
        for child in psutil.Process(self.process.pid).children(recursive=True):
            try:
                command = child.cmdline()
            except (psutil.NoSuchProcess, psutil.ZombieProcess):
                continue
            if MODULES[service] in command:
                return child
        raise AssertionError(f"{service} does not run")

    def kill_child(self, service: str) -> None:
        """SIGKILL a service, and wait until `up` has brought it back."""
        old = self.child(service)
        old.kill()

        def back() -> bool:
            try:
                return self.child(service).pid != old.pid and self.ready(service)
            except AssertionError:
                return False

        wait_for(back, seconds=READY_SECONDS, what=f"the return of {service}")

    def ready(self, service: str) -> bool:
        port = {"gateway": self.gateway_port, "query-api": self.query_port, "aggregator": self.aggregator_port}
        return is_ok(f"{self.store}/ping" if service == "store" else f"http://127.0.0.1:{port[service]}/readyz")

    # URLs ------------------------------------------------------------------------------------------------------------

    @property
    def gateway(self) -> str:
        return f"http://127.0.0.1:{self.gateway_port}"

    @property
    def query(self) -> str:
        return f"http://127.0.0.1:{self.query_port}"

    @property
    def store(self) -> str:
        return f"http://127.0.0.1:{self.store_port}"

    # Use -------------------------------------------------------------------------------------------------------------

    def post(self, path: str, payload: Any, *, token: str = "backend", **headers: str) -> Answer:
        """Post a payload with one of the tokens that `up` printed, or with a text."""
        known = {"Authorization": self.tokens.get(token, token), "Content-Type": "application/json"}
        body = payload if isinstance(payload, bytes) else json.dumps(payload).encode()
        return request("POST", self.gateway + path, headers=known | headers, body=body)

    def get(self, path: str, **query: Any) -> Answer:
        """Ask the query API with the admin token."""
        return request(
            "GET",
            f"{self.query}{path}?{urllib.parse.urlencode(query)}",
            headers={"Authorization": self.tokens["admin"]},
        )

    def sql(self, query: str) -> list[list[Any]]:
        """Ask the store as a visitor does, in plain SQL."""
        answer = request("POST", f"{self.store}/?default_format=JSONCompact", body=query.encode())
        assert answer.status == 200, answer.body.decode()
        return list(answer.json()["data"])

    def number(self, query: str) -> int:
        """Ask for one number."""
        return int(self.sql(query)[0][0])

    def logged(self) -> str:
        """Everything that all processes wrote to their logs."""
        return self.log.read_text(errors="replace")
