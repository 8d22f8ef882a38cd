import gzip
import os
import zlib

import lz4.frame
import pytest
import zstandard

from deploy.store import compression
from deploy.store.errors import Fault

PLAIN = os.urandom(300_000) + b"\x00" * 3_000_000
LIMIT = 10_000_000
WRITERS = {
    "gzip": gzip.compress,
    "deflate": zlib.compress,
    "lz4": lz4.frame.compress,
    "zstd": zstandard.compress,
    "": bytes,
    "identity": bytes,
}


def cut(data: bytes, size: int) -> list[bytes]:
    return [data[at : at + size] for at in range(0, len(data), size)]


@pytest.mark.parametrize("size", [1 << 16, 1 << 30, 997])
@pytest.mark.parametrize("coding", WRITERS)
def test_bodies_are_inflated_however_they_are_cut(coding, size):
    pieces = list(compression.inflate(coding, cut(WRITERS[coding](PLAIN), size), LIMIT))
    assert b"".join(pieces) == PLAIN
    assert coding in {"", "identity"} or max(map(len, pieces)) <= 1 << 20


@pytest.mark.parametrize("coding", ["gzip", "lz4", "zstd"])
def test_members_may_follow_one_another(coding):
    data = WRITERS[coding](b"a") + WRITERS[coding](b"b" * 100)
    for size in (1, 7, 1000):
        assert b"".join(compression.inflate(coding, cut(data, size), LIMIT)) == b"a" + b"b" * 100


@pytest.mark.parametrize("coding", WRITERS)
def test_a_bomb_is_stopped_at_the_limit(coding):
    packed = WRITERS[coding](b"\x00" * (2 * LIMIT))
    pieces: list[bytes] = []
    with pytest.raises(Fault) as refused:
        pieces.extend(compression.inflate(coding, cut(packed, 1 << 20), LIMIT))
    assert refused.value.code == 229
    assert sum(map(len, pieces)) <= LIMIT


@pytest.mark.parametrize("coding", ["gzip", "deflate", "lz4", "zstd"])
@pytest.mark.parametrize("change", [lambda data: data[:-9], lambda data: b"", lambda data: b"nonsense" * 9])
def test_what_is_cut_short_or_broken_is_an_error(coding, change):
    with pytest.raises(Fault) as refused:
        list(compression.inflate(coding, [change(WRITERS[coding](PLAIN))], LIMIT))
    assert (refused.value.code, refused.value.status) == (271, 400)


def test_an_unknown_coding_is_an_error():
    with pytest.raises(Fault) as refused:
        list(compression.inflate("br", [b"x"], LIMIT))
    assert refused.value.status == 415


@pytest.mark.parametrize(
    ("accepted", "coding"),
    [
        ("gzip", "gzip"),
        ("br, zstd;q=0.5, gzip", "zstd"),
        ("lz4;q=0, deflate", "deflate"),
        ("GZIP", "gzip"),
        ("", None),
        ("br", None),
        ("*", None),
    ],
)
def test_the_first_coding_that_we_can_write_is_taken(accepted, coding):
    assert compression.choose(accepted) == coding


@pytest.mark.parametrize("coding", ["gzip", "deflate", "lz4", "zstd"])
def test_what_we_write_can_be_read(coding):
    packer = compression.compressor(coding)
    data = packer.compress(b"a" * 1000) + packer.compress(b"b") + packer.flush()
    assert b"".join(compression.inflate(coding, [data], LIMIT)) == b"a" * 1000 + b"b"
    assert b"".join(compression.inflate(coding, [compression.compressor(coding).flush()], LIMIT)) == b""
