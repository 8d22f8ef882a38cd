from collections.abc import Iterator
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry, ProcessCollector, values

from deploy import shared_metrics
from schemas import metric_names
from schemas.metric_names import Metric


@pytest.fixture(autouse=True)
def _one_process_again(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Undo what a worker does for the whole of its process."""
    monkeypatch.setattr(values, "ValueClass", values.ValueClass)
    monkeypatch.setenv("PROMETHEUS_MULTIPROC_DIR", "")
    yield
    values.close_all_multiprocess_files()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path


def worker(folder: Path, number: int) -> CollectorRegistry:
    """Be that worker from now on."""
    shared_metrics.keep_in_files(folder, number)
    return CollectorRegistry()


def lines(page: bytes) -> set[str]:
    return {line for line in page.decode().splitlines() if not line.startswith("#")}


def test_counters_are_summed_over_all_workers(folder):
    for number, times in ((1, 3), (2, 4)):
        requests = metric_names.counter(metric_names.REQUESTS, worker(folder, number))
        requests.labels("/r", "202").inc(times)
        requests.labels("/r", f"40{number}").inc()
    assert lines(shared_metrics.page(folder, {})) == {
        'flagmeter_gateway_requests_total{route="/r",status="202"} 7.0',
        'flagmeter_gateway_requests_total{route="/r",status="401"} 1.0',
        'flagmeter_gateway_requests_total{route="/r",status="402"} 1.0',
    }


def test_a_worker_that_is_started_again_goes_on_counting(folder):
    metric_names.counter(metric_names.APPENDED, worker(folder, 1)).inc(5)
    metric_names.counter(metric_names.APPENDED, worker(folder, 1)).inc(2)
    assert lines(shared_metrics.page(folder, {})) == {"flagmeter_gateway_appended_total 7.0"}


def test_histograms_are_summed_by_bucket(folder):
    for number, seconds in ((1, 0.02), (2, 0.02), (3, 7.0)):
        metric_names.histogram(metric_names.APPEND_SECONDS, worker(folder, number)).observe(seconds)
    page = lines(shared_metrics.page(folder, {}))
    name = metric_names.APPEND_SECONDS.name
    assert {
        f'{name}_bucket{{le="0.01"}} 0.0',
        f'{name}_bucket{{le="0.025"}} 2.0',
        f'{name}_bucket{{le="+Inf"}} 3.0',
        f"{name}_count 3.0",
        f"{name}_sum 7.04",
    } <= page


def test_the_page_says_what_each_metric_is(folder):
    metric_names.counter(metric_names.APPENDED, worker(folder, 1)).inc()
    page = shared_metrics.page(folder, {}).decode()
    assert f"# HELP {metric_names.APPENDED.name} {metric_names.APPENDED.help}" in page
    assert f"# TYPE {metric_names.APPENDED.name} counter" in page


def told(
    folder: Path, metric: Metric, *workers: dict[tuple[str, ...], float]
) -> dict[int, list[shared_metrics.Family]]:
    families = {}
    for number, given in enumerate(workers, start=1):
        registry = worker(folder, number)
        gauge = metric_names.gauge(metric, registry)
        for labels, value in given.items():
            (gauge.labels(*labels) if labels else gauge).set(value)
        families[number] = shared_metrics.gauges(registry)
    return families


def test_a_gauge_is_summed_or_the_largest_is_shown_as_its_definition_says(folder):
    held = told(folder, metric_names.IN_FLIGHT_BYTES, {(): 100}, {(): 20})
    assert lines(shared_metrics.page(folder, held)) == {"flagmeter_gateway_in_flight_bytes 120.0"}
    lag = told(folder, metric_names.LAG_RECORDS, {("0",): 7, ("1",): 0}, {("1",): 9}, {("1",): 3})
    assert lines(shared_metrics.page(folder, lag)) == {
        'flagmeter_aggregator_lag_records{partition="0"} 7.0',
        'flagmeter_aggregator_lag_records{partition="1"} 9.0',
    }


def test_a_gauge_that_is_asked_when_it_is_read_is_asked(folder):
    registry = worker(folder, 1)
    metric_names.gauge(metric_names.IN_FLIGHT_BYTES, registry).set_function(lambda: 17)
    page = shared_metrics.page(folder, {1: shared_metrics.gauges(registry)})
    assert lines(page) == {"flagmeter_gateway_in_flight_bytes 17.0"}


def test_gauges_of_a_worker_that_died_are_gone_with_it(folder):
    alarm = told(folder, metric_names.ALARM, {("0", "lost_by_log"): 1}, {})
    del alarm[1]
    assert lines(shared_metrics.page(folder, alarm)) == set()


def test_what_is_known_of_a_process_is_shown_for_each(folder):
    registry = CollectorRegistry()
    ProcessCollector(registry=registry)
    families = shared_metrics.gauges(registry)
    page = shared_metrics.page(folder, {1: families, 2: families})
    shown = {line.rpartition(" ")[0] for line in lines(page)}
    for number in (1, 2):
        assert f'process_resident_memory_bytes{{worker="{number}"}}' in shown
        assert f'process_cpu_seconds_total{{worker="{number}"}}' in shown
    assert "# TYPE process_cpu_seconds_total counter" in page.decode()


def test_counters_are_not_told_as_gauges(folder):
    registry = worker(folder, 1)
    metric_names.counter(metric_names.APPENDED, registry).inc()
    assert shared_metrics.gauges(registry) == []


def test_a_file_that_is_just_being_made_does_no_harm(folder):
    metric_names.counter(metric_names.APPENDED, worker(folder, 1)).inc()
    (folder / "counter_2.db").touch()
    assert lines(shared_metrics.page(folder, {})) == {"flagmeter_gateway_appended_total 1.0"}


def test_its_files_have_all_their_blocks_before_anything_is_counted(folder):
    worker(folder, 3)
    files = sorted(path.name for path in folder.iterdir())
    assert files == ["counter_3.db", "histogram_3.db"]
    for file in folder.iterdir():
        assert file.stat().st_blocks * 512 >= file.stat().st_size == 128 * 1024
