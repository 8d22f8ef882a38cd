"""Parts that a user's machine may lack: without them a test is skipped, but never where everything is required."""

import importlib
import os
import re
import shutil
import subprocess
from functools import cache
from types import ModuleType
from typing import NoReturn

import pytest


def program(name: str) -> None:
    """Skip the test where a program is missing; fail it where `FLAGMETER_REQUIRE_ALL=1`."""
    if not shutil.which(name):
        _lacks(f"{name} is not installed")


@cache
def java(least: int) -> None:
    """Skip or fail as `program` does where there is no Java, or an older one."""
    program("java")
    said = subprocess.run(["java", "-version"], capture_output=True, text=True, check=True).stderr
    found = re.search(r'version "(\d+)', said)
    if found is None or int(found[1]) < least:
        _lacks(f"Java {least} or newer is needed, and this is {said.splitlines()[0]}")


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
