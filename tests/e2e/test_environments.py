"""Specification 002's example under three tokens (acceptance 9), and no token's text anywhere."""

import hashlib
import json
import sqlite3
from collections.abc import Iterator

import pytest

from tests.support.stack import Stack
from tests.support.waiting import wait_for

EXAMPLE = {
    "applications": [
        {
            "appName": "inventory-service",
            "interval": 60,
            "started": "2024-01-15T09:30:00Z",
            "strategies": ["default", "userWithId"],
        }
    ],
    "metrics": [
        {
            "appName": "inventory-service",
            "environment": "production",
            "featureName": "new-checkout-flow",
            "no": 120,
            "timestamp": "2024-01-15T09:30:00Z",
            "variants": {},
            "yes": 300,
        }
    ],
}
TEXTS = {
    "production": "*:production.secret-of-production",
    "any": "*:*.secret-of-any",
    "development": "default:development.secret-of-development",
    "admin": "*:*.secret-of-admin",
}


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    folder = tmp_path_factory.mktemp("environments")
    tokens = folder / "my-tokens.json"
    entries = [
        {
            "token": TEXTS["production"],
            "type": "backend",
            "projects": ["*"],
            "project": "shop",
            "environment": "production",
        },
        {"token": TEXTS["any"], "type": "backend", "projects": ["*"], "project": "any", "environment": "*"},
        {
            "sha256": hashlib.sha256(TEXTS["development"].encode()).hexdigest(),
            "type": "backend",
            "projects": ["default"],
            "environment": "development",
        },
        {"token": TEXTS["admin"], "type": "admin", "projects": ["*"], "environment": "*"},
    ]
    tokens.write_text(json.dumps({"tokens": entries}))
    running = Stack(folder / "data", FLAGMETER_TOKENS_FILE=str(tokens)).start()
    try:
        yield running
    finally:
        running.kill()


def test_counted_counted_and_set_aside(stack: Stack) -> None:
    for name in ("production", "any", "development"):
        seen = {"seenTokens": [TEXTS["development"], "default:development.seen-by-an-edge"]}
        assert stack.post("/api/client/metrics/bulk", EXAMPLE | seen, token=TEXTS[name]).status == 202
    wait_for(lambda: stack.number("SELECT count() FROM rejected") == 1, what="the rejected row")
    counted = "SELECT project, environment, toString(yes), toString(no) FROM evaluations ORDER BY project"
    wait_for(lambda: len(stack.sql(counted)) == 2, what="both counts")
    assert stack.sql(counted) == [["any", "production", "300", "120"], ["shop", "production", "300", "120"]]
    ((project, environment, reason, feature, payload),) = stack.sql(
        "SELECT project, environment, reason, feature, payload FROM rejected"
    )
    assert (project, environment, reason, feature) == (
        "default",
        "development",
        "other_environment",
        "new-checkout-flow",
    )
    assert json.loads(payload)["metrics"][0]["yes"] == 300


def test_a_wrong_token_is_refused_without_being_repeated(stack: Stack) -> None:
    answer = stack.post("/api/client/metrics/bulk", EXAMPLE, token="default:development.secret-but-wrong")
    assert answer.status == 401
    assert b"secret" not in answer.body


def test_no_token_text_is_in_any_log_table_metric_or_file(stack: Stack) -> None:
    needles = ["secret-of", "seen-by-an-edge", "secret-but-wrong"]
    seen = [stack.logged()]
    for table in ("evaluations_hourly", "rejected"):
        seen.append(json.dumps(stack.sql(f"SELECT * FROM {table}")))
    with sqlite3.connect(f"file:{stack.data_dir / 'broker.db'}?mode=ro", uri=True) as broker:
        rows = broker.execute("SELECT headers, value, key FROM log").fetchall()
    assert len(rows) == 3
    seen += [repr(row) for row in rows]
    from tests.support.client import request

    for url in (stack.gateway, stack.query, f"http://127.0.0.1:{stack.aggregator_port}"):
        seen.append(request("GET", f"{url}/metrics").body.decode())
    for text in seen:
        assert text
        for needle in needles:
            assert needle not in text
