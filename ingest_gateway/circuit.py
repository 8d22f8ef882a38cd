"""Whether it is worth asking a server that may be away: after failures in a row, only now and then."""

from collections.abc import Callable
from typing import Final

_FAILURES: Final = 3
_FIRST_PAUSE: Final = 1.0
_LONGEST_PAUSE: Final = 30.0


class Circuit:
    """A circuit breaker: opens after three failures in a row, lets one trial through each pause, closes on a success.

    Pauses grow from 1 s to 30 s.

    Args:
        clock: seconds, never going back.
        on_change: told whether it has opened, and the last failure in a few words; called once for each change.
    """

    def __init__(self, clock: Callable[[], float], on_change: Callable[[bool, str], None]) -> None:
        self._clock = clock
        self._on_change = on_change
        self._failures = 0
        self._pause = _FIRST_PAUSE
        self._next_trial = 0.0

    @property
    def is_open(self) -> bool:
        """Whether the server counts as away."""
        return self._failures >= _FAILURES

    def allows(self) -> bool:
        """Say whether to ask now; while it is open, a yes is the one trial of this pause."""
        if not self.is_open:
            return True
        now = self._clock()
        if now < self._next_trial:
            return False
        self._next_trial = now + self._pause
        return True

    def failed(self, why: str) -> None:
        """Count a failure."""
        was_open = self.is_open
        self._failures += 1
        if not self.is_open:
            return
        if was_open:
            self._pause = min(self._pause * 2, _LONGEST_PAUSE)
        self._next_trial = self._clock() + self._pause
        if not was_open:
            self._on_change(True, why)

    def succeeded(self) -> None:
        """Close it."""
        was_open = self.is_open
        self._failures = 0
        self._pause = _FIRST_PAUSE
        if was_open:
            self._on_change(False, "")
