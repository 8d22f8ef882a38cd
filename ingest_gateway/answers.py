"""Answers made once and written as they are: the hot path builds no header for each request.

aiohttp's own response object costs about a quarter of a small request; these write prepared bytes and the date.
"""

import time
from email.utils import formatdate
from http import HTTPStatus
from typing import Final

import msgspec
from aiohttp import HttpVersion11, hdrs, web
from aiohttp.abc import AbstractStreamWriter

from ingest_gateway.refusals import Refused
from ingest_gateway.routing import Route
from schemas.event import Kind

JSON: Final = "application/json; charset=utf-8"
RETRY_AFTER_SECONDS: Final = 2
_UNLEASH_VERSION: Final = "8.2.0"
"""The server whose protocol this is; SDKs read it from the answer to a registration."""

_CORS: Final = (
    ("Vary", "Origin"),
    ("Access-Control-Allow-Origin", "*"),
    ("Access-Control-Allow-Credentials", "true"),
    ("Access-Control-Expose-Headers", "ETag"),
)
_RETRY: Final = ("Retry-After", str(RETRY_AFTER_SECONDS))
_BUSY: Final = b'{"message":"flagmeter cannot take this now, please send it again"}'
_THROTTLED: Final = b'{"message":"this token posts too often"}'
_LONGEST_ECHO: Final = 1024

Pairs = tuple[tuple[str, str], ...]


class Answer(web.StreamResponse):
    """One answer, the same for whoever asks, any number of times.

    Args:
        status: of the answer.
        body: of the answer.
        content_type: of the body; none where it is empty.
        pairs: further headers.
        keeps: whether the connection stays open after it.
        cuts: whether the connection is closed at once, without reading what the client still sends.
    """

    def __init__(
        self,
        status: int,
        body: bytes = b"",
        *,
        content_type: str = "",
        pairs: Pairs = (),
        keeps: bool = True,
        cuts: bool = False,
    ) -> None:
        super().__init__(status=status)
        lines = [f"HTTP/1.1 {status} {HTTPStatus(status).phrase}"]
        lines += [f"{name}: {value}" for name, value in pairs]
        if content_type:
            lines.append(f"Content-Type: {content_type}")
        if status != HTTPStatus.NO_CONTENT:
            lines.append(f"Content-Length: {len(body)}")
        if not keeps:
            lines.append("Connection: close")
        self._head = "\r\n".join([*lines, "Date: "]).encode("latin-1", "replace")
        self._end = b"\r\n\r\n" + body
        self._keeps = keeps
        self._cuts = cuts

    @property
    def keep_alive(self) -> bool:
        """Whether the connection stays open."""
        return self._keeps

    def drop_body(self) -> None:
        """Send the head alone, as HEAD wants it."""
        self._end = b"\r\n\r\n"

    async def prepare(self, request: web.BaseRequest) -> AbstractStreamWriter:
        """Write all of it.

        Raises:
            ConnectionResetError: the client left; aiohttp ends the connection then.
        """
        transport = request.transport
        if transport is None or transport.is_closing():
            raise ConnectionResetError("the client left")
        transport.write(self._head + _date.line() + self._end)
        if request.protocol.writing_paused:
            await request.writer.drain()
        if self._cuts:
            request.protocol.force_close()
        return request.writer

    async def write_eof(self, data: bytes = b"") -> None:
        """Do nothing: it was all written at once."""


class _Date:
    """The `Date` header's value, made anew once a second."""

    def __init__(self) -> None:
        self._second = 0
        self._line = b""

    def line(self) -> bytes:
        second = int(time.time())
        if second != self._second:
            self._second = second
            self._line = formatdate(second, usegmt=True).encode()
        return self._line


_date = _Date()


class Prepared:
    """An answer in two forms, for connections that stay open and for those that end."""

    __slots__ = ("_closing", "_keeping")

    def __init__(self, status: int, body: bytes = b"", *, content_type: str = "", pairs: Pairs = ()) -> None:
        self._keeping = Answer(status, body, content_type=content_type, pairs=pairs)
        self._closing = Answer(status, body, content_type=content_type, pairs=pairs, keeps=False)

    def to(self, *, keep: bool) -> Answer:
        """Choose the form."""
        return self._keeping if keep else self._closing


def keeps_alive(request: web.BaseRequest) -> bool:
    """Say whether a client wants its connection kept; HTTP/1.0 gets none, so that the prepared form fits everyone."""
    return request.keep_alive and request.version >= HttpVersion11


def success(route: Route) -> Prepared:
    """Make a route's 2xx, as recorded: the frontend answers `200 OK`, everything else an empty 202."""
    if route.frontend:
        return Prepared(200, b"OK", content_type="text/plain; charset=utf-8", pairs=_CORS)
    if route.kind is Kind.REGISTER:
        return Prepared(202, pairs=(("X-Unleash-Version", _UNLEASH_VERSION),))
    return Prepared(202)


def busy(*, frontend: bool) -> Prepared:
    """Make the 503 that asks to come again."""
    return Prepared(503, _BUSY, content_type=JSON, pairs=(_RETRY, *(_CORS if frontend else ())))


def cut(*, frontend: bool) -> Answer:
    """Make a 503 that closes the connection at once."""
    pairs = (_RETRY, *(_CORS if frontend else ()))
    return Answer(503, _BUSY, content_type=JSON, pairs=pairs, keeps=False, cuts=True)


def throttled(seconds: int, *, frontend: bool, keep: bool) -> Answer:
    """Make a 429 that says after how many seconds the next post is taken."""
    pairs = (("Retry-After", str(seconds)), *(_CORS if frontend else ()))
    return Answer(429, _THROTTLED, content_type=JSON, pairs=pairs, keeps=keep)


def refusal(refused: Refused, *, frontend: bool, keep: bool, again: bool = False) -> Answer:
    """Make a 4xx, or a 5xx that asks to come `again`."""
    pairs: Pairs = _CORS if frontend else ()
    if again:
        pairs = (_RETRY, *pairs)
    content_type = JSON if refused.body else ""
    return Answer(refused.status, refused.body, content_type=content_type, pairs=pairs, keeps=keep)


def options(*, keep: bool) -> Answer:
    """Say which verb a route of servers takes (recorded)."""
    return Answer(200, b"POST", content_type="text/html; charset=utf-8", pairs=(("Allow", "POST"),), keeps=keep)


def preflight(request: web.BaseRequest, *, keep: bool) -> Answer:
    """Allow a browser's post with whatever headers it asks for (recorded)."""
    pairs: Pairs = (
        ("Vary", "Origin, Access-Control-Request-Headers"),
        *_CORS[1:3],
        ("Access-Control-Allow-Methods", "POST"),
        ("Access-Control-Max-Age", "86400"),
    )
    asked = request.headers.get(hdrs.ACCESS_CONTROL_REQUEST_HEADERS, "")
    if asked and len(asked) <= _LONGEST_ECHO and asked.isprintable():
        pairs += (("Access-Control-Allow-Headers", asked),)
    return Answer(204, pairs=pairs, keeps=keep)


def document(status: int, content: object, *, keep: bool) -> Answer:
    """Answer any value as JSON."""
    return Answer(status, msgspec.json.encode(content), content_type=JSON, keeps=keep)
