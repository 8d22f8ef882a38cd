"""The data directory of the embedded stack: one `flagmeter up` at a time, and nobody else may read it."""

import fcntl
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

_LOCK: Final = "up.lock"
_SECRET: Final = "store.secret"  # noqa: S105 - a file's name
_SECRET_BYTES: Final = 32
_PRIVATE_DIR: Final = 0o700
_PRIVATE_FILE: Final = 0o600


class DataDirError(Exception):
    """The data directory cannot be used; says why and what to do."""


@contextmanager
def claimed(path: Path) -> Iterator[None]:
    """Make the directory where it is missing, and hold it for this process.

    The kernel frees it when the process ends, however it ends.

    Raises:
        DataDirError: another `flagmeter up` holds it, or it cannot be made or written.
    """
    try:
        path.mkdir(mode=_PRIVATE_DIR, parents=True, exist_ok=True)
        lock = os.open(path / _LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, _PRIVATE_FILE)
    except OSError as error:
        raise DataDirError(
            f"the data directory {path} cannot be used: {error.strerror}. Choose another with --data-dir"
        ) from error
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            holder = os.pread(lock, 32, 0).decode("ascii", "replace").strip()
            raise DataDirError(
                f"another flagmeter up{f' (process {holder})' if holder else ''} uses the data directory {path}: "
                "stop it, or choose another with --data-dir"
            ) from error
        os.ftruncate(lock, 0)
        os.pwrite(lock, f"{os.getpid()}\n".encode(), 0)
        yield
    finally:
        os.close(lock)


def store_secret(path: Path) -> str:
    """Give the secret that the services use at the embedded store; made on the first call.

    Raises:
        DataDirError: the file is empty or cannot be read.
    """
    file = path / _SECRET
    write_new(file, f"{secrets.token_hex(_SECRET_BYTES)}\n".encode())
    try:
        secret = file.read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise DataDirError(f"the store's secret {file} cannot be read: {error}") from error
    if not secret:
        raise DataDirError(f"the store's secret {file} is empty: remove it, and the next start makes another")
    return secret


def write_new(file: Path, content: bytes) -> bool:
    """Write a file that only its owner may read, whole or not at all; leave one that exists alone.

    Returns:
        True when it was written.

    Raises:
        DataDirError: it cannot be written.
    """
    draft = file.with_name(f".{file.name}.{os.getpid()}")
    try:
        descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, _PRIVATE_FILE)
        try:
            with os.fdopen(descriptor, "wb") as out:
                out.write(content)
                out.flush()
                os.fsync(out.fileno())
            os.link(draft, file)  # fails where the file exists, unlike a rename
        finally:
            draft.unlink()
    except FileExistsError:
        return False
    except OSError as error:
        raise DataDirError(f"{file} cannot be written: {error.strerror}") from error
    return True
