"""Parts that a user's machine may lack: without them a test is skipped, but never where everything is required."""

import importlib
import os
import shutil
from types import ModuleType
from typing import NoReturn

import pytest


def program(name: str) -> None:
    """Skip the test where a program is missing; fail it where `FLAGMETER_REQUIRE_ALL=1`."""
    if not shutil.which(name):
        _lacks(f"{name} is not installed")


def _lacks(reason: str) -> NoReturn:
    if os.environ.get("FLAGMETER_REQUIRE_ALL") == "1":
        pytest.fail(f"{reason}, and FLAGMETER_REQUIRE_ALL=1 allows no skipping")
    pytest.skip(reason, allow_module_level=True)


def module(name: str) -> ModuleType:
    """Import a module that only some machines have; skip or fail as `program` does."""
    try:
        return importlib.import_module(name)
    except ImportError:
        _lacks(f"the package {name} is not installed")
