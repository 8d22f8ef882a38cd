"""The URLs that choose where flagmeter runs, read into values; secrets do not show in their `repr`."""

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final
from urllib.parse import unquote, urlsplit

_DEFAULT_TOPIC: Final = "flagmeter.metrics"
_DEFAULT_DATABASE: Final = "flagmeter"
_TOPIC: Final = re.compile(r"(?!\.{1,2}$)[a-zA-Z0-9._-]{1,249}")


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
    """`http[s]://[user:password@]host[:port]/database`.

    The files (PEM) do not stand in the URL, but beside it: the certificates to trust, our own certificate and its key.
    """

    secure: bool
    host: str
    port: int
    database: str
    user: str = ""
    password: str = field(default="", repr=False)
    ca_file: Path | None = None
    cert_file: Path | None = None
    key_file: Path | None = None


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
        if not servers or not _TOPIC.fullmatch(topic):
            raise ValueError(
                "a kafka URL names brokers and a topic (letters, digits, dots, dashes and underscores): "
                "kafka://b1:9092,b2:9092/flagmeter.metrics"
            )
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


@dataclass(frozen=True, slots=True)
class HttpServer:
    """`http[s]://host[:port][/prefix]`: a server, and what all paths there begin with; without a slash at its end."""

    secure: bool
    host: str
    port: int
    prefix: str = ""

    @property
    def authority(self) -> str:
        """What `Host` says: the port only where it is not the scheme's own."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == (443 if self.secure else 80) else f"{host}:{self.port}"

    @property
    def origin(self) -> str:
        """The URL of its root, without the prefix."""
        return f"{'https' if self.secure else 'http'}://{self.authority}"


def parse_http_server(url: str) -> HttpServer:
    """Read the URL of a server that requests are passed on to.

    Raises:
        ValueError: says what is wrong.
    """
    parts = urlsplit(url)
    if parts.scheme not in {"http", "https"} or not parts.hostname or parts.query or parts.fragment:
        raise ValueError("a server's URL is http[s]://host[:port][/path]")
    if parts.username is not None or parts.password is not None:
        raise ValueError("this URL holds no user and no password: requests come with their own token")
    if not url.isascii() or not url.isprintable() or " " in url:
        raise ValueError("a server's URL is written in ASCII, without spaces")
    secure = parts.scheme == "https"
    return HttpServer(secure, parts.hostname, parts.port or (443 if secure else 80), parts.path.rstrip("/"))
