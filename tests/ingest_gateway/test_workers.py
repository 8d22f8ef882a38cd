"""The gateway as several processes: one port, one page of metrics, one answer to whether it is ready."""

import asyncio
import json
import os
import signal
from pathlib import Path

import psutil

from schemas import metric_names as names
from tests.ingest_gateway import support
from tests.ingest_gateway.process import GatewayProcess, gateway_process
from tests.ingest_gateway.support import connect, headers_for, window
from tests.support.waiting import wait_for

CONNECTIONS = 30
POSTS = 10
REQUESTS_202 = f'{names.REQUESTS.name}{{route="/api/client/metrics",status="202"}}'


async def post_all(port: int) -> int:
    """Post on many connections, each post until it is taken; gives how many were."""

    async def client(number: int) -> int:
        async with connect(port) as connection:
            for post in range(POSTS):
                reply = None
                while reply is None or reply.status == 503:  # two writers may wait for the file's lock for too long
                    await connection.send("POST", "/api/client/metrics", headers_for(), window(f"{number}-{post}"))
                    reply = await connection.receive()
                assert reply.status == 202
        return POSTS

    return sum(await asyncio.gather(*(client(number) for number in range(CONNECTIONS))))


def metrics(process: GatewayProcess) -> dict[str, float]:
    status, text = process.get("/metrics")
    assert status == 200
    pairs = (line.rsplit(" ", 1) for line in text.splitlines() if not line.startswith("#"))
    return {name: float(value) for name, value in pairs}


def flags(folder: Path) -> set[str]:
    return {next(iter(json.loads(value)["bucket"]["toggles"])) for _, value in support.log_of(folder)}


def workers(process: GatewayProcess) -> list[psutil.Process]:
    return psutil.Process(process.process.pid).children()


async def test_several_workers_take_posts_and_count_them_together(tmp_path: Path) -> None:
    with gateway_process(tmp_path, workers="3") as process:
        process.await_ready()
        assert len(workers(process)) == 3
        assert await post_all(process.port) == 300
        pages = [metrics(process) for _ in range(12)]
        assert {page[REQUESTS_202] for page in pages} == {300}
        assert {page[names.APPENDED.name] for page in pages} == {300}
        assert {page[names.IN_FLIGHT_BYTES.name] for page in pages} == {0}
        taken = names.REQUEST_SECONDS.name + '_count{route="/api/client/metrics"}'
        assert all(page[taken] >= 300 for page in pages)
        resident = [name for name in pages[0] if name.startswith("process_resident_memory_bytes")]
        assert resident == [f'process_resident_memory_bytes{{worker="{number}"}}' for number in (1, 2, 3)]

        killed = workers(process)[1]
        killed.kill()

        def is_back() -> bool:
            running = workers(process)
            return len(running) == 3 and killed not in running and process.get("/readyz")[0] == 200

        wait_for(is_back, seconds=support.SECONDS * 2, what="the worker's return")
        assert {metrics(process)[REQUESTS_202] for _ in range(6)} == {300}
        assert (await support.ask(process.port, body=window("after"))).status == 202
        assert {metrics(process)[REQUESTS_202] for _ in range(6)} == {301}

        status, output = process.end()
    assert status == 0
    assert {line.get("worker") for line in map(json.loads, output.splitlines())} == {None, 1, 2, 3}
    assert len(support.log_of(tmp_path)) == 301
    assert len(flags(tmp_path)) == 301


async def test_sigterm_under_load_loses_no_acknowledged_post_and_no_answer(tmp_path: Path) -> None:
    acknowledged: set[str] = set()
    unanswered: list[str] = []

    async def client(port: int, number: int) -> None:
        try:
            async with connect(port) as connection:
                for post in range(100_000):
                    name = f"{number}-{post}"
                    await connection.send("POST", "/api/client/metrics", headers_for(), window(name))
                    unanswered.append(name)
                    reply = await connection.receive()
                    unanswered.remove(name)
                    if reply.status == 202:
                        acknowledged.add(name)
                    if reply.headers.get("connection") == "close":
                        return
        except (OSError, EOFError):
            return

    with gateway_process(tmp_path, workers="2") as process:
        process.await_ready()
        clients = [asyncio.create_task(client(process.port, number)) for number in range(20)]
        async with asyncio.timeout(support.SECONDS * 2):
            while len(acknowledged) < 200:
                await asyncio.sleep(0.01)
        os.kill(process.process.pid, signal.SIGTERM)
        async with asyncio.timeout(support.SECONDS * 2):
            await asyncio.gather(*clients)
        assert await asyncio.to_thread(process.process.wait, 60) == 0
    kept = flags(tmp_path)
    assert acknowledged <= kept
    # What was sent into the moment at which a connection closed has no answer, and was not taken either.
    assert not kept & set(unanswered)


def test_a_second_gateway_on_the_port_is_refused_and_the_first_serves_on(tmp_path: Path) -> None:
    with gateway_process(tmp_path / "first", workers="2") as first:
        first.await_ready()
        for number in ("1", "2"):
            with gateway_process(tmp_path / "second", port=first.port, workers=number) as second:
                output, _ = second.process.communicate(timeout=60)
            assert second.process.returncode == 1
            (said,) = [line for line in map(json.loads, output.splitlines()) if line["level"] == "error"]
            assert said["event"] == "the port is in use by another process"
            assert str(first.port) in said["detail"]
        assert {first.get("/readyz")[0] for _ in range(6)} == {200}
        assert first.end()[0] == 0


def test_a_broker_that_is_away_makes_every_worker_unready(tmp_path: Path) -> None:
    with gateway_process(tmp_path, workers="2", broker_url=f"sqlite:///{tmp_path}/missing/broker.db") as process:

        def both_say_so() -> bool:
            status, text = process.get("/readyz")
            said = text.count("unable to open")
            return status == 503 and said == 2 and "worker 1: " in text and "worker 2: " in text

        wait_for(both_say_so, seconds=support.SECONDS * 2, what="the workers' reasons")
        assert process.get("/healthz")[0] == 200


def test_a_spoilt_tokens_file_ends_the_start_with_the_status_of_wrong_settings(tmp_path: Path) -> None:
    (tmp_path / "tokens.json").write_text("{")
    with gateway_process(tmp_path, workers="3") as process:
        output, _ = process.process.communicate(timeout=60)
    assert process.process.returncode == 2
    assert output.count("FLAGMETER_TOKENS_FILE") == 1


def test_a_number_of_workers_out_of_bounds_is_refused(tmp_path: Path) -> None:
    with gateway_process(tmp_path, workers="257") as process:
        output, _ = process.process.communicate(timeout=60)
    assert process.process.returncode == 2
    assert "FLAGMETER_WORKERS" in output
