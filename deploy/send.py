"""`flagmeter send`: post a synthetic fleet's payloads, and say exactly what was acknowledged.

Like an SDK that loses its window when a post fails, it never posts a payload twice.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from enum import Enum
from http import HTTPStatus
from typing import Final

import aiohttp

from deploy.fleet import Fleet, Ledger, Payload

_SECONDS: Final = 10.0
"""How long one post may take. The gateway answers a window within 5 s, whatever happens."""
_KEPT_REASONS: Final = 20


class Verdict(Enum):
    """What is known about a payload after its post."""

    ACKNOWLEDGED = "acknowledged"
    FAILED = "failed"
    DOUBTFUL = "doubtful"


@dataclass(slots=True)
class Sent:
    """What became of the payloads.

    Attributes:
        ledger: the totals of the acknowledged ones alone.
        acknowledged: how many were answered with a 2xx: these are counted, exactly once.
        failed: how many surely were not taken.
        doubtful: the numbers of those whose answer does not tell (time-out, lost connection, 5xx): some of them may
            be counted.
        reasons: how often each kind of failure was met.
        seconds: how long it took.
    """

    ledger: Ledger = field(default_factory=Ledger)
    acknowledged: int = 0
    failed: int = 0
    doubtful: list[int] = field(default_factory=list)
    reasons: dict[str, int] = field(default_factory=dict)
    seconds: float = 0.0

    @property
    def done(self) -> int:
        """How many payloads have their verdict."""
        return self.acknowledged + self.failed + len(self.doubtful)

    def note(self, payload: Payload, verdict: Verdict, reason: str) -> None:
        """Enter one payload's verdict."""
        match verdict:
            case Verdict.ACKNOWLEDGED:
                self.acknowledged += 1
                self.ledger.add(payload)
                return
            case Verdict.FAILED:
                self.failed += 1
            case Verdict.DOUBTFUL:
                self.doubtful.append(payload.number)
        if reason in self.reasons or len(self.reasons) < _KEPT_REASONS:
            self.reasons[reason] = self.reasons.get(reason, 0) + 1


async def send(
    fleet: Fleet,
    sent: Sent,
    *,
    urls: Sequence[str],
    token: str,
    payloads: int,
    rate: float = 0.0,
    concurrency: int = 32,
    progress: Callable[[Sent], None] = lambda _: None,
    enough: Callable[[], bool] = lambda: False,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], Awaitable[object]] = asyncio.sleep,
) -> None:
    """Post the fleet's first payloads.

    Args:
        fleet: whose.
        sent: is filled in; handed in so that a run that is cancelled leaves what it has, with the posts that were
            under way as doubtful.
        urls: of the gateways, without a path; they are posted to in turn.
        token: a backend token.
        payloads: how many.
        rate: payloads a second; 0 is as fast as they are answered.
        concurrency: posts under way at the same time, each on a connection that is used again.
        progress: is called after each verdict.
        enough: is asked before each post; ends it early.
        clock: seconds, monotonic.
        sleep: waits so many seconds.
    """
    numbers = iter(range(payloads))
    gateways = [url.rstrip("/") for url in urls]
    began = clock()

    async def post_some(session: aiohttp.ClientSession) -> None:
        for number in numbers:  # shared: each worker takes the next one
            if enough():
                return
            if rate:
                early = began + number / rate - clock()
                if early > 0:
                    await sleep(early)
            payload = fleet.payload(number)
            try:
                verdict, reason = await _post(session, gateways[number % len(gateways)], token, payload)
            except asyncio.CancelledError:
                sent.note(payload, Verdict.DOUBTFUL, "interrupted")
                raise
            sent.note(payload, verdict, reason)
            progress(sent)

    connector = aiohttp.TCPConnector(limit=concurrency)
    try:
        async with (
            aiohttp.ClientSession(connector=connector, timeout=aiohttp.ClientTimeout(total=_SECONDS)) as session,
            asyncio.TaskGroup() as group,
        ):
            for _ in range(min(concurrency, payloads)):
                group.create_task(post_some(session))
    finally:
        sent.doubtful.sort()
        sent.seconds = clock() - began


async def _post(session: aiohttp.ClientSession, url: str, token: str, payload: Payload) -> tuple[Verdict, str]:
    headers = {**payload.headers, "Authorization": token}
    try:
        async with session.post(url + payload.route, data=payload.body, headers=headers) as response:
            await response.read()
            return _judge(response.status)
    except aiohttp.ClientConnectorError as error:
        return Verdict.FAILED, f"no connection ({error.os_error.strerror or 'refused'})"
    except TimeoutError:
        return Verdict.DOUBTFUL, f"no answer within {_SECONDS:g} s"
    except aiohttp.ClientError as error:
        return Verdict.DOUBTFUL, f"the connection broke ({type(error).__name__})"


def _judge(status: int) -> tuple[Verdict, str]:
    if HTTPStatus.OK <= status < HTTPStatus.MULTIPLE_CHOICES:
        return Verdict.ACKNOWLEDGED, ""
    if status < HTTPStatus.INTERNAL_SERVER_ERROR:
        return Verdict.FAILED, f"refused with {status}"
    return Verdict.DOUBTFUL, f"answered {status}"
