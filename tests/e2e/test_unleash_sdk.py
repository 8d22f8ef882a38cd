"""An unmodified SDK, UnleashClient from PyPI, against the running stack (acceptance 3)."""

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from UnleashClient import UnleashClient
from UnleashClient.cache import FileCache

from tests.support.stack import Stack
from tests.support.waiting import wait_for

EVERYONE = [{"name": "default", "parameters": {}, "constraints": []}]
FEATURES = {
    "version": 2,
    "features": [
        {"name": "always", "type": "release", "enabled": True, "strategies": EVERYONE},
        {"name": "never", "type": "release", "enabled": False, "strategies": EVERYONE},
        {
            "name": "rollout",
            "type": "release",
            "enabled": True,
            "strategies": [
                {
                    "name": "flexibleRollout",
                    "parameters": {"rollout": "50", "stickiness": "userId", "groupId": "rollout"},
                    "constraints": [],
                }
            ],
        },
        {
            "name": "colours",
            "type": "experiment",
            "enabled": True,
            "strategies": EVERYONE,
            "variants": [
                {"name": name, "weight": weight, "stickiness": "userId", "overrides": []}
                for name, weight in (("red", 300), ("green", 300), ("blue", 400))
            ],
        },
    ],
}


@pytest.fixture(params=["sqlite", "kafka"])
def served(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Stack]:
    """The stack on its embedded broker, and on Kafka."""
    if request.param == "sqlite":
        yield request.getfixturevalue("stack")
        return
    url = request.getfixturevalue("kafka").url(f"sdk-{tmp_path.name}")
    on_kafka = Stack(tmp_path / "data", FLAGMETER_BROKER_URL=url)
    try:
        yield on_kafka.start()
        assert on_kafka.stop() == 0
    finally:
        on_kafka.kill()


def test_a_thousand_evaluations_arrive_with_the_sdks_own_totals(served: Stack, tmp_path: Path) -> None:
    stack = served
    cache = FileCache("shop", directory=str(tmp_path))
    cache.bootstrap_from_dict(FEATURES)
    client = UnleashClient(
        url=f"{stack.gateway}/api",
        app_name="shop",
        instance_id="one",
        custom_headers={"Authorization": stack.tokens["backend"]},
        refresh_interval=3600,
        metrics_interval=1,
        cache=cache,
        cache_directory=str(tmp_path),
        request_retries=0,
    )
    client.initialize_client(fetch_toggles=False)
    answers: Counter[tuple[str, bool]] = Counter()
    variants: Counter[str] = Counter()
    try:
        for user in range(250):
            context = {"userId": str(user)}
            for flag in ("always", "never", "rollout"):
                answers[flag, client.is_enabled(flag, context)] += 1
            variant = client.get_variant("colours", context)
            variants[variant["name"]] += 1
            answers["colours", True] += 1
    finally:
        client.destroy()  # posts what is left
    assert sum(answers.values()) == 1000
    total = "SELECT sum(evaluations) FROM evaluations WHERE app_name = 'shop'"
    wait_for(lambda: stack.number(total) >= 1000, what="the last evaluation")
    found = stack.sql(
        "SELECT feature, toString(sum(yes)), toString(sum(no)) FROM evaluations "
        "WHERE app_name = 'shop' GROUP BY feature"
    )
    expected = {flag: [answers[flag, True], answers[flag, False]] for flag in ("always", "never", "rollout", "colours")}
    assert {flag: [int(yes), int(no)] for flag, yes, no in found} == expected
    assert 50 < expected["rollout"][0] < 200, "the rollout is a rollout"
    stored = stack.sql("SELECT variant, toString(sum(count)) FROM variants WHERE feature = 'colours' GROUP BY variant")
    assert {name: int(times) for name, times in stored} == dict(variants)
    assert len(variants) == 3
    assert stack.number("SELECT count() FROM rejected") == 0
