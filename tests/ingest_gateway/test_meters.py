from prometheus_client import CollectorRegistry

from ingest_gateway.meters import Meters, RouteMeters
from schemas import metric_names as names


def test_a_route_counts_its_answers_by_status_and_their_seconds() -> None:
    registry = CollectorRegistry()
    route = RouteMeters(Meters(registry), "/r")
    for status in (202, 202, 400):
        route.count(status, 0.25)
    assert registry.get_sample_value(names.REQUESTS.name, {"route": "/r", "status": "202"}) == 2
    assert registry.get_sample_value(names.REQUESTS.name, {"route": "/r", "status": "400"}) == 1
    assert registry.get_sample_value(f"{names.REQUEST_SECONDS.name}_sum", {"route": "/r"}) == 0.75
