"""The numbered SQL files of `schemas/migrations`, and what is left to be done of them: pure but for reading the files.

Each statement of a file must be harmless when it is repeated (`IF NOT EXISTS`, `OR REPLACE`): a run may end in the
middle of a file, and two runs may meet.
"""

import hashlib
import importlib.resources
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from deploy import sql_text
from schemas.limits import MARKER_DAYS

_NAME: Final = re.compile(r"(\d{4})_(\w+)\.sql")
_LEAST_WINDOW: Final = 100_000
_HOURS_OF_WINDOW: Final = 4


class RefusedMigrationError(Exception):
    """The store and the files do not belong together; nothing was changed. Says what to do."""


class StoreAwayError(Exception):
    """The store did not answer in time; says where it was looked for."""


class BrokerAwayError(Exception):
    """Kafka did not answer in time; says where it was looked for, and why."""


@dataclass(frozen=True, slots=True)
class Migration:
    """One file: its number, its name, and its text before anything is filled in."""

    number: int
    name: str
    text: str

    @property
    def sha256(self) -> str:
        """Hash the text: 64 hex digits."""
        return hashlib.sha256(self.text.encode()).hexdigest()

    def statements(self, *, database: str, window: int) -> list[str]:
        """Give the statements with database, deduplication window and the markers' days filled in."""
        filled = (
            self.text.replace("{database}", f"`{database}`")
            .replace("{window}", str(window))
            .replace("{marker_days}", str(MARKER_DAYS))
        )
        return sql_text.statements(filled)


class State(StrEnum):
    """How one migration stands."""

    APPLIED = "applied"
    PENDING = "pending"
    CHANGED = "changed since it was applied"
    UNKNOWN = "not known to this version"


def files() -> list[Migration]:
    """Read all files, in the order of their numbers."""
    folder = importlib.resources.files("schemas") / "migrations"
    found = []
    for file in folder.iterdir():
        match = _NAME.fullmatch(file.name)
        if match:
            found.append(Migration(int(match[1]), match[2], file.read_text(encoding="utf-8")))
    return sorted(found, key=lambda migration: migration.number)


def states(known: Sequence[Migration], applied: Mapping[int, tuple[str, str]]) -> list[tuple[int, str, State]]:
    """Compare the files with what the store has.

    Args:
        known: the files.
        applied: by number, the name and the SHA-256 of what was applied.

    Returns:
        Number, name and state of each, in order.
    """
    compared = []
    for migration in known:
        if migration.number not in applied:
            state = State.PENDING
        else:
            state = State.APPLIED if applied[migration.number][1] == migration.sha256 else State.CHANGED
        compared.append((migration.number, migration.name, state))
    numbers = {migration.number for migration in known}
    compared += [(number, name, State.UNKNOWN) for number, (name, _) in applied.items() if number not in numbers]
    return sorted(compared)


def pending(known: Sequence[Migration], applied: Mapping[int, tuple[str, str]]) -> list[Migration]:
    """Give the files that are to be applied, in order.

    Raises:
        RefusedMigrationError: an applied file's text changed, or the store was made by a newer version.
    """
    compared = states(known, applied)
    newer = [f"{number:04} {name}" for number, name, state in compared if state is State.UNKNOWN]
    if newer:
        raise RefusedMigrationError(
            f"the store is newer than this version of flagmeter: it has {', '.join(newer)}. Run that newer version"
        )
    changed = [f"{number:04}_{name}.sql" for number, name, state in compared if state is State.CHANGED]
    if changed:
        raise RefusedMigrationError(
            f"{', '.join(changed)} was applied with another text. Put the old text back, and write what is to change "
            "into a new file with the next number"
        )
    waiting = {number for number, _, state in compared if state is State.PENDING}
    return [migration for migration in known if migration.number in waiting]


def window(*, partitions: int, flush_seconds: float) -> int:
    """Give the deduplication window, in inserts: four hours of batches of all partitions, never below 100,000.

    Args:
        partitions: of the log.
        flush_seconds: the longest time that a batch stays open.
    """
    return max(_LEAST_WINDOW, int(_HOURS_OF_WINDOW * 3600 * partitions / flush_seconds))
