"""A real store for the tests of this folder: chDB behind its front, as a process."""

import os
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from deploy import data_dir
from schemas.urls import ClickHouse
from tests.support.ports import free_port
from tests.support.stack import wait_for


@pytest.fixture(scope="module")
def real_store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ClickHouse]:
    """A store of its own for each module; the services' user."""
    home: Path = tmp_path_factory.mktemp("store") / "data"
    home.mkdir(mode=0o700)
    secret = data_dir.store_secret(home)
    port = free_port()
    environment = {name: value for name, value in os.environ.items() if not name.startswith("FLAGMETER_")}
    with (home.parent / "store.log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "deploy.store", "--data-dir", str(home), "--port", str(port)],
            stderr=log,
            env=environment,
        )

    def answers() -> bool:
        assert process.poll() is None, (home.parent / "store.log").read_text()
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/ping", timeout=2) as answer:
                return bool(answer.status == 200)
        except OSError:
            return False

    try:
        wait_for(answers, seconds=60, what="the store's answer")
        yield ClickHouse(False, "127.0.0.1", port, "flagmeter", "service", secret)
    finally:
        process.terminate()
        process.wait(30)
