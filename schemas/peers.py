"""What the processes of one service say of themselves together; a process without others speaks for itself."""

from collections.abc import Awaitable, Callable
from typing import Protocol

import msgspec
from prometheus_client import CollectorRegistry, generate_latest

Reporter = Callable[[], Awaitable["Report"]]


class Report(msgspec.Struct, frozen=True):
    """How a process is; of several together: their reasons, each with its worker's number.

    Attributes:
        unready: why it is not ready; empty when it is.
        broken: why it is not alive; empty when it is.
        partitions: what it works on.
    """

    unready: tuple[str, ...] = ()
    broken: tuple[str, ...] = ()
    partitions: tuple[int, ...] = ()


class Peers(Protocol):
    """All processes of one service, this one among them."""

    @property
    def shares_port(self) -> bool:
        """Say whether each process listens on the same port, by SO_REUSEPORT."""
        ...

    def introduce(self, reporter: Reporter, registry: CollectorRegistry) -> None:
        """Say how this process is to be asked; until then it is not ready.

        Args:
            reporter: tells how this process is.
            registry: what it counts.
        """
        ...

    async def report(self) -> Report:
        """Ask all how they are."""
        ...

    async def metrics(self) -> bytes:
        """Give the metrics of all in Prometheus' text format."""
        ...


async def starting() -> Report:
    """Report for a process that was not introduced yet."""
    return Report(unready=("starting",))


class Alone:
    """The only process of its service."""

    shares_port = False

    def __init__(self) -> None:
        self._reporter: Reporter = starting
        self._registry = CollectorRegistry()

    def introduce(self, reporter: Reporter, registry: CollectorRegistry) -> None:
        """See `Peers.introduce`."""
        self._reporter = reporter
        self._registry = registry

    async def report(self) -> Report:
        """Say how this process is."""
        return await self._reporter()

    async def metrics(self) -> bytes:
        """Give this process's metrics."""
        return generate_latest(self._registry)
