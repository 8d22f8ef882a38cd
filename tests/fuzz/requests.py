"""What a client may do on a connection: requests from a grammar of HTTP, bent in every part."""

import gzip
import random
import zlib
from dataclasses import dataclass
from typing import Final

from schemas.event import Kind
from tests.fuzz.grammar import Grammar
from tests.ingest_gateway.support import ADMIN, BACKEND_ANY, BACKEND_DEV, FRONTEND_DEV

_PATHS: Final = {
    "/api/client/metrics": Kind.METRICS,
    "/api/frontend/client/metrics": Kind.METRICS,
    "/api/client/metrics/bulk": Kind.BULK,
    "/api/client/register": Kind.REGISTER,
    "/api/frontend/client/register": Kind.REGISTER,
    "/api/client/metrics/edge": Kind.METRICS,
    "/edge/validate": Kind.REGISTER,
}
_OTHER_PATHS: Final = (
    *("/", "//", "/healthz", "/readyz", "/metrics", "/api/client/features", "/api/client/metrics/", "*", "/%00", "/.."),
    *("/API//CLIENT/Metrics?x=%ff", "http://other/api/client/metrics", "/api/client/metrics#x", "/" + "a" * 7000, ""),
    *("/api/client/metrics;v=1", "/api/client/%6detrics", "/\xff\xfe", "/api/client/metrics?" + "a=b&" * 1500),
)
_METHODS: Final = (
    *("GET", "HEAD", "OPTIONS", "PUT", "DELETE", "PATCH", "CONNECT", "TRACE", "post", "POST\t", "X" * 40, ""),
)
_TYPES: Final = (
    *("application/json; charset=utf-8", "application/json;charset=UTF-16", "application/json; charset=utf-7"),
    *("application/json; charset=utf-8-sig", "application/json; charset=utf-32-le", "application/json; charset=rot13"),
    *("application/json; charset=utf-16-be", 'application/json; charset="utf-8"', "application/json; charset="),
    *("text/plain", "", "application/JSON ; x=y;;charset=utf_8", "application/json; charset=utf-\xff", ";" * 500),
    *("application/json, application/json", "application/json; charset=utf-8\0", "multipart/form-data; boundary=x"),
)
_CODINGS: Final = ("gzip", "deflate", "identity", "br", "zstd", "GZIP", "gzip, gzip", "x", "", "gzip;q=1", "\xff")
_TOKENS: Final = (
    *(FRONTEND_DEV, ADMIN, BACKEND_ANY, "", "Bearer", f"Bearer {BACKEND_DEV}", f"bearer  {BACKEND_DEV} ", "x" * 6000),
    *(
        "Basic dXNlcjpwYXNz",
        "default:development.wrong",
        "\xe9\xe8\xff",
        "*:*.x",
        ":.",
        "[]:development.\x01",
        BACKEND_DEV[:-1],
    ),
)
_ODD_HEADERS: Final = (
    *(b"Expect: 100-continue", b"Expect: 200-ok", b"Connection: upgrade\r\nUpgrade: websocket", b"Connection: close"),
    *(b"Content-Length: 5", b"Content-Length: -1", b"Content-Length: 1e3", b"Content-Length: 99999999999999999999"),
    *(
        b"Content-Length: +5",
        b"Content-Length: 5, 5",
        b"Transfer-Encoding: chunked",
        b"Transfer-Encoding: gzip, chunked",
    ),
    *(
        b"Transfer-Encoding: identity",
        b"Transfer-Encoding: chunked\r\nContent-Length: 3",
        b"Transfer-Encoding: \x0bchunked",
    ),
    *(b" folded: x", b"no colon", b": no name", b"x\0y: z", b"X: \0", b"X: \xff\xfe", b"X:" + b"y" * 9000, b"H: " * 40),
    *(b"Idempotency-Key: \xff\0", b"Idempotency-Key: " + b"k" * 3000, b"Unleash-Connection-Id: \xed\xa0\x80"),
    *(b"Unleash-AppName: " + "\u00e9".encode() * 400, b"Unleash-Sdk: unleash-node:6.0.0", b"Unleash-Sdk: \x01\x02"),
    *(b"Origin: null", b"Access-Control-Request-Headers: " + b"x," * 900, b"Access-Control-Request-Headers: a\x7fb"),
    *(b"Host: a\r\nHost: b", b"Via: 1.1 x", b"X-Forwarded-For: ::1", b"Cookie: " + b"c=d;" * 300, b"Content-Type: x"),
)
_NOISE: Final = (
    b"\x16\x03\x01\x02\x00\x01\x00",
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    b"\r\n\r\n",
    b"\0" * 100,
    b"GET /\r\n",
)
_ZEROS: Final = 3_000_000
_BOMBS: Final = (gzip.compress(bytes(_ZEROS), 9), zlib.compress(b" " * _ZEROS, 9), gzip.compress(b"") * 40)


@dataclass(frozen=True)
class Visit:
    """What is done on one connection.

    Attributes:
        pieces: bytes, sent one after another.
        pause: seconds between pieces.
        end: what the client does then: `read` until the gateway closes, `half` close first, or `leave` at once.
        answers: how many answers are due whatever the requests hold; None where that depends on what was bent.
    """

    pieces: tuple[bytes, ...]
    pause: float
    end: str
    answers: int | None


class Visits:
    """Makes visits by a seeded chance."""

    def __init__(self, rng: random.Random) -> None:
        self._rng = rng
        self._grammar = Grammar(rng)

    def make(self) -> Visit:
        """Make one visit of one request, or of several without waiting for answers."""
        rng = self._rng
        count = rng.choice((1, 1, 1, 1, 2, 5))
        parts = [self._request(last=at == count - 1) for at in range(count)]
        whole = all(sound for _, sound in parts)
        data = b"".join(part for part, _ in parts)
        end = "read" if whole else rng.choice(("half", "half", "half", "leave", "read"))
        answers = count if whole else None
        match rng.randrange(12):
            case 0:
                data, answers, end = self._grammar.damage(data), None, "half"
            case 1:
                data, answers = data[: rng.randrange(len(data) + 1)], None
                end = rng.choice(("half", "half", "leave"))
            case 2:
                data, answers, end = rng.choice(_NOISE) + data, None, "half"
            case 3:
                answers, end = None, rng.choice(("half", "leave"))
        pieces, pause = (data,), 0.0
        if rng.random() < 0.15 and data:
            cuts = sorted(rng.randrange(len(data)) for _ in range(rng.choice((1, 3, 10))))
            pieces = tuple(data[start:stop] for start, stop in zip([0, *cuts], [*cuts, len(data)], strict=True))
            pause = rng.choice((0.0, 0.0, 0.002))
        return Visit(pieces, pause, end, answers)

    def _request(self, *, last: bool) -> tuple[bytes, bool]:
        """Give one request, and whether its framing is sound: then it must be answered."""
        rng = self._rng
        path, kind = rng.choice(list(_PATHS.items()))
        method, sound = "POST", True
        if rng.random() < 0.08:
            path = rng.choice(_OTHER_PATHS)
            sound = False
        if rng.random() < 0.08:
            method, sound = rng.choice(_METHODS), False
        frontend = path.startswith("/api/frontend")
        token = FRONTEND_DEV if frontend else BACKEND_DEV
        if rng.random() < 0.15:
            token = rng.choice(_TOKENS)
            sound = sound and token.isascii() and token.isprintable()
        body = self._grammar.body(kind)
        lines = [b"Host: gateway"]
        if rng.random() < 0.97:
            lines.append(b"Authorization: " + token.encode("latin-1"))
        content_type = "application/json" if rng.random() < 0.9 else rng.choice(_TYPES)
        sound = sound and content_type.isascii() and "\0" not in content_type
        if rng.random() < 0.98:
            lines.append(b"Content-Type: " + content_type.encode("latin-1"))
        if rng.random() < 0.2:
            body, coding = self._coded(body)
            lines.append(b"Content-Encoding: " + coding.encode("latin-1"))
            sound = sound and coding.isascii()
        body, framing, framed = self._framed(body)
        sound = sound and framed
        lines.append(framing)
        if rng.random() < 0.15:
            lines.append(rng.choice(_ODD_HEADERS))
            sound = False
        if last:
            lines.append(b"Connection: close")
        version = rng.choice(("0.9", "1.0", "2.0", "1.1x", "", "11", "9.9")) if rng.random() < 0.03 else "1.1"
        sound = sound and version == "1.1"
        head = f"{method} {path} HTTP/{version}".encode("latin-1")
        return b"\r\n".join([head, *lines, b"", body]), sound

    def _coded(self, body: bytes) -> tuple[bytes, str]:
        rng = self._rng
        match rng.randrange(8):
            case 0 | 1:
                return gzip.compress(body, 1, mtime=0), "gzip"
            case 2:
                return zlib.compress(body, 1), "deflate"
            case 3:
                packed = gzip.compress(body, 1, mtime=0)
                return self._grammar.damage(packed), rng.choice(("gzip", "deflate"))
            case 4:
                return body, rng.choice(_CODINGS)
            case 5 if rng.random() < 0.2:
                return rng.choice(_BOMBS), rng.choice(("gzip", "deflate"))
            case 6:
                cut = rng.randrange(len(body) + 1)
                return gzip.compress(body[:cut], mtime=0) + gzip.compress(body[cut:], mtime=0), "gzip"
        compressor = zlib.compressobj(wbits=-15)
        return compressor.compress(body) + compressor.flush(), "deflate"

    def _framed(self, body: bytes) -> tuple[bytes, bytes, bool]:
        """Give the body as it is sent, the header that says how, and whether that is right."""
        rng = self._rng
        chance = rng.random()
        if chance < 0.8:
            return body, b"Content-Length: %d" % len(body), True
        if chance < 0.85:
            wrong = max(0, len(body) + rng.choice((-5, -1, 1, 100, 10**7)))
            return body, b"Content-Length: %d" % wrong, False
        chunks = bytearray()
        at = 0
        while at < len(body):
            size = rng.choice((1, 3, 100, 4000))
            extension = rng.choice((b"", b"", b"", b";x=y", b";" + b"e" * 50))
            piece = body[at : at + size]
            chunks += b"%x%s\r\n%s\r\n" % (len(piece), extension, piece)
            at += size
            if len(chunks) > 30_000:
                size = len(body)
                chunks += b"%x\r\n%s\r\n" % (len(body) - at, body[at:]) if at < len(body) else b""
                break
        right = chance < 0.96
        end = (
            b"0\r\n\r\n"
            if right
            else rng.choice((b"", b"0\r\n", b"0\r\nTrailer: x\r\n\r\n", b"-1\r\n", b"zz\r\n\r\n", b"F" * 20))
        )
        return bytes(chunks) + end, b"Transfer-Encoding: chunked", right
