"""The settings of an insert."""

import pytest

from schemas import insert

NEW, OLD = (26, 2), (26, 1)


def test_every_insert_is_one_block_under_its_token() -> None:
    for version in (NEW, OLD, (24, 8), (27, 1)):
        settings = insert.settings(version, "topic:0:1-2")
        assert settings["insert_deduplication_token"] == "topic:0:1-2"
        assert settings["async_insert"] == 0
        assert settings["max_execution_time"] == insert.INSERT_SECONDS
        assert int(settings["max_insert_block_size"]) > insert.MAX_ROWS + 360_000
        assert int(settings["min_insert_block_size_rows"]) > insert.MAX_ROWS + 360_000


def test_the_switch_for_tokens_has_the_servers_own_name() -> None:
    assert insert.settings(NEW, "t")["deduplicate_insert"] == "enable"
    assert "insert_deduplicate" not in insert.settings(NEW, "t")
    assert insert.settings(OLD, "t")["insert_deduplicate"] == 1
    assert "deduplicate_insert" not in insert.settings(OLD, "t")


def test_an_insert_without_a_token_is_refused() -> None:
    with pytest.raises(ValueError, match="token"):
        insert.settings(NEW, "")


def test_settings_are_not_shared_between_inserts() -> None:
    first = insert.settings(NEW, "a")
    first["async_insert"] = 1
    assert insert.settings(NEW, "b")["async_insert"] == 0


def test_what_is_only_valid_in_the_url_is_no_setting() -> None:
    assert insert.URL_PARAMETERS == {"wait_end_of_query": "1"}
    assert "wait_end_of_query" not in insert.settings(NEW, "t")
