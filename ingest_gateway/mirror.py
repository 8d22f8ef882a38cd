"""What was accepted is told to the Unleash server as well, so that its own screens stay alive: best effort.

The bytes that go there are those that were checked: inflated, and in UTF-8. What came compressed is not kept beside
that, not every server behind takes compressed posts (Unleash Edge does not), and their limits hold for inflated bytes.
"""

import asyncio
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, NamedTuple

import structlog
from aiohttp import web

from ingest_gateway import forwarding
from ingest_gateway.circuit import Circuit
from ingest_gateway.forwarding import Incoming
from ingest_gateway.meters import Meters
from ingest_gateway.unleash_server import Away, Late, Presence, UnleashServer

_log = structlog.get_logger()

_NOT_SENT: Final = frozenset({b"content-encoding", b"content-length", b"content-type", b"expect"})
"""What the sender said of bytes that are not sent so."""
_JSON: Final = (b"Content-Type", b"application/json")
_LONGEST_ANSWER: Final = 64 * 1024
"""A connection whose answer is longer is closed rather than read to its end."""
CLOSE_SECONDS: Final = 2.0
"""How long the end waits for what has not been sent yet."""


@dataclass(frozen=True, slots=True)
class Bounds:
    """How much waits, and how much is sent.

    Attributes:
        posts: most that wait or are being sent.
        bytes: of their bodies and heads together.
        connections: most that are being sent at the same time.
        seconds: how long one may take, with its connection.
    """

    posts: int
    bytes: int
    connections: int
    seconds: float


class _Post(NamedTuple):
    incoming: Incoming
    body: bytes
    size: int


class Mirror:
    """Sends accepted posts, each once; what there is no room for is dropped. Make it in a running event loop.

    While the server is away posts are dropped as well, but for one now and then, which finds out whether it is back.

    Args:
        server: where to.
        bounds: of what waits, and of each post.
        meters: what is counted.
        clock: seconds, never going back.
    """

    def __init__(
        self, server: UnleashServer, bounds: Bounds, meters: Meters, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._server = server
        self._bounds = bounds
        self._outcomes = meters.mirrored
        self._waiting: asyncio.Queue[_Post] = asyncio.Queue()
        self._posts = 0
        self._bytes = 0
        self._presence = Presence(
            "accepted posts do not reach the Unleash server", "accepted posts reach the Unleash server again"
        )
        self._circuit = Circuit(clock, lambda _, why: self._presence.note(why))
        self._senders = [asyncio.create_task(self._send_all()) for _ in range(bounds.connections)]

    def is_echo(self, request: web.BaseRequest) -> bool:
        """Say whether a post is one that a mirror sent: to count and mirror it here may never end."""
        return forwarding.came_from_a_gateway(request.headers)

    def offer(self, request: web.BaseRequest, body: bytes) -> None:
        """Take a post, without waiting.

        Args:
            request: that was accepted.
            body: of it, inflated and in UTF-8.
        """
        size = len(body) + sum(len(name) + len(value) for name, value in request.raw_headers)
        if self._posts >= self._bounds.posts or self._bytes + size > self._bounds.bytes:
            self._outcomes.labels("dropped").inc()
            return
        self._posts += 1
        self._bytes += size
        self._waiting.put_nowait(_Post(Incoming.of(request), body, size))

    async def close(self) -> None:
        """Send what waits, within two seconds, and drop the rest."""
        try:
            async with asyncio.timeout(CLOSE_SECONDS):
                await self._waiting.join()
        except TimeoutError:
            _log.warning("what waits for the Unleash server is dropped at the end", posts=self._posts)
        for sender in self._senders:
            sender.cancel()
        await asyncio.gather(*self._senders, return_exceptions=True)
        self._outcomes.labels("dropped").inc(self._posts)

    async def _send_all(self) -> None:
        while True:
            post = await self._waiting.get()
            outcome = await self._outcome(post) if self._circuit.allows() else "dropped"
            self._outcomes.labels(outcome).inc()
            self._posts -= 1
            self._bytes -= post.size
            self._waiting.task_done()

    async def _outcome(self, post: _Post) -> str:
        """Send a post; give its outcome, for the metric."""
        try:
            async with asyncio.timeout(self._bounds.seconds):
                status = await self._send(post)
        except (Late, TimeoutError):
            self._circuit.failed("no answer in time")
            return "late"
        except Away as away:
            self._circuit.failed(str(away))
            return "away"
        except Exception as error:  # noqa: BLE001 - a fault of ours costs this post alone
            # Neither the message nor the values: both may hold what the client sent.
            where = "".join(traceback.format_tb(error.__traceback__))
            _log.error("a post could not be mirrored", fault=type(error).__name__, where=where)
            return "failed"
        self._circuit.succeeded()
        return f"{status // 100}xx"

    async def _send(self, post: _Post) -> int:
        server = self._server
        head = forwarding.request_head(
            post.incoming,
            authority=server.authority,
            prefix=server.prefix,
            without=_NOT_SENT,
            more=(_JSON, (b"Content-Length", b"%d" % len(post.body))),
        )
        exchange = await server.begin(post.incoming.method, head + post.body, silent_seconds=self._bounds.seconds)
        exchange.sent()
        try:
            answered = await exchange.answer()
            read = 0
            while read < _LONGEST_ANSWER and (piece := await exchange.read()):
                read += len(piece)
            return answered.status
        finally:
            exchange.settle()
