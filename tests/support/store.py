"""A ClickHouse for tests: the embedded store as a process, or a real server in a container (`--backend=docker`)."""

import os
import subprocess
import sys
from pathlib import Path

from deploy import migrate
from schemas import urls
from tests.support.ports import free_port
from tests.support.stack import request, wait_for

READY_SECONDS = 40


class StoreProcess:
    """`python -m deploy.store`; may be stopped and started again."""

    def __init__(self, data_dir: Path) -> None:
        self.data_dir = data_dir
        self.port = free_port()
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> "StoreProcess":
        command = [sys.executable, "-m", "deploy.store", "--data-dir", str(self.data_dir), "--port", str(self.port)]
        environment = {name: value for name, value in os.environ.items() if not name.startswith("FLAGMETER_")}
        log = self.data_dir.parent / "store.log"
        with log.open("ab") as sink:
            self._process = subprocess.Popen(command, stderr=sink, env=environment)
        wait_for(self._answers, seconds=READY_SECONDS, what="the store's answer")
        return self

    def _answers(self) -> bool:
        assert self._process is not None
        assert self._process.poll() is None, "the store ended"
        try:
            return request("GET", f"http://127.0.0.1:{self.port}/ping", timeout=2).status == 200
        except OSError:
            return False

    def stop(self, *, kill: bool = False) -> None:
        if self._process is not None:
            (self._process.kill if kill else self._process.terminate)()
            self._process.wait(timeout=READY_SECONDS)
            self._process = None

    @property
    def url(self) -> str:
        secret = (self.data_dir / "store.secret").read_text().strip()
        return f"http://service:{secret}@127.0.0.1:{self.port}/flagmeter"

    def migrate(self) -> None:
        migrate.run(urls.parse_clickhouse(self.url), partitions=1, flush_seconds=1)
