"""The embedded store as a process of its own, with what tests ask of it."""

import signal
import subprocess
import sys
import uuid
from collections.abc import Mapping
from itertools import count
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import clickhouse_connect

from deploy import migrate
from schemas import insert, urls
from schemas.tables import EVALUATION_COLUMNS, EVALUATIONS
from tests.support import client
from tests.support.client import Answer
from tests.support.environment import ROOT, variables
from tests.support.ports import free_port
from tests.support.waiting import wait_for

READY_SECONDS = 60
STOP_SECONDS = 40

_run = uuid.uuid4().hex
_numbers = count()


def fresh_token() -> str:
    """Give a deduplication token that no other insert of these tests has: they share one store."""
    return f"test:{_run}:{next(_numbers)}"


class StoreProcess:
    """`python -m deploy.store`; may be stopped, killed and started again."""

    def __init__(self, data_dir: Path, **settings: str) -> None:
        self.data_dir = data_dir
        self.port = free_port()
        self.environment = variables(**settings)
        self.log = data_dir.with_suffix(".log")
        self.process: subprocess.Popen[bytes] | None = None

    # Life ------------------------------------------------------------------------------------------------------------

    def spawn(self) -> "StoreProcess":
        """Start it without waiting: it may be meant to fail."""
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "deploy.store", "--data-dir", str(self.data_dir), "--port", str(self.port)],
                env=self.environment,
                stdout=log,
                stderr=log,
                cwd=ROOT,
            )
        return self

    def start(self) -> "StoreProcess":
        self.spawn()
        wait_for(self.is_ready, seconds=READY_SECONDS, what="the start of the store")
        return self

    def is_ready(self) -> bool:
        assert self.process is not None
        assert self.process.poll() is None, self.log.read_text()
        return client.is_ok(f"{self.front}/ping")

    @property
    def is_running(self) -> bool:
        return self.process is not None and self.process.poll() is None

    def stop(self) -> int:
        """End it as an operator does; gives its exit status."""
        assert self.process is not None
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(STOP_SECONDS)

    def kill(self) -> None:
        """End it without asking, where it runs."""
        if self.process is not None and self.is_running:
            self.process.kill()
            self.process.wait()

    # Where -----------------------------------------------------------------------------------------------------------

    @property
    def secret(self) -> str:
        return (self.data_dir / "store.secret").read_text().strip()

    @property
    def front(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def url(self) -> str:
        """The services' own URL, with the secret."""
        return f"http://service:{self.secret}@127.0.0.1:{self.port}/flagmeter"

    @property
    def server(self) -> urls.ClickHouse:
        """The services' own URL, taken apart."""
        return urls.parse_clickhouse(self.url)

    # Use -------------------------------------------------------------------------------------------------------------

    def ask(
        self,
        method: str,
        path: str = "/",
        body: bytes | str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Answer:
        return client.request(method, self.front + path, headers=headers, body=body, timeout=60)

    def visitor(self, body: str | bytes, /, **parameters: str) -> Answer:
        """Post a query as anybody may."""
        return self.ask("POST", "/?" + urlencode(parameters), body)

    def service(self, body: str | bytes, headers: Mapping[str, str] | None = None, /, **parameters: str) -> Answer:
        """Post a query as our services do."""
        credentials = {"X-ClickHouse-User": "service", "X-ClickHouse-Key": self.secret}
        return self.ask("POST", "/?" + urlencode(parameters), body, {**credentials, **(headers or {})})

    def migrate(self) -> None:
        migrate.run(self.server, partitions=1, flush_seconds=1)

    def client(self) -> Any:
        """Give clickhouse-connect's client for the services' user; the caller closes it."""
        return clickhouse_connect.get_client(
            host=self.server.host,
            port=self.server.port,
            username=self.server.user,
            password=self.server.password,
            database=self.server.database,
            autogenerate_session_id=False,
        )

    def insert(self, *rows: list[Any]) -> None:
        """Insert rows of `evaluations_hourly` as one part."""
        connected = self.client()
        try:
            connected.insert(
                EVALUATIONS,
                rows,
                column_names=list(EVALUATION_COLUMNS),
                settings=insert.settings((26, 9), fresh_token()),
                transport_settings=insert.URL_PARAMETERS,
            )
        finally:
            connected.close()
