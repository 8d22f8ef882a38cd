"""The README's commands give the README's answers (acceptance 10)."""

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

from tests.support import needs
from tests.support.stack import Stack
from tests.support.waiting import wait_for

ROOT = Path(__file__).parent.parent.parent
README = (ROOT / "README.md").read_text()
DEFAULTS = {"4242": "gateway_port", "4243": "query_port", "8123": "store_port"}


class Step(NamedTuple):
    command: str
    answer: str


def steps() -> list[Step]:
    found = []
    for block in re.findall(r"```console\n(.*?)```", README, re.DOTALL):
        for part in re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]:
            command, _, answer = part.partition("\n")
            found.append(Step(command, answer.strip("\n")))
    return found


def pattern(answer: str) -> str:
    """An ellipsis stands for what differs each time."""
    return ".*".join(re.escape(part) for part in answer.split("…"))


def test_every_command_gives_its_answer(stack: Stack) -> None:
    needs.program("curl")
    known = steps()
    assert len(known) >= 6
    environment = os.environ | {
        "BACKEND_TOKEN": stack.tokens["backend"],
        "ADMIN_TOKEN": stack.tokens["admin"],
        "FLAGMETER_GATEWAY_PORT": str(stack.gateway_port),
    }
    flagmeter = f"{sys.executable} -m deploy.cli"
    for command, answer in known:
        if command.startswith("export "):
            continue  # stands for the tokens that `make up` printed
        here = command.replace(".venv/bin/flagmeter", flagmeter)
        for port, name in DEFAULTS.items():
            here = here.replace(f":{port}", f":{getattr(stack, name)}")
        if "flagmeter send" in command:
            here = here.replace(" send ", f" send --url {stack.gateway} ")
        ran = subprocess.run(
            here, shell=True, cwd=ROOT, env=environment, capture_output=True, text=True, check=False, timeout=60
        )
        assert re.fullmatch(pattern(answer), ran.stdout.strip("\n")), f"{command}\ngave {ran.stdout}{ran.stderr}"
        if "/api/client/metrics" in command:
            wait_for(lambda: stack.number("SELECT count() FROM evaluations") >= 2, what="the count")


def test_the_readme_shows_what_up_prints(stack: Stack) -> None:
    (shown,) = re.findall(r"```\n(token backend.*?)```", README, re.DOTALL)
    for line in shown.strip().splitlines():
        here = line
        for port, name in DEFAULTS.items() | {"4245": "aggregator_port"}.items():
            here = here.replace(f":{port}", f":{getattr(stack, name)}")
        assert [said for said in stack.lines if re.fullmatch(pattern(here), said)], f"{here} not in {stack.lines}"


def test_the_make_targets_of_the_readme_exist() -> None:
    listed = subprocess.run(["make", "help"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    for target in re.findall(r"^make (\S+)", README, re.MULTILINE):
        assert re.search(rf"^  make {target} ", listed, re.MULTILINE), target
