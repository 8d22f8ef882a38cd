"""Scripted SDKs, as the reference describes them: what they post, and what they truly counted."""

import json
from collections import Counter
from collections.abc import Callable, Iterable
from datetime import UTC, datetime, timedelta

from aggregator.ports import Record
from schemas import rows
from schemas.event import Headers, body_hash
from schemas.payloads import ClientMetrics
from schemas.rows import Counted
from tests.aggregator.fakes import headers

Toggles = dict[str, tuple[int, int, dict[str, int] | None]]
"""Yes, no and variants of each flag."""

Counts = Counter[tuple[str, str, str]]
"""By flag, variant ('' for the flag itself) and what was counted: yes, no or count."""

NODE = "unleash-node-sdk:6.12.1"
GO_6 = "unleash-go-sdk:6.4.0"
GO_5 = "unleash-go-sdk:5.1.0"

_NOON = datetime(2026, 11, 22, 12, tzinfo=UTC)


def instant(seconds: float) -> str:
    """Write the instant so many seconds after noon."""
    return f"{(_NOON + timedelta(seconds=seconds)).isoformat(timespec='milliseconds').removesuffix('+00:00')}Z"


def nanoseconds(seconds: float) -> int:
    return int((_NOON + timedelta(seconds=seconds)).timestamp()) * 1_000_000_000


def body(
    toggles: Toggles,
    *,
    start: float = 0,
    stop: float = 60,
    app: str = "shop",
    environment: str | None = None,
    platform: str = "node",
) -> bytes:
    payload = {
        "appName": app,
        "platformName": platform,
        "bucket": {
            "start": instant(start),
            "stop": instant(stop),
            "toggles": {
                flag: {"yes": yes, "no": no, "variants": variants} for flag, (yes, no, variants) in toggles.items()
            },
        },
    }
    return json.dumps(payload | ({"environment": environment} if environment else {})).encode()


def post(
    value: bytes,
    *,
    at: float = 0,
    sdk: str = NODE,
    connection: str = "c-1",
    start: float | None = 0,
    **changes: object,
) -> Record:
    """Make the record of a post that was appended `at` seconds after noon; its position is set by `in_order`."""
    known: dict[str, object] = {"body_hash": body_hash(value), "sdk": sdk, "connection": connection}
    known["start"] = None if start is None else nanoseconds(start)
    return Record(0, nanoseconds(at) // 1_000_000, headers(**(known | changes)), value)


def in_order(records: Iterable[Record]) -> list[Record]:
    return [record._replace(offset=at) for at, record in enumerate(records)]


def counts_of(value: bytes) -> Counts:
    return _sum(rows.of_record(headers(), value))


def counts_of_payload(said: Headers, payload: ClientMetrics) -> Counts:
    return _sum(rows.of_metrics(said, payload))


def _sum(outcomes: Iterable[rows.Outcome]) -> Counts:
    counts: Counts = Counter()
    for outcome in outcomes:
        if not isinstance(outcome, Counted):
            continue
        for what, many in (("yes", outcome.yes), ("no", outcome.no), ("count", outcome.other)):
            if many:
                counts[outcome.key.feature, outcome.key.variant, what] += many
    return counts


class MergingSdk:
    """Counts, posts each window, and merges one whose post failed into the next: Node, and Go by its version."""

    def __init__(self, *, sdk: str = NODE, connection: str = "c-1", variants: bool = True) -> None:
        self.truth: Counts = Counter()
        self.posted: list[Record] = []
        self._sdk = sdk
        self._connection = connection
        self._merges_variants = variants
        self._start = 0.0
        self._toggles: Toggles = {}
        self._merged: Toggles = {}

    @property
    def settled(self) -> bool:
        """Nothing waits to be posted."""
        return not (self._toggles or self._merged)

    def count(self, flag: str, *, yes: int = 0, no: int = 0, variant: str = "") -> None:
        """Answer a flag so many times."""
        known = self._toggles.get(flag, (0, 0, {}))
        variants = dict(known[2] or {})
        if variant:
            variants[variant] = variants.get(variant, 0) + yes + no
            self.truth[flag, variant, "count"] += yes + no
        self._toggles[flag] = (known[0] + yes, known[1] + no, variants)
        self.truth[flag, "", "yes"] += yes
        self.truth[flag, "", "no"] += no
        self.truth += Counter()  # without zeros

    def post(self, now: float, deliver: Callable[[Record], bool]) -> None:
        """Post what was counted; `deliver` says whether it looked like a success."""
        window, start = self._window(), self._start
        if not window:
            return
        record = post(
            body(window, start=start, stop=now), at=now, sdk=self._sdk, connection=self._connection, start=start
        )
        self.posted.append(record)
        self._toggles, self._merged = {}, {}
        if deliver(record):
            self._start = now
        else:
            self._merged = (
                window if self._merges_variants else {flag: (yes, no, {}) for flag, (yes, no, _) in window.items()}
            )

    def _window(self) -> Toggles:
        window = dict(self._merged)
        for flag, (yes, no, variants) in self._toggles.items():
            before = window.get(flag, (0, 0, {}))
            merged = Counter(before[2] or {}) + Counter(variants or {})
            window[flag] = (before[0] + yes, before[1] + no, dict(merged))
        return window
