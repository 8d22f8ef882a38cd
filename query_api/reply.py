"""Results to HTTP responses: envelope, weak entity tags and 304, gzip."""

import asyncio
import gzip
import hashlib
from collections.abc import Mapping
from typing import Final

import msgspec
from aiohttp import hdrs, web

from query_api import buckets
from query_api.cache import Answer
from schemas.answers import Envelope, FeatureEvaluations, ProjectEvaluations, Summary

_encode = msgspec.json.Encoder().encode
_ETAG_BYTES: Final = 16
_LEVEL: Final = 1
"""Of gzip: dense series repeat themselves so much that more effort saves little."""

_WORTH_IT: Final = 1024
"""Bodies below this many bytes are sent as they are."""

_BLOCKING: Final = 64 * 1024
"""Bodies above this many bytes are compressed beside the event loop."""


def answer(result: FeatureEvaluations | ProjectEvaluations | Summary, now: float) -> Answer:
    """Encode a result that was computed at `now` (epoch seconds).

    The entity tag is weak and covers the result alone: `cached` and `updatedAt` change while the counts do not.
    """
    body = _encode(result)
    second, fraction = divmod(int(now * 1000), 1000)
    tag = hashlib.blake2b(body, digest_size=_ETAG_BYTES).hexdigest()
    return Answer(body=body, updated_at=buckets.stamp(second, fraction), etag=f'W/"{tag}"')


async def response(found: Answer, *, cached: bool, request_headers: Mapping[str, str]) -> web.Response:
    """Make the response: 304 where the client has the same result already.

    Args:
        found: the encoded result.
        cached: whether it came from the result cache.
        request_headers: of the request; `If-None-Match` and `Accept-Encoding` count.
    """
    headers = {
        hdrs.ETAG: found.etag,
        # Answers differ by token, and the next one may be new: keep, but always ask.
        hdrs.CACHE_CONTROL: "private, no-cache",
        hdrs.VARY: f"{hdrs.AUTHORIZATION}, {hdrs.ACCEPT_ENCODING}",
    }
    if _has(request_headers.get(hdrs.IF_NONE_MATCH, ""), found.etag):
        return web.Response(status=web.HTTPNotModified.status_code, headers=headers)
    body = _encode(Envelope(result=msgspec.Raw(found.body), cached=cached, updated_at=found.updated_at))
    if len(body) >= _WORTH_IT and takes_gzip(request_headers.get(hdrs.ACCEPT_ENCODING, "")):
        headers[hdrs.CONTENT_ENCODING] = "gzip"
        body = _zip(body) if len(body) < _BLOCKING else await asyncio.to_thread(_zip, body)
    return web.Response(body=body, content_type="application/json", headers=headers)


def takes_gzip(accept_encoding: str) -> bool:
    """Say whether an `Accept-Encoding` names gzip, or anything, and does not rule it out with `q=0`."""
    weights: dict[str, float] = {}
    for part in accept_encoding.split(","):
        coding, _, parameter = part.partition(";")
        name, _, weight = parameter.partition("=")
        try:
            weights[coding.strip().lower()] = float(weight) if name.strip().lower() == "q" else 1.0
        except ValueError:
            weights[coding.strip().lower()] = 0.0
    return weights.get("gzip", weights.get("*", 0.0)) > 0


def _has(if_none_match: str, etag: str) -> bool:
    """Compare weakly, as RFC 9110 asks of If-None-Match."""
    opaque = etag.removeprefix("W/")
    return any(
        tag == "*" or tag.removeprefix("W/") == opaque for tag in (part.strip() for part in if_none_match.split(","))
    )


def _zip(body: bytes) -> bytes:
    return gzip.compress(body, _LEVEL, mtime=0)
