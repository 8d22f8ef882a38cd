"""A tiny service of several workers: `python -m tests.deploy.worker_stand_in`, told by variables.

Each worker answers `GET` with its number on the shared port, counts that, and writes what happens into `DIARY`. As a
parent it starts `FLAGMETER_WORKERS` of itself. Behaviours (`BEHAVIOUR`, for all): `stubborn` ignores SIGTERM; `wrong`
ends with status 2; `spoilt` does so from its second start on.
"""

import asyncio
import os
import sys
from pathlib import Path

import structlog
from prometheus_client import CollectorRegistry, Gauge

from deploy import logs, peers, run, workers
from deploy.supervisor import Backoff
from deploy.workers import Plan
from schemas import metric_names
from schemas.peers import Report

_log = structlog.get_logger()
DIARY = Path(os.environ["DIARY"])
BEHAVIOUR = os.environ.get("BEHAVIOUR", "")
WORKERS = int(os.environ["FLAGMETER_WORKERS"])
PORT = int(os.environ["FLAGMETER_GATEWAY_PORT"])


def note(what: str) -> None:
    with DIARY.open("a") as out:
        out.write(f"{os.environ.get('FLAGMETER_WORKER', 'parent')} {what} {os.getpid()}\n")


async def serve(stop: asyncio.Event) -> None:
    async with peers.joined(WORKERS) as everyone:
        registry = CollectorRegistry()
        answered = metric_names.counter(metric_names.APPENDED, registry)
        held: Gauge = metric_names.gauge(metric_names.IN_FLIGHT_BYTES, registry)
        held.set_function(lambda: 10.0)

        async def report() -> Report:
            return Report()

        async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            head = await reader.readuntil(b"\r\n\r\n")
            status, body = b"200 OK", os.environ.get("FLAGMETER_WORKER", "0").encode()
            if head.startswith(b"GET /readyz"):
                told = await everyone.report()
                status, body = (b"503 No" if told.unready else status), "; ".join(told.unready).encode()
            elif head.startswith(b"GET /metrics"):
                body = await everyone.metrics()
            else:
                answered.inc()
            length = str(len(body)).encode()
            writer.write(
                b"HTTP/1.1 " + status + b"\r\nConnection: close\r\nContent-Length: " + length + b"\r\n\r\n" + body
            )
            await writer.drain()
            writer.close()

        everyone.introduce(report, registry)
        async with await asyncio.start_server(answer, "127.0.0.1", PORT, reuse_port=everyone.shares_port):
            _log.info("it listens")
            note("started")
            await stop.wait()
            note("asked")
            if BEHAVIOUR == "stubborn":
                await asyncio.Event().wait()
            note("ended")


def main() -> int:
    logs.configure("stand-in")
    if workers.wanted(WORKERS):
        plan = Plan(
            package="tests.deploy.worker_stand_in",
            workers=WORKERS,
            host="127.0.0.1",
            port=PORT,
            port_variable="FLAGMETER_GATEWAY_PORT",
            stop_seconds=0.5 if BEHAVIOUR == "stubborn" else 20,
        )
        return workers.keep(plan, backoff=Backoff(first=0.05))
    restarted = f"{os.environ.get('FLAGMETER_WORKER')} started " in DIARY.read_text()
    if BEHAVIOUR == "wrong" or (BEHAVIOUR == "spoilt" and restarted):
        note("refused")
        return 2
    return run.until_signalled(serve)


if __name__ == "__main__":
    sys.exit(main())
