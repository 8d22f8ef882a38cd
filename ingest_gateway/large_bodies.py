"""Large bodies are read in a thread: the lenient decoder may need half a second for one, and the loop goes on."""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Final, TypeVar

R = TypeVar("R")

LARGE_BYTES: Final = 128 * 1024
"""A body above this is large. Edges send at most 100 KiB, SDKs far less; at worst the loop is held for 30 ms by one."""


class LargeBodies:
    """Reads one large body at a time, first come, first served."""

    def __init__(self) -> None:
        self._turn = asyncio.Semaphore(1)
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="large-bodies")

    async def read(self, work: Callable[[], R]) -> R:
        """Run `work` in the thread; whoever leaves while waiting for its turn leaves nothing behind."""
        await self._turn.acquire()
        doing = asyncio.get_running_loop().run_in_executor(self._thread, work)
        doing.add_done_callback(self._end)
        return await asyncio.shield(doing)  # a thread cannot be cancelled: the next one waits for its end

    def _end(self, done: "asyncio.Future[R]") -> None:
        self._turn.release()
        if not done.cancelled():
            done.exception()  # where nobody waits any more it is nobody's fault to report

    def close(self) -> None:
        """End the thread; waits for the body that it reads."""
        self._thread.shutdown(cancel_futures=True)
