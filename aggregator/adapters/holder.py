"""Who holds a lease: a process of a host, so named that another process can tell whether it is gone.

A process is its host, its start of the machine, its number and its own start time: numbers come again.
"""

import os
import platform
from pathlib import Path

_START_TIME_FIELD = 22


def myself() -> str:
    """Name this process."""
    return _name(os.getpid())


def is_gone(holder: str) -> bool:
    """Say whether the lease's holder surely runs no more: given back, or a process that is gone from this host."""
    if not holder:
        return True
    host, _, rest = holder.partition("|")
    if host != _host():
        return False
    number = rest.split("|")[1]
    return _name(int(number)) != holder


def _host() -> str:
    """Name the host, and on Linux the namespace in which process numbers mean something."""
    try:
        return f"{platform.node()}/{Path('/proc/self/ns/pid').readlink()}"
    except OSError:
        return platform.node()


def _name(process: int) -> str:
    boot = _read(Path("/proc/sys/kernel/random/boot_id"))
    started = _start_time(process)
    return f"{_host()}|{boot}|{process}|{started}"


def _start_time(process: int) -> str:
    """Give the process's start in clock ticks since the boot, or `gone`; `?` where the system does not tell."""
    if not Path("/proc/self/stat").exists():
        try:
            os.kill(process, 0)
        except ProcessLookupError:
            return "gone"
        except PermissionError:
            pass
        return "?"
    stat = _read(Path(f"/proc/{process}/stat"))
    # The second field is the program's name in parentheses and may hold anything.
    fields = stat.rpartition(")")[2].split()
    return fields[_START_TIME_FIELD - 3] if fields and fields[0] not in {"Z", "X"} else "gone"


def _read(path: Path) -> str:
    try:
        return path.read_text().strip()
    except OSError:
        return ""
