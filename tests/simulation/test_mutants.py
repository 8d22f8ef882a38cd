"""The simulation can see: each deliberate break is caught within a thousand seeds."""

from collections.abc import Iterator

import pytest
import structlog

from tests.simulation.mutants import MUTANTS


@pytest.fixture(autouse=True)
def _logs() -> Iterator[None]:
    yield
    structlog.reset_defaults()


@pytest.mark.slow
@pytest.mark.parametrize("name", MUTANTS)
def test_a_deliberate_break_is_caught(name: str) -> None:
    print(f"{name}: caught at seed {_first_caught(name, 1000)}")


@pytest.mark.parametrize("name", ["no token", "window of 0", "range cut differently on replay", "home marker not last"])
def test_some_breaks_are_caught_within_few_seeds(name: str) -> None:
    assert _first_caught(name, 200) >= 0


def _first_caught(name: str, within: int) -> int:
    caught = next((seed for seed in range(within) if MUTANTS[name].run(seed).harm), None)
    assert caught is not None, f"{name}: not caught within {within} seeds"
    return caught
