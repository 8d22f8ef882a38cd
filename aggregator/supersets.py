"""Windows that were sent again with more in them: which SDKs do so, and what such a window adds (EXACTLY_ONCE.md, 4).

After a post that failed, or seemed to, some SDKs merge its counts into their next window: the same connection, the
same start, a later stop, larger counts. Pure functions under `schemas.limits.RULES`.
"""

from collections.abc import Iterable
from enum import Enum, auto
from functools import lru_cache
from typing import Final, NamedTuple

import msgspec

from schemas import dates, decode, lenient
from schemas.payloads import Bucket, ClientMetrics, Toggle
from schemas.refusal import RefusedPayload

_ALL_FROM: Final = {
    "unleash-node-sdk": 0,
    "unleash-client-node": 0,
    "unleash-go-sdk": 6,
    "unleash-client-go": 6,
}
"""The SDKs that merge, both by their new and their old name, and the first major version that merges variants, too."""


class Merges(Enum):
    """What an SDK puts into its next window once more."""

    ALL = auto()
    YES_AND_NO = auto()
    """Its variants are always new ones."""


class Addition(NamedTuple):
    """What a window adds to earlier ones of the same connection and start.

    Attributes:
        payload: with nothing in it but what was not counted yet; None where it counts whole.
        covers: which of the earlier windows are contained in it, in their order: it stands for them from now on.
    """

    payload: ClientMetrics | None
    covers: list[bool]


@lru_cache(maxsize=1024)
def merges(sdk: str) -> Merges | None:
    """Look an SDK (`name:version`) up; None where it is not known to send counts twice.

    Only what is known is judged: engines before yggdrasil's fix #219 give every honest window the same start.
    """
    name, _, version = sdk.partition(":")
    since = _ALL_FROM.get(name)
    if not since:
        return None if since is None else Merges.ALL
    major = version.partition(".")[0]
    if not (major.isascii() and major.isdigit()):
        return None
    return Merges.ALL if int(major) >= since else Merges.YES_AND_NO


def added(value: bytes, earlier: Iterable[bytes], how: Merges) -> Addition:
    """Say what a window adds to the largest yes, no and variant of those that contain it or are contained in it.

    Args:
        value: the record's.
        earlier: values of windows with the same token, connection and start.
        how: what the SDK merges.
    """
    mine = _read(value)
    theirs = [_read(each) for each in earlier]
    if mine is None:
        return Addition(None, [False] * len(theirs))
    payload, bucket = mine
    covers = [each is not None and _contains(mine, each, how) for each in theirs]
    related = [
        each[1].toggles
        for each, covered in zip(theirs, covers, strict=True)
        if each is not None and (covered or _contains(each, mine, how))
    ]
    toggles = {name: _minus(toggle, name, related, how) for name, toggle in bucket.toggles.items()}
    if toggles == bucket.toggles:
        return Addition(None, covers)
    rest = msgspec.structs.replace(payload, bucket=msgspec.structs.replace(bucket, toggles=toggles))
    return Addition(rest, covers)


_Read = tuple[ClientMetrics, Bucket]


def _read(value: bytes) -> _Read | None:
    """Decode a window; None where there is none to compare."""
    try:
        payload = decode.metrics(value)
    except (RefusedPayload, lenient.MalformedJsonError):
        return None
    return None if payload.bucket is None else (payload, payload.bucket)


def _contains(large: _Read, small: _Read, how: Merges) -> bool:
    """Say whether one window lasts as long as another of the same start, and has at least its counts."""
    if _scope(large[0]) != _scope(small[0]) or dates.parse(large[1].stop) < dates.parse(small[1].stop):
        return False
    toggles = large[1].toggles
    return all(_covers(toggles.get(name, _NOTHING), toggle, how) for name, toggle in small[1].toggles.items())


def _scope(payload: ClientMetrics) -> tuple[str, str | None, str | None]:
    """Name what rows are kept apart by, besides the hour: two instances in one process are not each other's windows."""
    return payload.app_name, payload.environment, payload.platform_name


def _covers(large: Toggle, small: Toggle, how: Merges) -> bool:
    if large.yes < small.yes or large.no < small.no:
        return False
    if how is Merges.YES_AND_NO or not small.variants:
        return True
    variants = large.variants or {}
    return all(variants.get(name, 0) >= count for name, count in small.variants.items())


def _minus(toggle: Toggle, name: str, seen: list[dict[str, Toggle]], how: Merges) -> Toggle:
    """Take the largest counts that were seen of a flag from it."""
    known = [toggles[name] for toggles in seen if name in toggles]
    if not known:
        return toggle
    variants = toggle.variants
    if variants and how is Merges.ALL:
        variants = {
            variant: max(0, count - max((each.variants or {}).get(variant, 0) for each in known))
            for variant, count in variants.items()
        }
    return Toggle(
        yes=max(0, toggle.yes - max(each.yes for each in known)),
        no=max(0, toggle.no - max(each.no for each in known)),
        variants=variants,
    )


_NOTHING: Final = Toggle()
