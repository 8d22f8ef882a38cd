"""A real store as a process, and the query API in front of it."""

import asyncio
import os
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator
from datetime import UTC, date, datetime
from itertools import count
from pathlib import Path
from typing import Any

import clickhouse_connect
import pytest
from aiohttp.test_utils import TestClient, TestServer

from deploy import migrate
from query_api import app
from query_api.app import Clock
from query_api.config import Config
from query_api.server import MAX_LINE
from query_api.store import Store
from schemas import insert, tokens, urls
from schemas.tables import EVALUATION_COLUMNS, EVALUATIONS
from tests.support.ports import free_port

READY_SECONDS = 40
RECEIVED = date(2026, 11, 22)
ADMIN = "*:*.00000000000000000000000000000001"
SHOP_ADMIN = "shop:*.00000000000000000000000000000002"
BACKEND = "default:development.00000000000000000000000000000003"
TOKENS = f"""{{"tokens": [
  {{"token": "{ADMIN}", "type": "admin", "projects": ["*"], "environment": "*"}},
  {{"token": "{SHOP_ADMIN}", "type": "admin", "projects": ["shop"], "environment": "*"}},
  {{"token": "{BACKEND}", "type": "backend", "projects": ["default"], "environment": "development"}}
]}}"""

_numbers = count()


class StoreProcess:
    """`python -m deploy.store`; may be stopped and started again."""

    def __init__(self, data_dir: Path) -> None:
        self.data_dir = data_dir
        self.port = free_port()
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        command = [sys.executable, "-m", "deploy.store", "--data-dir", str(self.data_dir), "--port", str(self.port)]
        environment = {name: value for name, value in os.environ.items() if not name.startswith("FLAGMETER_")}
        with (self.data_dir.parent / "store.log").open("ab") as log:
            self._process = subprocess.Popen(command, stderr=log, env=environment)
        deadline = time.monotonic() + READY_SECONDS
        while not self._answers():
            assert self._process.poll() is None, "the store ended"
            assert time.monotonic() < deadline, "the store did not answer"
            time.sleep(0.05)

    def _answers(self) -> bool:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/ping", timeout=2) as answer:
                return answer.status == 200
        except (OSError, urllib.error.URLError):
            return False

    def stop(self, *, kill: bool = False) -> None:
        if self._process is not None:
            (self._process.kill if kill else self._process.terminate)()
            self._process.wait(timeout=READY_SECONDS)
            self._process = None

    @property
    def url(self) -> str:
        secret = (self.data_dir / "store.secret").read_text().strip()
        return f"http://service:{secret}@127.0.0.1:{self.port}/flagmeter"

    def migrate(self) -> None:
        migrate.run(urls.parse_clickhouse(self.url), partitions=1, flush_seconds=1)

    def client(self) -> Any:
        server = urls.parse_clickhouse(self.url)
        return clickhouse_connect.get_client(
            host=server.host,
            port=server.port,
            username=server.user,
            password=server.password,
            database=server.database,
            autogenerate_session_id=False,
        )

    def insert(self, *rows: list[Any]) -> None:
        """Insert rows as one part."""
        client = self.client()
        try:
            client.insert(
                EVALUATIONS,
                rows,
                column_names=list(EVALUATION_COLUMNS),
                settings=insert.settings((26, 9), f"test:{next(_numbers)}"),
                transport_settings=insert.URL_PARAMETERS,
            )
        finally:
            client.close()


def row(
    project: str,
    feature: str,
    hour: str,
    *,
    variant: str = "",
    yes: int = 0,
    no: int = 0,
    count: int = 0,
    environment: str = "development",
    variable: str | None = None,
    app_name: str = "app",
    platform: str = "",
    sdk_type: str = "server",
    source: str = "unleash",
) -> list[Any]:
    """Make a row of `evaluations_hourly`, in the order of its columns."""
    moment = datetime.fromisoformat(hour).replace(tzinfo=UTC)
    key = [project, environment, feature, feature if variable is None else variable, variant, moment]
    return [*key, app_name, platform, sdk_type, source, RECEIVED, yes, no, count]


class Answer:
    """One HTTP answer."""

    def __init__(self, status: int, headers: Any, body: bytes, value: Any) -> None:
        self.status = status
        self.headers = headers
        self.body = body
        self.value = value

    @property
    def result(self) -> Any:
        assert self.status == 200, self.body
        return self.value["result"]

    @property
    def points(self) -> list[dict[str, Any]]:
        points: list[dict[str, Any]] = self.result["evaluations"]
        return points


class Api:
    """The query API in this process, in front of a store."""

    def __init__(self, client: TestClient[Any, Any]) -> None:
        self.client = client

    async def ask(
        self,
        path: str,
        query: Iterable[tuple[str, str]] = (),
        *,
        method: str = "GET",
        token: str | None = ADMIN,
        headers: dict[str, str] | None = None,
    ) -> Answer:
        sent = {**({"Authorization": token} if token else {}), **(headers or {})}
        async with self.client.request(method, path, params=list(query), headers=sent) as response:
            body = await response.read()
            is_json = response.content_type == "application/json" and body
            return Answer(response.status, response.headers, body, await response.json() if is_json else None)

    async def get(self, path: str, **query: str) -> Answer:
        return await self.ask(path, query.items())


async def until(condition: Callable[[], Awaitable[bool]], *, seconds: float = 30) -> None:
    """Ask until it is true; fails after the deadline."""
    async with asyncio.timeout(seconds):
        while not await condition():
            await asyncio.sleep(0.02)


@pytest.fixture(scope="session")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[StoreProcess]:
    """A store with tables; tests keep apart by their projects' names."""
    process = StoreProcess(tmp_path_factory.mktemp("query_store") / "data")
    process.start()
    try:
        process.migrate()
        yield process
    finally:
        process.stop()


@pytest.fixture
def own_store(tmp_path: Path) -> Iterator[StoreProcess]:
    """A store that the test starts, stops and breaks itself; not started yet."""
    process = StoreProcess(tmp_path / "data")
    try:
        yield process
    finally:
        process.stop(kill=True)


Start = Callable[..., Awaitable[Api]]


@pytest.fixture
async def start() -> AsyncIterator[Start]:
    """Give a function that starts the query API in front of a store's URL, with any setting of `Config`."""
    running: list[tuple[TestClient[Any, Any], Store]] = []

    async def begin(url: str, *, clock: Clock | None = None, **settings: Any) -> Api:
        config = Config(clickhouse_url=url, **({"cache_seconds": 0} | settings))  # type: ignore[arg-type]
        made = Store(
            config.store,
            query_seconds=config.query_timeout_seconds,
            connect_seconds=config.query_connect_seconds,
            connections=config.query_connections,
        )
        table = tokens.read(TOKENS.encode())
        server = TestServer(app.build(config, made, table, clock or Clock()))
        client = TestClient(server)
        running.append((client, made))
        await server.start_server(max_line_size=MAX_LINE)
        return Api(client)

    yield begin
    for client, made in running:
        await client.close()
        await made.close()


@pytest.fixture
async def api(store: StoreProcess, start: Start) -> Api:
    """The query API in front of the shared store, without a cache."""
    return await start(store.url)
