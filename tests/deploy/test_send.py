import asyncio
import json
from collections.abc import AsyncIterator

import pytest
from aiohttp import web

from deploy.fleet import Fleet, Ledger
from deploy.send import Sent, send
from tests.support.ports import free_port

FLEET = Fleet(seed=7, end_hour=1795323600, bulk_share=0.2)
TOKEN = "default:development.0123456789abcdef0123456789abcdef"


class Gateway:
    """A stand-in that remembers what it was sent; `answers` decides on each post by its number."""

    def __init__(self) -> None:
        self.got: list[tuple[str, bytes, str]] = []
        self.at_once = self.most_at_once = 0
        self.peers: set[object] = set()
        self.url = ""

    async def answer(self, number: int) -> web.StreamResponse:
        return web.Response(status=202)

    async def handle(self, request: web.Request) -> web.StreamResponse:
        number = len(self.got)
        self.got.append((request.path, await request.read(), request.headers["Authorization"]))
        self.peers.add(request.transport.get_extra_info("peername"))
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        try:
            await asyncio.sleep(0)
            return await self.answer(number)
        finally:
            self.at_once -= 1


@pytest.fixture
async def gateway() -> AsyncIterator[Gateway]:
    made = Gateway()
    app = web.Application()
    app.router.add_post("/{path:.*}", made.handle)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    port = free_port()
    await web.TCPSite(runner, "127.0.0.1", port).start()
    made.url = f"http://127.0.0.1:{port}"
    yield made
    await runner.cleanup()


async def sent_to(gateway: Gateway, payloads: int = 60, **options) -> Sent:
    sent = Sent()
    await send(FLEET, sent, urls=[f"{gateway.url}/"], token=TOKEN, payloads=payloads, **options)
    return sent


async def test_every_payload_is_posted_once_and_counted(gateway):
    sent = await sent_to(gateway)
    expected = [FLEET.payload(number) for number in range(60)]
    assert sorted((path, body) for path, body, _ in gateway.got) == sorted((each.route, each.body) for each in expected)
    assert {token for _, _, token in gateway.got} == {TOKEN}
    assert (sent.acknowledged, sent.failed, sent.doubtful) == (60, 0, [])
    assert sent.ledger.totals == Ledger.of(expected).totals


async def test_connections_are_bounded_and_used_again(gateway):
    await sent_to(gateway, 100, concurrency=5)
    assert gateway.most_at_once <= 5
    assert len(gateway.peers) <= 5


async def test_only_what_was_acknowledged_is_in_the_ledger_and_nothing_is_sent_again(gateway):
    async def answer(number: int) -> web.StreamResponse:
        return web.Response(status=(202, 200, 400, 401, 503)[number % 5])

    gateway.answer = answer
    sent = await sent_to(gateway, concurrency=1)
    assert len(gateway.got) == 60
    assert (sent.acknowledged, sent.failed, len(sent.doubtful)) == (24, 24, 12)
    assert sent.doubtful == [number for number in range(60) if number % 5 == 4]
    assert sent.ledger.totals == Ledger.of(FLEET.payload(number) for number in range(60) if number % 5 < 2).totals
    assert sent.reasons == {"refused with 400": 12, "refused with 401": 12, "answered 503": 12}


async def test_an_answer_of_500_leaves_a_doubt(gateway):
    async def answer(number: int) -> web.StreamResponse:
        if number == 3:
            raise web.HTTPInternalServerError
        return web.Response(status=202)

    gateway.answer = answer
    sent = await sent_to(gateway, 10, concurrency=1)
    assert sent.doubtful == [3]


async def test_a_closed_connection_leaves_a_doubt():
    async def hang_up(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.close()

    async with await asyncio.start_server(hang_up, "127.0.0.1", 0) as server:
        sent = Sent()
        url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        await send(FLEET, sent, urls=[url], token=TOKEN, payloads=3, concurrency=1)
    assert (sent.acknowledged, sent.failed, sent.doubtful) == (0, 0, [0, 1, 2])
    assert all(reason.startswith("the connection broke") for reason in sent.reasons)


async def test_nobody_there_is_a_failure_without_doubt():
    sent = Sent()
    await send(FLEET, sent, urls=[f"http://127.0.0.1:{free_port()}"], token=TOKEN, payloads=3)
    assert (sent.failed, sent.doubtful) == (3, [])
    assert TOKEN not in json.dumps(sent.reasons)


async def test_the_rate_spreads_payloads_over_time(gateway):
    now = 0.0
    waits: list[float] = []

    async def sleep(seconds: float) -> None:
        nonlocal now
        waits.append(seconds)
        now += seconds

    sent = await sent_to(gateway, 11, rate=5, concurrency=1, clock=lambda: now, sleep=sleep)
    assert waits == pytest.approx([0.2] * 10)
    assert sent.seconds == pytest.approx(2.0)


async def test_progress_is_told_after_each_payload(gateway):
    told: list[int] = []
    sent = Sent()
    await send(
        FLEET,
        sent,
        urls=[gateway.url],
        token=TOKEN,
        payloads=20,
        concurrency=4,
        progress=lambda now: told.append(now.done),
    )
    assert told == list(range(1, 21))


async def test_a_run_that_is_interrupted_keeps_its_ledger_and_doubts_what_was_under_way(gateway):
    waiting = asyncio.Event()

    async def answer(number: int) -> web.StreamResponse:
        if number >= 5:
            waiting.set()
            await asyncio.Event().wait()
        return web.Response(status=202)

    gateway.answer = answer
    sent = Sent()
    task = asyncio.create_task(send(FLEET, sent, urls=[gateway.url], token=TOKEN, payloads=50, concurrency=1))
    async with asyncio.timeout(10):
        await waiting.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert (sent.acknowledged, sent.doubtful) == (5, [5])
    assert sent.ledger.totals == Ledger.of(FLEET.payload(number) for number in range(5)).totals
