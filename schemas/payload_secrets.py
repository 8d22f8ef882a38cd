"""What must not reach the log: the token texts that an Edge lists in `seenTokens`."""

import re
from collections.abc import Iterator
from json import JSONDecodeError
from typing import Final

from schemas.lenient import DECODER, MalformedJsonError, malformation, text_of

_NAME: Final = "seenTokens"
# Each letter as itself or escaped: the only ways in which JSON can write this name.
_WRITTEN: Final = re.compile(
    b'"' + b"".join(rb"(?:%c|\\u(?i:00%x))" % (letter, letter) for letter in _NAME.encode()) + b'"'
)
_SPACE: Final = re.compile(r"[ \t\n\r]*")


def without_seen_tokens(body: bytes) -> bytes:
    """Cut the top-level member `seenTokens` out of a body, however often and however it is written.

    Every other member stays as it was sent, byte for byte; only bytes that are no UTF-8 become U+FFFD, as which every
    reader sees them.

    Args:
        body: what a decoder of `schemas.decode` has read.

    Returns:
        The very same object where there is nothing to cut.

    Raises:
        MalformedJsonError: not JSON at all.
    """
    if (b"seenTokens" not in body and b"\\" not in body) or not _WRITTEN.search(body):
        return body
    document = text_of(body)
    try:
        members = list(_members(document))
    except JSONDecodeError as error:
        raise MalformedJsonError(malformation(document, error)) from None
    except RecursionError:
        raise MalformedJsonError("JSON is nested too deeply") from None
    kept = [document[start:end] for name, start, end in members if name != _NAME]
    return body if len(kept) == len(members) else ("{" + ",".join(kept) + "}").encode()


def _members(document: str) -> Iterator[tuple[str, int, int]]:
    """Give each member of the top-level object: its name, and where it begins and ends in the document."""
    at = _skip(document, 0)
    if not document.startswith("{", at):
        return
    at = _skip(document, at + 1)
    while document.startswith('"', at):
        name, colon = DECODER.raw_decode(document, at)
        value = _skip(document, _skip(document, colon) + 1)
        _, end = DECODER.raw_decode(document, value)
        yield name, at, end
        at = _skip(document, end)
        if not document.startswith(",", at):
            break
        at = _skip(document, at + 1)
    if not document.startswith("}", at) or _skip(document, at + 1) != len(document):
        raise JSONDecodeError("not an object", document, at)


def _skip(document: str, at: int) -> int:
    found = _SPACE.match(document, at)
    return found.end() if found else at
