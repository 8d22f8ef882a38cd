import pytest

from ingest_gateway.token_cache import Lasting, TokenCache, Verdict
from schemas import metric_names as names
from schemas.tokens import raw_digest
from tests.ingest_gateway.upstream import Clock, Metered, token

LASTING = Lasting(refresh=60, grace=1000, unknown=30, entries=3)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def metered() -> Metered:
    return Metered()


@pytest.fixture
def cache(clock: Clock, metered: Metered) -> TokenCache:
    return TokenCache(LASTING, metered.meters, clock)


def learn(cache: TokenCache, text: str) -> bytes:
    digest = raw_digest(text)
    cache.learn(digest, token(text))
    return digest


def test_a_found_token_is_fresh_then_asked_for_then_awaited_then_forgotten(cache: TokenCache, clock: Clock) -> None:
    digest = learn(cache, "a")
    found = cache.find(digest)
    assert found is not None
    times = (found.fresh_until, found.settled_until, found.good_until)
    assert [at - clock.now for at in times] == [60, 120, 1000]
    clock.now += 999.9
    assert cache.find(digest) is found
    clock.now += 0.1
    assert cache.find(digest) is None


def test_an_answer_makes_it_fresh_again_and_without_one_it_is_believed_for_a_moment(
    cache: TokenCache, clock: Clock
) -> None:
    digest = learn(cache, "a")
    clock.now += 500
    cache.learn(digest, Verdict.UNANSWERED)
    found = cache.find(digest)
    assert found is not None
    assert (found.fresh_until - clock.now, found.settled_until - clock.now) == (5, 65)
    assert found.good_until - clock.now == 500  # no answer is no word for it
    cache.learn(digest, token("a"))
    found = cache.find(digest)
    assert found is not None
    assert (found.fresh_until - clock.now, found.good_until - clock.now) == (60, 1000)


def test_a_revoked_token_is_unknown_from_then_on_and_back_when_it_is_found_again(
    cache: TokenCache, clock: Clock
) -> None:
    digest = learn(cache, "a")
    cache.learn(digest, Verdict.UNKNOWN)
    assert cache.find(digest) is None
    assert cache.is_unknown(digest)
    clock.now += 30
    assert not cache.is_unknown(digest)
    cache.learn(digest, Verdict.UNKNOWN)
    learn(cache, "a")
    assert not cache.is_unknown(digest)
    assert cache.find(digest) is not None


def test_no_answer_for_a_token_that_was_never_found_leaves_no_trace(cache: TokenCache) -> None:
    digest = raw_digest("a")
    cache.learn(digest, Verdict.UNANSWERED)
    assert cache.find(digest) is None
    assert not cache.is_unknown(digest)


def test_unknown_tokens_never_push_found_ones_out_and_are_bounded(cache: TokenCache, metered: Metered) -> None:
    found = [learn(cache, text) for text in "abc"]
    for number in range(100):
        cache.learn(raw_digest(f"random-{number}"), Verdict.UNKNOWN)
    assert all(cache.find(digest) is not None for digest in found)
    assert [number for number in range(100) if cache.is_unknown(raw_digest(f"random-{number}"))] == [97, 98, 99]
    assert metered.value(names.TOKENS_CACHED.name, answer="found") == 3
    assert metered.value(names.TOKENS_CACHED.name, answer="unknown") == 3


def test_above_the_bound_the_found_token_whose_answer_is_oldest_goes(cache: TokenCache) -> None:
    first, second, third = (learn(cache, text) for text in "abc")
    learn(cache, "a")
    fourth = learn(cache, "d")
    assert cache.find(second) is None
    assert all(cache.find(digest) is not None for digest in (first, third, fourth))


def test_no_text_is_kept(cache: TokenCache) -> None:
    text = "default:development.secret-text"
    learn(cache, text)
    cache.learn(raw_digest(text + "x"), Verdict.UNKNOWN)
    assert "secret-text" not in repr(vars(cache)) + repr([found.token for found in cache._found.values()])
