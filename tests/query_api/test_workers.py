"""The query API as several processes."""

import json
import subprocess
import sys
from pathlib import Path

from schemas import metric_names
from tests.query_api.conftest import ADMIN, TOKENS, row
from tests.support.client import is_ok, request
from tests.support.environment import variables
from tests.support.ports import free_port
from tests.support.store import StoreProcess
from tests.support.waiting import wait_for

SECONDS = 60
ASKED = 40
PATH = "/v1/projects/several/results/evaluations?startDate=1926-05-08&period=day&endDate=1926-05-09"


def test_two_workers_answer_alike_and_count_together(store: StoreProcess, tmp_path: Path):
    (tmp_path / "tokens.json").write_text(TOKENS)
    store.insert(row("several", "flag", "1926-05-08T12:00:00", yes=25))
    port = free_port()
    log = tmp_path / "log"
    with log.open("wb") as errors:
        process = subprocess.Popen(
            [sys.executable, "-m", "query_api"],
            env=variables(data_dir=tmp_path, query_port=port, clickhouse_url=store.url, workers=2),
            stderr=errors,
        )
    try:

        def is_ready() -> bool:
            assert process.poll() is None, log.read_text()
            return is_ok(f"http://127.0.0.1:{port}/readyz")

        wait_for(is_ready, seconds=SECONDS, what="the readiness of both")
        headers = {"Authorization": f"Bearer {ADMIN}"}
        answers = [request("GET", f"http://127.0.0.1:{port}{PATH}", headers=headers) for _ in range(ASKED)]
        assert {answer.status for answer in answers} == {200}
        values = [answer.json()["result"]["evaluations"] for answer in answers]
        assert values == [[{"date": "1926-05-08T00:00:00.000Z", "value": 25}]] * ASKED
        served = f'{metric_names.QUERIES.name}{{route="/v1/projects/{{project}}/results/evaluations",status="200"}}'
        for _ in range(6):
            page = request("GET", f"http://127.0.0.1:{port}/metrics").text
            assert f"{served} {ASKED}.0" in page
        process.terminate()
        assert process.wait(timeout=SECONDS) == 0
    finally:
        process.kill()
        process.wait(timeout=SECONDS)
    listening = [json.loads(line) for line in log.read_text().splitlines() if "listening" in line]
    assert sorted(line["worker"] for line in listening) == [1, 2]
