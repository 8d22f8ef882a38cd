"""Keeps the inputs that showed something new, so that they are bent further."""

import random
import sys
from collections.abc import Callable, Hashable
from pathlib import Path
from types import FrameType
from typing import Any, Final, TypeVar

R = TypeVar("R")

_WATCHED: Final = str(Path(__file__).parent.parent.parent / "schemas")
_MOST_KEPT: Final = 5_000
_LONGEST_KEPT: Final = 20_000


class Guide:
    """A corpus that grows by whatever leads to a new outcome or runs a pair of lines that none ran before."""

    def __init__(self, rng: random.Random) -> None:
        self._rng = rng
        self._seen: set[Hashable] = set()
        self._edges: set[tuple[str, int, int]] = set()
        self.kept: list[tuple[Any, bytes]] = []

    @property
    def edges(self) -> int:
        """How many pairs of lines of `schemas` were run."""
        return len(self._edges)

    def choose(self) -> tuple[Any, bytes] | None:
        """Give one of what was kept."""
        return self._rng.choice(self.kept) if self.kept else None

    def learn(self, kind: Any, body: bytes, outcome: Hashable, *, more: bool = False) -> None:
        """Keep an input whose outcome, or `more`, is new."""
        if outcome not in self._seen or more:
            self._seen.add(outcome)
            if len(body) <= _LONGEST_KEPT and len(self.kept) < _MOST_KEPT:
                self.kept.append((kind, body))

    def traced(self, run: Callable[[], R]) -> tuple[R, bool]:
        """Run something, and say whether it ran lines of `schemas` in an order that was not seen before."""
        found: set[tuple[str, int, int]] = set()

        def enter(frame: FrameType, event: str, argument: object) -> Any:
            del event, argument
            name = frame.f_code.co_filename
            if not name.startswith(_WATCHED):
                return None
            last = frame.f_lineno

            def step(frame: FrameType, event: str, argument: object) -> Any:
                del argument
                nonlocal last
                if event == "line":
                    found.add((name, last, frame.f_lineno))
                    last = frame.f_lineno
                return step

            return step

        before = sys.gettrace()
        sys.settrace(enter)
        try:
            result = run()
        finally:
            sys.settrace(before)
        new = not found <= self._edges
        self._edges |= found
        return result, new
