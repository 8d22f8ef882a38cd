"""Runs the query API: `python -m query_api`, or `flagmeter query-api`."""

import asyncio
import sys

from deploy import logs, peers, run, settings, workers
from deploy.tokens_file import TokenFile, load_or_exit, watched
from deploy.workers import Plan
from query_api.config import Config
from query_api.server import STOP_SECONDS, serve


def main() -> None:
    """Run until SIGTERM or SIGINT."""
    config = settings.load(Config)
    logs.configure("query-api")
    tokens = load_or_exit(config.tokens)
    if workers.wanted(config.workers):
        sys.exit(workers.keep(_plan(config)))
    sys.exit(run.until_signalled(lambda stop: _serve(config, tokens, stop)))


def _plan(config: Config) -> Plan:
    return Plan(
        package="query_api",
        workers=config.workers,
        host=config.host,
        port=config.query_port,
        port_variable="FLAGMETER_QUERY_PORT",
        stop_seconds=STOP_SECONDS,
    )


async def _serve(config: Config, tokens: TokenFile, stop: asyncio.Event) -> None:
    async with watched(tokens), peers.joined(config.workers) as all_workers:
        await serve(config, tokens, stop, all_workers)


if __name__ == "__main__":
    main()
