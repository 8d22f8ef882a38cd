"""The services reach ClickHouse over TLS by their settings alone, and say on `/readyz` why they cannot."""

import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support import client
from tests.support.environment import ROOT, variables
from tests.support.ports import free_port
from tests.support.store import StoreProcess
from tests.support.tls import Authority, TlsFront
from tests.support.waiting import wait_for

ADMIN = '{"tokens": [{"token": "*:*.0123456789abcdef", "type": "admin", "projects": ["*"], "environment": "*"}]}'
SERVICES = {"aggregator": "aggregator_port", "query_api": "query_port"}
Start = Callable[..., str]


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path / "authority")


@pytest.fixture
def front(store: StoreProcess, authority: Authority) -> Iterator[TlsFront]:
    with TlsFront(authority.server("127.0.0.1"), store.port) as running:
        yield running


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Give a function that starts a service with these settings and gives the URL of its `/readyz`."""
    running: list[subprocess.Popen[bytes]] = []
    (tmp_path / "tokens.json").write_text(ADMIN)

    def begin(package: str, **settings: object) -> str:
        port = free_port()
        with (tmp_path / "log").open("ab") as log:
            running.append(
                subprocess.Popen(
                    [sys.executable, "-m", package],
                    env=variables(data_dir=tmp_path, **{SERVICES[package]: port}, **settings),
                    stdout=log,
                    stderr=log,
                    cwd=ROOT,
                )
            )
        return f"http://127.0.0.1:{port}/readyz"

    yield begin
    for process in running:
        process.terminate()
    for process in running:
        process.wait(30)


def reasons(url: str) -> str:
    """Give what `/readyz` says while it is not ready; empty while nobody listens."""
    try:
        answer = client.request("GET", url)
    except OSError:
        return ""
    assert answer.status == 503
    return answer.text


def test_the_services_are_ready_over_tls(
    start: Start, store: StoreProcess, front: TlsFront, authority: Authority
) -> None:
    url = f"https://service:{store.secret}@127.0.0.1:{front.port}/flagmeter"
    for ready in [start(package, clickhouse_url=url, clickhouse_ca_file=authority.file) for package in SERVICES]:
        wait_for(lambda ready=ready: client.is_ok(ready), seconds=60, what=f"200 of {ready}")


def test_services_that_do_not_trust_the_store_say_so(start: Start, store: StoreProcess, front: TlsFront) -> None:
    url = f"https://service:{store.secret}@127.0.0.1:{front.port}/flagmeter"
    said = "the store's certificate is not trusted: see FLAGMETER_CLICKHOUSE_CA_FILE"
    for ready in [start(package, clickhouse_url=url) for package in SERVICES]:
        wait_for(lambda ready=ready: said in reasons(ready), seconds=60, what=f"the reason of {ready}")
        assert store.secret not in reasons(ready)
