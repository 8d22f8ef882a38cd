"""A TCP proxy in a thread that can hold an insert back: the bytes are under way, and arrive when the test wants."""

import asyncio
import contextlib
import threading
from collections.abc import Callable

from tests.support.ports import free_port


class HoldingProxy:
    """Forwards to a local port; while `hold` is set, a request that inserts stays here."""

    def __init__(self, target: int) -> None:
        self.port = free_port()
        self._target = target
        self._loop = asyncio.new_event_loop()
        self._go = asyncio.Event()
        self._go.set()
        self.held = threading.Event()
        """An insert is here."""
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._started = threading.Event()
        self._thread.start()
        assert self._started.wait(10)

    def hold(self) -> None:
        """Keep the next inserts here."""
        self._call(self._go.clear)

    def release(self) -> None:
        """Let them go, and all that follow."""
        self._call(self._go.set)

    def close(self) -> None:
        self._call(self._loop.stop)
        self._thread.join(10)

    def _call(self, work: Callable[[], object]) -> None:
        self._loop.call_soon_threadsafe(work)

    def _run(self) -> None:
        self._loop.run_until_complete(asyncio.start_server(self._serve, "127.0.0.1", self.port))
        self._started.set()
        self._loop.run_forever()
        for task in asyncio.all_tasks(self._loop):
            task.cancel()
        self._loop.run_until_complete(asyncio.sleep(0.05))
        self._loop.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            there = await asyncio.open_connection("127.0.0.1", self._target)
            await asyncio.gather(self._pump(reader, there[1], inserts=True), self._pump(there[0], writer))
        except (OSError, asyncio.CancelledError):
            pass
        finally:
            writer.close()

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, inserts: bool = False) -> None:
        with contextlib.suppress(OSError):
            while chunk := await reader.read(65536):
                if inserts and not self._go.is_set() and b"insert" in chunk[:4096].lower():
                    self.held.set()
                    await self._go.wait()
                writer.write(chunk)
                await writer.drain()
        writer.close()
