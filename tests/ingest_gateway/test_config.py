from pathlib import Path

import pytest
from pydantic import ValidationError

from ingest_gateway.config import Config
from schemas.urls import SqliteBroker


def test_the_defaults_are_the_documented_ones() -> None:
    config = Config()
    assert (config.host, config.gateway_port, config.workers) == ("127.0.0.1", 4242, 1)
    assert config.broker == SqliteBroker(Path("flagmeter-data/broker.db"))
    assert config.tokens_path == Path("flagmeter-data/tokens.json")
    assert config.frontend_api
    assert config.max_body_bytes == 2 * 1024 * 1024


def test_everything_can_be_set_by_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLAGMETER_BROKER_URL", "sqlite:////var/lib/flagmeter/b.db")
    monkeypatch.setenv("FLAGMETER_FRONTEND_API", "off")
    monkeypatch.setenv("FLAGMETER_MAX_BODY_BYTES", "4096")
    monkeypatch.setenv("FLAGMETER_TOKENS_FILE", "elsewhere.json")
    config = Config()
    assert config.broker == SqliteBroker(Path("/var/lib/flagmeter/b.db"))
    assert not config.frontend_api
    assert config.max_body_bytes == 4096
    assert config.tokens_path == Path("elsewhere.json")


def test_wrong_values_are_listed_together() -> None:
    with pytest.raises(ValidationError) as wrong:
        Config(broker_url="redis://x", gateway_port=-1, max_body_bytes=5)  # type: ignore[arg-type]
    assert {error["loc"][0] for error in wrong.value.errors()} == {"broker_url", "gateway_port", "max_body_bytes"}


def test_a_broker_that_this_version_cannot_append_to_is_refused_before_it_starts() -> None:
    with pytest.raises(ValidationError, match="appends to sqlite"):
        Config(broker_url="kafka://b1:9092/topic")  # type: ignore[arg-type]


def test_it_is_frozen() -> None:
    with pytest.raises(ValidationError):
        Config().host = "::1"  # type: ignore[misc]
