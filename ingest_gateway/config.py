"""The gateway's settings."""

from pathlib import Path
from typing import Annotated, Final

from pydantic import Field, SecretStr, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from schemas import limits, urls

Port = Annotated[int, Field(ge=0, le=65535)]

_MIB: Final = 1024 * 1024


class Config(BaseSettings):
    """Where the gateway listens, what it appends to, and how much it holds in memory."""

    model_config = SettingsConfigDict(env_prefix="FLAGMETER_", frozen=True, env_ignore_empty=True)

    data_dir: Path = Field(Path("flagmeter-data"), description="Where the embedded broker's file and the tokens are")
    host: str = Field("127.0.0.1", min_length=1, description="The address to listen on")
    gateway_port: Port = Field(4242, description="Port of the gateway; 0 lets the system choose one")
    workers: int = Field(1, ge=1, le=1, description="Processes of the service; this version runs one")
    broker_url: SecretStr | None = Field(
        None, description="The broker: `sqlite:///path`. Unset: `broker.db` in the data directory"
    )
    tokens_file: Path | None = Field(None, description="The tokens. Unset: `tokens.json` in the data directory")
    frontend_api: bool = Field(True, description="`off` answers the paths under `/api/frontend` with 404")
    max_body_bytes: int = Field(
        limits.MAX_BODY_BYTES,
        ge=1024,
        le=3 * _MIB,  # the topic's `max.message.bytes` is 4 MiB, headers and all
        description="Largest body after decompression, in bytes; a larger one is answered 413",
    )
    max_in_flight_bytes: int = Field(
        32 * _MIB,
        ge=_MIB,
        description="Bytes of bodies that are read or wait for the broker at the same time; above it 503",
    )
    max_in_flight_requests: int = Field(
        10_000, ge=1, description="Requests that are read or wait for the broker at the same time; above it 503"
    )
    body_seconds: float = Field(30.0, gt=0, le=600, description="How long a client may take to send its whole body")
    unready_seconds: float = Field(
        0.0, ge=0, le=300, description="How long to serve on after `/readyz` says no, before the port is closed"
    )

    @field_validator("broker_url")
    @classmethod
    def _is_a_broker(cls, url: SecretStr | None) -> SecretStr | None:
        if url is not None and not isinstance(urls.parse_broker(url.get_secret_value()), urls.SqliteBroker):
            raise ValueError("this version appends to sqlite:// brokers")
        return url

    @property
    def broker(self) -> urls.SqliteBroker:
        """What to append to."""
        broker = urls.parse_broker(self.broker_url.get_secret_value()) if self.broker_url else None
        return broker if isinstance(broker, urls.SqliteBroker) else urls.SqliteBroker(self.data_dir / "broker.db")

    @property
    def tokens_path(self) -> Path:
        """The tokens file."""
        return self.tokens_file or self.data_dir / "tokens.json"
