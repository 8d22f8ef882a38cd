"""`python -m query_api` as a process of its own."""

import json
import os
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import pytest

from tests.query_api.conftest import ADMIN, TOKENS, StoreProcess, row
from tests.support.ports import free_port

SECONDS = 30


def environment(**settings: object) -> dict[str, str]:
    own = {name: text for name, text in os.environ.items() if not name.startswith("FLAGMETER_")}
    return own | {f"FLAGMETER_{name.upper()}": str(value) for name, value in settings.items()}


def run(**settings: object) -> subprocess.CompletedProcess[str]:
    """Run it where it must end by itself."""
    command = [sys.executable, "-m", "query_api"]
    return subprocess.run(
        command, env=environment(**settings), capture_output=True, text=True, timeout=SECONDS, check=False
    )


def get(url: str) -> tuple[int, object]:
    asked = urllib.request.Request(url, headers={"Authorization": f"Bearer {ADMIN}"})
    try:
        with urllib.request.urlopen(asked, timeout=5) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as error:
        with error:
            return error.code, json.load(error)


def test_it_serves_until_it_is_asked_to_end(store: StoreProcess, tmp_path: Path):
    (tmp_path / "tokens.json").write_text(TOKENS)
    store.insert(row("process", "flag", "1926-05-08T12:00:00", yes=25))
    port = free_port()
    log = tmp_path / "log"
    with log.open("wb") as errors:
        process = subprocess.Popen(
            [sys.executable, "-m", "query_api"],
            env=environment(data_dir=tmp_path, query_port=port, clickhouse_url=store.url),
            stderr=errors,
        )
    try:
        deadline = time.monotonic() + SECONDS
        ready = None
        while ready != 200:
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < deadline, log.read_text()
            try:
                ready, _ = get(f"http://127.0.0.1:{port}/readyz")
            except OSError:
                time.sleep(0.05)
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
    assert (store.data_dir / "store.secret").read_text().strip() not in logged


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
