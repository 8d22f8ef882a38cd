import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from aggregator.supersets import Merges, added, merges
from schemas.payloads import Toggle
from tests.aggregator.sdks import Counts, body, counts_of


@pytest.mark.parametrize(
    ("sdk", "how"),
    [
        ("unleash-node-sdk:6.12.1", Merges.ALL),
        ("unleash-node-sdk:6.7.0-beta.3", Merges.ALL),
        ("unleash-client-node:6.4.3", Merges.ALL),
        ("unleash-client-node", Merges.ALL),
        ("unleash-go-sdk:6.4.0", Merges.ALL),
        ("unleash-go-sdk:10.0.0", Merges.ALL),
        ("unleash-go-sdk:5.1.0", Merges.YES_AND_NO),
        ("unleash-client-go:4.5.0", Merges.YES_AND_NO),
        ("unleash-go-sdk:", None),
        ("unleash-go-sdk:v6", None),
        ("unleash-go-sdk:\u0666.0.0", None),
        ("unleash-python-sdk:6.9.1", None),
        ("unleash-client-ruby:5.0.0", None),
        ("unleash-js-sdk:3.8.2", None),
        ("unleash-node@6.4.0", None),
        ("", None),
    ],
)
def test_only_sdks_that_are_known_to_merge_are_judged(sdk: str, how: Merges | None) -> None:
    assert merges(sdk) is how


def rest(value: bytes, *earlier: bytes, how: Merges = Merges.ALL) -> dict[str, Toggle] | None:
    payload = added(value, earlier, how).payload
    assert payload is None or payload.bucket is not None
    return None if payload is None or payload.bucket is None else payload.bucket.toggles


SMALL = body({"a": (3, 1, {"blue": 2})}, stop=60)
LARGE = body({"a": (5, 1, {"blue": 2, "red": 1}), "b": (0, 4, {})}, stop=120)


def test_a_superset_adds_what_is_new_in_it() -> None:
    assert rest(LARGE, SMALL) == {"a": Toggle(2, 0, {"blue": 0, "red": 1}), "b": Toggle(0, 4, {})}


def test_a_smaller_window_after_its_superset_adds_nothing() -> None:
    assert rest(SMALL, LARGE) == {"a": Toggle(0, 0, {"blue": 0})}


def test_a_superset_stands_for_what_it_contains() -> None:
    assert added(LARGE, [SMALL, b"not json"], Merges.ALL).covers == [True, False]
    assert added(SMALL, [LARGE], Merges.ALL).covers == [False]


def test_variants_of_an_sdk_that_sends_only_new_ones_are_all_added() -> None:
    later = body({"a": (5, 1, {"red": 1})}, stop=120)
    assert rest(later, SMALL, how=Merges.YES_AND_NO) == {"a": Toggle(2, 0, {"red": 1})}
    assert rest(SMALL, later, how=Merges.YES_AND_NO) == {"a": Toggle(0, 0, {"blue": 2})}


@pytest.mark.parametrize(
    "other",
    [
        body({"a": (2, 1, {"blue": 2})}, stop=120),
        body({"a": (3, 0, {"blue": 2})}, stop=120),
        body({"a": (9, 9, {"blue": 1})}, stop=120),
        body({"a": (9, 9, {})}, stop=120),
        body({"b": (9, 9, {"blue": 9})}, stop=120),
        body({"a": (9, 9, {"blue": 9})}, stop=59),
        body({"a": (9, 9, {"blue": 9})}, stop=120, app="other"),
        body({"a": (9, 9, {"blue": 9})}, stop=120, environment="other"),
        body({"a": (9, 9, {"blue": 9})}, stop=120, platform="other"),
        b'{"appName":"shop","bucket":null}',
        b"[]",
        b"nonsense",
    ],
)
def test_windows_that_do_not_contain_each_other_count_whole(other: bytes) -> None:
    assert added(other, [SMALL], Merges.ALL) == (None, [False])
    assert added(SMALL, [other], Merges.ALL) == (None, [False])


def test_missing_variants_are_none() -> None:
    bare = body({"a": (1, 0, None)}, stop=60)
    assert rest(body({"a": (4, 0, {"blue": 1})}, stop=70), bare) == {"a": Toggle(3, 0, {"blue": 1})}
    assert rest(body({"a": (4, 0, None)}, stop=70), bare) == {"a": Toggle(3, 0, None)}


def test_stops_are_compared_as_times() -> None:
    """Go trims zeros from fractions, and writes its own zone."""
    assert rest(SMALL.replace(b"12:01:00.000Z", b"14:01:00+02:00"), SMALL) == {"a": Toggle(0, 0, {"blue": 0})}


def test_the_largest_of_several_is_what_was_seen() -> None:
    first = body({"a": (3, 0, {})}, stop=60)
    second = body({"a": (1, 2, {})}, stop=70)  # contains nothing and is contained in nothing: it counted whole
    assert rest(body({"a": (4, 4, {})}, stop=80), first, second) == {"a": Toggle(1, 2, {})}


def test_an_unrelated_window_takes_nothing_away() -> None:
    unrelated = body({"z": (9, 9, {})}, stop=60)
    assert rest(LARGE, unrelated, SMALL) == rest(LARGE, SMALL)


COUNTS = st.dictionaries(
    st.sampled_from("ab"),
    st.tuples(st.integers(0, 3), st.integers(0, 3), st.dictionaries(st.sampled_from("xy"), st.integers(0, 3))),
)
WINDOWS = st.builds(lambda counts, stop: body(counts, stop=stop), COUNTS, st.integers(0, 3))


@given(WINDOWS, st.lists(WINDOWS, max_size=4), st.sampled_from(Merges))
def test_nothing_is_ever_added_that_was_not_sent(value: bytes, earlier: list[bytes], how: Merges) -> None:
    addition = added(value, earlier, how)
    assert len(addition.covers) == len(earlier)
    if addition.payload is None:
        return
    sent, left = counts_of(value), counts_of(msgspec.json.encode(addition.payload))
    assert all(left.get(key, 0) <= count for key, count in sent.items())
    assert Counts(left).keys() <= sent.keys()


@given(st.lists(WINDOWS, max_size=4), st.sampled_from(Merges))
def test_the_order_of_what_was_seen_makes_no_difference(earlier: list[bytes], how: Merges) -> None:
    assert added(LARGE, earlier, how).payload == added(LARGE, earlier[::-1], how).payload
