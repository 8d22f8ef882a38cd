"""The gateway as a process of its own: `python -m ingest_gateway`."""

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.ingest_gateway import support
from tests.support.client import request
from tests.support.environment import ROOT, variables
from tests.support.ports import free_port
from tests.support.waiting import wait_for


@dataclass
class GatewayProcess:
    port: int
    process: "subprocess.Popen[str]"

    def get(self, path: str) -> tuple[int, str]:
        try:
            reply = request("GET", f"http://127.0.0.1:{self.port}{path}", timeout=5)
        except OSError as error:
            return 0, str(error)
        return reply.status, reply.text

    def await_ready(self) -> None:
        def is_ready() -> bool:
            assert self.process.poll() is None, "the gateway ended"
            return self.get("/readyz")[0] == 200

        wait_for(is_ready, seconds=support.SECONDS, what="the gateway's readiness")

    def end(self) -> tuple[int, str]:
        """Ask it to end; gives its exit status and what it logged."""
        self.process.terminate()
        output, _ = self.process.communicate(timeout=30)
        return self.process.returncode, output


def write_tokens(path: Path, *texts: str) -> None:
    entries = [{"token": text, "type": "backend", "projects": ["default"], "environment": "e"} for text in texts]
    path.write_text(json.dumps({"tokens": entries}))


@contextmanager
def gateway_process(folder: Path, *, port: int | None = None, **settings: str) -> Iterator[GatewayProcess]:
    folder.mkdir(exist_ok=True)
    if not (folder / "tokens.json").exists():
        write_tokens(folder / "tokens.json", support.BACKEND_DEV)
    port = port or free_port()
    process = subprocess.Popen(
        [sys.executable, "-m", "ingest_gateway"],
        cwd=ROOT,
        env=variables(data_dir=folder, gateway_port=port, **settings),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        yield GatewayProcess(port, process)
    finally:
        if process.poll() is None:
            process.kill()
        process.communicate()
