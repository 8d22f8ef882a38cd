"""The broker goes away under a thousand connections (acceptance 5)."""

import asyncio
import resource
import sqlite3
import statistics
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import aiohttp
import msgspec
import pytest

from tests.support.stack import Stack
from tests.support.waiting import wait_for

CONNECTIONS = 1000
AWAY_SECONDS = 60
TOGGLES = {f"feature-{at}": {"yes": 1, "no": 0, "variants": {"blue": 1, "green": 0}} for at in range(20)}


def body(number: int) -> bytes:
    bucket = {"start": "2026-11-22T12:00:00.000Z", "stop": "2026-11-22T12:01:00.000Z", "toggles": TOGGLES}
    return msgspec.json.encode({"appName": "insurance-selector", "instanceId": f"instance-{number}", "bucket": bucket})


class Load:
    """Posts from many connections until told to stop; notes each answer."""

    def __init__(self, stack: Stack) -> None:
        self.url = f"{stack.gateway}/api/client/metrics"
        self.headers = {"Authorization": stack.tokens["backend"], "Content-Type": "application/json"}
        self.answers: Counter[str] = Counter()
        self.seconds: list[float] = []
        self.without_retry_after = 0

    async def run(self, until: Callable[[], bool], connections: int = CONNECTIONS) -> None:
        connector = aiohttp.TCPConnector(limit=connections)
        timeout = aiohttp.ClientTimeout(total=20)
        async with aiohttp.ClientSession(connector=connector, timeout=timeout, headers=self.headers) as session:

            async def one(number: int) -> None:
                content = body(number)
                while not until():
                    began = time.monotonic()
                    async with session.post(self.url, data=content) as answer:
                        await answer.read()
                        self.answers[str(answer.status)] += 1
                        self.seconds.append(time.monotonic() - began)
                        if answer.status == 503:
                            self.without_retry_after += "Retry-After" not in answer.headers
                            # An SDK waits, too; and the client must not take the cores that it measures.
                            await asyncio.sleep(0.5)

            await asyncio.gather(*(one(number) for number in range(connections)))


async def measured(stack: Stack, seconds: float) -> tuple[Load, float]:
    load = Load(stack)
    end = time.monotonic() + seconds
    await load.run(lambda: time.monotonic() > end)
    return load, load.answers["202"] / seconds


def stored(stack: Stack) -> int:
    return stack.number("SELECT sum(yes) FROM evaluations WHERE app_name = 'insurance-selector'")


@pytest.mark.slow
async def test_a_locked_file_gives_503_within_two_seconds_and_no_growth(own_stack: Stack) -> None:
    stack = own_stack.start()
    before, rate_before = await measured(stack, 8)
    gateway = stack.child("gateway")
    rss_before = gateway.memory_info().rss
    largest = rss_before
    lock = sqlite3.connect(stack.data_dir / "broker.db", isolation_level=None, check_same_thread=False, timeout=10)
    lock.execute("BEGIN EXCLUSIVE")
    # What was under way when the lock came may still be answered 202; measure from here on.
    away = Load(stack)
    end = time.monotonic() + AWAY_SECONDS
    task = asyncio.create_task(away.run(lambda: time.monotonic() > end))
    while not task.done():
        largest = max(largest, gateway.memory_info().rss)
        await asyncio.wait({task}, timeout=0.25)
    await task
    lock.execute("ROLLBACK")
    lock.close()
    growth = (largest - rss_before) / 1024**2
    ordered = sorted(away.seconds)
    slowest, p99 = ordered[-1], ordered[int(len(ordered) * 0.99)]
    wait_for(lambda: stack.ready("gateway"), seconds=5, what="the gateway's readiness")
    after, rate_after = await measured(stack, 8)
    acknowledged = 20 * (before.answers["202"] + away.answers["202"] + after.answers["202"])
    wait_for(lambda: stored(stack) >= acknowledged, seconds=60, what="the last count")
    print(
        f"\nlocked for {AWAY_SECONDS} s under {CONNECTIONS} connections: answers {dict(away.answers)}, median "
        f"{statistics.median(ordered):.2f} s, p99 {p99:.2f} s, slowest {slowest:.2f} s; "
        f"RSS {rss_before / 1024**2:.0f} MiB +{growth:.1f}; rate before {rate_before:.0f}/s, after {rate_after:.0f}/s"
    )
    assert stored(stack) == acknowledged
    assert set(away.answers) == {"503"}
    assert away.without_retry_after == 0
    assert slowest < 2.5, "2 s, and what the loaded client itself adds"
    assert growth < 64
    assert rate_after > 0.7 * rate_before
    assert stack.child("gateway").pid == gateway.pid, "no restart"


async def test_a_full_disk_gives_503_and_everything_acknowledged_is_kept(own_stack: Stack) -> None:
    stack = own_stack.start()
    gateway = stack.child("gateway")
    acknowledged = 0
    for number in range(20):
        acknowledged += stack.post("/api/client/metrics", body(number)).status == 202
    assert acknowledged == 20
    log = Path(stack.data_dir / "broker.db-wal")
    limits = resource.prlimit(gateway.pid, resource.RLIMIT_FSIZE)
    # A file that may not grow is, to the writer, a disk that is full.
    resource.prlimit(gateway.pid, resource.RLIMIT_FSIZE, (log.stat().st_size, limits[1]))
    began = time.monotonic()
    answers = [stack.post("/api/client/metrics", body(number)) for number in range(100, 110)]
    refused = [answer for answer in answers if answer.status == 503]
    acknowledged += sum(answer.status == 202 for answer in answers)
    assert refused, "the disk was full"
    assert len(refused) + sum(answer.status == 202 for answer in answers) == 10
    assert all("Retry-After" in answer.headers for answer in refused)
    assert time.monotonic() - began < 20
    resource.prlimit(gateway.pid, resource.RLIMIT_FSIZE, limits)
    wait_for(lambda: stack.post("/api/client/metrics", body(200)).status == 202, seconds=10, what="an acknowledgement")
    acknowledged += 1
    wait_for(lambda: stored(stack) >= 20 * acknowledged, what="the last count")
    assert stored(stack) == 20 * acknowledged
    assert stack.child("gateway").pid == gateway.pid
