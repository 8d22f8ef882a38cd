"""ClickHouse's errors: numbers, names, text, and the HTTP status that belongs to each."""

import re
from typing import Final

# What the front itself answers; everything else comes from the engine with its own number and name.
BAD_ARGUMENTS: Final = (36, "BAD_ARGUMENTS")
NOT_IMPLEMENTED: Final = (48, "NOT_IMPLEMENTED")
SYNTAX_ERROR: Final = (62, "SYNTAX_ERROR")
UNKNOWN_FORMAT: Final = (73, "UNKNOWN_FORMAT")
UNKNOWN_DATABASE: Final = (81, "UNKNOWN_DATABASE")
UNKNOWN_COMPRESSION_METHOD: Final = (89, "UNKNOWN_COMPRESSION_METHOD")
READONLY: Final = (164, "READONLY")
TOO_MANY_SIMULTANEOUS_QUERIES: Final = (202, "TOO_MANY_SIMULTANEOUS_QUERIES")
SOCKET_TIMEOUT: Final = (209, "SOCKET_TIMEOUT")
QUERY_IS_TOO_LARGE: Final = (229, "QUERY_IS_TOO_LARGE")
CANNOT_DECOMPRESS: Final = (271, "CANNOT_DECOMPRESS")
TOO_MANY_ROWS_OR_BYTES: Final = (396, "TOO_MANY_ROWS_OR_BYTES")
ACCESS_DENIED: Final = (497, "ACCESS_DENIED")
AUTHENTICATION_FAILED: Final = (516, "AUTHENTICATION_FAILED")
UNKNOWN_EXCEPTION: Final = (1002, "UNKNOWN_EXCEPTION")

# From ClickHouse's src/Server/HTTP/exceptionCodeToHTTPStatus.cpp; every other code is a 500 there and here.
_BAD_REQUEST: Final = (
    *(6, 8, 15, 25, 26, 27, 36, 37, 38, 41, 44, 53, 62, 72, 117, 123, 167, 168),
    *(223, 321, 376, 427, 441, 675, 676),
    *(271, 457),  # ours: a body or a parameter that cannot be read; a server says 500
)
_STATUS_BY_CODE: Final[dict[int, int]] = {
    **dict.fromkeys(_BAD_REQUEST, 400),
    **dict.fromkeys((46, 47, 50, 56, 60, 63, 73, 78, 81, 115, 152, 336, 511), 404),
    **dict.fromkeys((192, 193, 497, 512, 516), 403),
    **dict.fromkeys((76, 209, 439, 202), 503),  # 202, too many queries, is ours: "later" is what a client must do
    **dict.fromkeys((779, 89), 415),
    194: 401,
    159: 408,
    381: 411,
    229: 413,
    48: 501,
}


class Fault(Exception):  # noqa: N818 - ClickHouse's own word is Exception; this is what is answered
    """An error as ClickHouse reports it: number, name and text. It is answered to the client, never retried here."""

    def __init__(self, kind: tuple[int, str], message: str) -> None:
        super().__init__(message)
        self.code, self.name = kind
        self.message = message

    @property
    def status(self) -> int:
        """The HTTP status that goes with it."""
        return _STATUS_BY_CODE.get(self.code, 500)

    def text(self, version: str) -> str:
        """Give the body of the answer, in the shape that clients parse."""
        end = "" if self.message.endswith((".", "!", "?")) else "."
        return f"Code: {self.code}. DB::Exception: {self.message}{end} ({self.name}) (version {version})\n"


_PREFIX: Final = re.compile(r"^.*?Code: (\d+)\. DB::Exception: ", re.DOTALL)
_NESTED: Final = re.compile(r"^Code: \d+\. DB::Exception: ")
_VERSION: Final = re.compile(r"\s*\(version [^()]*(?:\([^()]*\))?\)\.?\s*$")
_NAME: Final = re.compile(r"\s*\(([A-Z][A-Z0-9_]+)\)\.?\s*$")


def parse(text: str) -> Fault:
    """Read chDB's error text.

    chDB repeats prefix, name and version when an error passes several layers, as in
    `Code: 164. DB::Exception: Code: 164. DB::Exception: … (READONLY) (version 26.9.2.1). (READONLY)`.
    One of each stays.
    """
    start = _PREFIX.match(text)
    if start is None:
        return Fault(UNKNOWN_EXCEPTION, text.strip() or "the engine failed without a message")
    code, rest, name = int(start[1]), text[start.end() :].strip(), ""
    while nested := _NESTED.match(rest):
        rest = rest[nested.end() :]
    while True:
        if end := _VERSION.search(rest):
            rest = rest[: end.start()]
        elif end := _NAME.search(rest):
            name, rest = end[1], rest[: end.start()]
        else:
            return Fault((code, name or UNKNOWN_EXCEPTION[1]), rest.rstrip())
