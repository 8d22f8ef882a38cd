"""Every settings class of flagmeter, found in the modules that hold them, and every variable that means something."""

import importlib
import importlib.util
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Final

from pydantic import SecretStr
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefinedType
from pydantic_settings import BaseSettings

MODULES: Final[Mapping[str, str]] = {
    "deploy.config": "`flagmeter up` and `flagmeter migrate`",
    "deploy.tool_config": "`flagmeter audit` and `flagmeter replay`",
    "ingest_gateway.config": "Gateway",
    "aggregator.config": "Aggregator",
    "query_api.config": "Query API",
    "deploy.store.config": "Embedded store",
}
"""The modules with settings, and the heading of each in the reference."""

OTHERS: Final[Mapping[str, str]] = {
    "FLAGMETER_LOG_LEVEL": "The least level that is logged: debug, info, warning, error or critical. Default: info.",
    "FLAGMETER_TOKEN": "The token that `flagmeter send` posts with, where `--token` is not given.",
    "FLAGMETER_REQUIRE_ALL": "For tests: 1 makes a test fail whose real part (an engine, a browser) is missing, "
    "where it would be skipped otherwise.",
    "FLAGMETER_TEST_KAFKA": "For tests: the `host:port` of a Kafka to use, in place of one that they start themselves.",
    "FLAGMETER_SUPERVISOR_PID": "Set by `flagmeter up`, and by a service of several workers, for the processes that it "
    "starts, so that they end with it.",
    "FLAGMETER_WORKER": "Set by a service of several workers for each: its number.",
    "FLAGMETER_WORKERS_DIR": "Set by a service of several workers for each: their private folder.",
}
"""Variables that are read outside of a settings class."""


def classes(module: str) -> list[type[BaseSettings]]:
    """Give the settings classes that a module defines, in its order; none where there is no such module."""
    try:
        if importlib.util.find_spec(module) is None:
            return []
    except ModuleNotFoundError:  # not even its package
        return []
    return [
        value
        for value in vars(importlib.import_module(module)).values()
        if isinstance(value, type) and issubclass(value, BaseSettings) and value.__module__ == module
    ]


def every() -> Iterator[tuple[str, type[BaseSettings]]]:
    """Give every settings class with the heading of its module."""
    for module, heading in MODULES.items():
        for cls in classes(module):
            yield heading, cls


def fields(cls: type[BaseSettings]) -> list[tuple[str, FieldInfo]]:
    """Give a class's settings in the order to show them: its own first, then what it shares with other services."""
    own = [name for name in cls.model_fields if name in cls.__annotations__]
    return [(name, cls.model_fields[name]) for name in dict.fromkeys([*own, *cls.model_fields])]


def variable(cls: type[BaseSettings], field: str) -> str:
    """Give the name of the environment variable that sets this field."""
    return f"{cls.model_config.get('env_prefix', '')}{field}".upper()


def default(field: FieldInfo) -> str:
    """Write a field's default for people; empty where it has none, or where it is made at run time."""
    value = field.get_default()
    match value:
        case SecretStr():
            return value.get_secret_value()  # a default is public
        case bool():
            return "on" if value else "off"
        case Path():
            return str(value)
        case None | PydanticUndefinedType():
            return ""
        case _:
            return f"{value:g}" if isinstance(value, float) else str(value)


@cache
def variables() -> frozenset[str]:
    """Give the name of every variable that means something."""
    fields = {variable(cls, field) for _, cls in every() for field in cls.model_fields}
    return frozenset(fields | OTHERS.keys())
