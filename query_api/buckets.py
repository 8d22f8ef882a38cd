"""Buckets of hours, days and months in UTC, as plain integers.

Instants are epoch seconds and may be negative. Any year works, also 0 and 10000, which are bounds of ranges in the
years 1 and 9999 (`datetime` knows neither).
"""

from collections.abc import Iterator
from datetime import date
from enum import StrEnum
from functools import lru_cache
from typing import Final

_HOUR: Final = 3600
_DAY: Final = 86_400
_MONTHS: Final = 12
# The Gregorian calendar repeats every 400 years; the ordinal of 1970-01-01 counts from 0001-01-01 as 1.
_CYCLE_YEARS: Final = 400
_CYCLE_DAYS: Final = 146_097
_EPOCH_ORDINAL: Final = date(1970, 1, 1).toordinal()


class Period(StrEnum):
    """The width of a bucket."""

    HOUR = "hour"
    DAY = "day"
    MONTH = "month"


DEFAULT_LENGTH: Final = {Period.HOUR: 24, Period.DAY: 30, Period.MONTH: 12}
"""How many buckets a range has where an end of it is not given."""


def floor(instant: int, period: Period) -> int:
    """Give the start of the bucket that an instant lies in."""
    match period:
        case Period.HOUR:
            return instant // _HOUR * _HOUR
        case Period.DAY:
            return instant // _DAY * _DAY
        case Period.MONTH:
            return _month_start(_month_index(instant))


def ceil(instant: int, period: Period) -> int:
    """Give the instant itself where a bucket starts there, else the start of the next bucket."""
    start = floor(instant, period)
    return start if start == instant else shift(start, period, 1)


def shift(start: int, period: Period, buckets: int) -> int:
    """Go from the start of a bucket to the start of another one, so many buckets later (or earlier)."""
    match period:
        case Period.HOUR:
            return start + buckets * _HOUR
        case Period.DAY:
            return start + buckets * _DAY
        case Period.MONTH:
            return _month_start(_month_index(start) + buckets)


def count(start: int, end: int, period: Period) -> int:
    """Count the buckets from `start` to before `end`; both are starts of buckets."""
    match period:
        case Period.HOUR:
            return (end - start) // _HOUR
        case Period.DAY:
            return (end - start) // _DAY
        case Period.MONTH:
            return _month_index(end) - _month_index(start)


def each(start: int, end: int, period: Period) -> Iterator[int]:
    """Give the start of every bucket from `start` to before `end`; both are starts of buckets."""
    match period:
        case Period.HOUR:
            yield from range(start, end, _HOUR)
        case Period.DAY:
            yield from range(start, end, _DAY)
        case Period.MONTH:
            yield from map(_month_start, range(_month_index(start), _month_index(end)))


def stamp(instant: int, milliseconds: int = 0) -> str:
    """Write an instant as `YYYY-MM-DDTHH:MM:SS.sssZ`."""
    days, second = divmod(instant, _DAY)
    minute, second = divmod(second, 60)
    hour, minute = divmod(minute, 60)
    return f"{_day_stamp(days)}T{hour:02}:{minute:02}:{second:02}.{milliseconds:03}Z"


@lru_cache(maxsize=4096)
def _day_stamp(days: int) -> str:
    year, day = _civil(days)
    return f"{year:04}-{day.month:02}-{day.day:02}"


def _civil(days: int) -> tuple[int, date]:
    """Give the year, and a date of the same month and day in the calendar's first 400 years."""
    cycle, of_cycle = divmod(days + _EPOCH_ORDINAL - 1, _CYCLE_DAYS)
    day = date.fromordinal(of_cycle + 1)
    return day.year + cycle * _CYCLE_YEARS, day


def _month_index(instant: int) -> int:
    year, day = _civil(instant // _DAY)
    return year * _MONTHS + day.month - 1


def _month_start(index: int) -> int:
    cycle, of_cycle = divmod(index - _MONTHS, _CYCLE_YEARS * _MONTHS)
    year, month = divmod(of_cycle, _MONTHS)
    ordinal = date(year + 1, month + 1, 1).toordinal() + cycle * _CYCLE_DAYS
    return (ordinal - _EPOCH_ORDINAL) * _DAY
