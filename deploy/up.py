"""`flagmeter up`: the whole embedded stack in one command, from an empty directory to a clean end."""

import asyncio
import signal
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

import structlog

from deploy import broker_file, data_dir, fresh_tokens, ports, probe, stack
from deploy.config import UpConfig
from deploy.data_dir import DataDirError
from deploy.migrations import BrokerAwayError, RefusedMigrationError, StoreAwayError
from deploy.stack import Stack
from deploy.supervisor import Backoff, Child, Service, StartFailedError
from schemas import urls
from schemas.tokens import WrongTokensError, read

_log = structlog.get_logger()
READY: Final = "flagmeter is ready; Ctrl-C stops it"
_READY_SECONDS: Final = 60.0
_FAILED: Final = 1
_KILLED: Final = 130
"""The shell's status for a process that Ctrl-C ended."""

Say = Callable[[str], None]


def _say_step(line: str) -> None:
    _log.info("migrate", step=line)


class UpError(Exception):
    """`up` cannot start; says why and what to do."""


def run(config: UpConfig, *, say: Say, complain: Say, backoff: Backoff | None = None) -> int:
    """Run the stack until a signal ends it.

    Args:
        config: the settings.
        say: gets the lines for people and scripts: fresh tokens, URLs, readiness.
        complain: gets the reason when it cannot start.
        backoff: between the starts of a child that dies.

    Returns:
        The exit status: 0 after a clean end, 1 when it could not start, 130 when it was told twice.
    """
    home = config.data_dir.absolute()
    try:
        with data_dir.claimed(home):
            laid_out = _prepare(config, home, say)
            return asyncio.run(_Up(laid_out, config, say, backoff).run())
    except (
        UpError,
        DataDirError,
        StartFailedError,
        BrokerAwayError,
        StoreAwayError,
        RefusedMigrationError,
    ) as error:
        complain(str(error))
        return _FAILED


def _prepare(config: UpConfig, home: Path, say: Say) -> Stack:
    tokens_file = (config.tokens_file or home / "tokens.json").absolute()
    secret = "" if config.clickhouse_url is not None else data_dir.store_secret(home)
    laid_out = stack.plan(config, data_dir=home, tokens_file=tokens_file, secret=secret)
    faults = ports.faults(laid_out.wanted)
    if faults:
        raise UpError("\n".join(faults))
    fresh = fresh_tokens.make(tokens_file)
    for token in fresh:
        say(f"token {token.type} {token.text}")
    if not fresh:
        try:
            read(tokens_file.read_bytes())
        except (OSError, WrongTokensError) as error:
            raise UpError(f"the tokens file {tokens_file} cannot be used: {error}") from error
    return laid_out


class _Up:
    """One run: what was started, in which order, and how it ends."""

    def __init__(self, laid_out: Stack, config: UpConfig, say: Say, backoff: Backoff | None) -> None:
        self._stack = laid_out
        self._config = config
        self._say = say
        self._backoff = backoff
        self._children: dict[str, Child] = {}
        self._asked = asyncio.Event()
        self._insisted = asyncio.Event()
        self._no_more = threading.Event()

    async def run(self) -> int:
        """Give the exit status once everything has ended."""
        self._listen()
        work = asyncio.create_task(self._work())
        insisted = asyncio.create_task(self._insisted.wait())
        await asyncio.wait({work, insisted}, return_when=asyncio.FIRST_COMPLETED)
        insisted.cancel()
        if work.done():
            work.result()
            return 0
        await asyncio.gather(*(child.kill() for child in self._children.values()))
        work.cancel()
        await asyncio.wait({work})
        return _KILLED

    def _listen(self) -> None:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            # nohup ignores SIGHUP, and means it. Shells ignore SIGINT for what they run in the background, and whoever
            # sends it there means to stop us.
            if number is not signal.SIGHUP or signal.getsignal(number) is not signal.SIG_IGN:
                loop.add_signal_handler(number, self._on_signal, number)

    def _on_signal(self, number: signal.Signals) -> None:
        # Only Ctrl-C insists: make and process managers may deliver one SIGTERM twice.
        if self._asked.is_set() and number is signal.SIGINT:
            self._insisted.set()
        if not self._asked.is_set():
            _log.info("stopping; what was answered is kept", signal=number.name)
        self._asked.set()
        self._no_more.set()

    async def _work(self) -> None:
        start = asyncio.create_task(self._start())
        asked = asyncio.create_task(self._asked.wait())
        try:
            await asyncio.wait({start, asked}, return_when=asyncio.FIRST_COMPLETED)
            if start.done():
                start.result()
                self._say(READY)
                await asked
        finally:
            for task in (start, asked):
                task.cancel()
            await asyncio.gather(start, asked, return_exceptions=True)
            self._no_more.set()
            await self._stop()

    async def _start(self) -> None:
        if self._stack.store is not None:
            await self._bring_up([self._stack.store])
        await asyncio.to_thread(self._migrate)
        await self._bring_up(self._stack.services)

    async def _bring_up(self, services: Sequence[Service]) -> None:
        """Start them side by side, and say each one's line as soon as it is ready."""
        for service in services:
            child = self._children[service.name] = Child(service, backoff=self._backoff)
            child.start()
        await asyncio.gather(*(self._announce(self._children[service.name]) for service in services))

    async def _announce(self, child: Child) -> None:
        await child.ready(probe.answers, seconds=_READY_SECONDS)
        self._say(f"{child.service.name} {child.service.url}")

    def _migrate(self) -> None:
        from deploy import migrate  # noqa: PLC0415 - its driver takes a while to load; the store is started first

        migrate.run(
            self._config.clickhouse(self._stack.clickhouse_url),
            partitions=self._make_log(),
            flush_seconds=self._config.flush_seconds,
            say=_say_step,
            pause=self._pause,
        )

    def _make_log(self) -> int:
        """Make the log where it is missing, else check it; gives its number of partitions."""
        broker = urls.parse_broker(self._stack.broker_url)
        if isinstance(broker, urls.SqliteBroker):
            broker_file.make(broker.path)
            return 1
        from deploy import broker_topic  # noqa: PLC0415 - aiokafka is loaded where there is a Kafka

        place = broker_topic.Place(broker, self._config, say=_say_step, pause=self._pause)
        return broker_topic.bring(place, broker_topic.Wish())

    def _pause(self, seconds: float) -> None:
        if self._no_more.wait(seconds):
            raise StoreAwayError("stopped before everything that is needed answered")

    async def _stop(self) -> None:
        for service in self._stack.stopping:
            child = self._children.get(service.name)
            if child is not None:
                await child.stop()
