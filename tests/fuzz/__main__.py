"""`python -m tests.fuzz --target decode --inputs 100000 --seed 1 --seconds 60`: exits with 1 on a find."""

import argparse
import sys
import tempfile
from pathlib import Path

from tests.fuzz import decode_fuzzer, http_fuzzer
from tests.fuzz.report import Report

_FUZZERS = {"decode": decode_fuzzer.fuzz, "http": http_fuzzer.fuzz}


def main() -> int:
    """Run one fuzzer."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("--target", choices=_FUZZERS, required=True)
    parser.add_argument("--inputs", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=600.0)
    parser.add_argument("--finds", type=Path, default=None, help="where inputs that broke something are written")
    chosen = parser.parse_args()
    folder = chosen.finds or Path(tempfile.mkdtemp(prefix="flagmeter-fuzz."))
    found: Report = _FUZZERS[chosen.target](
        seed=chosen.seed,
        inputs=chosen.inputs,
        seconds=chosen.seconds,
        folder=folder,
        tell=lambda report: print(report, flush=True),
    )
    print(found)
    return 1 if found.finds else 0


if __name__ == "__main__":
    sys.exit(main())
