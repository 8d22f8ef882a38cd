import pytest

from ingest_gateway.circuit import Circuit
from tests.ingest_gateway.upstream import Clock


@pytest.fixture
def changes() -> list[tuple[bool, str]]:
    return []


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def circuit(clock: Clock, changes: list[tuple[bool, str]]) -> Circuit:
    return Circuit(clock, lambda away, why: changes.append((away, why)))


def fail(circuit: Circuit, times: int = 3) -> None:
    for _ in range(times):
        circuit.failed("refused")


def test_failures_that_are_not_in_a_row_leave_it_closed(circuit: Circuit, changes: list[tuple[bool, str]]) -> None:
    for _ in range(10):
        fail(circuit, 2)
        assert circuit.allows()
        circuit.succeeded()
    assert changes == []


def test_three_failures_in_a_row_open_it_and_a_success_closes_it(
    circuit: Circuit, changes: list[tuple[bool, str]]
) -> None:
    fail(circuit)
    assert circuit.is_open
    assert not circuit.allows()
    circuit.succeeded()
    assert circuit.allows()
    assert changes == [(True, "refused"), (False, "")]


def test_an_open_one_allows_one_trial_in_each_pause(circuit: Circuit, clock: Clock) -> None:
    fail(circuit)
    clock.now += 1.0
    assert [circuit.allows() for _ in range(3)] == [True, False, False]


def test_pauses_grow_to_half_a_minute_and_begin_anew_after_a_success(circuit: Circuit, clock: Clock) -> None:
    fail(circuit)
    pauses = []
    for _ in range(8):
        began = clock.now
        while not circuit.allows():
            clock.now += 0.5
        pauses.append(clock.now - began)
        circuit.failed("refused")
    assert pauses == [1, 2, 4, 8, 16, 30, 30, 30]
    circuit.succeeded()
    fail(circuit)
    clock.now += 1.0
    assert circuit.allows()


def test_it_tells_once_that_it_opened(circuit: Circuit, changes: list[tuple[bool, str]]) -> None:
    fail(circuit, 20)
    assert changes == [(True, "refused")]
