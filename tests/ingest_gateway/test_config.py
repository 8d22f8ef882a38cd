from pathlib import Path

import pytest
from pydantic import ValidationError

from ingest_gateway.config import Config
from schemas.urls import HttpServer, KafkaBroker, SqliteBroker


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


def test_the_broker_may_be_kafka_with_its_settings() -> None:
    config = Config(broker_url="kafka://b1:9092,b2:9092/topic", kafka_security_protocol="SSL")  # type: ignore[arg-type]
    assert config.broker == KafkaBroker(("b1:9092", "b2:9092"), "topic")
    assert isinstance(config.broker, KafkaBroker)
    assert config.client_options(config.broker)["security_protocol"] == "SSL"
    with pytest.raises(ValidationError, match="FLAGMETER_KAFKA_USERNAME"):
        Config(kafka_security_protocol="SASL_SSL")


def test_it_is_frozen() -> None:
    with pytest.raises(ValidationError):
        Config().host = "::1"  # type: ignore[misc]


def test_a_mirror_needs_an_unleash_server_and_says_so_by_both_names() -> None:
    with pytest.raises(ValidationError, match="FLAGMETER_UNLEASH_MIRROR=on needs FLAGMETER_UNLEASH_URL"):
        Config(unleash_mirror=True)
    config = Config(unleash_mirror=True, unleash_url="https://unleash.example/behind/")
    assert config.unleash == HttpServer(secure=True, host="unleash.example", port=443, prefix="/behind")
    assert Config().unleash is None


@pytest.mark.parametrize(
    "url", ["unleash:4242", "ftp://unleash", "http://", "https://user:text@unleash", "http://x?y=1"]
)
def test_a_wrong_url_of_an_unleash_server_is_refused(url: str) -> None:
    with pytest.raises(ValidationError, match="URL"):
        Config(unleash_url=url)


@pytest.mark.parametrize(
    ("host", "url", "itself"),
    [
        ("127.0.0.1", "http://localhost:4242", True),
        ("0.0.0.0", "http://127.0.0.1:4242/x", True),  # noqa: S104
        ("gateway.example", "http://GATEWAY.example:4242", True),
        ("127.0.0.1", "http://localhost:4243", False),
        ("10.0.0.5", "http://127.0.0.1:4242", False),
        ("127.0.0.1", "http://unleash:4242", False),
    ],
)
def test_a_gateway_in_front_of_itself_is_refused_before_it_starts(host: str, url: str, itself: bool) -> None:
    if not itself:
        assert Config(host=host, unleash_url=url).unleash is not None
        return
    with pytest.raises(ValidationError, match="FLAGMETER_UNLEASH_URL leads to the gateway itself"):
        Config(host=host, unleash_url=url)


@pytest.mark.parametrize("number", ["0", "257", "many"])
def test_the_number_of_workers_is_bounded(monkeypatch: pytest.MonkeyPatch, number: str) -> None:
    monkeypatch.setenv("FLAGMETER_WORKERS", number)
    with pytest.raises(ValidationError, match="workers"):
        Config()
    monkeypatch.setenv("FLAGMETER_WORKERS", "256")
    assert Config().workers == 256


@pytest.mark.parametrize(
    "url", ["unleash:4242", "http://", "https://user:secret-text@unleash", "http://x#y", "http://x /"]
)
def test_a_wrong_url_of_the_tokens_upstream_is_refused(url: str) -> None:
    with pytest.raises(ValidationError, match="URL"):
        Config(tokens_url=url)
    assert Config(tokens_url="https://unleash.example/behind/").tokens_url is not None


def test_nobody_waits_two_seconds_for_the_tokens_upstream() -> None:
    with pytest.raises(ValidationError, match="tokens_wait_seconds"):
        Config(tokens_wait_seconds=2)
