"""The fuzzer of the decoders: one input after another in this process."""

import json
import mmap
import random
import resource
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Final, Self

from schemas.event import Kind
from tests.fuzz import decoding
from tests.fuzz.finding import Finding
from tests.fuzz.grammar import Grammar
from tests.fuzz.guide import Guide
from tests.fuzz.report import Report

_TRACED: Final = 25
"""One input in so many is traced line by line, which takes ten times as long."""
_WARM: Final = 20_000
_MOST_GROWTH: Final = 48 * 1024 * 1024
_BLACK_BOX_BYTES: Final = 8 * 1024 * 1024


def fuzz(
    *, seed: int, inputs: int, seconds: float, folder: Path, tell: Callable[[Report], None], trace: bool = True
) -> Report:
    """Check so many bodies, or as many as fit into the time.

    Args:
        seed: the same one gives the same inputs (as far as none is cut short by the time).
        inputs: how many.
        seconds: how long at most.
        folder: where finds are written; `last-input.bin` there is the input of a process that died.
        tell: is called now and then.
        trace: keep also what runs new lines, besides what has a new outcome.
    """
    rng = random.Random(seed)  # noqa: S311
    grammar, guide = Grammar(rng), Guide(rng)
    report = Report("decode", seed)
    kinds = list(Kind)
    resident = 0
    with _BlackBox(folder / "last-input.bin") as black_box:
        while report.inputs < inputs and report.seconds < seconds:
            kept = guide.choose() if rng.random() < 0.4 else None
            if kept is None:
                kind = rng.choice(kinds)
                body = grammar.body(kind)
            else:
                kind, body = kept
                kind = rng.choice(kinds) if rng.random() < 0.02 else kind
                body = grammar.damage(body)
            black_box.write(kind, body)
            report.inputs += 1
            began = time.thread_time()
            try:
                if trace and report.inputs % _TRACED == 0:
                    signature, more = guide.traced(partial(decoding.check, kind, body, timed=False))
                    guide.learn(kind, body, signature, more=more)
                else:
                    guide.learn(kind, body, decoding.check(kind, body))
                    report.note_time(time.thread_time() - began, len(body))
            except Finding as finding:
                report.keep(folder, finding, json.dumps({"kind": kind, "body": body.decode("latin-1")}))
            if report.inputs == _WARM:
                resident = _resident()
            if report.inputs % 5_000 == 0:
                report.detail = f"{len(guide.kept)} kept, {guide.edges} pairs of lines"
                tell(report)
    if resident:
        report.growth = _resident() - resident
        if report.growth > _MOST_GROWTH:
            report.keep(folder, Finding(f"memory grew by {report.growth / 2**20:.0f} MiB"), "{}")
    return report


class _BlackBox:
    """Holds the input under way in a file that outlives the process, whatever ends it."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(bytes(_BLACK_BOX_BYTES))
        self._file = path.open("r+b")
        self._map = mmap.mmap(self._file.fileno(), _BLACK_BOX_BYTES)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._map.close()
        self._file.close()

    def write(self, kind: Kind, body: bytes) -> None:
        line = b"%s %d\n" % (kind.encode(), len(body))
        self._map[: len(line) + len(body)] = line + body


def _resident() -> int:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize()
