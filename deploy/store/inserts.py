"""The INSERT that brings its data along: where its text ends and its data begins."""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final

from deploy.store import privileges
from deploy.store.errors import ACCESS_DENIED, SYNTAX_ERROR, Fault
from deploy.store.lexer import Kind, Token
from deploy.store.privileges import Role


@dataclass(frozen=True, slots=True)
class Insert:
    """An INSERT that brings its data along: `into` is the statement up to it, `data_at` the data's first byte."""

    into: str
    format: str
    settings: dict[str, str] = field(default_factory=dict)
    data_at: int = 0


_TABLE: Final = frozenset({Kind.WORD, Kind.QUOTED})


def read(source: str, stream: Iterator[Token]) -> Insert | None:
    """Read `INSERT INTO [TABLE] name [(columns)] [SETTINGS …] FORMAT x` or `VALUES`. None for INSERT … SELECT.

    The grammar is followed word by word, because nothing behind FORMAT is SQL any more.
    """
    table = _insert_table(stream)
    start, end = table.start, table.end
    for token in stream:
        match token.upper or token.text:
            case "." | "(":
                last = _skip_name_or_columns(token, stream)
                if last is None:
                    return None
                end = last
            case "SETTINGS":
                return _insert_with_settings(source, source[start:end], stream)
            case "FORMAT" | "VALUES":
                return _insert_data(source, source[start:end], token, stream, {})
            case "SELECT" | "WITH":
                return None
            case _:
                raise Fault(ACCESS_DENIED, f"The embedded store does not run INSERT … {token.text[:30]}")
    return Insert(f"INSERT INTO {source[start:end]}", "Values", {}, len(source))


def _insert_table(stream: Iterator[Token]) -> Token:
    token = next(stream, None)
    for keyword in ("INTO", "TABLE"):
        if token is not None and token.upper == keyword:
            token = next(stream, None)
    if token is None or token.kind not in _TABLE:
        raise Fault(SYNTAX_ERROR, "Syntax error: INSERT INTO what?")
    if token.upper == "FUNCTION":
        raise Fault(ACCESS_DENIED, "The embedded store does not run INSERT INTO FUNCTION")
    return token


def _skip_name_or_columns(token: Token, stream: Iterator[Token]) -> int | None:
    if token.text == ".":
        part = next(stream, None)
        if part is None or part.kind not in _TABLE:
            raise Fault(SYNTAX_ERROR, "Syntax error: a table name must follow the dot")
        return part.end
    for part in stream:
        if part.text == ")" and part.kind is Kind.SYMBOL:
            return part.end
        if part.upper in {"SELECT", "WITH"} or part.text == "(":
            return None
        if part.kind not in _TABLE and part.text not in {",", "."}:
            raise Fault(
                SYNTAX_ERROR, f"Syntax error: failed at position {part.start + 1}: a list of columns was expected"
            )
    raise Fault(SYNTAX_ERROR, "Syntax error: the list of columns is not closed")


def _insert_with_settings(source: str, target: str, stream: Iterator[Token]) -> Insert | None:
    settings: dict[str, str] = {}
    while True:
        name, equals, value = next(stream, None), next(stream, None), next(stream, None)
        if name is None or value is None or not name.name or equals is None or equals.text != "=":
            raise Fault(SYNTAX_ERROR, "Syntax error: SETTINGS name = value was expected")
        if not privileges.may_set(Role.SERVICE, name.text):
            raise Fault(ACCESS_DENIED, f"Cannot modify '{name.text[:80]}' setting in the embedded store")
        # The engine reads the text of a literal as it stands; an escape in it is beyond what a setting needs.
        if value.kind is Kind.QUOTED or value.kind is Kind.SYMBOL or {"\\", "'"} & set(value.text):
            raise Fault(SYNTAX_ERROR, f"Syntax error: a plain value was expected for the setting {name.text[:80]}")
        settings[name.text] = value.text
        token = next(stream, None)
        if token is not None and token.text == ",":
            continue
        if token is not None and token.upper in {"FORMAT", "VALUES"}:
            return _insert_data(source, target, token, stream, settings)
        if token is not None and token.upper in {"SELECT", "WITH"}:
            return None
        if token is None:
            return Insert(f"INSERT INTO {target}", "Values", settings, len(source))
        raise Fault(SYNTAX_ERROR, f"Syntax error: failed at position {token.start + 1}")


_AFTER_FORMAT: Final = re.compile(r"[ \t\f]*+(;?)\r?\n?")


def _insert_data(source: str, target: str, token: Token, stream: Iterator[Token], settings: dict[str, str]) -> Insert:
    if token.upper == "VALUES":
        return Insert(f"INSERT INTO {target}", "Values", settings, token.end)
    name = next(stream, None)
    if name is None or name.kind is not Kind.WORD:
        raise Fault(SYNTAX_ERROR, "Syntax error: FORMAT what?")
    # ClickHouse: data starts after the first newline, if there is one right here, else after the blanks.
    gap = _AFTER_FORMAT.match(source, name.end)
    data_at = gap.end() if gap else name.end
    if gap and gap[1] and data_at < len(source):
        raise Fault(SYNTAX_ERROR, "You have excessive ';' symbol before data for INSERT")
    return Insert(f"INSERT INTO {target}", name.text, settings, data_at)
