"""Named points of the protocol: silent in production; in tests the place where a worker is killed."""

import os
import signal
from pathlib import Path


class NoPoints:
    """Nothing happens anywhere."""

    async def reached(self, name: str) -> None:
        """Go on."""


class KillPoints:
    """Dies by SIGKILL at the point that a file names; the file is removed first, so it happens once.

    Only where `FLAGMETER_KILL_POINT_FILE` is set, by tests: a test writes the name of a point into that file.
    """

    def __init__(self, path: Path) -> None:
        self._path = path

    async def reached(self, name: str) -> None:
        """Die if this is the point."""
        try:
            wanted = self._path.read_text().strip()
        except FileNotFoundError:
            return
        if wanted == name:
            self._path.unlink()
            os.kill(os.getpid(), signal.SIGKILL)
