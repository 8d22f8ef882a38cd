"""What gateways append: windows of several SDKs, bulk, nonsense; and whatever comes twice (EXACTLY_ONCE.md, 4).

Each post counts a flag of its own besides a shared one, so that no count can stand for another.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from random import Random
from typing import Final, NamedTuple

from schemas import event
from schemas.event import Headers, Kind, Unreadable

_SDKS: Final = (
    "unleash-node-sdk:6.12.1",
    "unleash-client-node:5.0.0",
    "unleash-go-sdk:6.4.0",
    "unleash-go-sdk:5.1.0",
    "unleash-client-python:6.0.0",
    "",
)
_START_NS: Final = 1_795_348_800 * 1_000_000_000
_ROUTES: Final = {Kind.METRICS: "/api/client/metrics", Kind.BULK: "/api/client/metrics/bulk"}


class Post(NamedTuple):
    """A request that a gateway appends; `delay` in turns: so many later posts overtake it."""

    sender: int
    headers: Headers | Unreadable
    value: bytes
    delay: int = 0


@dataclass
class _Sdk:
    """One connection: windows, and what of an earlier one is in the next."""

    number: int
    sdk: str
    connection: str
    bulk: bool
    flags: dict[str, tuple[int, int, dict[str, int]]] = field(default_factory=dict)
    start: int = 0
    chain: int = 0


class Posts:
    """Draws posts, one after the other."""

    def __init__(self, dice: Random) -> None:
        self._dice = dice
        self._made = 0
        self._sdks = [self._make(at) for at in range(dice.randint(1, 4))]
        self._recent: list[Post] = []

    def draw(self) -> Iterator[Post]:
        """Draw the next post, and sometimes one that repeats it."""
        dice = self._dice
        if self._recent and dice.random() < 0.15:
            again = dice.choice(self._recent[-4:])
            yield again._replace(delay=0)
            return
        post = self._nonsense() if dice.random() < 0.05 else self._honest(dice.choice(self._sdks))
        self._recent.append(post)
        yield post
        if dice.random() < 0.1:
            yield post._replace(delay=dice.randint(0, 2))

    def _make(self, number: int) -> _Sdk:
        dice = self._dice
        connection = f"c-{number}" if dice.random() < 0.8 else ""
        return _Sdk(number, dice.choice(_SDKS), connection, bulk=dice.random() < 0.2)

    def _nonsense(self) -> Post:
        self._made += 1
        value = b"{nonsense %d" % self._made
        if self._dice.random() < 0.3:
            return Post(0, Unreadable(b"raw", "headers: broken"), value)
        return Post(0, self._headers(Kind.METRICS, value, "", "", None, ""), value)

    def _honest(self, sdk: _Sdk) -> Post:
        dice = self._dice
        self._made += 1
        flag = f"f{self._made}"
        yes, no = dice.randint(0, 9), dice.randint(1, 5)
        shared = sdk.flags.get("shared", (0, 0, {}))
        sdk.flags["shared"] = (shared[0] + 1, shared[1], {})
        sdk.flags[flag] = (yes, no, {"blue": yes} if yes and dice.random() < 0.5 else {})
        if dice.random() < 0.05:
            sdk.flags[""] = (1, 0, {})
        key = f"key-{self._made}" if dice.random() < 0.15 else ""
        stop = self._made * 60
        if sdk.bulk:
            value = self._bulk(sdk)
            headers = self._headers(Kind.BULK, value, sdk.connection, sdk.sdk, None, key)
        else:
            value = self._window(sdk, stop)
            start = _START_NS + sdk.start * 1_000_000_000
            headers = self._headers(Kind.METRICS, value, sdk.connection, sdk.sdk, start, key)
        if sdk.chain < 2 and dice.random() < 0.35:
            sdk.chain += 1  # the post seemed to fail: the next one holds all of this, too
            if dice.random() < 0.3:
                sdk.flags.pop("", None)
        else:
            sdk.chain, sdk.start, sdk.flags = 0, stop, {}
        return Post(sdk.number, headers, value, delay=1 if dice.random() < 0.1 else 0)

    def _headers(self, kind: Kind, value: bytes, connection: str, sdk: str, start: int | None, key: str) -> Headers:
        return Headers(
            kind=kind,
            route=_ROUTES[kind],
            project="default",
            environment="development",
            token_id="0123456789abcdef",
            received_ms=0,
            body_hash=event.body_hash(value),
            connection=connection,
            sdk=sdk,
            start=start,
            idempotency_key=key,
        )

    def _window(self, sdk: _Sdk, stop: int) -> bytes:
        toggles = ",".join(
            f'"{name}":{{"yes":{yes},"no":{no}{_variants(variants)}}}'
            for name, (yes, no, variants) in sdk.flags.items()
        )
        # Milliseconds: the bodies of two windows never differ by anything but what they count and when.
        start_ms = _START_NS // 1_000_000 + sdk.start * 1000
        stop_ms = _START_NS // 1_000_000 + stop * 1000
        return (
            f'{{"appName":"app-{sdk.number}","bucket":{{"start":{start_ms},"stop":{stop_ms},"toggles":{{{toggles}}}}}}}'
        ).encode()

    def _bulk(self, sdk: _Sdk) -> bytes:
        entries = ",".join(
            f'{{"featureName":"{name}","appName":"app-{sdk.number}","environment":"development",'
            f'"timestamp":"2026-11-22T12:00:00Z","yes":{yes},"no":{no}{_variants(variants)}}}'
            for name, (yes, no, variants) in sdk.flags.items()
        )
        return f'{{"applications":[],"metrics":[{entries}]}}'.encode()


def _variants(variants: dict[str, int]) -> str:
    if not variants:
        return ""
    return ',"variants":{' + ",".join(f'"{name}":{count}' for name, count in variants.items()) + "}"
