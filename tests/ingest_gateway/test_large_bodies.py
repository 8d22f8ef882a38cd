"""Large bodies are read in a thread, one after another, and nobody else waits for them."""

import asyncio
import json
import threading
from pathlib import Path

import pytest

from ingest_gateway import app
from ingest_gateway.large_bodies import LARGE_BYTES, LargeBodies
from schemas import decode
from tests.ingest_gateway import support
from tests.ingest_gateway.support import ask, connect, gateway, headers_for
from tests.support.waiting import until

WIDE = json.dumps(
    {"appName": "wide", "bucket": {"start": 0, "stop": 1, "toggles": {f"f{at}": {"yes": "1"} for at in range(9000)}}}
).encode()


async def test_one_body_is_read_at_a_time_and_whoever_left_is_skipped() -> None:
    bodies = LargeBodies()
    may_end, running = threading.Event(), threading.Event()
    ran: list[str] = []

    def slow() -> str:
        running.set()
        assert may_end.wait(support.SECONDS)
        ran.append("slow")
        return "slow"

    first = asyncio.create_task(bodies.read(slow))
    await until(running.is_set)
    left = asyncio.create_task(bodies.read(lambda: ran.append("left")))
    last = asyncio.create_task(bodies.read(lambda: ran.append("last")))
    await asyncio.sleep(0)
    left.cancel()
    first.cancel()
    await asyncio.gather(first, left, return_exceptions=True)
    assert not last.done()  # the thread is still at work for somebody who left
    may_end.set()
    await last
    assert ran == ["slow", "last"]
    bodies.close()


async def test_a_failure_reaches_whoever_asked_and_the_next_one_has_its_turn() -> None:
    bodies = LargeBodies()
    with pytest.raises(ZeroDivisionError):
        await bodies.read(lambda: 1 // 0)
    assert await bodies.read(lambda: 7) == 7
    bodies.close()


async def test_small_posts_are_answered_while_a_large_body_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert len(WIDE) > LARGE_BYTES
    reading, may_end = threading.Event(), threading.Event()
    read = decode.metrics

    def slow(body: bytes, **how: object) -> object:
        if len(body) > LARGE_BYTES:
            reading.set()
            assert may_end.wait(support.SECONDS)
        return read(body, **how)  # type: ignore[arg-type]

    monkeypatch.setattr(decode, "metrics", slow)
    async with gateway(tmp_path) as found, connect(found.port) as connection:
        await connection.send("POST", "/api/client/metrics", headers_for(), WIDE)
        await until(reading.is_set)
        assert (await ask(found.port)).status == 202
        may_end.set()
        assert (await connection.receive()).status == 202
        broken = await ask(found.port, body=b" " * LARGE_BYTES + b"{")
        assert broken.status == 400
        metrics = (await ask(found.port, "/metrics", method="GET")).body.decode()
    assert 'flagmeter_gateway_lenient_total{kind="metrics"} 1.0' in metrics
    assert max(len(value) for _, value in support.log_of(tmp_path)) == len(WIDE)
    assert app.LARGE_BYTES == LARGE_BYTES
