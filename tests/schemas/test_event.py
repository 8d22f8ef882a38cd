"""The event on the broker: headers there and back, ids, and the partition."""

import hashlib

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas import event
from schemas.event import Headers, Kind, Unreadable

TEXT = st.text(max_size=20)
HEADERS = st.builds(
    Headers,
    kind=st.sampled_from(Kind),
    route=TEXT,
    project=TEXT,
    environment=TEXT,
    token_id=TEXT,
    received_ms=st.integers(-(2**53), 2**53),
    body_hash=TEXT,
    connection=TEXT,
    sdk=TEXT,
    start=st.none() | st.integers(-(2**63), 2**63 - 1),
    idempotency_key=TEXT,
)


def headers(**more: object) -> Headers:
    known: dict[str, object] = {
        "kind": Kind.METRICS,
        "route": "/api/client/metrics",
        "project": "default",
        "environment": "development",
        "token_id": "0123456789abcdef",
        "received_ms": 1,
        "body_hash": "f" * 32,
    }
    return msgspec.convert({**known, **more}, Headers)


@given(HEADERS)
def test_packed_headers_are_unpacked_as_they_were(sent: Headers) -> None:
    assert event.unpack(event.pack(sent)) == sent


@given(HEADERS)
def test_headers_as_pairs_are_read_as_they_were(sent: Headers) -> None:
    pairs = event.to_pairs(sent)
    assert event.from_pairs(pairs) == sent
    assert event.from_pairs(reversed(pairs)) == sent


def test_the_pairs_carry_every_header_of_the_protocol() -> None:
    names = [name for name, _ in event.to_pairs(headers(start=0))]
    assert set(names) == {
        "v", "kind", "route", "project", "environment", "token_id", "received_ms", "connection", "sdk", "start",
        "body_hash", "idempotency_key",
    }  # fmt: skip
    assert len(names) == len(set(names))
    assert "start" not in dict(event.to_pairs(headers()))


def test_headers_that_a_later_version_adds_are_ignored() -> None:
    assert event.from_pairs([*event.to_pairs(headers()), ("colour", b"blue")]) == headers()


@pytest.mark.parametrize(
    "raw", [b"", b"\xff", b"\x80", b"garbage", event.pack(headers())[:-3], msgspec.msgpack.encode([1])]
)
def test_packed_garbage_is_unreadable_and_kept(raw: bytes) -> None:
    found = event.unpack(raw)
    assert isinstance(found, Unreadable)
    assert found.raw == raw
    assert found.why.startswith("headers: ")


@given(st.binary(max_size=50))
def test_no_packed_bytes_raise(raw: bytes) -> None:
    assert isinstance(event.unpack(raw), Headers | Unreadable)


@pytest.mark.parametrize(
    "pairs",
    [
        [],
        [("kind", b"metrics")],
        [*event.to_pairs(headers()), ("kind", b"no such kind")],
        [*event.to_pairs(headers()), ("received_ms", b"soon")],
        [*event.to_pairs(headers()), ("route", b"\xff")],
        [*event.to_pairs(headers()), ("v", b"2")],
    ],
    ids=range(6),
)
def test_wrong_pairs_are_unreadable_and_kept(pairs: list[tuple[str, bytes]]) -> None:
    found = event.from_pairs(pairs)
    assert isinstance(found, Unreadable)
    assert [tuple(pair) for pair in msgspec.msgpack.decode(found.raw)] == pairs


def test_a_newer_format_is_unreadable_and_not_guessed_at() -> None:
    newer = msgspec.structs.replace(headers(), v=event.VERSION + 1)
    for found in (event.unpack(event.pack(newer)), event.from_pairs(event.to_pairs(newer))):
        assert isinstance(found, Unreadable)
        assert "newer" in found.why


def test_ids_and_hashes_have_the_frozen_form() -> None:
    digest = hashlib.sha256(b"secret").hexdigest()
    assert event.token_id(digest) == digest[:16]
    assert event.body_hash(b"secret") == digest[:32]


# Kafka's own test vectors (its UtilsTest), as signed 32-bit numbers.
VECTORS = {
    b"21": -973932308,
    b"foobar": -790332482,
    b"a-little-bit-long-string": -985981536,
    b"a-little-bit-longer-string": -1486304829,
    b"lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8": -58897971,
    b"abc": 479470107,
}


@pytest.mark.parametrize(("key", "signed"), VECTORS.items())
def test_murmur2_is_kafkas(key: bytes, signed: int) -> None:
    assert event._murmur2(key) == signed & 0xFFFFFFFF
    assert event.partition_of(key, 100) == (signed & 0x7FFFFFFF) % 100


@given(st.binary(max_size=40), st.integers(1, 64))
def test_a_key_has_one_partition(key: bytes, partitions: int) -> None:
    assert 0 <= event.partition_of(key, partitions) < partitions


def test_one_connection_keeps_to_one_key() -> None:
    first = event.partition_key(headers(connection="c", body_hash="1" * 32, token_id="a" * 16), app="shop")
    second = event.partition_key(headers(connection="c", body_hash="2" * 32, token_id="b" * 16), app="shop")
    assert first == second
    for other in (
        event.partition_key(headers(connection="d"), app="shop"),
        event.partition_key(headers(connection="c"), app="pos"),
        event.partition_key(headers(connection="c", environment="production"), app="shop"),
    ):
        assert other != first


def test_without_a_connection_equal_bytes_or_keys_of_one_token_meet() -> None:
    def key(**more: object) -> bytes:
        return event.partition_key(headers(**more), app="shop")

    assert key() == key()
    assert key(body_hash="1" * 32) != key(body_hash="2" * 32)
    assert key(idempotency_key="k", body_hash="1" * 32) == key(idempotency_key="k", body_hash="2" * 32)
    assert key(idempotency_key="k", token_id="a" * 16) != key(idempotency_key="k", token_id="b" * 16)


def test_a_lone_surrogate_in_a_header_does_not_break_the_key() -> None:
    assert event.partition_key(headers(connection="\ud800"), app="\udfff")
