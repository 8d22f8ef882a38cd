"""A request's body as UTF-8 bytes: what its headers promise is checked first, then it is read within bounds."""

import asyncio
import codecs
from functools import lru_cache
from typing import Final, Protocol

from aiohttp import hdrs, web

from ingest_gateway import inflating, refusals
from ingest_gateway.door import Visit
from ingest_gateway.refusals import Busy, Refused

_JSON: Final = "application/json"
_CONTINUE: Final = b"HTTP/1.1 100 Continue\r\n\r\n"


class _Inflate(Protocol):
    def __call__(self, body: bytes, *, limit: int) -> bytes: ...


class ClientLeft(Exception):  # noqa: N818 - what happened; there is nobody to answer
    """The connection ended before the body did."""


async def read(request: web.BaseRequest, visit: Visit, *, limit: int, seconds: float) -> bytes:
    """Read a JSON body, inflated and in UTF-8; an empty one counts as `{}`.

    Args:
        request: whose body it is.
        visit: counts what is held in memory.
        limit: most bytes, also after inflating.
        seconds: how long the client may take for all of it.

    Raises:
        Refused: 415 for another coding, charset or type, 413 above the limit, 400 for broken compression.
        Busy: too much is in flight, or the client took too long.
        ClientLeft: there is nobody to answer.
    """
    headers = request.headers
    encoding = headers.get(hdrs.CONTENT_ENCODING)
    inflate = _inflater(encoding) if encoding else None
    charset = _charset(headers.get(hdrs.CONTENT_TYPE))
    content = request.content
    if content.is_eof() and content.exception() is None:  # a small body came together with its head
        body = content.read_nowait()
        if len(body) > limit:
            raise refusals.too_large()
        visit.hold(len(body))
    else:
        body = await _receive(request, visit, limit, seconds)
    if not body:
        return b"{}"
    if inflate is not None:
        body = _counted(visit, body, inflate(body, limit=limit))
    return body if charset is None else _counted(visit, body, _transcoded(body, charset, limit))


async def _receive(request: web.BaseRequest, visit: Visit, limit: int, seconds: float) -> bytes:
    if (request.content_length or 0) > limit:
        raise refusals.too_large()
    if request.headers.get(hdrs.EXPECT, "").lower() == "100-continue":
        try:
            await request.writer.write(_CONTINUE)
        except ConnectionError as error:
            raise ClientLeft from error
    received = bytearray()  # not a list: a body may come in two million pieces
    try:
        async with asyncio.timeout(seconds):
            while chunk := await request.content.readany():
                if len(received) + len(chunk) > limit:
                    raise refusals.too_large()
                visit.hold(len(chunk))
                received += chunk
    except TimeoutError:
        raise Busy("slow_body", cut=True) from None
    except (ConnectionError, web.RequestPayloadError) as error:
        if request.transport is None or request.transport.is_closing():
            raise ClientLeft from error
        raise Refused.with_message(400, "request aborted") from None  # its chunks cannot be read
    return bytes(received)


def _inflater(encoding: str) -> _Inflate | None:
    match encoding.lower():
        case "identity":
            return None
        case "gzip":
            return inflating.gunzip
        case "deflate":
            return inflating.undeflate
    raise Refused.with_message(415, f'unsupported content encoding "{encoding.lower()[:64]}"')


@lru_cache(maxsize=256)
def _charset(content_type: str | None) -> str | None:
    """Check a Content-Type; give the charset to decode from, None for UTF-8.

    Raises:
        Refused: 415.
    """
    media_type, _, parameters = (content_type or "").partition(";")
    if media_type.strip().lower() != _JSON:
        raise refusals.content_type(content_type)
    charset = _parameter(parameters, "charset")
    if charset in {"", "utf-8", "utf8"}:
        return None
    # The recorded server takes every Unicode charset and nothing else.
    if not charset.startswith("utf-") or not _is_known(charset):
        raise Refused.with_message(415, f'unsupported charset "{charset.upper()[:64]}"')
    return charset


def _parameter(parameters: str, name: str) -> str:
    for parameter in parameters.split(";"):
        key, _, value = parameter.partition("=")
        if key.strip().lower() == name:
            return value.strip().strip('"').lower()
    return ""


def _is_known(charset: str) -> bool:
    try:
        codecs.lookup(charset)
    except (LookupError, ValueError):  # also names with NUL, or with bytes that are no text
        return False
    return True


def _transcoded(body: bytes, charset: str, limit: int) -> bytes:
    text = body.decode(charset, "replace")
    encoded = text.encode("utf-8", "replace")
    if len(encoded) > limit:
        raise refusals.too_large()
    return encoded


def _counted(visit: Visit, before: bytes, after: bytes) -> bytes:
    visit.release(len(before))
    visit.hold(len(after))
    return after
