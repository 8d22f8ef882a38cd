"""How the upstream is asked: together, once, a bounded number at a time, and not in vain."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from ingest_gateway.token_cache import Answer, Verdict
from ingest_gateway.token_questions import Bounds, Question, Questions
from schemas import metric_names as names
from schemas.tokens import Token, raw_digest
from tests.ingest_gateway.upstream import Clock, FakeUpstream, Metered
from tests.support.waiting import until

AT_ONCE = Bounds(wait=20, spacing=0)


class Asking:
    """Questions over a scripted upstream, and what they learned."""

    def __init__(self, bounds: Bounds = AT_ONCE) -> None:
        self.upstream = FakeUpstream("a", "b")
        self.clock = Clock()
        self.metered = Metered()
        self.learned: list[tuple[bytes, Answer]] = []
        self.questions = Questions(
            self.upstream, lambda *learned: self.learned.append(learned), self.metered.meters, bounds, self.clock
        )

    def begin(self, text: str, *, renewal: bool = False) -> Question:
        return self.questions.begin(raw_digest(text), text, renewal=renewal)

    async def ask(self, text: str, *, renewal: bool = False) -> Answer:
        return await self.questions.wait(self.begin(text, renewal=renewal))

    def outcomes(self, name: str) -> float:
        return self.metered.value(names.TOKEN_QUESTIONS.name, outcome=name)

    async def fail(self, times: int = 3) -> None:
        self.upstream.fail()
        for number in range(times):
            assert await self.ask(f"lost-{number}") is Verdict.UNANSWERED


@pytest.fixture
async def asking() -> AsyncIterator[Asking]:
    made = Asking()
    yield made
    await made.questions.close()


async def test_a_token_is_found_or_unknown_and_either_is_learned(asking: Asking) -> None:
    found = await asking.ask("a")
    assert isinstance(found, Token)
    assert await asking.ask("z") is Verdict.UNKNOWN
    assert asking.learned == [(raw_digest("a"), found), (raw_digest("z"), Verdict.UNKNOWN)]
    assert (asking.outcomes("found"), asking.outcomes("unknown")) == (1, 1)
    assert asking.questions.open == 0


async def test_questions_for_one_token_are_one_question(asking: Asking) -> None:
    asking.upstream.gate.clear()
    waiting = [asyncio.create_task(asking.ask("a")) for _ in range(50)]
    await until(lambda: asking.upstream.asked)
    waiting += [asyncio.create_task(asking.ask("a")) for _ in range(50)]
    await asyncio.sleep(0)
    asking.upstream.gate.set()
    answers = await asyncio.gather(*waiting)
    assert all(isinstance(answer, Token) for answer in answers)
    assert asking.upstream.asked == [["a"]]


async def test_what_comes_together_goes_together(asking: Asking) -> None:
    await asyncio.gather(*(asking.ask(f"t-{number}") for number in range(250)))
    assert [len(batch) for batch in asking.upstream.asked] == [100, 100, 50]


async def test_under_load_posts_are_few_and_the_rest_waits_for_the_next(asking: Asking) -> None:
    asking.upstream.gate.clear()
    waiting = []
    for number in range(40):
        waiting.append(asyncio.create_task(asking.ask(f"t-{number}")))
        if number < 4:
            await until(lambda posts=number + 1: len(asking.upstream.asked) == posts)
    asking.upstream.gate.set()
    await asyncio.gather(*waiting)
    assert [len(batch) for batch in asking.upstream.asked] == [1, 1, 1, 1, 36]


async def test_posts_keep_their_distance() -> None:
    asking = Asking(Bounds(wait=20, spacing=0.05))
    loop = asyncio.get_running_loop()
    began = loop.time()
    for number in range(4):
        await asking.ask(f"t-{number}")
    assert loop.time() - began >= 0.145  # the loop's clock counts whole milliseconds
    await asking.questions.close()


async def test_questions_for_tokens_that_were_never_found_are_bounded_and_renewals_are_not_kept_out() -> None:
    asking = Asking(Bounds(wait=20, spacing=0, posts=1, batch=2, waiting=5))
    asking.upstream.gate.clear()
    flood = [asyncio.create_task(asking.ask(f"flood-{number}")) for number in range(30)]
    await until(lambda: asking.upstream.asked)
    assert asking.outcomes("full") == 25
    renewal = asyncio.create_task(asking.ask("a", renewal=True))
    await asyncio.sleep(0)
    asking.upstream.gate.set()
    assert isinstance(await renewal, Token)
    answers = await asyncio.gather(*flood)
    assert answers.count(Verdict.UNKNOWN) == 5
    assert answers.count(Verdict.UNANSWERED) == 25
    assert asking.upstream.asked[1][0] == "a"
    assert await asking.ask("b") != Verdict.UNANSWERED
    await asking.questions.close()


async def test_after_three_failures_nobody_waits_for_an_upstream_that_is_away(
    asking: Asking, capsys: pytest.CaptureFixture[str]
) -> None:
    await asking.fail()
    asked = len(asking.upstream.asked)
    asking.upstream.gate.clear()  # whoever asked would wait for ever
    for number in range(100):
        assert await asking.ask(f"t-{number}") is Verdict.UNANSWERED
    assert len(asking.upstream.asked) == asked
    assert asking.outcomes("away") == 100
    assert asking.metered.value(names.TOKEN_UPSTREAM_AWAY.name) == 1
    assert capsys.readouterr().out.count("is away") == 1


async def test_one_question_is_the_trial_and_its_answer_ends_the_outage(
    asking: Asking, capsys: pytest.CaptureFixture[str]
) -> None:
    await asking.fail()
    asking.upstream.fault = None
    asking.clock.now += 1
    assert isinstance(await asking.ask("a"), Token)
    assert asking.metered.value(names.TOKEN_UPSTREAM_AWAY.name) == 0
    assert isinstance(await asking.ask("b"), Token)
    assert capsys.readouterr().out.count("answers again") == 1


async def test_what_waits_when_the_upstream_goes_away_is_told_at_once() -> None:
    asking = Asking(Bounds(wait=20, spacing=0, posts=1, batch=1))
    asking.upstream.fail()
    assert await asyncio.gather(*(asking.ask(f"t-{number}") for number in range(50))) == [Verdict.UNANSWERED] * 50
    assert len(asking.upstream.asked) == 3
    await asking.questions.close()


async def test_nobody_waits_longer_than_the_bound_and_a_late_answer_is_learned() -> None:
    asking = Asking(Bounds(wait=0.05, spacing=0))
    asking.upstream.gate.clear()
    assert await asking.ask("a") is Verdict.UNANSWERED
    assert await asking.ask("a") is Verdict.UNANSWERED  # told at once: the question is still under way
    assert asking.upstream.asked == [["a"]]
    assert asking.learned == []
    asking.upstream.gate.set()
    await until(lambda: asking.learned)
    assert isinstance(asking.learned[0][1], Token)
    assert isinstance(await asking.ask("a"), Token)
    await asking.questions.close()


async def test_an_upstream_that_hangs_counts_as_away_by_the_third_late_post() -> None:
    asking = Asking(Bounds(wait=0.05, spacing=0))
    asking.upstream.gate.clear()
    for number in range(3):
        assert await asking.ask(f"t-{number}") is Verdict.UNANSWERED
    await until(lambda: asking.metered.value(names.TOKEN_UPSTREAM_AWAY.name) == 1)
    assert await asking.ask("another") is Verdict.UNANSWERED
    assert len(asking.upstream.asked) == 3
    await asking.questions.close()


async def test_a_post_ends_some_time_and_frees_its_place() -> None:
    asking = Asking(Bounds(wait=0.02, spacing=0, overtime=0.02, posts=1))
    asking.upstream.gate.clear()
    assert await asking.ask("t") is Verdict.UNANSWERED
    await until(lambda: asking.questions.open == 0)
    assert asking.learned == [(raw_digest("t"), Verdict.UNANSWERED)]
    asking.upstream.gate.set()
    assert isinstance(await asking.ask("a"), Token)
    await asking.questions.close()


async def test_whom_nobody_waits_for_any_more_is_not_asked_for() -> None:
    asking = Asking(Bounds(wait=0.05, spacing=0, posts=1))
    asking.upstream.gate.clear()
    first, second = await asyncio.gather(asking.ask("a"), asyncio.create_task(_after_the_first(asking)))
    assert (first, second) == (Verdict.UNANSWERED, Verdict.UNANSWERED)
    asking.upstream.gate.set()
    await until(lambda: asking.questions.open == 0)
    assert asking.upstream.asked == [["a"]]
    await asking.questions.close()


async def _after_the_first(asking: Asking) -> Answer:
    await until(lambda: asking.upstream.asked)
    return await asking.ask("b")


async def test_a_token_that_the_answer_leaves_in_the_dark_is_unanswered_and_its_neighbour_found(
    asking: Asking,
) -> None:
    asking.upstream.silent = {"b"}
    answers = await asyncio.gather(asking.ask("a"), asking.ask("b"))
    assert isinstance(answers[0], Token)
    assert answers[1] is Verdict.UNANSWERED


async def test_a_client_that_leaves_takes_no_answer_away_from_others(asking: Asking) -> None:
    asking.upstream.gate.clear()
    leaving, staying = (asyncio.create_task(asking.ask("a")) for _ in range(2))
    await until(lambda: asking.upstream.asked)
    leaving.cancel()
    await asyncio.wait({leaving})
    asking.upstream.gate.set()
    assert isinstance(await staying, Token)


async def test_a_fault_of_ours_is_no_answer_and_tells_no_text(
    asking: Asking, capsys: pytest.CaptureFixture[str]
) -> None:
    asking.upstream.fault = ZeroDivisionError("secret-text")
    assert await asking.ask("secret-text") is Verdict.UNANSWERED
    seen = capsys.readouterr()
    assert "ZeroDivisionError" in seen.out
    assert "secret-text" not in seen.out + seen.err


async def test_the_end_leaves_nobody_waiting_and_nothing_running() -> None:
    asking = Asking(Bounds(wait=20, spacing=0, posts=1))
    asking.upstream.gate.clear()
    waiting = [asyncio.create_task(asking.ask("a"))]
    await until(lambda: asking.upstream.asked)
    waiting.append(asyncio.create_task(asking.ask("b")))
    await asyncio.sleep(0)
    await asking.questions.close()
    assert await asyncio.gather(*waiting) == [Verdict.UNANSWERED] * 2
    assert asking.upstream.closed
    assert asking.upstream.asked == [["a"]]
    assert not [task for task in asyncio.all_tasks() if "upstream" in task.get_name()]


async def test_a_question_does_not_show_its_text(asking: Asking) -> None:
    assert "secret-text" not in repr(asking.begin("secret-text"))


async def test_the_end_comes_before_what_was_only_planned() -> None:
    asking = Asking()
    question = asking.begin("a")
    await asking.questions.close()
    assert await question.answer is Verdict.UNANSWERED
    assert asking.upstream.asked == []
