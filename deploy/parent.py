"""A child ends with the process that supervises it, even when that one is killed and can tell nobody."""

import asyncio
import ctypes
import os
import signal
import sys
from typing import Final

VARIABLE: Final = "FLAGMETER_SUPERVISOR_PID"
"""Set for the children of `up`, and for workers: the process that they end with."""

_PR_SET_PDEATHSIG: Final = 1
_POLL_SECONDS: Final = 1.0


def follow() -> int | None:
    """Ask the kernel to kill this process when its parent dies, where the kernel can (Linux).

    Killed rather than told to end: a crash is what the protocol is made for, and a child that drains against a store
    that is gone would keep the ports from the next `up`. Processes that this one starts do not inherit it.

    Returns:
        The parent's id where `watch` must look after it instead, as on other systems; else None.

    Raises:
        SystemExit: the parent is already gone.
    """
    parent = os.environ.pop(VARIABLE, "")
    if not parent.isdecimal():
        return None
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != int(parent):  # it died before the call above
        raise SystemExit(1)
    return None if sys.platform == "linux" else int(parent)


async def watch(parent: int) -> None:
    """End this process at once when its parent is gone; looks each second."""
    while os.getppid() == parent:  # noqa: ASYNC110 - nothing tells of a parent's death but looking
        await asyncio.sleep(_POLL_SECONDS)
    os._exit(1)
