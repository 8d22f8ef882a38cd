"""The engine's own tree of a statement (EXPLAIN AST), and what must not stand in it."""

import re
from collections.abc import Iterable
from typing import Final

from deploy.store import privileges
from deploy.store.errors import ACCESS_DENIED, Fault
from deploy.store.privileges import Role

_NODE: Final = re.compile(
    r"^( *)(Function|TableIdentifier|Identifier|TableExpression|CreateQuery|InsertQuery)\b ?(\S*)"
)


def check(lines: Iterable[str], role: Role, database: str) -> None:
    """Refuse what the engine's own tree of a statement shows.

    A table function stands right below its `TableExpression`, or directly below a CREATE or INSERT.

    Args:
        lines: EXPLAIN AST's answer; a node's depth is its count of leading blanks.
        role: whom it is for.
        database: what unqualified names belong to.

    Raises:
        Fault: ACCESS_DENIED.
    """
    before, root = "", ""
    lines = list(lines)
    if not lines or not lines[0][:1].isalpha():
        raise Fault(ACCESS_DENIED, "The embedded store cannot check this statement")
    for line in lines:
        found = _NODE.match(line)
        kind, name = (found[2], found[3].lower()) if found else ("", "")
        root = root or line
        if kind == "Function":
            top = found is not None and found[1] == " " and root.startswith(("CreateQuery", "InsertQuery"))
            table_function = before == "TableExpression" or top
            if name in privileges.FORBIDDEN_NAMES or (table_function and name not in privileges.TABLE_FUNCTIONS[role]):
                raise Fault(ACCESS_DENIED, f"The embedded store does not run the function {name[:60]}")
        elif kind in {"TableIdentifier", "Identifier"}:
            _check_name(name, role, database if kind == "TableIdentifier" else "")
        before = kind


def _check_name(name: str, role: Role, database: str) -> None:
    if name in privileges.FORBIDDEN_NAMES:
        raise Fault(ACCESS_DENIED, f"The embedded store does not run the function {name}")
    parts = name.split(".")
    table = parts[1] if parts[0] == "system" and len(parts) > 1 else name if database == "system" else ""
    if table and role is Role.VISITOR and table not in privileges.SYSTEM_TABLES:
        raise Fault(ACCESS_DENIED, f"A visitor may not read system.{table[:60]}")
