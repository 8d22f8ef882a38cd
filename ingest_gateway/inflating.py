"""Compressed bodies to bytes, never more of them than the limit."""

import zlib
from typing import Final

from ingest_gateway.refusals import Refused, too_large

_GZIP: Final = zlib.MAX_WBITS | 16
_RAW: Final = -zlib.MAX_WBITS
_MOST_MEMBERS: Final = 16
"""Each member costs a copy of all that follows it: 100,000 empty ones would take half a minute."""
_GZIP_MAGIC: Final = b"\x1f\x8b"


def gunzip(body: bytes, *, limit: int) -> bytes:
    """Inflate gzip; members may follow each other, and what follows the last one is ignored, as Node's zlib does.

    Raises:
        Refused: 413 above `limit` bytes, 400 where it is not gzip or has more members than any encoder makes.
    """
    parts: list[bytes] = []
    left = limit
    for _ in range(_MOST_MEMBERS):
        inflated, rest = _inflate(body, _GZIP, left)
        parts.append(inflated)
        left -= len(inflated)
        if not rest.startswith(_GZIP_MAGIC):
            return parts[0] if len(parts) == 1 else b"".join(parts)
        body = rest
    raise Refused.with_message(400, "too many gzip members")


def undeflate(body: bytes, *, limit: int) -> bytes:
    """Inflate `deflate`: zlib's format as RFC 9110 has it, or raw, as some clients send it.

    Raises:
        Refused: 413 above `limit` bytes, 400 where it is neither.
    """
    return _inflate(body, zlib.MAX_WBITS if _has_zlib_header(body) else _RAW, limit)[0]


def _inflate(body: bytes, wbits: int, limit: int) -> tuple[bytes, bytes]:
    inflater = zlib.decompressobj(wbits)
    try:
        inflated = inflater.decompress(body, limit + 1)
    except zlib.error as error:
        raise Refused.with_message(400, _reason(error)) from None
    if len(inflated) > limit:
        raise too_large()
    if not inflater.eof:
        raise Refused.with_message(400, "unexpected end of file")
    return inflated, inflater.unused_data


def _has_zlib_header(body: bytes) -> bool:
    """RFC 1950: method 8 in the low bits of the first byte, and two bytes that are a multiple of 31."""
    return len(body) > 1 and body[0] & 0x0F == 8 and int.from_bytes(body[:2], "big") % 31 == 0  # noqa: PLR2004


def _reason(error: zlib.error) -> str:
    """Take zlib's own words out of Python's message (`Error -3 while decompressing data: incorrect header check`)."""
    return str(error).rpartition(": ")[2]
