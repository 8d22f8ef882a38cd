"""The head of a request and of an answer on their way through: byte for byte, less what belongs to one hop.

Everything here is bytes: names and values may be in Latin-1 (Node's HTTP client writes them so), and no decoding that
has to guess stands in between.
"""

from collections.abc import Iterator, Sequence
from typing import Final, NamedTuple

from aiohttp import hdrs, web
from multidict import CIMultiDictProxy

RawHeaders = Sequence[tuple[bytes, bytes]]

PSEUDONYM: Final = "flagmeter"
"""How a gateway names itself in `Via` (RFC 9110, 7.6.3); the same for all, so that one knows what came from another."""

_ONE_HOP: Final = frozenset({b"connection", b"keep-alive", b"te", b"trailer", b"transfer-encoding", b"upgrade"})
_PROXY: Final = b"proxy-"
_NEVER_NAMED: Final = frozenset({b"content-length", b"host", b"via", b"x-forwarded-for"})
"""What a sender cannot have removed by naming it in `Connection`: framing and the path of the request hang on it."""
_CHUNKED: Final = (b"Transfer-Encoding", b"chunked")
_CLOSE: Final = (b"Connection", b"close")


class Incoming(NamedTuple):
    """A request's head as it came.

    Attributes:
        method: the verb.
        target: what stands in the request line after it, byte for byte.
        minor: of HTTP/1.x.
        headers: names and values, byte for byte, in their order.
        peer: the address of whoever is connected; empty where there is none.
    """

    method: str
    target: bytes
    minor: int
    headers: RawHeaders
    peer: str

    @classmethod
    def of(cls, request: web.BaseRequest) -> "Incoming":
        """Take it from aiohttp's request."""
        target = request.raw_path.encode("utf-8", "surrogateescape")
        return cls(request.method, target, request.version.minor, request.raw_headers, request.remote or "")


def came_from_a_gateway(headers: CIMultiDictProxy[str]) -> bool:
    """Say whether a gateway of flagmeter has passed this on already: to pass it again may never end."""
    return any(PSEUDONYM in _receivers(via) for via in headers.getall(hdrs.VIA, ()))


def request_head(
    incoming: Incoming,
    *,
    authority: bytes,
    prefix: bytes = b"",
    chunked: bool = False,
    without: frozenset[bytes] = frozenset(),
    more: RawHeaders = (),
) -> bytes:
    """Write the head of a request that is passed on.

    Args:
        incoming: as it came.
        authority: host and port of the server that it goes to, for `Host`.
        prefix: of every path there.
        chunked: its body goes in chunks; else as its `Content-Length` says, or there is none.
        without: names, in lower case, that are left out.
        more: headers that are added.
    """
    host = b""
    addresses: list[bytes] = []
    seen: set[bytes] = set()
    headers = [(b"Host", authority)]
    for low, name, value in _end_to_end(incoming.headers):
        if low == b"host":
            host = value
        elif low == b"x-forwarded-for":
            addresses.append(value)
        elif low not in without and not (chunked and low == b"content-length"):
            seen.add(low)
            headers.append((name, value))
    if incoming.peer:
        addresses.append(incoming.peer.encode("ascii", "replace"))
    if addresses:
        headers.append((b"X-Forwarded-For", b", ".join(addresses)))
    if b"x-forwarded-proto" not in seen:
        headers.append((b"X-Forwarded-Proto", b"http"))
    if host and b"x-forwarded-host" not in seen:
        headers.append((b"X-Forwarded-Host", host))
    headers.append((b"Via", f"1.{incoming.minor} {PSEUDONYM}".encode()))
    headers.extend(more)
    if chunked:
        headers.append(_CHUNKED)
    return _written(b"%b %b%b HTTP/1.1" % (incoming.method.encode("ascii"), prefix, incoming.target), headers)


def answer_head(status: int, reason: str, headers: RawHeaders, *, chunked: bool = False, close: bool = False) -> bytes:
    """Write the head of an answer that is passed back.

    Args:
        status: of the answer.
        reason: the words beside it, as the parser gave them.
        headers: names and values, byte for byte.
        chunked: its body goes in chunks; else as its `Content-Length` says, until the end, or there is none.
        close: the connection ends after it.
    """
    kept = [(name, value) for _, name, value in _end_to_end(headers)]
    if chunked:
        kept.append(_CHUNKED)
    if close:
        kept.append(_CLOSE)
    return _written(b"HTTP/1.1 %d %b" % (status, reason.encode("utf-8", "surrogateescape")), kept)


def _written(line: bytes, headers: list[tuple[bytes, bytes]]) -> bytes:
    return b"\r\n".join([line, *[b"%b: %b" % header for header in headers], b"", b""])


def _end_to_end(headers: RawHeaders) -> Iterator[tuple[bytes, bytes, bytes]]:
    """Give lower-case name, name and value of each header that is not for one hop alone (RFC 9110, 7.6.1)."""
    lowered = [(name.lower(), name, value) for name, value in headers]
    dropped = _ONE_HOP
    for low, _, value in lowered:
        if low == b"connection":
            dropped |= {named.strip().lower() for named in value.split(b",")} - _NEVER_NAMED
    return (header for header in lowered if header[0] not in dropped and not header[0].startswith(_PROXY))


def _receivers(via: str) -> set[str]:
    """Give who is named in a `Via`: `[protocol/]version received-by [comment]`, separated by commas."""
    parts = (entry.split() for entry in via.split(","))
    return {words[1].lower() for words in parts if len(words) > 1}
