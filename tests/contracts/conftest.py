from collections.abc import Iterator

import pytest

from deploy import migrate
from schemas import urls


@pytest.fixture(scope="session")
def clickhouse_url(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A migrated ClickHouse: the embedded store, or a server in a container with `--backend=docker`."""
    if request.config.getoption("--backend") == "docker":
        from testcontainers.community.clickhouse import ClickHouseContainer

        with ClickHouseContainer("clickhouse/clickhouse-server:26.9", port=8123) as server:
            address = f"{server.get_container_host_ip()}:{server.get_exposed_port(8123)}"
            url = f"http://{server.username}:{server.password}@{address}/flagmeter"
            migrate.run(urls.parse_clickhouse(url), partitions=1, flush_seconds=1)
            yield url
        return
    yield request.getfixturevalue("store").url
