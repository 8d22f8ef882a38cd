from pathlib import Path

from deploy import stack
from deploy.config import UpConfig
from schemas import urls

HOME = Path("/data dir/100% flag#meter")


def plan(**settings) -> stack.Stack:
    return stack.plan(UpConfig(**settings), data_dir=HOME, tokens_file=HOME / "tokens.json", secret="hush/:@ secret")


def test_the_store_starts_first_and_ends_last():
    laid_out = plan()
    assert laid_out.store.name == "store"
    assert [service.name for service in laid_out.services] == ["gateway", "aggregator", "query-api"]
    assert [service.name for service in laid_out.stopping] == ["gateway", "aggregator", "query-api", "store"]


def test_the_urls_lead_back_to_the_data_directory_and_the_store():
    laid_out = plan(clickhouse_port=9000)
    assert laid_out.broker_url.startswith("sqlite:////")
    assert urls.parse_broker(laid_out.broker_url) == urls.SqliteBroker(HOME / "broker.db")
    assert urls.parse_clickhouse(laid_out.clickhouse_url) == urls.ClickHouse(
        False, "127.0.0.1", 9000, "flagmeter", "service", "hush/:@ secret"
    )


def test_every_service_is_told_everything_by_environment():
    laid_out = plan(gateway_port=1, query_port=2, management_port=3, aggregator_port=4, clickhouse_port=5)
    for service in laid_out.stopping:
        told = service.environment
        assert [told[f"FLAGMETER_{name}_PORT"] for name in ("GATEWAY", "QUERY", "MANAGEMENT", "AGGREGATOR")] == [
            "1",
            "2",
            "3",
            "4",
        ]
        assert told["FLAGMETER_CLICKHOUSE_PORT"] == "5"
        assert told["FLAGMETER_BROKER_URL"] == laid_out.broker_url
        assert told["FLAGMETER_CLICKHOUSE_URL"] == laid_out.clickhouse_url
        assert told["FLAGMETER_TOKENS_FILE"] == str(HOME / "tokens.json")
        assert told["FLAGMETER_DATA_DIR"] == str(HOME)


def test_no_secret_stands_in_a_command_line_or_a_repr():
    laid_out = plan()
    assert "hush" not in repr(laid_out)
    assert all("hush" not in word for service in laid_out.stopping for word in service.argv)


def test_a_clickhouse_of_ones_own_leaves_the_embedded_store_out():
    laid_out = plan(clickhouse_url="https://me:pw@clickhouse:8443/counts")
    assert laid_out.store is None
    assert laid_out.clickhouse_url == "https://me:pw@clickhouse:8443/counts"
    assert "store" not in [service.name for service in laid_out.stopping]
    assert "store" not in [wanted.service for wanted in laid_out.wanted]


def test_a_broker_of_ones_own_is_used():
    assert plan(broker_url="sqlite:////elsewhere/b.db").services[0].environment["FLAGMETER_BROKER_URL"] == (
        "sqlite:////elsewhere/b.db"
    )


def test_what_listens_everywhere_is_asked_on_loopback():
    gateway = plan(host="0.0.0.0").services[0]  # noqa: S104
    assert (gateway.url, gateway.ready_url) == ("http://0.0.0.0:4242", "http://127.0.0.1:4242/readyz")
    assert plan(host="::").services[0].ready_url == "http://[::1]:4242/readyz"


def test_the_store_listens_on_loopback_whatever_the_host_is():
    assert plan(host="0.0.0.0").store.url == "http://127.0.0.1:8123"  # noqa: S104


def test_gateway_and_query_api_run_as_many_workers_as_are_wanted_and_one_works_on_the_one_partition():
    told = {service.name: service.environment["FLAGMETER_WORKERS"] for service in plan(workers=3).services}
    assert told == {"gateway": "3", "aggregator": "1", "query-api": "3"}
    assert {service.environment["FLAGMETER_WORKERS"] for service in plan().services} == {"1"}


def test_a_broker_with_partitions_to_share_gets_several_aggregators_too():
    shared = plan(workers=3, broker_url="kafka://127.0.0.1:9092/flagmeter.metrics").services
    assert {service.environment["FLAGMETER_WORKERS"] for service in shared} == {"3"}
