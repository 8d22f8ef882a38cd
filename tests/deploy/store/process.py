"""The embedded store as a process of its own, with what tests ask of it."""

import http.client
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlencode

from tests.support.ports import free_port

READY_SECONDS = 60


@dataclass(frozen=True)
class Answer:
    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def text(self) -> str:
        return self.body.decode()

    @property
    def code(self) -> int:
        """ClickHouse's error number; 0 when there was none."""
        return int(self.headers.get("X-ClickHouse-Exception-Code", "0"))


def wait_until(condition: Callable[[], object], *, seconds: float, what: str) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"{what} did not happen in {seconds} s"
        time.sleep(0.02)


class StoreProcess:
    def __init__(self, data_dir: Path, **settings: str) -> None:
        self.data_dir = data_dir
        self.port = free_port()
        self.settings = {f"FLAGMETER_{name.upper()}": value for name, value in settings.items()}
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def log(self) -> Path:
        return self.data_dir.with_suffix(".log")

    @property
    def secret(self) -> str:
        return (self.data_dir / "store.secret").read_text().strip()

    def spawn(self) -> "StoreProcess":
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "deploy.store", "--data-dir", str(self.data_dir), "--port", str(self.port)],
                env={**os.environ, **self.settings},
                stdout=log,
                stderr=log,
                cwd=Path(__file__).parent.parent.parent.parent,
            )
        return self

    def start(self) -> "StoreProcess":
        self.spawn()
        wait_until(self.is_ready, seconds=READY_SECONDS, what="the start of the store")
        return self

    def is_ready(self) -> bool:
        assert self.process is not None
        assert self.process.poll() is None, self.log.read_text()
        try:
            return self.ask("GET", "/ping").status == 200
        except OSError:
            return False

    def stop(self) -> int:
        assert self.process is not None
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(40)

    def kill(self) -> None:
        if self.process is not None and self.process.poll() is None:
            self.process.kill()
            self.process.wait()

    def ask(
        self,
        method: str,
        path: str = "/",
        body: bytes | str | None = None,
        headers: Mapping[str, str] | None = None,
        *,
        timeout: float = 60,
    ) -> Answer:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=timeout)
        try:
            connection.request(method, path, body.encode() if isinstance(body, str) else body, dict(headers or {}))
            response = connection.getresponse()
            return Answer(response.status, response.headers, response.read())
        finally:
            connection.close()

    def visitor(self, body: str | bytes, /, **parameters: str) -> Answer:
        return self.ask("POST", "/?" + urlencode(parameters), body)

    def service(self, body: str | bytes, headers: Mapping[str, str] | None = None, /, **parameters: str) -> Answer:
        credentials = {"X-ClickHouse-User": "service", "X-ClickHouse-Key": self.secret}
        return self.ask("POST", "/?" + urlencode(parameters), body, {**credentials, **(headers or {})})
