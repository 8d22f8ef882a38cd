"""Which path is what: the routes that SDKs post to, matched as the recorded server matches them."""

import re
from dataclasses import dataclass
from typing import Final

from schemas import edge_tokens
from schemas.event import Kind
from schemas.tokens import TokenType


@dataclass(frozen=True, slots=True, eq=False)  # by identity: it is looked up for every request
class Route:
    """One path that takes posts.

    Attributes:
        path: its name, lower case; stands in the event and in metrics.
        kind: which decoder reads its payloads; None where the body is ignored.
        token_type: what its token must be; None where none is asked for.
        frontend: called by browsers, so answered with CORS headers.
    """

    path: str
    kind: Kind | None
    token_type: TokenType | None
    frontend: bool = False


_ALL: Final = (
    Route("/api/client/metrics", Kind.METRICS, TokenType.BACKEND),
    Route("/api/client/metrics/bulk", Kind.BULK, TokenType.BACKEND),
    Route("/api/client/metrics/edge", None, TokenType.BACKEND),
    Route("/api/client/register", Kind.REGISTER, TokenType.BACKEND),
    Route("/api/frontend/client/metrics", Kind.METRICS, TokenType.FRONTEND, frontend=True),
    Route("/api/frontend/client/register", Kind.REGISTER, TokenType.FRONTEND, frontend=True),
)
VALIDATE: Final = Route(edge_tokens.PATH, None, None)
"""Where an Edge asks for tokens; no SDK posts here."""
_SLASHES: Final = re.compile("/{2,}")


class Routes:
    """The table of routes.

    Args:
        frontend_api: whether the paths for browsers are served.
        validate: whether the gateway itself says which tokens exist; otherwise a server behind it does.
        edge_data: whether it takes what an Edge tells about itself; otherwise that is for a server behind it.
    """

    def __init__(self, *, frontend_api: bool = True, validate: bool = True, edge_data: bool = True) -> None:
        self._routes = {
            route.path: route
            for route in _ALL
            if (frontend_api or not route.frontend) and (edge_data or route.kind is not None)
        }
        if validate:
            self._routes[VALIDATE.path] = VALIDATE

    def find(self, target: str) -> Route | None:
        """Find the route of a request target, exactly as it stands in the request line.

        Upper case, doubled slashes, one trailing slash and a query string make no difference (recorded).
        """
        return self._routes.get(target) or self._routes.get(path_of(target))

    def all(self) -> tuple[Route, ...]:
        """Give every route."""
        return tuple(self._routes.values())


def path_of(target: str) -> str:
    """Take the path out of a request target, in the one spelling that routes are named by."""
    path = target.partition("?")[0].partition("#")[0]
    return _SLASHES.sub("/", path).lower().removesuffix("/")
