"""What SDKs send twice, through the whole stack: counted once, also with an aggregator that dies in between."""

from typing import Any

from tests.support.stack import Stack
from tests.support.waiting import wait_for

METRICS = "/api/client/metrics"
BULK = "/api/client/metrics/bulk"
NODE = {"unleash-sdk": "unleash-node-sdk:6.12.1", "unleash-connection-id": "node-1"}


def window(app: str, stop: int, **flags: int) -> dict[str, Any]:
    """One window since noon, to so many minutes later."""
    toggles = {flag: {"yes": yes, "no": 0, "variants": {"blue": yes}} for flag, yes in flags.items()}
    bucket = {"start": "2026-11-22T12:00:00.000Z", "stop": f"2026-11-22T12:{stop:02}:00.000Z", "toggles": toggles}
    return {"appName": app, "connectionId": "node-1", "bucket": bucket}


def bulk(app: str, yes: int) -> dict[str, Any]:
    entry = {"featureName": "a", "appName": app, "environment": "development", "timestamp": "2026-11-22T12:00:00Z"}
    return {"applications": [], "metrics": [entry | {"yes": yes, "no": 0, "variants": {}}]}


def counted(stack: Stack, app: str) -> dict[tuple[str, str], int]:
    found = stack.sql(
        "SELECT feature, variant, toString(sum(yes) + sum(count)) FROM evaluations_hourly "
        f"WHERE app_name = '{app}' GROUP BY feature, variant"
    )
    return {(feature, variant): int(many) for feature, variant, many in found}


def settled(stack: Stack, app: str) -> dict[tuple[str, str], int]:
    """What is counted of an app, once a window that was posted last is."""
    assert stack.post(METRICS, window(f"{app}-last", 1, last=1)).status == 202
    wait_for(lambda: counted(stack, f"{app}-last"), what="the last window")
    return counted(stack, app)


def test_an_edge_that_repeats_the_same_bytes_is_counted_once(stack: Stack) -> None:
    edge = {"unleash-appname": "unleash-edge", "unleash-connection-id": "01JEDGE"}
    for yes in (5, 5, 7, 5):
        assert stack.post(BULK, bulk("edge", yes), **edge).status == 202
    assert settled(stack, "edge") == {("a", ""): 12}


def test_a_window_that_grew_after_a_post_that_seemed_to_fail_counts_what_it_adds(stack: Stack) -> None:
    for stop, flags in ((1, {"a": 3}), (2, {"a": 5, "b": 1}), (1, {"a": 3}), (4, {"a": 9, "b": 1})):
        assert stack.post(METRICS, window("node", stop, **flags), **NODE).status == 202
    assert settled(stack, "node") == {("a", ""): 9, ("a", "blue"): 9, ("b", ""): 1, ("b", "blue"): 1}


def test_repeats_are_recognised_across_the_death_of_an_aggregator(stack: Stack) -> None:
    assert stack.post(METRICS, window("killed", 2, a=5), **NODE).status == 202
    wait_for(lambda: counted(stack, "killed"), what="the first window")
    stack.kill_child("aggregator")
    for stop, yes in ((2, 5), (1, 3), (3, 8)):
        assert stack.post(METRICS, window("killed", stop, a=yes), **NODE).status == 202
    assert settled(stack, "killed") == {("a", ""): 8, ("a", "blue"): 8}


def test_an_idempotency_key_counts_once(stack: Stack) -> None:
    for yes in (4, 6):
        payload = window("keyed", 1, a=yes) | {"connectionId": None}
        assert stack.post(METRICS, payload, **{"Idempotency-Key": "post-1"}).status == 202
    assert settled(stack, "keyed") == {("a", ""): 4, ("a", "blue"): 4}


def test_windows_without_a_connection_count_as_they_come(stack: Stack) -> None:
    payload = window("anonymous", 1, a=4) | {"connectionId": None}
    for _ in range(3):
        assert stack.post(METRICS, payload).status == 202
    assert settled(stack, "anonymous") == {("a", ""): 12, ("a", "blue"): 12}
