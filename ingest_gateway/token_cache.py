"""What the tokens' upstream said, kept for a bounded time in a bounded number of entries, by SHA-256.

Found and unknown tokens are kept apart: only tokens that the upstream vouched for can push found ones out.
"""

import hmac
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from typing import Final

from ingest_gateway.meters import Meters
from schemas.tokens import Token

_HOLD_SECONDS: Final = 5.0
"""How long a found token is not asked for again after a question without an answer."""


class Verdict(Enum):
    """What a question may bring besides a token."""

    UNKNOWN = "unknown"
    UNANSWERED = "unanswered"


Answer = Token | Verdict


@dataclass(frozen=True, slots=True)
class Lasting:
    """How long what is kept, in seconds, and how much of it.

    Attributes:
        refresh: a found token that is used later than this after its last answer is asked for again.
        grace: a found token is accepted for so long after its last answer while no answer comes.
        unknown: an unknown token is not asked for again for so long.
        entries: most found tokens, and most unknown ones.
    """

    refresh: float
    grace: float
    unknown: float
    entries: int


class Found:
    """A token that the upstream vouched for, and until when it is believed (seconds of the cache's clock).

    Attributes:
        token: without its text.
        fresh_until: accepted without a question until then.
        settled_until: accepted until then while it is asked for; later the answer is awaited, so that a token which
            was revoked while nobody used it is refused at once.
        good_until: forgotten from then on.
    """

    __slots__ = ("fresh_until", "good_until", "settled_until", "token")

    def __init__(self, token: Token, now: float, lasting: Lasting) -> None:
        self.token = token
        self.fresh_until = now + lasting.refresh
        self.settled_until = now + 2 * lasting.refresh
        self.good_until = now + lasting.grace


class TokenCache:
    """The found and the unknown tokens.

    Args:
        lasting: how long and how much.
        meters: shows how many.
        clock: seconds, never going back.
    """

    def __init__(self, lasting: Lasting, meters: Meters, clock: Callable[[], float]) -> None:
        self._lasting = lasting
        self._clock = clock
        self._found: dict[bytes, Found] = {}  # in the order of their last answers
        self._unknown: dict[bytes, float] = {}  # in the order in which they end
        self._shown_found = meters.tokens_cached.labels("found")
        self._shown_unknown = meters.tokens_cached.labels("unknown")

    def find(self, digest: bytes) -> Found | None:
        """Find a token that was vouched for within its time of grace."""
        found = self._found.get(digest)
        if found is None or not hmac.compare_digest(found.token.digest, digest):
            return None
        if self._clock() >= found.good_until:
            del self._found[digest]
            self._show()
            return None
        return found

    def is_unknown(self, digest: bytes) -> bool:
        """Say whether the upstream was asked lately and did not know this token."""
        until = self._unknown.get(digest)
        return until is not None and self._clock() < until

    def learn(self, digest: bytes, answer: Answer) -> None:
        """Keep what a question brought; where it brought nothing, go on believing in a found token for a moment."""
        now = self._clock()
        if answer is Verdict.UNANSWERED:
            found = self._found.get(digest)
            if found is not None:
                found.fresh_until = now + _HOLD_SECONDS
                found.settled_until = found.fresh_until + self._lasting.refresh
            return
        self._found.pop(digest, None)
        self._unknown.pop(digest, None)
        if isinstance(answer, Token):
            _make_room(self._found, self._lasting.entries)
            self._found[digest] = Found(answer, now, self._lasting)
        else:
            _make_room(self._unknown, self._lasting.entries)
            self._unknown[digest] = now + self._lasting.unknown
        self._show()

    def _show(self) -> None:
        self._shown_found.set(len(self._found))
        self._shown_unknown.set(len(self._unknown))


def _make_room(entries: dict[bytes, Found] | dict[bytes, float], most: int) -> None:
    while len(entries) >= most:
        del entries[next(iter(entries))]
