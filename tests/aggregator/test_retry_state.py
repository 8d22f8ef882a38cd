"""Properties of the retry state over random logs, and over what scripted SDKs post."""

import random
from collections import Counter
from collections.abc import Iterator
from unittest import mock

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aggregator import repeats
from aggregator.ports import Record
from aggregator.repeats import Repeat, Repeats
from schemas.event import Kind, Unreadable, body_hash
from schemas.limits import REPEAT_WINDOW_MS
from tests.aggregator.fakes import headers
from tests.aggregator.sdks import GO_5, GO_6, NODE, Counts, MergingSdk, body, counts_of, counts_of_payload, in_order

STEP_MS = REPEAT_WINDOW_MS // 5

WINDOWS = st.builds(
    lambda yes, no, variants, stop: body({"a": (yes, no, variants)}, stop=stop),
    st.integers(0, 3),
    st.integers(0, 2),
    st.dictionaries(st.sampled_from("xy"), st.integers(0, 2), max_size=2),
    st.integers(1, 3),
)
BULK = [b'{"applications":[],"metrics":[]}', b'{"metrics":[],"applications":[]}']


@st.composite
def records(draw: st.DrawFn) -> list[Record]:
    """A log whose append times rise mostly, and sometimes fall, as where a partition's leader changes."""
    made = []
    clock = 10 * REPEAT_WINDOW_MS
    for at in range(draw(st.integers(1, 25))):
        clock += draw(st.sampled_from((0, 0, 1, STEP_MS, REPEAT_WINDOW_MS - 1, REPEAT_WINDOW_MS)))
        log_time = clock - draw(st.sampled_from((0, 0, 0, 1, STEP_MS, 3 * REPEAT_WINDOW_MS)))
        kind = draw(st.sampled_from((Kind.METRICS, Kind.METRICS, Kind.METRICS, Kind.BULK, Kind.REGISTER)))
        value = draw(WINDOWS if kind is Kind.METRICS else st.sampled_from(BULK))
        said: object = headers(
            kind=kind,
            body_hash=body_hash(value),
            connection=draw(st.sampled_from(("", "c-1", "c-1", "c-1", "c-2"))),
            sdk=draw(st.sampled_from((NODE, NODE, NODE, GO_5, ""))),
            start=draw(st.sampled_from((1, 1, 1, 2, 3))) if kind is Kind.METRICS else None,
            idempotency_key=draw(st.sampled_from(("", "", "k-1", "k-2"))),
        )
        if draw(st.integers(0, 19)) == 0:
            said = Unreadable(b"x", "why")
        made.append(Record(at, log_time, said, value))  # type: ignore[arg-type]
    return made


BOUNDS = st.fixed_dictionaries(
    {
        "REPEAT_RECORDS": st.sampled_from((1, 2, 5, 1000)),
        "REPEAT_BYTES": st.sampled_from((100, 400, 10_000)),
        "REPEAT_WINDOWS": st.sampled_from((1, 2, 4)),
        "REPEAT_WINDOW_BYTES": st.sampled_from((150, 10_000)),
    }
)


@given(records(), BOUNDS, st.data())
@settings(max_examples=300)
def test_a_state_that_was_rebuilt_decides_as_one_that_was_carried_on(
    log: list[Record], bounds: dict[str, int], data: st.DataObject
) -> None:
    begin = data.draw(st.integers(0, len(log)))
    with mock.patch.multiple(repeats, **bounds):
        carried, rebuilt = Repeats(), Repeats()
        before = max((record.log_time for record in log[:begin]), default=-REPEAT_WINDOW_MS)
        log_time = -1
        for at, record in enumerate(log):
            log_time = max(log_time, record.log_time)
            expected = carried.judge(record)
            if at < begin:
                continue
            found = rebuilt.judge(record)
            if log_time - before >= REPEAT_WINDOW_MS:
                assert found == expected
                assert rebuilt.connections == carried.connections


@given(records(), BOUNDS)
@settings(max_examples=100)
def test_bounds_are_kept(log: list[Record], bounds: dict[str, int]) -> None:
    with mock.patch.multiple(repeats, **bounds):
        state = Repeats()
        for record in log:
            state.judge(record)
            windows = [post.window for each in state._connections.values() for post in each.windows]
            assert len(state._posts) <= bounds["REPEAT_RECORDS"]
            assert len(state._keys) <= bounds["REPEAT_RECORDS"]
            assert state.connections <= bounds["REPEAT_RECORDS"]
            assert all(each.posts for each in state._connections.values())
            assert all(len(each.windows) <= bounds["REPEAT_WINDOWS"] for each in state._connections.values())
            assert sum(map(len, windows)) == state._window_bytes <= bounds["REPEAT_BYTES"]
            assert all(0 < len(window) <= bounds["REPEAT_WINDOW_BYTES"] for window in windows)
            assert len(state._windows) <= bounds["REPEAT_RECORDS"]


def added(record: Record, repeat: Repeat | None) -> Counts:
    if repeat is None:
        return counts_of(record.value)
    assert not isinstance(record.headers, Unreadable)
    return Counter() if repeat.adds is None else counts_of_payload(record.headers, repeat.adds)


@given(st.lists(WINDOWS, max_size=12), st.sampled_from((NODE, GO_6, GO_5)))
def test_what_counts_lies_between_the_largest_window_and_the_sum_of_all(values: list[bytes], sdk: str) -> None:
    state = Repeats()
    total, everything, largest = Counter(), Counter(), Counter()
    for at, value in enumerate(values):
        said = headers(body_hash=body_hash(value), connection="c-1", sdk=sdk, start=1)
        record = Record(at, at, said, value)
        total += added(record, state.judge(record))
        everything += counts_of(value)
        largest |= counts_of(value)
    assert total <= everything
    assert total >= largest


# Scripted SDKs -------------------------------------------------------------------------------------------------------

ANSWERS = ("ok", "ok", "refused", "lost")
"""The post is answered; it is not stored, and looks so; it is stored, and does not look so."""


def fleet(dice: random.Random, sdk: str, connections: int, turns: int) -> Iterator[tuple[MergingSdk, list[Record]]]:
    """Run some SDKs against a gateway that fails; give each with what is in the log of it, in the order of posting."""
    for number in range(connections):
        client = MergingSdk(sdk=sdk, connection=f"c-{number}", variants=sdk != GO_5)
        log: list[Record] = []

        def deliver(record: Record, log: list[Record] = log) -> bool:
            answer = dice.choice(ANSWERS)
            if answer != "refused":
                log.append(record)
            return answer == "ok"

        now = 0.0
        for _ in range(turns):
            now += dice.choice((60, 60, 120))
            for _ in range(dice.randint(0, 4)):
                flag, variant = dice.choice("abc"), dice.choice(("", "x", "y"))
                client.count(flag, yes=dice.randint(0, 5), no=dice.randint(0, 5), variant=variant)
            client.post(now, deliver)
        while not client.settled:
            now += 60
            client.post(now, deliver)
        yield client, log


def total_of(log: list[Record]) -> Counts:
    state = Repeats()
    total: Counts = Counter()
    for record in in_order(log):
        total += added(record, state.judge(record))
    return total


def by_time(logs: list[list[Record]]) -> list[Record]:
    return sorted((record for log in logs for record in log), key=lambda record: record.log_time)


@pytest.mark.parametrize("sdk", [NODE, "unleash-client-node:6.4.3", GO_6])
@given(dice=st.randoms(use_true_random=False))
@settings(max_examples=40)
def test_sdks_that_merge_end_with_their_true_totals(sdk: str, dice: random.Random) -> None:
    runs = list(fleet(dice, sdk, connections=3, turns=8))
    truth = sum((client.truth for client, _ in runs), Counter[tuple[str, str, str]]())
    assert total_of(by_time([log for _, log in runs])) == truth


@pytest.mark.parametrize(("late", "held"), [(2, repeats.REPEAT_WINDOWS), (20, 100)])
@given(dice=st.randoms(use_true_random=False))
@settings(max_examples=50)
def test_an_sdk_that_merges_ends_with_its_true_totals_in_whichever_order_its_windows_come(
    late: int, held: int, dice: random.Random
) -> None:
    """Each window comes at most so many places late; what a connection holds bounds how late they may be."""
    runs = list(fleet(dice, NODE, connections=3, turns=6))
    logs = []
    for _, log in runs:
        places = sorted(range(len(log)), key=lambda at: at + dice.randint(0, late) + at / 1000)
        logs.append([log[at]._replace(log_time=log[0].log_time + step) for step, at in enumerate(places)])
    truth = sum((client.truth for client, _ in runs), Counter[tuple[str, str, str]]())
    with mock.patch.object(repeats, "REPEAT_WINDOWS", held):
        assert total_of(by_time(logs)) == truth


@given(dice=st.randoms(use_true_random=False))
@settings(max_examples=40)
def test_go_5_ends_with_its_true_yes_and_no_and_with_all_variants_it_sent(dice: random.Random) -> None:
    runs = list(fleet(dice, GO_5, connections=3, turns=8))
    total = total_of(by_time([log for _, log in runs]))
    sent: Counts = Counter()
    truth: Counts = Counter()
    for client, log in runs:
        truth += Counter({key: count for key, count in client.truth.items() if key[2] != "count"})
        for record in log:
            sent += Counter({key: count for key, count in counts_of(record.value).items() if key[2] == "count"})
    assert total == truth + sent


@given(dice=st.randoms(use_true_random=False))
@settings(max_examples=30)
def test_without_the_rule_the_same_fleet_would_count_too_much(dice: random.Random) -> None:
    """What the scripted SDKs post is no easy case: as posts of an SDK that is not known to merge, they add up."""
    runs = list(fleet(dice, "unleash-python-sdk:6.9.1", connections=3, turns=8))
    truth = sum((client.truth for client, _ in runs), Counter[tuple[str, str, str]]())
    everything = sum((counts_of(record.value) for _, log in runs for record in log), Counter[tuple[str, str, str]]())
    assert total_of(by_time([log for _, log in runs])) == everything
    assert everything >= truth


@given(
    dice=st.randoms(use_true_random=False), sdk=st.sampled_from(("unleash-client-java:12.2.3", "unleash-js-sdk:3.8.2"))
)
def test_a_client_whose_transport_posts_again_at_once_counts_once(dice: random.Random, sdk: str) -> None:
    windows = [body({"a": (dice.randint(1, 9), 0, {})}, start=at * 60, stop=at * 60 + 60) for at in range(5)]
    log = []
    for at, value in enumerate(windows):
        said = headers(body_hash=body_hash(value), connection="c-1", sdk=sdk, start=at)
        log += [Record(0, at * 60_000 + again, said, value) for again in range(dice.randint(1, 3))]
    assert total_of(log) == sum((counts_of(value) for value in windows), Counter[tuple[str, str, str]]())
