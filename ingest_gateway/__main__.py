"""`python -m ingest_gateway`: the gateway alone, configured by environment variables."""

import asyncio
import sys

from deploy import logs, run, settings
from deploy.tokens_file import TokenFile, load_or_exit, watched
from ingest_gateway.config import Config
from ingest_gateway.server import serve


def main() -> None:
    """Run until SIGTERM or SIGINT."""
    config = settings.load(Config)
    logs.configure("gateway")
    tokens = load_or_exit(config.tokens_path)
    sys.exit(run.until_signalled(lambda stop: _serve(config, tokens, stop)))


async def _serve(config: Config, tokens: TokenFile, stop: asyncio.Event) -> None:
    async with watched(tokens):
        await serve(config, tokens, stop)


if __name__ == "__main__":
    main()
