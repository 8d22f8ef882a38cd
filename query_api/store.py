"""The store: one lazy ClickHouse client that sends statements and gives typed rows.

The store may be away at any time, also at the start. Nothing is remembered of a failure: the next question tries
again. Every question is bounded in time, connecting included.
"""

import asyncio
from functools import lru_cache
from typing import Final, Protocol, TypeVar

import clickhouse_connect
import msgspec
import structlog
from clickhouse_connect.driver.asyncclient import AsyncClient
from clickhouse_connect.driver.exceptions import ClickHouseError, Error

from query_api import sql
from query_api.sql import Statement
from schemas.clickhouse import client_options, wrong_setting
from schemas.urls import ClickHouse

RowT = TypeVar("RowT", bound=msgspec.Struct)

_log = structlog.get_logger()
_FORMAT: Final = "JSONCompactEachRow"
_UNKNOWN_TABLE: Final = 60
_UNKNOWN_DATABASE: Final = 81
_REFUSED: Final = frozenset({192, 193, 194, 497, 516})  # unknown user, wrong password, …, access denied
_SETTINGS: Final[dict[str, str | int]] = {
    # Servers before 26 give Date and DateTime for truncated hours otherwise, and 1926 would wrap.
    "enable_extended_results_for_datetime_functions": 1,
}


class StoreAwayError(Exception):
    """The store gave no answer; ask again later. `reason` may be shown: it has no address and no secret."""

    def __init__(self, reason: str, code: int | None = None) -> None:
        super().__init__(reason)
        self.reason = reason
        self.code = code


class Rows(Protocol):
    """Whatever answers statements."""

    async def rows(self, statement: Statement[RowT]) -> list[RowT]:
        """Answer a statement.

        Raises:
            StoreAwayError: no answer.
        """
        ...


class Store:
    """ClickHouse behind its HTTP interface."""

    def __init__(self, server: ClickHouse, *, query_seconds: float, connect_seconds: float, connections: int) -> None:
        """Set up without connecting.

        Args:
            server: where it is.
            query_seconds: the longest time for one answer, waiting for a connection included.
            connect_seconds: the longest time for a new connection.
            connections: how many statements run at once; more wait.
        """
        self._server = server
        self._query_seconds = query_seconds
        self._connect_seconds = connect_seconds
        self._connections = connections
        self._client: AsyncClient | None = None
        self._connecting: asyncio.Task[AsyncClient] | None = None

    async def rows(self, statement: Statement[RowT]) -> list[RowT]:
        """Send a statement and give its rows.

        Raises:
            StoreAwayError: no connection, an error of the server, or no answer in time.
        """
        try:
            async with asyncio.timeout(self._query_seconds):
                client = self._client or await self._connect()
                answer = await client.raw_query(
                    statement.text, parameters=dict(statement.parameters), settings=self._settings(), fmt=_FORMAT
                )
            return _decoder(statement.row).decode_lines(answer)
        except TimeoutError:
            raise StoreAwayError(f"the store did not answer within {self._query_seconds:g} seconds") from None
        except ClickHouseError as error:
            raise _away(error) from None
        except (OSError, msgspec.DecodeError) as error:
            _log.warning("the store's answer could not be read", error=type(error).__name__)
            raise StoreAwayError("the store's answer could not be read") from None

    async def faults(self) -> list[str]:
        """Say what keeps the store from answering, a sentence each; empty when it is ready."""
        try:
            await self.rows(sql.tables_there())
        except StoreAwayError as error:
            return [error.reason]
        return []

    async def close(self) -> None:
        """Close all connections."""
        if self._connecting is not None:
            self._connecting.cancel()
            await asyncio.gather(self._connecting, return_exceptions=True)
        if self._client is not None:
            await self._client.close()
            self._client = None

    async def _connect(self) -> AsyncClient:
        """Connect once for all who ask meanwhile; one that leaves does not end it for the others."""
        if self._connecting is None:
            self._connecting = asyncio.create_task(self._open())
            self._connecting.add_done_callback(self._connected)
        return await asyncio.shield(self._connecting)

    async def _open(self) -> AsyncClient:
        async with asyncio.timeout(self._query_seconds):
            return await clickhouse_connect.get_async_client(
                **client_options(self._server),
                database=self._server.database,
                connect_timeout=self._connect_seconds,
                send_receive_timeout=self._query_seconds,
                connector_limit=self._connections,
                connector_limit_per_host=self._connections,
                autogenerate_session_id=False,  # a session runs one statement at a time
                client_name="flagmeter-query-api",
            )

    def _connected(self, task: asyncio.Task[AsyncClient]) -> None:
        self._connecting = None
        if not task.cancelled() and task.exception() is None:
            self._client = task.result()

    def _settings(self) -> dict[str, str | int]:
        # Rounded up: the server ends what nobody waits for any more.
        return {**_SETTINGS, "max_execution_time": int(self._query_seconds) + 1}


@lru_cache
def _decoder(row: type[RowT]) -> msgspec.json.Decoder[RowT]:
    # Not strict: servers may be set up to quote 64-bit integers.
    return msgspec.json.Decoder(row, strict=False)


def _away(error: ClickHouseError) -> StoreAwayError:
    """Put an error into words that may be shown; its own text, with statement and address, stays here."""
    code = error.code if isinstance(error, Error) else None
    if code in (_UNKNOWN_TABLE, _UNKNOWN_DATABASE):
        return StoreAwayError("the store has no tables yet: run `flagmeter migrate`", code)
    if code in _REFUSED:
        return StoreAwayError("the store refuses this service: check the user in FLAGMETER_CLICKHOUSE_URL", code)
    if code is not None:
        _log.error("the store answered with an error", code=code, name=error.name if isinstance(error, Error) else None)
        return StoreAwayError(f"the store answered with error {code}", code)
    reason = wrong_setting(error)
    if reason is not None:
        _log.error("the store cannot be reached", reason=reason, error=str(error))
    return StoreAwayError(reason or "the store does not answer")
