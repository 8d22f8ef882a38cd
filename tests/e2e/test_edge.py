"""An Unleash Edge before the gateway (acceptance 6): it starts, registers, posts in bulk and repeats itself."""

import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest

from schemas.event import Headers, Kind
from tests.ingest_gateway.support import log_of
from tests.support.client import request
from tests.support.edge import PAUSES, Edge, EdgeExit, LossyRelay
from tests.support.stack import Stack
from tests.support.unleash import UnleashStub
from tests.support.waiting import wait_for

HOUR = "2026-11-22T10:14:05.123Z"
TOKEN = "shop:production.4f3c2b1a0918273645f3c2b1a09182736"
QUICK = 1.0
"""Seconds after which the scripted Edge gives up on an answer, where a test waits for that."""


@pytest.fixture(scope="module")
def unleash() -> Iterator[UnleashStub]:
    stub = UnleashStub()
    stub.add(TOKEN, projects=["shop"], environment="production")
    yield stub
    stub.close()


@pytest.fixture(scope="module")
def behind(tmp_path_factory: pytest.TempPathFactory, unleash: UnleashStub) -> Iterator[Stack]:
    """A stack before an Unleash server, which it also asks for tokens: none of the Edge's stands in its own file."""
    urls = {"FLAGMETER_UNLEASH_URL": unleash.url, "FLAGMETER_TOKENS_URL": unleash.url}
    running = Stack(tmp_path_factory.mktemp("behind") / "data", **urls).start()
    yield running
    running.kill()


@pytest.fixture
def relay(behind: Stack) -> Iterator[LossyRelay]:
    made = LossyRelay(behind.gateway_port)
    yield made
    made.close()


def counts(stack: Stack, app: str) -> list[list[str]]:
    return stack.sql(
        "SELECT project, environment, feature, toString(sum(yes)), toString(sum(no)) FROM evaluations "
        f"WHERE app_name = '{app}' GROUP BY ALL ORDER BY feature"
    )


def bulk_records(data_dir: Path, app: str) -> list[Headers]:
    return [headers for headers, value in log_of(data_dir) if headers.kind is Kind.BULK and app.encode() in value]


def test_an_edge_starts_registers_and_its_rows_are_counted(behind: Stack, unleash: UnleashStub) -> None:
    edge = Edge(behind.gateway, TOKEN).start()
    assert edge.features == {TOKEN: {"version": 2, "features": []}}
    assert edge.refresh(TOKEN) == 304
    edge.count("checkout", "edge-plain", HOUR, yes=5, no=2, blue=4)
    edge.count("checkout", "edge-plain", "2026-11-22T10:59:00Z", yes=1)
    edge.count("search", "edge-plain", HOUR, no=7)
    [sent] = edge.post_bulk({"appName": "edge-plain", "instanceId": "i", "environment": "production",
                             "interval": 60, "started": "2026-11-22T00:00:00Z", "strategies": []})  # fmt: skip
    assert (sent.status, sent.attempts, sent.fate) == (202, 1, "done")
    wait_for(lambda: len(counts(behind, "edge-plain")) == 2, what="the rows")
    assert counts(behind, "edge-plain") == [
        ["shop", "production", "checkout", "6", "2"],
        ["shop", "production", "search", "0", "7"],
    ]
    assert unleash.asked.count("/api/client/metrics/bulk") == 0
    assert any(headers.kind is Kind.REGISTER for headers, _ in log_of(behind.data_dir))


def test_a_large_post_comes_in_parts_and_every_row_is_counted(behind: Stack) -> None:
    edge = Edge(behind.gateway, TOKEN).start()
    for number in range(2000):
        edge.count(f"flag-{number:04}", "edge-large", HOUR, yes=1)
    sent = edge.post_bulk()
    assert len(sent) > 3
    assert {part.status for part in sent} == {202}
    assert all(len(part.body) <= 97_280 for part in sent)
    wait_for(lambda: len(counts(behind, "edge-large")) == 2000, what="the rows")


def test_without_an_answer_the_same_bytes_come_again_and_count_once(behind: Stack, relay: LossyRelay) -> None:
    edge = Edge(relay.url, TOKEN, timeout=QUICK).start()
    edge.count("checkout", "edge-repeats", HOUR, yes=3)
    relay.lose = 2
    [sent] = edge.post_bulk()
    assert (sent.attempts, sent.status, sent.fate, relay.lost) == (3, 202, "done", 2)
    records = bulk_records(behind.data_dir, "edge-repeats")
    assert len(records) == 3
    assert len({(each.body_hash, each.connection, each.token_id, each.route) for each in records}) == 1
    edge.count("later", "edge-repeats", HOUR, yes=1)
    edge.post_bulk()
    wait_for(lambda: len(counts(behind, "edge-repeats")) == 2, what="the later row")
    assert counts(behind, "edge-repeats")[0] == ["shop", "production", "checkout", "3", "0"]


def test_an_edge_that_never_gets_an_answer_keeps_its_rows_for_the_next_post(behind: Stack, relay: LossyRelay) -> None:
    edge = Edge(relay.url, TOKEN, timeout=0.3).start()
    edge.count("checkout", "edge-silent", HOUR, yes=3)
    relay.lose = 1 + len(PAUSES)
    [sent] = edge.post_bulk()
    assert (sent.attempts, sent.status, sent.fate) == (6, None, "kept")
    edge.count("checkout", "edge-silent", HOUR, yes=4)
    [merged] = edge.post_bulk()
    assert (merged.attempts, merged.fate) == (1, "done")
    assert b'"yes": 7' in merged.body


def test_a_locked_broker_is_503_in_time_and_the_edge_keeps_its_rows(behind: Stack) -> None:
    edge = Edge(behind.gateway, TOKEN).start()
    edge.count("checkout", "edge-locked", HOUR, yes=3)
    lock = sqlite3.connect(behind.data_dir / "broker.db", isolation_level=None, timeout=10)
    lock.execute("BEGIN EXCLUSIVE")
    try:
        [sent] = edge.post_bulk()
    finally:
        lock.close()
    assert (sent.attempts, sent.status, sent.fate, edge.gap) == (1, 503, "kept", 11)
    wait_for(lambda: behind.ready("gateway"), what="readiness")
    [merged] = edge.post_bulk()
    assert (merged.status, merged.fate) == (202, "done")
    wait_for(lambda: counts(behind, "edge-locked"), what="the row")
    assert counts(behind, "edge-locked") == [["shop", "production", "checkout", "3", "0"]]


def test_an_edge_with_an_unknown_token_does_not_start(behind: Stack) -> None:
    with pytest.raises(EdgeExit, match="no token is valid"):
        Edge(behind.gateway, "shop:production.unknown").start()


def test_no_text_of_a_token_is_in_a_log(behind: Stack) -> None:
    assert TOKEN not in behind.logged()
    assert "Traceback" not in behind.logged()


def test_without_a_server_behind_it_the_gateway_validates_and_registers_and_has_no_features(stack: Stack) -> None:
    edge = Edge(stack.gateway, stack.tokens["backend"], stack.tokens["frontend"], "unknown")
    with pytest.raises(EdgeExit, match="features: 404"):
        edge.start()
    assert list(edge.valid) == [stack.tokens["backend"]]
    assert edge.valid[stack.tokens["backend"]]["environment"] == "development"
    assert edge.post_instance_data() == 202
    edge.count("checkout", "edge-alone", HOUR, yes=1)
    assert edge.post_bulk()[0].status == 202
    for path in ("/api/client/features", "/api/frontend"):
        headers = {"Authorization": stack.tokens["backend"]}
        assert request("GET", stack.gateway + path, headers=headers).status == 404
