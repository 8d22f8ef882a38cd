"""Settings from the environment: every wrong value is listed at once, and no secret is shown."""

import difflib
import os
import re
import sys
from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import Any, Final, TypeVar

from pydantic import SecretStr, ValidationError
from pydantic_settings import BaseSettings, SettingsError

from deploy import configs

C = TypeVar("C", bound=BaseSettings)

PREFIX: Final = "FLAGMETER_"
WRONG_SETTINGS: Final = 2
"""Exit status of a process that was configured wrongly: the same as for a wrong command line."""

_LONGEST_SHOWN: Final = 60
# Kubernetes puts such variables beside a Service named flagmeter-…; nobody meant them as settings.
_SERVICE_LINK: Final = re.compile(r"_SERVICE_(HOST|PORT)(_\w+)?$|_PORT_\d+_(TCP|UDP)(_\w+)?$")


class WrongSettingsError(Exception):
    """Some settings cannot be used; `faults` has one line each and no secret."""

    def __init__(self, faults: list[str]) -> None:
        super().__init__("; ".join(faults))
        self.faults = faults


def load(cls: type[C], *, also: Iterable[type[BaseSettings]] = (), **given: Any) -> C:
    """Read the settings of one service, or end the process with all faults on stderr.

    Args:
        cls: the service's settings.
        also: settings of processes that this one will start; they are only checked.
        given: values that win over the environment: a command's options.

    Raises:
        SystemExit: with status 2, when something is wrong.
    """
    try:
        return read(cls, also=also, **given)
    except WrongSettingsError as error:
        sys.stderr.write("".join(f"{line}\n" for line in ["wrong settings:", *(f"  {f}" for f in error.faults)]))
        raise SystemExit(WRONG_SETTINGS) from None


def read(cls: type[C], *, also: Iterable[type[BaseSettings]] = (), **given: Any) -> C:
    """Read the settings of one service, and check those of others; `given` wins over the environment.

    Raises:
        WrongSettingsError: lists every fault by the name of its variable, unknown variables of ours among them.
    """
    own = {configs.variable(cls, field) for field in cls.model_fields}
    config, faults = _made(cls, given)
    for other in also:
        beside = _made(other, {name: value for name, value in given.items() if name in other.model_fields})[1]
        faults += [
            fault for fault in beside if fault.partition(":")[0] not in {known.partition(":")[0] for known in faults}
        ]
    faults += unknown(os.environ, configs.variables() | own)
    if config is None or faults:
        raise WrongSettingsError(faults) from None
    return config


def _made(cls: type[C], given: Mapping[str, Any]) -> tuple[C | None, list[str]]:
    """Make the settings, or list what is wrong with them; the errors themselves carry values, secrets among them."""
    try:
        return cls(**given), []
    except ValidationError as error:
        return None, [_fault(cls, dict(fault)) for fault in error.errors(include_url=False, include_context=False)]
    except SettingsError as error:
        return None, [f"{error}: give it as JSON"]


def unknown(environment: Mapping[str, str], known: Collection[str]) -> list[str]:
    """Find variables of ours that nothing reads: most likely misspelt.

    Args:
        environment: all variables.
        known: the names that mean something.

    Returns:
        One sentence for each, with the name that was probably meant.
    """
    return [
        f"{name} is not a setting of flagmeter{_meant(name, known)}"
        for name in sorted(environment)
        if name.startswith(PREFIX) and name not in known and not _SERVICE_LINK.search(name)
    ]


def _meant(name: str, known: Collection[str]) -> str:
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.75)
    return f"; did you mean {near[0]}?" if near else ": remove it, or see docs/reference/settings.md"


def _fault(cls: type[BaseSettings], found: dict[str, Any]) -> str:
    path = found["loc"]
    message = str(found["msg"]).removeprefix("Value error, ")
    if not path:  # a rule between several fields
        return message
    field = str(path[0])
    name = configs.variable(cls, field)
    if found["type"] == "missing":
        return f"{name} is not set"
    given = os.environ.get(name)
    shown = f" (it is {_shown(given)})" if given is not None and not _is_secret(cls, field, given) else ""
    return f"{name}: {message}{shown}"


def _shown(value: str) -> str:
    return repr(value if len(value) <= _LONGEST_SHOWN else value[:_LONGEST_SHOWN] + "…")


def _is_secret(cls: type[BaseSettings], field: str, given: str) -> bool:
    known = cls.model_fields.get(field)
    return known is None or "@" in given or any(kind is SecretStr for kind in _kinds(known.annotation))


def _kinds(annotation: Any) -> Iterator[Any]:
    yield annotation
    for part in getattr(annotation, "__args__", ()):
        yield from _kinds(part)
