"""Run a service until a signal asks it to end."""

import asyncio
import contextlib
import errno
import resource
import signal
from collections.abc import Awaitable, Callable
from typing import Final

import structlog
import uvloop

from deploy import parent

_log = structlog.get_logger()
_FAILED: Final = 1


def until_signalled(service: Callable[[asyncio.Event], Awaitable[None]]) -> int:
    """Run `service(stop)` under uvloop; SIGTERM and SIGINT set `stop`, and the service then ends by itself.

    A second SIGINT ends the process at once. A second SIGTERM does not: `make` and process managers may deliver the
    same one twice.

    Returns:
        The exit status: 0 when the service ended, 1 when it failed (the reason is in the log).
    """
    followed = parent.follow()
    _allow_files()
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(_run(service, followed))


def _allow_files() -> None:
    """Raise the soft limit of open files to the hard one: a connection is a file, and 1,024 is a common default."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        except (OSError, ValueError) as error:  # some systems name a hard limit that they do not grant
            _log.warning("the limit of open files stays", soft=soft, hard=hard, why=str(error))


async def _run(service: Callable[[asyncio.Event], Awaitable[None]], followed: int | None) -> int:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()

    def on_signal(number: signal.Signals) -> None:
        if number is signal.SIGINT:
            loop.remove_signal_handler(number)
            signal.signal(number, signal.SIG_DFL)
        stop.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, on_signal, number)
    watcher = asyncio.ensure_future(parent.watch(followed)) if followed is not None else None
    try:
        await service(stop)
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            _log.error("the port is in use by another process", detail=str(error))
        else:
            _log.exception("the service failed")
        return _FAILED
    except Exception:  # noqa: BLE001 - the outermost frame of a process: logged, then its exit status
        _log.exception("the service failed")
        return _FAILED
    finally:
        if watcher is not None:
            watcher.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await watcher
    return 0
