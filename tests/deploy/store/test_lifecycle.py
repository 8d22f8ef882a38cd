"""How the process starts, ends, and what it leaves behind."""

import contextlib
import http.client
import signal
import socket
import stat
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from tests.support.store import StoreProcess
from tests.support.waiting import wait_for


def test_it_makes_a_secret_that_only_its_owner_can_read_and_keeps_it(mortal_store: StoreProcess) -> None:
    secret = mortal_store.secret
    assert len(secret) == 64
    assert stat.S_IMODE((mortal_store.data_dir / "store.secret").stat().st_mode) == 0o600
    assert mortal_store.stop() == 0
    mortal_store.start()
    assert mortal_store.secret == secret
    assert mortal_store.service("SELECT currentRoles()").text == "['service']\n"
    assert mortal_store.visitor("SELECT currentRoles()").text == "['visitor']\n"


def test_it_listens_on_loopback_only(store: StoreProcess) -> None:
    assert store.process is not None
    listening = [c.laddr for c in psutil.Process(store.process.pid).net_connections() if c.status == "LISTEN"]
    assert [(address.ip, address.port) for address in listening] == [("127.0.0.1", store.port)]


def test_a_second_store_on_the_same_directory_says_so(store: StoreProcess, tmp_path: Path) -> None:
    second = StoreProcess(store.data_dir)
    second.log = tmp_path / "second.log"
    assert second.spawn().process.wait(60) == 1
    text = second.log.read_text()
    assert "another store has" in text
    assert "Traceback" not in text
    assert store.visitor("SELECT 1").text == "1\n"


def test_a_port_that_is_taken_ends_it_with_a_word(own_store: StoreProcess) -> None:
    with socket.create_server(("127.0.0.1", own_store.port)):
        assert own_store.spawn().process.wait(60) == 1
    assert "the port is in use" in own_store.log.read_text()


def test_all_wrong_settings_are_named_at_once(tmp_path) -> None:
    wrong = StoreProcess(tmp_path / "what?", store_max_reads="0", store_max_body="many")
    wrong.port = 99_999
    assert wrong.spawn().process.wait(60) == 2
    text = wrong.log.read_text()
    for name in ("DATA_DIR", "CLICKHOUSE_PORT", "STORE_MAX_READS", "STORE_MAX_BODY"):
        assert f"FLAGMETER_{name}" in text


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_lets_running_queries_end(mortal_store: StoreProcess, number: signal.Signals) -> None:
    table = f"signal_{number}"
    made = f"CREATE TABLE {table} (a UInt64) ENGINE = MergeTree ORDER BY a"
    assert mortal_store.service(made).status == 200
    answers = []
    asked = [
        threading.Thread(target=lambda query=query: answers.append(mortal_store.service(query)))
        for query in ("SELECT sleep(2)", f"INSERT INTO {table} SELECT sleep(2)")
    ]
    for each in asked:
        each.start()
    running = "SELECT count() FROM system.processes WHERE query LIKE '%sleep(2)%' AND query NOT LIKE '%processes%'"
    wait_for(lambda: mortal_store.service(running).text == "2\n", seconds=10, what="the queries")
    mortal_store.process.send_signal(number)
    assert mortal_store.process.wait(30) == 0
    for each in asked:
        each.join()
    assert [answer.status for answer in answers] == [200, 200]
    assert mortal_store.start().visitor(f"SELECT count() FROM {table}").text == "1\n"


def test_what_does_not_end_in_time_is_killed(tmp_path) -> None:
    store = StoreProcess(tmp_path / "data", store_shutdown_timeout="1").start()
    try:
        endless = "SELECT count() FROM numbers(100000000000) WHERE NOT ignore(sipHash64(number))"
        answers: list[int] = []

        def ask() -> None:
            with contextlib.suppress(OSError, http.client.HTTPException):
                answers.append(store.service(endless).status)

        asked = threading.Thread(target=ask)
        asked.start()
        running = "SELECT count() FROM system.processes WHERE query LIKE '%sipHash64%' AND query NOT LIKE '%processes%'"
        wait_for(lambda: store.service(running).text == "1\n", seconds=10, what="the query")
        started = time.monotonic()
        assert store.stop() == 0
        assert time.monotonic() - started < 15
        asked.join()
        assert 200 not in answers
    finally:
        store.kill()


def test_it_writes_nothing_to_stdout(tmp_path) -> None:
    store = StoreProcess(tmp_path / "data")
    store.data_dir.mkdir()
    (store.data_dir / "store").mkdir()
    store.start()
    store.visitor("SELECT nothing")
    assert store.stop() == 0
    lines = store.log.read_text().splitlines()
    assert [line for line in lines if not line.startswith('{"')] == []


def test_times_are_utc_whatever_the_machine_thinks(store: StoreProcess) -> None:
    assert store.environment["TZ"] == "America/New_York"
    answer = store.visitor("SELECT timezone(), toDateTime(0), toString(toDateTime('2024-01-01 00:00:00'), 'UTC')")
    assert answer.text == "UTC\t1970-01-01 00:00:00\t2024-01-01 00:00:00\n"


@pytest.fixture(scope="module")
def narrow_store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[StoreProcess]:
    """Every bound is as small as it can be, apart from the time for shutting down."""
    bounds = {"store_body_timeout": "0.5", "store_max_body": str(1 << 20)}
    made = StoreProcess(
        tmp_path_factory.mktemp("narrow") / "data", store_max_reads="1", store_max_waiting="0", **bounds
    )
    try:
        yield made.start()
    finally:
        made.kill()


def test_a_client_that_falls_silent_within_its_body_is_cut_off(narrow_store: StoreProcess) -> None:
    with socket.create_connection(("127.0.0.1", narrow_store.port), timeout=20) as client:
        client.sendall(b"POST / HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 100\r\n\r\nSELECT")
        assert b" 503 " in client.recv(4096).split(b"\r\n")[0]
    large = narrow_store.ask("POST", "/", b"SELECT '" + b"x" * (1 << 20) + b"'")
    assert (large.status, large.code) == (413, 229)


def test_too_many_queries_are_refused_at_once(narrow_store: StoreProcess) -> None:
    def sleep() -> None:
        while narrow_store.service("SELECT sleep(3)").status != 200:
            pass

    slow = threading.Thread(target=sleep)
    slow.start()
    wait_for(lambda: narrow_store.service("SELECT 1").status == 503, seconds=5, what="the refusal")
    assert narrow_store.service("SELECT 1").code == 202
    assert narrow_store.visitor("SELECT 1").text == "1\n"
    assert narrow_store.service("CREATE VIEW v AS SELECT 1").status == 200
    slow.join()
    assert narrow_store.service("SELECT 1").text == "1\n"
