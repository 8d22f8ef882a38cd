"""Errors in the shape that DevCycle documents: `{statusCode, message, error}` (`reference`, 1.5)."""

from collections.abc import Mapping
from http import HTTPStatus

import msgspec
from aiohttp import web

from schemas.answers import Problem

_encode = msgspec.json.Encoder().encode


class RefusedError(Exception):
    """The request ends with this problem."""

    def __init__(self, problem: Problem, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(problem.message)
        self.problem = problem
        self.headers = headers or {}


def bad_request(messages: list[str]) -> Problem:
    """400, with every message."""
    return Problem(HTTPStatus.BAD_REQUEST, messages, HTTPStatus.BAD_REQUEST.phrase)


def unauthorized() -> Problem:
    """401: no token, or one that nobody knows. Without `error`, as the reference has it."""
    return Problem(HTTPStatus.UNAUTHORIZED, HTTPStatus.UNAUTHORIZED.phrase)


def forbidden() -> Problem:
    """403: a known token of a type that may not read."""
    return Problem(HTTPStatus.FORBIDDEN, "Only admin tokens may read results", HTTPStatus.FORBIDDEN.phrase)


def item_not_found(key: str) -> Problem:
    """404: never counted, or not within the token's projects; the two look alike."""
    return Problem(HTTPStatus.NOT_FOUND, f"Item with key '{key}' not found", HTTPStatus.NOT_FOUND.phrase)


def no_route(method: str, path: str) -> Problem:
    """404: nothing is served there, or not by this method."""
    return Problem(HTTPStatus.NOT_FOUND, f"Cannot {method} {path}", HTTPStatus.NOT_FOUND.phrase)


def of_status(status: int) -> Problem:
    """Any other status, with its standard phrase."""
    phrase = HTTPStatus(status).phrase
    return Problem(status, phrase, phrase)


def unavailable(reason: str) -> Problem:
    """503: the store is away."""
    return Problem(
        HTTPStatus.SERVICE_UNAVAILABLE,
        f"The counts cannot be read right now: {reason}",
        HTTPStatus.SERVICE_UNAVAILABLE.phrase,
    )


def response(problem: Problem, headers: Mapping[str, str] | None = None) -> web.Response:
    """Make the HTTP response."""
    return web.Response(
        body=_encode(problem), status=problem.status_code, content_type="application/json", headers=headers
    )
