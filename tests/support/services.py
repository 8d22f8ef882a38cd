"""flagmeter as platform teams run it: a Kafka, a store, and each service a process of its own."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from aiokafka import AIOKafkaConsumer, TopicPartition

from deploy.config import MigrateConfig
from deploy.migrate_command import Job
from tests.support.client import Answer, is_ok, request
from tests.support.environment import ROOT, variables
from tests.support.ports import free_port
from tests.support.store import StoreProcess
from tests.support.waiting import wait_for

READY_SECONDS = 60
STOP_SECONDS = 40
TOKEN = "default:development.0123456789abcdef"
ADMIN = "*:*.fedcba9876543210"
PARTITIONS = 6
FLUSH_SECONDS = 0.5


class ServiceProcess:
    """One service process; may be stopped, killed, frozen and started again."""

    def __init__(self, package: str, folder: Path, port: int, **settings: object) -> None:
        self.package = package
        self.port = port
        self.kill_point = folder / f"{package}-{port}.kill"
        self.log = folder / f"{package}-{port}.log"
        if package == "aggregator":
            settings["kill_point_file"] = self.kill_point
        self._environment = variables(**settings)
        self.process: subprocess.Popen[bytes] | None = None

    def start(self, *, ready: bool = True) -> "ServiceProcess":
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", self.package], env=self._environment, stdout=log, stderr=log, cwd=ROOT
            )
        if ready:
            wait_for(self.is_ready, seconds=READY_SECONDS, what=f"the start of {self.package}")
        return self

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def pid(self) -> int:
        assert self.process is not None
        return self.process.pid

    def is_running(self) -> bool:
        return self.process is not None and self.process.poll() is None

    def is_ready(self) -> bool:
        assert self.is_running(), self.log.read_text()[-4000:]
        return is_ok(f"{self.url}/readyz")

    def readyz(self) -> tuple[int, dict[str, Any]]:
        answer = request("GET", f"{self.url}/readyz", timeout=5)
        return answer.status, answer.json()

    def metric(self, name: str) -> float:
        """Add up all series of a metric."""
        lines = request("GET", f"{self.url}/metrics", timeout=5).text.splitlines()
        found = [line.rsplit(" ", 1)[1] for line in lines if line.startswith((f"{name} ", f"{name}{{"))]
        return sum(float(value) for value in found)

    def stop(self) -> int:
        """End it as an operator does; gives its exit status."""
        assert self.process is not None
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(STOP_SECONDS)

    def kill(self) -> None:
        """End it without asking, where it runs."""
        if self.is_running():
            assert self.process is not None
            self.process.kill()
            self.process.wait(STOP_SECONDS)

    def freeze(self) -> None:
        os.kill(self.pid, signal.SIGSTOP)

    def thaw(self) -> None:
        os.kill(self.pid, signal.SIGCONT)

    def die_at(self, point: str) -> None:
        """Let it die by SIGKILL at the next such point, and wait for that."""
        fresh = self.kill_point.with_suffix(".new")
        fresh.write_text(point)
        fresh.rename(self.kill_point)
        assert self.process is not None
        self.process.wait(60)


class Deployment:
    """The services over a Kafka topic and a store of their own."""

    def __init__(self, folder: Path, broker_url: str) -> None:
        self.folder = folder
        self.broker_url = broker_url
        self.store = StoreProcess(folder / "store")
        self.tokens = folder / "tokens.json"
        self.services: list[ServiceProcess] = []
        folder.mkdir(parents=True, exist_ok=True)

    def start(self, *, partitions: int = PARTITIONS) -> "Deployment":
        everywhere = {"projects": ["*"], "environment": "*"}
        here = {"projects": ["default"], "environment": "development"}
        tokens = [{"token": TOKEN, "type": "backend", **here}, {"token": ADMIN, "type": "admin", **everywhere}]
        self.tokens.write_text(json.dumps({"tokens": tokens}))
        self.store.start()
        config = MigrateConfig(
            broker_url=self.broker_url,  # type: ignore[arg-type]
            clickhouse_url=self.store.url,  # type: ignore[arg-type]
            flush_seconds=FLUSH_SECONDS,
        )
        Job(config, partitions=partitions, replication=None, wait_seconds=30).run(lambda _: None)
        return self

    def service(self, package: str, port_name: str, **settings: object) -> ServiceProcess:
        port = free_port()
        known = {
            "broker_url": self.broker_url,
            "clickhouse_url": self.store.url,
            "tokens_file": self.tokens,
            "flush_seconds": FLUSH_SECONDS,
            port_name: port,
        }
        made = ServiceProcess(package, self.folder, port, **(known | settings))
        self.services.append(made)
        return made

    def gateway(self, **settings: object) -> ServiceProcess:
        return self.service("ingest_gateway", "gateway_port", **settings)

    def aggregator(self, **settings: object) -> ServiceProcess:
        return self.service("aggregator", "aggregator_port", **settings)

    def close(self) -> None:
        for service in self.services:
            service.kill()
        self.store.kill()

    # Use -------------------------------------------------------------------------------------------------------------

    def post(self, gateway: ServiceProcess, path: str, body: bytes, **headers: str) -> Answer:
        known = {"Authorization": TOKEN, "Content-Type": "application/json"}
        return request("POST", gateway.url + path, headers=known | headers, body=body)

    def sql(self, query: str) -> list[list[Any]]:
        answer = self.store.visitor(query, default_format="JSONCompact")
        assert answer.status == 200, answer.text
        return list(answer.json()["data"])

    def owned(self) -> dict[int, list[int]]:
        """Give the partitions of each running aggregator, by its port."""
        running = [each for each in self.services if each.package == "aggregator" and each.is_running()]
        return {each.port: each.readyz()[1]["partitions"] for each in running}

    async def in_the_log(self) -> dict[int, list[bytes]]:
        """Read the topic's values, by partition, with a plain consumer."""
        servers, _, topic = self.broker_url.removeprefix("kafka://").partition("/")
        consumer = AIOKafkaConsumer(bootstrap_servers=servers, enable_auto_commit=False)
        await consumer.start()
        try:
            consumer.subscribe([topic])
            await consumer._client._wait_on_metadata(topic)
            found: dict[int, list[bytes]] = {}
            numbers = consumer.partitions_for_topic(topic) or set()
            partitions = [TopicPartition(topic, number) for number in sorted(numbers)]
            consumer.unsubscribe()
            consumer.assign(partitions)
            ends = await consumer.end_offsets(partitions)
            for at in partitions:
                consumer.seek(at, 0)
            for at in partitions:
                values = found.setdefault(at.partition, [])
                while len(values) < ends[at]:
                    for records in (await consumer.getmany(at, timeout_ms=1000)).values():
                        values += [record.value for record in records]
            return found
        finally:
            await consumer.stop()

    def check_markers(self, records: dict[int, int]) -> None:
        """Make sure that the batches of each partition have neither hole nor duplicate, up to its number of records."""

        def ends() -> dict[int, int]:
            found = self.sql(
                "SELECT feature, max(variant) FROM evaluations_hourly WHERE project = '__batch__' GROUP BY feature"
            )
            return {int(partition): int(last) for partition, last in found}

        wanted = {partition: count - 1 for partition, count in records.items() if count}
        wait_for(lambda: ends() == wanted, seconds=120, what=f"the last records {wanted}, after {ends()}")
        rows = self.sql(
            "SELECT feature, variable, variant, toString(sum(count)) FROM evaluations_hourly "
            "WHERE project = '__batch__' GROUP BY feature, variable, variant ORDER BY feature, variable"
        )
        position = dict.fromkeys(wanted, 0)
        for partition, first, last, times in rows:
            assert (int(first), int(times)) == (position[int(partition)], 1), "a hole or a duplicate"
            position[int(partition)] = int(last) + 1

    def wait_for_owners(self, condition: Callable[[dict[int, list[int]]], bool]) -> None:
        wait_for(lambda: condition(self.owned()), seconds=60, what=f"the partitions' owners, {self.owned()}")
