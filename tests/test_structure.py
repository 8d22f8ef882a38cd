"""The tree keeps its promises: who may import whom, and what the aggregator's core may touch."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
SERVICES = ("ingest_gateway", "aggregator", "query_api", "management_api")
OUTSIDE_OF_THE_CORE = {"aiokafka", "clickhouse_connect", "sqlite3", "time", "random", "datetime", "secrets", "uuid"}


def imports(file: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def files(folder: str) -> list[Path]:
    return sorted((ROOT / folder).rglob("*.py"))


@pytest.mark.parametrize("service", SERVICES[:3])
def test_a_service_imports_no_other_service_and_meets_deploy_in_its_main_alone(service: str) -> None:
    others = {*SERVICES, "deploy"} - {service}
    seen = files(service)
    assert seen
    for file in seen:
        allowed = {"deploy"} if file.name == "__main__.py" else set()
        found = {name.split(".")[0] for name in imports(file)} & (others - allowed)
        assert not found, f"{file.relative_to(ROOT)} imports {found}"


def test_schemas_import_nothing_of_ours() -> None:
    for file in files("schemas"):
        found = {name.split(".")[0] for name in imports(file)} & {*SERVICES, "deploy", "tests"}
        assert not found, f"{file.relative_to(ROOT)} imports {found}"


def test_the_aggregators_core_reads_no_clock_no_chance_and_no_driver() -> None:
    core = [file for file in files("aggregator") if "adapters" not in file.parts and file.name != "__main__.py"]
    assert len(core) > 5
    for file in core:
        names = set(imports(file))
        found = {name.split(".")[0] for name in names} & OUTSIDE_OF_THE_CORE
        assert not found, f"{file.relative_to(ROOT)} imports {found}"
        adapters = {name for name in names if name.startswith("aggregator.adapters")}
        assert not adapters, f"{file.relative_to(ROOT)} imports {adapters}"


def test_the_locks_hold_names_versions_and_hashes_and_no_addresses() -> None:
    for lock in ("requirements.lock", "requirements-dev.lock"):
        text = (ROOT / lock).read_text()
        assert "://" not in text
        for line in text.splitlines():
            assert line.startswith(("    --hash=sha256:", "#")) or "==" in line, line


def test_every_dependency_is_named_with_its_reason() -> None:
    listed = (ROOT / "docs" / "dependencies.md").read_text().lower()
    in_project = (ROOT / "pyproject.toml").read_text()
    block = in_project.split("dependencies = [", 1)[1].split("\n]", 1)[0]
    names = [line.strip().strip('",').split(">=")[0].split("[")[0] for line in block.splitlines() if ">=" in line]
    assert len(names) > 10
    for name in names:
        assert name in listed, f"{name} is not in docs/dependencies.md"
