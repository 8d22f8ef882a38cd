import pytest

from deploy.store import tree
from deploy.store.errors import Fault
from deploy.store.privileges import Role


def select(*table: str) -> list[str]:
    return [
        "SelectWithUnionQuery (children 1)",
        " ExpressionList (children 1)",
        "  SelectQuery (children 2)",
        "   TablesInSelectQuery (children 1)",
        "    TableExpression (children 1)",
        *(f"     {line}" for line in table),
    ]


@pytest.mark.parametrize("role", Role)
@pytest.mark.parametrize(
    "table",
    ["TableIdentifier t", "TableIdentifier system.tables (alias x)", "Function numbers (children 1)", "Subquery"],
)
def test_tables_and_harmless_table_functions_pass(role, table):
    tree.check(select(table), role, "flagmeter")


@pytest.mark.parametrize("role", Role)
@pytest.mark.parametrize(
    "table",
    ["Function url (children 1)", "Function URL", "Function somethingNew (children 1)", "Function file"],
)
def test_a_table_function_that_is_not_listed_is_refused_known_or_not(role, table):
    with pytest.raises(Fault, match="does not run the function"):
        tree.check(select(table), role, "flagmeter")


def test_a_table_function_below_create_is_one_too_but_an_engine_is_not():
    tree.check(
        ["CreateQuery t (children 2)", " Identifier t", " Storage definition", "  Function MergeTree"],
        Role.SERVICE,
        "x",
    )
    with pytest.raises(Fault):
        tree.check(["CreateQuery t (children 2)", " Identifier t", " Function mysql (children 1)"], Role.SERVICE, "x")


@pytest.mark.parametrize(
    ("line", "database"),
    [
        ("TableIdentifier system.processes", "flagmeter"),
        ("TableIdentifier system.processes (alias a)", "flagmeter"),
        ("TableIdentifier processes", "system"),
        ("Identifier system.processes", "flagmeter"),
        ("TableIdentifier SYSTEM.named_collections", "flagmeter"),
    ],
)
def test_visitors_read_listed_system_tables_only(line, database):
    with pytest.raises(Fault, match="A visitor may not read"):
        tree.check(select(line), Role.VISITOR, database)
    tree.check(select(line), Role.SERVICE, database)


@pytest.mark.parametrize("lines", [[], [""], ['"SelectQuery"'], [" SelectQuery"]])
def test_a_tree_that_is_none_is_refused(lines):
    with pytest.raises(Fault, match="cannot check"):
        tree.check(lines, Role.VISITOR, "flagmeter")


@pytest.mark.parametrize(
    "line", ["Function file (children 1)", "Identifier file", "Identifier FILE", "Function aiGenerate"]
)
def test_a_forbidden_function_is_refused_wherever_it_stands(line):
    with pytest.raises(Fault):
        tree.check(["SelectQuery", " ExpressionList", f"  {line}"], Role.SERVICE, "flagmeter")
