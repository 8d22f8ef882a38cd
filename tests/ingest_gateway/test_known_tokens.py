"""Which tokens are accepted, asked for, awaited and refused, as time passes."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from ingest_gateway.known_tokens import KnownTokens
from ingest_gateway.refusals import Busy
from ingest_gateway.token_cache import Lasting
from ingest_gateway.token_questions import Bounds
from tests.ingest_gateway import support
from tests.ingest_gateway.upstream import Clock, FakeUpstream, Metered, token
from tests.support.waiting import until

LASTING = Lasting(refresh=60, grace=1000, unknown=30, entries=100)
TEXT = "default:development.found"


class Known:
    """Known tokens over a scripted upstream and a clock that the test moves."""

    def __init__(self, bounds: Bounds) -> None:
        self.clock = Clock()
        self.upstream = FakeUpstream(TEXT)
        self.metered = Metered()
        self.tokens = KnownTokens(support.TABLE, self.upstream, LASTING, bounds, self.metered.meters, self.clock)

    def finds(self, text: str = TEXT) -> bool:
        return self.tokens.find(text) is not None

    async def asks(self, text: str = TEXT) -> bool:
        return await self.tokens.ask(text) is not None

    async def accepts(self, text: str = TEXT) -> bool:
        """What the gateway does with a request's token."""
        return self.finds(text) or await self.asks(text)

    @property
    def questions(self) -> int:
        return len(self.upstream.asked)

    async def go_away(self) -> None:
        """Let the upstream fail until it counts as away."""
        self.upstream.fail()
        for number in range(3):
            with pytest.raises(Busy):
                await self.tokens.ask(f"never-seen-{number}")


@pytest.fixture
async def known() -> AsyncIterator[Known]:
    made = Known(Bounds(wait=20, spacing=0))
    yield made
    await made.tokens.close()


async def test_the_files_tokens_win_and_nobody_is_asked_for_them(known: Known) -> None:
    known.upstream.known[support.FRONTEND_DEV] = token(support.FRONTEND_DEV)  # says backend
    assert known.tokens.find(support.FRONTEND_DEV) is support.TABLE.find(support.FRONTEND_DEV)
    assert known.questions == 0


async def test_a_found_token_is_asked_for_once_in_its_time(known: Known) -> None:
    assert not known.finds()
    assert await known.asks()
    for _ in range(59):
        known.clock.now += 1
        assert known.finds()
    assert known.questions == 1


async def test_a_found_token_in_use_is_asked_for_again_and_accepted_meanwhile(known: Known) -> None:
    assert await known.asks()
    known.upstream.gate.clear()
    known.clock.now += 60
    assert all(known.finds() for _ in range(10))
    await until(lambda: known.questions == 2)
    known.upstream.gate.set()
    await known.asks()  # joins the one question
    assert known.questions == 2
    known.clock.now += 59
    assert known.finds()
    assert known.questions == 2


async def test_a_revoked_token_that_is_in_use_is_refused_after_one_more_look(known: Known) -> None:
    assert await known.asks()
    known.upstream.known.clear()
    known.clock.now += 60
    assert known.finds()
    await until(lambda: not known.finds())
    assert not await known.asks()
    assert known.questions == 2


async def test_a_token_that_was_revoked_while_nobody_used_it_is_refused_at_once(known: Known) -> None:
    assert await known.asks()
    known.upstream.known.clear()
    known.clock.now += 120
    assert not await known.accepts()
    assert known.questions == 2


async def test_an_unknown_token_is_asked_for_once_in_its_time_and_may_become_known(known: Known) -> None:
    assert [await known.accepts("new") for _ in range(5)] == [False] * 5
    assert known.questions == 1
    known.upstream.known["new"] = token("new")
    known.clock.now += 29.9
    assert not await known.accepts("new")
    known.clock.now += 0.1
    assert await known.accepts("new")
    assert known.questions == 2


async def test_an_upstream_that_is_away_never_stops_a_found_token_within_its_grace(known: Known) -> None:
    assert await known.asks()
    await known.go_away()
    while known.clock.now < 1999:
        known.clock.now += 0.5
        assert await known.accepts()
    known.clock.now += 1
    with pytest.raises(Busy):
        await known.accepts()


async def test_an_upstream_that_answers_no_more_is_awaited_once_and_then_left_alone_for_a_moment(known: Known) -> None:
    assert await known.asks()
    known.upstream.fail()
    known.clock.now += 500
    assert not known.finds()  # nobody looked for so long: the answer is awaited
    assert await known.asks()
    asked = known.questions
    known.clock.now += 4.9
    assert known.finds()
    assert known.questions == asked
    known.clock.now += 0.2
    assert known.finds()  # looks again behind the answer
    await until(lambda: known.questions == asked + 1)


async def test_a_slow_upstream_never_stops_a_found_token() -> None:
    known = Known(Bounds(wait=0.05, spacing=0))
    assert await known.asks()
    known.upstream.gate.clear()
    known.clock.now += 500
    assert await known.accepts()
    with pytest.raises(Busy):
        await known.accepts("never-seen")
    assert await known.accepts()
    await known.tokens.close()


async def test_after_an_outage_a_revoked_token_is_refused(known: Known) -> None:
    assert await known.asks()
    await known.go_away()
    known.clock.now += 300
    assert await known.accepts()
    known.upstream.known.clear()
    known.upstream.fault = None
    known.clock.now += 31
    assert known.finds()
    await until(lambda: not known.finds())
    assert not await known.asks()


async def test_a_token_that_was_never_seen_is_no_refusal_while_the_upstream_is_away(known: Known) -> None:
    await known.go_away()
    with pytest.raises(Busy) as busy:
        await known.accepts("never-seen")
    assert busy.value.reason == "tokens_upstream"
    known.upstream.fault = None
    known.upstream.known["never-seen"] = token("never-seen")
    known.clock.now += 1
    assert await known.accepts("never-seen")


@pytest.mark.parametrize("text", ["", "Basic dXNlcjpwYXNz", "é\udcff", "a\0b", "a\nb", "x" * 5000])
async def test_what_can_be_no_token_is_unknown_without_asking(text: str, known: Known) -> None:
    assert not await known.accepts(text)
    assert known.questions == 0


async def test_a_flood_of_random_tokens_leaves_the_found_ones_alone() -> None:
    known = Known(Bounds(wait=20, spacing=0, posts=2, waiting=50))
    found = [f"default:development.{number}" for number in range(90)]
    known.upstream.known = {text: token(text) for text in found}
    for start in range(0, 90, 45):
        assert all(await asyncio.gather(*map(known.asks, found[start : start + 45])))
    asked = known.questions
    known.upstream.gate.clear()
    flood = [asyncio.create_task(known.tokens.ask(f"random-{number}")) for number in range(2000)]
    await until(lambda: known.questions > asked)
    assert all(known.finds(text) for text in found)
    known.clock.now += 60
    assert all(known.finds(text) for text in found)  # and asks for them again, before the rest of the flood
    known.upstream.gate.set()
    outcomes = await asyncio.gather(*flood, return_exceptions=True)
    assert sum(isinstance(outcome, Busy) for outcome in outcomes) == 1950
    assert outcomes.count(None) == 50
    await until(lambda: sum(len(batch) for batch in known.upstream.asked) == 90 + 50 + 90)
    assert all(known.finds(text) for text in found)
    await known.tokens.close()
