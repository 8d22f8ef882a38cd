import asyncio

import pytest
from prometheus_client import CollectorRegistry

from ingest_gateway.door import Door
from ingest_gateway.refusals import Busy
from schemas import metric_names


def test_bytes_are_held_until_their_request_leaves() -> None:
    door = Door(max_bytes=100, max_requests=10)
    first, second = door.enter(), door.enter()
    first.hold(60)
    with pytest.raises(Busy, match="bytes"):
        second.hold(41)
    second.hold(40)
    assert (door.requests, door.held) == (2, 100)
    first.leave()
    assert (door.requests, door.held) == (1, 40)
    second.release(10)
    second.leave()
    assert (door.requests, door.held) == (0, 0)


def test_only_so_many_requests_are_let_in() -> None:
    door = Door(max_bytes=100, max_requests=1)
    visit = door.enter()
    with pytest.raises(Busy, match="requests"):
        door.enter()
    visit.leave()
    door.enter()


def test_alone_a_token_may_hold_everything() -> None:
    door = Door(max_bytes=100, max_requests=4, share=0.5)
    visits = [door.enter("noisy") for _ in range(4)]
    for visit in visits:
        visit.hold(25)
    assert (door.requests, door.held) == (4, 100)


def test_where_others_are_in_a_token_gets_no_more_than_its_share() -> None:
    door = Door(max_bytes=100, max_requests=10, share=0.5)
    other = door.enter("quiet")
    other.hold(1)
    first = door.enter("noisy")
    first.hold(30)
    with pytest.raises(Busy, match="token_bytes"):
        door.enter("noisy").hold(30)
    second = door.enter("noisy")
    second.hold(20)
    for _ in range(2):
        door.enter("noisy")
    with pytest.raises(Busy, match="token_requests"):
        door.enter("noisy")
    door.enter("quiet").hold(49)


def test_a_large_body_of_a_token_that_holds_nothing_else_gets_in() -> None:
    door = Door(max_bytes=100, max_requests=10, share=0.5)
    door.enter("quiet").hold(1)
    door.enter("noisy").hold(90)


def test_whoever_was_turned_away_gets_in_when_the_noisy_one_leaves() -> None:
    now = 0.0
    door = Door(max_bytes=100, max_requests=4, share=0.5, clock=lambda: now)
    visits = [door.enter("noisy") for _ in range(4)]
    with pytest.raises(Busy, match="requests"):
        door.enter("quiet")
    visits[0].leave()
    visits[1].leave()
    with pytest.raises(Busy, match="token_requests"):
        door.enter("noisy")  # it holds two of four: the rest is kept for others
    door.enter("quiet").leave()
    now = 61.0
    door.enter("noisy")  # nobody wanted it for a minute


def test_a_noisy_token_that_is_turned_away_keeps_nothing_free_for_itself() -> None:
    door = Door(max_bytes=100, max_requests=4, share=0.5)
    visits = [door.enter("noisy") for _ in range(4)]
    with pytest.raises(Busy):
        door.enter("noisy")
    visits[0].leave()
    door.enter("noisy")


def test_only_so_many_tokens_are_remembered() -> None:
    door = Door(max_bytes=100, max_requests=10, share=0.5)
    inside = door.enter("stays")
    inside.hold(7)
    for number in range(10_000):
        door.enter(str(number)).leave()
    assert len(door._holders) <= 1024
    inside.leave()
    assert (door.requests, door.held) == (0, 0)


async def test_emptied_returns_when_the_last_one_left() -> None:
    door = Door(max_bytes=100, max_requests=10)
    await door.emptied()
    first, second = door.enter(), door.enter()
    waiting = asyncio.create_task(door.emptied())
    await asyncio.sleep(0)
    first.leave()
    await asyncio.sleep(0)
    assert not waiting.done()
    second.leave()
    async with asyncio.timeout(5):
        await waiting


def test_the_gauge_reads_what_is_held() -> None:
    registry = CollectorRegistry()
    door = Door(max_bytes=100, max_requests=10)
    door.show(metric_names.gauge(metric_names.IN_FLIGHT_BYTES, registry))
    door.enter().hold(7)
    assert registry.get_sample_value(metric_names.IN_FLIGHT_BYTES.name) == 7
