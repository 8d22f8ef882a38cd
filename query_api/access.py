"""Who may read what: admin tokens, within their projects."""

from typing import Final, Protocol

from query_api import problems
from query_api.problems import RefusedError
from schemas.tokens import Token, TokenType, bare

_CHALLENGE: Final = {"WWW-Authenticate": "Bearer"}


class Tokens(Protocol):
    """Whatever knows the tokens."""

    def find(self, text: str) -> Token | None:
        """Find a presented token; None where it is unknown."""
        ...


def authorize(authorization: str | None, tokens: Tokens) -> Token:
    """Let an admin token in.

    Args:
        authorization: the header's value, with or without `Bearer`; None where it is missing.
        tokens: the known ones.

    Raises:
        RefusedError: 401 without a known token, 403 for one of another type.
    """
    token = tokens.find(bare(authorization)) if authorization else None
    if token is None:
        raise RefusedError(problems.unauthorized(), _CHALLENGE)
    if token.type is not TokenType.ADMIN:
        raise RefusedError(problems.forbidden())
    return token


def check_project(token: Token, project: str) -> None:
    """Hide the projects that a token is not for.

    Raises:
        RefusedError: 404, the same as for a project that was never counted (DevCycle: 404 also stands for no
            permission to view).
    """
    if not token.sees(project):
        raise RefusedError(problems.item_not_found(project))
