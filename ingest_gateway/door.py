"""How much is let in at once: requests, and bytes of bodies that are being read or wait for the broker."""

import asyncio
import time
from collections.abc import Callable
from typing import Final

from prometheus_client import Gauge

from ingest_gateway.refusals import Busy

_WANTED_SECONDS: Final = 60.0
"""So long after somebody was turned away nobody may hold more than its share."""
_KEPT: Final = 1024
"""So many tokens are remembered, also while nothing of theirs is in: to make them for each request would cost time."""


class _Holder:
    """What all requests of one token hold together."""

    __slots__ = ("held", "requests")

    def __init__(self) -> None:
        self.requests = 0
        self.held = 0


class Visit:
    """One request's share of the door."""

    __slots__ = ("_door", "_holder", "size")

    def __init__(self, door: "Door", holder: _Holder) -> None:
        self._door = door
        self._holder = holder
        self.size = 0

    def hold(self, size: int) -> None:
        """Count bytes that this request holds from now on.

        Raises:
            Busy: all requests together would hold too many, or those of this token too much of what others want.
        """
        door, holder = self._door, self._holder
        if door.held + size > door.max_bytes:
            door.turn_away(holder, "bytes")
        if holder.held + size > door.share_bytes and holder.held > self.size and door.is_wanted_by_others(holder):
            raise Busy("token_bytes")  # a token's only request may hold more: else a large body would never get in
        door.held += size
        holder.held += size
        self.size += size

    def leave(self) -> None:
        """Go, with all that is held."""
        door, holder = self._door, self._holder
        door.held -= self.size
        door.requests -= 1
        holder.held -= self.size
        holder.requests -= 1
        if not door.requests:
            door.notice_empty()

    def release(self, size: int) -> None:
        """Count bytes that this request holds no longer."""
        self._door.held -= size
        self._holder.held -= size
        self.size -= size


class Door:
    """The bound on what is in flight, and what is held now: `requests` and `held` bytes.

    Where others want in, one token may hold only its share; alone it may hold everything.

    Args:
        max_bytes: of all bodies together.
        max_requests: at the same time.
        share: of both, that one token may hold: 0 to 1.
        clock: seconds, monotonic.
    """

    __slots__ = (
        *("_clock", "_emptied", "_holders", "_room", "_wanted", "_wanted_until", "held", "max_bytes", "max_requests"),
        *("requests", "share_bytes", "share_requests"),
    )

    def __init__(
        self, *, max_bytes: int, max_requests: int, share: float = 1.0, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.max_bytes = max_bytes
        self.max_requests = max_requests
        self.share_bytes = int(max_bytes * share)
        self.share_requests = max(1, int(max_requests * share))
        self.requests = 0
        self.held = 0
        self._holders: dict[str, _Holder] = {}
        self._room = _KEPT
        self._wanted: _Holder | None = None
        self._wanted_until = 0.0
        self._clock = clock
        self._emptied: asyncio.Event | None = None

    def enter(self, whose: str = "") -> Visit:
        """Let one request in, until its `Visit.leave`.

        Args:
            whose: the id of its token; whoever needs none shares one name.

        Raises:
            Busy: too many are in, or too many of this token while others want in.
        """
        holder = self._holders.get(whose)
        if holder is None:
            holder = self._remember(whose)
        if self.requests >= self.max_requests:
            self.turn_away(holder, "requests")
        if holder.requests >= self.share_requests and self.is_wanted_by_others(holder):
            raise Busy("token_requests")
        self.requests += 1
        holder.requests += 1
        return Visit(self, holder)

    def turn_away(self, holder: _Holder, reason: str) -> None:
        """Refuse a request; remember it where its token has less than its share.

        Raises:
            Busy: always.
        """
        if holder.requests < self.share_requests and holder.held < self.share_bytes:
            self._wanted = holder
            self._wanted_until = self._clock() + _WANTED_SECONDS
        raise Busy(reason)

    def is_wanted_by_others(self, holder: _Holder) -> bool:
        """Say whether other tokens are in, or were turned away lately."""
        if self.requests > holder.requests:
            return True
        return self._wanted is not None and self._wanted is not holder and self._clock() < self._wanted_until

    def notice_empty(self) -> None:
        """Tell whoever waits in `emptied`."""
        if self._emptied is not None:
            self._emptied.set()

    async def emptied(self) -> None:
        """Wait until nobody is in."""
        if self.requests:
            self._emptied = asyncio.Event()
            await self._emptied.wait()

    def _remember(self, whose: str) -> _Holder:
        if len(self._holders) >= self._room:
            self._holders = {name: holder for name, holder in self._holders.items() if holder.requests}
            self._room = max(_KEPT, 2 * len(self._holders))
        made = self._holders[whose] = _Holder()
        return made

    def show(self, gauge: Gauge) -> None:
        """Let a gauge read the held bytes whenever it is scraped."""
        gauge.set_function(lambda: self.held)
