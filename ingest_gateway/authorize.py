"""Whose post it is: the token of a request, and whether it may use the route."""

from typing import Final, Protocol

from ingest_gateway.refusals import Refused
from ingest_gateway.routing import Route
from schemas.tokens import Token, bare

_UNKNOWN: Final = (
    "This endpoint requires an API token. Please add an authorization header to your request with a valid token"
)
_OTHER_TYPE: Final = "invalid token: expected a different token type for this endpoint"


class Tokens(Protocol):
    """Whatever knows tokens."""

    def find(self, text: str) -> Token | None:
        """Find a presented token by its text; None where it is unknown."""
        ...


class Upstream(Protocol):
    """Whatever can be asked for tokens that are not known here."""

    async def ask(self, text: str) -> Token | None:
        """Ask for a presented token that `Tokens.find` did not find; None where it is unknown.

        Raises:
            Busy: nobody can say now.
        """
        ...


class UnknownToken(Refused):
    """No token, or one that is not known here: 401."""


def authorize(authorization: str | None, tokens: Tokens, route: Route) -> Token:
    """Find the token of a request, without waiting.

    Args:
        authorization: the header's value, with or without `Bearer`.
        tokens: the known ones.
        route: decides which type is wanted: backend, or frontend under `/api/frontend`; never admin.

    Raises:
        UnknownToken: 401 without a known token.
        Refused: 403 with one of another type (recorded).
    """
    return _fitting(tokens.find(bare(authorization)) if authorization else None, route)


async def authorize_by(upstream: Upstream, authorization: str | None, route: Route) -> Token:
    """Find the token of a request that `authorize` did not know.

    Raises:
        UnknownToken: 401 where it is unknown there, too.
        Refused: 403 with one of another type.
        Busy: nobody can say now.
    """
    return _fitting(await upstream.ask(bare(authorization)) if authorization else None, route)


def _fitting(token: Token | None, route: Route) -> Token:
    if token is None:
        raise UnknownToken.with_message(401, _UNKNOWN)
    if token.type is not route.token_type:
        raise Refused.with_message(403, _OTHER_TYPE)
    return token
