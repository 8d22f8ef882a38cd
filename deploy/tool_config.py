"""The settings of `flagmeter audit` and `flagmeter replay`: where broker and store are."""

from dataclasses import replace
from pathlib import Path

from pydantic import Field, SecretStr, field_validator
from pydantic_settings import SettingsConfigDict

from schemas import urls
from schemas.clickhouse import ClickHouseSettings
from schemas.kafka import KafkaSettings

_SERVICE_USER = "service"


class StoreToolConfig(ClickHouseSettings):
    """Where the tables are."""

    model_config = SettingsConfigDict(env_prefix="FLAGMETER_", frozen=True, env_ignore_empty=True)

    data_dir: Path = Field(Path("flagmeter-data"), description="Everything that the embedded stack keeps")
    clickhouse_port: int = Field(8123, ge=1, le=65535, description="Port of the embedded store's front")
    clickhouse_url: SecretStr | None = Field(
        None,
        description="ClickHouse: `http[s]://[user:password@]host[:port]/database`. Unset: the embedded store on this "
        "machine, with the secret in the data directory",
    )

    @field_validator("clickhouse_url")
    @classmethod
    def _readable_store(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None:
            urls.parse_clickhouse(value.get_secret_value())
        return value

    @property
    def store(self) -> urls.ClickHouse:
        """Where the tables are, and as whom they are asked.

        The embedded store's secret is used where it may be read; without it the store only answers questions.
        """
        if self.clickhouse_url is not None:
            return self.clickhouse(self.clickhouse_url)
        embedded = self.clickhouse(f"http://127.0.0.1:{self.clickhouse_port}/flagmeter")
        try:
            secret = (self.data_dir / "store.secret").read_text().strip()
        except OSError:
            return embedded
        return replace(embedded, user=_SERVICE_USER, password=secret)


class LogToolConfig(KafkaSettings, StoreToolConfig):
    """Where the tables and the log are."""

    model_config = SettingsConfigDict(env_prefix="FLAGMETER_", frozen=True, env_ignore_empty=True)

    broker_url: SecretStr | None = Field(
        None,
        description="The broker: `sqlite:///relative/path`, `sqlite:////absolute/path`, or "
        "`kafka://host:port,host:port/topic`. Unset: `broker.db` in the data directory, where there is one",
    )

    @field_validator("broker_url")
    @classmethod
    def _readable_broker(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None:
            urls.parse_broker(value.get_secret_value())
        return value

    @property
    def broker(self) -> urls.SqliteBroker | urls.KafkaBroker | None:
        """Where the log is; None where none is named and the embedded stack has none."""
        if self.broker_url is not None:
            return urls.parse_broker(self.broker_url.get_secret_value())
        embedded = self.data_dir.absolute() / "broker.db"
        return urls.SqliteBroker(embedded) if embedded.exists() else None
