"""What `flagmeter up` starts: from settings to services with their commands and variables. Pure."""

import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final
from urllib.parse import quote

from deploy.config import UpConfig
from deploy.ports import Wanted
from deploy.supervisor import Service
from schemas import urls

STORE_HOST: Final = "127.0.0.1"
STORE_USER: Final = "service"
_EVERYWHERE: Final = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 - to reach what listens everywhere


@dataclass(frozen=True, slots=True)
class Stack:
    """The services in the order in which they start; they are stopped in the order of `stopping`.

    Attributes:
        store: the embedded store; None where the settings name a ClickHouse.
        services: gateway, aggregator and query API.
        broker_url: where the log is.
        clickhouse_url: with the embedded store's secret in it, hence not shown.
        wanted: the ports that must be free.
    """

    store: Service | None
    services: tuple[Service, ...]
    broker_url: str
    clickhouse_url: str = field(repr=False)
    wanted: tuple[Wanted, ...] = ()

    @property
    def stopping(self) -> tuple[Service, ...]:
        """First what takes in, then what carries on, last what the others need: nothing drains into a closed store."""
        return (*self.services, *([self.store] if self.store is not None else []))


def plan(config: UpConfig, *, data_dir: Path, tokens_file: Path, secret: str) -> Stack:
    """Lay out the stack.

    Args:
        config: the settings.
        data_dir: absolute.
        tokens_file: absolute.
        secret: of the embedded store's user `service`.
    """
    broker_url = config.broker_url.get_secret_value() if config.broker_url else sqlite_url(data_dir / "broker.db")
    if config.clickhouse_url is not None:
        clickhouse_url = config.clickhouse_url.get_secret_value()
    else:
        clickhouse_url = f"http://{STORE_USER}:{quote(secret, safe='')}@{STORE_HOST}:{config.clickhouse_port}/flagmeter"
    shared = {
        "FLAGMETER_DATA_DIR": str(data_dir),
        "FLAGMETER_HOST": config.host,
        "FLAGMETER_GATEWAY_PORT": str(config.gateway_port),
        "FLAGMETER_QUERY_PORT": str(config.query_port),
        "FLAGMETER_MANAGEMENT_PORT": str(config.management_port),
        "FLAGMETER_AGGREGATOR_PORT": str(config.aggregator_port),
        "FLAGMETER_CLICKHOUSE_PORT": str(config.clickhouse_port),
        "FLAGMETER_BROKER_URL": broker_url,
        "FLAGMETER_CLICKHOUSE_URL": clickhouse_url,
        "FLAGMETER_TOKENS_FILE": str(tokens_file),
        "FLAGMETER_FLUSH_SECONDS": str(config.flush_seconds),
        "FLAGMETER_WORKERS": str(config.workers),
    }
    # The embedded broker has one partition: a second aggregator would stand by for good.
    embedded = isinstance(urls.parse_broker(broker_url), urls.SqliteBroker)
    of_aggregator = shared | ({"FLAGMETER_WORKERS": "1"} if embedded else {})
    store = None
    wanted = []
    if config.clickhouse_url is None:
        store = _store(config, data_dir, shared)
        wanted.append(Wanted("store", STORE_HOST, config.clickhouse_port, "--clickhouse-port"))
    wanted += [
        Wanted("gateway", config.host, config.gateway_port, "--gateway-port"),
        Wanted("aggregator", config.host, config.aggregator_port, "--aggregator-port"),
        Wanted("query API", config.host, config.query_port, "--query-port"),
    ]
    services = (
        _service("gateway", "ingest_gateway", config.host, config.gateway_port, shared, stop_seconds=15),
        _service("aggregator", "aggregator", config.host, config.aggregator_port, of_aggregator, stop_seconds=20),
        _service("query-api", "query_api", config.host, config.query_port, shared, stop_seconds=5),
    )
    return Stack(store, services, broker_url, clickhouse_url, tuple(wanted))


def sqlite_url(path: Path) -> str:
    """Write an absolute path as a broker URL: four slashes in all."""
    return f"sqlite:///{quote(str(path))}"


def _store(config: UpConfig, data_dir: Path, shared: Mapping[str, str]) -> Service:
    url = f"http://{STORE_HOST}:{config.clickhouse_port}"
    port = str(config.clickhouse_port)
    return Service(
        name="store",
        argv=(sys.executable, "-m", "deploy.store", "--data-dir", str(data_dir), "--port", port),
        url=url,
        ready_url=f"{url}/ping",
        environment=shared,
        stop_seconds=30,
    )


def _service(
    name: str, package: str, host: str, port: int, shared: Mapping[str, str], *, stop_seconds: float
) -> Service:
    shown = f"http://{_bracketed(host)}:{port}"
    reached = f"http://{_bracketed(_EVERYWHERE.get(host, host))}:{port}"
    return Service(
        name=name,
        argv=(sys.executable, "-m", package),
        url=shown,
        ready_url=f"{reached}/readyz",
        environment=shared,
        stop_seconds=stop_seconds,
    )


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host
