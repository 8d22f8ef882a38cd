"""What a fuzzer did, and what it found."""

import hashlib
import time
from dataclasses import dataclass, field
from pathlib import Path

from tests.fuzz.finding import Finding


@dataclass
class Report:
    """A run in numbers.

    Attributes:
        target: what was fuzzed.
        seed: repeats it.
        inputs: how many so far.
        finds: what was broken, each with the file that holds its input.
        slowest: seconds of processor time of the slowest input, and its bytes.
        growth: bytes of memory between the warmed-up start and the end.
        detail: more of it, for people.
    """

    target: str
    seed: int
    inputs: int = 0
    finds: list[tuple[str, Path]] = field(default_factory=list)
    slowest: tuple[float, int] = (0.0, 0)
    growth: int = 0
    detail: str = ""
    _began: float = field(default_factory=time.monotonic)

    @property
    def seconds(self) -> float:
        """How long it runs already."""
        return time.monotonic() - self._began

    def note_time(self, seconds: float, size: int) -> None:
        """Remember the slowest."""
        if seconds > self.slowest[0]:
            self.slowest = (seconds, size)

    def keep(self, folder: Path, finding: Finding, document: str) -> None:
        """Write a find; of each kind only a few."""
        what = str(finding)
        if sum(known == what for known, _ in self.finds) >= 5:
            return
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / f"{self.target}-{hashlib.sha256(document.encode()).hexdigest()[:12]}.json"
        path.write_text(document)
        self.finds.append((what, path))
        print(f"FOUND {what}: {path}", flush=True)

    def __str__(self) -> str:
        seconds, size = self.slowest
        return (
            f"{self.target}, seed {self.seed}: {self.inputs} inputs in {self.seconds:.0f} s "
            f"({self.inputs / max(self.seconds, 0.001):.0f} a second), {len(self.finds)} finds; "
            f"slowest {seconds:.3f} s for {size} bytes; memory {self.growth / 2**20:+.1f} MiB; {self.detail}"
        )
