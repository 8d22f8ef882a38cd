"""The gateway as a service: its broker comes and goes, and it ends without losing an answer."""

import asyncio
import json
import sqlite3
import time
from pathlib import Path

import pytest

from ingest_gateway.brokers.sqlite import LogFile, SqliteLog
from ingest_gateway.config import Config
from ingest_gateway.server import running, serve
from tests.ingest_gateway import support
from tests.ingest_gateway.support import ScriptedLog, ask, connect, gateway, headers_for, locked, window
from tests.support.ports import free_port
from tests.support.waiting import until


def flags_of(folder: Path) -> list[str]:
    return [next(iter(json.loads(value)["bucket"]["toggles"])) for _, value in support.log_of(folder)]


class Load:
    """Clients that post one window after another, each under a name of its own, until the gateway ends."""

    def __init__(self, port: int, clients: int) -> None:
        self.acknowledged: set[str] = set()
        self.statuses: dict[int, int] = {}
        self._tasks = [asyncio.create_task(self._post(port, number)) for number in range(clients)]

    async def _post(self, port: int, number: int) -> None:
        sent = 0
        try:
            async with connect(port) as connection:
                while True:
                    name = f"{number}-{sent}"
                    await connection.send("POST", "/api/client/metrics", headers_for(), window(name))
                    reply = await connection.receive()
                    self.statuses[reply.status] = self.statuses.get(reply.status, 0) + 1
                    if reply.status == 202:
                        self.acknowledged.add(name)
                    sent += 1
        except (OSError, EOFError):
            return

    async def ended(self) -> None:
        async with asyncio.timeout(support.SECONDS):
            await asyncio.gather(*self._tasks)

    def stop(self) -> None:
        for task in self._tasks:
            task.cancel()


async def test_everything_that_was_answered_before_the_end_is_in_the_file(tmp_path: Path) -> None:
    async with gateway(tmp_path) as found:
        load = Load(found.port, clients=40)
        await until(lambda: len(load.acknowledged) > 400)
    await load.ended()
    kept = flags_of(tmp_path)
    assert len(kept) == len(set(kept))
    assert load.acknowledged <= set(kept)
    assert set(load.statuses) == {202}


async def test_what_is_in_flight_at_the_end_is_answered(tmp_path: Path) -> None:
    log = ScriptedLog()
    stop = asyncio.Event()
    config = Config(data_dir=tmp_path, gateway_port=0)

    async def serving() -> None:
        async with running(config, support.TABLE, log=log) as found:
            started.set_result(found)
            await stop.wait()

    started = asyncio.get_running_loop().create_future()
    service = asyncio.create_task(serving())
    found = await started
    await until(lambda: found.writer.trouble() is None)
    log.gate.clear()
    async with connect(found.port) as connection, connect(found.port) as idle:
        await connection.send("POST", "/api/client/metrics", headers_for(), window())
        await until(lambda: log.entered == 1)
        stop.set()
        await until(lambda: found.gateway.draining)
        log.gate.set()
        reply = await connection.receive()
        assert reply.status == 202
        assert await connection.ended() == b""
        assert await idle.ended() == b""
    await service
    assert log.closed
    with pytest.raises(OSError, match=r"refused|failed"):
        await ask(found.port)


async def test_a_kept_connection_that_is_used_at_the_end_is_answered_and_closed(tmp_path: Path) -> None:
    stop = asyncio.Event()
    started = asyncio.get_running_loop().create_future()

    async def serving() -> None:
        async with running(Config(data_dir=tmp_path, gateway_port=0), support.TABLE, log=ScriptedLog()) as found:
            started.set_result(found)
            await stop.wait()

    service = asyncio.create_task(serving())
    found = await started
    await until(lambda: found.writer.trouble() is None)
    async with connect(found.port) as kept:
        await kept.send("POST", "/api/client/metrics", headers_for(), window("before"))
        assert (await kept.receive()).headers.get("connection") is None
        stop.set()
        await until(lambda: found.gateway.draining)
        await kept.send("POST", "/api/client/metrics", headers_for(), window("during"))
        last = await kept.receive()
        assert (last.status, last.headers["connection"]) == (202, "close")
        assert await kept.ended() == b""
    await service


async def test_the_port_opens_once_the_broker_takes_events(tmp_path: Path) -> None:
    log = ScriptedLog()
    log.gate.clear()
    port = free_port()
    config = Config(data_dir=tmp_path, gateway_port=port)
    stop = asyncio.Event()

    async def serving() -> None:
        async with running(config, support.TABLE, log=log):
            await stop.wait()

    service = asyncio.create_task(serving())
    await until(lambda: log.probes == 1)
    with pytest.raises(OSError, match=r"refused|failed"):
        await ask(port)
    log.gate.set()

    async def answers() -> bool:
        try:
            return (await ask(port)).status == 202
        except OSError:
            return False

    await until(answers)
    stop.set()
    await service


async def test_readiness_fails_before_the_port_is_closed(tmp_path: Path) -> None:
    stop = asyncio.Event()
    started = asyncio.get_running_loop().create_future()

    async def serving() -> None:
        async with running(
            Config(data_dir=tmp_path, gateway_port=0, unready_seconds=1), support.TABLE, log=ScriptedLog()
        ) as found:
            started.set_result(found)
            await stop.wait()

    service = asyncio.create_task(serving())
    found = await started
    await until(lambda: found.writer.trouble() is None)
    stop.set()
    await until(lambda: found.gateway.draining)
    reply = await ask(found.port, "/readyz", method="GET")
    assert (reply.status, reply.json()["ready"]) == (503, False)
    last = await ask(found.port)
    assert (last.status, last.headers["connection"]) == (202, "close")
    await service


async def test_serve_runs_until_it_is_told_to_stop(tmp_path: Path) -> None:
    stop = asyncio.Event()
    service = asyncio.create_task(serve(Config(data_dir=tmp_path, gateway_port=0), support.TABLE, stop))
    await until((tmp_path / "broker.db").exists)
    assert not service.done()
    stop.set()
    async with asyncio.timeout(support.SECONDS):
        await service


async def test_a_port_in_use_is_an_error_that_closes_everything(tmp_path: Path) -> None:
    log = ScriptedLog()
    async with gateway(tmp_path) as found:
        with pytest.raises(OSError, match="in use"):
            async with running(Config(data_dir=tmp_path, gateway_port=found.port), support.TABLE, log=log):
                pass
    assert log.closed


# The broker goes away and comes back.


async def test_a_locked_file_is_answered_503_within_two_seconds_and_mends_by_itself(tmp_path: Path) -> None:
    async with gateway(tmp_path) as found:
        assert (await ask(found.port, body=window("before"))).status == 202
        async with locked(tmp_path):
            began = time.monotonic()
            replies = await asyncio.gather(*(ask(found.port, body=window(f"during-{n}")) for n in range(30)))
            assert time.monotonic() - began < 2.5  # 2 s, and what a busy machine adds
            assert {reply.status for reply in replies} == {503}
            assert all("retry-after" in reply.headers for reply in replies)
            assert (await ask(found.port, "/readyz", method="GET")).status == 503
        await until(lambda: found.writer.trouble() is None)
        assert (await ask(found.port, "/readyz", method="GET")).status == 200
        assert (await ask(found.port, body=window("after"))).status == 202
    assert flags_of(tmp_path) == ["before", "after"]


async def test_under_load_a_lock_loses_and_doubles_nothing(tmp_path: Path) -> None:
    async with gateway(tmp_path) as found:
        load = Load(found.port, clients=30)
        await until(lambda: len(load.acknowledged) > 100)
        async with locked(tmp_path):
            await until(lambda: load.statuses.get(503, 0) >= 30)
        so_far = len(load.acknowledged)
        await until(lambda: len(load.acknowledged) > so_far + 200)
    await load.ended()
    kept = flags_of(tmp_path)
    assert len(kept) == len(set(kept))
    assert set(kept) == load.acknowledged


async def test_a_full_disk_is_answered_503_and_mends_by_itself(tmp_path: Path) -> None:
    file = LogFile(tmp_path / "broker.db")
    async with gateway(tmp_path, log=SqliteLog(file)) as found:
        assert (await ask(found.port, body=window("before"))).status == 202
        assert file._connection is not None
        file._connection.execute("PRAGMA max_page_count = 1")  # SQLite raises it to the present size
        large = window("during", padding="x" * 100_000)
        reply = await ask(found.port, body=large)
        assert (reply.status, "retry-after" in reply.headers) == (503, True)
        unready = await ask(found.port, "/readyz", method="GET")
        assert "full" in unready.json()["reasons"][0]
        file._connection.execute("PRAGMA max_page_count = 100000")
        await until(lambda: found.writer.trouble() is None)
        assert (await ask(found.port, body=window("after"))).status == 202
    assert flags_of(tmp_path) == ["before", "after"]


async def test_a_commit_that_hangs_is_503_in_doubt_and_later_in_the_file(tmp_path: Path) -> None:
    release = asyncio.Event()
    loop = asyncio.get_running_loop()

    class SlowDisk(LogFile):
        def _commit(self, connection: sqlite3.Connection) -> None:
            asyncio.run_coroutine_threadsafe(release.wait(), loop).result(support.SECONDS)
            super()._commit(connection)

    log = SqliteLog(SlowDisk(tmp_path / "broker.db"))
    async with gateway(tmp_path, log=log, bounds=support.QUICK) as found, connect(found.port) as edge:
        await edge.send("POST", "/api/client/metrics/bulk", headers_for(), json.dumps(support.BULK).encode())
        await until(lambda: found.door.requests == 1)
        assert (await ask(found.port)).status == 503
        await until(lambda: found.writer.trouble() is not None)
        release.set()
        assert (await edge.receive()).status == 202
    assert support.log_of(tmp_path)[0][0].kind == "bulk"


async def test_it_starts_without_its_broker_and_is_ready_once_that_is_there(tmp_path: Path) -> None:
    folder = tmp_path / "later"
    async with gateway(folder, ready=False) as found:
        unready = await ask(found.port, "/readyz", method="GET")
        assert unready.status == 503
        assert unready.json()["reasons"]
        assert (await ask(found.port)).status == 503
        folder.mkdir()
        await until(lambda: found.writer.trouble() is None)
        assert (await ask(found.port)).status == 202


async def test_two_gateways_share_one_file(tmp_path: Path) -> None:
    async with gateway(tmp_path) as one, gateway(tmp_path) as other:
        loads = [Load(found.port, clients=10) for found in (one, other)]
        await until(lambda: all(len(load.acknowledged) > 100 for load in loads))
    for load in loads:
        await load.ended()
    assert len(flags_of(tmp_path)) == sum(len(load.acknowledged) for load in loads)
