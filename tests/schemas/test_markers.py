"""Markers and tokens of batches."""

from datetime import date, timedelta

from hypothesis import given
from hypothesis import strategies as st

from schemas import markers
from schemas.limits import MARKER_PROJECT
from schemas.markers import Range
from schemas.tables import EVALUATIONS, REJECTED


def test_a_marker_stands_in_the_key_alone() -> None:
    key = markers.marker_key("topic", 3, Range(100, 199), [REJECTED, EVALUATIONS], 20_779)
    assert key._asdict() == {
        "project": MARKER_PROJECT,
        "environment": "topic",
        "feature": "3",
        "variable": "00000000000000000100",
        "variant": "00000000000000000199",
        "hour": 20_779 * 86_400,
        "app_name": "evaluations_hourly,rejected",
        "platform": "",
        "sdk_type": "",
        "source": "",
    }


def test_markers_of_different_batches_differ_in_their_key() -> None:
    def key(topic: str = "t", partition: int = 0, first: int = 1, last: int = 2) -> tuple[object, ...]:
        return markers.marker_key(topic, partition, Range(first, last), [EVALUATIONS], 0)

    others = {key(), key(topic="u"), key(partition=1), key(first=2), key(last=3)}
    assert len(others) == 5


@given(st.integers(0, 2**63 - 1), st.integers(0, 2**63 - 1))
def test_positions_sort_as_text_as_they_do_as_numbers(one: int, other: int) -> None:
    assert (markers.position(one) < markers.position(other)) == (one < other)
    assert len(markers.position(one)) == 20
    assert int(markers.position(one)) == one


def test_a_token_names_the_range_and_the_attempt() -> None:
    assert markers.token("abc", 0, Range(5, 9)) == "abc:0:5-9"
    assert markers.token("abc", 0, Range(5, 9), 2) == "abc:0:5-9-r2"
    tokens = {
        markers.token(topic, partition, Range(first, last), attempt)
        for topic in ("a", "b")
        for partition in (0, 1)
        for first in (1, 11)
        for last in (12, 112)
        for attempt in (0, 1, 2)
    }
    assert len(tokens) == 48


def test_a_batch_is_received_on_the_utc_day_of_its_log_time() -> None:
    assert markers.received_day(0) == 0
    assert markers.received_day(86_400_000 - 1) == 0
    assert markers.received_day(86_400_000) == 1
    day = date(1970, 1, 1) + timedelta(days=markers.received_day(1_795_306_200_000))
    assert day == date(2026, 11, 22)
