"""The tokens file."""

import hashlib
import json
from typing import Any

import pytest

from schemas import tokens
from schemas.tokens import TokenType, WrongTokensError

TEXT = "default:development.0123456789abcdef"
ENTRY: dict[str, Any] = {"token": TEXT, "type": "backend", "projects": ["default"], "environment": "development"}


def file(*entries: dict[str, Any]) -> bytes:
    return json.dumps({"tokens": list(entries)}).encode()


def test_a_token_is_found_by_its_text_and_kept_as_its_digest() -> None:
    table = tokens.read(file(ENTRY))
    found = table.find(TEXT)
    assert found is not None
    assert found.digest == hashlib.sha256(TEXT.encode()).digest()
    assert found.id == found.digest.hex()[:16]
    assert (found.type, found.environment, found.project) == (TokenType.BACKEND, "development", "default")
    assert TEXT not in repr(found)
    assert TEXT not in repr(vars(table))


def test_a_token_may_stand_in_the_file_as_its_digest() -> None:
    hashed = {**ENTRY, "sha256": tokens.digest_of(TEXT).upper()}
    del hashed["token"]
    assert tokens.read(file(hashed)).find(TEXT) == tokens.read(file(ENTRY)).find(TEXT)


@pytest.mark.parametrize("text", ["", "x", TEXT + " ", TEXT[:-1], TEXT.upper(), "ä", "\ud800", "x" * 100_000])
def test_any_other_text_is_unknown(text: str) -> None:
    assert tokens.read(file(ENTRY)).find(text) is None


@pytest.mark.parametrize(
    ("header", "text"),
    [
        (TEXT, TEXT),
        (f"Bearer {TEXT}", TEXT),
        (f"bearer {TEXT}", TEXT),
        (f"BEARER   {TEXT} ", TEXT),
        (f"  {TEXT}  ", TEXT),
        ("", ""),
        ("Bearer", "Bearer"),
        ("Basic abc", "Basic abc"),
    ],
)
def test_bearer_is_left_out(header: str, text: str) -> None:
    assert tokens.bare(header) == text


@pytest.mark.parametrize(
    ("more", "project"),
    [
        ({"projects": ["shop"]}, "shop"),
        ({"projects": ["*"]}, "default"),
        ({"projects": ["a", "b"]}, "default"),
        ({"projects": ["*"], "project": "shop"}, "shop"),
    ],
)
def test_counts_belong_to_the_tokens_only_project_or_the_named_one(more: dict[str, Any], project: str) -> None:
    found = tokens.read(file({**ENTRY, **more})).find(TEXT)
    assert found is not None
    assert found.project == project


def test_an_admin_token_sees_its_projects_or_all() -> None:
    some = tokens.read(file({**ENTRY, "type": "admin", "projects": ["a", "b"]})).find(TEXT)
    every = tokens.read(file({**ENTRY, "type": "admin", "projects": ["*"], "environment": "*"})).find(TEXT)
    assert some is not None
    assert every is not None
    assert [some.sees(project) for project in ("a", "b", "c")] == [True, True, False]
    assert every.sees("c")


@pytest.mark.parametrize(
    ("wrong", "fault"),
    [
        ({"token": None}, "either token or sha256"),
        ({"sha256": "0" * 64}, "either token or sha256"),
        ({"token": None, "sha256": "0" * 63}, "64 hex digits"),
        ({"token": None, "sha256": "g" * 64}, "64 hex digits"),
        ({"projects": []}, "at least one project"),
        ({"projects": ["__batch__"]}, "reserved"),
        ({"environment": ""}, "environment must not be empty"),
        ({"environment": "*", "type": "frontend"}, "backend and admin"),
        ({"environment": "e" * 256}, "255 characters"),
        ({"projects": ["a\0b"]}, "NUL"),
        ({"project": ""}, "project must not be empty"),
    ],
)
def test_a_wrong_entry_is_named_by_its_number_and_never_by_its_text(wrong: dict[str, Any], fault: str) -> None:
    with pytest.raises(WrongTokensError, match=fault) as caught:
        tokens.read(file(ENTRY, {**ENTRY, **wrong}))
    assert "tokens[1]" in str(caught.value)
    assert TEXT not in str(caught.value)


def test_every_fault_is_listed_at_once() -> None:
    with pytest.raises(WrongTokensError) as caught:
        tokens.read(file({**ENTRY, "projects": []}, {**ENTRY, "environment": ""}))
    assert "tokens[0]" in str(caught.value)
    assert "tokens[1]" in str(caught.value)


@pytest.mark.parametrize(
    "content",
    [
        b"", b"x", b"[]", b"{}", b'{"tokens":{}}', b'{"tokens":[],"more":1}', file({**ENTRY, "colour": "blue"}),
        file({**ENTRY, "type": "root"}), b'{"tokens":["' + TEXT.encode() + b'"]}', b"\xff\xfe",
        file(ENTRY).replace(b"default", b"\xff", 1),
    ],
    ids=range(11),
)  # fmt: skip
def test_a_file_of_another_shape_is_refused_without_repeating_it(content: bytes) -> None:
    with pytest.raises(WrongTokensError) as caught:
        tokens.read(content)
    assert TEXT not in str(caught.value)


def test_an_empty_list_knows_nobody() -> None:
    table = tokens.read(file())
    assert len(table) == 0
    assert table.find(TEXT) is None
