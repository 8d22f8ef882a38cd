"""A token's bucket, under a clock that the test moves; and what a client sees of it."""

from pathlib import Path

import pytest

from ingest_gateway.rates import _KEPT, Rates, Throttled
from tests.ingest_gateway.support import BACKEND_DEV, BACKEND_PROD, FRONTEND_DEV, ask, gateway, headers_for


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def taken(rates: Rates, token: str, posts: int) -> int:
    count = 0
    for _ in range(posts):
        try:
            rates.take(token)
        except Throttled:
            continue
        count += 1
    return count


def test_a_burst_is_taken_and_then_the_rate() -> None:
    clock = Clock()
    rates = Rates(rate=2.0, burst=5, clock=clock)
    assert taken(rates, "a", 20) == 5
    clock.now += 1.0
    assert taken(rates, "a", 20) == 2
    clock.now += 100.0
    assert taken(rates, "a", 20) == 5


def test_over_a_minute_no_more_than_the_rate_is_taken() -> None:
    clock = Clock()
    rates = Rates(rate=8.0, burst=1, clock=clock)
    count = 0
    for _ in range(60 * 128):
        clock.now += 1 / 128
        count += taken(rates, "a", 1)
    assert count == 480


def test_one_token_costs_the_others_nothing() -> None:
    rates = Rates(rate=1.0, burst=3, clock=Clock())
    assert taken(rates, "noisy", 1000) == 3
    assert taken(rates, "quiet", 3) == 3


def test_the_wait_is_told_in_whole_seconds_and_is_true() -> None:
    clock = Clock()
    rates = Rates(rate=0.25, burst=1, clock=clock)
    rates.take("a")
    clock.now += 0.5
    with pytest.raises(Throttled) as told:
        rates.take("a")
    assert told.value.seconds == 4
    clock.now += 4
    rates.take("a")


def test_full_buckets_are_forgotten_and_others_are_not() -> None:
    clock = Clock()
    rates = Rates(rate=0.001, burst=1, clock=clock)
    rates.take("first")
    quick = Rates(rate=1000.0, burst=1, clock=clock)
    for number in range(3 * _KEPT):
        quick.take(str(number))
        clock.now += 0.001
    assert len(quick._full_at) <= _KEPT
    assert taken(rates, "first", 1) == 0


async def test_a_token_above_its_rate_gets_429_and_when_to_come_again(tmp_path: Path) -> None:
    async with gateway(tmp_path, token_rate=0.01, token_burst=2) as found:
        statuses = [(await ask(found.port)).status for _ in range(3)]
        assert statuses == [202, 202, 429]
        reply = await ask(found.port)
        assert 90 <= int(reply.headers["retry-after"]) <= 100
        assert reply.json() == {"message": "this token posts too often"}
        other = await ask(found.port, headers=headers_for(BACKEND_PROD))
        assert other.status == 202
        front = [
            await ask(found.port, "/api/frontend/client/metrics", headers=headers_for(FRONTEND_DEV)) for _ in range(3)
        ]
        assert [each.status for each in front] == [200, 200, 429]
        assert front[2].headers["access-control-allow-origin"] == "*"
        metrics = (await ask(found.port, "/metrics", method="GET")).body.decode()
    assert 'flagmeter_gateway_shed_total{reason="rate"} 3.0' in metrics
    assert BACKEND_DEV not in metrics


async def test_without_a_rate_nothing_is_counted(tmp_path: Path) -> None:
    async with gateway(tmp_path) as found:
        assert found.gateway._rates is None
        assert {(await ask(found.port)).status for _ in range(30)} == {202}
