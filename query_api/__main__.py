"""Runs the query API: `python -m query_api`, or `flagmeter query-api`."""

import asyncio
import sys

from deploy import logs, run, settings
from deploy.tokens_file import TokenFile, load_or_exit, watched
from query_api.config import Config
from query_api.server import serve


def main() -> None:
    """Run until SIGTERM or SIGINT."""
    config = settings.load(Config)
    logs.configure("query-api")
    tokens = load_or_exit(config.tokens)
    sys.exit(run.until_signalled(lambda stop: _serve(config, tokens, stop)))


async def _serve(config: Config, tokens: TokenFile, stop: asyncio.Event) -> None:
    async with watched(tokens):
        await serve(config, tokens, stop)


if __name__ == "__main__":
    main()
