"""The gateway as a process of its own: `python -m ingest_gateway`."""

import json
import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.ingest_gateway import support

ROOT = Path(__file__).parent.parent.parent


def free_port() -> int:
    """A loopback port that is free now, below the ones that the system gives to clients."""
    for port in range(20_000 + os.getpid() % 5_000, 32_768):
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    raise AssertionError("no free port")


@dataclass
class GatewayProcess:
    port: int
    process: "subprocess.Popen[str]"

    def get(self, path: str) -> tuple[int, str]:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}{path}", timeout=5) as reply:
                return reply.status, reply.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()
        except OSError as error:
            return 0, str(error)

    def await_ready(self) -> None:
        deadline = time.monotonic() + support.SECONDS
        while self.get("/readyz")[0] != 200:
            assert self.process.poll() is None, "the gateway ended"
            assert time.monotonic() < deadline, self.get("/readyz")
            time.sleep(0.05)

    def end(self) -> tuple[int, str]:
        """Ask it to end; gives its exit status and what it logged."""
        self.process.terminate()
        output, _ = self.process.communicate(timeout=30)
        return self.process.returncode, output


def write_tokens(path: Path, *texts: str) -> None:
    entries = [{"token": text, "type": "backend", "projects": ["default"], "environment": "e"} for text in texts]
    path.write_text(json.dumps({"tokens": entries}))


@contextmanager
def gateway_process(folder: Path, **settings: str) -> Iterator[GatewayProcess]:
    folder.mkdir(exist_ok=True)
    if not (folder / "tokens.json").exists():
        write_tokens(folder / "tokens.json", support.BACKEND_DEV)
    port = free_port()
    variables = {
        "FLAGMETER_DATA_DIR": str(folder),
        "FLAGMETER_GATEWAY_PORT": str(port),
        **{f"FLAGMETER_{name.upper()}": value for name, value in settings.items()},
    }
    kept = {name: value for name, value in os.environ.items() if not name.startswith("FLAGMETER_")}
    process = subprocess.Popen(
        [sys.executable, "-m", "ingest_gateway"],
        cwd=ROOT,
        env={**kept, **variables},
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
