"""Content codings, streamed and bounded: gzip, deflate, lz4 (frames) and zstd."""

import zlib
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Final, Protocol

import lz4.frame
import zstandard

from deploy.store.errors import CANNOT_DECOMPRESS, QUERY_IS_TOO_LARGE, UNKNOWN_COMPRESSION_METHOD, Fault

_PIECE: Final = 1 << 20
_GZIP: Final = 16 + zlib.MAX_WBITS
_ZSTD_HEADER: Final = 18  # the longest that a frame's header can be
_ZSTD_SKIPPABLE: Final = b"\x2a\x4d\x18"
_ZSTD_WINDOW: Final = 1 << 27  # zstd's own limit for decoders that do not ask for more


class Compressor(Protocol):
    """Takes a body in pieces; `flush` ends it."""

    def compress(self, data: bytes, /) -> bytes:
        """Take a piece; what comes back may lag behind."""
        ...

    def flush(self) -> bytes:
        """Give the rest."""
        ...


class _Lz4:
    def __init__(self) -> None:
        self._context: Any = lz4.frame.LZ4FrameCompressor()
        self._head: bytes = self._context.begin()

    def compress(self, data: bytes, /) -> bytes:
        head, self._head = self._head, b""
        return head + bytes(self._context.compress(data))

    def flush(self) -> bytes:
        return self._head + bytes(self._context.flush())


_COMPRESSORS: Final[dict[str, Callable[[], Compressor]]] = {
    "lz4": _Lz4,
    "zstd": lambda: zstandard.ZstdCompressor(level=1).compressobj(),
    "gzip": lambda: zlib.compressobj(3, zlib.DEFLATED, _GZIP),
    "deflate": lambda: zlib.compressobj(3),
}


def choose(accepted: str) -> str | None:
    """Give the first coding of an Accept-Encoding header that we can write and that is not forbidden by `q=0`."""
    for part in accepted.split(","):
        coding, _, parameter = part.strip().lower().partition(";")
        if coding.strip() in _COMPRESSORS and parameter.replace(" ", "") not in {"q=0", "q=0.0"}:
            return coding.strip()
    return None


def compressor(coding: str) -> Compressor:
    """Begin a compressed body."""
    return _COMPRESSORS[coding]()


def inflate(coding: str, body: Iterable[bytes], limit: int) -> Iterator[bytes]:
    """Undo a Content-Encoding, piece by piece.

    Args:
        coding: the header's value; empty or `identity` for none.
        body: what came.
        limit: most bytes of the result.

    Raises:
        Fault: the coding is unknown, the data is broken or cut short, or the result is larger than the limit.
    """
    total = 0
    for piece in _inflate(coding.strip().lower(), body):
        total += len(piece)
        if total > limit:
            raise Fault(QUERY_IS_TOO_LARGE, f"The request's body is larger than {limit} bytes")
        yield piece


def _inflate(coding: str, body: Iterable[bytes]) -> Iterator[bytes]:
    try:
        match coding:
            case "" | "identity":
                yield from body
            case "gzip" | "x-gzip":
                yield from _zlib(body, _GZIP)
            case "deflate":
                yield from _zlib(body, zlib.MAX_WBITS)
            case "lz4":
                yield from _lz4(body)
            case "zstd":
                yield from _zstd(body)
            case _:
                raise Fault(UNKNOWN_COMPRESSION_METHOD, f"Unknown compression method '{coding[:40]}'")
    except (zlib.error, zstandard.ZstdError, RuntimeError, EOFError) as error:
        raise Fault(CANNOT_DECOMPRESS, f"Cannot decompress the request's body: {error}") from None


def _zlib(body: Iterable[bytes], bits: int) -> Iterator[bytes]:
    stream = zlib.decompressobj(bits)
    for data in body:
        rest = data
        while rest:
            if stream.eof:  # gzip files may follow one another
                stream = zlib.decompressobj(bits)
            yield stream.decompress(rest, _PIECE)
            rest = stream.unconsumed_tail or stream.unused_data
    while not stream.eof:
        piece = stream.decompress(stream.unconsumed_tail, _PIECE)
        if not piece:
            raise EOFError("it ends too early")
        yield piece


def _lz4(body: Iterable[bytes]) -> Iterator[bytes]:
    stream: Any = lz4.frame.LZ4FrameDecompressor()
    for data in body:
        rest = data
        while rest or not stream.needs_input:
            if stream.eof:
                stream = lz4.frame.LZ4FrameDecompressor()
            yield bytes(stream.decompress(rest, _PIECE))
            rest = stream.unused_data or b"" if stream.eof else b""
            if stream.eof and not rest:
                break
    if not stream.eof:
        raise EOFError("it ends too early")


def _zstd(body: Iterable[bytes]) -> Iterator[bytes]:
    data = b"".join(body)
    _check_zstd(data)
    decoder = zstandard.ZstdDecompressor(max_window_size=_ZSTD_WINDOW)
    with decoder.stream_reader(data, read_across_frames=True) as reader:
        while piece := reader.read(_PIECE):
            yield piece


def _check_zstd(data: bytes) -> None:
    """Walk over the frames' headers (RFC 8878, 3.1): the library takes a body that is cut short for a whole one."""
    at = 0
    while at < len(data) or not data:
        if data[at + 1 : at + 4] == _ZSTD_SKIPPABLE and data[at] >> 4 == 5:  # noqa: PLR2004 - 0x184D2A50 to …5F
            at += 8 + int.from_bytes(data[at + 4 : at + 8], "little")
        else:
            head = data[at : at + _ZSTD_HEADER]
            at += zstandard.frame_header_size(head)
            last = False
            while not last:
                block = int.from_bytes(data[at : at + 3], "little")
                last, kind, size = bool(block & 1), block >> 1 & 3, block >> 3
                # A block of one repeated byte (kind 1) holds that byte alone.
                at += 3 + (1 if kind == 1 else size)
                if at > len(data):
                    raise EOFError("it ends too early")
            at += 4 if zstandard.get_frame_parameters(head).has_checksum else 0
        if at > len(data):
            raise EOFError("it ends too early")
