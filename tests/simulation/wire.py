"""Requests between processes and servers: delayed, refused, lost, late, or with their answer lost."""

import asyncio
from collections.abc import Callable
from random import Random
from typing import Any, Final, NamedTuple, TypeVar

from tests.simulation.loop import Scheduler, current

T = TypeVar("T")
Reply = Callable[[Any], None]

_FAST: Final = (0.0005, 0.02)


class Odds(NamedTuple):
    """How often requests meet a fault, each between 0 and 1; `late_seconds` is the longest delay."""

    refused: float = 0.0
    lost: float = 0.0
    late: float = 0.0
    unanswered: float = 0.0
    slow: float = 0.0
    late_seconds: float = 25.0


CALM: Final = Odds()


class Channel:
    """A connection: what is sent on it first arrives first."""

    def __init__(self) -> None:
        self.last = 0.0

    def after(self, when: float) -> float:
        """Give the time of arrival, not before that of what was sent earlier."""
        self.last = max(self.last + 1e-6, when)
        return self.last


class Trace:
    """What happened, in order; the same for the same seed."""

    def __init__(self, loop: Scheduler) -> None:
        self._loop = loop
        self.events: list[tuple[float, str, tuple[object, ...]]] = []

    def add(self, who: str, *what: object) -> None:
        """Note an event."""
        self.events.append((self._loop.time(), who, what))

    def lines(self) -> list[str]:
        """Write all events."""
        return [f"{time:10.4f} {who:8} {' '.join(str(each) for each in what)}" for time, who, what in self.events]


class Wire:
    """All requests of one run."""

    def __init__(self, loop: Scheduler, dice: Random, trace: Trace) -> None:
        self.loop = loop
        self.dice = dice
        self.trace = trace

    async def pause(self, seconds: float, until: list[asyncio.Future[None]] | None = None) -> None:
        """Wait, at most until somebody resolves what is put into `until`."""
        passed = self.loop.create_future()
        if until is not None:
            until.append(passed)
        timer = self.loop.call_later(seconds, _resolve, passed, None)
        try:
            await passed
        finally:
            timer.cancel()

    async def ask(
        self,
        name: str,
        work: Callable[[], T],
        *,
        odds: Odds,
        patience: float,
        away: Callable[[str], Exception],
        channel: Channel | None = None,
        dropped: Callable[[], None] | None = None,
    ) -> T:
        """Have `work` done at the server, and wait for its answer.

        A request that was sent is under way whatever becomes of its sender.

        Args:
            name: for the trace and for error messages.
            work: done in one piece when the request arrives; what it raises is the answer.
            odds: of faults.
            patience: seconds until the client gives up; sometimes a connection breaks earlier.
            away: makes the error for a request without an answer.
            channel: the connection; without one, requests overtake each other.
            dropped: told when the request will never arrive.
        """

        def at_server(reply: Reply) -> None:
            reply(work())

        answer: T = await self.ask_held(
            name, at_server, odds=odds, patience=patience, away=away, channel=channel, dropped=dropped
        )
        return answer

    async def ask_held(
        self,
        name: str,
        work: Callable[[Reply], None],
        *,
        odds: Odds,
        patience: float,
        away: Callable[[str], Exception],
        channel: Channel | None = None,
        dropped: Callable[[], None] | None = None,
    ) -> Any:
        """Ask as above; the server answers by `reply`, when it likes."""
        dice, loop = self.dice, self.loop
        fault = self._draw(odds)
        who = current()
        if fault:
            self.trace.add(who, name, fault)
        if fault == "refused":
            if dropped is not None:
                dropped()
            await self.pause(dice.uniform(*_FAST))
            raise away(f"{name}: refused")
        answer = loop.create_future()

        def reply(result: Any) -> None:
            if fault == "unanswered":
                return
            if isinstance(result, Exception):
                loop.in_world(dice.uniform(*_FAST), _fail, answer, result)
            else:
                loop.in_world(dice.uniform(*_FAST), _resolve, answer, result)

        def arrive() -> None:
            try:
                work(reply)
            except Exception as error:  # noqa: BLE001 - it is the answer, whatever it is
                reply(error)

        if fault != "lost":
            delay = dice.uniform(*_FAST)
            if fault == "late":
                delay = dice.uniform(0.5, odds.late_seconds)
            elif fault == "slow":
                delay = dice.uniform(0.1, 3.0)
            when = loop.time() + delay
            loop.in_world((when if channel is None else channel.after(when)) - loop.time(), arrive)
        elif dropped is not None:
            dropped()
        if fault in {"lost", "late", "unanswered"} and dice.random() < 0.7:
            patience = dice.uniform(0.02, min(patience, 4.0))
        timer = loop.call_later(patience, _fail, answer, away(f"{name}: no answer"))
        try:
            return await answer
        finally:
            timer.cancel()

    def _draw(self, odds: Odds) -> str:
        if odds is CALM:
            return ""
        drawn = self.dice.random()
        for name in ("refused", "lost", "late", "unanswered", "slow"):
            drawn -= getattr(odds, name)
            if drawn < 0:
                return name
        return ""


def _resolve(future: asyncio.Future[Any], result: Any) -> None:
    if not future.done():
        future.set_result(result)


def _fail(future: asyncio.Future[Any], error: Exception) -> None:
    if not future.done():
        future.set_exception(error)
