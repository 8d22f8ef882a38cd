"""Kafka is frozen, or killed, under a thousand connections: what is answered, what it costs, what the topic holds."""

import asyncio
import contextlib
import json
import os
import re
import statistics
import time
from bisect import bisect_left
from collections import Counter
from collections.abc import Awaitable, Callable
from pathlib import Path

import psutil
import pytest

from tests.ingest_gateway.process import GatewayProcess, gateway_process
from tests.ingest_gateway.support import ask, connect, headers_for
from tests.support.kafka import Cluster, KafkaProcess
from tests.support.topics import records_of

CONNECTIONS = 1000
EDGES = 20
PARTITIONS = 6
AWAY_SECONDS = 60
STEADY_SECONDS = 10
WARM_SECONDS = 6
RETURN_SECONDS = 5
SLACK = 0.5
"""What client and gateway add, beside how late the client's own loop is."""

_NAME = re.compile(rb"(?:sdk|edge)-\d+-\d+")

TOGGLES = {f"feature-{at}": {"yes": 1, "no": 0, "variants": {"blue": 1, "green": 0}} for at in range(20)}
BUCKET = json.dumps({"start": "2026-11-22T12:00:00.000Z", "stop": "2026-11-22T12:01:00.000Z", "toggles": TOGGLES})


class Load:
    """SDKs and Edges that post until told to stop, each post under a name of its own; notes every answer."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.acknowledged: set[str] = set()
        self.times: list[float] = []
        """When each of them was."""
        self.slow: list[float] = []
        """Answers 503 to single windows: how long each took."""
        self.answers: Counter[str] = Counter()
        self.without_retry_after = 0
        self.ending = False

    async def run(self) -> None:
        sdks = (self._posts(f"sdk-{number}", self._window) for number in range(CONNECTIONS))
        edges = (self._posts(f"edge-{number}", self._bulk) for number in range(EDGES))
        await asyncio.gather(*sdks, *edges)

    def _window(self, name: str) -> tuple[str, bytes]:
        return "/api/client/metrics", f'{{"appName":"shop","instanceId":"{name}","bucket":{BUCKET}}}'.encode()

    def _bulk(self, name: str) -> tuple[str, bytes]:
        entry = {"featureName": "f", "appName": name, "environment": "e", "timestamp": "2026-11-22T12:00:00Z", "yes": 1}
        return "/api/client/metrics/bulk", json.dumps({"applications": [], "metrics": [entry | {"no": 0}]}).encode()

    async def _posts(self, who: str, make: Callable[[str], tuple[str, bytes]]) -> None:
        sent, kind = 0, who.partition("-")[0]
        while not self.ending:
            async with connect(self.port) as connection:
                while not self.ending:
                    name = f"{who}-{sent}"
                    sent += 1
                    path, body = make(name)
                    began = time.monotonic()
                    await connection.send("POST", path, headers_for(unleash_connection_id=who), body)
                    try:
                        reply = await connection.receive(seconds=AWAY_SECONDS + 30)
                    except (OSError, EOFError):  # in doubt: an Edge gets no answer, and repeats
                        self.answers[f"{kind} cut"] += 1
                        break
                    self.answers[f"{kind} {reply.status}"] += 1
                    if reply.status == 202:
                        self.acknowledged.add(name)
                        self.times.append(time.monotonic())
                        continue
                    self.without_retry_after += "retry-after" not in reply.headers
                    if kind == "sdk":
                        self.slow.append(time.monotonic() - began)
                    await asyncio.sleep(
                        0.5
                    )  # an SDK waits, too; and the client must not take the cores that it measures

    def rate(self, begin: float, seconds: float) -> float:
        """Acknowledgements a second from `begin` on."""
        return (bisect_left(self.times, begin + seconds) - bisect_left(self.times, begin)) / seconds

    def full_again(self, since: float, rate: float) -> float:
        """How many seconds after `since` it was at this rate again, over two seconds."""
        return next((at for at in map((0.25).__mul__, range(200)) if self.rate(since + at, 2) >= rate), 999.0)


class Machine:
    """How much of the machine others leave: rates are compared by it, since a test need not run alone."""

    def __init__(self, *ours: Callable[[], int]) -> None:
        self._ours = ours
        self._known: dict[int, float] = {}
        self._taken = 0.0
        """Processor seconds of all our processes, also of those that ended."""
        self._at: list[float] = []
        self._others: list[float] = []
        self.late = 0.0
        """How long this process was held up at most."""

    async def watch(self) -> None:
        while True:
            self._look()
            await asyncio.sleep(0.1)
            self.late = max(self.late, time.monotonic() - self._at[-1] - 0.1)

    def _look(self) -> None:
        for pid in (number() for number in self._ours):
            with contextlib.suppress(psutil.Error):
                used = sum(psutil.Process(pid).cpu_times()[:2])
                self._taken += used - self._known.get(pid, used)
                self._known[pid] = used
        times = psutil.cpu_times()
        self._at.append(time.monotonic())
        self._others.append(times.user + times.system + times.nice - self._taken)

    def free(self, begin: float, seconds: float) -> float:
        """Give the share of all cores that others left in this time."""
        first, last = bisect_left(self._at, begin), bisect_left(self._at, begin + seconds) - 1
        others = (self._others[last] - self._others[first]) / (self._at[last] - self._at[first])
        return 1 - others / (os.cpu_count() or 1)


async def broken(kafka: KafkaProcess, folder: Path, away: Callable[[KafkaProcess], Awaitable[None]], what: str) -> None:
    """Post all the time while Kafka goes away and comes back; check everything that acceptance asks for."""
    await asyncio.to_thread(kafka.start)
    cluster = Cluster(kafka.address)
    topic = await cluster.make_topic(partitions=PARTITIONS)
    with gateway_process(folder, broker_url=cluster.url(topic)) as gateway:
        gateway.await_ready()
        measured = psutil.Process(gateway.process.pid)
        load = Load(gateway.port)
        machine = Machine(os.getpid, lambda: gateway.process.pid, lambda: kafka.process.pid if kafka.process else 0)
        watching = [asyncio.create_task(machine.watch())]
        running = asyncio.create_task(load.run())
        seen: list[int] = []

        async def watch() -> None:
            while True:
                seen.append(measured.memory_info().rss)
                await asyncio.sleep(0.1)

        await asyncio.sleep(WARM_SECONDS + STEADY_SECONDS)
        left = time.monotonic()
        steady = load.rate(left - STEADY_SECONDS, STEADY_SECONDS)
        before = dict(load.answers)
        rss = measured.memory_info().rss
        watching.append(asyncio.create_task(watch()))
        await away(kafka)
        back = time.monotonic()
        ready = await ready_at(gateway)
        await asyncio.sleep(max(0.0, back + RETURN_SECONDS + STEADY_SECONDS - time.monotonic()))
        load.ending = True
        await running
        for task in watching:
            task.cancel()
        growth = (max(seen) - rss) / 1024**2
        assert gateway.process.poll() is None, "no restart"
        status, log = gateway.end()
    found = Counter(
        _NAME.search(record.value)[0].decode() for record in await records_of(cluster.address, topic, PARTITIONS)
    )
    lost = load.acknowledged - found.keys()
    doubled = {name: count for name, count in found.items() if count > 1}
    during = {kind: count - before.get(kind, 0) for kind, count in load.answers.items()}
    free, free_again = machine.free(left - STEADY_SECONDS, STEADY_SECONDS), machine.free(back, RETURN_SECONDS + 2)
    full = load.full_again(back, 0.8 * steady * min(1.0, free_again / free))
    load.slow.sort()
    late = sum(seconds > 2 + SLACK + machine.late for seconds in load.slow)
    print(
        f"\n{what} for {AWAY_SECONDS} s under {CONNECTIONS} connections and {EDGES} Edges: "
        f"answers from then on {during}; 503: median {statistics.median(load.slow):.2f} s, {late} after more than 2 s, "
        f"slowest {load.slow[-1]:.2f} s; "
        f"RSS {rss / 1024**2:.0f} MiB +{growth:.1f}; rate before {steady:.0f}/s, again after {full:.2f} s, "
        f"then {load.rate(back + RETURN_SECONDS, STEADY_SECONDS):.0f}/s; ready after {ready - back:.2f} s; "
        f"others left {free:.0%} of the machine before, {free_again:.0%} after, and held the "
        f"client up for {machine.late:.2f} s; {len(load.acknowledged)} acknowledged, {sum(found.values())} in the topic"
    )
    assert status == 0, log
    assert not lost, f"{len(lost)} acknowledged posts are not in the topic"
    assert not doubled, f"{len(doubled)} posts are in the topic more than once"
    assert set(load.answers) <= {"sdk 202", "sdk 503", "edge 202", "edge 503", "edge cut"}
    assert before.keys() == {"sdk 202", "edge 202"}, before
    assert load.without_retry_after == 0
    assert load.slow[-1] < 4.5 + SLACK + machine.late, "in doubt: 4.5 s"
    assert late <= CONNECTIONS, "only what was in flight when Kafka went away may have waited for longer than 2 s"
    assert growth < 64
    assert full <= RETURN_SECONDS


async def ready_at(gateway: GatewayProcess) -> float:
    while (await asyncio.to_thread(gateway.get, "/readyz"))[0] != 200:
        await asyncio.sleep(0.05)
    return time.monotonic()


@pytest.mark.slow
async def test_a_frozen_kafka(own_kafka: KafkaProcess, tmp_path: Path) -> None:
    async def freeze(kafka: KafkaProcess) -> None:
        kafka.freeze()
        await asyncio.sleep(AWAY_SECONDS)
        kafka.thaw()

    await broken(own_kafka, tmp_path / "gateway", freeze, "frozen")


@pytest.mark.slow
async def test_a_killed_kafka(own_kafka: KafkaProcess, tmp_path: Path) -> None:
    async def kill(kafka: KafkaProcess) -> None:
        kafka.kill()
        await asyncio.sleep(AWAY_SECONDS)
        await asyncio.to_thread(kafka.start)

    await broken(own_kafka, tmp_path / "gateway", kill, "killed")


@pytest.mark.slow
async def test_a_gateway_ends_in_time_while_kafka_is_frozen(own_kafka: KafkaProcess, tmp_path: Path) -> None:
    await asyncio.to_thread(own_kafka.start)
    topic = await Cluster(own_kafka.address).make_topic()
    with gateway_process(tmp_path / "gateway", broker_url=own_kafka.url(topic)) as gateway:
        gateway.await_ready()
        assert (await ask(gateway.port)).status == 202
        own_kafka.freeze()
        assert (await ask(gateway.port)).status == 503
        assert gateway.get("/readyz")[0] == 503
        status, log = await asyncio.to_thread(gateway.end)
        own_kafka.thaw()
    assert status == 0
    assert "nothing that it holds back was acknowledged" in log
    assert "Traceback" not in log
