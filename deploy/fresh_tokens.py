"""The tokens of a first start: three fresh ones, of which the file keeps only the SHA-256."""

import secrets
from pathlib import Path
from typing import Final, NamedTuple

import msgspec

from deploy import data_dir
from schemas.tokens import ANY, DEFAULT_PROJECT, TokenEntry, TokensFile, TokenType, digest_of

DEFAULT_ENVIRONMENT: Final = "development"
_SECRET_BYTES: Final = 28
"""56 hex digits, as Unleash writes them."""


class FreshToken(NamedTuple):
    """A token that was just made; the only place where its text exists. Show it once and forget it."""

    type: TokenType
    text: str


def make(file: Path) -> list[FreshToken]:
    """Make the tokens file where there is none.

    Returns:
        The backend and the frontend token of `default`/`development` and an admin token of everything; nothing where
        the file was there already.

    Raises:
        DataDirError: the file cannot be written.
    """
    if file.exists():
        return []
    fresh = [
        FreshToken(TokenType.BACKEND, _text(DEFAULT_PROJECT, DEFAULT_ENVIRONMENT)),
        FreshToken(TokenType.FRONTEND, _text(DEFAULT_PROJECT, DEFAULT_ENVIRONMENT)),
        FreshToken(TokenType.ADMIN, _text(ANY, ANY)),
    ]
    content = msgspec.json.format(msgspec.json.encode(TokensFile([_entry(token) for token in fresh])), indent=2)
    return fresh if data_dir.write_new(file, content + b"\n") else []


def _text(project: str, environment: str) -> str:
    return f"{project}:{environment}.{secrets.token_hex(_SECRET_BYTES)}"


def _entry(token: FreshToken) -> TokenEntry:
    project, environment = token.text.partition(".")[0].split(":")
    return TokenEntry(sha256=digest_of(token.text), type=token.type, projects=[project], environment=environment)
