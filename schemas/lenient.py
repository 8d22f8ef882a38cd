"""The lenient path of the decoder: whatever the recorded server takes, coerced into the structs of the strict path.

One table for each struct says how its fields are taken; the rules stand in `schemas.coerce`. Accepts more than the
recorded server where the specification does (a `note` in its rows), and coerces like it everywhere else.
"""

import json
from collections.abc import Callable
from typing import Any, Final, NoReturn, TypeVar

from schemas import coerce, payloads
from schemas.coerce import entries, items, optional, record, text
from schemas.complaint import Place
from schemas.edge_tokens import MAX_ASKED, TokensAsked
from schemas.payloads import BulkMetrics, ClientMetrics, Registration

P = TypeVar("P")

_SAFE_DIGITS: Final = 16
"""Integers of at most so many digits are kept exact; JavaScript reads all others as doubles, and so do we."""


class MalformedJsonError(ValueError):
    """The body is not JSON at all."""


class NestedTooDeeplyError(MalformedJsonError):
    """Nested more deeply than the stack of whoever asks has room for: another may read it."""


_maybe_text = optional(text)

# What every single payload and every registration says of its SDK.
_sdk = {
    "environment": _maybe_text,
    "instance_id": _maybe_text,
    "connection_id": _maybe_text,
    "platform_name": _maybe_text,
    "platform_version": _maybe_text,
    "yggdrasil_version": _maybe_text,
    "spec_version": _maybe_text,
    "sdk_flavor": optional(coerce.limited(at_most=payloads.MAX_FLAVOR)),
    "sdk_flavor_version": optional(coerce.limited(at_most=payloads.MAX_FLAVOR_VERSION)),
}

_metrics = record(
    ClientMetrics,
    **_sdk,
    app_name=coerce.limited(at_least=1),
    sdk_version=_maybe_text,
    bucket=optional(
        record(
            payloads.Bucket,
            start=coerce.moment,
            stop=coerce.moment,
            toggles=entries(
                record(
                    payloads.Toggle,
                    yes=coerce.rounded,
                    no=coerce.whole,
                    variants=optional(entries(coerce.whole)),
                )
            ),
        )
    ),
)

_registration = record(
    Registration,
    **_sdk,
    app_name=coerce.limited(at_least=1),
    interval=coerce.positive,
    started=coerce.moment_or_number,
    strategies=coerce.strings_only,
    sdk_version=coerce.filled,
)

# The recorded server looks at no descriptive field of an entry, so none of them may cost a whole post.
_bulk_metric = record(
    payloads.BulkMetric,
    feature_name=text,
    app_name=text,
    environment=coerce.filled,
    timestamp=coerce.moment,
    yes=coerce.whole,
    no=coerce.whole,
    variants=entries(coerce.whole),
    sdk_version=coerce.remark,
    sdk_type=coerce.remark,
    yggdrasil_version=coerce.remark,
    platform_name=coerce.remark,
    platform_version=coerce.remark,
    sdk_flavor=coerce.remark,
    sdk_flavor_version=coerce.remark,
)

_application_fields = record(
    payloads.Application,
    app_name=text,
    interval=coerce.number,
    started=coerce.moment,
    strategies=coerce.strings_only,
    instance_id=_maybe_text,
    connection_id=_maybe_text,
    environment=_maybe_text,
    projects=optional(items(text)),
    connect_via=optional(items(record(payloads.ConnectVia, app_name=text, instance_id=text))),
    sdk_version=_maybe_text,
    sdk_type=optional(coerce.one_of_words("frontend", "backend")),
    yggdrasil_version=_maybe_text,
    platform_name=_maybe_text,
    platform_version=_maybe_text,
    spec_version=_maybe_text,
    sdk_flavor=_maybe_text,
    sdk_flavor_version=_maybe_text,
)


def _application(value: Any, place: Place) -> payloads.Application:
    taken = _application_fields(value, place)
    if not taken.complete:
        place.doubt('needs "started" and "interval".')
    return taken


_labels = optional(entries(text))
_numeric_samples = items(record(payloads.NumericSample, value=coerce.number, labels=_labels))
_histogram_samples = items(
    record(
        payloads.HistogramSample,
        count=coerce.whole,
        sum=coerce.number,
        buckets=items(
            record(
                payloads.HistogramBucket,
                le=lambda value, place: value if value == payloads.ENDLESS else coerce.number(value, place),
                count=coerce.whole,
            )
        ),
        labels=_labels,
    )
)
_impact_metric = coerce.either(
    coerce.tagged(
        {
            "counter": record(payloads.Counter, name=text, help=text, samples=_numeric_samples),
            "gauge": record(payloads.Gauge, name=text, help=text, samples=_numeric_samples),
        }
    ),
    coerce.tagged({"histogram": record(payloads.Histogram, name=text, help=text, samples=_histogram_samples)}),
)


def _forgotten(value: Any, place: Place) -> payloads.Forgotten:
    if not isinstance(value, list):
        raise place.refusal("be array", value, secret=True)
    return payloads.Forgotten()


_bulk = record(
    BulkMetrics,
    applications=items(_application),
    metrics=items(_bulk_metric),
    impact_metrics=optional(items(_impact_metric)),
    seen_tokens=_forgotten,
)


def _tokens(value: Any, place: Place) -> list[str]:
    if not isinstance(value, list):
        raise place.refusal("be array", value, secret=True)
    if len(value) > MAX_ASKED:
        raise place.refusal(f"NOT have more than {MAX_ASKED} items", value)
    return [text(item, place.at(str(at))) for at, item in enumerate(value)]


_tokens_asked = record(TokensAsked, tokens=_tokens)


def metrics(body: bytes) -> ClientMetrics:
    """Read one SDK's window.

    Raises:
        RefusedPayload: as the recorded server refuses it.
        MalformedJsonError: not JSON at all.
    """
    return _read(_metrics, body)


def bulk(body: bytes) -> BulkMetrics:
    """Read what an Edge gathered; raises as `metrics` does."""
    return _read(_bulk, body)


def registration(body: bytes) -> Registration:
    """Read an SDK's registration; raises as `metrics` does."""
    return _read(_registration, body)


def tokens_asked(body: bytes) -> TokensAsked:
    """Read the question which of these tokens exist; raises as `metrics` does, and repeats no token."""
    return _read(_tokens_asked, body)


def text_of(body: bytes) -> str:
    """Decode a body as the recorded server does: UTF-8, U+FFFD for what is none, without a byte order mark."""
    return body.decode("utf-8", "replace").removeprefix("\ufeff")


def _read(rule: Callable[[Any, Place], P], body: bytes) -> P:
    root = Place("body")
    payload = rule(_parse(text_of(body)), root)
    root.settle()
    return payload


def _parse(document: str) -> Any:
    if not document:
        return {}
    try:
        return DECODER.decode(document)
    except json.JSONDecodeError as error:
        raise MalformedJsonError(malformation(document, error)) from None
    except RecursionError:
        raise NestedTooDeeplyError("JSON is nested too deeply") from None


def malformation(document: str, error: json.JSONDecodeError) -> str:
    """Say what is wrong with a document, without repeating any of it."""
    if error.pos >= len(document.rstrip()):
        return "Unexpected end of JSON input"
    return f"Unexpected token in JSON at position {error.pos}"


def _integer(digits: str) -> int | float:
    return int(digits) if len(digits) <= _SAFE_DIGITS + digits.startswith("-") else float(digits)


def _no_constant(name: str) -> NoReturn:
    raise json.JSONDecodeError(f"{name} is not JSON", "", 0)


DECODER: Final = json.JSONDecoder(parse_int=_integer, parse_constant=_no_constant)
"""Reads what JavaScript's `JSON.parse` reads; lone surrogates are left in for `complaint.clean`."""
