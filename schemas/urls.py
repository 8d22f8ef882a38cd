"""The URLs that choose where flagmeter runs, read into values; secrets do not show in their `repr`."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Final
from urllib.parse import unquote, urlsplit

_DEFAULT_TOPIC: Final = "flagmeter.metrics"
_DEFAULT_DATABASE: Final = "flagmeter"


@dataclass(frozen=True, slots=True)
class SqliteBroker:
    """`sqlite:///relative/path` or `sqlite:////absolute/path`: the embedded broker's file."""

    path: Path


@dataclass(frozen=True, slots=True)
class KafkaBroker:
    """`kafka://host:port,host:port/topic`."""

    servers: tuple[str, ...]
    topic: str


@dataclass(frozen=True, slots=True)
class ClickHouse:
    """`http[s]://[user:password@]host[:port]/database`."""

    secure: bool
    host: str
    port: int
    database: str
    user: str = ""
    password: str = field(default="", repr=False)


def parse_broker(url: str) -> SqliteBroker | KafkaBroker:
    """Read `FLAGMETER_BROKER_URL`.

    Raises:
        ValueError: says what is wrong and shows a right one.
    """
    parts = urlsplit(url)
    if parts.scheme == "sqlite":
        if parts.netloc or parts.path in {"", "/"}:
            raise ValueError("a sqlite URL has three slashes and a path: sqlite:///flagmeter-data/broker.db")
        return SqliteBroker(Path(unquote(parts.path[1:])))
    if parts.scheme == "kafka":
        servers = tuple(server for server in parts.netloc.split(",") if server)
        topic = parts.path.strip("/") or _DEFAULT_TOPIC
        if not servers or "/" in topic:
            raise ValueError("a kafka URL names brokers and a topic: kafka://b1:9092,b2:9092/flagmeter.metrics")
        return KafkaBroker(servers, topic)
    raise ValueError("a broker URL begins with sqlite:// or kafka://")


def parse_clickhouse(url: str) -> ClickHouse:
    """Read `FLAGMETER_CLICKHOUSE_URL`.

    Raises:
        ValueError: says what is wrong and shows a right one.
    """
    parts = urlsplit(url)
    if parts.scheme not in {"http", "https"} or not parts.hostname:
        raise ValueError("a ClickHouse URL is http[s]://[user:password@]host[:port]/database")
    secure = parts.scheme == "https"
    database = parts.path.strip("/") or _DEFAULT_DATABASE
    if not database.replace("_", "").isalnum():
        raise ValueError("the database name in a ClickHouse URL has letters, digits and underscores only")
    return ClickHouse(
        secure=secure,
        host=parts.hostname,
        port=parts.port or (8443 if secure else 8123),
        database=database,
        user=unquote(parts.username or ""),
        password=unquote(parts.password or ""),
    )
