"""Answers that were just computed: bounded in time, number and bytes.

Equal questions at the same time share one execution. Whether a caller may ask at all is settled before the cache is
looked at, and an answer depends on the question alone, so what a token sees needs no place in the key.
"""

import asyncio
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Hashable
from dataclasses import dataclass
from enum import StrEnum


@dataclass(frozen=True, slots=True)
class Answer:
    """A result as JSON, when it was computed, and its entity tag."""

    body: bytes
    updated_at: str
    etag: str


class Outcome(StrEnum):
    """Where an answer came from; `joined` waited for an execution that another question began."""

    HIT = "hit"
    MISS = "miss"
    JOINED = "joined"


@dataclass(frozen=True, slots=True)
class _Kept:
    answer: Answer
    expires: float


class ResultCache:
    """Answers by question."""

    def __init__(self, *, seconds: float, entries: int, size: int, clock: Callable[[], float]) -> None:
        """Begin empty.

        Args:
            seconds: how long an answer is given again; 0 keeps none.
            entries: the most answers kept.
            size: the most bytes of bodies kept.
            clock: monotonic seconds.
        """
        self._seconds = seconds
        self._entries = entries
        self._size = size
        self._clock = clock
        self._kept: OrderedDict[Hashable, _Kept] = OrderedDict()
        self._bytes = 0
        self._running: dict[Hashable, asyncio.Task[Answer]] = {}

    def __len__(self) -> int:
        return len(self._kept)

    @property
    def size(self) -> int:
        """Bytes of all bodies that are kept."""
        return self._bytes

    async def get(self, question: Hashable, compute: Callable[[], Awaitable[Answer]]) -> tuple[Answer, Outcome]:
        """Give the kept answer, or compute it.

        What `compute` raises reaches all who wait for it, and is not kept. A caller that is cancelled does not end
        the execution for the others.
        """
        kept = self._kept.get(question)
        if kept is not None and self._clock() < kept.expires:
            return kept.answer, Outcome.HIT
        task = self._running.get(question)
        outcome = Outcome.MISS if task is None else Outcome.JOINED
        if task is None:
            task = asyncio.create_task(self._compute(question, compute))
            self._running[question] = task
            task.add_done_callback(lambda done: self._finished(question, done))
        return await asyncio.shield(task), outcome

    async def _compute(self, question: Hashable, compute: Callable[[], Awaitable[Answer]]) -> Answer:
        began = self._clock()
        answer = await compute()
        self._keep(question, answer, began)
        return answer

    def _finished(self, question: Hashable, task: asyncio.Task[Answer]) -> None:
        del self._running[question]
        if not task.cancelled():
            task.exception()  # looked at, also when everybody who waited has left

    def _keep(self, question: Hashable, answer: Answer, began: float) -> None:
        """Keep an answer until `seconds` after its execution began: it may be that old already."""
        self._drop(question)
        now = self._clock()
        # All live equally long, so the oldest stand (nearly) in front.
        while self._kept and (oldest := next(iter(self._kept.items())))[1].expires <= now:
            self._drop(oldest[0])
        expires = began + self._seconds
        if expires <= now or len(answer.body) > self._size or not self._entries:
            return
        while self._kept and (len(self._kept) >= self._entries or self._bytes + len(answer.body) > self._size):
            self._drop(next(iter(self._kept)))
        self._kept[question] = _Kept(answer, expires)
        self._bytes += len(answer.body)

    def _drop(self, question: Hashable) -> None:
        kept = self._kept.pop(question, None)
        if kept is not None:
            self._bytes -= len(kept.answer.body)
