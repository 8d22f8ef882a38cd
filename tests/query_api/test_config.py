from pathlib import Path

import pytest
from pydantic import ValidationError

from query_api.config import Config


@pytest.fixture(autouse=True)
def _nothing_is_set(monkeypatch: pytest.MonkeyPatch) -> None:
    import os

    for name in [name for name in os.environ if name.startswith("FLAGMETER_")]:
        monkeypatch.delenv(name)


def test_the_defaults_are_those_of_the_embedded_stack():
    config = Config()
    assert (config.host, config.query_port, config.cache_seconds) == ("127.0.0.1", 4243, 1.0)
    assert (config.store.host, config.store.port, config.store.database) == ("127.0.0.1", 8123, "flagmeter")
    assert config.tokens == Path("flagmeter-data/tokens.json")
    assert config.cors_origins == ()


def test_the_tokens_file_lies_in_the_data_directory_unless_named(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("FLAGMETER_DATA_DIR", "somewhere")
    assert Config().tokens == Path("somewhere/tokens.json")
    monkeypatch.setenv("FLAGMETER_TOKENS_FILE", "other.json")
    assert Config().tokens == Path("other.json")


def test_the_stores_secret_does_not_show(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("FLAGMETER_CLICKHOUSE_URL", "http://service:hush@localhost:9000/other")
    config = Config()
    assert "hush" not in repr(config)
    assert "hush" not in repr(config.store)
    assert (config.store.user, config.store.password, config.store.database) == ("service", "hush", "other")


def test_origins_are_separated_by_commas(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("FLAGMETER_CORS_ORIGINS", "https://a.example, http://localhost:3000/ ,")
    assert Config().cors_origins == ("https://a.example", "http://localhost:3000")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("CORS_ORIGINS", "*"),
        ("CORS_ORIGINS", "https://*.example"),
        ("CORS_ORIGINS", "a.example"),
        ("CORS_ORIGINS", "https://a.example/path"),
        ("CLICKHOUSE_URL", "ftp://localhost/flagmeter"),
        ("CLICKHOUSE_URL", "http://localhost/drop table"),
        ("QUERY_PORT", "0"),
        ("QUERY_PORT", "65536"),
        ("CACHE_SECONDS", "-1"),
        ("CACHE_ENTRIES", "-1"),
        ("QUERY_TIMEOUT_SECONDS", "0"),
        ("QUERY_CONNECTIONS", "0"),
        ("WORKERS", "0"),
        ("WORKERS", "257"),
    ],
)
def test_wrong_values_are_refused(monkeypatch: pytest.MonkeyPatch, name: str, value: str):
    monkeypatch.setenv(f"FLAGMETER_{name}", value)
    with pytest.raises(ValidationError, match=name.lower()):
        Config()


def test_settings_cannot_change_later():
    with pytest.raises(ValidationError):
        Config().query_port = 1  # type: ignore[misc]
