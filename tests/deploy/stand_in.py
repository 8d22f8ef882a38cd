"""A tiny service: `python -m tests.deploy.stand_in NAME PORT DIARY [behaviour]`; writes what happens into a diary.

Behaviours: `stubborn` ignores SIGTERM; `unready` answers 503; `wrong` ends with status 2; `dies` ends with status 3.
"""

import asyncio
import os
import signal
import sys
from pathlib import Path

from deploy import parent


def main() -> int:
    name, port, diary, behaviour = sys.argv[1], int(sys.argv[2]), Path(sys.argv[3]), (*sys.argv[4:], "")[0]

    def note(what: str) -> None:
        with diary.open("a") as out:
            out.write(f"{name} {what} {os.getpid()}\n")

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        status = b"503 No" if behaviour == "unready" else b"200 OK"
        writer.write(b"HTTP/1.1 " + status + b"\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
        await writer.drain()
        writer.close()

    async def serve() -> None:
        stop = asyncio.Event()
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
        async with await asyncio.start_server(answer, "127.0.0.1", port):
            note("started")
            await stop.wait()
            note("asked")
            if behaviour == "stubborn":
                await asyncio.Event().wait()
            note("ended")

    if behaviour in {"wrong", "dies"}:
        note("died")
        return 2 if behaviour == "wrong" else 3
    parent.follow()
    asyncio.run(serve())
    return 0


if __name__ == "__main__":
    sys.exit(main())
