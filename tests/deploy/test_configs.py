import os
import re
from pathlib import Path

import pytest
from pydantic import SecretStr
from pydantic.fields import FieldInfo

from deploy import configs

ROOT = Path(__file__).parent.parent.parent
PACKAGES = ("schemas", "ingest_gateway", "aggregator", "query_api", "deploy")


def test_every_module_that_is_listed_has_settings():
    assert [module for module in configs.MODULES if not configs.classes(module)] == []


def test_every_settings_module_is_listed():
    found = {
        ".".join(file.relative_to(ROOT).with_suffix("").parts)
        for package in PACKAGES
        for file in (ROOT / package).rglob("*.py")
        if "SettingsConfigDict(" in file.read_text()  # those without are shared parts of others
    }
    assert found == set(configs.MODULES)


@pytest.mark.parametrize(("heading", "cls"), list(configs.every()), ids=str)
def test_settings_are_frozen_prefixed_and_described(heading, cls):
    assert cls.model_config.get("frozen") is True
    assert cls.model_config.get("env_prefix") == "FLAGMETER_"
    undescribed = [name for name, field in cls.model_fields.items() if not field.description]
    assert undescribed == []


def test_every_variable_in_the_code_means_something():
    used = {
        (name, str(file.relative_to(ROOT)))
        for package in PACKAGES
        for file in (ROOT / package).rglob("*.py")
        for name in re.findall(r"FLAGMETER_[A-Z0-9]+(?:_[A-Z0-9]+)*", file.read_text())
    }
    assert len(used) > 20
    assert [each for each in sorted(used) if each[0] not in configs.variables()] == []


def test_a_module_that_is_not_there_has_no_settings():
    assert configs.classes("no_such_package.config") == []


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (SecretStr("http://127.0.0.1/x"), "http://127.0.0.1/x"),
        (True, "on"),
        (False, "off"),
        (1.0, "1"),
        (0.25, "0.25"),
        (None, ""),
        (Path("a/b"), f"a{os.sep}b"),
        (4242, "4242"),
    ],
)
def test_defaults_are_written_for_people(value, shown):
    assert configs.default(FieldInfo(default=value)) == shown


def test_a_field_without_default_shows_none():
    assert configs.default(FieldInfo(annotation=int)) == ""
