"""The aggregator's settings, from the environment."""

from pathlib import Path
from typing import Annotated

from pydantic import Field, SecretStr, field_validator
from pydantic_settings import SettingsConfigDict

from schemas import urls
from schemas.clickhouse import ClickHouseSettings
from schemas.kafka import KafkaSettings


class AggregatorConfig(KafkaSettings, ClickHouseSettings):
    """What one worker process is told."""

    model_config = SettingsConfigDict(env_prefix="FLAGMETER_", frozen=True, env_ignore_empty=True)

    data_dir: Path = Field(Path("flagmeter-data"), description="Where the embedded broker's file is")
    broker_url: SecretStr | None = Field(
        None,
        description="The broker: `kafka://host:port,host:port/topic` or `sqlite:///path`. "
        "Unset: `broker.db` in the data directory",
    )
    clickhouse_url: SecretStr = Field(
        SecretStr("http://127.0.0.1:8123/flagmeter"),
        description="Where the tables are: `http[s]://user:password@host:port/database`.",
    )
    host: str = Field("127.0.0.1", description="Address to listen on.")
    aggregator_port: Annotated[int, Field(ge=0, le=65535)] = Field(
        4245, description="Port of the aggregator's `/healthz`, `/readyz` and `/metrics`."
    )
    workers: Annotated[int, Field(ge=1, le=256)] = Field(
        1,
        description="Processes of the aggregator; they share its port, and the log's partitions. "
        "The embedded broker has one partition: one works on it, the others stand by.",
    )
    flush_seconds: Annotated[float, Field(ge=0.05, le=60)] = Field(
        1.0, description="Longest time that a batch stays open, in seconds."
    )
    drain_seconds: Annotated[float, Field(ge=1, le=600)] = Field(
        12.0, description="Longest time for storing what is open when the process is asked to end, in seconds."
    )
    kill_point_file: Path | None = Field(
        None, description="For tests only: a file that names the point of the protocol at which the worker dies."
    )

    @field_validator("broker_url")
    @classmethod
    def _readable_broker(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None:
            urls.parse_broker(value.get_secret_value())
        return value

    @field_validator("clickhouse_url")
    @classmethod
    def _readable_store(cls, value: SecretStr) -> SecretStr:
        urls.parse_clickhouse(value.get_secret_value())
        return value

    @property
    def broker(self) -> urls.SqliteBroker | urls.KafkaBroker:
        """What to read from."""
        if self.broker_url is None:
            return urls.SqliteBroker(self.data_dir / "broker.db")
        return urls.parse_broker(self.broker_url.get_secret_value())
