"""The fuzzer of the gateway's port: a real process on a SQLite broker, and many clients that misbehave."""

import asyncio
import base64
import contextlib
import json
import random
import re
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

import psutil

from tests.fuzz.finding import Finding
from tests.fuzz.report import Report
from tests.fuzz.requests import Visit, Visits
from tests.ingest_gateway.support import TOKENS_FILE, ask
from tests.support.ports import free_port
from tests.support.services import ServiceProcess

_TOGETHER: Final = 32
_BATCH: Final = 512
_WARM_SHARE: Final = 0.2
_MOST_GROWTH: Final = 32 * 1024 * 1024
_ANSWER_SECONDS: Final = 20.0
_QUIET_SECONDS: Final = 0.2
_BODY_SECONDS: Final = 1.0
_STATUS: Final = re.compile(rb"HTTP/1\.1 (\d{3}) [^\r\n]*\r\n")
_LENGTH: Final = re.compile(rb"\r\nContent-Length: (\d+)\r\n")
FAULTS: Final = ("Traceback", "a request failed", "a connection failed", "fault: ")


@contextlib.contextmanager
def gateway(folder: Path, **settings: object) -> Iterator[ServiceProcess]:
    """Run a gateway as a process, with the tokens of the unit tests."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "tokens.json").write_bytes(TOKENS_FILE)
    port = free_port()
    known = {"data_dir": folder, "gateway_port": port, "body_seconds": _BODY_SECONDS}
    service = ServiceProcess("ingest_gateway", folder, port, **(known | settings))
    try:
        yield service.start()
    finally:
        service.kill()


def fuzz(*, seed: int, inputs: int, seconds: float, folder: Path, tell: Callable[[Report], None]) -> Report:
    """Make so many visits, or as many as fit into the time.

    Args:
        seed: the same one gives the same visits, though not the same order at the gateway.
        inputs: how many.
        seconds: how long at most.
        folder: where finds are written, and the gateway's data is.
        tell: is called now and then.
    """
    with gateway(folder / "gateway") as service:
        return asyncio.run(_fuzz(service, seed, inputs, seconds, folder, tell))


async def _fuzz(
    service: ServiceProcess, seed: int, inputs: int, seconds: float, folder: Path, tell: Callable[[Report], None]
) -> Report:
    visits = Visits(random.Random(seed))  # noqa: S311
    report = Report("http", seed)
    statuses: Counter[int] = Counter()
    process = psutil.Process(service.pid)
    resident = told = read = 0
    while report.inputs < inputs and report.seconds < seconds:
        batch = [visits.make() for _ in range(min(_BATCH, inputs - report.inputs))]
        waiting = iter(batch)

        async def client(waiting: Iterator[Visit] = waiting) -> None:
            for visit in waiting:
                began = time.monotonic()
                try:
                    statuses.update(await pay(service.port, visit))
                except Finding as finding:
                    report.keep(folder, finding, to_json([visit]))
                report.note_time(time.monotonic() - began, sum(map(len, visit.pieces)))

        await asyncio.gather(*(client() for _ in range(_TOGETHER)))
        report.inputs += len(batch)
        with service.log.open() as log:
            log.seek(read)
            new = log.read()
            read = log.tell()
        for fault in FAULTS:
            if fault in new:
                report.keep(folder, Finding(f"the log says {fault!r}"), to_json(batch))
        if not service.is_running():
            report.keep(folder, Finding("the gateway ended"), to_json(batch))
            return report
        if not resident and report.inputs >= _WARM_SHARE * inputs:
            resident = process.memory_info().rss
        if report.inputs - told >= 1_000:
            told = report.inputs
            report.detail = f"answers {dict(sorted(statuses.items()))}"
            tell(report)
    reply = await ask(service.port)
    if reply.status != 202:
        report.keep(folder, Finding(f"an honest post gets {reply.status} afterwards"), to_json(batch))
    report.growth = process.memory_info().rss - resident
    report.detail = f"answers {dict(sorted(statuses.items()))}, gateway {process.memory_info().rss / 2**20:.0f} MiB"
    if report.growth > _MOST_GROWTH:
        report.keep(folder, Finding(f"memory grew by {report.growth / 2**20:.0f} MiB"), to_json(batch))
    return report


async def pay(port: int, visit: Visit) -> list[int]:
    """Pay a visit; gives the statuses of all answers.

    Raises:
        Finding: an answer that is none, is missing, or has a status that is never wanted.
    """
    try:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
    except OSError as error:
        raise Finding(f"no connection: {error}") from error
    received = bytearray()
    try:
        with contextlib.suppress(OSError):
            for piece in visit.pieces:
                writer.write(piece)
                await writer.drain()
                if visit.pause:
                    await asyncio.sleep(visit.pause)
            if visit.end == "leave":
                return []
            if visit.end == "half":
                writer.write_eof()
        await _read(reader, received, due=visit.answers is not None)
    finally:
        writer.transport.abort()
    statuses = read_answers(bytes(received), whole=visit.answers is not None)
    finals = [status for status in statuses if status >= 200]
    if visit.answers is not None and len(finals) < visit.answers and 413 not in finals and 400 not in finals:
        raise Finding(f"{len(finals)} answers to {visit.answers} requests")
    return statuses


async def _read(reader: asyncio.StreamReader, received: bytearray, *, due: bool) -> None:
    """Read until the gateway closes; where no answer is due, only as long as something comes."""
    try:
        async with asyncio.timeout(_ANSWER_SECONDS if due else _QUIET_SECONDS):
            while chunk := await reader.read(65536):
                received += chunk
    except ConnectionError:
        return
    except TimeoutError:
        if due:
            raise Finding("no end of the answers") from None


def read_answers(data: bytes, *, whole: bool) -> list[int]:
    """Read answers one after another; gives their statuses. All of them are `whole`, unless HEAD was asked.

    Raises:
        Finding: something is no answer, or has a 5xx that is never wanted.
    """
    statuses: list[int] = []
    at = 0
    while at < len(data):
        first = _STATUS.match(data, at)
        end = data.find(b"\r\n\r\n", at)
        if first is None or end < 0:
            raise Finding(f"no answer: {data[at : at + 60]!r}")
        status = int(first[1])
        statuses.append(status)
        if status >= 500 and status != 503:
            raise Finding(f"answered {status}")
        length = _LENGTH.search(data, at, end + 4)
        at = end + 4
        if length is not None and data[at : at + 4] != b"HTTP":  # HEAD has a length and no body
            at += int(length[1])
    if whole and at > len(data):
        raise Finding("an answer is cut short")
    return statuses


def to_json(visits: list[Visit]) -> str:
    """Write visits so that a test can pay them again."""
    return json.dumps(
        [
            {
                "pieces": [base64.b85encode(piece).decode() for piece in visit.pieces],
                "pause": visit.pause,
                "end": visit.end,
                "answers": visit.answers,
            }
            for visit in visits
        ]
    )


def from_json(document: str) -> list[Visit]:
    """Read what `to_json` wrote."""
    return [
        Visit(tuple(map(base64.b85decode, each["pieces"])), each["pause"], each["end"], each["answers"])
        for each in json.loads(document)
    ]
