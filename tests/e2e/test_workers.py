"""Several processes of a service: two aggregators on the embedded broker, and the whole stack with workers."""

import asyncio
import json
import os
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil

from schemas import metric_names as names
from tests.ingest_gateway import support
from tests.ingest_gateway.process import gateway_process
from tests.support.client import request
from tests.support.environment import ROOT, variables
from tests.support.ports import free_port
from tests.support.stack import Stack
from tests.support.store import StoreProcess
from tests.support.waiting import wait_for

SECONDS = 90
POSTS = 150


class Aggregators:
    """`python -m aggregator` with two workers."""

    def __init__(self, process: "subprocess.Popen[bytes]", port: int, broker: Path, log: Path) -> None:
        self.process = process
        self.url = f"http://127.0.0.1:{port}"
        self.broker = broker
        self.log = log

    def ready(self) -> object:
        """Give what `/readyz` says once it says 200."""
        assert self.process.poll() is None, self.log.read_text()
        try:
            answer = request("GET", f"{self.url}/readyz")
        except OSError:
            return None
        return answer.json() if answer.status == 200 else None

    def owner(self) -> int | None:
        """Give the process that holds the lease."""
        with sqlite3.connect(f"file:{self.broker}?mode=ro", uri=True) as connection:
            row = connection.execute("SELECT holder FROM membership").fetchone()
        return int(row[0].split("|")[2]) if row and row[0] else None

    def workers(self) -> set[int]:
        return {child.pid for child in psutil.Process(self.process.pid).children()}

    def records(self) -> float:
        text = request("GET", f"{self.url}/metrics").text
        name = f'{names.RECORDS.name}{{partition="0"}} '
        return sum(float(line.removeprefix(name)) for line in text.splitlines() if line.startswith(name))


@contextmanager
def two_aggregators(folder: Path, store: StoreProcess) -> Iterator[Aggregators]:
    port, log = free_port(), folder / "aggregators.log"
    settings = {"data_dir": folder, "clickhouse_url": store.url, "aggregator_port": port, "flush_seconds": 0.25}
    with log.open("wb") as out:
        process = subprocess.Popen(
            [sys.executable, "-m", "aggregator"], cwd=ROOT, env=variables(workers=2, **settings), stderr=out
        )
    try:
        yield Aggregators(process, port, folder / "broker.db", log)
    finally:
        if process.poll() is None:
            process.kill()
        process.wait()


async def post(port: int, begin: int) -> None:
    """Post windows that count 1 each, one after the other."""
    for number in range(begin, begin + POSTS):
        assert (await support.ask(port, body=support.window(f"flag-{number}"))).status == 202


def counted(store: StoreProcess) -> tuple[int, int]:
    """Give how many flags the store has, and the sum of their counts."""
    sql = "SELECT uniqExact(feature), sum(yes) FROM evaluations_hourly WHERE feature LIKE 'flag-%' FORMAT TSV"
    flags, total = store.visitor(sql).text.split()
    return int(flags), int(total)


async def test_one_owns_the_log_and_the_other_takes_over_with_every_count_exact(
    tmp_path: Path, own_store: StoreProcess
) -> None:
    own_store.start().migrate()
    with gateway_process(tmp_path) as gateway:
        gateway.await_ready()
        with two_aggregators(tmp_path, own_store) as aggregators:
            ready = wait_for(aggregators.ready, seconds=SECONDS, what="the readiness of both")
            assert ready["status"] == "ready"
            owner = wait_for(aggregators.owner, seconds=SECONDS, what="the lease")
            assert owner in aggregators.workers()
            assert len(aggregators.workers()) == 2
            wait_for(lambda: aggregators.ready() == {"status": "ready", "partitions": [0]}, seconds=SECONDS)

            await post(gateway.port, 0)
            wait_for(lambda: counted(own_store) == (POSTS, POSTS), seconds=SECONDS, what="the first counts")
            wait_for(lambda: aggregators.records() == POSTS, seconds=SECONDS, what="the page's records")
            assert request("GET", f"{aggregators.url}/healthz").status == 200

            posting = asyncio.create_task(post(gateway.port, POSTS))
            await asyncio.to_thread(wait_for, lambda: counted(own_store)[0] > POSTS + 10, seconds=SECONDS)
            os.kill(owner, signal.SIGKILL)
            wait_for(lambda: owner not in aggregators.workers(), seconds=SECONDS, what="the owner's end")
            assert aggregators.records() >= POSTS
            await posting
            wait_for(lambda: aggregators.owner() not in {owner, None}, seconds=SECONDS, what="the other's turn")
            wait_for(lambda: counted(own_store)[0] == 2 * POSTS, seconds=SECONDS, what="all counts")
            wait_for(lambda: len(aggregators.workers()) == 2, seconds=SECONDS, what="the killed worker's return")
            wait_for(lambda: aggregators.ready() == {"status": "ready", "partitions": [0]}, seconds=SECONDS)
            assert counted(own_store) == (2 * POSTS, 2 * POSTS)
            assert aggregators.records() >= POSTS

            aggregators.process.terminate()
            assert aggregators.process.wait(SECONDS) == 0
    assert counted(own_store) == (2 * POSTS, 2 * POSTS)


def test_the_stack_runs_with_workers_and_all_of_them_die_with_it(tmp_path: Path) -> None:
    stack = Stack(tmp_path / "data", FLAGMETER_WORKERS="2", FLAGMETER_FLUSH_SECONDS="0.25")
    try:
        stack.start()
        assert stack.process is not None
        running = psutil.Process(stack.process.pid).children(recursive=True)
        modules = [child.cmdline()[-1] for child in running]
        assert [modules.count(name) for name in ("ingest_gateway", "query_api", "aggregator")] == [3, 3, 1]
        posts = 40
        for number in range(posts):
            payload = json.loads(support.window(f"flag-{number}"))
            assert stack.post("/api/client/metrics", payload).status == 202
        sql = "SELECT sum(yes) FROM evaluations_hourly"
        wait_for(lambda: stack.number(sql) == posts, seconds=SECONDS, what="the counts")
        assert stack.get("/v1/projects/default/results/evaluations").status == 200
        stack.kill()  # asserts that nothing outlives it
        assert not any(child.is_running() and child.status() != psutil.STATUS_ZOMBIE for child in running)
        stack.start()
        assert stack.stop() == 0
    finally:
        stack.kill()
