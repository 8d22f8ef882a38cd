import pytest
from pydantic import Field, SecretStr, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from deploy import settings
from schemas import urls


class Config(BaseSettings):
    model_config = SettingsConfigDict(env_prefix="FLAGMETER_", frozen=True)

    gateway_port: int = Field(4242, ge=1, le=65535)
    api_secret: SecretStr = Field(SecretStr("long enough"), min_length=8)
    clickhouse_url: SecretStr = SecretStr("http://127.0.0.1/flagmeter")
    folder: str

    @field_validator("clickhouse_url")
    @classmethod
    def _is_one(cls, value: SecretStr) -> SecretStr:
        urls.parse_clickhouse(value.get_secret_value())
        return value


@pytest.fixture(autouse=True)
def _no_other_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLAGMETER_FOLDER", "somewhere")


def test_right_settings_are_read_from_the_environment(monkeypatch):
    monkeypatch.setenv("FLAGMETER_GATEWAY_PORT", "8080")
    config = settings.load(Config)
    assert (config.gateway_port, config.folder) == (8080, "somewhere")


def test_what_a_command_was_given_wins_over_the_environment(monkeypatch):
    monkeypatch.setenv("FLAGMETER_GATEWAY_PORT", "8080")
    assert settings.load(Config, gateway_port=9090).gateway_port == 9090


def test_all_wrong_settings_are_listed_at_once_and_no_secret_is_shown(monkeypatch, capsys):
    monkeypatch.setenv("FLAGMETER_GATEWAY_PORT", "many")
    monkeypatch.setenv("FLAGMETER_API_SECRET", "hushhus")
    monkeypatch.setenv("FLAGMETER_CLICKHOUSE_URL", "ftp://user:hush@host/x")
    monkeypatch.delenv("FLAGMETER_FOLDER")
    with pytest.raises(SystemExit) as ended:
        settings.load(Config)
    assert ended.value.code == 2
    said = capsys.readouterr().err
    assert "FLAGMETER_GATEWAY_PORT" in said
    assert "'many'" in said
    assert "FLAGMETER_API_SECRET" in said
    assert "FLAGMETER_CLICKHOUSE_URL: a ClickHouse URL is http[s]://" in said
    assert "FLAGMETER_FOLDER is not set" in said
    assert "hush" not in said


def test_the_error_keeps_no_secret_in_its_chain(monkeypatch):
    monkeypatch.setenv("FLAGMETER_API_SECRET", "hushhus")
    with pytest.raises(settings.WrongSettingsError) as raised:
        settings.read(Config)
    assert raised.value.__suppress_context__
    assert raised.value.__cause__ is None


def test_a_misspelt_variable_is_named_with_the_one_that_was_meant(monkeypatch):
    monkeypatch.setenv("FLAGMETER_GATWAY_PORT", "4242")
    with pytest.raises(settings.WrongSettingsError) as raised:
        settings.read(Config)
    assert raised.value.faults == [
        "FLAGMETER_GATWAY_PORT is not a setting of flagmeter; did you mean FLAGMETER_GATEWAY_PORT?"
    ]


def test_wrong_values_and_unknown_variables_are_listed_together(monkeypatch):
    monkeypatch.setenv("FLAGMETER_GATEWAY_PORT", "0")
    monkeypatch.setenv("FLAGMETER_NONSENSE_QQQ", "1")
    with pytest.raises(settings.WrongSettingsError) as raised:
        settings.read(Config)
    assert len(raised.value.faults) == 2


def test_the_variables_that_kubernetes_adds_for_a_service_are_no_fault():
    environment = {
        "FLAGMETER_GATEWAY_SERVICE_HOST": "10.0.0.1",
        "FLAGMETER_GATEWAY_SERVICE_PORT_HTTP": "80",
        "FLAGMETER_GATEWAY_PORT_80_TCP_ADDR": "10.0.0.1",
        "OTHER": "x",
    }
    assert settings.unknown(environment, {"FLAGMETER_HOST"}) == []


def test_a_long_value_is_cut(monkeypatch):
    monkeypatch.setenv("FLAGMETER_GATEWAY_PORT", "x" * 500)
    with pytest.raises(settings.WrongSettingsError) as raised:
        settings.read(Config)
    assert len(raised.value.faults[0]) < 250


def test_wrong_settings_of_the_services_that_up_starts_are_listed_with_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    from deploy import configs
    from deploy.config import UpConfig

    monkeypatch.delenv("FLAGMETER_FOLDER")
    wrong = {
        "FLAGMETER_FLUSH_SECONDS": "never",
        "FLAGMETER_FRONTEND_API": "maybe",
        "FLAGMETER_CACHE_SECONDS": "-1",
        "FLAGMETER_STORE_MAX_READS": "0",
        "FLAGMETER_DRAIN_SECONDS": "x",
        "FLAGMETER_NO_SUCH": "1",
    }
    for name, value in wrong.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(settings.WrongSettingsError) as caught:
        settings.read(UpConfig, also=[found for _, found in configs.every()])
    named = [fault.split(":")[0].split()[0] for fault in caught.value.faults]
    assert sorted(named) == sorted(wrong), "each once"
