"""A real single-node Kafka (KRaft) as a process, without Docker: its jars from Maven, on Java 17 or newer."""

import asyncio
import base64
import fcntl
import os
import shutil
import signal
import subprocess
import time
import uuid
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final

import trustme
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.conn import create_conn
from aiokafka.errors import KafkaError
from aiokafka.protocol.metadata import MetadataRequest
from cryptography.hazmat.primitives import serialization

from schemas.kafka_topic import SETTINGS
from tests.support import needs
from tests.support.environment import ROOT
from tests.support.ports import free_port

VERSION: Final = "4.3.1"
USER, PASSWORD = "flagmeter", "correct-horse-battery"
STRANGER = "stranger"
"""A second user, with the same password, who may do only what a test allows."""
READY_SECONDS: Final = 60
_JARS: Final = ROOT / ".venv" / f"kafka-{VERSION}"
_HERE: Final = Path(__file__).parent

_PROPERTIES: Final = """
process.roles=broker,controller
node.id=1
controller.quorum.bootstrap.servers=127.0.0.1:{controller}
listeners=PLAINTEXT://127.0.0.1:{plain},SSL://127.0.0.1:{ssl},SASL_PLAINTEXT://127.0.0.1:{sasl},\
SASL_SSL://127.0.0.1:{sasl_ssl},CONTROLLER://127.0.0.1:{controller}
advertised.listeners=PLAINTEXT://127.0.0.1:{plain},SSL://127.0.0.1:{ssl},SASL_PLAINTEXT://127.0.0.1:{sasl},\
SASL_SSL://127.0.0.1:{sasl_ssl},CONTROLLER://127.0.0.1:{controller}
listener.security.protocol.map=PLAINTEXT:PLAINTEXT,SSL:SSL,SASL_PLAINTEXT:SASL_PLAINTEXT,SASL_SSL:SASL_SSL,\
CONTROLLER:PLAINTEXT
controller.listener.names=CONTROLLER
inter.broker.listener.name=PLAINTEXT
sasl.enabled.mechanisms=SCRAM-SHA-512
authorizer.class.name=org.apache.kafka.metadata.authorizer.StandardAuthorizer
super.users=User:ANONYMOUS;User:flagmeter
ssl.keystore.type=PEM
ssl.keystore.location={keystore}
ssl.truststore.type=PEM
ssl.truststore.location={truststore}
log.dirs={data}
auto.create.topics.enable=false
offsets.topic.num.partitions=1
offsets.topic.replication.factor=1
transaction.state.log.num.partitions=1
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
share.coordinator.state.topic.num.partitions=1
share.coordinator.state.topic.replication.factor=1
share.coordinator.state.topic.min.isr=1
group.initial.rebalance.delay.ms=0
group.min.session.timeout.ms=1000
broker.session.timeout.ms=2000
broker.heartbeat.interval.ms=500
log.retention.check.interval.ms=1000
log.initial.task.delay.ms=1000
num.network.threads=2
num.io.threads=4
log.cleaner.dedupe.buffer.size=4194304
log.index.size.max.bytes=1048576
"""

IN_A_CONTAINER: Final = {
    "KAFKA_AUTO_CREATE_TOPICS_ENABLE": "false",
    "KAFKA_GROUP_MIN_SESSION_TIMEOUT_MS": "1000",
    "KAFKA_LOG_RETENTION_CHECK_INTERVAL_MS": "1000",
    "KAFKA_LOG_INITIAL_TASK_DELAY_MS": "1000",
    "KAFKA_TRANSACTION_STATE_LOG_REPLICATION_FACTOR": "1",
    "KAFKA_TRANSACTION_STATE_LOG_MIN_ISR": "1",
}
"""What the tests need of a broker that comes as a container, beside the container's own settings."""


def jars() -> Path:
    """Give the folder with Kafka's jars; fetches them once. Skips, or fails, where Java 17 or Maven is missing."""
    needs.java(17)
    if (_JARS / "done").exists():
        return _JARS
    needs.program("mvn")
    _JARS.parent.mkdir(exist_ok=True)
    with (_JARS.parent / "kafka.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (_JARS / "done").exists():
            shutil.rmtree(_JARS, ignore_errors=True)
            command = ["mvn", "-q", "-B", "-f", str(_HERE / "kafka_jars" / "pom.xml"), "dependency:copy-dependencies"]
            command += [f"-DoutputDirectory={_JARS}", "-DincludeScope=runtime"]
            subprocess.run(command, check=True, timeout=600)
            (_JARS / "done").touch()
    return _JARS


class KafkaProcess:
    """One broker; may be stopped, killed, frozen and started again with its data."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self.plain, self.ssl, self.sasl, self.sasl_ssl, self._controller = (free_port() for _ in range(5))
        self.log = folder / "kafka.log"
        self.ca_file = folder / "ca.pem"
        self.process: subprocess.Popen[bytes] | None = None
        self._properties = folder / "server.properties"

    # Life ------------------------------------------------------------------------------------------------------------

    def start(self) -> "KafkaProcess":
        classpath = f"{jars()}/*"
        if not self._properties.exists():
            self._format(classpath)
        options = ["-Xmx512m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1"]
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                ["setpriv", "--pdeathsig", "KILL"] * bool(shutil.which("setpriv"))
                + ["java", *options, "-cp", classpath, "kafka.Kafka", str(self._properties)],
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        with ThreadPoolExecutor(1) as thread:  # the test may have an event loop of its own
            thread.submit(lambda: asyncio.run(self._answers())).result()
        return self

    def _format(self, classpath: str) -> None:
        authority = trustme.CA()
        certificate = authority.issue_cert("127.0.0.1", "localhost")
        key = serialization.load_pem_private_key(certificate.private_key_pem.bytes(), None)
        keystore = key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        keystore += b"".join(part.bytes() for part in certificate.cert_chain_pems)
        (self.folder / "keystore.pem").write_bytes(keystore)
        authority.cert_pem.write_to_path(self.ca_file)
        self._properties.write_text(
            _PROPERTIES.format(
                plain=self.plain,
                ssl=self.ssl,
                sasl=self.sasl,
                sasl_ssl=self.sasl_ssl,
                controller=self._controller,
                data=self.folder / "data",
                keystore=self.folder / "keystore.pem",
                truststore=self.ca_file,
            )
            + "".join(
                f"listener.name.{name}.scram-sha-512.sasl.jaas.config="
                "org.apache.kafka.common.security.scram.ScramLoginModule required;\n"
                for name in ("sasl_plaintext", "sasl_ssl")
            )
        )
        # An id that begins with a dash would be taken for an option.
        cluster = base64.urlsafe_b64encode(b"\0" + uuid.uuid4().bytes[1:]).decode().rstrip("=")
        command = ["java", "-cp", classpath, "kafka.tools.StorageTool", "format", "--standalone", "-t", cluster]
        command += ["-c", str(self._properties)]
        for user in (USER, STRANGER):
            command += ["--add-scram", f"SCRAM-SHA-512=[name={user},password={PASSWORD}]"]
        subprocess.run(command, check=True, capture_output=True)

    async def _answers(self) -> None:
        """Wait until Metadata names a broker: a connection alone is too early."""
        deadline = time.monotonic() + READY_SECONDS
        while True:
            assert self.process is not None
            assert self.process.poll() is None, self.log.read_text()[-4000:]
            assert time.monotonic() < deadline, self.log.read_text()[-4000:]
            try:
                connection = await create_conn("127.0.0.1", self.plain, request_timeout_ms=2000)
                try:
                    answer = await connection.send(MetadataRequest([]))
                finally:
                    connection.close()
                if answer.brokers:
                    return
            except (OSError, KafkaError, TimeoutError):
                pass
            await asyncio.sleep(0.1)

    def stop(self) -> None:
        """End it as an operator does."""
        assert self.process is not None
        self.process.terminate()
        self.process.wait(30)

    def kill(self) -> None:
        """End it without asking, where it runs."""
        if self.process is not None and self.process.poll() is None:
            self.process.kill()
            self.process.wait(30)

    def freeze(self) -> None:
        self._send(signal.SIGSTOP)

    def thaw(self) -> None:
        self._send(signal.SIGCONT)

    def _send(self, number: signal.Signals) -> None:
        assert self.process is not None
        os.kill(self.process.pid, number)

    # Use -------------------------------------------------------------------------------------------------------------

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.plain}"

    def url(self, topic: str) -> str:
        return f"kafka://{self.address}/{topic}"


class Cluster:
    """A Kafka that tests share, by its address; each test takes topics of its own."""

    def __init__(self, address: str, process: KafkaProcess | None = None) -> None:
        self.address = address
        self.process = process

    def url(self, topic: str) -> str:
        return f"kafka://{self.address}/{topic}"

    async def make_topic(self, *, partitions: int = 1, name: str = "", **settings: str) -> str:
        """Make a topic as `flagmeter migrate` does, with other settings where a test wants them; gives its name."""
        name = name or f"flagmeter.{uuid.uuid4().hex}"
        changed = {key.replace("_", "."): value for key, value in settings.items()}
        client = AIOKafkaAdminClient(bootstrap_servers=self.address)
        await client.start()
        try:
            new = NewTopic(name, partitions, 1, topic_configs={**SETTINGS, **changed})
            answer = await client.create_topics([new])
            assert all(topic[1] == 0 for topic in answer.topic_errors), answer
        finally:
            await client.close()
        return name
