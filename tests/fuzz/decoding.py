"""What must hold of any body, whoever sent it: the promises of `schemas.decode`, `schemas.rows` and `accept`."""

import re
import time
from typing import Any, Final

import msgspec
from multidict import CIMultiDict, CIMultiDictProxy

from ingest_gateway import accept
from ingest_gateway.routing import Routes
from schemas import dates, decode, lenient, rows
from schemas.event import Headers, Kind, from_pairs, pack, to_pairs, unpack
from schemas.lenient import MalformedJsonError, NestedTooDeeplyError
from schemas.limits import MAX_COUNT, MAX_NAME
from schemas.refusal import RefusedPayload
from schemas.rows import Counted, Reason, SetAside
from tests.fuzz.finding import Finding
from tests.ingest_gateway.support import BACKEND_ANY, TABLE

MOST_SECONDS: Final = 0.3
MOST_SECONDS_A_BYTE: Final = 4e-6
"""A body may take so much of the processor in all: 0.3 s, and 4 s for each million bytes (it is read eight times)."""

_READERS: Final[dict[Kind, tuple[Any, Any, Any]]] = {
    Kind.METRICS: (decode._strict_metrics, lenient.metrics, decode.metrics),
    Kind.BULK: (decode._strict_bulk, lenient.bulk, decode.bulk),
    Kind.REGISTER: (decode._strict_registration, lenient.registration, decode.registration),
}
_ROUTES: Final = {route.kind: route for route in Routes().all() if not route.frontend}
_TOKEN: Final = TABLE.find(BACKEND_ANY)
_SENT: Final = CIMultiDictProxy(CIMultiDict({"unleash-appname": "edge", "unleash-connection-id": "c1"}))
_VARYING: Final = re.compile(r"`[^`]*`|\"[^\"]*\"|You (?:sent|provided).*|[\d.]+", re.DOTALL)
_SURROGATE: Final = re.compile("[\ud800-\udfff]")
_NOT_STRICT: Final = object()

Signature = tuple[object, ...]


def check(kind: Kind, body: bytes, *, timed: bool = True) -> Signature:
    """Read a body in every way that we have.

    Returns:
        What it led to, coarsely: inputs with the same signature are of the same sort.

    Raises:
        Finding: a promise is broken.
    """
    allowed = MOST_SECONDS + MOST_SECONDS_A_BYTE * len(body)
    for _ in range(3):  # a busy machine makes one of them slow, not all
        began = time.thread_time()
        try:
            signature = _check(kind, body)
        except Finding:
            raise
        except Exception as error:
            raise Finding(f"{type(error).__name__} is raised") from error
        seconds = time.thread_time() - began
        if not timed or seconds <= allowed:
            return signature
    raise Finding(f"{len(body)} bytes take {seconds:.2f} s")


def _check(kind: Kind, body: bytes) -> Signature:
    strict, coerced, both = _READERS[kind]
    quick: Any = _NOT_STRICT
    try:
        quick = strict(body)
        decode._check_values(quick)
    except (ValueError, RecursionError):
        quick = _NOT_STRICT
    try:
        slow = coerced(body)
    except (RefusedPayload, MalformedJsonError) as error:
        _promise(quick is _NOT_STRICT, "the strict decoder takes what the lenient one refuses")
        return (kind, *_refused(kind, both, body, error))
    if quick is not _NOT_STRICT:
        _promise(quick == slow, "the decoders give different payloads")
        _promise(msgspec.json.encode(quick) == msgspec.json.encode(slow), "the decoders give different types")
    found = both(body)
    _promise(found == slow, "reading twice gives different payloads")
    _check_event(kind, body, both, found)
    outcomes = _check_rows(kind, body)
    return (kind, quick is not _NOT_STRICT, *sorted(outcomes))


def _refused(kind: Kind, both: Any, body: bytes, error: Exception) -> Signature:
    """Make sure that gateway and aggregator refuse alike, and that the refusal can be written."""
    try:
        both(body)
    except (RefusedPayload, MalformedJsonError) as again:
        same = type(again) is type(error) and str(again) == str(error)
        same = same or (isinstance(again, MalformedJsonError) and isinstance(error, MalformedJsonError))
        _promise(same, "the refusals differ")  # how deep is too deep depends on who asks, so where JSON breaks may, too
    else:
        raise Finding("refused and taken")
    if isinstance(error, RefusedPayload):
        msgspec.json.encode(error.details)
        _promise(len(msgspec.json.encode(error.details)) < 20_000, "a refusal repeats too much of the body")
    if kind is not Kind.REGISTER and not isinstance(error, NestedTooDeeplyError):
        outcomes = list(rows.of_record(_headers(kind, "development"), body))
        _promise(outcomes == [SetAside(Reason.UNREADABLE, "", "", body)], "an unreadable record is not kept as it is")
    return type(error).__name__, _VARYING.sub("", str(error))[:100]


def _check_event(kind: Kind, body: bytes, both: Any, found: Any) -> None:
    """What is appended reads like what was sent, without `seenTokens`."""
    assert _TOKEN is not None
    event = accept.accept(_ROUTES[kind], kind, _TOKEN, _SENT, body, received_ms=0)
    sent = lenient.DECODER.decode(lenient.text_of(body)) if body else {}
    kept = lenient.DECODER.decode(lenient.text_of(event.value)) if event.value else {}
    _promise("seenTokens" not in kept, "seenTokens stays in the log")
    sent.pop("seenTokens", None)
    _promise(repr(sent) == repr(kept), "the log differs from what was sent")
    again = both(event.value)
    _promise(again == found, "the log reads differently")
    _promise(unpack(pack(event.headers)) == event.headers, "the headers do not survive one broker")
    _promise(from_pairs(to_pairs(event.headers)) == event.headers, "the headers do not survive the other broker")


def _check_rows(kind: Kind, body: bytes) -> set[str]:
    sorts: set[str] = set()
    for environment in ("development", "*"):
        headers = _headers(kind, environment)
        outcomes = list(rows.of_record(headers, body))
        _promise(outcomes == list(rows.of_record(headers, body)), "reading twice gives different rows")
        for outcome in outcomes:
            match outcome:
                case Counted():
                    _check_counted(outcome)
                    sorts.add("counted")
                case SetAside():
                    _check_set_aside(kind, outcome)
                    sorts.add(outcome.reason)
        size = sum(len(each.payload) for each in outcomes if isinstance(each, SetAside))
        _promise(size < 200_000 + 300 * len(body), "what is set aside grows out of bounds")
    return sorts


def _check_counted(row: Counted) -> None:
    _promise(all(0 <= count <= MAX_COUNT for count in (row.yes, row.no, row.other)), "a count is out of its limits")
    _promise(bool(row.yes or row.no or row.other), "a row counts nothing")
    key = row.key
    for text in key:
        if isinstance(text, str):
            _promise(len(text) <= MAX_NAME and "\0" not in text and not _SURROGATE.search(text), "a name is no name")
    _promise(bool(key.feature and key.app_name and key.environment), "a name is missing")
    _promise(key.hour % 3600 == 0 and dates.storable(key.hour), "an hour cannot be stored")


def _check_set_aside(kind: Kind, row: SetAside) -> None:
    _promise(row.reason is not Reason.UNREADABLE, "a payload that was taken is unreadable in the log")
    _promise(len(row.app_name) <= MAX_NAME and len(row.feature) <= MAX_NAME, "a name of a set-aside row is too long")
    row.payload.decode()
    _READERS[kind][2](row.payload)


def _headers(kind: Kind, environment: str) -> Headers:
    return Headers(
        kind=kind,
        route=_ROUTES[kind].path,
        project="default",
        environment=environment,
        token_id="0123456789abcdef",
        received_ms=0,
        body_hash="0" * 32,
    )


def _promise(kept: bool, what: str) -> None:
    if not kept:
        raise Finding(what)
