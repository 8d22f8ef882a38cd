import asyncio
from collections.abc import Awaitable, Callable

import pytest

from query_api.cache import Answer, Outcome, ResultCache


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


class Work:
    """Computes answers, and counts how often."""

    def __init__(self, body: bytes = b"{}") -> None:
        self.body = body
        self.runs = 0
        self.began = asyncio.Event()
        self.gate = asyncio.Event()
        self.gate.set()
        self.error: Exception | None = None

    async def __call__(self) -> Answer:
        self.runs += 1
        self.began.set()
        await self.gate.wait()
        if self.error:
            raise self.error
        return Answer(self.body, f"run {self.runs}", "")


def cache(clock: Callable[[], float], *, seconds: float = 1.0, entries: int = 3, size: int = 100) -> ResultCache:
    return ResultCache(seconds=seconds, entries=entries, size=size, clock=clock)


async def outcome(of: Awaitable[tuple[Answer, Outcome]]) -> Outcome:
    return (await of)[1]


async def test_an_answer_is_given_again_until_its_time_is_over():
    clock, work = Clock(), Work()
    kept = cache(clock)
    first, missed = await kept.get("q", work)
    clock.now += 0.99
    again, hit = await kept.get("q", work)
    assert (missed, hit, again) == (Outcome.MISS, Outcome.HIT, first)
    clock.now += 0.01
    assert await outcome(kept.get("q", work)) is Outcome.MISS
    assert work.runs == 2


async def test_the_time_runs_from_the_begin_of_the_execution():
    clock, work = Clock(), Work()
    kept = cache(clock)
    work.gate.clear()
    waiting = asyncio.create_task(kept.get("q", work))
    await work.began.wait()
    clock.now += 2
    work.gate.set()
    await waiting
    assert len(kept) == 0


async def test_different_questions_have_their_own_answers():
    work = Work()
    kept = cache(Clock())
    await kept.get("a", work)
    assert await outcome(kept.get("b", work)) is Outcome.MISS
    assert len(kept) == 2


async def test_equal_questions_at_the_same_time_share_one_execution():
    work = Work()
    kept = cache(Clock())
    work.gate.clear()
    waiting = [asyncio.create_task(kept.get("q", work)) for _ in range(20)]
    await work.began.wait()
    work.gate.set()
    outcomes = [found for _, found in await asyncio.gather(*waiting)]
    assert work.runs == 1
    assert outcomes == [Outcome.MISS] + [Outcome.JOINED] * 19


async def test_one_that_leaves_does_not_end_the_execution_for_the_others():
    work = Work()
    kept = cache(Clock())
    work.gate.clear()
    first, second = (asyncio.create_task(kept.get("q", work)) for _ in range(2))
    await work.began.wait()
    first.cancel()
    work.gate.set()
    assert (await second)[0].body == b"{}"
    assert first.cancelled()
    assert work.runs == 1


async def test_an_error_reaches_all_who_wait_and_is_not_kept():
    work = Work()
    kept = cache(Clock())
    work.gate.clear()
    work.error = ValueError("away")
    waiting = [asyncio.create_task(kept.get("q", work)) for _ in range(3)]
    await work.began.wait()
    work.gate.set()
    found = await asyncio.gather(*waiting, return_exceptions=True)
    assert [type(error) for error in found] == [ValueError] * 3
    work.error = None
    assert await outcome(kept.get("q", work)) is Outcome.MISS


async def test_an_error_that_nobody_waits_for_any_more_is_silent():
    work = Work()
    kept = cache(Clock())
    work.gate.clear()
    work.error = ValueError("away")
    complaints: list[object] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: complaints.append(context))
    only = asyncio.create_task(kept.get("q", work))
    await work.began.wait()
    only.cancel()
    work.gate.set()
    await asyncio.gather(only, return_exceptions=True)
    work.error = None
    await kept.get("q", work)
    assert complaints == []


async def test_the_oldest_goes_when_there_are_too_many():
    work = Work()
    kept = cache(Clock(), entries=3)
    for question in "abcd":
        await kept.get(question, work)
    assert len(kept) == 3
    assert await outcome(kept.get("b", work)) is Outcome.HIT
    assert await outcome(kept.get("a", work)) is Outcome.MISS


async def test_the_oldest_go_when_they_are_too_large():
    kept = cache(Clock(), size=100)
    await kept.get("a", Work(b"x" * 40))
    await kept.get("b", Work(b"x" * 40))
    await kept.get("c", Work(b"x" * 90))
    assert (len(kept), kept.size) == (1, 90)
    assert await outcome(kept.get("c", Work())) is Outcome.HIT


async def test_one_that_is_larger_than_the_cache_is_answered_and_not_kept():
    kept = cache(Clock(), size=100)
    await kept.get("a", Work(b"x" * 40))
    answer, _ = await kept.get("b", Work(b"x" * 101))
    assert len(answer.body) == 101
    assert (len(kept), kept.size) == (1, 40)


async def test_what_is_over_makes_room_first():
    clock = Clock()
    kept = cache(clock)
    await kept.get("a", Work(b"x" * 40))
    clock.now += 1
    await kept.get("b", Work(b"x" * 10))
    assert (len(kept), kept.size) == (1, 10)


@pytest.mark.parametrize(("seconds", "entries", "size"), [(0.0, 3, 100), (1.0, 0, 100), (1.0, 3, 0)])
async def test_a_cache_of_nothing_keeps_nothing(seconds: float, entries: int, size: int):
    work = Work()
    kept = cache(Clock(), seconds=seconds, entries=entries, size=size)
    for _ in range(2):
        assert await outcome(kept.get("q", work)) is Outcome.MISS
    assert (work.runs, len(kept), kept.size) == (2, 0, 0)


async def test_an_answer_computed_anew_replaces_the_old_one():
    clock = Clock()
    kept = cache(clock)
    await kept.get("q", Work(b"x" * 40))
    clock.now += 1.5
    await kept.get("q", Work(b"x" * 30))
    assert (len(kept), kept.size) == (1, 30)
