"""Coercions of the recorded server, as rules that a table of fields is made of.

A rule takes a JSON value and its place in the body, and gives the value that the struct holds, or refuses. The server
asks two validators in turn: first the schema (ajv, `coerceTypes: true`), which names the place and stops at its first
complaint, then the values (joi: safe numbers, possible dates). So a schema rule raises at once, while a complaint
about a value is kept in doubt until the whole body has passed the schema.
"""

import math
import re
from collections.abc import Callable, Mapping
from typing import Any, Final, TypeVar

import msgspec

from schemas import dates
from schemas.complaint import Place, clean, number_text, shown
from schemas.limits import MAX_COUNT
from schemas.refusal import Check, Detail, RefusedPayload

Rule = Callable[[Any, "Place"], Any]
S = TypeVar("S", bound=msgspec.Struct)

_NUMBER: Final = re.compile(r"[+-]?(?:Infinity|(?:\d+(?:\.\d*)?|\.\d+)(?:[eE][+-]?\d+)?)", re.ASCII)
_EXACT: Final = 2.0**53
_NOT_ONE_OF: Final = (
    "The `{pointer}` property must match exactly one schema in oneOf. The data you provided matches none or more than "
    "one option in the schema."
)


def text(value: Any, place: Place) -> str:
    """Take a string; numbers and booleans as JavaScript prints them, null as empty."""
    match value:
        case str():
            return clean(value)
        case None:
            return ""
        case bool():
            return "true" if value else "false"
        case int() | float():
            return number_text(value)
    raise place.refusal("be string", value)


def filled(value: Any, place: Place) -> str:
    """Take a string that the second validator wants filled."""
    taken = text(value, place)
    if not taken:
        place.doubt("is not allowed to be empty.")
    return taken


def limited(*, at_least: int = 0, at_most: int | None = None) -> Rule:
    """Build a rule for a string of bounded length, in code points."""

    def rule(value: Any, place: Place) -> str:
        taken = text(value, place)
        if len(taken) < at_least:
            raise place.refusal(f"NOT have fewer than {at_least} characters", taken)
        if at_most is not None and len(taken) > at_most:
            raise place.refusal(f"NOT have more than {at_most} characters", taken)
        return taken

    return rule


def remark(value: Any, place: Place) -> str | None:
    """Take a string that the recorded server does not look at: whatever is none counts as absent."""
    return None if value is None or isinstance(value, list | dict) else text(value, place)


def one_of_words(*words: str) -> Rule:
    """Build a rule for an enumeration; its complaint has no path into the body, as recorded."""

    def rule(value: Any, place: Place) -> str:
        taken = text(value, place)
        if taken not in words:
            allowed = ", ".join(f'"{word}"' for word in words)
            raise RefusedPayload(
                Check.SCHEMA,
                Detail(
                    f"The `{place.name}` property must be equal to one of the allowed values: {allowed}. "
                    f'You provided "{shown(taken)}", which is not valid.',
                    place.name,
                ),
            )
        return taken

    return rule


def number(value: Any, place: Place) -> float:
    """Take a number, as a double."""
    taken = _number_of(value)
    if taken is None:
        raise place.refusal("be number", value)
    if not math.isfinite(taken):
        _doubt_number(place, taken)
        return 0.0
    return float(taken)


def positive(value: Any, place: Place) -> float:
    """Take a safe number that is not negative."""
    taken = number(value, place)
    if taken < 0:
        raise place.refusal("be >= 0", value)
    if taken > MAX_COUNT:
        _doubt_number(place, taken)
    return taken


def whole(value: Any, place: Place) -> int:
    """Take a count: a whole number from 0 to 2^53-1, whichever way it is written."""
    if type(value) is int and 0 <= value <= MAX_COUNT:
        return value
    taken = _number_of(value)
    if taken is None or (math.isfinite(taken) and taken != int(taken)):
        raise place.refusal("be integer", value)
    return _count_of(taken, value, place)


def rounded(value: Any, place: Place) -> int:
    """Take a count that may have a fraction, and round half away from zero, as the recorded server's store does."""
    if type(value) is int and 0 <= value <= MAX_COUNT:
        return value
    taken = _number_of(value)
    if taken is None:
        raise place.refusal("be number", value)
    return _count_of(taken, value, place)


def moment(value: Any, place: Place) -> str | int:
    """Take a date: a date-time string, or whole milliseconds. The schema sees everything as a string first."""
    return _date(value, place, "integer")  # type: ignore[return-value]  # a fraction is no integer


def moment_or_number(value: Any, place: Place) -> str | int | float:
    """Take a date, or any number of milliseconds."""
    return _date(value, place, "number")


def optional(rule: Rule) -> Rule:
    """Build a rule that keeps null as None."""
    return lambda value, place: None if value is None else rule(value, place)


def items(rule: Rule) -> Rule:
    """Build a rule for an array."""

    def take(value: Any, place: Place) -> list[Any]:
        return [rule(item, place.at(str(at))) for at, item in enumerate(_array(value, place))]

    return take


def strings_only(value: Any, place: Place) -> list[str]:
    """Take an array, and leave out whatever is no string."""
    return [clean(item) for item in _array(value, place) if isinstance(item, str)]


def entries(rule: Rule) -> Rule:
    """Build a rule for an object whose names are the sender's own."""

    def take(value: Any, place: Place) -> dict[str, Any]:
        return {clean(name): rule(item, place.at(name)) for name, item in members(value, place).items()}

    return take


def record(kind: type[S], **rules: Rule) -> Callable[[Any, Place], S]:
    """Build a rule for an object with known fields: a table of one rule for each of the struct's.

    Raises:
        TypeError: a field without a rule, or a rule without a field.
    """
    fields = msgspec.structs.fields(kind)
    if {field.name for field in fields} != rules.keys():
        raise TypeError(f"{kind.__name__} and its rules name different fields")
    required = [field.encode_name for field in fields if field.required]
    table = [(field.encode_name, field.name, rules[field.name]) for field in fields]

    def take(value: Any, place: Place) -> S:
        sent = members(value, place)
        for name in required:
            if name not in sent:
                raise place.missing(name)
        known = {attribute: rule(sent[name], place.at(name)) for name, attribute, rule in table if name in sent}
        return kind(**known)

    return take


def tagged(kinds: Mapping[str, Rule]) -> Rule:
    """Build a rule for objects whose member `type` says which struct they are."""
    name_of = one_of_words(*kinds)
    first = next(iter(kinds.values()))

    def take(value: Any, place: Place) -> Any:
        if "type" in members(value, place):
            return kinds[name_of(value["type"], place.at("type"))](value, place)
        first(value, place)  # what else is missing comes first
        raise place.missing("type")

    return take


def either(*rules: Rule) -> Rule:
    """Build a rule that tries several, and complains about all of them."""

    def take(value: Any, place: Place) -> Any:
        complaints: list[Detail] = []
        for rule in rules:
            try:
                return rule(value, place)
            except RefusedPayload as refused:
                complaints += refused.details
        raise RefusedPayload(Check.SCHEMA, *complaints, _none_of(place))

    return take


def members(value: Any, place: Place) -> dict[str, Any]:
    """Take an object as it is."""
    if not isinstance(value, dict):
        raise place.refusal("be object", value)
    return value


def _array(value: Any, place: Place) -> list[Any]:
    if not isinstance(value, list):
        raise place.refusal("be array", value)
    return value


def _number_of(value: Any) -> int | float | None:
    """Coerce as ajv does; None where that is no number. An empty string is none, one of spaces is 0."""
    match value:
        case None:
            return 0
        case bool():
            return int(value)
        case int() | float():
            return value
        case str():
            stripped = value.strip()
            if value and not stripped:
                return 0
            return float(stripped) if _NUMBER.fullmatch(stripped) else None
    return None


def _count_of(taken: float, value: Any, place: Place) -> int:
    if taken < 0:
        raise place.refusal("be >= 0", value)
    if taken > MAX_COUNT:
        _doubt_number(place, taken)
        return MAX_COUNT
    below = math.floor(taken)
    return below + (taken - below >= 0.5)  # noqa: PLR2004 - a half


def _doubt_number(place: Place, value: float) -> None:
    place.doubt(f"must be a safe number. You provided {number_text(value)}.")


def _date(value: Any, place: Place, otherwise: str) -> str | int | float:
    if isinstance(value, list | dict):
        raise _no_date(value, place, "be string", otherwise)
    as_text = text(value, place)
    if isinstance(value, bool) or value is None:
        raise _no_date(as_text, place, 'match format "date-time"', otherwise)
    try:
        if isinstance(value, float):
            return _instant(value, as_text, otherwise)
        dates.parse(value)
    except dates.NotADateError:
        taken = _number_of(value)
        if otherwise == "number" and isinstance(value, str) and value and taken is not None and abs(taken) < _EXACT:
            return taken
        raise _no_date(as_text, place, 'match format "date-time"', otherwise) from None
    except dates.ImpossibleDateError:
        place.doubt(f"must be a valid date. You provided {shown(as_text)}.")
        return 0
    return as_text if isinstance(value, str) else int(value)


def _instant(value: float, as_text: str, otherwise: str) -> int | float:
    if not math.isfinite(value):
        raise dates.ImpossibleDateError(as_text)
    dates.parse(int(value))
    if otherwise == "number":
        return value
    if not value.is_integer():
        raise dates.NotADateError(as_text)
    return int(value)


def _no_date(value: object, place: Place, must: str, otherwise: str) -> RefusedPayload:
    complaints = (place.complaint(must, value), place.complaint(f"be {otherwise}", value))
    return RefusedPayload(Check.SCHEMA, *complaints, _none_of(place))


def _none_of(place: Place) -> Detail:
    return Detail(_NOT_ONE_OF.format(pointer=place.pointer), place.pointer)
