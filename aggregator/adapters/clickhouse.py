"""The store: ClickHouse over HTTP, through its own asynchronous client. Embedded and at scale alike."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, Final, TypeVar

import aiohttp
import clickhouse_connect
import structlog
from clickhouse_connect.driver import options
from clickhouse_connect.driver.asyncclient import AsyncClient
from clickhouse_connect.driver.exceptions import ClickHouseError, DatabaseError

from aggregator.ports import Block, StoreError
from schemas import insert
from schemas.clickhouse import client_options, wrong_setting
from schemas.limits import MARKER_DAYS, MARKER_PROJECT
from schemas.markers import HOME, Range, position
from schemas.tables import ADDITIVE, COLUMNS
from schemas.urls import ClickHouse

T = TypeVar("T")


_ANSWER_SECONDS: Final = insert.INSERT_SECONDS + 10
_CONNECT_SECONDS: Final = 5
_MIN_WINDOW_SECONDS: Final = 3600
_BATCHES_PER_FLUSH: Final = 4
"""Batches of one partition start at least a quarter of the flush interval apart."""

PASSING: Final = frozenset({0, 159, 164, 202, 203, 209, 210, 242, 252, 279, 285, 319, 425, 999})
"""Codes that go away by themselves: time-outs, network, too many queries or parts, read-only replicas, quorum,
Keeper. 0 is no answer at all."""

_log = structlog.get_logger(__name__)


def without_data_frames() -> None:
    """Keep the client, in this whole process, from loading numpy, pandas and pyarrow at its first insert.

    It looks whether a block is one of their objects: 2.5 s and 110 MB for nothing that we send.
    """
    options.np = options.pd = options.arrow = options.pl = None


class ClickHouseStore:
    """The tables. Connects when it is first asked, and anew after an error."""

    def __init__(self, url: ClickHouse, *, flush_seconds: float) -> None:
        self._url = url
        self._flush_seconds = flush_seconds
        self._client: AsyncClient | None = None
        self._connecting = asyncio.Lock()
        self._version = (0, 0)

    async def check(self, partitions: int) -> None:
        """Refuse tables that are missing or keep too few tokens."""
        needed = int(_MIN_WINDOW_SECONDS * _BATCHES_PER_FLUSH * partitions / self._flush_seconds)
        found = await self._rows(
            "SELECT name, create_table_query FROM system.tables WHERE database = {database:String}",
            {"database": self._url.database},
        )
        tables = {str(name): str(text) for name, text in found}
        missing = [table for table in COLUMNS if table not in tables]
        if missing:
            raise StoreError(
                f"tables are missing: {', '.join(missing)}; run `flagmeter migrate`", code=60, passing=False
            )
        for table in COLUMNS:
            window = _setting(tables[table], "non_replicated_deduplication_window")
            if window < needed:
                raise StoreError(
                    f"{table} keeps {window} tokens, one hour needs {needed}: "
                    f"ALTER TABLE {table} MODIFY SETTING non_replicated_deduplication_window = {needed}",
                    code=36,
                    passing=False,
                )
        if f"toIntervalDay({MARKER_DAYS})" not in tables[HOME]:
            raise StoreError(
                f"{HOME} must keep markers for {MARKER_DAYS} days; run `flagmeter migrate`", code=36, passing=False
            )

    async def last_marked(self, topic_id: str, partition: int) -> int | None:
        """Read M, out of the primary key alone."""
        rows = await self._rows(
            f"SELECT max(variant) FROM {HOME} WHERE project = {{project:String}} AND environment = {{topic:String}} "  # noqa: S608
            "AND feature = {partition:String}",
            {"project": MARKER_PROJECT, "topic": topic_id, "partition": str(partition)},
        )
        last = str(_only_value(rows))
        return int(last) if last else None

    async def marked_tables(self, topic_id: str, partition: int, span: Range) -> frozenset[str]:
        """Say which additive tables hold the range's marker."""
        marked = set()
        for table in ADDITIVE:
            rows = await self._rows(
                f"SELECT count() FROM {table} WHERE project = {{project:String}} AND environment = {{topic:String}} "  # noqa: S608
                "AND feature = {partition:String} AND variable = {first:String} AND variant = {last:String}",
                {
                    "project": MARKER_PROJECT,
                    "topic": topic_id,
                    "partition": str(partition),
                    "first": position(span.first),
                    "last": position(span.last),
                },
            )
            if _only_value(rows):
                marked.add(table)
        return frozenset(marked)

    async def ranges_beyond(self, topic_id: str, partition: int, beyond: int) -> list[Range]:
        """List the ranges that other additive tables hold and the home table does not."""
        spans: set[Range] = set()
        for table in ADDITIVE:
            if table == HOME:
                continue
            rows = await self._rows(
                f"SELECT DISTINCT variable, variant FROM {table} WHERE project = {{project:String}} "  # noqa: S608
                "AND environment = {topic:String} AND feature = {partition:String} AND variable > {beyond:String}",
                {
                    "project": MARKER_PROJECT,
                    "topic": topic_id,
                    "partition": str(partition),
                    "beyond": position(beyond) if beyond >= 0 else "",
                },
            )
            spans.update(Range(int(first), int(last)) for first, last in rows)
        return sorted(spans, key=lambda span: span.first)

    async def insert(self, block: Block, token: str) -> None:
        """Insert one block; returns when ClickHouse answered that it is stored, or that its token is known."""

        async def send(client: AsyncClient) -> None:
            types = COLUMNS[block.table]
            await client.insert(
                block.table,
                list(block.columns.values()),
                column_names=list(block.columns),
                column_type_names=[types[name] for name in block.columns],
                column_oriented=True,
                database=self._url.database,
                settings={**insert.settings(self._version, token), **insert.URL_PARAMETERS},
            )

        await self._call(send)

    async def close(self) -> None:
        """Close the connections."""
        client, self._client = self._client, None
        if client is not None:
            await client.close()

    async def _rows(self, query: str, parameters: dict[str, str]) -> list[tuple[Any, ...]]:
        async def select(client: AsyncClient) -> list[tuple[Any, ...]]:
            answer = await client.query(query, parameters=parameters)
            return [tuple(row) for row in answer.result_rows]

        return await self._call(select)

    async def _call(self, work: Callable[[AsyncClient], Awaitable[T]]) -> T:
        try:
            return await work(await self._connected())
        except DatabaseError as error:
            code = error.code or 0
            reason = wrong_setting(error)
            text = f"{reason} ({_first_line(error)})" if reason else _first_line(error)
            raise StoreError(text, code=code, passing=reason is None and code in PASSING) from error
        except (ClickHouseError, aiohttp.ClientError, OSError, TimeoutError) as error:
            raise StoreError(f"no answer: {_first_line(error)}") from error
        except Exception as error:
            # A proxy's answer that is no answer breaks the client in many ways; none may end the partition's work.
            raise StoreError(f"no answer that can be read: {type(error).__name__}: {_first_line(error)}") from error

    async def _connected(self) -> AsyncClient:
        async with self._connecting:
            if self._client is None:
                self._client = await self._connect()
        return self._client

    async def _connect(self) -> AsyncClient:
        client = await clickhouse_connect.get_async_client(
            **client_options(self._url),
            database=self._url.database,
            connect_timeout=_CONNECT_SECONDS,
            send_receive_timeout=_ANSWER_SECONDS,
            autogenerate_session_id=False,
            compress=False if self._url.host in {"127.0.0.1", "localhost", "::1"} else "lz4",
            client_name="flagmeter-aggregator",
        )
        major, minor = str(client.server_version).split(".")[:2]
        self._version = (int(major), int(minor))
        _log.info("store connected", version=client.server_version)
        return client


def _only_value(rows: list[tuple[Any, ...]]) -> Any:
    if not rows:
        raise StoreError("the store's answer has no row where one is sure")
    return rows[0][0]


def _setting(create_table: str, name: str) -> int:
    """Read a number out of a table's SETTINGS clause; 0 where it is not set, which is ClickHouse's default."""
    _, found, rest = create_table.partition(f"{name} = ")
    digits = rest[: len(rest) - len(rest.lstrip("0123456789"))]
    return int(digits) if found and digits else 0


def _first_line(error: BaseException) -> str:
    text = str(error).strip() or type(error).__name__
    return text.splitlines()[0][:500]
