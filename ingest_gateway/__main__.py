"""`python -m ingest_gateway`: the gateway alone, configured by environment variables."""

import asyncio
import contextlib
import sys

from deploy import logs, run, settings
from deploy.tokens_file import TokenFile
from ingest_gateway.config import Config
from ingest_gateway.server import serve
from schemas.tokens import WrongTokensError


def main() -> None:
    """Run the gateway until SIGTERM or SIGINT."""
    config = settings.load(Config)
    logs.configure("gateway")
    tokens = TokenFile(config.tokens_path)
    try:
        tokens.load()
    except (OSError, WrongTokensError) as error:
        sys.stderr.write(f"FLAGMETER_TOKENS_FILE: {error}\n")
        raise SystemExit(2) from None
    sys.exit(run.until_signalled(lambda stop: _serve(config, tokens, stop)))


async def _serve(config: Config, tokens: TokenFile, stop: asyncio.Event) -> None:
    watching = asyncio.create_task(tokens.watch())
    try:
        await serve(config, tokens, stop)
    finally:
        watching.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await watching


if __name__ == "__main__":
    main()
