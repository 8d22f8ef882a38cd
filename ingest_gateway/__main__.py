"""`python -m ingest_gateway`: the gateway alone, configured by environment variables."""

import asyncio
import sys

from deploy import logs, peers, run, settings, workers
from deploy.tokens_file import TokenFile, load_or_exit, watched
from deploy.workers import Plan
from ingest_gateway.config import Config
from ingest_gateway.server import STOP_SECONDS, serve


def main() -> None:
    """Run until SIGTERM or SIGINT."""
    config = settings.load(Config)
    logs.configure("gateway")
    tokens = load_or_exit(config.tokens_path)
    if workers.wanted(config.workers):
        sys.exit(workers.keep(_plan(config)))
    sys.exit(run.until_signalled(lambda stop: _serve(config, tokens, stop)))


def _plan(config: Config) -> Plan:
    return Plan(
        package="ingest_gateway",
        workers=config.workers,
        host=config.host,
        port=config.gateway_port,
        port_variable="FLAGMETER_GATEWAY_PORT",
        stop_seconds=config.unready_seconds + STOP_SECONDS,
    )


async def _serve(config: Config, tokens: TokenFile, stop: asyncio.Event) -> None:
    async with watched(tokens), peers.joined(config.workers) as all_workers:
        await serve(config, tokens, stop, all_workers)


if __name__ == "__main__":
    main()
