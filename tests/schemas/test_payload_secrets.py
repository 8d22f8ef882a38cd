"""`seenTokens` never reaches the log, however it is written, and nothing else is lost."""

import json
import time
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas import decode, lenient
from schemas.lenient import MalformedJsonError
from schemas.payload_secrets import without_seen_tokens

SECRET = b"default:development.secret"


def escaped(name: str, which: set[int], *, upper: bool) -> str:
    """Write a name with some of its letters as JSON escapes."""
    shape = "\\u%04X" if upper else "\\u%04x"
    return "".join(shape % ord(letter) if at in which else letter for at, letter in enumerate(name))


@pytest.mark.parametrize(
    ("body", "without"),
    [
        (b'{"seenTokens":["%s"]}', b"{}"),
        (b'{"a":1,"seenTokens":["%s"],"b":2}', b'{"a":1,"b":2}'),
        (b'{"seenTokens":["%s"],"a":1.50}', b'{"a":1.50}'),
        (b'{"a":1e400,"seenTokens":["%s"]}', b'{"a":1e400}'),
        (b' { "a" : [ 1 , 2 ] ,\n "seenTokens" : [ "%s" ] } ', b'{"a" : [ 1 , 2 ]}'),
        (b'{"seenTokens":1,"a":1,"seenTokens":["%s"],"a":2}', b'{"a":1,"a":2}'),
        (b'{"\\u0073eenToken\\u0073":["%s"],"a":1}', b'{"a":1}'),
        (b'{"seen\\u0054o\\u006Bens":["%s"],"a":1}', b'{"a":1}'),
        (b'{"seenTokens":{"x":["%s"]},"a":1}', b'{"a":1}'),
        (b'{"seenTokens":"%s","a":"\\ud800"}', b'{"a":"\\ud800"}'),
        (b'\xef\xbb\xbf{"seenTokens":["%s"],"a":1}', b'{"a":1}'),
        (b'{"a":"\xff","seenTokens":["%s"]}', '{"a":"\ufffd"}'.encode()),
        (b'{"a":"\xc3\xa4 \\u00e4","seenTokens":["%s"]}', b'{"a":"\xc3\xa4 \\u00e4"}'),
        (b'{"a":' + b"9" * 5000 + b',"seenTokens":["%s"]}', b'{"a":' + b"9" * 5000 + b"}"),
        (b'{"a":"},\\"seenTokens\\":[","seenTokens":["%s"]}', b'{"a":"},\\"seenTokens\\":["}'),
    ],
    ids=range(15),
)
def test_the_member_is_cut_out_and_every_other_stays_as_it_was(body: bytes, without: bytes) -> None:
    assert without_seen_tokens(body.replace(b"%s", SECRET)) == without


@pytest.mark.parametrize(
    "body",
    [
        b"{}",
        b"",
        b"[]",
        b"null",
        b'{"appName":"a"}',
        b'{"appName":"\\u00e4"}',
        b'{"appName":"seenTokens"}',
        b'{"nested":{"seenTokens":[]}}',
        b'[{"seenTokens":[]}]',
        b'{"SeenTokens":[],"seentokens":[],"seenTokens2":[]}',
        b'{"x":"\\"seenTokens\\":[]"}',
    ],
)
def test_a_body_without_it_is_given_back_as_the_very_same_object(body: bytes) -> None:
    assert without_seen_tokens(body) is body


@pytest.mark.parametrize(
    "body",
    [
        b'{"seenTokens":["%s"]',
        b'{"seenTokens":["%s"]} x',
        b'{"seenTokens":NaN}',
        b'{"seenTokens":' + b"[" * 100_000 + b"]" * 100_000 + b"}",
    ],
    ids=range(4),
)
def test_what_no_decoder_reads_is_not_given_back(body: bytes) -> None:
    with pytest.raises(MalformedJsonError) as caught:
        without_seen_tokens(body.replace(b"%s", SECRET))
    assert SECRET.decode() not in str(caught.value)


VALUES: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=5,
)
MEMBERS = st.lists(st.tuples(st.just("seenTokens") | st.text(max_size=4), VALUES), max_size=5)


class Pairs(list[tuple[str, Any]]):
    """An object's members as they stand, doubles included."""


@settings(max_examples=100, deadline=None)
@given(MEMBERS, st.sets(st.integers(0, 9)), st.booleans(), st.booleans(), st.sampled_from([None, 1]))
def test_any_way_to_write_it_is_found_and_all_else_kept(
    members: list[tuple[str, Any]], which: set[int], upper: bool, ascii_only: bool, indent: int | None
) -> None:
    def written(name: str) -> str:
        if name == "seenTokens":
            return f'"{escaped(name, which, upper=upper)}"'
        return json.dumps(name, ensure_ascii=ascii_only)

    inside = ", ".join(
        f"{written(name)}: {json.dumps(value, ensure_ascii=ascii_only, indent=indent)}" for name, value in members
    )
    body = "{" + inside + "}"
    raw = body.encode()
    left = without_seen_tokens(raw)
    expected = [pair for pair in json.loads(body, object_pairs_hook=Pairs) if pair[0] != "seenTokens"]
    assert json.loads(left, object_pairs_hook=Pairs) == expected
    assert (left is raw) == all(name != "seenTokens" for name, _ in members)


def test_what_is_left_decodes_to_the_same() -> None:
    entry = {"featureName": "f\ud800", "appName": "a", "environment": "e", "timestamp": 0, "yes": "3"}
    body = json.dumps({"applications": [], "seenTokens": [SECRET.decode()], "metrics": [entry]}).encode()
    left = without_seen_tokens(body)
    assert SECRET not in left
    assert decode.bulk(left) == decode.bulk(body) == lenient.bulk(body)


def test_a_body_without_it_costs_next_to_nothing() -> None:
    body = json.dumps({"appName": "ä" * 1000, "x": ["sss\u00e4"] * 20_000}).encode()
    assert b"\\u" in body
    best = min(_seconds(body) for _ in range(5))
    assert best < 0.05  # 300 kB; measured 1 ms


def _seconds(body: bytes) -> float:
    began = time.perf_counter()
    assert without_seen_tokens(body) is body
    return time.perf_counter() - began
