"""The variables of a process that a test starts."""

import os
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent
"""Where `python -m` finds our packages, whatever folder the tests are started from."""


def variables(**settings: object) -> dict[str, str]:
    """Give this process's variables, with these settings in place of all of its own."""
    kept = {name: text for name, text in os.environ.items() if not name.startswith("FLAGMETER_")}
    return kept | {f"FLAGMETER_{name.upper()}": str(value) for name, value in settings.items()}
