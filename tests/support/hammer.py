"""Posts as fast as the answers come, over many connections: `python -m tests.support.hammer PORT CONNECTIONS SECONDS`.

A process of its own and little more than a socket for each connection, so that it takes less than what it measures.
"""

import asyncio
import json
import subprocess
import sys
import time
from collections import Counter
from typing import cast

import uvloop

from tests.ingest_gateway.support import BACKEND_DEV
from tests.support.environment import ROOT

TOGGLES = {f"feature-{at}": {"yes": 1, "no": 0, "variants": {"blue": 1, "green": 0}} for at in range(20)}
BUCKET = {"start": "2026-11-22T12:00:00.000Z", "stop": "2026-11-22T12:01:00.000Z", "toggles": TOGGLES}
_CONNECT_AT_ONCE = 64
_SETTLE_SECONDS = 2.0


def hammer(port: int, connections: int, seconds: float) -> tuple[float, set[str]]:
    """Post 20-flag payloads; gives the answers a second, once all connections are there, and their statuses."""
    command = [sys.executable, "-m", "tests.support.hammer", str(port), str(connections), str(seconds)]
    done = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, timeout=seconds + 60)
    found = json.loads(done.stdout)
    return found["rate"], set(found["statuses"])


class _Client(asyncio.Protocol):
    """One connection; each has an id of its own, so that they spread over the partitions."""

    def __init__(self, number: int, answers: "Counter[bytes]") -> None:
        body = json.dumps({"appName": "shop", "instanceId": f"{number}", "bucket": BUCKET}).encode()
        head = (
            f"POST /api/client/metrics HTTP/1.1\r\nHost: gateway\r\nAuthorization: {BACKEND_DEV}\r\n"
            f"Content-Type: application/json\r\nunleash-connection-id: {number}\r\nContent-Length: {len(body)}\r\n\r\n"
        )
        self._request = head.encode() + body
        self._answers = answers
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._transport.write(self._request)

    def data_received(self, data: bytes) -> None:
        assert self._transport is not None
        if data.startswith(b"HTTP/1.1 "):  # answers are small: each comes in one piece
            self._answers[data[9:12]] += 1
            self._transport.write(self._request)


async def _main(port: int, connections: int, seconds: float) -> None:
    loop = asyncio.get_running_loop()
    answers: Counter[bytes] = Counter()
    made = []
    for first in range(0, connections, _CONNECT_AT_ONCE):
        numbers = range(first, min(first + _CONNECT_AT_ONCE, connections))
        made += await asyncio.gather(
            *(loop.create_connection(lambda at=number: _Client(at, answers), "127.0.0.1", port) for number in numbers)  # type: ignore[misc]
        )
    await asyncio.sleep(_SETTLE_SECONDS)
    before, began = answers.total(), time.monotonic()
    await asyncio.sleep(seconds)
    rate = (answers.total() - before) / (time.monotonic() - began)
    for transport, _ in made:
        transport.abort()
    print(json.dumps({"rate": rate, "statuses": sorted(status.decode() for status in answers)}))


if __name__ == "__main__":
    uvloop.run(_main(int(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3])))
