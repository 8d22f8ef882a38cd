"""The query API in this process, in front of the shared store."""

from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from datetime import UTC, date, datetime
from typing import Any

import pytest
from aiohttp.test_utils import TestClient, TestServer

from query_api import app
from query_api.app import Clock
from query_api.config import Config
from query_api.server import MAX_LINE
from query_api.store import Store
from schemas import tokens
from tests.support.store import StoreProcess

RECEIVED = date(2026, 11, 22)
ADMIN = "*:*.00000000000000000000000000000001"
SHOP_ADMIN = "shop:*.00000000000000000000000000000002"
BACKEND = "default:development.00000000000000000000000000000003"
TOKENS = f"""{{"tokens": [
  {{"token": "{ADMIN}", "type": "admin", "projects": ["*"], "environment": "*"}},
  {{"token": "{SHOP_ADMIN}", "type": "admin", "projects": ["shop"], "environment": "*"}},
  {{"token": "{BACKEND}", "type": "backend", "projects": ["default"], "environment": "development"}}
]}}"""


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
