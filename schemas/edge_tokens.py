"""`POST /edge/validate`: which of these tokens exist, as Unleash Edge asks its upstream and as Unleash answers.

The gateway asks and answers it; so does whatever `FLAGMETER_TOKENS_URL` names. Observed of Unleash and Edge: the answer
is exactly 200, unknown tokens are left out of it, and a backend token is called `client`.
"""

from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from typing import Final

import msgspec

from schemas.event import token_id
from schemas.tokens import ANY, Token, TokenEntry, TokenType, WrongTokensError, digest_of, token_of

PATH: Final = "/edge/validate"
MAX_ASKED: Final = 100
"""Most tokens in one question."""
DEFAULT_ENVIRONMENT: Final = "default"

_CLIENT: Final = "client"
_TYPES: Final = {
    _CLIENT: TokenType.BACKEND,
    "backend": TokenType.BACKEND,
    "frontend": TokenType.FRONTEND,
    "admin": TokenType.ADMIN,
}


class TokensAsked(msgspec.Struct):
    """The question: tokens' texts."""

    tokens: list[str]


class EdgeToken(msgspec.Struct):
    """A known token in the answer."""

    token: str
    type: str
    projects: list[str]
    environment: str | None = None


class _Answer(msgspec.Struct):
    """The answer, its entries still unread: a broken one must not cost its neighbours."""

    tokens: list[msgspec.Raw]


class UnreadableAnswerError(ValueError):
    """The upstream's answer is not one; nothing is known of any token."""


@dataclass(frozen=True, slots=True)
class Answered:
    """What an answer says.

    Attributes:
        known: by text.
        unusable: tokens that exist there and cannot be used here: why, by text. They count as unknown.
        complete: every entry could be read. Otherwise nothing is known of a token that is in neither.
    """

    known: dict[str, Token] = field(repr=False)
    unusable: dict[str, str] = field(repr=False)
    complete: bool


def encode_question(texts: Collection[str]) -> bytes:
    """Write the question."""
    return msgspec.json.encode(TokensAsked(list(texts)))


def encode_answer(known: Iterable[tuple[str, Token]]) -> bytes:
    """Write the answer: the known tokens among the asked ones, by their texts. Environment `*` stays `*`."""
    listed = [EdgeToken(text, _type_name(token), sorted(token.projects), token.environment) for text, token in known]
    return msgspec.json.encode({"tokens": listed})


def decode_answer(content: bytes, asked: Collection[str]) -> Answered:
    """Read an upstream's answer; what was not asked is left out.

    A backend or admin token without environment is one of `*`. A frontend token of none or of `*` is one of `default`,
    where the recorded server counts it: a browser never chooses its environment.

    Raises:
        UnreadableAnswerError: not JSON, or not of the shape `{"tokens": […]}`; the message repeats nothing of it.
    """
    try:
        entries = msgspec.json.decode(content, type=_Answer).tokens
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise UnreadableAnswerError("not an answer to this question") from None
    answered = Answered({}, {}, True)
    broken = False
    for raw in entries:
        try:
            entry = msgspec.json.decode(raw, type=EdgeToken)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            broken = True
            continue
        if entry.token not in asked:
            continue
        try:
            answered.known[entry.token] = _token(entry)
        except WrongTokensError as error:
            answered.unusable[entry.token] = str(error)
    return Answered(answered.known, answered.unusable, complete=not broken)


def shown_id(text: str) -> str:
    """Give the id of a token that may be logged."""
    return token_id(digest_of(text))


def _token(entry: EdgeToken) -> Token:
    kind = _TYPES.get(entry.type.lower())
    if kind is None:
        raise WrongTokensError("its type is none of client, backend, frontend, admin")
    environment = entry.environment or ANY
    if kind is TokenType.FRONTEND and environment == ANY:
        environment = DEFAULT_ENVIRONMENT
    return token_of(TokenEntry(token=entry.token, type=kind, projects=entry.projects, environment=environment))


def _type_name(token: Token) -> str:
    return _CLIENT if token.type is TokenType.BACKEND else token.type.value
