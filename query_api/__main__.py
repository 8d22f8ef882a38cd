"""Runs the query API: `python -m query_api`, or `flagmeter query-api`."""

import asyncio
import contextlib
import sys

from deploy import logs, run, settings
from deploy.tokens_file import TokenFile
from query_api.config import Config
from query_api.server import serve
from schemas.tokens import WrongTokensError

_WRONG_SETTINGS = 2


def main() -> None:
    """Run until SIGTERM or SIGINT."""
    config = settings.load(Config)
    logs.configure("query-api")
    tokens = TokenFile(config.tokens)
    try:
        tokens.load()
    except OSError as error:
        sys.stderr.write(f"wrong settings:\n  FLAGMETER_TOKENS_FILE: {config.tokens}: {error.strerror}\n")
        sys.exit(_WRONG_SETTINGS)
    except WrongTokensError as error:
        sys.stderr.write(f"wrong settings:\n  FLAGMETER_TOKENS_FILE: {config.tokens}: {error}\n")
        sys.exit(_WRONG_SETTINGS)
    sys.exit(run.until_signalled(lambda stop: _serve_and_watch(config, tokens, stop)))


async def _serve_and_watch(config: Config, tokens: TokenFile, stop: asyncio.Event) -> None:
    watching = asyncio.create_task(tokens.watch())
    try:
        await serve(config, tokens, stop)
    finally:
        watching.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await watching


if __name__ == "__main__":
    main()
