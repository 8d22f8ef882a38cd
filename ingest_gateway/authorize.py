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


def authorize(authorization: str | None, tokens: Tokens, route: Route) -> Token:
    """Find the token of a request.

    Args:
        authorization: the header's value, with or without `Bearer`.
        tokens: the known ones.
        route: decides which type is wanted: backend, or frontend under `/api/frontend`; never admin.

    Raises:
        Refused: 401 without a known token, 403 with one of another type (recorded).
    """
    token = tokens.find(bare(authorization)) if authorization else None
    if token is None:
        raise Refused.with_message(401, _UNKNOWN)
    if token.type is not route.token_type:
        raise Refused.with_message(403, _OTHER_TYPE)
    return token
