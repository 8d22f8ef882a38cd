"""A payload that is taken becomes the event that the broker keeps (EXACTLY_ONCE.md, 4)."""

import hashlib
from collections.abc import Callable
from typing import Final

from multidict import CIMultiDictProxy, istr

from ingest_gateway.routing import Route
from schemas import dates, decode
from schemas.event import Event, Headers, Kind, body_hash, partition_key
from schemas.limits import MAX_NAME
from schemas.payload_secrets import without_seen_tokens
from schemas.payloads import ClientMetrics, Registration
from schemas.tokens import Token

_APP: Final = istr("unleash-appname")
_CONNECTION: Final = istr("unleash-connection-id")
_SDK: Final = istr("unleash-sdk")
_IDEMPOTENCY_KEY: Final = istr("Idempotency-Key")
_START_BOUND: Final = 2**63
"""Nanoseconds that a header holds: an SDK whose clock says the year 9999 counts all the same."""


def accept(
    route: Route,
    kind: Kind,
    token: Token,
    sent: CIMultiDictProxy[str],
    body: bytes,
    *,
    received_ms: int,
    on_lenient: Callable[[], object] | None = None,
) -> Event:
    """Check a payload and make its event.

    Args:
        route: that it was posted to.
        kind: of the route's payloads.
        token: whose it is; decides project and environment, where `*` stays for the rows to resolve.
        sent: the request's headers.
        body: JSON, after decompression.
        received_ms: the clock, milliseconds since the epoch.
        on_lenient: called when only the lenient decoder could read it.

    Raises:
        RefusedPayload: as the recorded server refuses it.
        lenient.MalformedJsonError: not JSON.
    """
    start: int | None = None
    connection = sdk = ""
    match kind:
        case Kind.METRICS:
            window = decode.metrics(body, on_lenient=on_lenient)
            if window.bucket is not None:
                start = dates.parse(window.bucket.start)
                if not -_START_BOUND <= start < _START_BOUND:
                    start = None
            app, connection, sdk = _said_by(window)
        case Kind.REGISTER:
            app, connection, sdk = _said_by(decode.registration(body, on_lenient=on_lenient))
        case Kind.BULK:
            decode.bulk(body, on_lenient=on_lenient)
            app = sent.get(_APP, "")
    headers = Headers(
        kind=kind,
        route=route.path,
        project=token.project,
        environment=token.environment,
        token_id=token.id,
        received_ms=received_ms,
        body_hash=body_hash(body),
        connection=_identity(connection or sent.get(_CONNECTION, "")),
        sdk=_text(sent.get(_SDK, "") or sdk),
        start=start,
        idempotency_key=_identity(sent.get(_IDEMPOTENCY_KEY, "")),
    )
    return Event(partition_key(headers, app=app[:MAX_NAME]), headers, without_seen_tokens(body))


def _said_by(payload: ClientMetrics | Registration) -> tuple[str, str, str]:
    return payload.app_name, payload.connection_id or "", payload.sdk_version or ""


def _identity(value: str) -> str:
    """Bound a value that tells one sender or post from another: two different ones stay different."""
    if len(value) <= MAX_NAME and value.isascii() and "\0" not in value:
        return value
    raw = value.encode("utf-8", "surrogatepass")
    try:
        if len(value) <= MAX_NAME and b"\0" not in raw and raw.decode() == value:
            return value
    except UnicodeDecodeError:  # bytes of a header that are not UTF-8
        pass
    return f"sha256:{hashlib.sha256(raw).hexdigest()}"


def _text(value: str) -> str:
    """Bound a value that is only read by people and by a table of names."""
    if len(value) <= MAX_NAME and value.isascii() and "\0" not in value:
        return value
    return value[:MAX_NAME].replace("\0", "").encode("utf-8", "replace").decode()
