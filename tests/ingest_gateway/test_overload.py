"""A thousand SDKs while the broker is away (issue 3, acceptance 5): bounded memory, quick refusals, nothing lost."""

import asyncio
import json
import time
from collections import Counter
from pathlib import Path

import psutil
import pytest

from tests.ingest_gateway import support
from tests.ingest_gateway.process import gateway_process

CLIENTS = 1000
AWAY_SECONDS = 60.0
TURN_SECONDS = 8.0
MAX_GROWTH = 64 * 1024 * 1024
TOGGLES = {f"feature-{n}": {"yes": n, "no": 2, "variants": {"blue": 6, "green": 15}} for n in range(20)}


class Fleet:
    """Clients that post windows of 20 flags, each under an instance id of its own."""

    def __init__(self, port: int) -> None:
        self._port = port
        self.statuses: Counter[int] = Counter()
        self.acknowledged: set[str] = set()
        self.slowest = 0.0
        self._tasks = [asyncio.create_task(self._post(number)) for number in range(CLIENTS)]

    async def _post(self, number: int) -> None:
        async with support.connect(self._port) as connection:
            for sent in range(1_000_000):
                name = f"{number}-{sent}"
                bucket = {"start": "2026-11-22T12:00:00Z", "stop": "2026-11-22T12:01:00Z", "toggles": TOGGLES}
                body = json.dumps({"appName": "shop", "instanceId": name, "bucket": bucket}).encode()
                began = time.monotonic()
                await connection.send("POST", "/api/client/metrics", support.headers_for(), body)
                reply = await connection.receive()
                self.slowest = max(self.slowest, time.monotonic() - began)
                self.statuses[reply.status] += 1
                if reply.status == 202:
                    self.acknowledged.add(name)

    async def rate(self, gateway: psutil.Process) -> float:
        """Acknowledged posts for each second of the gateway's own processor time: others share the machine."""
        before, used = len(self.acknowledged), sum(gateway.cpu_times()[:2])
        await asyncio.sleep(TURN_SECONDS)
        return (len(self.acknowledged) - before) / (sum(gateway.cpu_times()[:2]) - used)

    async def stop(self) -> None:
        failed = [task for task in self._tasks if task.done()]
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        assert not failed, failed[0]


@pytest.mark.slow
async def test_a_minute_without_the_broker_costs_little_memory_and_no_acknowledged_window(tmp_path: Path) -> None:
    with gateway_process(tmp_path) as process:
        process.await_ready()
        watched = psutil.Process(process.process.pid)
        fleet = Fleet(process.port)
        rate_before = await fleet.rate(watched)
        resident = watched.memory_info().rss
        most = resident
        async with support.locked(tmp_path):
            fleet.statuses.clear()
            until = time.monotonic() + AWAY_SECONDS
            while time.monotonic() < until:
                await asyncio.sleep(0.2)
                most = max(most, watched.memory_info().rss)
            refused = fleet.statuses[503]
        rate_after = await fleet.rate(watched)
        statuses = dict(fleet.statuses)
        await fleet.stop()
        process.end()
    print(f"{rate_before=:.0f} {rate_after=:.0f} {refused=} {statuses=} growth={(most - resident) / 2**20:.1f} MiB")
    print(f"{fleet.slowest=:.2f}")
    assert refused > CLIENTS
    assert set(statuses) == {202, 503}
    assert most - resident < MAX_GROWTH
    assert rate_after > 0.7 * rate_before
    kept = Counter(json.loads(value)["instanceId"] for _, value in support.log_of(tmp_path))
    assert max(kept.values()) == 1
    assert fleet.acknowledged <= set(kept)
