"""Which statements pass: pure checks on the text. `tree.py` checks the engine's own view of it after this.

This check needs no engine and reads tokens, so it sees what EXPLAIN AST leaves out: `APPLY(file)`, INFILE, the data of
VALUES. The tree shows what only the engine's parser knows for sure. Both must pass.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from deploy.store import inserts, privileges
from deploy.store.errors import ACCESS_DENIED, READONLY, SYNTAX_ERROR, Fault
from deploy.store.inserts import Insert
from deploy.store.lexer import Kind, Token, tokens
from deploy.store.privileges import Role

MAX_QUERY_BYTES: Final = 1 << 18
"""Longest statement in bytes, an INSERT's data not counted: a server's own default."""

VISITOR_QUERY_BYTES: Final = 1 << 16
"""Longest statement of a visitor in bytes: reading it holds the interpreter, and so everybody's inserts."""

MAX_SETTINGS_CLAUSES: Final = 64
"""Each clause may be read to the statement's end, so their number times its length is the work."""

WHOLE_RESULT: Final = frozenset({"extremes", "output_format_json_array_of_rows"})
"""Settings that add something to a result as a whole; chDB's stream leaves it out (WITH TOTALS too), or repeats it."""


@dataclass(frozen=True, slots=True)
class Read:
    """A statement that only reads. `format` is what its FORMAT clause says."""

    text: str
    format: str | None
    streams: bool
    """Whether it is a plain SELECT, whose result may be cut into pieces."""


@dataclass(frozen=True, slots=True)
class Change:
    """Any other statement that a service may send."""

    text: str


Statement = Read | Insert | Change

_READS: Final = frozenset({"SELECT", "WITH", "FROM", "SHOW", "DESCRIBE", "DESC", "EXISTS", "EXPLAIN"})
_CHANGES: Final = frozenset(
    {"CREATE", "ALTER", "DROP", "TRUNCATE", "OPTIMIZE", "RENAME", "EXCHANGE", "DELETE", "CHECK"}
)
_REFUSED: Final = frozenset(
    {
        *("SET", "SYSTEM", "KILL", "ATTACH", "DETACH", "BACKUP", "RESTORE", "USE", "GRANT", "REVOKE"),
        *("EXECUTE", "UNDROP", "UPDATE", "WATCH", "BEGIN", "START", "COMMIT", "ROLLBACK", "EXTERNAL", "MOVE"),
        *("COPY", "CALL", "VALUES", "UNFREEZE"),
    }
)
"""What ClickHouse or chDB would run. Anything else that is not listed is no statement at all."""
_CREATES: Final = frozenset({"TABLE", "VIEW", "MATERIALIZED", "DATABASE"})
_DROPS: Final = frozenset({"TABLE", "VIEW"})
_SHOWS: Final = frozenset(
    {
        *("TABLES", "DATABASES", "COLUMNS", "FIELDS", "CREATE", "TABLE", "VIEW", "INDEX", "INDEXES"),
        *("INDICES", "KEYS", "FUNCTIONS", "SETTINGS", "SETTING", "FULL", "EXTENDED", "ENGINES"),
        *("DICTIONARIES", "CHANGED"),
    }
)
_EXPLAINS: Final = frozenset(
    {
        *("AST", "SYNTAX", "QUERY", "TREE", "PLAN", "PIPELINE", "ESTIMATE", "INDEXES", "ACTIONS", "HEADER"),
        *("DESCRIPTION", "JSON", "OPTIMIZE", "GRAPH", "COMPACT", "RUN_PASSES", "DUMP_PASSES", "DUMP_AST"),
        *("DUMP_TREE", "PASSES", "ONELINE", "SORTING", "KEEP_LOGICAL_STEPS", "PROJECTIONS", "PRETTY"),
    }
)


def check(source: str, role: Role) -> Statement:
    """Say what a request's text is, or refuse it.

    Args:
        source: the query, each byte one character (latin-1); behind an INSERT its data may follow.
        role: whom it is for.

    Raises:
        Fault: SYNTAX_ERROR for what is not one statement, READONLY for a visitor's change, ACCESS_DENIED for the rest.
    """
    stream = tokens(source)
    first = next((token for token in stream if token.text != "("), None)
    if first is None:
        raise Fault(SYNTAX_ERROR, "Syntax error: Empty query")
    if first.upper == "INSERT":
        if role is not Role.SERVICE:
            raise _read_only()
        insert = inserts.read(source, stream)
        if insert is not None:
            return insert
    elif first.upper not in _READS and first.upper not in _CHANGES:
        if first.upper in _REFUSED:
            raise Fault(ACCESS_DENIED, f"The embedded store does not run {first.upper} statements")
        near = source[first.start : first.start + 40].encode("latin-1").decode("utf-8", "replace")
        raise Fault(SYNTAX_ERROR, f"Syntax error: failed at position {first.start + 1} ({first.text[:40]}): {near}")
    limit = MAX_QUERY_BYTES if role is Role.SERVICE else VISITOR_QUERY_BYTES
    if len(source) > limit:
        raise Fault(SYNTAX_ERROR, f"Max query size exceeded: {len(source)} bytes, the limit is {limit}")
    sequence = _one_statement(tokens(source))
    text = source[: sequence[-1].end]
    if first.upper in _READS:
        _check_read(first.upper, [token for token in sequence if token.start >= first.start], role)
        _check_tokens(sequence, role)
        return Read(text, _format(sequence), first.upper in {"SELECT", "WITH", "FROM"} and _streams(sequence))
    if role is not Role.SERVICE:
        raise _read_only()
    _check_change(first.upper, sequence)
    _check_tokens(sequence, role)
    return Change(text)


def check_values(data: str) -> None:
    """Refuse an INSERT's inline values that name what nobody may name: ClickHouse evaluates expressions in them."""
    _check_tokens(_one_statement(tokens(data)), Role.SERVICE)


def _read_only() -> Fault:
    return Fault(READONLY, "Cannot execute query in readonly mode: a visitor only reads, use the user 'service'")


def _one_statement(stream: Iterator[Token]) -> list[Token]:
    sequence = list(stream)
    while sequence and sequence[-1].text == ";" and sequence[-1].kind is Kind.SYMBOL:
        sequence.pop()
    if any(token.text == ";" and token.kind is Kind.SYMBOL for token in sequence):
        raise Fault(SYNTAX_ERROR, "Syntax error (Multi-statements are not allowed)")
    if not sequence:
        raise Fault(SYNTAX_ERROR, "Syntax error: Empty query")
    return sequence


def _check_read(keyword: str, sequence: list[Token], role: Role) -> None:
    if keyword == "SHOW":
        what = sequence[1].upper if len(sequence) > 1 else ""
        if what not in _SHOWS and not (what == "PROCESSLIST" and role is Role.SERVICE):
            raise Fault(ACCESS_DENIED, f"The embedded store does not run SHOW {what[:30]}")
    elif keyword == "EXPLAIN":
        for token in sequence[1:]:
            if token.upper in {"SELECT", "WITH"}:
                return
            if token.kind is Kind.WORD and token.upper not in _EXPLAINS and not token.text.isdigit():
                raise Fault(ACCESS_DENIED, f"The embedded store does not run EXPLAIN {token.upper[:30]}")
        raise Fault(SYNTAX_ERROR, "Syntax error: EXPLAIN without a SELECT")


def _check_change(keyword: str, sequence: list[Token]) -> None:
    words = [token.upper for token in sequence[1:4]]
    what = words[-1] if words[:2] == ["OR", "REPLACE"] else next(iter(words), "")
    if keyword == "CREATE":
        if what not in _CREATES:
            raise Fault(ACCESS_DENIED, f"The embedded store does not run CREATE {what[:30]}")
        _check_engines(sequence)
    elif keyword == "DROP" and what not in _DROPS:
        raise Fault(ACCESS_DENIED, f"The embedded store does not run DROP {what[:30]}")
    elif keyword in {"ALTER", "EXCHANGE"} and not what.startswith("TABLE"):
        raise Fault(ACCESS_DENIED, f"The embedded store does not run {keyword} {what[:30]}")


def _check_engines(sequence: list[Token]) -> None:
    depth = 0
    for at, token in enumerate(sequence):
        depth += (token.text == "(") - (token.text == ")") if token.kind is Kind.SYMBOL else 0
        if token.upper != "ENGINE" or depth:
            continue
        rest = [found for found in sequence[at + 1 : at + 3] if found.text != "="]
        if not rest or rest[0].text not in privileges.ENGINES:
            raise Fault(ACCESS_DENIED, f"The embedded store has no table engine {rest[0].text[:60] if rest else ''}")


def _check_tokens(sequence: list[Token], role: Role) -> None:
    """Refuse names, calls, clauses and settings that this role may not use."""
    padded: list[Token | None] = [None, *sequence, None]
    clauses = 0
    for at, (before, token, after) in enumerate(zip(padded, sequence, padded[2:], strict=False)):
        called = after is not None and after.text == "(" and after.kind is Kind.SYMBOL
        qualified = before is not None and before.text == "." and not called
        if token.name in privileges.FORBIDDEN_NAMES and not qualified:
            raise Fault(ACCESS_DENIED, f"The embedded store does not run the function {token.name}")
        if called and (
            token.name in privileges.FORBIDDEN_CALLS
            or (role is Role.VISITOR and token.name in privileges.VISITOR_FORBIDDEN_NAMES)
        ):
            raise Fault(ACCESS_DENIED, f"The embedded store does not run the function {token.name}")
        if token.upper in {"OUTFILE", "INFILE"} and before is not None and before.upper in {"INTO", "FROM"}:
            raise Fault(ACCESS_DENIED, f"The embedded store does not run {before.upper} {token.upper}")
        if token.upper == "PARALLEL" and after is not None and after.upper == "WITH":
            raise Fault(SYNTAX_ERROR, "Syntax error (Multi-statements are not allowed)")
        if token.upper in {"SETTINGS", "SETTING"} and after is not None and after.name:
            clauses += 1
            if clauses > MAX_SETTINGS_CLAUSES:
                raise Fault(SYNTAX_ERROR, f"More than {MAX_SETTINGS_CLAUSES} SETTINGS clauses")
            _check_settings(sequence, at + 1, role)


def _check_settings(sequence: list[Token], begin: int, role: Role) -> None:
    for name in _assigned(sequence[at] for at in range(begin, len(sequence))):
        if not privileges.may_set(role, name):
            kind = READONLY if role is Role.VISITOR else ACCESS_DENIED
            raise Fault(kind, f"Cannot modify '{name[:80]}' setting in the embedded store")


def _assigned(stream: Iterator[Token]) -> Iterator[str]:
    """Give the names of `name = value, …` in a SETTINGS clause, until something else comes."""
    name: Token | None = next(stream, None)
    while name is not None and name.name:
        equals = next(stream, None)
        if equals is None or equals.text != "=":
            return
        yield name.text
        name, depth = None, 0
        for token in stream:
            symbol = token.text if token.kind is Kind.SYMBOL else ""
            if symbol == "," and depth == 0:
                name = next(stream, None)
                break
            depth += (symbol in {"(", "[", "{"}) - (symbol in {")", "]", "}"})
            if depth < 0:
                break


def _format(sequence: list[Token]) -> str | None:
    """Find the name after FORMAT at the end of a query, where a SETTINGS clause may follow."""
    depth, found = 0, None
    for at, token in enumerate(sequence):
        depth += (token.text == "(") - (token.text == ")") if token.kind is Kind.SYMBOL else 0
        if depth or token.upper != "FORMAT" or at + 1 >= len(sequence) or sequence[at + 1].kind is not Kind.WORD:
            continue
        if at + 2 == len(sequence) or sequence[at + 2].upper in {"SETTINGS", "INTO"}:
            found = sequence[at + 1].text
    return found


def _streams(sequence: list[Token]) -> bool:
    return not any(token.upper == "TOTALS" or token.name in WHOLE_RESULT for token in sequence)
