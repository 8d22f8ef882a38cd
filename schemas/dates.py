"""Dates as Unleash's recorded server takes them, and the hour that a window belongs to.

Instants are whole nanoseconds since 1970-01-01T00:00:00Z, as plain integers: SDKs send up to nine digits of a
second, and the year may be anything from 0 to 275760. Hours are epoch seconds, always a multiple of 3600.
"""

import re
from datetime import UTC, datetime
from functools import lru_cache
from typing import Final

from schemas.limits import MAX_EPOCH_MS, MAX_HOUR, MIN_HOUR

NANOSECONDS: Final = 1_000_000_000
_NANOSECONDS_PER_MS: Final = 1_000_000
_HOUR: Final = 3600
_HOUR_NS: Final = _HOUR * NANOSECONDS
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MAX_TEXT: Final = 64
"""No date is longer, in code points; longer texts would only fill the cache."""
_PLAIN: Final = re.compile(r"\d{4}-\d\d-\d\dT(?!24)\d\d:\d\d:\d\d(?:\.\d{3})?Z", re.ASCII)
"""What most SDKs send. `fromisoformat` alone takes more: weeks, commas, from Python 3.13 on also the hour 24."""
_DATE_TIME: Final = re.compile(
    r"(\d{4})-(\d\d)-(\d\d)[Tt\s](\d\d):(\d\d):(\d\d)(?:\.(\d+))?(?:([Zz])|([+-])(\d\d)(?::?(\d\d))?)?",
    re.ASCII,
)
_NUMBER: Final = re.compile(r"\s*[+-]?(?:\d+(?:\.\d*)?|\.\d+)(?:[eE][+-]?\d+)?\s*", re.ASCII)
_MONTH_DAYS: Final = (31, 29, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31)
_FEBRUARY: Final = 2


class NotADateError(ValueError):
    """The value has not the form of a date: refused by the schema, with details."""


class ImpossibleDateError(ValueError):
    """The form is right, but there is no such instant (a leap second, beyond 8.64e15 ms): refused without details."""


def parse(value: str | int) -> int:
    """Read a date as the recorded server does.

    Args:
        value: a date-time string (RFC 3339, also with a space for the T, lower case, an offset without colon, or
            no zone, which is UTC), or milliseconds since the epoch, as an integer or as a string of one.

    Returns:
        Nanoseconds since the epoch; may be negative.

    Raises:
        NotADateError: neither form.
        ImpossibleDateError: no such instant.
    """
    if not isinstance(value, str):
        return _from_ms(value)
    if len(value) > _MAX_TEXT:
        raise NotADateError(value[:_MAX_TEXT])
    return _parse_text(value)


@lru_cache(maxsize=8192)
def _parse_text(text: str) -> int:
    if _PLAIN.fullmatch(text):
        try:
            moment = datetime.fromisoformat(text)
        except ValueError:
            pass
        else:
            since = moment - _EPOCH
            return (since.days * 86_400 + since.seconds) * NANOSECONDS + since.microseconds * 1000
    match = _DATE_TIME.fullmatch(text)
    if match is None:
        return _from_digits(text)
    year, month, day, hour, minute, second = (int(part) for part in match.groups()[:6])
    leap_second = (hour, minute, second) == (23, 59, 60)
    if not (1 <= month <= 12 and 1 <= day <= _days_of(month, year) and hour <= 23 and minute <= 59):
        raise NotADateError(text)
    if leap_second:
        raise ImpossibleDateError(text)
    if second > 59:
        raise NotADateError(text)
    fraction = int((match[7] or "")[:9].ljust(9, "0"))
    offset = 0
    if match[9]:
        hours, minutes = int(match[10]), int(match[11] or 0)
        if hours > 23 or minutes > 59:
            raise ImpossibleDateError(text)
        offset = (hours * 60 + minutes) * (60 if match[9] == "+" else -60)
    seconds = _days_since_epoch(year, month, day) * 86_400 + hour * _HOUR + minute * 60 + second - offset
    return seconds * NANOSECONDS + fraction


def _from_digits(text: str) -> int:
    """Coerce as JavaScript does: a numeric string that is a whole number counts as milliseconds."""
    if not _NUMBER.fullmatch(text):
        raise NotADateError(text)
    try:
        number = int(text)
    except ValueError:
        as_float = float(text)
        if not as_float.is_integer():
            raise NotADateError(text) from None
        number = int(as_float)
    return _from_ms(number)


def _from_ms(ms: int) -> int:
    if abs(ms) > MAX_EPOCH_MS:
        raise ImpossibleDateError(str(ms)[:32])
    return ms * _NANOSECONDS_PER_MS


def _days_of(month: int, year: int) -> int:
    if month == _FEBRUARY:
        return 29 if year % 4 == 0 and (year % 100 != 0 or year % 400 == 0) else 28
    return _MONTH_DAYS[month - 1]


def _days_since_epoch(year: int, month: int, day: int) -> int:
    """Days from 1970-01-01 in the proleptic Gregorian calendar (years begin in March here, so leap days come last)."""
    if month <= _FEBRUARY:
        year -= 1
        month += 12
    era, of_era = divmod(year, 400)
    of_year = (153 * (month - 3) + 2) // 5 + day - 1
    return era * 146_097 + of_era * 365 + of_era // 4 - of_era // 100 + of_year - 719_468


def window_hour(start: int, stop: int) -> int:
    """Give the hour of a window's last instant: `stop` is exclusive, so 12:00 to 13:00 is hour 12.

    Where `stop` is not after `start` the window covers nothing, and the hour is that of `stop` itself.

    Args:
        start: nanoseconds since the epoch.
        stop: nanoseconds since the epoch.

    Returns:
        The hour in epoch seconds.
    """
    return ((stop - 1 if stop > start else stop) // _HOUR_NS) * _HOUR


def instant_hour(instant: int) -> int:
    """Give the hour (epoch seconds) of one instant (nanoseconds): what bulk entries are counted under."""
    return (instant // _HOUR_NS) * _HOUR


def storable(hour: int) -> bool:
    """Say whether the store can hold this hour (epoch seconds): the years 1900 to 2299."""
    return MIN_HOUR <= hour <= MAX_HOUR
