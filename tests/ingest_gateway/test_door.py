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
