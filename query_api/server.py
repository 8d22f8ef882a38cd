"""The query API as a running server."""

import asyncio
from typing import Final

import structlog
from aiohttp import web

from query_api import app
from query_api.access import Tokens
from query_api.app import Clock
from query_api.config import Config
from query_api.store import Store
from schemas.peers import Alone, Peers

_log = structlog.get_logger()
_LEAVE_SECONDS: Final = 5.0
"""How long requests that are being answered may take once the service is to end."""

STOP_SECONDS: Final = _LEAVE_SECONDS + 3.0
"""The longest end: requests, connections to the store, and what a busy machine adds."""

MAX_LINE: Final = 32 * 1024
"""The longest request line in bytes: five names of 255 characters are up to 15,300 once percent-encoded."""


async def serve(config: Config, tokens: Tokens, stop: asyncio.Event, peers: Peers | None = None) -> None:
    """Answer requests until `stop` is set; starts and stays up while the store is away.

    Args:
        config: the settings.
        tokens: the known ones.
        stop: set when it is to end.
        peers: the other processes of the query API; by default there are none.

    Raises:
        OSError: the port cannot be had.
    """
    peers = peers or Alone()
    store = Store(
        config.store,
        query_seconds=config.query_timeout_seconds,
        connect_seconds=config.query_connect_seconds,
        connections=config.query_connections,
    )
    built = app.build(config, store, tokens, Clock(), peers)
    runner = web.AppRunner(built, access_log=None, shutdown_timeout=_LEAVE_SECONDS)
    await runner.setup()
    try:
        await web.TCPSite(runner, config.host, config.query_port, reuse_port=peers.shares_port).start()
        _log.info("the query API is listening", host=config.host, port=config.query_port)
        await stop.wait()
    finally:
        await runner.cleanup()
        await store.close()
