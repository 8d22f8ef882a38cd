"""The strict and the lenient decoder agree: what the strict one takes, the lenient one takes to the same result."""

import json
from typing import Any

import msgspec
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from schemas import decode, lenient
from schemas.lenient import MalformedJsonError
from schemas.limits import MAX_COUNT
from schemas.refusal import RefusedPayload

# Values of every JSON type, most of them near something that a rule looks at.
TEXTS = st.one_of(
    st.text(max_size=8),
    st.sampled_from(["", "3", "1.5", " ", "x", "frontend", "counter", "histogram", "+Inf", "1e400", "\ud800"]),
    st.sampled_from(
        ["2026-11-22T00:10:00Z", "1926-05-08T12:00:00.000Z", "2016-12-31T23:59:60Z", "2026-02-30T00:00:00Z"]
    ),
)
SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(min_value=-3, max_value=5),
    st.integers(),
    st.sampled_from([MAX_COUNT, MAX_COUNT + 1, 2**63, 8_640_000_000_000_000, 8_640_000_000_000_001]),
    st.floats(allow_nan=False, allow_infinity=False),
    TEXTS,
)
ANY_JSON = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3), max_leaves=6
)


def wild(tame: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    """Mostly what belongs there, sometimes anything."""
    return st.integers(0, 9).flatmap(lambda dice: ANY_JSON if dice == 0 else tame)


def some_of(required: dict[str, Any], optional: dict[str, Any]) -> st.SearchStrategy[Any]:
    dice = st.integers(0, 19)
    whole = st.fixed_dictionaries(required, optional=optional)
    without = st.fixed_dictionaries({}, optional=required | optional)
    return wild(dice.flatmap(lambda thrown: without if thrown == 0 else whole))


COUNTS = wild(st.integers(0, 2**53 - 1) | st.integers(0, 9))
VARIANTS = wild(st.dictionaries(TEXTS, COUNTS, max_size=3))
DATES = wild(st.sampled_from(["2026-11-22T00:10:00Z", 0, -1, 1795306200000, "15", "1926-05-08T12:00:00.000Z"]))
WORDS = wild(st.none() | TEXTS)
SDK = dict.fromkeys(
    ["instanceId", "environment", "connectionId", "platformName", "yggdrasilVersion", "sdkFlavor", "specVersion"], WORDS
)
SINGLE = some_of(
    {"appName": wild(st.text(min_size=1, max_size=5))},
    SDK
    | {
        "sdkVersion": WORDS,
        "impactMetrics": ANY_JSON,
        "bucket": st.none()
        | some_of(
            {
                "start": DATES,
                "stop": DATES,
                "toggles": wild(
                    st.dictionaries(TEXTS, some_of({}, {"yes": COUNTS, "no": COUNTS, "variants": VARIANTS}), max_size=3)
                ),
            },
            {},
        ),
    },
)
REGISTRATIONS = some_of(
    {
        "appName": wild(st.text(min_size=1, max_size=5)),
        "interval": wild(st.integers(0, 9) | st.floats(0, 9)),
        "started": DATES,
        "strategies": wild(st.lists(TEXTS, max_size=2)),
    },
    SDK | {"sdkVersion": wild(st.text(min_size=1, max_size=3))},
)
LABELS = st.none() | st.dictionaries(TEXTS, TEXTS, max_size=2)
NUMBERS = wild(st.integers() | st.floats(allow_nan=False, allow_infinity=False))
SAMPLE = some_of({"value": NUMBERS}, {"labels": LABELS})
HISTOGRAM_SAMPLE = some_of(
    {
        "count": COUNTS,
        "sum": NUMBERS,
        "buckets": st.lists(some_of({"le": NUMBERS | st.just("+Inf"), "count": COUNTS}, {}), max_size=2),
    },
    {"labels": LABELS},
)
IMPACT = some_of(
    {
        "name": TEXTS,
        "help": TEXTS,
        "type": st.sampled_from(["counter", "gauge"]),
        "samples": st.lists(SAMPLE, max_size=2),
    },
    {},
) | some_of(
    {"name": TEXTS, "help": TEXTS, "type": st.just("histogram"), "samples": st.lists(HISTOGRAM_SAMPLE, max_size=2)}, {}
)
BULK = some_of(
    {
        "applications": st.lists(
            some_of(
                {"appName": TEXTS, "interval": NUMBERS, "started": DATES},
                SDK
                | {
                    "sdkType": st.sampled_from(["frontend", "backend", None]),
                    "sdkVersion": WORDS,
                    "strategies": st.lists(TEXTS, max_size=2),
                    "projects": st.none() | st.lists(TEXTS, max_size=2),
                    "connectVia": st.lists(some_of({"appName": TEXTS, "instanceId": TEXTS}, {}), max_size=2),
                },
            ),
            max_size=2,
        ),
        "metrics": st.lists(
            some_of(
                {"featureName": TEXTS, "appName": TEXTS, "environment": TEXTS},
                {"timestamp": DATES, "yes": COUNTS, "no": COUNTS, "variants": VARIANTS, "sdkType": WORDS},
            ),
            max_size=2,
        ),
    },
    {"impactMetrics": st.none() | st.lists(IMPACT, max_size=2), "seenTokens": wild(st.lists(TEXTS, max_size=2))},
)

READERS: dict[str, tuple[Any, Any, Any]] = {
    "metrics": (decode._strict_metrics, lenient.metrics, decode.metrics),
    "bulk": (decode._strict_bulk, lenient.bulk, decode.bulk),
    "registration": (decode._strict_registration, lenient.registration, decode.registration),
}
NOT_STRICT = object()


def compare(kind: str, body: bytes) -> bool:
    """Read both ways; says whether the strict path took it."""
    strict, coerced, both = READERS[kind]
    try:
        quick = strict(body)
        decode._check_values(quick)
    except (ValueError, RecursionError):
        quick = NOT_STRICT
    try:
        slow = coerced(body)
        refused: type[Exception] | None = None
    except (RefusedPayload, MalformedJsonError) as error:
        refused = type(error)
    if refused is not None:
        assert quick is NOT_STRICT
        with pytest.raises(refused):
            both(body)
        return False
    msgspec.json.encode(slow)  # whatever is taken can be written as UTF-8
    assert both(body) == slow
    if quick is not NOT_STRICT:
        assert quick == slow
        assert msgspec.json.encode(quick) == msgspec.json.encode(slow)  # types alike, too: 1 is not 1.0
    return quick is not NOT_STRICT


def to_body(document: Any) -> bytes:
    return json.dumps(document).encode()


@pytest.mark.parametrize(("kind", "documents"), [("metrics", SINGLE), ("bulk", BULK), ("registration", REGISTRATIONS)])
def test_both_paths_agree_on_any_document(kind: str, documents: st.SearchStrategy[Any]) -> None:
    taken_strictly = 0

    @settings(max_examples=100, deadline=None)
    @given(documents)
    def agree(document: Any) -> None:
        nonlocal taken_strictly
        taken_strictly += compare(kind, to_body(document))

    agree()
    assert taken_strictly > 5  # else the property says nothing


@settings(max_examples=150, deadline=None)
@given(
    kind=st.sampled_from(sorted(READERS)),
    document=SINGLE | BULK | REGISTRATIONS,
    at=st.integers(0, 10_000),
    cut=st.integers(0, 3),
    put=st.binary(max_size=3)
    | st.sampled_from([b'"', b"\\", b"\\ud800", b"\xff", b"NaN", b"{", b"]", b",", b"1e999", b"-"]),
)
@example(kind="metrics", document={"appName": "a", "x": "y"}, at=20, cut=1, put=b"\xff")
def test_both_paths_agree_on_damaged_bytes(kind: str, document: Any, at: int, cut: int, put: bytes) -> None:
    body = to_body(document)
    at %= len(body)
    compare(kind, body[:at] + put + body[at + cut :])


@settings(max_examples=100, deadline=None)
@given(st.sampled_from(sorted(READERS)), st.binary(max_size=60))
def test_nothing_but_the_two_refusals_is_raised_for_any_bytes(kind: str, body: bytes) -> None:
    compare(kind, body)


@pytest.mark.parametrize("started", ["0", "0.0", "1.5", "1795306200000.0", "-1", '"15"', '"2026-11-22T00:10:00Z"'])
def test_both_paths_agree_on_when_an_sdk_started(started: str) -> None:
    assert compare("registration", b'{"appName":"a","interval":1,"strategies":[],"started":%s}' % started.encode())
