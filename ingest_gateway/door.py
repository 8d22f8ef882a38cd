"""How much is let in at once: requests, and bytes of bodies that are being read or wait for the broker."""

import asyncio

from prometheus_client import Gauge

from ingest_gateway.refusals import Busy


class Visit:
    """One request's share of the door."""

    __slots__ = ("_door", "size")

    def __init__(self, door: "Door") -> None:
        self._door = door
        self.size = 0

    def hold(self, size: int) -> None:
        """Count bytes that this request holds from now on.

        Raises:
            Busy: all requests together would hold too many.
        """
        door = self._door
        if door.held + size > door.max_bytes:
            raise Busy("bytes")
        door.held += size
        self.size += size

    def leave(self) -> None:
        """Go, with all that is held."""
        door = self._door
        door.held -= self.size
        door.requests -= 1
        if not door.requests:
            door.notice_empty()

    def release(self, size: int) -> None:
        """Count bytes that this request holds no longer."""
        self._door.held -= size
        self.size -= size


class Door:
    """The bound on what is in flight, and what is held now: `requests` and `held` bytes."""

    __slots__ = ("_emptied", "held", "max_bytes", "max_requests", "requests")

    def __init__(self, *, max_bytes: int, max_requests: int) -> None:
        self.max_bytes = max_bytes
        self.max_requests = max_requests
        self.requests = 0
        self.held = 0
        self._emptied: asyncio.Event | None = None

    def enter(self) -> Visit:
        """Let one request in, until its `Visit.leave`.

        Raises:
            Busy: too many are in.
        """
        if self.requests >= self.max_requests:
            raise Busy("requests")
        self.requests += 1
        return Visit(self)

    def notice_empty(self) -> None:
        """Tell whoever waits in `emptied`."""
        if self._emptied is not None:
            self._emptied.set()

    async def emptied(self) -> None:
        """Wait until nobody is in."""
        if self.requests:
            self._emptied = asyncio.Event()
            await self._emptied.wait()

    def show(self, gauge: Gauge) -> None:
        """Let a gauge read the held bytes whenever it is scraped."""
        gauge.set_function(lambda: self.held)
