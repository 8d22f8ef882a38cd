"""`POST /edge/validate`, read and written."""

import json
from typing import Any

import pytest

from schemas import edge_tokens, lenient
from schemas.edge_tokens import UnreadableAnswerError
from schemas.refusal import Check, RefusedPayload
from schemas.tokens import TokenEntry, TokenType, token_of

TEXT = "default:development.0123456789abcdef"
ENTRY: dict[str, Any] = {"token": TEXT, "type": "client", "projects": ["default"], "environment": "development"}


def answer(*entries: Any) -> bytes:
    return json.dumps({"tokens": list(entries)}).encode()


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("client", TokenType.BACKEND),
        ("backend", TokenType.BACKEND),
        ("CLIENT", TokenType.BACKEND),
        ("frontend", TokenType.FRONTEND),
        ("admin", TokenType.ADMIN),
    ],
)
def test_types_are_read_as_unleash_names_them(name: str, kind: TokenType) -> None:
    known = edge_tokens.decode_answer(answer({**ENTRY, "type": name}), [TEXT]).known[TEXT]
    assert (known.type, known.project, known.environment) == (kind, "default", "development")
    assert TEXT not in repr(known)


@pytest.mark.parametrize(
    ("kind", "environment", "meant"),
    [
        ("client", "*", "*"),
        ("client", None, "*"),
        ("client", "", "*"),
        ("admin", None, "*"),
        ("frontend", "*", "default"),
        ("frontend", None, "default"),
    ],
)
def test_an_environment_that_names_none(kind: str, environment: str | None, meant: str) -> None:
    entry = {**ENTRY, "type": kind, "environment": environment}
    assert edge_tokens.decode_answer(answer(entry), [TEXT]).known[TEXT].environment == meant
    without = {key: value for key, value in entry.items() if key != "environment"}
    if not environment:
        assert edge_tokens.decode_answer(answer(without), [TEXT]).known[TEXT].environment == meant


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"type": "proxy"}, "type"),
        ({"projects": []}, "at least one project"),
        ({"projects": ["__batch__"]}, "reserved"),
        ({"projects": ["p" * 256]}, "255"),
        ({"environment": "__x"}, "reserved"),
        ({"environment": "a\0b"}, "NUL"),
    ],
)
def test_a_token_that_cannot_be_used_here_is_named_with_its_reason(changes: dict[str, Any], why: str) -> None:
    answered = edge_tokens.decode_answer(answer({**ENTRY, **changes}), [TEXT])
    assert answered.known == {}
    assert why in answered.unusable[TEXT]
    assert TEXT not in answered.unusable[TEXT] + repr(answered)
    assert answered.complete


@pytest.mark.parametrize(
    "broken", [None, 1, "x", {}, {**ENTRY, "projects": None}, {**ENTRY, "projects": "*"}, {**ENTRY, "token": 5}]
)
def test_a_broken_entry_leaves_its_neighbours_and_makes_the_answer_incomplete(broken: Any) -> None:
    answered = edge_tokens.decode_answer(answer(broken, ENTRY), [TEXT, "other"])
    assert list(answered.known) == [TEXT]
    assert not answered.complete


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{}",
        b"[]",
        b"null",
        b'{"tokens":null}',
        b'{"tokens":{}}',
        b"<html>",
        b"\xff\xfe",
        b'{"tokens":[',
        b'{"tokens":' + b"[" * 100_000 + b"]" * 100_000 + b"}",
    ],
    ids=range(10),
)
def test_what_is_no_answer_says_nothing_of_any_token(content: bytes) -> None:
    try:
        answered = edge_tokens.decode_answer(content, [TEXT])
    except UnreadableAnswerError:
        return
    assert answered.known == {}
    assert not answered.complete


def test_tokens_that_were_not_asked_for_are_left_out() -> None:
    answered = edge_tokens.decode_answer(answer({**ENTRY, "token": "another"}, ENTRY), [TEXT])
    assert list(answered.known) == [TEXT]


def test_an_answer_calls_backend_tokens_client_and_leaves_a_star_a_star() -> None:
    made = [
        (text, token_of(TokenEntry(token=text, type=kind, projects=projects, environment=environment)))
        for text, kind, projects, environment in (
            ("a", TokenType.BACKEND, ["b", "a"], "development"),
            ("b", TokenType.FRONTEND, ["*"], "production"),
            ("c", TokenType.ADMIN, ["*"], "*"),
            ("d", TokenType.BACKEND, ["*"], "*"),
        )
    ]
    assert json.loads(edge_tokens.encode_answer(made)) == {
        "tokens": [
            {"token": "a", "type": "client", "projects": ["a", "b"], "environment": "development"},
            {"token": "b", "type": "frontend", "projects": ["*"], "environment": "production"},
            {"token": "c", "type": "admin", "projects": ["*"], "environment": "*"},
            {"token": "d", "type": "client", "projects": ["*"], "environment": "*"},
        ]
    }


def test_one_gateway_reads_what_another_answers() -> None:
    token = token_of(TokenEntry(token=TEXT, type=TokenType.BACKEND, projects=["shop"], environment="*"))
    read = edge_tokens.decode_answer(edge_tokens.encode_answer([(TEXT, token)]), [TEXT]).known[TEXT]
    assert read == token


def test_a_question_is_read_as_the_recorded_server_reads_bodies() -> None:
    assert lenient.tokens_asked(edge_tokens.encode_question(["a", "b"])).tokens == ["a", "b"]
    assert lenient.tokens_asked(b'{"tokens":["a",5,null,true],"more":1}').tokens == ["a", "5", "", "true"]
    assert lenient.tokens_asked(json.dumps({"tokens": ["x"] * 100}).encode()).tokens == ["x"] * 100


@pytest.mark.parametrize(
    ("body", "pointer"),
    [
        (b"", "/body/tokens"),
        (b"{}", "/body/tokens"),
        (b"[]", "/body"),
        (b'{"tokens":null}', "/body/tokens"),
        (b'{"tokens":"secret-text"}', "/body/tokens"),
        (b'{"tokens":["secret-text",{}]}', "/body/tokens/1"),
        (json.dumps({"tokens": ["secret-text"] * 101}).encode(), "/body/tokens"),
    ],
    ids=range(7),
)
def test_what_is_no_question_is_refused_by_its_place_and_repeats_no_token(body: bytes, pointer: str) -> None:
    with pytest.raises(RefusedPayload) as refused:
        lenient.tokens_asked(body)
    assert refused.value.check is Check.SCHEMA
    assert refused.value.details[0].path == pointer
    assert "secret-text" not in str(refused.value)


def test_a_log_shows_the_same_id_as_everywhere() -> None:
    token = token_of(TokenEntry(token=TEXT, type=TokenType.BACKEND, projects=["a"], environment="e"))
    assert edge_tokens.shown_id(TEXT) == token.id
