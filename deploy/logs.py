"""Structured logging: one JSON object a line on stderr, or a console format on a terminal.

Whatever looks like an SDK token, or stands before the `@` of a URL, is cut out of every line, tracebacks too. That is
the second fence: no code is to hand such text to a logger at all.
"""

import logging
import os
import re
import sys
from collections.abc import Callable
from typing import Any, Final

import orjson
import structlog
from structlog.typing import EventDict, Processor, WrappedLogger

LEVEL_VARIABLE: Final = "FLAGMETER_LOG_LEVEL"
WORKER_VARIABLE: Final = "FLAGMETER_WORKER"
"""Set for each of several workers of a service: its number."""
DEFAULT_LEVEL: Final = "info"
LEVELS: Final = {
    "debug": logging.DEBUG,
    "info": logging.INFO,
    "warning": logging.WARNING,
    "error": logging.ERROR,
    "critical": logging.CRITICAL,
}

# `project:environment.secret`, as Unleash writes tokens; a dotted Python path has no run of 16 without a dot there.
_TOKEN: Final = re.compile(r"([\w*\[\]-]+:[\w*-]+\.)[\w-]{16,}")
_USER_INFO: Final = re.compile(r"(\w+://)[^/\s'\"]*@")
_HIDDEN: Final = "***"
# Drivers that log every failed attempt, which their callers retry and report themselves.
_SPOKEN_FOR: Final = ("urllib3", "clickhouse_connect", "aiokafka")


def configure(service: str) -> None:
    """Set up structlog, and the standard library's loggers through it.

    Args:
        service: named in every line; beside it stands the worker's number where there are several.

    Raises:
        SystemExit: with status 2, when FLAGMETER_LOG_LEVEL is not a level.
    """
    name = os.environ.get(LEVEL_VARIABLE, DEFAULT_LEVEL).strip().lower()
    if name not in LEVELS:
        sys.stderr.write(f"wrong settings:\n  {LEVEL_VARIABLE}: give one of {', '.join(LEVELS)} (it is {name!r})\n")
        raise SystemExit(2)
    level = LEVELS[name]
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        _naming(service),
        structlog.processors.StackInfoRenderer(),
        structlog.processors.format_exc_info,
        hide_secrets,
    ]
    renderer = _console() if sys.stderr.isatty() else _json()
    structlog.configure(
        processors=[*shared, renderer],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.WriteLoggerFactory(file=sys.stderr),
        cache_logger_on_first_use=False,  # a module's logger must follow a later `configure`
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, renderer],
        )
    )
    logging.basicConfig(handlers=[handler], level=max(level, logging.WARNING), force=True)
    logging.captureWarnings(True)
    for driver in _SPOKEN_FOR:
        logging.getLogger(driver).setLevel(logging.DEBUG if level == logging.DEBUG else logging.CRITICAL)


def redact(text: str) -> str:
    """Cut tokens and URL credentials out of a text; the token's project and environment stay."""
    return _USER_INFO.sub(rf"\1{_HIDDEN}@", _TOKEN.sub(rf"\1{_HIDDEN}", text))


def hide_secrets(_: WrappedLogger, __: str, event: EventDict) -> EventDict:
    """Redact every text in an event, at any depth (a structlog processor)."""
    return {key: _redacted(value) for key, value in event.items()}


def _redacted(value: Any) -> Any:
    match value:
        case str():
            return redact(value)
        case bool() | int() | float() | None:
            return value
        case dict():
            return {_redacted(key): _redacted(inner) for key, inner in value.items()}
        case list() | tuple() | set() | frozenset():
            return [_redacted(inner) for inner in value]
        case bytes():
            return redact(value.decode("utf-8", "replace"))
        case logging.LogRecord():  # the formatter's own; it needs the object
            return value
        case _:
            return redact(str(value))


def _naming(service: str) -> Processor:
    worker = os.environ.get(WORKER_VARIABLE, "")
    names = {"service": service, **({"worker": int(worker)} if worker.isdecimal() else {})}

    def name(_: WrappedLogger, __: str, event: EventDict) -> EventDict:
        for key, value in names.items():
            event.setdefault(key, value)
        return event

    return name


def _console() -> Processor:
    # Tracebacks with local variables would show tokens and passwords.
    return structlog.dev.ConsoleRenderer(exception_formatter=structlog.dev.plain_traceback)


def _json() -> Processor:
    def serialize(event: Any, default: Callable[[Any], Any] | None = None, **_: Any) -> str:
        # Lone surrogates and integers beyond 64 bits are no JSON for orjson; a log line must never fail.
        try:
            return orjson.dumps(event, default=default or str).decode()
        except TypeError:
            return orjson.dumps({str(key): _plain(value) for key, value in event.items()}).decode()

    return structlog.processors.JSONRenderer(serializer=serialize)


def _plain(value: Any) -> str:
    return str(value).encode("utf-8", "replace").decode()
