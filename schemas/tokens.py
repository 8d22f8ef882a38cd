"""The tokens file: which tokens exist, of which type, and what their counts belong to.

Only SHA-256 digests are kept. A presented token is hashed first, so looking it up tells nothing about known ones.
"""

import hashlib
import hmac
from enum import StrEnum
from typing import Final

import msgspec

from schemas.event import token_id
from schemas.limits import MAX_NAME, RESERVED_PREFIX

ANY: Final = "*"
DEFAULT_PROJECT: Final = "default"
_DIGEST_HEX: Final = 64
_BEARER: Final = "bearer "
_MAX_TOKEN: Final = 4096


class TokenType(StrEnum):
    """What a token may do: post from servers, post from browsers and apps, or read."""

    BACKEND = "backend"
    FRONTEND = "frontend"
    ADMIN = "admin"


class TokenEntry(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """One token as it stands in the file: its text or its SHA-256, never both."""

    token: str | None = None
    sha256: str | None = None
    type: TokenType
    projects: list[str]
    environment: str
    project: str | None = None


class TokensFile(msgspec.Struct, forbid_unknown_fields=True):
    """The whole file."""

    tokens: list[TokenEntry]


class Token(msgspec.Struct, frozen=True):
    """A known token, without its text.

    Attributes:
        digest: its SHA-256, 32 bytes.
        id: the first 16 hex digits of its SHA-256; may be logged and stored.
        type: what it may do.
        projects: what it may see; `*` is all.
        environment: what its counts belong to; `*` leaves it to each entry.
        project: the project that its counts belong to.
    """

    digest: bytes
    id: str
    type: TokenType
    projects: frozenset[str]
    environment: str
    project: str

    def sees(self, project: str) -> bool:
        """Say whether an admin token may read this project."""
        return ANY in self.projects or project in self.projects


class WrongTokensError(ValueError):
    """The file cannot be used; the message lists every fault, and never a token's text."""


class TokenTable:
    """All known tokens, by digest."""

    def __init__(self, tokens: dict[bytes, Token]) -> None:
        self._tokens = tokens

    def __len__(self) -> int:
        return len(self._tokens)

    def find(self, text: str) -> Token | None:
        """Find a presented token by its text; None where it is unknown."""
        if not text or len(text) > _MAX_TOKEN:
            return None
        digest = hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()
        token = self._tokens.get(digest)
        return token if token is not None and hmac.compare_digest(token.digest, digest) else None


def bare(authorization: str) -> str:
    """Take the token out of an `Authorization` header's value, with or without `Bearer`."""
    value = authorization.strip()
    return value[len(_BEARER) :].strip() if value[: len(_BEARER)].lower() == _BEARER else value


def askable(text: str) -> bool:
    """Say whether a text can be a token at all: printable, without spaces, and not too long."""
    return 0 < len(text) <= _MAX_TOKEN and text.isprintable() and " " not in text


def raw_digest(text: str) -> bytes:
    """Hash a presented text, whatever it is, as known tokens are kept: the 32 bytes of SHA-256."""
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()


def digest_of(text: str) -> str:
    """Hash a token's text as the file keeps it: 64 hex digits of SHA-256."""
    return hashlib.sha256(text.encode()).hexdigest()


def read(content: bytes) -> TokenTable:
    """Read the file's content.

    Raises:
        WrongTokensError: not JSON, an unknown field, or a wrong value; lists all faults with the entry's number.
    """
    try:
        entries = msgspec.json.decode(content, type=TokensFile).tokens
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise WrongTokensError(f"the tokens file is not as documented: {error}") from error
    faults = [f"tokens[{at}]: {fault}" for at, entry in enumerate(entries) for fault in _faults(entry)]
    if faults:
        raise WrongTokensError("; ".join(faults))
    return TokenTable({token.digest: token for token in map(_token, entries)})


def token_of(entry: TokenEntry) -> Token:
    """Make the token of one entry.

    Raises:
        WrongTokensError: lists the entry's faults.
    """
    faults = _faults(entry)
    if faults:
        raise WrongTokensError("; ".join(faults))
    return _token(entry)


def _token(entry: TokenEntry) -> Token:
    digest = entry.sha256.lower() if entry.sha256 else digest_of(entry.token or "")
    return Token(
        digest=bytes.fromhex(digest),
        id=token_id(digest),
        type=entry.type,
        projects=frozenset(entry.projects),
        environment=entry.environment,
        project=entry.project or _project_of(entry.projects),
    )


def _faults(entry: TokenEntry) -> list[str]:
    faults = []
    if bool(entry.token) == bool(entry.sha256):
        faults.append("give either token or sha256")
    if entry.sha256 and (len(entry.sha256) != _DIGEST_HEX or not _is_hex(entry.sha256)):
        faults.append("sha256 must be 64 hex digits")
    if not entry.projects:
        faults.append('projects must name at least one project, or "*"')
    if not entry.environment:
        faults.append("environment must not be empty")
    if entry.environment == ANY and entry.type is TokenType.FRONTEND:
        faults.append('environment "*" is for backend and admin tokens only')
    for name in (*entry.projects, entry.environment, *([entry.project] if entry.project is not None else [])):
        if name.startswith(RESERVED_PREFIX):
            faults.append(f'names that begin with "{RESERVED_PREFIX}" are reserved')
        if len(name) > MAX_NAME or "\0" in name:
            faults.append(f"names have at most {MAX_NAME} characters and no NUL")
    if entry.project == "":
        faults.append("project must not be empty")
    return faults


def _is_hex(text: str) -> bool:
    return all(digit in "0123456789abcdefABCDEF" for digit in text)


def _project_of(projects: list[str]) -> str:
    only_one = len(projects) == 1 and projects[0] != ANY
    return projects[0] if only_one else DEFAULT_PROJECT
