"""Settings of the query API, from the environment (`FLAGMETER_…`)."""

from pathlib import Path
from typing import Annotated

from pydantic import Field, SecretStr, field_validator
from pydantic_settings import NoDecode, SettingsConfigDict

from schemas.clickhouse import ClickHouseSettings
from schemas.urls import ClickHouse, parse_clickhouse


class Config(ClickHouseSettings):
    """What can be set, with its default and unit."""

    model_config = SettingsConfigDict(env_prefix="FLAGMETER_", frozen=True, env_ignore_empty=True)

    host: str = Field("127.0.0.1", min_length=1, description="The address to listen on")
    query_port: int = Field(4243, ge=1, le=65535, description="The query API's port")
    workers: int = Field(1, ge=1, le=256, description="Processes of the query API; they share its port")
    clickhouse_url: SecretStr = Field(
        SecretStr("http://127.0.0.1:8123/flagmeter"),
        description="The store: http[s]://[user:password@]host[:port]/database",
    )
    data_dir: Path = Field(Path("flagmeter-data"), description="Everything that the embedded stack keeps")
    tokens_file: Path | None = Field(None, description="The tokens; `tokens.json` in the data directory by default")
    query_timeout_seconds: float = Field(
        10.0, gt=0, le=300, description="The longest time for one answer of the store, in seconds; then 503"
    )
    query_connect_seconds: float = Field(
        2.0, gt=0, le=60, description="The longest time for a new connection to the store, in seconds"
    )
    query_connections: int = Field(
        8, ge=1, le=256, description="Statements that each worker runs in the store at once; more wait for their turn"
    )
    cache_seconds: float = Field(
        1.0, ge=0, le=3600, description="How long an answer is given again without asking the store, in seconds"
    )
    cache_entries: int = Field(1024, ge=0, le=1_000_000, description="The most answers that are kept")
    cache_bytes: int = Field(32 * 1024 * 1024, ge=0, description="The most bytes of answers that are kept")
    cors_origins: Annotated[tuple[str, ...], NoDecode] = Field(
        (), description="Origins that may call from a browser, separated by commas; none by default"
    )

    @field_validator("clickhouse_url")
    @classmethod
    def _is_a_store(cls, value: SecretStr) -> SecretStr:
        parse_clickhouse(value.get_secret_value())
        return value

    @field_validator("cors_origins", mode="before")
    @classmethod
    def _split(cls, value: object) -> object:
        if not isinstance(value, str):
            return value
        return tuple(origin.strip().rstrip("/") for origin in value.split(",") if origin.strip())

    @field_validator("cors_origins")
    @classmethod
    def _are_origins(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for origin in value:
            scheme, separator, host = origin.partition("://")
            if scheme not in {"http", "https"} or not separator or not host or "/" in host or "*" in host:
                raise ValueError("an origin is http[s]://host[:port]; several are separated by commas")
        return value

    @property
    def store(self) -> ClickHouse:
        """Where the store is."""
        return self.clickhouse(self.clickhouse_url)

    @property
    def tokens(self) -> Path:
        """Where the tokens are."""
        return self.tokens_file or self.data_dir / "tokens.json"
