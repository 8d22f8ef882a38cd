from collections import Counter

import pytest

from aggregator import repeats
from aggregator.ports import Record
from aggregator.repeats import By, Repeat, Repeats
from schemas import rows
from schemas.event import Kind, Unreadable
from schemas.limits import REPEAT_BULK_MS, REPEAT_WINDOW_MS
from schemas.rows import SetAside
from tests.aggregator.sdks import GO_5, NODE, Counts, body, counts_of, counts_of_payload, in_order, post

QUARTER = REPEAT_WINDOW_MS / 1000
MINUTE = REPEAT_BULK_MS / 1000

ONE = body({"a": (3, 1, {"blue": 2})}, stop=60)
TWO = body({"a": (5, 1, {"blue": 4})}, stop=120)
THREE = body({"a": (9, 2, {"blue": 5})}, stop=180)
OTHER = body({"a": (7, 0, {})}, start=60, stop=120)
BULK = (
    b'{"applications":[],"metrics":[{"featureName":"a","appName":"shop","environment":"development",'
    b'"timestamp":"2026-11-22T12:00:00Z","yes":3,"no":1,"variants":{}}]}'
)


def judged(*records: Record, state: Repeats | None = None) -> list[By | None]:
    """What was recognised of each record."""
    known = state or Repeats()
    return [repeat and repeat.by for repeat in map(known.judge, in_order(records))]


def counted(*records: Record) -> Counts:
    """What is counted of all records together."""
    state, total = Repeats(), Counter()
    for record in in_order(records):
        total += counted_of(record, state.judge(record))
    return total


def counted_of(record: Record, repeat: Repeat | None) -> Counts:
    if repeat is None:
        return counts_of(record.value)
    assert not isinstance(record.headers, Unreadable)
    return Counter() if repeat.adds is None else counts_of_payload(record.headers, repeat.adds)


def bulk(at: float, value: bytes = BULK, *, sdk: str = "", **changes: object) -> Record:
    return post(value, at=at, sdk=sdk, start=None, kind=Kind.BULK, route="/api/client/metrics/bulk", **changes)


# The same bytes ------------------------------------------------------------------------------------------------------


def test_the_same_bytes_count_once() -> None:
    assert judged(post(ONE, sdk=""), post(ONE, sdk="", at=1), post(ONE, sdk="", at=800)) == [None, By.BYTES, By.BYTES]
    assert counted(post(ONE, sdk=""), post(ONE, sdk="", at=1)) == counts_of(ONE)


@pytest.mark.parametrize("change", [{"connection": "c-2"}, {"token_id": "f" * 16}, {"route": "/api/frontend/metrics"}])
def test_the_same_bytes_of_another_sender_count(change: dict[str, str]) -> None:
    assert judged(post(ONE), post(ONE, **change)) == [None, None]  # type: ignore[arg-type]


def test_fifteen_minutes_later_the_same_bytes_count_again() -> None:
    assert judged(post(ONE), post(ONE, at=QUARTER)) == [None, None]
    assert judged(post(ONE), post(ONE, at=QUARTER - 1)) == [None, By.BYTES]


def test_each_repeat_is_remembered_for_another_fifteen_minutes() -> None:
    assert judged(*(post(ONE, at=at) for at in (0, 600, 1200, 1800))) == [None, By.BYTES, By.BYTES, By.BYTES]


def test_single_windows_without_connection_and_key_count_as_they_come() -> None:
    assert judged(*[post(ONE, connection="")] * 3) == [None] * 3
    assert Repeats().connections == 0


def test_log_time_is_the_largest_append_time_so_far() -> None:
    back = [post(ONE, at=QUARTER), post(OTHER, start=60), post(ONE, at=QUARTER + 1)]
    assert judged(*back) == [None, None, By.BYTES]
    ahead = [post(ONE), post(OTHER, start=60, at=QUARTER), post(ONE, at=1)]
    assert judged(*ahead) == [None, None, None]
    late = [post(ONE, at=1000, connection=""), post(OTHER, start=60), post(OTHER, start=60, at=1001)]
    assert judged(*late) == [None, None, By.BYTES], "its append time had fallen, log time had not"


def test_bulk_posts_are_compared_for_a_minute_only() -> None:
    assert judged(bulk(0), bulk(MINUTE - 1)) == [None, By.BYTES]
    assert judged(bulk(0), bulk(MINUTE)) == [None, None]
    assert judged(bulk(0, connection=""), bulk(5, connection="")) == [None, By.BYTES]


def test_bulk_posts_are_never_supersets() -> None:
    larger = BULK.replace(b'"yes":3', b'"yes":30')
    assert judged(bulk(0, sdk=NODE), bulk(5, value=larger, sdk=NODE)) == [None, None]


def test_two_bulk_parts_of_one_edge_are_two_posts() -> None:
    parts = [BULK.replace(b'"yes":3', b'"yes":%d' % at) for at in range(500)]
    state = Repeats()
    assert judged(*(bulk(0, value=part) for part in parts), state=state) == [None] * 500
    assert judged(*(bulk(20, value=part) for part in parts), state=state) == [By.BYTES] * 500
    assert state.connections == 1


def test_a_body_that_nobody_can_read_is_set_aside_once() -> None:
    assert judged(post(b"nonsense"), post(b"nonsense")) == [None, By.BYTES]


def test_unreadable_headers_count_as_they_come_and_move_log_time() -> None:
    broken = Record(0, post(ONE, at=QUARTER).log_time, Unreadable(b"x", "why"), ONE)
    assert judged(broken, broken) == [None, None]
    assert judged(post(ONE), broken, post(ONE, at=1)) == [None, None, None]


# Idempotency-Key -----------------------------------------------------------------------------------------------------


def test_a_key_counts_once_and_the_first_wins() -> None:
    sent = [post(each, idempotency_key="k", sdk="") for each in (ONE, OTHER)]
    assert judged(*sent) == [None, By.KEY]
    assert counted(*sent) == counts_of(ONE)


def test_a_key_counts_once_on_every_route_and_from_every_connection() -> None:
    register = post(b"{}", sdk="", start=None, kind=Kind.REGISTER, route="/api/client/register", idempotency_key="k")
    assert judged(
        register,
        post(ONE, idempotency_key="k"),
        post(ONE, idempotency_key="k", connection=""),
        bulk(1, idempotency_key="k"),
    ) == [None, By.KEY, By.KEY, By.KEY]


def test_another_tokens_key_is_another_key() -> None:
    assert judged(post(ONE, idempotency_key="k"), post(ONE, idempotency_key="k", token_id="f" * 16)) == [None, None]


def test_a_key_is_forgotten_after_fifteen_minutes() -> None:
    sent = [post(each, at=at, idempotency_key="k", connection="") for each, at in ((ONE, 0), (OTHER, QUARTER))]
    assert judged(*sent) == [None, None]


def test_each_use_of_a_key_is_remembered_for_another_fifteen_minutes() -> None:
    sent = [post(ONE, at=at, idempotency_key="k", connection="") for at in (0, 600, 1200)]
    assert judged(*sent) == [None, By.KEY, By.KEY]


def test_the_same_bytes_under_two_keys_count_once() -> None:
    assert judged(post(ONE, idempotency_key="k"), post(ONE, idempotency_key="l")) == [None, By.BYTES]


def test_registrations_leave_nothing_but_their_key() -> None:
    state = Repeats()
    judged(*[post(b"{}", sdk="", start=None, kind=Kind.REGISTER)] * 3, state=state)
    assert state.connections == 0


# Supersets -----------------------------------------------------------------------------------------------------------


def test_a_superset_counts_what_it_adds() -> None:
    assert judged(post(ONE), post(TWO)) == [None, By.SUPERSET]
    assert counted(post(ONE), post(TWO), post(THREE)) == counts_of(THREE)


@pytest.mark.parametrize("order", [(0, 2, 1), (1, 0, 2), (1, 2, 0), (2, 0, 1), (2, 1, 0), (2, 1, 0, 2, 1)])
def test_windows_that_grew_give_the_largest_in_whichever_order(order: tuple[int, ...]) -> None:
    chain = [post(ONE), post(TWO), post(THREE)]
    assert counted(*(chain[at]._replace(log_time=chain[0].log_time + step) for step, at in enumerate(order))) == (
        counts_of(THREE)
    )


def test_another_start_is_another_window() -> None:
    assert judged(post(ONE), post(OTHER, start=60)) == [None, None]


def test_windows_that_do_not_contain_each_other_count_whole() -> None:
    unlike = body({"a": (1, 9, {})}, stop=120)
    assert counted(post(ONE), post(unlike)) == counts_of(ONE) + counts_of(unlike)


@pytest.mark.parametrize(
    "sdk", ["unleash-python-sdk:6.0.0", "unleash-client-ruby:5.1.0", "unleash-client-java:9.0", ""]
)
def test_engines_that_repeat_the_start_over_honest_windows_lose_nothing(sdk: str) -> None:
    windows = [ONE, TWO, THREE, body({"a": (1, 0, {})}, stop=240)]
    total = sum((counts_of(each) for each in windows), Counter[tuple[str, str, str]]())
    assert counted(*(post(each, sdk=sdk) for each in windows)) == total


def test_variants_of_go_5_are_added() -> None:
    later = body({"a": (5, 1, {"blue": 1})}, stop=120)
    for order in ((ONE, later), (later, ONE)):
        assert counted(*(post(each, sdk=GO_5) for each in order)) == {
            ("a", "", "yes"): 5,
            ("a", "", "no"): 1,
            ("a", "blue", "count"): 3,
        }


def test_a_window_is_compared_for_fifteen_minutes() -> None:
    assert judged(post(ONE), post(TWO, at=QUARTER - 1)) == [None, By.SUPERSET]
    assert judged(post(ONE), post(TWO, at=QUARTER)) == [None, None]


def test_what_was_set_aside_of_a_window_is_not_set_aside_again() -> None:
    long = "x" * 256
    first = body({"a": (1, 0, {}), long: (2, 0, {}), "v": (1, 0, {long: 1})}, stop=60)
    second = body({"a": (3, 0, {}), long: (2, 0, {}), "\0": (4, 0, {}), "v": (1, 0, {long: 3})}, stop=120)
    state = Repeats()
    assert state.judge(post(first)) is None
    record = post(second)
    repeat = state.judge(record)
    assert repeat is not None
    assert repeat.adds is not None
    assert not isinstance(record.headers, Unreadable)
    aside = [outcome for outcome in rows.of_metrics(record.headers, repeat.adds) if isinstance(outcome, SetAside)]
    assert [(outcome.reason, outcome.feature) for outcome in aside] == [("nul_in_name", "\0"), ("name_too_long", "v")]
    assert b'"variants":{"%s":2}' % long.encode() in aside[1].payload
    assert counted_of(record, repeat) == {("a", "", "yes"): 2}


def test_a_window_out_of_the_stores_times_is_set_aside_once() -> None:
    far = [each.replace(b"2026", b"9026") for each in (ONE, TWO)]
    state = Repeats()
    first, second = (post(each) for each in far)
    assert state.judge(first) is None
    repeat = state.judge(second)
    assert repeat is not None
    assert repeat.adds is not None
    assert not isinstance(second.headers, Unreadable)
    (aside,) = rows.of_metrics(second.headers, repeat.adds)
    assert isinstance(aside, SetAside)
    assert b'"yes":2' in aside.payload
    judged_again = state.judge(post(far[0]))
    assert judged_again is not None
    assert judged_again.by is By.BYTES


def test_an_equal_window_in_other_bytes_adds_nothing() -> None:
    assert counted(post(ONE), post(ONE + b" ")) == counts_of(ONE)


def test_a_window_that_takes_nothing_from_another_is_no_repeat() -> None:
    nothing = body({}, stop=30)
    assert judged(post(nothing), post(ONE)) == [None, None]


def test_a_window_that_cannot_be_read_is_passed_over() -> None:
    assert judged(post(b"nonsense"), post(ONE), post(b"[]"), post(TWO)) == [None, None, None, By.SUPERSET]


# Bounds --------------------------------------------------------------------------------------------------------------


def test_records_too_far_back_in_the_log_are_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(repeats, "REPEAT_RECORDS", 3)
    sent = [post(ONE, connection=f"c-{at}", idempotency_key=f"k-{at}") for at in range(3)]
    assert judged(*sent, sent[1]) == [None, None, None, By.KEY]
    assert judged(*sent, sent[0]) == [None] * 4
    assert judged(*sent, post(b"{}", connection=""), sent[1]) == [None] * 5, "records without a mark count, too"
    state = Repeats()
    judged(*sent, sent[2], state=state)
    assert state.connections == 2


def test_the_oldest_windows_are_let_go_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(repeats, "REPEAT_BYTES", 2 * len(ONE))
    state = Repeats()
    judged(*(post(ONE, connection=f"c-{at}") for at in range(3)), state=state)
    assert judged(post(TWO, connection="c-0"), state=state) == [None], "it counts whole"
    assert judged(post(TWO, connection="c-2"), state=state) == [By.SUPERSET]
    assert judged(post(ONE, connection="c-0"), state=state) == [By.BYTES], "its bytes are still known"


def test_a_connection_holds_its_last_windows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(repeats, "REPEAT_WINDOWS", 2)
    state = Repeats()
    later = [post(body({"a": (1, 0, {})}, start=at, stop=at + 60), start=at) for at in (60, 120)]
    judged(post(ONE), later[0], state=state)
    assert judged(post(TWO), state=state) == [By.SUPERSET]
    assert judged(*later, state=state) == [By.BYTES, None]
    assert judged(post(THREE), state=state) == [None]


def test_a_window_that_is_too_large_is_not_held(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(repeats, "REPEAT_WINDOW_BYTES", len(TWO) - 1)
    small = ONE.replace(b" ", b"")
    assert counted(post(small), post(TWO), post(THREE)) == (counts_of(TWO) + counts_of(THREE) - counts_of(small)), (
        "what was held before stays for comparison"
    )


def test_time_empties_the_state() -> None:
    state = Repeats()
    judged(*(post(ONE, connection=f"c-{at}", idempotency_key=f"k-{at}") for at in range(50)), state=state)
    assert state.connections == 50
    judged(post(b"{}", at=QUARTER, connection=""), state=state)
    assert state.connections == 0
    assert (state._keys, list(state._posts), list(state._windows), state._window_bytes) == ({}, [], [], 0)
