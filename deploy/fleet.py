"""A synthetic fleet of SDKs: its payloads, and exactly what each of them counts. Pure: the same fleet, the same bytes.

Payload `k` depends on the fleet's own values and on `k` alone, so any part of a run can be computed again later, in
another process, in any order.
"""

import random
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Final, NamedTuple

import msgspec

_HOUR: Final = 3600
_MS_PER_HOUR: Final = 3_600_000
_WINDOW_MS: Final = 60_000
_LAST_START_MS: Final = _MS_PER_HOUR - _WINDOW_MS
_LARGEST_COUNT: Final = 50
_MOST_TOGGLES: Final = 20
_SDKS: Final = (
    ("unleash-client-python:6.3.0", "python", "3.12.4"),
    ("unleash-client-java:11.1.0", "java", "21"),
    ("unleash-node-sdk:6.6.0", "node", "22.11.0"),
    ("unleash-client-go:6.0.0", "go", "1.24"),
)

METRICS_ROUTE: Final = "/api/client/metrics"
BULK_ROUTE: Final = "/api/client/metrics/bulk"


class Key(NamedTuple):
    """What the store keeps apart: the flag, its variant ('' for the flag itself), the hour (epoch seconds), the app."""

    flag: str
    variant: str
    hour: int
    app: str


class Counts(NamedTuple):
    """What is counted under a key: yes and no where the variant is empty, else how often the variant was given.

    `given` stands in the column `count` of the store.
    """

    yes: int
    no: int
    given: int


class Payload(NamedTuple):
    """One post of the fleet.

    Attributes:
        number: which one, from 0.
        route: the path to post to.
        headers: beside `Authorization`.
        body: JSON.
        counts: what it adds, each key once.
    """

    number: int
    route: str
    headers: dict[str, str]
    body: bytes
    counts: dict[Key, Counts]


class _Window(NamedTuple):
    hour: int
    start_ms: int
    stop_ms: int
    toggles: dict[str, tuple[int, int, dict[str, int]]]


@dataclass(frozen=True, slots=True)
class Fleet:
    """Who posts, and about what.

    Attributes:
        seed: of everything; also part of the apps' names, so that runs do not mix in the store.
        end_hour: the latest hour that windows lie in, in epoch seconds.
        apps: applications.
        instances: of each application; each has a connection of its own.
        flags: of which a payload reports at most 20.
        variants: of every second flag.
        hours: how many hours windows are spread over, `end_hour` included.
        bulk_share: the share of posts, 0 to 1, that come as an Edge sends them.
        environment: in bulk entries; must be the token's.
    """

    seed: int
    end_hour: int
    apps: int = 4
    instances: int = 25
    flags: int = 20
    variants: int = 3
    hours: int = 24
    bulk_share: float = 0.0
    environment: str = "development"

    @property
    def name(self) -> str:
        """Begin the name of each of its apps with this."""
        return f"fleet-{self.seed}"

    def payload(self, number: int) -> Payload:
        """Make one payload.

        The windows of one connection all start at different times, and no two payloads are equal: SDKs that repeat a
        window are recognised by these.

        Args:
            number: which one, from 0.
        """
        dice = random.Random(f"{self.seed}/{number}")  # noqa: S311 - a repeatable fleet, no secret
        app_number, rest = number % self.apps, number // self.apps
        instance, turn = rest % self.instances, rest // self.instances
        app = f"{self.name}-app-{app_number + 1:02}"
        connection = f"{self.name}-{app_number + 1:02}-{instance + 1:04}"
        window = self._window(dice, turn)
        counts = _counts(app, window)
        is_bulk = dice.random() < self.bulk_share
        sdk, platform, platform_version = _SDKS[app_number % len(_SDKS)]
        headers = {
            "Content-Type": "application/json",
            "Unleash-AppName": app,
            "Unleash-InstanceId": f"instance-{instance + 1:04}",
            "Unleash-Connection-Id": connection,
            "Unleash-Sdk": sdk,
        }
        if is_bulk:
            return Payload(number, BULK_ROUTE, headers, self._bulk(app, sdk, window), counts)
        body = {
            "appName": app,
            "instanceId": headers["Unleash-InstanceId"],
            "connectionId": connection,
            "sdkVersion": sdk,
            "platformName": platform,
            "platformVersion": platform_version,
            "bucket": {
                "start": iso(window.start_ms),
                "stop": iso(window.stop_ms),
                "toggles": {
                    flag: {"yes": yes, "no": no, "variants": variants}
                    for flag, (yes, no, variants) in window.toggles.items()
                },
            },
        }
        return Payload(number, METRICS_ROUTE, headers, msgspec.json.encode(body), counts)

    def _window(self, dice: random.Random, turn: int) -> _Window:
        hour = self.end_hour - _HOUR * dice.randrange(self.hours)
        start = hour * 1000 + turn % _LAST_START_MS
        # Some windows end with their hour: the end is exclusive, so they still belong to it.
        stop = (hour + _HOUR) * 1000 if dice.random() < 0.1 else start + _WINDOW_MS  # noqa: PLR2004 - one in ten
        asked = dice.sample(range(self.flags), dice.randint(1, min(self.flags, _MOST_TOGGLES)))
        return _Window(hour, start, stop, {f"flag-{flag + 1:04}": self._answers(dice, flag) for flag in asked})

    def _answers(self, dice: random.Random, flag: int) -> tuple[int, int, dict[str, int]]:
        yes, no = dice.randint(0, _LARGEST_COUNT), dice.randint(0, _LARGEST_COUNT)
        variants: dict[str, int] = {}
        if self.variants and flag % 2:
            left = yes
            for variant in range(self.variants):
                given = left if variant == self.variants - 1 else dice.randint(0, left)
                left -= given
                if given:
                    variants[f"variant-{variant + 1}"] = given
        return yes, no, variants

    def _bulk(self, app: str, sdk: str, window: _Window) -> bytes:
        metrics = [
            {
                "featureName": flag,
                "appName": app,
                "environment": self.environment,
                "timestamp": iso(window.start_ms),
                "yes": yes,
                "no": no,
                "variants": variants,
                "sdkVersion": sdk,
            }
            for flag, (yes, no, variants) in window.toggles.items()
        ]
        return msgspec.json.encode({"applications": [], "metrics": metrics})


@dataclass(slots=True)
class Ledger:
    """Totals of payloads by key: what the store must hold once these are in."""

    totals: dict[Key, Counts] = field(default_factory=dict)

    @classmethod
    def of(cls, payloads: Iterable[Payload]) -> "Ledger":
        """Add up these payloads."""
        ledger = cls()
        for payload in payloads:
            ledger.add(payload)
        return ledger

    def add(self, payload: Payload) -> None:
        """Count one payload."""
        for key, counts in payload.counts.items():
            old = self.totals.get(key, _NOTHING)
            self.totals[key] = Counts(old.yes + counts.yes, old.no + counts.no, old.given + counts.given)

    def by_flag(self) -> dict[str, Counts]:
        """Give the totals of each flag over all hours, apps and variants, in the order of their names."""
        flags: dict[str, Counts] = {}
        for key, counts in sorted(self.totals.items()):
            old = flags.get(key.flag, _NOTHING)
            flags[key.flag] = Counts(old.yes + counts.yes, old.no + counts.no, old.given + counts.given)
        return flags

    def rows(self) -> list[tuple[str, str, str, str, int, int, int]]:
        """Give flag, variant, hour (ISO 8601), app, yes, no and count of each key, in order."""
        return [
            (key.flag, key.variant, iso(key.hour * 1000), key.app, *counts)
            for key, counts in sorted(self.totals.items())
        ]


_NOTHING: Final = Counts(0, 0, 0)


def _counts(app: str, window: _Window) -> dict[Key, Counts]:
    """Give what a window adds: a flag that was never asked leaves no row."""
    counts: dict[Key, Counts] = {}
    for flag, (yes, no, variants) in window.toggles.items():
        if yes or no:
            counts[Key(flag, "", window.hour, app)] = Counts(yes, no, 0)
        for variant, given in variants.items():
            counts[Key(flag, variant, window.hour, app)] = Counts(0, 0, given)
    return counts


def iso(ms: int) -> str:
    """Write an instant (milliseconds since the epoch) as the SDKs do: `2026-11-22T12:00:00.000Z`."""
    moment = datetime.fromtimestamp(ms // 1000, UTC)
    return f"{moment:%Y-%m-%dT%H:%M:%S}.{ms % 1000:03}Z"
