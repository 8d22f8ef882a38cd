"""Fixtures for all tests."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.stack import Stack


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--backend",
        choices=["embedded", "docker"],
        default="embedded",
        help="where the contract tests' ClickHouse comes from: the chdb wheel, or a container (needs Docker)",
    )


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """The whole embedded stack, running; one for each module of tests."""
    running = Stack(tmp_path_factory.mktemp("stack") / "data").start()
    try:
        yield running
    finally:
        running.kill()


@pytest.fixture
def own_stack(tmp_path: Path) -> Iterator[Stack]:
    """A stack that the test starts, stops and breaks itself."""
    made = Stack(tmp_path / "data")
    try:
        yield made
    finally:
        made.kill()
