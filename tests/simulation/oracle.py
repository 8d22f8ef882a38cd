"""What the tables must hold: judged from the whole log in order, by plain lists and none of the aggregator's code.

The rules are those of EXACTLY_ONCE.md, 4. A payload's rows come from `schemas.rows`, which has tests of its own.
"""

import json
from collections import Counter
from collections.abc import Iterable
from typing import Any, Final, NamedTuple

import msgspec

from aggregator.ports import Record
from schemas import decode, rows
from schemas.event import Headers, Kind, Unreadable
from schemas.lenient import MalformedJsonError
from schemas.limits import COUNT_MODULUS
from schemas.payloads import ClientMetrics, Toggle
from schemas.refusal import RefusedPayload
from schemas.rows import Counted, Outcome

_QUARTER_MS: Final = 15 * 60 * 1000
_MINUTE_MS: Final = 60 * 1000
_HELD: Final = 4
"""Windows of one connection that are compared."""


class Judged(NamedTuple):
    """What one record must leave in the tables: sums by key and column, and rejected rows by their number."""

    sums: Counter[tuple[object, ...]]
    rejected: int


class _Seen(NamedTuple):
    time: int
    headers: Headers


class _Held(NamedTuple):
    time: int
    start: int
    bucket: dict[str, Any]
    whole: ClientMetrics


def judge(records: Iterable[Record]) -> dict[int, Judged]:
    """Judge the records of one partition, in the order of the log."""
    judged: dict[int, Judged] = {}
    seen: list[_Seen] = []
    windows: dict[tuple[str, str, str], list[_Held]] = {}
    now = 0
    for record in records:
        now = max(now, record.log_time)
        headers = record.headers
        if isinstance(headers, Unreadable):
            judged[record.offset] = _judged(rows.of_record(headers, record.value))
            continue
        addition = _addition(windows, headers, record.value, now)
        if _is_repeat(seen, headers, now):
            judged[record.offset] = _judged(())
        elif addition is not None:
            judged[record.offset] = _judged(rows.of_metrics(headers, addition))
        else:
            judged[record.offset] = _judged(rows.of_record(headers, record.value))
        seen.append(_Seen(now, headers))
    return judged


def _is_repeat(seen: list[_Seen], mine: Headers, now: int) -> bool:
    lasts = {Kind.METRICS: _QUARTER_MS if mine.connection else 0, Kind.BULK: _MINUTE_MS}.get(mine.kind, 0)
    for time, theirs in seen:
        if theirs.token_id != mine.token_id:
            continue
        if mine.idempotency_key and theirs.idempotency_key == mine.idempotency_key and now - time < _QUARTER_MS:
            return True
        same = (theirs.route, theirs.connection, theirs.body_hash) == (mine.route, mine.connection, mine.body_hash)
        if same and now - time < lasts:
            return True
    return False


def _addition(
    windows: dict[tuple[str, str, str], list[_Held]], headers: Headers, value: bytes, now: int
) -> ClientMetrics | None:
    """Say what a window of an SDK that sends counts again adds; None where all of it counts."""
    sdk, _, version = headers.sdk.partition(":")
    known = sdk in {"unleash-node-sdk", "unleash-client-node", "unleash-go-sdk", "unleash-client-go"}
    if not known or headers.kind is not Kind.METRICS or not headers.connection or headers.start is None:
        return None
    with_variants = "node" in sdk or int(version.split(".")[0]) >= 6
    try:
        mine = _Held(now, headers.start, json.loads(value)["bucket"], decode.metrics(value))
    except (ValueError, RefusedPayload, MalformedJsonError):
        return None
    held = windows.setdefault((headers.route, headers.token_id, headers.connection), [])
    held[:] = [each for each in held if now - each.time < _QUARTER_MS]
    same = [each for each in held if each.start == mine.start]
    related = [each for each in same if _holds(mine, each, with_variants) or _holds(each, mine, with_variants)]
    held[:] = [each for each in held if each not in same or not _holds(mine, each, with_variants)][-_HELD + 1 :]
    held.append(mine)
    return _less(mine.whole, [each.whole for each in related], with_variants) if related else None


def _holds(large: _Held, small: _Held, with_variants: bool) -> bool:
    if large.whole.app_name != small.whole.app_name or large.bucket["stop"] < small.bucket["stop"]:
        return False
    for name, less in small.bucket["toggles"].items():
        more = large.bucket["toggles"].get(name, {})
        if more.get("yes", 0) < less.get("yes", 0) or more.get("no", 0) < less.get("no", 0):
            return False
        if with_variants and any(
            more.get("variants", {}).get(variant, 0) < count for variant, count in less.get("variants", {}).items()
        ):
            return False
    return True


def _less(mine: ClientMetrics, theirs: list[ClientMetrics], with_variants: bool) -> ClientMetrics:
    assert mine.bucket is not None
    toggles = {}
    for name, toggle in mine.bucket.toggles.items():
        others = [each.bucket.toggles[name] for each in theirs if each.bucket and name in each.bucket.toggles]
        toggles[name] = Toggle(
            max(0, toggle.yes - max((other.yes for other in others), default=0)),
            max(0, toggle.no - max((other.no for other in others), default=0)),
            {
                variant: max(
                    0,
                    count
                    - max(((other.variants or {}).get(variant, 0) for other in others if with_variants), default=0),
                )
                for variant, count in (toggle.variants or {}).items()
            },
        )
    return msgspec.structs.replace(mine, bucket=msgspec.structs.replace(mine.bucket, toggles=toggles))


def _judged(outcomes: Iterable[Outcome]) -> Judged:
    sums: Counter[tuple[object, ...]] = Counter()
    rejected = 0
    for outcome in outcomes:
        if isinstance(outcome, Counted):
            for name, many in (("yes", outcome.yes), ("no", outcome.no), ("count", outcome.other)):
                if many:
                    sums[(*outcome.key, name)] = (sums[(*outcome.key, name)] + many) % COUNT_MODULUS
        else:
            rejected += 1
    return Judged(sums, rejected)
