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

_log = structlog.get_logger()
_LEAVE_SECONDS: Final = 5.0
"""How long requests that are being answered may take once the service is to end."""

MAX_LINE: Final = 32 * 1024
"""The longest request line in bytes: five names of 255 characters are up to 15,300 once percent-encoded."""


async def serve(config: Config, tokens: Tokens, stop: asyncio.Event) -> None:
    """Answer requests until `stop` is set; starts and stays up while the store is away.

    Raises:
        OSError: the port cannot be had.
    """
    store = Store(
        config.store,
        query_seconds=config.query_timeout_seconds,
        connect_seconds=config.query_connect_seconds,
        connections=config.query_connections,
    )
    runner = web.AppRunner(app.build(config, store, tokens, Clock()), access_log=None, shutdown_timeout=_LEAVE_SECONDS)
    await runner.setup()
    try:
        await web.TCPSite(runner, config.host, config.query_port).start()
        _log.info("the query API is listening", host=config.host, port=config.query_port)
        await stop.wait()
    finally:
        await runner.cleanup()
        await store.close()
