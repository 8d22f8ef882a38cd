"""`python -m query_api` as a process of its own."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.query_api.conftest import ADMIN, TOKENS, row
from tests.support.client import is_ok, request
from tests.support.environment import variables
from tests.support.ports import free_port
from tests.support.store import StoreProcess
from tests.support.waiting import wait_for

SECONDS = 30


def run(**settings: object) -> subprocess.CompletedProcess[str]:
    """Run it where it must end by itself."""
    command = [sys.executable, "-m", "query_api"]
    return subprocess.run(
        command, env=variables(**settings), capture_output=True, text=True, timeout=SECONDS, check=False
    )


def get(url: str) -> tuple[int, object]:
    answer = request("GET", url, headers={"Authorization": f"Bearer {ADMIN}"}, timeout=5)
    return answer.status, answer.json()


def test_it_serves_until_it_is_asked_to_end(store: StoreProcess, tmp_path: Path):
    (tmp_path / "tokens.json").write_text(TOKENS)
    store.insert(row("process", "flag", "1926-05-08T12:00:00", yes=25))
    port = free_port()
    log = tmp_path / "log"
    with log.open("wb") as errors:
        process = subprocess.Popen(
            [sys.executable, "-m", "query_api"],
            env=variables(data_dir=tmp_path, query_port=port, clickhouse_url=store.url),
            stderr=errors,
        )
    try:

        def is_ready() -> bool:
            assert process.poll() is None, log.read_text()
            return is_ok(f"http://127.0.0.1:{port}/readyz")

        wait_for(is_ready, seconds=SECONDS, what="its readiness")
        path = "/v1/projects/process/results/evaluations?startDate=1926-05-08&period=day&endDate=1926-05-09"
        status, answer = get(f"http://127.0.0.1:{port}{path}")
        assert status == 200
        assert isinstance(answer, dict)
        assert answer["result"] == {"evaluations": [{"date": "1926-05-08T00:00:00.000Z", "value": 25}]}
        process.terminate()
        assert process.wait(timeout=SECONDS) == 0
    finally:
        process.kill()
        process.wait(timeout=SECONDS)
    logged = log.read_text()
    assert "listening" in logged
    assert "0000000" not in logged
    assert store.secret not in logged


def test_wrong_settings_are_listed_together_and_end_it(tmp_path: Path):
    ended = run(data_dir=tmp_path, query_port=0, cache_seconds=-1, clickhouse_url="ftp://user:hush@nowhere")
    assert ended.returncode == 2
    for name in ("FLAGMETER_QUERY_PORT", "FLAGMETER_CACHE_SECONDS", "FLAGMETER_CLICKHOUSE_URL"):
        assert name in ended.stderr
    assert "hush" not in ended.stderr


@pytest.mark.parametrize("content", [None, "{", '{"tokens": [{"token": "hush", "type": "king"}]}'])
def test_without_usable_tokens_it_ends_and_says_why(tmp_path: Path, content: str | None):
    if content is not None:
        (tmp_path / "tokens.json").write_text(content)
    ended = run(data_dir=tmp_path, query_port=free_port())
    assert ended.returncode == 2
    assert "FLAGMETER_TOKENS_FILE" in ended.stderr
    assert "hush" not in ended.stderr


def test_a_port_that_is_taken_ends_it(store: StoreProcess, tmp_path: Path):
    (tmp_path / "tokens.json").write_text(TOKENS)
    ended = run(data_dir=tmp_path, query_port=store.port, clickhouse_url=store.url)
    assert ended.returncode == 1
    assert "in use" in ended.stderr
