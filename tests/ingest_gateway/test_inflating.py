import gzip
import tracemalloc
import zlib

import pytest

from ingest_gateway.inflating import gunzip, undeflate
from ingest_gateway.refusals import Refused

TEXT = b'{"appName":"shop"}' * 50


def raw_deflate(content: bytes) -> bytes:
    deflater = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    return deflater.compress(content) + deflater.flush()


def refusal_of(inflate: object, body: bytes, limit: int = 100_000) -> Refused:
    with pytest.raises(Refused) as refused:
        inflate(body, limit=limit)  # type: ignore[operator]
    return refused.value


def test_gzip_comes_back_whole() -> None:
    assert gunzip(gzip.compress(TEXT), limit=len(TEXT)) == TEXT


def test_gzip_members_are_joined_and_what_follows_them_is_ignored() -> None:
    assert gunzip(gzip.compress(b"[1,") + gzip.compress(b"2]") + b"tail", limit=100) == b"[1,2]"


def test_members_share_one_limit() -> None:
    assert refusal_of(gunzip, gzip.compress(b"x" * 60) * 2, limit=100).status == 413


def test_deflate_is_taken_with_and_without_zlibs_header() -> None:
    assert undeflate(zlib.compress(TEXT), limit=len(TEXT)) == TEXT
    assert undeflate(raw_deflate(TEXT), limit=len(TEXT)) == TEXT


def test_one_byte_above_the_limit_is_413() -> None:
    assert refusal_of(gunzip, gzip.compress(TEXT), limit=len(TEXT) - 1).status == 413
    assert refusal_of(undeflate, zlib.compress(TEXT), limit=len(TEXT) - 1).status == 413


def test_a_bomb_is_never_inflated_beyond_the_limit() -> None:
    bomb = gzip.compress(b"\0" * 64_000_000)
    limit = 1_000_000
    tracemalloc.start()
    try:
        assert refusal_of(gunzip, bomb, limit=limit).status == 413
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 4 * limit


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b"not gzip at all", b"incorrect header check"),
        (gzip.compress(TEXT)[:-9], b"unexpected end of file"),
        (gzip.compress(TEXT)[:-8] + b"\0" * 8, b"incorrect data check"),
    ],
)
def test_broken_gzip_is_400_in_zlibs_words(body: bytes, words: bytes) -> None:
    refused = refusal_of(gunzip, body)
    assert refused.status == 400
    assert words in refused.body


def test_broken_deflate_is_400() -> None:
    assert refusal_of(undeflate, b"\xff\xff\xff\xff").status == 400
    assert refusal_of(undeflate, zlib.compress(TEXT)[:-5]).status == 400


def test_thousands_of_empty_members_are_refused_at_once() -> None:
    member = gzip.compress(b"", mtime=0)
    assert gunzip(member * 16 + b"rest", limit=10) == b""
    with pytest.raises(Refused) as caught:
        gunzip(member * 17, limit=10)
    assert caught.value.status == 400
