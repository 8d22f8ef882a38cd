"""Why a request is not taken, in the shapes of the recorded server's errors.

Two exceptions, by what the sender should do: `Refused` is final for this request, `Busy` means that it may come again.
"""

import json
import uuid
from typing import Any, Final

import msgspec

from schemas.refusal import Check, RefusedPayload

_INVALID: Final = (
    "Request validation failed: your request body or params contain invalid data. "
    "Refer to the `details` list for more information."
)
_LONGEST_SHOWN: Final = 200


def _json(document: dict[str, Any]) -> bytes:
    try:
        return msgspec.json.encode(document)
    except UnicodeEncodeError:  # bytes of a header or a path that are not UTF-8
        return json.dumps(msgspec.to_builtins(document)).encode()


class Refused(Exception):  # noqa: N818 - what it is, not that it failed
    """The request itself is at fault; it would be refused again.

    Attributes:
        status: of the answer: 4xx, or 5xx where the server behind the gateway has its part in it.
        body: of the answer: JSON, or empty.
    """

    def __init__(self, status: int, body: bytes) -> None:
        super().__init__(status)
        self.status = status
        self.body = body

    @classmethod
    def with_message(cls, status: int, message: str) -> "Refused":
        """Make one whose body is `{"message": …}`."""
        return cls(status, _json({"message": message}))


class Busy(Exception):  # noqa: N818 - a state, not an error of the sender
    """The gateway cannot take it now: 503 with `Retry-After`, never a 4xx, which ends metrics for good in some SDKs.

    Attributes:
        reason: one word for the metric.
        cut: the connection is not worth keeping: close it right after the answer.
    """

    def __init__(self, reason: str, *, cut: bool = False) -> None:
        super().__init__(reason)
        self.reason = reason
        self.cut = cut


def of_payload(refused: RefusedPayload, *, silent: bool) -> Refused:
    """Shape a payload's refusal.

    Args:
        refused: by the decoder.
        silent: this route's second validator answers nothing but the status: metrics from servers and Edges do.
    """
    if refused.check is Check.SCHEMA:
        return _bad_data({"id": str(uuid.uuid4())}, refused)
    return Refused(400, b"") if silent else _bad_data({}, refused)


def _bad_data(identity: dict[str, Any], refused: RefusedPayload) -> Refused:
    return Refused(400, _json({**identity, "name": "BadDataError", "message": _INVALID, "details": refused.details}))


def content_type(given: str | None) -> Refused:
    """Refuse a content type that is not JSON (415)."""
    sent = given[:_LONGEST_SHOWN] if given else "you didn't provide one"
    return _named(
        415,
        "ContentTypeError",
        f"We do not accept the content-type you provided ({sent}). "
        "Try using one of the content-types we do accept instead (application/json) and make sure the body is in the "
        "corresponding format.",
    )


def not_found(path: str) -> Refused:
    """Refuse a path that is not ours, or a verb that it does not take (404)."""
    return _named(404, "NotFoundError", f"The path you were looking for ({path[:_LONGEST_SHOWN]}) is not available.")


def _named(status: int, name: str, message: str) -> Refused:
    document = {"id": str(uuid.uuid4()), "name": name, "message": message, "details": [{"message": message}]}
    return Refused(status, _json(document))


def loop() -> Refused:
    """Refuse what a gateway has passed on already: this one would pass it on again, maybe to itself (508)."""
    return _named(508, "LoopDetectedError", "A gateway of flagmeter has passed this on already.")


def unknown_transfer_coding() -> Refused:
    """Refuse a body in a transfer coding other than chunks (501)."""
    return _named(501, "NotImplementedError", "The only transfer coding that passes is chunked.")


def server_away() -> Refused:
    """Say that the server behind the gateway cannot be reached (502)."""
    return _named(502, "BadGatewayError", "The Unleash server behind this gateway cannot be reached.")


def server_late() -> Refused:
    """Say that the server behind the gateway does not answer in time (504)."""
    return _named(504, "GatewayTimeoutError", "The Unleash server behind this gateway does not answer in time.")


def too_large() -> Refused:
    """Refuse a body above the limit (413)."""
    return Refused.with_message(413, "request entity too large")
