"""Parts that a user's machine may lack: without them a test is skipped, but never where everything is required."""

import os
import shutil

import pytest


def program(name: str) -> None:
    """Skip the test where a program is missing; fail it where `FLAGMETER_REQUIRE_ALL=1`."""
    if shutil.which(name):
        return
    reason = f"{name} is not installed"
    if os.environ.get("FLAGMETER_REQUIRE_ALL") == "1":
        pytest.fail(f"{reason}, and FLAGMETER_REQUIRE_ALL=1 allows no skipping")
    pytest.skip(reason)
