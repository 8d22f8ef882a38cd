"""Payloads to rows, one by one: what is counted, under which key, and what is set aside and why.

Pure functions under `schemas.limits.RULES`. A bad row never costs its neighbours. What comes out depends on the
record alone, so that a batch that is settled again gives the same rows.
"""

from collections.abc import Iterator
from enum import StrEnum
from typing import NamedTuple

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
                yield from of_metrics(headers, decode.metrics(value))
            case Kind.BULK:
                yield from of_bulk(headers, decode.bulk(value))
            case Kind.REGISTER:
                return
    except (RefusedPayload, lenient.MalformedJsonError):
        yield SetAside(Reason.UNREADABLE, "", "", value)


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
    for name, toggle in bucket.toggles.items():
        if not _says_something(toggle):
            continue
        wrong = _fault_of_name(name)
        if wrong is not None:
            yield SetAside(wrong, scope.app_name, name[:MAX_NAME], _only(scope, bucket, name, toggle))
            continue
        for outcome in _counts(scope, name, toggle.yes, toggle.no, toggle.variants):
            if isinstance(outcome, Counted):
                yield outcome
            else:
                variant, count, fault = outcome
                part = Toggle(variants={variant: count})
                yield SetAside(fault, scope.app_name, name, _only(scope, bucket, name, part))


def of_bulk(headers: Headers, payload: BulkMetrics) -> Iterator[Outcome]:
    """Settle what an Edge gathered, entry by entry."""
    for entry in payload.metrics:
        if not (entry.yes or entry.no or any(entry.variants.values())):
            continue
        scope, fault = _scope_of_entry(headers, entry)
        fault = fault or _fault_of_name(entry.feature_name)
        if scope is None or fault is not None:
            yield SetAside(
                fault or Reason.NO_TIMESTAMP,
                entry.app_name[:MAX_NAME],
                entry.feature_name[:MAX_NAME],
                _only_entry(entry),
            )
            continue
        for outcome in _counts(scope, entry.feature_name, entry.yes, entry.no, entry.variants):
            if isinstance(outcome, Counted):
                yield outcome
            else:
                variant, count, why = outcome
                yield SetAside(why, entry.app_name, entry.feature_name, _only_variant(entry, variant, count))


class _BadVariant(NamedTuple):
    variant: str
    times: int
    fault: Reason


def _counts(
    scope: _Scope, feature: str, yes: int, no: int, variants: dict[str, int] | None
) -> Iterator[Counted | _BadVariant]:
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
            yield _BadVariant(variant, count, fault)


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


def _only(scope: _Scope, bucket: Bucket, name: str, toggle: Toggle) -> bytes:
    """Write a window that holds one toggle and nothing but what decides its rows.

    The free texts of the payload stay out: a body of 2 MiB could repeat one of a megabyte for 40,000 bad names.
    """
    return _encode(
        ClientMetrics(
            app_name=scope.app_name,
            environment=scope.environment,
            platform_name=scope.platform,
            bucket=msgspec.structs.replace(bucket, toggles={name: toggle}),
        )
    )


def _only_entry(entry: BulkMetric) -> bytes:
    return _encode(BulkMetrics(applications=[], metrics=[entry]))


def _only_variant(entry: BulkMetric, variant: str, count: int) -> bytes:
    """Write an entry that holds one variant, without free texts, as `_only` does."""
    return _only_entry(
        BulkMetric(
            feature_name=entry.feature_name,
            app_name=entry.app_name,
            environment=entry.environment,
            timestamp=entry.timestamp,
            variants={variant: count},
            platform_name=entry.platform_name,
            sdk_type="frontend" if entry.sdk_type == "frontend" else None,
        )
    )
