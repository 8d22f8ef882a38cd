"""How often one token may post: off unless a rate is set."""

import math
import time
from collections.abc import Callable
from typing import Final

_KEPT: Final = 10_000


class Throttled(Exception):  # noqa: N818 - a state, not an error of the sender
    """The token posts more often than it may: 429.

    Attributes:
        seconds: when its next post will be taken: whole seconds from now, 1 at least.
    """

    def __init__(self, seconds: int) -> None:
        super().__init__(seconds)
        self.seconds = seconds


class Rates:
    """A token bucket for each token, written as one number: when the bucket will be full again.

    Args:
        rate: posts a second.
        burst: so many posts at once are taken from a token that was quiet.
        clock: seconds, monotonic.
    """

    def __init__(self, *, rate: float, burst: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._cost = 1.0 / rate
        self._slack = (burst - 1) * self._cost
        self._clock = clock
        self._full_at: dict[str, float] = {}
        self._room = _KEPT

    def take(self, token_id: str) -> None:
        """Count one post.

        Raises:
            Throttled: this one is too many; it is not counted.
        """
        now = self._clock()
        full_at = self._full_at.get(token_id)
        if full_at is None:
            self._make_room(now)
        if full_at is None or full_at < now:
            full_at = now
        wait = full_at - now - self._slack
        if wait > 0:
            raise Throttled(max(1, math.ceil(wait)))
        self._full_at[token_id] = full_at + self._cost

    def _make_room(self, now: float) -> None:
        """Forget full buckets, which say nothing, where many are kept."""
        if len(self._full_at) >= self._room:
            self._full_at = {name: full_at for name, full_at in self._full_at.items() if full_at > now}
            self._room = max(_KEPT, 2 * len(self._full_at))
