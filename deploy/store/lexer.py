"""ClickHouse's tokens, as far as the guard needs them: what is a word, a quoted name, a string, a comment.

Strict on purpose: wherever ClickHouse's own lexer has a choice (Unicode quotes, nested comments, an escape in a quoted
name, an unclosed heredoc), the text is refused, so that both can only ever see the same tokens.
"""

import enum
import re
from collections.abc import Iterator
from typing import Final, NamedTuple

from deploy.store.errors import SYNTAX_ERROR, Fault


class Kind(enum.Enum):
    """What a token is."""

    WORD = "word"
    QUOTED = "quoted name"
    STRING = "string"
    SYMBOL = "symbol"


class Token(NamedTuple):
    """One token: `text` is without quotes, `start` and `end` are offsets into the source."""

    kind: Kind
    text: str
    start: int
    end: int

    @property
    def upper(self) -> str:
        """The keyword that this word may be; empty for what cannot be one."""
        return self.text.upper() if self.kind is Kind.WORD else ""

    @property
    def name(self) -> str:
        """The lower-case name that this token may stand for, quoted or not; empty for strings and symbols."""
        return self.text.lower() if self.kind in {Kind.WORD, Kind.QUOTED} else ""


# Possessive repeats: a text of megabytes must not make the matcher keep states.
_TOKEN: Final = re.compile(
    r"""
      (?P<space>[ \t\n\r\f\v]+)
    | (?P<comment>--[^\n]*+|//[^\n]*+|\#[ !][^\n]*+|/\*(?P<inside>.*?)\*/)
    | (?P<heredoc>\$(?P<tag>\w*)\$.*?\$(?P=tag)\$)
    | (?P<word>[A-Za-z0-9_][A-Za-z0-9_$]*+)
    | (?P<string>'(?:[^'\\]++|\\.|'')*+')
    | (?P<backticks>`(?:[^`\\]++|``)*+`)
    | (?P<double>"(?:[^"\\]++|"")*+")
    | (?P<symbol>(?!/\*)[-+*/%=<>!?,.;:(){}\[\]|@^~&])
    """,
    re.VERBOSE | re.DOTALL | re.ASCII,
)


def tokens(source: str) -> Iterator[Token]:
    """Give the tokens of a query, comments and blanks left out, one by one (an INSERT's data must not be read).

    Args:
        source: the text, each byte one character (latin-1), so that offsets count bytes.

    Raises:
        Fault: SYNTAX_ERROR, for what is no ClickHouse SQL or could be read in two ways.
    """
    at = 0
    while at < len(source):
        found = _TOKEN.match(source, at)
        if found is None:
            raise Fault(SYNTAX_ERROR, f"Syntax error: failed at position {at + 1}: unrecognized or unclosed token")
        kind, text = found.lastgroup, found[0]
        start, at = at, found.end()
        match kind:
            case "space":
                pass
            case "comment":
                if found["inside"] is not None and "/*" in found["inside"]:
                    raise Fault(
                        SYNTAX_ERROR, f"Syntax error: failed at position {start + 1}: a comment within a comment"
                    )
            case "word":
                yield Token(Kind.WORD, text, start, at)
            case "string" | "heredoc":
                yield Token(Kind.STRING, text[1:-1], start, at)
            case "backticks":
                yield Token(Kind.QUOTED, text[1:-1].replace("``", "`"), start, at)
            case "double":
                yield Token(Kind.QUOTED, text[1:-1].replace('""', '"'), start, at)
            case _:
                yield Token(Kind.SYMBOL, text, start, at)
