"""A private folder for as long as a service runs: the sockets of its workers, and what they count."""

import contextlib
import errno
import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import structlog

_log = structlog.get_logger()
_PREFIX: Final = "flagmeter-workers-"
_MEMORY: Final = Path("/dev/shm")  # noqa: S108 - the folder in it is made with a random name, for this user alone
_FIRST_REGULAR_USER: Final = 1000
_LONGEST: Final = 90
"""Bytes of the folder's path: a socket's whole path may have 103 on some systems."""


@contextlib.contextmanager
def made(base: Path | None = None) -> Iterator[Path]:
    """Make a folder that only this user may enter; it is removed at the end.

    Those that killed processes of this user left behind are removed, too: each has a lock while its process lives.

    Args:
        base: where to make it; by default in memory, or where temporary files are.

    Raises:
        OSError: it cannot be made, or its path is too long for a socket's.
    """
    base = base or _base(os.geteuid())
    _sweep(base)
    folder, lock = _make(base)
    try:
        if len(os.fsencode(folder)) > _LONGEST:
            raise OSError(errno.ENAMETOOLONG, "the folder for temporary files (TMPDIR) has too long a path", str(base))
        yield folder
    finally:
        _remove(folder)
        os.close(lock)


def _base(user: int) -> Path:
    """Choose between memory, where a write to a mapped file never waits for a disk, and temporary files.

    When a regular user logs out, systemd empties /dev/shm of what is theirs (logind.conf(5), RemoveIPC), whatever runs
    on. It leaves locked folders among temporary files alone (tmpfiles.d(5)).
    """
    memory = os.access(_MEMORY, os.W_OK | os.X_OK)
    if memory and user < _FIRST_REGULAR_USER:
        return _MEMORY
    try:
        return Path(tempfile.gettempdir())
    except FileNotFoundError:  # as in a container whose own files may not be written
        if memory:
            return _MEMORY
        raise


def _make(base: Path) -> tuple[Path, int]:
    while True:
        folder = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=base))
        lock = _locked(folder)
        if lock is not None:
            return folder, lock
        # Another process that starts took it for a left one, between these two lines.


def _sweep(base: Path) -> None:
    for folder in base.glob(f"{_PREFIX}*"):
        lock = _locked(folder)
        if lock is not None:
            _remove(folder)
            os.close(lock)


def _locked(folder: Path) -> int | None:
    """Lock a folder of this user; None where it is another user's, or in use, or gone."""
    try:
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    except OSError:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        found = os.fstat(descriptor)
        if found.st_uid == os.geteuid() and os.path.samestat(found, folder.stat()):
            return descriptor
    except OSError as error:
        _log.debug("a folder of workers is left alone", folder=str(folder), why=error.strerror)
    os.close(descriptor)
    return None


def _remove(folder: Path) -> None:
    try:
        shutil.rmtree(folder)
    except OSError as error:
        _log.warning("a folder of workers could not be removed", folder=str(folder), why=str(error))
