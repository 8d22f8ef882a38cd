"""Every query of the cookbook runs as a visitor."""

import re
from pathlib import Path

from tests.support.stack import Stack

QUERIES = re.findall(r"```sql\n(.*?)```", (Path(__file__).parents[2] / "docs" / "sql.md").read_text(), re.DOTALL)


def test_the_cookbooks_queries_run(stack: Stack) -> None:
    queries = [query for block in QUERIES for query in block.split(";") if "SELECT" in query]
    assert len(queries) == 7
    for query in queries:
        stack.sql(query)
