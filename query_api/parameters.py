"""The query string to a range and filters, or to every message of what is wrong with it.

Unknown parameters are refused, as DevCycle's own service does with properties that it does not know (`reference`,
1.5 and 8): a misspelt `enviroment` would otherwise count all environments without a word. So are empty values, which
most often come from an unset variable in a script.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from query_api import buckets
from query_api.buckets import Period
from schemas import dates
from schemas.tables import SdkType

MAX_BUCKETS: Final = 10_000
VARIATION: Final = "variation"

_FIRST: Final = -62_135_596_800
"""0001-01-01T00:00:00Z in epoch seconds."""

_END: Final = 253_402_300_800
"""10000-01-01T00:00:00Z in epoch seconds: a year has four digits."""

_ALWAYS: Final = ("startDate", "endDate", "period", "environment", "platform", "variable", "sdkType")
_BY: Final = "by"
_DAY_ONLY: Final = re.compile(r"\d{4}-\d\d-\d\d", re.ASCII)
_TO_THE_MINUTE: Final = re.compile(r"(\d{4}-\d\d-\d\d[Tt]\d\d:\d\d)(Z|z|[+-]\d\d:?\d\d)?", re.ASCII)
# `+02:00` that was not percent-encoded arrives with a space for the plus.
_LOST_PLUS: Final = re.compile(r"(\d{4}-\d\d-\d\d[Tt][\d:.]+) (\d\d:?\d\d)", re.ASCII)


@dataclass(frozen=True, slots=True)
class Range:
    """A half-open range of whole buckets, in epoch seconds."""

    start: int
    end: int
    period: Period

    def __len__(self) -> int:
        return buckets.count(self.start, self.end, self.period)


@dataclass(frozen=True, slots=True)
class Filters:
    """What narrows the counts; None is no filter."""

    environment: str | None = None
    platform: str | None = None
    variable: str | None = None
    sdk_type: str | None = None


@dataclass(frozen=True, slots=True)
class Query:
    """A query string that was understood."""

    span: Range
    filters: Filters
    by_variation: bool = False


class WrongParametersError(ValueError):
    """The query string cannot be answered; `messages` are all the reasons, a sentence each."""

    def __init__(self, messages: list[str]) -> None:
        super().__init__("; ".join(messages))
        self.messages = messages


def read(pairs: Iterable[tuple[str, str]], now: int, *, takes_by: bool = False) -> Query:
    """Read a query string.

    Args:
        pairs: names and values, decoded, in their order.
        now: epoch seconds; the end of the range where none is given.
        takes_by: whether `by=variation` means something here (a feature's series only).

    Raises:
        WrongParametersError: with every message at once.
    """
    wrong: list[str] = []
    given = _once(pairs, (*_ALWAYS, _BY) if takes_by else _ALWAYS, wrong)
    period = Period(_one_of(given, "period", tuple(Period), wrong) or Period.HOUR)
    sdk_type = _one_of(given, "sdkType", tuple(SdkType), wrong)
    by = _one_of(given, _BY, (VARIATION,), wrong)
    span = _range(_instant(given, "startDate", wrong), _instant(given, "endDate", wrong), period, now, wrong)
    if wrong:
        raise WrongParametersError(wrong)
    filters = Filters(given.get("environment"), given.get("platform"), given.get("variable"), sdk_type)
    return Query(span, filters, by_variation=by is not None)


def _once(pairs: Iterable[tuple[str, str]], known: tuple[str, ...], wrong: list[str]) -> dict[str, str]:
    given: dict[str, str] = {}
    repeated: dict[str, None] = {}
    for name, value in pairs:
        if name in given:
            repeated[name] = None
        given[name] = value
    for name in [name for name, value in given.items() if name not in known or name in repeated or not value]:
        if name not in known:
            wrong.append(f"property {name} should not exist")
        elif name in repeated:
            wrong.append(f"{name} must be given only once")
        else:
            wrong.append(f"{name} should not be empty")
        del given[name]
    return given


def _one_of(given: Mapping[str, str], name: str, allowed: tuple[str, ...], wrong: list[str]) -> str | None:
    value = given.get(name)
    if value is None or value in allowed:
        return value
    wrong.append(f"{name} must be one of the following values: {', '.join(allowed)}")
    return None


@dataclass(frozen=True, slots=True)
class _Bound:
    """One end of the range: `instant` in nanoseconds; None where it is not given or cannot be read."""

    instant: int | None
    unreadable: bool = False


def _instant(given: Mapping[str, str], name: str, wrong: list[str]) -> _Bound:
    text = given.get(name)
    if text is None:
        return _Bound(None)
    try:
        instant = dates.parse(_completed(text))
    except (dates.NotADateError, dates.ImpossibleDateError):
        wrong.append(f"{name} must be milliseconds since the epoch or an ISO 8601 date")
        return _Bound(None, unreadable=True)
    if not _FIRST * dates.NANOSECONDS <= instant < _END * dates.NANOSECONDS:
        wrong.append(f"{name} must lie within the years 1 to 9999")
        return _Bound(None, unreadable=True)
    return _Bound(instant)


def _completed(text: str) -> str:
    """Fill in what ISO 8601 lets a date leave out."""
    if _DAY_ONLY.fullmatch(text):
        return f"{text}T00:00:00Z"
    text = _LOST_PLUS.sub(r"\1+\2", text)
    minute = _TO_THE_MINUTE.fullmatch(text)
    return f"{minute[1]}:00{minute[2] or 'Z'}" if minute else text


def _range(first: _Bound, last: _Bound, period: Period, now: int, wrong: list[str]) -> Range:
    """Floor the start and raise the end to the period; what is not given is a default length away."""
    length = buckets.DEFAULT_LENGTH[period]
    nothing = Range(0, 0, period)
    if first.unreadable or last.unreadable:
        return nothing
    if first.instant is not None and last.instant is not None and first.instant >= last.instant:
        wrong.append("startDate must be before endDate")
        return nothing
    start = None if first.instant is None else buckets.floor(first.instant // dates.NANOSECONDS, period)
    end = None if last.instant is None else buckets.ceil(-(-last.instant // dates.NANOSECONDS), period)
    if end is None:
        end = buckets.ceil(now, period) if start is None else buckets.shift(start, period, length)
    if start is None:
        start = buckets.shift(end, period, -length)
    span = Range(start, end, period)
    if start < _FIRST or end > _END:
        wrong.append("startDate and endDate must lie within the years 1 to 9999")
    elif len(span) > MAX_BUCKETS:
        wrong.append(f"startDate to endDate must have at most {MAX_BUCKETS} {period}s, and has {len(span)}")
    return span
