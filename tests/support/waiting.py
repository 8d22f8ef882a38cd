"""Wait for a condition, never for a time: each wait has a deadline, and fails there."""

import asyncio
import inspect
import time
from collections.abc import Awaitable, Callable
from typing import Any


def wait_for(condition: Callable[[], Any], *, seconds: float = 30, what: str = "it") -> Any:
    """Ask until the answer is truthy, and give it; fails after the deadline, with the last answer."""
    deadline = time.monotonic() + seconds
    while True:
        last = condition()
        if last:
            return last
        assert time.monotonic() < deadline, f"{what} did not happen within {seconds} s (last: {last!r})"
        time.sleep(0.02)


async def until(condition: Callable[[], Awaitable[object] | object], *, seconds: float = 20) -> None:
    """Ask until the answer, or what is awaited from it, is truthy; fails after the deadline."""
    async with asyncio.timeout(seconds):
        while True:
            found = condition()
            if await found if inspect.isawaitable(found) else found:
                return
            await asyncio.sleep(0.005)
