"""How a refusal is worded: where in the body a value stands, and what was sent, as the recorded server says it."""

import math
import re
from decimal import Decimal
from typing import Final

import msgspec

from schemas.refusal import Check, Detail, RefusedPayload

_SURROGATE: Final = re.compile("[\ud800-\udfff]")
_MAX_SHOWN: Final = 120
"""Longest text of the sender's that an error repeats, in code points."""
_POSITIONAL_DIGITS: Final = 21
"""From 1e21 on, and below 1e-6, JavaScript prints a number with an exponent."""
_POSITIONAL_ZEROS: Final = 6


class Place:
    """Where in the body a value stands; cheap to make, written out only for a complaint."""

    __slots__ = ("doubts", "name", "parent")

    def __init__(self, name: str, parent: "Place | None" = None) -> None:
        self.name = name
        self.parent = parent
        self.doubts: list[Detail] = [] if parent is None else parent.doubts

    def at(self, name: str) -> "Place":
        """Give the place of a member."""
        return Place(name, self)

    def refusal(self, must: str, value: object, *, secret: bool = False) -> RefusedPayload:
        """Refuse by the schema: `must` says what the value should be."""
        return RefusedPayload(Check.SCHEMA, self.complaint(must, value, secret=secret))

    def complaint(self, must: str, value: object, *, secret: bool = False) -> Detail:
        """Word a complaint as the recorded server does; a secret value is not repeated."""
        sent = "another type" if secret and value is not None else _as_json(value)
        return Detail(f"The `{self.pointer}` property must {must}. You sent {sent}.", self.pointer)

    def missing(self, name: str) -> RefusedPayload:
        """Refuse by the schema: the member `name` is absent."""
        pointer = self.at(name).pointer
        sentence = f"The `{pointer}` property is required. It was not present on the data you sent."
        return RefusedPayload(Check.SCHEMA, Detail(sentence, pointer))

    def doubt(self, sentence: str) -> None:
        """Keep a complaint about a value; it only counts when the whole body passes the schema."""
        dotted = ".".join(self._names()[1:])
        self.doubts.append(Detail(f'"{dotted}" {sentence}'))

    def settle(self) -> None:
        """Refuse by the first doubt, if there is one."""
        if self.doubts:
            raise RefusedPayload(Check.VALUE, self.doubts[0])

    @property
    def pointer(self) -> str:
        """The JSON pointer, `/body/bucket/toggles/flagA/yes`."""
        return "/" + "/".join(name.replace("~", "~0").replace("/", "~1") for name in self._names())

    def _names(self) -> list[str]:
        names: list[str] = []
        here: Place | None = self
        while here is not None:
            names.append(shown(here.name))
            here = here.parent
        return names[::-1]


def shown(value: str) -> str:
    """Give a text of the sender's so that an error may repeat it: short, and without lone surrogates."""
    return _SURROGATE.sub("\ufffd", value if len(value) <= _MAX_SHOWN else value[:_MAX_SHOWN] + "…")


def clean(value: str) -> str:
    """Replace lone surrogates, which neither UTF-8 nor the store can hold."""
    return value if value.isascii() else _SURROGATE.sub("\ufffd", value)


def number_text(value: float) -> str:
    """Print a number as JavaScript does: the shortest digits of its double, zeros up to 1e21, then an exponent."""
    double = float(value)
    if not math.isfinite(double):
        return "Infinity" if double > 0 else "-Infinity"
    if double == 0:
        return "0"
    sign, all_digits, exponent = Decimal(repr(double)).as_tuple()
    digits = "".join(map(str, all_digits)).rstrip("0")
    point = len(all_digits) + int(exponent)  # digits before the decimal point
    if len(digits) <= point <= _POSITIONAL_DIGITS:
        text = digits + "0" * (point - len(digits))
    elif 0 < point <= _POSITIONAL_DIGITS:
        text = f"{digits[:point]}.{digits[point:]}"
    elif -_POSITIONAL_ZEROS < point <= 0:
        text = f"0.{'0' * -point}{digits}"
    else:
        mantissa = digits[0] + (f".{digits[1:]}" if len(digits) > 1 else "")
        text = f"{mantissa}e{point - 1:+d}"
    return "-" + text if sign else text


def _as_json(value: object) -> str:
    """Show a value; what an array or an object holds is not repeated, it may be long or secret."""
    match value:
        case None:
            return "null"
        case bool():
            return "true" if value else "false"
        case int() | float():
            return number_text(value)
        case str():
            return msgspec.json.encode(shown(value)).decode()
        case list():
            return "[…]" if value else "[]"
    return "{…}" if value else "{}"
