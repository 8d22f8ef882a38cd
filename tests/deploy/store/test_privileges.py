import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

from deploy.store import privileges
from deploy.store.config import StoreConfig
from deploy.store.privileges import Role


@pytest.mark.parametrize(
    "name", ["session_timezone", "output_format_json_quote_64bit_integers", "extremes", "date_time_input_format"]
)
def test_visitors_may_shape_their_answer(name):
    assert privileges.may_set(Role.VISITOR, name)
    assert privileges.may_set(Role.SERVICE, name)


@pytest.mark.parametrize("name", ["insert_deduplication_token", "async_insert", "max_execution_time", "mutations_sync"])
def test_services_may_set_what_inserts_and_changes_need(name):
    assert privileges.may_set(Role.SERVICE, name)
    assert not privileges.may_set(Role.VISITOR, name)


@pytest.mark.parametrize("role", Role)
@pytest.mark.parametrize(
    "name",
    [
        "dialect",
        "FORMAT_SCHEMA",
        "format_template_row",
        "disk",
        "profile",
        "url_base",
        "a b",
        "",
        "x=1",
        "output_format_schema",
    ],
)
def test_nobody_may_set_what_names_files_or_carries_sql(role, name):
    assert not privileges.may_set(role, name)


def test_the_engines_files_are_xml_with_the_paths_escaped(tmp_path):
    config = StoreConfig(data_dir=tmp_path / "a & b")
    users = ET.fromstring(privileges.users_xml(config))  # noqa: S314
    grants = " ".join(query.text or "" for query in users.iter("query"))
    for word in ("FILE", "URL", "SOURCES", "DICTIONARY", "FUNCTION", "ALL ON", "ACCESS MANAGEMENT", "*.*"):
        assert word not in grants
    server = ET.fromstring(privileges.config_xml(config, Path("/x & y/users.xml"), Path("/x & y")))  # noqa: S314
    assert server.findtext("user_directories/users_xml/path") == "/x & y/users.xml"
    assert server.findtext("timezone") == "UTC"


def test_an_insert_stays_one_block_up_to_a_million_rows_and_256_mb(tmp_path):
    held = privileges.limits(StoreConfig(data_dir=tmp_path), Role.SERVICE)
    assert int(held["min_insert_block_size_rows"]) > 1_000_000
    assert int(held["min_insert_block_size_bytes"]) > 256_000_000
