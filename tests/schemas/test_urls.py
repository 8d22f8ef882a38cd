"""The URLs that choose where flagmeter runs."""

from pathlib import Path

import pytest

from schemas import urls
from schemas.urls import ClickHouse, HttpServer, KafkaBroker, SqliteBroker


@pytest.mark.parametrize(
    ("url", "broker"),
    [
        ("sqlite:///flagmeter-data/broker.db", SqliteBroker(Path("flagmeter-data/broker.db"))),
        ("sqlite:////var/lib/broker.db", SqliteBroker(Path("/var/lib/broker.db"))),
        ("sqlite:///a%20folder/broker.db", SqliteBroker(Path("a folder/broker.db"))),
        ("kafka://b1:9092,b2:9092/flagmeter.metrics", KafkaBroker(("b1:9092", "b2:9092"), "flagmeter.metrics")),
        ("kafka://b1:9092", KafkaBroker(("b1:9092",), "flagmeter.metrics")),
        ("kafka://b1:9092/other", KafkaBroker(("b1:9092",), "other")),
    ],
)
def test_a_broker_url_is_read(url: str, broker: SqliteBroker | KafkaBroker) -> None:
    assert urls.parse_broker(url) == broker


@pytest.mark.parametrize(
    "url", ["", "broker.db", "sqlite://broker.db", "sqlite:///", "kafka:///topic", "kafka://b1/a/b", "amqp://b1/topic"]
)
def test_a_wrong_broker_url_says_how_a_right_one_looks(url: str) -> None:
    with pytest.raises(ValueError, match="URL"):
        urls.parse_broker(url)


@pytest.mark.parametrize(
    ("url", "store"),
    [
        (
            "http://127.0.0.1:8123/flagmeter",
            ClickHouse(secure=False, host="127.0.0.1", port=8123, database="flagmeter"),
        ),
        ("http://store", ClickHouse(secure=False, host="store", port=8123, database="flagmeter")),
        ("https://store/counts", ClickHouse(secure=True, host="store", port=8443, database="counts")),
        (
            "https://user:s%40cret@store:9443/flag_meter",
            ClickHouse(secure=True, host="store", port=9443, database="flag_meter", user="user", password="s@cret"),
        ),
        ("http://[::1]:8123/flagmeter", ClickHouse(secure=False, host="::1", port=8123, database="flagmeter")),
    ],
)
def test_a_store_url_is_read(url: str, store: ClickHouse) -> None:
    assert urls.parse_clickhouse(url) == store


@pytest.mark.parametrize(
    "url", ["", "store:8123", "http://", "clickhouse://store/x", "http://store/a-b", "http://store/a;b"]
)
def test_a_wrong_store_url_is_refused(url: str) -> None:
    with pytest.raises(ValueError, match="ClickHouse URL"):
        urls.parse_clickhouse(url)


def test_a_port_that_is_no_number_is_refused() -> None:
    with pytest.raises(ValueError, match=r"[Pp]ort"):
        urls.parse_clickhouse("http://store:eight/x")


def test_the_password_does_not_show() -> None:
    store = urls.parse_clickhouse("https://user:hush@store/x")
    assert store.password == "hush"
    assert "hush" not in repr(store)
    assert "hush" not in str(store)


@pytest.mark.parametrize(
    ("url", "server", "authority"),
    [
        ("http://unleash:4242", HttpServer(secure=False, host="unleash", port=4242), "unleash:4242"),
        ("http://unleash", HttpServer(secure=False, host="unleash", port=80), "unleash"),
        ("https://Flags.example/a/b/", HttpServer(True, "flags.example", 443, "/a/b"), "flags.example"),
        ("https://[::1]:8443/", HttpServer(secure=True, host="::1", port=8443), "[::1]:8443"),
    ],
)
def test_a_servers_url_is_read(url: str, server: HttpServer, authority: str) -> None:
    found = urls.parse_http_server(url)
    assert found == server
    assert found.authority == authority
    assert found.origin == f"{'https' if server.secure else 'http'}://{authority}"


@pytest.mark.parametrize(
    "url",
    [
        "",
        "unleash:4242",
        "http://",
        "ftp://x",
        "http://x?a=b",
        "http://x#a",
        "http://x:port",
        "http://x/ä",
        "http://x/ ",
    ],
)
def test_a_wrong_servers_url_is_refused(url: str) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - the port's message is Python's own
        urls.parse_http_server(url)


def test_a_servers_url_holds_no_secret_and_shows_none() -> None:
    with pytest.raises(ValueError, match="no password") as refused:
        urls.parse_http_server("http://user:secret-text@unleash")
    assert "secret-text" not in str(refused.value)
