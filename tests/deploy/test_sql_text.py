import pytest
from hypothesis import given
from hypothesis import strategies as st

from deploy import migrations
from deploy.sql_text import UnfinishedTextError, statements


def test_statements_are_split_at_semicolons():
    assert statements("SELECT 1; SELECT 2;\n\n;SELECT 3") == ["SELECT 1", "SELECT 2", "SELECT 3"]


@pytest.mark.parametrize(
    "text",
    [
        "SELECT 'a;b'",
        "SELECT 'it''s; fine'",
        r"SELECT 'it\'s; fine'",
        'SELECT "a;b"',
        "SELECT `a;b`",
        "SELECT 4 - 3 / 2",
    ],
)
def test_a_semicolon_in_quotes_splits_nothing(text):
    assert statements(text) == [text]


def test_comments_are_left_out_whatever_stands_in_them():
    text = "-- it's; a comment\nSELECT /* 'another; one */ 1 -- and; more\n; -- the last"
    assert [" ".join(statement.split()) for statement in statements(text)] == ["SELECT 1"]


def test_what_looks_like_a_comment_in_quotes_stays():
    assert statements("SELECT '-- no', '/* no */'; SELECT 2") == ["SELECT '-- no', '/* no */'", "SELECT 2"]


@pytest.mark.parametrize("text", ["SELECT 'a; SELECT 2", "SELECT `a", "SELECT /* no end", 'SELECT "'])
def test_a_quote_or_comment_without_end_is_an_error(text):
    with pytest.raises(UnfinishedTextError):
        statements(text)


@given(st.text(alphabet="ab;'\"`-/*\\\n "))
def test_no_text_makes_it_fail_in_another_way(text):
    try:
        found = statements(text)
    except UnfinishedTextError:
        return
    assert all(statement == statement.strip() and statement for statement in found)


@given(st.lists(st.sampled_from(["SELECT 1", "SELECT ';'", "SELECT `;`", 'SELECT ";"', r"SELECT '\';'"]), max_size=8))
def test_joined_statements_come_apart_again(parts):
    assert statements(" -- c;\n ;\n".join(parts)) == parts


def test_every_migration_can_be_split():
    for migration in migrations.files():
        found = migration.statements(database="x", window=7)
        assert found
        assert all("{" not in statement for statement in found)
