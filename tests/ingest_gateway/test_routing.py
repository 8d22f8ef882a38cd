import pytest

from ingest_gateway.routing import Routes, path_of
from schemas.event import Kind


@pytest.mark.parametrize(
    "target",
    [
        "/api/client/metrics",
        "/api/client/metrics/",
        "//api//client/metrics",
        "/API/Client/METRICS",
        "/api/client/metrics?x=1",
        "/api/client/metrics/?x=/y/",
    ],
)
def test_one_route_is_found_under_every_spelling_that_was_recorded(target: str) -> None:
    route = Routes().find(target)
    assert route is not None
    assert route.path == "/api/client/metrics"


@pytest.mark.parametrize(
    "target", ["/", "", "*", "/api/client", "/api/client/metrics/x", "/api/client/metric%73", "/api/client/metricss"]
)
def test_other_paths_are_no_route(target: str) -> None:
    assert Routes().find(target) is None


def test_the_frontend_paths_can_be_switched_off_alone() -> None:
    routes = Routes(frontend_api=False)
    assert routes.find("/api/frontend/client/metrics") is None
    assert routes.find("/api/frontend/client/register") is None
    assert len(routes.all()) == 5
    assert routes.find("/api/client/metrics") is not None


def test_a_path_has_one_spelling() -> None:
    assert path_of("//HealthZ/?now") == "/healthz"


def test_what_a_server_behind_takes_is_no_route_of_ours() -> None:
    routes = Routes(validate=False, edge_data=False)
    assert routes.find("/edge/validate") is None
    assert routes.find("/api/client/metrics/edge") is None
    assert {route.kind for route in routes.all()} == set(Kind)
