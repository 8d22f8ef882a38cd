"""Payloads to rows, one by one: what is counted, under which key, and what is set aside and why.

Pure functions under `schemas.limits.RULES`. A bad row never costs its neighbours. What comes out depends on the
record alone, so that a batch that is settled again gives the same rows.
"""

import sys
from collections.abc import Callable, Iterator
from enum import StrEnum
from typing import Final, Generic, NamedTuple, TypeVar

import msgspec

from schemas import dates, decode, lenient
from schemas.event import Headers, Kind, Unreadable
from schemas.limits import MAX_NAME
from schemas.payloads import Bucket, BulkMetric, BulkMetrics, ClientMetrics, Toggle
from schemas.refusal import RefusedPayload
from schemas.tables import EvaluationKey, SdkType, Source

FRONTEND_ROUTE_PREFIX = "/api/frontend/"
ANY_ENVIRONMENT = "*"
DEFAULT_ENVIRONMENT = "default"
OWN_ROWS = 100
"""So many pieces of one record get a row of `rejected` each."""

_MORE_STACK: Final = 500
"""More than the gateway's frames, by far."""

P = TypeVar("P")


class Reason(StrEnum):
    """Why something was set aside; the text in `rejected.reason`."""

    EMPTY_FEATURE = "empty_feature"
    EMPTY_APP = "empty_app"
    NAME_TOO_LONG = "name_too_long"
    NUL_IN_NAME = "nul_in_name"
    NO_TIMESTAMP = "no_timestamp"
    TIME_OUT_OF_RANGE = "time_out_of_range"
    OTHER_ENVIRONMENT = "other_environment"
    UNREADABLE = "unreadable"


class Counted(NamedTuple):
    """What one row adds to its key: to yes, to no, and (`other`) to the column `count`."""

    key: EvaluationKey
    yes: int
    no: int
    other: int


class SetAside(NamedTuple):
    """What goes to `rejected`; `payload` is a document of the record's kind with only this in it."""

    reason: Reason
    app_name: str
    feature: str
    payload: bytes


Outcome = Counted | SetAside


class _Scope(NamedTuple):
    """What all rows of one window or entry share."""

    project: str
    environment: str
    hour: int
    app_name: str
    platform: str
    sdk_type: str


_encode = msgspec.json.Encoder().encode


def of_record(headers: Headers | Unreadable, value: bytes) -> Iterator[Outcome]:
    """Turn one record of the log into what it counts and what is set aside.

    A record that cannot be read at all becomes one `SetAside`; it never raises and never disappears. Registrations
    give nothing yet: they stay in the log.
    """
    if isinstance(headers, Unreadable):
        yield SetAside(Reason.UNREADABLE, "", "", _encode({"why": headers.why, "value": value, "headers": headers.raw}))
        return
    try:
        match headers.kind:
            case Kind.METRICS:
                yield from of_metrics(headers, _read(decode.metrics, value))
            case Kind.BULK:
                yield from of_bulk(headers, _read(decode.bulk, value))
            case Kind.REGISTER:
                return
    except (RefusedPayload, lenient.MalformedJsonError):
        yield SetAside(Reason.UNREADABLE, "", "", value)


def _read(decoder: Callable[[bytes], P], value: bytes) -> P:
    """Decode a record; one that the gateway could read is read here too, however much stack is in use already."""
    try:
        return decoder(value)
    except lenient.NestedTooDeeplyError:
        usual = sys.getrecursionlimit()
        sys.setrecursionlimit(usual + _MORE_STACK)
        try:
            return decoder(value)
        finally:
            sys.setrecursionlimit(usual)


def of_metrics(headers: Headers, payload: ClientMetrics) -> Iterator[Outcome]:
    """Settle one SDK's window, toggle by toggle."""
    bucket = payload.bucket
    if bucket is None:
        return
    hour = dates.window_hour(dates.parse(bucket.start), dates.parse(bucket.stop))
    environment = headers.environment
    if environment == ANY_ENVIRONMENT:
        environment = payload.environment or DEFAULT_ENVIRONMENT
    scope = _Scope(
        project=headers.project,
        environment=environment,
        hour=hour,
        app_name=payload.app_name,
        platform=payload.platform_name or "",
        sdk_type=SdkType.CLIENT if headers.route.startswith(FRONTEND_ROUTE_PREFIX) else SdkType.SERVER,
    )
    fault = _fault_of_scope(scope)
    if fault is not None:
        toggles = {name: toggle for name, toggle in bucket.toggles.items() if _says_something(toggle)}
        if toggles:
            whole = msgspec.structs.replace(payload, bucket=msgspec.structs.replace(bucket, toggles=toggles))
            yield SetAside(fault, payload.app_name[:MAX_NAME], "", _encode(whole))
        return
    aside: list[_Piece[tuple[str, Toggle]]] = []
    for name, toggle in bucket.toggles.items():
        if not _says_something(toggle):
            continue
        wrong = _fault_of_name(name)
        if wrong is not None:
            aside.append(_Piece(wrong, scope.app_name, name[:MAX_NAME], (name, toggle)))
            continue
        faulty: _FaultyVariants = {}
        yield from _counts(scope, name, toggle.yes, toggle.no, toggle.variants, faulty)
        for why, variants in faulty.items():
            aside.append(_Piece(why, scope.app_name, name, (name, Toggle(variants=variants))))
    yield from _set_aside(aside, lambda parts: _window_of(scope, bucket, dict(parts)))


def of_bulk(headers: Headers, payload: BulkMetrics) -> Iterator[Outcome]:
    """Settle what an Edge gathered, entry by entry."""
    aside: list[_Piece[BulkMetric]] = []
    for entry in payload.metrics:
        if not (entry.yes or entry.no or any(entry.variants.values())):
            continue
        scope, fault = _scope_of_entry(headers, entry)
        fault = fault or _fault_of_name(entry.feature_name)
        if scope is None or fault is not None:
            reason = fault or Reason.NO_TIMESTAMP
            aside.append(_Piece(reason, entry.app_name[:MAX_NAME], entry.feature_name[:MAX_NAME], entry))
            continue
        faulty: _FaultyVariants = {}
        yield from _counts(scope, entry.feature_name, entry.yes, entry.no, entry.variants, faulty)
        for why, variants in faulty.items():
            aside.append(_Piece(why, entry.app_name, entry.feature_name, _entry_of(entry, variants)))
    yield from _set_aside(aside, lambda parts: _encode(BulkMetrics(applications=[], metrics=parts)))


class _Piece(NamedTuple, Generic[P]):
    """A part of a payload that is set aside, and what the table says of it."""

    reason: Reason
    app_name: str
    feature: str
    part: P


_FaultyVariants = dict[Reason, dict[str, int]]


def _set_aside(pieces: list[_Piece[P]], write: Callable[[list[P]], bytes]) -> Iterator[SetAside]:
    """Give each piece a row of its own, up to a bound; beyond it, those of one reason share a row.

    A row repeats what its window says (app, platform), so a body of 2 MiB with 100,000 bad names would become hundreds
    of megabytes, which no insert takes: one bad post must never stop the log.
    """
    for piece in pieces[:OWN_ROWS]:
        yield SetAside(piece.reason, piece.app_name, piece.feature, write([piece.part]))
    shared: dict[Reason, list[P]] = {}
    for piece in pieces[OWN_ROWS:]:
        shared.setdefault(piece.reason, []).append(piece.part)
    for reason, parts in shared.items():
        yield SetAside(reason, "", "", write(parts))


def _counts(
    scope: _Scope, feature: str, yes: int, no: int, variants: dict[str, int] | None, faulty: _FaultyVariants
) -> Iterator[Counted]:
    """Count one flag; variants that cannot be stored are put into `faulty`."""
    if yes or no:
        yield Counted(_key(scope, feature, ""), yes, no, 0)
    if not variants:
        return
    for variant, count in variants.items():
        if not (variant and count):
            continue
        fault = _fault_of_name(variant)
        if fault is None:
            yield Counted(_key(scope, feature, variant), 0, 0, count)
        else:
            faulty.setdefault(fault, {})[variant] = count


def _key(scope: _Scope, feature: str, variant: str) -> EvaluationKey:
    return EvaluationKey(
        scope.project,
        scope.environment,
        feature,
        feature,  # an Unleash flag is its own variable
        variant,
        scope.hour,
        scope.app_name,
        scope.platform,
        scope.sdk_type,
        Source.UNLEASH,
    )


def _scope_of_entry(headers: Headers, entry: BulkMetric) -> tuple[_Scope | None, Reason | None]:
    if headers.environment not in (ANY_ENVIRONMENT, entry.environment):
        return None, Reason.OTHER_ENVIRONMENT
    if isinstance(entry.timestamp, msgspec.UnsetType):
        return None, Reason.NO_TIMESTAMP
    scope = _Scope(
        project=headers.project,
        environment=entry.environment or DEFAULT_ENVIRONMENT,
        hour=dates.instant_hour(dates.parse(entry.timestamp)),
        app_name=entry.app_name,
        platform=entry.platform_name or "",
        sdk_type=SdkType.CLIENT if entry.sdk_type == "frontend" else SdkType.SERVER,
    )
    return scope, _fault_of_scope(scope)


def _fault_of_scope(scope: _Scope) -> Reason | None:
    if not scope.app_name:
        return Reason.EMPTY_APP
    for name in (scope.app_name, scope.environment, scope.platform):
        fault = _fault_of_name(name) if name else None
        if fault is not None:
            return fault
    return None if dates.storable(scope.hour) else Reason.TIME_OUT_OF_RANGE


def _fault_of_name(name: str) -> Reason | None:
    if not name:
        return Reason.EMPTY_FEATURE
    if len(name) > MAX_NAME:
        return Reason.NAME_TOO_LONG
    return Reason.NUL_IN_NAME if "\0" in name else None


def _says_something(toggle: Toggle) -> bool:
    """Java posts windows of zeros all day; a flag that was never asked leaves no trace."""
    return bool(toggle.yes or toggle.no or (toggle.variants and any(toggle.variants.values())))


def _window_of(scope: _Scope, bucket: Bucket, toggles: dict[str, Toggle]) -> bytes:
    """Write a window that holds these toggles and nothing but what decides their rows: no free texts."""
    return _encode(
        ClientMetrics(
            app_name=scope.app_name,
            environment=scope.environment,
            platform_name=scope.platform,
            bucket=msgspec.structs.replace(bucket, toggles=toggles),
        )
    )


def _entry_of(entry: BulkMetric, variants: dict[str, int]) -> BulkMetric:
    """Make an entry that holds these variants and nothing but what decides their rows."""
    return BulkMetric(
        feature_name=entry.feature_name,
        app_name=entry.app_name,
        environment=entry.environment,
        timestamp=entry.timestamp,
        variants=variants,
        platform_name=entry.platform_name,
        sdk_type="frontend" if entry.sdk_type == "frontend" else None,
    )
