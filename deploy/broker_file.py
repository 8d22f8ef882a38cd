"""Make the embedded broker's file before the services need it, so that what is wrong with it is said once."""

import sqlite3
from pathlib import Path
from typing import Final

from deploy.migrations import RefusedMigrationError
from schemas import sqlite_log

_BUSY_SECONDS: Final = 5.0


def make(path: Path) -> None:
    """Make the file where it is missing.

    Raises:
        RefusedMigrationError: it cannot be made, or is no broker of this version.
    """
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        sqlite_log.connect(path, busy_seconds=_BUSY_SECONDS).close()
    except (OSError, sqlite3.Error, sqlite_log.WrongFileError) as error:
        raise RefusedMigrationError(f"the broker's file {path} cannot be used: {error}") from error
