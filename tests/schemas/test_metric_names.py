"""The one file of metric names."""

import re

import pytest
from prometheus_client import CollectorRegistry, generate_latest

from schemas import metric_names
from schemas.metric_names import Metric

FORBIDDEN_LABELS = {"token", "flag", "feature", "app", "app_name", "variant", "instance", "connection"}


def test_every_metric_of_the_file_is_in_the_list() -> None:
    defined = [value for value in vars(metric_names).values() if isinstance(value, Metric)]
    assert sorted(metric_names.ALL) == sorted(defined)
    assert len(metric_names.ALL) > 20


def test_names_are_unique() -> None:
    names = [metric.name for metric in metric_names.ALL]
    assert len(names) == len(set(names))


@pytest.mark.parametrize("metric", metric_names.ALL, ids=lambda metric: metric.name)
def test_a_metric_is_named_and_explained(metric: Metric) -> None:
    assert re.fullmatch(r"flagmeter_(gateway|aggregator|query|store|management)_[a-z_]+", metric.name)
    assert metric.help.endswith(".")
    assert len(metric.help) > 10
    assert not FORBIDDEN_LABELS & set(metric.labels)
    assert metric.name.endswith("_total") == (metric.kind == "counter")
    if metric.kind == "histogram":
        assert metric.name.endswith("_seconds")
        assert "econds" in metric.help
        assert list(metric.buckets) == sorted(set(metric.buckets))
    for unit in ("seconds", "bytes"):
        if unit in metric.name:
            assert unit in metric.help.lower() or "age" in metric.help.lower()


def test_every_metric_can_be_built_and_is_exposed_under_its_name() -> None:
    registry = CollectorRegistry()
    build = {"counter": metric_names.counter, "gauge": metric_names.gauge, "histogram": metric_names.histogram}
    for metric in metric_names.ALL:
        made = build[metric.kind](metric, registry)
        if metric.labels:
            made.labels(*("x" for _ in metric.labels))
    exposed = generate_latest(registry).decode()
    for metric in metric_names.ALL:
        assert re.search(rf"^{metric.name}(_bucket)?[ {{]", exposed, re.MULTILINE), metric.name
