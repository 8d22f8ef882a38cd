"""Dates as recorded, and the hour that a window belongs to."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from schemas import dates
from schemas.dates import ImpossibleDateError, NotADateError
from schemas.limits import MAX_EPOCH_MS, MAX_HOUR, MIN_HOUR

SECOND = dates.NANOSECONDS
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def at(*moment: int) -> int:
    """Nanoseconds of a moment, by Python's own calendar."""
    since = datetime(*moment, tzinfo=UTC) - EPOCH  # type: ignore[arg-type, misc]
    return (since.days * 86_400 + since.seconds) * SECOND


MOMENT = at(2026, 11, 22, 0, 10)


@pytest.mark.parametrize(
    ("text", "instant"),
    [
        ("2026-11-22T00:10:00Z", MOMENT),
        ("2026-11-22T00:10:00.000Z", MOMENT),
        ("2026-11-22T00:10:00.123456789Z", MOMENT + 123_456_789),
        ("2026-11-22T00:10:00.1234567891Z", MOMENT + 123_456_789),
        ("2026-11-22T00:10:00.5Z", MOMENT + 500_000_000),
        ("2026-11-22T00:10:00.389352+00:00", MOMENT + 389_352_000),
        ("2026-11-22T00:10:00+02:00", MOMENT - 7200 * SECOND),
        ("2026-11-22T00:10:00+0200", MOMENT - 7200 * SECOND),
        ("2026-11-22T00:10:00-00:30", MOMENT + 1800 * SECOND),
        ("2026-11-22T00:10:00+02", MOMENT - 7200 * SECOND),
        ("2026-11-22t00:10:00z", MOMENT),
        ("2026-11-22 00:10:00Z", MOMENT),
        ("2026-11-22T00:10:00", MOMENT),
        ("2026-11-22T00:10:00.250", MOMENT + 250_000_000),
        ("1926-05-08T12:00:00.000Z", at(1926, 5, 8, 12)),
        ("9999-12-31T23:59:59Z", at(9999, 12, 31, 23, 59, 59)),
        ("0001-01-01T00:00:00Z", at(1, 1, 1)),
        ("0000-01-01T00:00:00Z", at(1, 1, 1) - 366 * 86_400 * SECOND),
        ("2024-02-29T00:00:00Z", at(2024, 2, 29)),
        ("1795306200000", 1795306200000 * 1_000_000),
        ("1795306200", 1795306200 * 1_000_000),
        ("-1", -1_000_000),
        ("1e3", 1000 * 1_000_000),
        ("15.0", 15 * 1_000_000),
        (" 15 ", 15 * 1_000_000),
        (1795306200000, 1795306200000 * 1_000_000),
        (0, 0),
        (-1, -1_000_000),
        (MAX_EPOCH_MS, MAX_EPOCH_MS * 1_000_000),
        (-MAX_EPOCH_MS, -MAX_EPOCH_MS * 1_000_000),
    ],
)
def test_what_the_recorded_server_takes_is_a_date(text: str | int, instant: int) -> None:
    assert dates.parse(text) == instant


@pytest.mark.parametrize(
    "text",
    [
        "", "x", " ", "2026-11-22", "00:10:00Z", "2026-11-22T00:10Z", "2026-11-22T24:00:00Z",
        "2026-11-22T24:00:00.000Z", "2026-02-30T00:00:00Z", "2026-02-29T00:00:00Z", "1900-02-29T00:00:00Z",
        "2026-13-01T00:00:00Z", "2026-00-01T00:00:00Z", "2026-01-00T00:00:00Z", "2026-11-22T00:60:00Z",
        "2026-11-22T00:10:61Z", "2026-11-22T00:10:60Z", "2026-11-22T00:10:00.Z", "2026-11-22T00:10:00,000Z",
        "2026-W47-7T00:10:00Z", "2026-11-22T001000.00000Z", "+002026-11-22T00:10:00Z", "2026-11-22T00:10:00Zx", "1.5",
        "true", "null", "0x10", "٢٠٢٦-11-22T00:10:00Z", "2026-11-22T00:10:00." + "0" * 100 + "Z", "1" * 100,
        "NaN", "\ud800",
    ],
)  # fmt: skip
def test_what_has_another_form_is_no_date(text: str) -> None:
    with pytest.raises(NotADateError):
        dates.parse(text)


@pytest.mark.parametrize(
    "text",
    [
        "2016-12-31T23:59:60Z", "2026-11-22T23:59:60.5Z", "2026-11-22T00:10:00+24:00", "2026-11-22T00:10:00+00:60",
        MAX_EPOCH_MS + 1, -MAX_EPOCH_MS - 1, 10**400, str(MAX_EPOCH_MS + 1), "1e300",
    ],
    ids=range(9),
)  # fmt: skip
def test_a_leap_second_and_what_lies_beyond_javascripts_dates_is_impossible(text: str | int) -> None:
    with pytest.raises(ImpossibleDateError):
        dates.parse(text)


def test_an_error_repeats_little_of_what_was_sent() -> None:
    with pytest.raises(NotADateError) as caught:
        dates.parse("x" * 1_000_000)
    assert len(str(caught.value)) < 100


MOMENTS = st.datetimes(min_value=datetime(1, 1, 1), max_value=datetime(9999, 12, 31, 23, 59, 59))  # noqa: DTZ001


@given(MOMENTS)
@example(datetime(2000, 2, 29))  # noqa: DTZ001
@example(datetime(1900, 2, 28, 23, 59, 59))  # noqa: DTZ001
def test_the_plain_form_means_the_same_as_every_longer_way_to_write_it(moment: datetime) -> None:
    moment = moment.replace(microsecond=moment.microsecond // 1000 * 1000)
    stem = moment.isoformat(timespec="milliseconds")
    plain = dates.parse(stem + "Z")  # the short cut
    assert plain == (moment.replace(tzinfo=UTC) - EPOCH) // timedelta(microseconds=1) * 1000
    for longer in (
        stem + "000Z",
        stem + "+00:00",
        stem.replace("T", " ") + "Z",
        stem,
        stem + "-0000",
        stem.lower() + "z",
    ):
        assert dates.parse(longer) == plain


@given(MOMENTS, st.integers(-23, 23), st.integers(0, 59))
def test_an_offset_shifts_the_instant(moment: datetime, hours: int, minutes: int) -> None:
    stem = moment.isoformat(timespec="microseconds")
    sign = "-" if hours < 0 else "+"
    shifted = dates.parse(f"{stem}{sign}{abs(hours):02}:{minutes:02}")
    offset = (abs(hours) * 60 + minutes) * 60 * SECOND * (-1 if hours < 0 else 1)
    assert shifted == dates.parse(stem + "Z") - offset


@pytest.mark.parametrize("day", ["2026-11-22", "2026-W47-7", "20261122", "2026W477"])
@pytest.mark.parametrize(
    "time", ["00:10:00", "00:10:00.000", "00:10:00,000", "001000", "001000.0", "001000.00000", "24:00:00"]
)
def test_the_short_cut_takes_nothing_that_the_long_way_refuses(day: str, time: str) -> None:
    def taken(text: str) -> int | None:
        try:
            return dates.parse(text)
        except NotADateError:
            return None

    assert taken(f"{day}T{time}Z") == taken(f"{day}T{time}+00:00")
    assert (taken(f"{day}T{time}Z") is not None) == (day == "2026-11-22" and time in {"00:10:00", "00:10:00.000"})


@pytest.mark.parametrize(
    ("start", "stop", "hour"),
    [
        ("2026-11-22T12:00:00Z", "2026-11-22T13:00:00Z", "2026-11-22T12:00:00Z"),
        ("1926-05-08T12:00:00.000Z", "1926-05-08T13:00:00.000Z", "1926-05-08T12:00:00Z"),
        ("2250-01-01T00:00:00Z", "2250-01-01T01:00:00Z", "2250-01-01T00:00:00Z"),
        ("2026-11-22T12:59:00Z", "2026-11-22T13:00:00.000000001Z", "2026-11-22T13:00:00Z"),
        ("2026-11-22T12:00:00Z", "2026-11-22T12:00:01Z", "2026-11-22T12:00:00Z"),
        ("2026-11-21T00:00:00Z", "2026-11-23T00:00:00Z", "2026-11-22T23:00:00Z"),
        ("2026-11-22T13:00:00Z", "2026-11-22T13:00:00Z", "2026-11-22T13:00:00Z"),
        ("2026-11-22T15:00:00Z", "2026-11-22T13:00:00Z", "2026-11-22T13:00:00Z"),
        ("1970-01-01T00:00:00Z", "1970-01-01T00:00:00Z", "1970-01-01T00:00:00Z"),
        ("1969-12-31T23:00:00Z", "1970-01-01T00:00:00Z", "1969-12-31T23:00:00Z"),
        (-7_200_000, -1, "1969-12-31T23:00:00Z"),
    ],
)
def test_a_window_belongs_to_the_hour_of_its_last_instant(start: str | int, stop: str | int, hour: str) -> None:
    assert dates.window_hour(dates.parse(start), dates.parse(stop)) * SECOND == dates.parse(hour)


@given(st.integers(-(10**20), 10**20), st.integers(0, 10**14))
def test_an_hour_is_a_multiple_of_an_hour_and_holds_the_windows_last_instant(start: int, length: int) -> None:
    hour = dates.window_hour(start, start + length)
    assert hour % 3600 == 0
    last = start + length - 1 if length else start
    assert hour * SECOND <= last < (hour + 3600) * SECOND
    assert dates.instant_hour(last) == hour


def test_a_bulk_entry_on_the_hour_belongs_to_that_hour() -> None:
    assert dates.instant_hour(dates.parse("2026-11-22T13:00:00Z")) * SECOND == at(2026, 11, 22, 13)
    assert dates.instant_hour(dates.parse("1926-05-08T12:59:59.999Z")) * SECOND == at(1926, 5, 8, 12)


def test_the_store_holds_the_years_1900_to_2299() -> None:
    assert at(1900, 1, 1) == MIN_HOUR * SECOND
    assert at(2299, 12, 31, 23) == MAX_HOUR * SECOND
    assert dates.storable(MIN_HOUR)
    assert dates.storable(MAX_HOUR)
    assert not dates.storable(MIN_HOUR - 3600)
    assert not dates.storable(MAX_HOUR + 3600)
