"""The settings of the command line itself: of `flagmeter up` and of `flagmeter migrate`."""

from pathlib import Path
from typing import Annotated, Final

from pydantic import Field, SecretStr, field_validator
from pydantic_settings import SettingsConfigDict

from schemas import urls
from schemas.clickhouse import ClickHouseSettings
from schemas.kafka import KafkaSettings

Port = Annotated[int, Field(ge=1, le=65535)]

_BROKER: Final = (
    "The broker: `sqlite:///relative/path`, `sqlite:////absolute/path`, or `kafka://host:port,host:port/topic`. "
    "Unset: `broker.db` in the data directory"
)
_CLICKHOUSE: Final = "ClickHouse: `http[s]://[user:password@]host[:port]/database`"
_FLUSH: Final = "The longest time a batch stays open, in seconds"


def _checked_broker(url: SecretStr | None) -> SecretStr | None:
    if url is not None:
        urls.parse_broker(url.get_secret_value())
    return url


def _checked_clickhouse(url: SecretStr | None) -> SecretStr | None:
    if url is not None:
        urls.parse_clickhouse(url.get_secret_value())
    return url


class UpConfig(KafkaSettings, ClickHouseSettings):
    """What `flagmeter up` starts, and where it keeps it."""

    model_config = SettingsConfigDict(env_prefix="FLAGMETER_", frozen=True, env_ignore_empty=True)

    data_dir: Path = Field(Path("flagmeter-data"), description="Everything that the embedded stack keeps")
    host: str = Field("127.0.0.1", min_length=1, description="The address to listen on (the store: always loopback)")
    gateway_port: Port = Field(4242, description="Port of the gateway")
    query_port: Port = Field(4243, description="Port of the query API")
    management_port: Port = Field(4244, description="Port of the management API (reserved)")
    aggregator_port: Port = Field(4245, description="Port of the aggregator's `/healthz`, `/readyz` and `/metrics`")
    clickhouse_port: Port = Field(8123, description="Port of the embedded store's front")
    broker_url: SecretStr | None = Field(None, description=_BROKER)
    clickhouse_url: SecretStr | None = Field(
        None, description=f"{_CLICKHOUSE}. Unset: `up` starts the embedded store and uses it"
    )
    tokens_file: Path | None = Field(
        None, description="The tokens; made by `up` where it is missing. Unset: `tokens.json` in the data directory"
    )
    workers: int = Field(
        1,
        ge=1,
        le=256,
        description="Processes of the gateway and of the query API, each; "
        "of the aggregator, too, where the broker has more than the embedded one's single partition",
    )
    flush_seconds: float = Field(1.0, gt=0, le=60, description=_FLUSH)

    _broker = field_validator("broker_url")(_checked_broker)
    _clickhouse = field_validator("clickhouse_url")(_checked_clickhouse)


class MigrateConfig(KafkaSettings, ClickHouseSettings):
    """Where `flagmeter migrate` makes what is missing."""

    model_config = SettingsConfigDict(env_prefix="FLAGMETER_", frozen=True, env_ignore_empty=True)

    data_dir: Path = Field(Path("flagmeter-data"), description="Where the embedded broker's file is made")
    broker_url: SecretStr | None = Field(None, description=_BROKER)
    clickhouse_url: SecretStr = Field(SecretStr("http://127.0.0.1:8123/flagmeter"), description=_CLICKHOUSE)
    flush_seconds: float = Field(1.0, gt=0, le=60, description=f"{_FLUSH}; decides how wide a window tokens need")

    _broker = field_validator("broker_url")(_checked_broker)
    _clickhouse = field_validator("clickhouse_url")(_checked_clickhouse)
