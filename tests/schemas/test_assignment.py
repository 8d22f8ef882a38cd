"""The assignment table of EXACTLY_ONCE.md, 1, over every state with small numbers."""

from collections import Counter
from itertools import product
from typing import NamedTuple

import pytest

from schemas.assignment import Alarm, GoOn, Plan, Recut, Settle, Stop, assign
from schemas.declaration import Committed
from schemas.limits import RULES
from schemas.markers import Range

SMALL = range(6)


class State(NamedTuple):
    c: Committed | None
    m: int | None
    b: int
    e: int


def states() -> list[State]:
    committed: list[Committed | None] = [None]
    committed += [Committed(offset, offset - 1, RULES) for offset in SMALL]
    committed += [Committed(first, last, RULES) for first in SMALL for last in SMALL if last >= first]
    logs = [(begin, end) for begin in SMALL for end in SMALL if end >= begin]
    return [State(c, m, b, e) for c, m, (b, e) in product(committed, [None, *SMALL], logs)]


STATES = states()


def table(state: State) -> tuple[str, Plan]:
    """The table as it is written: the first line that fits. Written from the text alone, not from the code."""
    c, m, b, e = state
    f = c.offset if c else None
    last = c.last if c else None
    declares = c is not None and last is not None and f is not None and last >= f

    # Line 1: the log ends at or before M
    if m is not None and e <= m:
        return "1", Stop(Alarm.ANOTHER_LOG)

    line, plan, first_to_store = lines_below(state)

    # Beside the table: a range that line 4 would settle, but whose end the log never gave, is of another log, too.
    if line == "4" and isinstance(plan, Settle) and declares and last is not None and last >= e:
        return "1, by a declaration", Stop(Alarm.ANOTHER_LOG)

    # Line 2: a record that is still to be stored by the lines below lies below B
    if first_to_store < b:
        return "2", Stop(Alarm.LOST_BY_LOG, Range(first_to_store, b - 1))
    return line, plan


def lines_below(state: State) -> tuple[str, Plan, int]:
    """Lines 3 to 7: which one fits, what it does, and the first record that it would store."""
    c, m, b, _ = state
    # Line 3: neither C nor M
    if c is None and m is None:
        return "3", GoOn(b), b
    if c is not None and c.last >= c.offset:
        f, last = c.offset, c.last
        # Line 4: C declares f..l, and M = f-1, or M = l, or no M and f = B
        if m == last:
            return "4", GoOn(last + 1), last + 1  # nothing to do
        if m == f - 1 or (m is None and f == b):
            return "4", Settle(Range(f, last)), f
    # Line 5: C is a pure acknowledgement at M+1, or at B with no M
    elif c is not None and c.offset == (b if m is None else m + 1):
        return "5", GoOn(c.offset), c.offset
    # Line 6: no C, or C <= M, or M inside a declared range
    if m is not None and (c is None or c.offset <= m):
        return "6", Recut(m + 1), m + 1
    # Line 7: C > M+1, or no M and C > B
    if m is not None and c is not None and c.offset > m + 1:
        return "7", Recut(m + 1, Alarm.LOST_BY_STORE), m + 1
    if m is None and c is not None and c.offset > b:
        return "7", Recut(b, Alarm.LOST_BY_STORE), b
    # What is left: C < B with no M. The records C..B-1 are not acknowledged, and the log has lost them: line 2.
    assert c is not None
    assert m is None
    assert c.offset < b
    return "2", GoOn(c.offset), c.offset


def start_of(plan: GoOn | Settle | Recut) -> int:
    return plan.span.first if isinstance(plan, Settle) else plan.at


def test_every_state_fits_the_line_that_the_table_says() -> None:
    assert len(STATES) == (1 + 6 + 21) * 7 * 21
    wrong = {state: (assign(*state), table(state)) for state in STATES if assign(*state) != table(state)[1]}
    assert wrong == {}


def test_every_line_of_the_table_is_met() -> None:
    met = Counter(table(state)[0] for state in STATES)
    assert set(met) == {"1", "1, by a declaration", "2", "3", "4", "5", "6", "7"}


def test_nothing_stored_is_read_again_and_nothing_else_is_skipped() -> None:
    for state in STATES:
        plan = assign(*state)
        if isinstance(plan, Stop):
            continue
        # What is stored ends at M, or nothing is: the next record that the log has is the first to be stored.
        assert start_of(plan) == (state.b if state.m is None else state.m + 1), state
        assert state.b <= start_of(plan) <= state.e, state


def test_a_partition_stops_only_where_records_are_gone_or_the_log_is_another() -> None:
    for state in STATES:
        plan = assign(*state)
        if not isinstance(plan, Stop):
            continue
        c, m, b, e = state
        if plan.alarm is Alarm.LOST_BY_LOG:
            assert plan.missing is not None
            assert plan.missing.first <= plan.missing.last == b - 1
            assert m is None or plan.missing.first == m + 1
        else:
            assert plan.alarm is Alarm.ANOTHER_LOG
            assert plan.missing is None
            assert (m is not None and m >= e) or (c is not None and c.last >= e)


def test_a_declared_range_is_settled_exactly_as_it_was_cut() -> None:
    for state in STATES:
        plan = assign(*state)
        if isinstance(plan, Settle):
            assert state.c is not None
            assert plan.span == Range(state.c.offset, state.c.last)
            assert plan.span.last < state.e


def test_an_alarm_is_raised_wherever_something_acknowledged_is_not_stored() -> None:
    for state in STATES:
        c, m, b, _ = state
        plan = assign(*state)
        acknowledged_and_not_stored = c is not None and c.offset > (b if m is None else m + 1)
        if acknowledged_and_not_stored:
            assert isinstance(plan, Stop) or (isinstance(plan, Recut) and plan.alarm is Alarm.LOST_BY_STORE), state
        elif isinstance(plan, Recut):
            assert plan.alarm is None, state


@pytest.mark.parametrize(
    ("state", "plan"),
    [
        (State(None, None, 1, 1), GoOn(1)),
        (State(Committed(1, 4, RULES), None, 1, 9), Settle(Range(1, 4))),
        (State(Committed(5, 8, RULES), 4, 1, 9), Settle(Range(5, 8))),
        (State(Committed(5, 8, RULES), 8, 1, 9), GoOn(9)),
        (State(Committed(5, 4, RULES), 4, 1, 9), GoOn(5)),
        (State(Committed(5, 8, RULES), 6, 1, 9), Recut(7)),
        (State(None, 6, 1, 9), Recut(7)),
        (State(Committed(7, 8, RULES), 4, 1, 9), Recut(5, Alarm.LOST_BY_STORE)),
        (State(Committed(5, 9, RULES), 4, 1, 9), Stop(Alarm.ANOTHER_LOG)),
        (State(None, 9, 1, 9), Stop(Alarm.ANOTHER_LOG)),
        (State(None, 4, 7, 9), Stop(Alarm.LOST_BY_LOG, Range(5, 6))),
    ],
)
def test_the_lines_by_example(state: State, plan: Plan) -> None:
    assert assign(*state) == plan
