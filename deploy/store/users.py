"""Credentials: the secret of the services, and who a request speaks for."""

import base64
import contextlib
import hmac
import os
import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from deploy.store.errors import AUTHENTICATION_FAILED, Fault
from deploy.store.privileges import Role

SERVICE_USER: Final = "service"
_VISITORS: Final = frozenset({"", "default"})
_SECRET_BYTES: Final = 32


def read_or_make_secret(path: Path) -> str:
    """Give the password of the user `service`; it is made, readable to its owner only, when there is none.

    Raises:
        OSError: the file cannot be read or made.
        ValueError: the file is empty.
    """
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        secret = path.read_text("ascii").strip()
        if not secret:
            raise ValueError(f"{path} is empty; remove it, and the next start makes a new one") from None
        return secret
    with os.fdopen(descriptor, "w", encoding="ascii") as file:
        secret = secrets.token_hex(_SECRET_BYTES)
        file.write(secret + "\n")
        file.flush()
        os.fsync(file.fileno())
    return secret


def authenticate(headers: Mapping[str, str], parameters: Mapping[str, str], secret: str) -> Role:
    """Say whom a request speaks for: HTTP Basic, X-ClickHouse-User and -Key, or the parameters user and password.

    Raises:
        Fault: AUTHENTICATION_FAILED, with ClickHouse's own words.
    """
    given: list[tuple[str, str]] = []
    authorization = headers.get("Authorization", "")
    if authorization:
        given.append(_basic(authorization))
    if "X-ClickHouse-User" in headers or "X-ClickHouse-Key" in headers:
        given.append((headers.get("X-ClickHouse-User", ""), headers.get("X-ClickHouse-Key", "")))
    if "user" in parameters or "password" in parameters:
        given.append((parameters.get("user", ""), parameters.get("password", "")))
    if len(given) > 1:
        raise Fault(AUTHENTICATION_FAILED, "Invalid authentication: credentials are given in more than one way")
    user, password = given[0] if given else ("", "")
    if user in _VISITORS and not password:
        return Role.VISITOR
    # Both are compared, whatever the first one says, so that the time tells nothing.
    known = hmac.compare_digest(user.encode(), SERVICE_USER.encode())
    if hmac.compare_digest(password.encode(), secret.encode()) and known:
        return Role.SERVICE
    raise Fault(
        AUTHENTICATION_FAILED,
        f"{user[:64]}: Authentication failed: password is incorrect, or there is no user with such name",
    )


def _basic(authorization: str) -> tuple[str, str]:
    scheme, _, encoded = authorization.partition(" ")
    with contextlib.suppress(ValueError):  # binascii.Error and UnicodeDecodeError are some
        if scheme.lower() == "basic":
            user, colon, password = base64.b64decode(encoded.strip(), validate=True).decode().partition(":")
            if colon:
                return user, password
    raise Fault(AUTHENTICATION_FAILED, "Invalid authentication: only 'Basic' HTTP Authorization scheme is supported")
