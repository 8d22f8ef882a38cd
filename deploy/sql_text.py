"""Split a migration's text into statements, without being fooled by strings and comments."""

import re
from typing import Final

# What may hide a semicolon: a line comment, a block comment, and the three kinds of quotes, in which a backslash
# escapes and a doubled quote is just two strings in a row.
_PIECE: Final = re.compile(
    r"--[^\n]*|/\*.*?\*/|'(?:[^'\\]|\\.)*'|\"(?:[^\"\\]|\\.)*\"|`(?:[^`\\]|\\.)*`|;|[^-/'\"`;]+|.", re.DOTALL
)
_OPENS: Final = frozenset("'\"`")


class UnfinishedTextError(ValueError):
    """A quote or a comment never ends."""


def statements(text: str) -> list[str]:
    """Give the statements of a text, in order, without their semicolons and without comments.

    Raises:
        UnfinishedTextError: a quote or a block comment is not closed.
    """
    found: list[str] = []
    current: list[str] = []
    for match in _PIECE.finditer(text):
        piece = match[0]
        if piece == ";":
            found.append("".join(current))
            current = []
        elif piece.startswith("--") or (piece.startswith("/*") and len(piece) > 1):
            current.append(" ")
        elif piece in _OPENS or text.startswith("/*", match.start()):
            raise UnfinishedTextError(f"not closed: {text[match.start() : match.start() + 30]!r}")
        else:
            current.append(piece)
    found.append("".join(current))
    return [statement.strip() for statement in found if statement.strip()]
