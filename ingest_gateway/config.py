"""The gateway's settings."""

from pathlib import Path
from typing import Annotated, Final, Self

from pydantic import Field, SecretStr, field_validator, model_validator
from pydantic_settings import SettingsConfigDict

from schemas import limits, urls
from schemas.kafka import KafkaSettings

Port = Annotated[int, Field(ge=0, le=65535)]

_MIB: Final = 1024 * 1024
_LOOPBACK: Final = frozenset({"localhost", "127.0.0.1", "::1"})
_ANY: Final = frozenset({"0.0.0.0", "::"})  # noqa: S104 - only compared with


class Config(KafkaSettings):
    """Where the gateway listens, what it appends to, and how much it holds in memory."""

    model_config = SettingsConfigDict(env_prefix="FLAGMETER_", frozen=True, env_ignore_empty=True)

    data_dir: Path = Field(Path("flagmeter-data"), description="Where the embedded broker's file and the tokens are")
    host: str = Field("127.0.0.1", min_length=1, description="The address to listen on")
    gateway_port: Port = Field(4242, description="Port of the gateway; 0 lets the system choose one")
    workers: int = Field(1, ge=1, le=256, description="Processes of the gateway; they share its port")
    broker_url: SecretStr | None = Field(
        None,
        description="The broker: `sqlite:///path`, or `kafka://host:port,host:port/topic`. "
        "Unset: `broker.db` in the data directory",
    )
    tokens_file: Path | None = Field(None, description="The tokens. Unset: `tokens.json` in the data directory")
    tokens_url: str | None = Field(
        None,
        description="The root of a server that is asked for tokens which the file does not know, at `/edge/validate`: "
        "`http[s]://host[:port][/path]` of an Unleash server, or of our management API. Unset: the file alone counts",
    )
    tokens_wait_seconds: float = Field(
        1.5, gt=0, le=1.9, description="How long a request with a token that was never found waits for that server"
    )
    tokens_refresh_seconds: float = Field(
        60.0, gt=0, description="How old that server's word for a token may be; a token in use is asked for again then"
    )
    tokens_unknown_seconds: float = Field(
        60.0, gt=0, description="How long a token that the server did not know is refused without asking again"
    )
    tokens_grace_seconds: float = Field(
        604_800.0, gt=0, description="How long a token that was found stays accepted while the server does not answer"
    )
    tokens_cache_entries: int = Field(
        10_000, ge=1, description="Most found tokens, and most unknown ones, that are kept in memory, in each worker"
    )
    frontend_api: bool = Field(True, description="`off` answers the paths under `/api/frontend` with 404")
    unleash_url: str | None = Field(
        None,
        description="An Unleash server, `http[s]://host[:port][/path]`: what is not ours passes through to it. "
        "Unset: it is answered as far as the tokens go, else with 404",
    )
    unleash_connect_seconds: float = Field(
        5.0, gt=0, le=60, description="How long a connection to that server may take; then 504"
    )
    unleash_silent_seconds: float = Field(
        30.0,
        gt=0,
        le=600,
        description="How long that server may take to begin its answer, and then between two pieces of it; then 504. "
        "Streams of events may be silent for as long as they like",
    )
    unleash_max_requests: int = Field(
        512,
        ge=1,
        description="Requests, without streams, that one worker passes through at the same time; above it 503",
    )
    unleash_max_streams: int = Field(
        1000,
        ge=1,
        description="Streams that one worker keeps open at the same time, each with two open files; above it 503",
    )
    unleash_max_body_bytes: int = Field(
        16 * _MIB, ge=1024, description="Largest body of a request that passes through, as sent; a larger one gets 413"
    )
    unleash_mirror: bool = Field(
        False, description="`on` sends accepted posts to the Unleash server as well, best effort, after the 2xx"
    )
    unleash_mirror_max_posts: int = Field(
        10_000, ge=1, description="Posts that wait for the mirror in one worker; more are dropped and counted"
    )
    unleash_mirror_max_bytes: int = Field(16 * _MIB, ge=_MIB, description="Their bytes; more are dropped and counted")
    unleash_mirror_connections: int = Field(
        4, ge=1, le=256, description="Posts that the mirror of one worker sends at the same time"
    )
    unleash_mirror_seconds: float = Field(
        10.0, gt=0, le=60, description="How long a mirrored post may take; it is not sent again"
    )
    max_body_bytes: int = Field(
        limits.MAX_BODY_BYTES,
        ge=1024,
        le=3 * _MIB,  # the topic's `max.message.bytes` is 4 MiB, headers and all
        description="Largest body after decompression, in bytes; a larger one is answered 413",
    )
    max_in_flight_bytes: int = Field(
        32 * _MIB,
        ge=_MIB,
        description="Bytes of bodies that one worker reads or that wait for the broker at the same time; above it 503",
    )
    max_in_flight_requests: int = Field(
        10_000,
        ge=1,
        description="Requests that one worker reads or that wait for the broker at the same time; above it 503",
    )
    max_token_share: float = Field(
        0.5,
        gt=0,
        le=1,
        description="Share of both that one token may hold while others want in; alone it may hold everything",
    )
    token_rate: float = Field(
        0.0, ge=0, le=1e6, description="Posts a second that one worker takes of one token; above it 429. 0: no limit"
    )
    token_burst: int = Field(
        0, ge=0, description="Posts at once that a token may send after a pause, under that rate. 0: ten seconds' worth"
    )
    body_seconds: float = Field(30.0, gt=0, le=600, description="How long a client may take to send its whole body")
    unready_seconds: float = Field(
        0.0, ge=0, le=300, description="How long to serve on after `/readyz` says no, before the port is closed"
    )

    @field_validator("broker_url")
    @classmethod
    def _is_a_broker(cls, url: SecretStr | None) -> SecretStr | None:
        if url is not None:
            urls.parse_broker(url.get_secret_value())
        return url

    @field_validator("tokens_url", "unleash_url")
    @classmethod
    def _is_a_server(cls, url: str | None) -> str | None:
        if url is not None:
            urls.parse_http_server(url)
        return url

    @model_validator(mode="after")
    def _leads_to_an_unleash_server(self) -> Self:
        server = self.unleash
        if server is None:
            if self.unleash_mirror:
                raise ValueError("FLAGMETER_UNLEASH_MIRROR=on needs FLAGMETER_UNLEASH_URL: where to")
            return self
        own = _LOOPBACK if self.host in _ANY | _LOOPBACK else {self.host.lower()}
        if server.host in own and server.port == self.gateway_port:
            raise ValueError(
                "FLAGMETER_UNLEASH_URL leads to the gateway itself; FLAGMETER_GATEWAY_PORT gives that another port"
            )
        return self

    @property
    def unleash(self) -> urls.HttpServer | None:
        """The server behind the gateway."""
        return None if self.unleash_url is None else urls.parse_http_server(self.unleash_url)

    @property
    def broker(self) -> urls.SqliteBroker | urls.KafkaBroker:
        """What to append to."""
        if self.broker_url is None:
            return urls.SqliteBroker(self.data_dir / "broker.db")
        return urls.parse_broker(self.broker_url.get_secret_value())

    @property
    def burst(self) -> int:
        """Posts at once that a token may send after a pause."""
        return self.token_burst or max(1, round(10 * self.token_rate))

    @property
    def tokens_path(self) -> Path:
        """The tokens file."""
        return self.tokens_file or self.data_dir / "tokens.json"
