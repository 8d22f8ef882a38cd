"""Payload bytes to structs, in two steps: strict and fast, then lenient as the recorded server coerces.

The gateway and the aggregator run this very code, so that what was answered 202 can always be read again.
"""

from collections.abc import Callable
from typing import TypeVar

import msgspec
from msgspec import UnsetType

from schemas import dates, lenient
from schemas.payloads import BulkMetrics, ClientMetrics, Registration

P = TypeVar("P", ClientMetrics, BulkMetrics, Registration)

_strict_metrics = msgspec.json.Decoder(ClientMetrics).decode
_strict_bulk = msgspec.json.Decoder(BulkMetrics).decode
_strict_registration = msgspec.json.Decoder(Registration).decode


def metrics(body: bytes, *, on_lenient: Callable[[], object] | None = None) -> ClientMetrics:
    """Decode one SDK's window.

    Args:
        body: JSON.
        on_lenient: called when only the lenient step could read it; for metrics.

    Raises:
        RefusedPayload: as the recorded server refuses it.
        lenient.MalformedJsonError: not JSON at all.
    """
    return _two_steps(body, _strict_metrics, lenient.metrics, on_lenient)


def bulk(body: bytes, *, on_lenient: Callable[[], object] | None = None) -> BulkMetrics:
    """Decode what an Edge gathered; raises as `metrics` does."""
    return _two_steps(body, _strict_bulk, lenient.bulk, on_lenient)


def registration(body: bytes, *, on_lenient: Callable[[], object] | None = None) -> Registration:
    """Decode an SDK's registration; raises as `metrics` does."""
    return _two_steps(body, _strict_registration, lenient.registration, on_lenient)


def _two_steps(
    body: bytes, strict: Callable[[bytes], P], coerced: Callable[[bytes], P], on_lenient: Callable[[], object] | None
) -> P:
    try:
        payload = strict(body)
        _check_values(payload)
    except (ValueError, RecursionError):  # msgspec's errors, broken UTF-8, dates: the lenient path says what it is
        payload = coerced(body)
        if on_lenient is not None:
            on_lenient()
    return payload


def _check_values(payload: ClientMetrics | BulkMetrics | Registration) -> None:
    match payload:
        case ClientMetrics(bucket=bucket):
            if bucket is not None:
                dates.parse(bucket.start)
                dates.parse(bucket.stop)
        case BulkMetrics(metrics=metrics, applications=applications):
            for entry in metrics:
                if not isinstance(entry.timestamp, UnsetType):
                    dates.parse(entry.timestamp)
            for application in applications:
                if not application.complete:
                    raise ValueError("an application without started or interval")
                if not isinstance(application.started, UnsetType):
                    dates.parse(application.started)
        case Registration(started=started):
            dates.parse(started if isinstance(started, str) else int(started))
