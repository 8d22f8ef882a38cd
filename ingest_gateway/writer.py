"""What the gateway asks of a broker: append, and return only when it is durable."""

from collections.abc import Sequence
from typing import Protocol

from schemas.event import Event


class NotTaken(Exception):  # noqa: N818 - what is known of the event
    """The event is surely not in the log: it was not handed over, or was rolled back. The sender may repeat it."""


class InDoubt(Exception):  # noqa: N818 - what is known of the event
    """The event was handed over, and nobody knows (yet) whether the log has it."""


class Writer(Protocol):
    """Takes events one by one, from many requests at once."""

    async def append(self, event: Event, *, patient: bool = False) -> None:
        """Append an event; returns only when the broker holds it durably.

        Args:
            event: to append.
            patient: wait beyond the deadline until it is known what became of it.

        Raises:
            NotTaken: surely not in the log.
            InDoubt: handed over and unresolved at the deadline; for a patient one: it can never be known.
        """
        ...

    def trouble(self) -> str | None:
        """Say why appends fail now; None while they succeed."""
        ...

    async def close(self) -> None:
        """Append what waits, then close; nothing may be appended afterwards."""
        ...


class Log(Protocol):
    """One partition of a broker: groups of events, one after another."""

    async def append(self, events: Sequence[Event]) -> None:
        """Append a group, all or nothing; returns when it is durable.

        Raises:
            NotTaken: none of it is in the log.
            InDoubt: nobody knows.
        """
        ...

    async def probe(self) -> None:
        """Find out whether an append would succeed now, without appending.

        Raises:
            NotTaken: it would not.
        """
        ...

    async def close(self) -> None:
        """Let go of the log."""
        ...
