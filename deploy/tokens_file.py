"""The tokens file as a running service sees it: read at start, and again whenever it changes."""

import asyncio
import contextlib
import os
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Final

import structlog

from deploy.settings import WRONG_SETTINGS
from schemas.tokens import Token, TokenTable, WrongTokensError, read

_log = structlog.get_logger()
_POLL_SECONDS: Final = 1.0

_Version = tuple[int, int, int]


class TokenFile:
    """The known tokens, by the file's last readable content."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._table = TokenTable({})
        self._version: _Version | None = None

    def __len__(self) -> int:
        return len(self._table)

    def load(self) -> None:
        """Read the file now.

        Raises:
            OSError: it is not there, or may not be read.
            WrongTokensError: it is not as documented; lists every fault, and never a token's text.
        """
        # Looked at before it is read: a change in between is seen by the next look.
        version = self._look()
        self._table = read(self._path.read_bytes())
        self._version = version

    def find(self, text: str) -> Token | None:
        """Find a presented token; None where it is unknown."""
        return self._table.find(text)

    async def watch(self, sleep: Callable[[float], Awaitable[object]] = asyncio.sleep) -> None:
        """Read the file again when it changed; runs until it is cancelled.

        A file that is gone or broken keeps the tokens that were known, and is logged once for each change.

        Args:
            sleep: waits between two looks, in seconds; handed in by tests.
        """
        while True:
            await sleep(_POLL_SECONDS)
            self.refresh()

    def refresh(self) -> None:
        """Look once, and read the file if it changed."""
        try:
            version = self._look()
        except OSError as error:
            self._keep(None, f"{error.strerror}")
            return
        if version == self._version:
            return
        try:
            self.load()
        except OSError as error:
            self._keep(version, f"{error.strerror}")
        except WrongTokensError as error:
            self._keep(version, str(error))
        else:
            _log.info("the tokens file was read again", tokens=len(self))

    def _keep(self, version: _Version | None, why: str) -> None:
        if self._version != version:
            _log.error("the tokens file cannot be read; the known tokens stay", file=str(self._path), why=why)
        self._version = version

    def _look(self) -> _Version:
        found = os.stat(self._path)  # noqa: PTH116 - one call a second; a plain stat
        return found.st_mtime_ns, found.st_size, found.st_ino


def load_or_exit(path: Path) -> TokenFile:
    """Read the tokens file of a service that starts.

    Raises:
        SystemExit: with the status of wrong settings, when it cannot be read; the reason is on stderr.
    """
    tokens = TokenFile(path)
    try:
        tokens.load()
    except (OSError, WrongTokensError) as error:
        why = error.strerror if isinstance(error, OSError) else error
        sys.stderr.write(f"wrong settings:\n  FLAGMETER_TOKENS_FILE: {path}: {why}\n")
        raise SystemExit(WRONG_SETTINGS) from None
    return tokens


@contextlib.asynccontextmanager
async def watched(tokens: TokenFile) -> AsyncIterator[None]:
    """Keep the tokens up to date for as long as the block runs."""
    watching = asyncio.create_task(tokens.watch())
    try:
        yield
    finally:
        watching.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await watching
