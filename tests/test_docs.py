"""What is public is documented, and what is linked exists."""

import re
from pathlib import Path

import pytest

from ingest_gateway.routing import Routes
from query_api.app import ENDPOINTS
from schemas.assignment import Alarm
from schemas.rows import Reason

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / name for name in ("README.md", "CONTRIBUTING.md", "SECURITY.md", "CHANGELOG.md")]
PAGES += sorted((ROOT / "docs").rglob("*.md"))


def page(name: str) -> str:
    return (ROOT / "docs" / name).read_text()


@pytest.mark.parametrize("route", Routes().all(), ids=lambda route: route.path)
def test_every_route_of_the_gateway_is_documented(route) -> None:
    assert f"`POST {route.path}`" in page("protocols.md")


@pytest.mark.parametrize("path", ENDPOINTS)
def test_every_endpoint_of_the_query_api_is_documented(path: str) -> None:
    short = "…/results/" + path.rsplit("/", 1)[1]
    assert path in page("protocols.md") or short in page("protocols.md")


@pytest.mark.parametrize("reason", Reason)
def test_every_reason_for_setting_aside_is_documented(reason: Reason) -> None:
    assert f"`{reason}`" in page("protocols.md")


@pytest.mark.parametrize("alarm", [*Alarm, "declared_too_long_ago"])
def test_every_alarm_has_its_line_in_the_runbook(alarm: str) -> None:
    assert f"`{alarm}`" in page("operations.md")


@pytest.mark.parametrize("file", PAGES, ids=lambda file: file.name)
def test_links_between_pages_lead_somewhere(file: Path) -> None:
    for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", file.read_text()):
        assert (file.parent / target).exists(), f"{file.name} links {target}"


@pytest.mark.parametrize("name", ["guarantees.md", "architecture.md"])
def test_tests_and_files_that_the_pages_name_exist(name: str) -> None:
    named = re.findall(r"`((?:tests|schemas|aggregator|ingest_gateway|deploy|query_api)/[\w/.]*)`", page(name))
    assert len(named) > 8
    for path in named:
        assert (ROOT / path).exists(), f"docs/{name} names {path}"
