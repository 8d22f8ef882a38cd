"""One accepted request on the broker: its bytes as received, its headers, and the partition that it belongs to.

The value is the body after decompression, with `seenTokens` cut out and nothing else changed: what the SDK said can
be replayed. The headers are frozen from the first version (EXACTLY_ONCE.md, 4).
"""

import hashlib
import struct
from collections.abc import Iterable
from enum import StrEnum
from typing import Final

import msgspec

VERSION: Final = 1
_TOKEN_ID_LENGTH: Final = 16
_BODY_HASH_BYTES: Final = 16


class Kind(StrEnum):
    """Which decoder of `schemas` reads the value."""

    METRICS = "metrics"
    BULK = "bulk"
    REGISTER = "register"


class Headers(msgspec.Struct, frozen=True, gc=False):
    """What the gateway knew about a request; every field is a header of its own on Kafka.

    Attributes:
        v: version of this format.
        kind: which decoder reads the value.
        route: the path as we name it, lower case, without doubled or trailing slashes.
        project: the project that counts belong to: the token's.
        environment: the token's, or `*` where the token leaves it to each entry.
        token_id: the first 16 hex digits of the token's SHA-256.
        received_ms: the gateway's clock, milliseconds since the epoch. Informative: nothing is decided by it.
        connection: the connection id from the body, else from its header, else empty.
        sdk: `name:version` of the SDK, else empty.
        start: the window's start in nanoseconds since the epoch, within 64 bits (the years 1678 to 2261); None where
            there is no such window.
        body_hash: 32 hex digits of the SHA-256 of the received bytes after decompression.
        idempotency_key: as sent, else empty.
    """

    kind: Kind
    route: str
    project: str
    environment: str
    token_id: str
    received_ms: int
    body_hash: str
    connection: str = ""
    sdk: str = ""
    start: int | None = None
    idempotency_key: str = ""
    v: int = VERSION


class Unreadable(msgspec.Struct, frozen=True):
    """Headers that no rule here can read; the record is set aside, never skipped.

    Attributes:
        raw: the headers as they were on the broker.
        why: what is wrong with them, for the `rejected` table.
    """

    raw: bytes
    why: str


class Event(msgspec.Struct, frozen=True):
    """What the gateway appends: partition key, headers, value."""

    key: bytes
    headers: Headers
    value: bytes


_NAMES: Final = Headers.__struct_fields__
_pack = msgspec.msgpack.Encoder().encode
_unpack = msgspec.msgpack.Decoder(Headers).decode


def pack(headers: Headers) -> bytes:
    """Encode headers into one value, for a broker that keeps them in one column."""
    return _pack(headers)


def unpack(raw: bytes) -> Headers | Unreadable:
    """Decode what `pack` made; anything else, and a newer format, is `Unreadable`."""
    try:
        headers = _unpack(raw)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        return Unreadable(raw, f"headers: {error}")
    if headers.v != VERSION:
        return Unreadable(raw, f"headers: format {headers.v} is newer than {VERSION}")
    return headers


def to_pairs(headers: Headers) -> list[tuple[str, bytes]]:
    """Encode headers as named pairs, for a broker that carries them one by one."""
    return [
        (name, value.encode() if isinstance(value, str) else b"%d" % value)
        for name, value in zip(_NAMES, msgspec.structs.astuple(headers), strict=True)
        if value is not None
    ]


def from_pairs(pairs: Iterable[tuple[str, bytes]]) -> Headers | Unreadable:
    """Decode what `to_pairs` made; anything else, and a newer format, is `Unreadable`."""
    named = list(pairs)
    try:
        headers = msgspec.convert({name: raw.decode() for name, raw in named}, Headers, strict=False)
    except (msgspec.ValidationError, UnicodeDecodeError) as error:
        return Unreadable(msgspec.msgpack.encode(named), f"headers: {error}")
    if headers.v != VERSION:
        return Unreadable(msgspec.msgpack.encode(named), f"headers: format {headers.v} is newer than {VERSION}")
    return headers


def token_id(digest: str) -> str:
    """Shorten a token's SHA-256 (hex) to the id that may be logged and stored."""
    return digest[:_TOKEN_ID_LENGTH]


def body_hash(body: bytes) -> str:
    """Hash the received bytes after decompression, before anything is cut out: 32 hex digits."""
    return hashlib.sha256(body).digest()[:_BODY_HASH_BYTES].hex()


def partition_key(headers: Headers, *, app: str) -> bytes:
    """Choose what keeps the posts of one connection in one partition, so that repeats meet.

    Args:
        headers: of the event.
        app: the payload's app name; for bulk that of the poster's own header.

    Returns:
        Environment, app and connection; without a connection the token id with the idempotency key, or with the
        body hash (then equal bytes still meet, and the load spreads).
    """
    if headers.connection:
        parts = (headers.environment, app, headers.connection)
    else:
        parts = (headers.token_id, headers.idempotency_key or headers.body_hash, "")
    return "\0".join(parts).encode("utf-8", "surrogatepass")


def partition_of(key: bytes, partitions: int) -> int:
    """Map a key to a partition as Kafka's own clients do: murmur2, its sign bit cleared, modulo the count."""
    return 0 if partitions == 1 else (_murmur2(key) & 0x7FFFFFFF) % partitions


def _murmur2(data: bytes) -> int:
    """Hash with Kafka's seed and constants (public domain algorithm by Austin Appleby), 32 bits unsigned."""
    mask, mixer = 0xFFFFFFFF, 0x5BD1E995
    words, rest = divmod(len(data), 4)
    value = 0x9747B28C ^ len(data)
    for word in struct.unpack_from(f"<{words}I", data):
        mixed = word * mixer & mask
        value = (value * mixer ^ (mixed ^ mixed >> 24) * mixer) & mask
    if rest:
        value = (value ^ int.from_bytes(data[-rest:], "little")) * mixer & mask
    value = (value ^ value >> 13) * mixer & mask
    return value ^ value >> 15
