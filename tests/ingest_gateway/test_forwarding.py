"""Heads on their way through, byte for byte."""

import pytest
from multidict import CIMultiDict, CIMultiDictProxy

from ingest_gateway import forwarding
from ingest_gateway.forwarding import Incoming, RawHeaders

HOST = (b"Host", b"gateway:4242")
ADDED = [(b"X-Forwarded-For", b"10.0.0.7"), (b"X-Forwarded-Proto", b"http"), (b"X-Forwarded-Host", b"gateway:4242")]
VIA = (b"Via", b"1.1 flagmeter")


def passed(*headers: tuple[bytes, bytes], target: bytes = b"/x", peer: str = "10.0.0.7", **more: object) -> RawHeaders:
    head = forwarding.request_head(
        Incoming("GET", target, 1, (HOST, *headers), peer),
        authority=b"unleash:4242",
        **more,  # type: ignore[arg-type]
    )
    assert head.endswith(b"\r\n\r\n")
    _, *lines = head[:-4].split(b"\r\n")
    pairs = [line.partition(b": ") for line in lines]
    found = [(name, value) for name, _, value in pairs]
    assert found.pop(0) == (b"Host", b"unleash:4242")
    return found


def test_a_head_goes_with_its_own_bytes_in_their_order_duplicates_and_all() -> None:
    headers = [
        (b"authorization", b"*:development.text"),
        (b"X-Twice", b"1"),
        (b"UNLEASH-APPNAME", "Käse".encode("latin-1")),
        (b"x-twice", b"2"),
        (b"X-Empty", b""),
        (b"Cookie", b"a=1; b=2"),
    ]
    assert passed(*headers) == [*headers, *ADDED, VIA]


@pytest.mark.parametrize("target", [b"/a%2Fb//c?x=%2f&y=a+b", b"/x?", b"//x", b"/a#b", b"/%zz"])
def test_the_target_goes_as_it_stands_behind_the_prefix(target: bytes) -> None:
    incoming = Incoming("POST", target, 1, (HOST,), "")
    head = forwarding.request_head(incoming, authority=b"unleash", prefix=b"/behind")
    assert head.startswith(b"POST /behind" + target + b" HTTP/1.1\r\nHost: unleash\r\n")


def test_what_belongs_to_one_hop_stays_behind_with_what_connection_names() -> None:
    hop = [
        (b"Connection", b"keep-alive, X-Mine"),
        (b"CONNECTION", b"x-other"),
        (b"X-Mine", b"1"),
        (b"X-OTHER", b"2"),
        (b"Keep-Alive", b"timeout=5"),
        (b"Proxy-Connection", b"keep-alive"),
        (b"Proxy-Authorization", b"Basic eDp5"),
        (b"TE", b"trailers"),
        (b"Trailer", b"X-Sum"),
        (b"Transfer-Encoding", b"chunked"),
        (b"Upgrade", b"h2c"),
    ]
    assert passed(*hop, (b"X-Stays", b"3")) == [(b"X-Stays", b"3"), *ADDED, VIA]
    answer = forwarding.answer_head(200, "OK", [*hop, (b"X-Stays", b"3")])
    assert answer == b"HTTP/1.1 200 OK\r\nX-Stays: 3\r\n\r\n"


def test_framing_and_the_way_taken_cannot_be_removed_by_naming_them() -> None:
    named = (b"Connection", b"content-length, via, x-forwarded-for, host")
    found = passed(named, (b"Content-Length", b"5"), (b"Via", b"1.1 edge"), (b"X-Forwarded-For", b"1.2.3.4"))
    assert (b"Content-Length", b"5") in found
    assert (b"Via", b"1.1 edge") in found
    assert (b"X-Forwarded-For", b"1.2.3.4, 10.0.0.7") in found
    assert (b"X-Forwarded-Host", b"gateway:4242") in found


def test_the_way_is_continued_where_a_proxy_before_has_begun_it() -> None:
    before = [
        (b"X-Forwarded-For", b"1.2.3.4, 5.6.7.8"),
        (b"x-forwarded-for", b"9.9.9.9"),
        (b"X-Forwarded-Proto", b"https"),
        (b"X-Forwarded-Host", b"flags.example"),
        (b"Via", b"1.1 proxy"),
    ]
    assert passed(*before) == [
        *before[2:],
        (b"X-Forwarded-For", b"1.2.3.4, 5.6.7.8, 9.9.9.9, 10.0.0.7"),
        VIA,
    ]
    assert passed(peer="") == [*ADDED[1:], VIA]


def test_a_body_in_chunks_has_no_length() -> None:
    found = passed((b"Content-Length", b"5"), chunked=True)
    assert found == [*ADDED, VIA, (b"Transfer-Encoding", b"chunked")]


def test_headers_can_be_left_out_and_added() -> None:
    found = passed((b"Content-Type", b"text/plain"), without=frozenset({b"content-type"}), more=[(b"A", b"b")])
    assert found == [*ADDED, VIA, (b"A", b"b")]


def test_an_answer_goes_back_with_its_own_words_and_bytes() -> None:
    headers = [(b"Set-Cookie", b"a=1"), (b"ETag", b'W/"6ef7:12"'), (b"set-cookie", b"b=2"), (b"X", b"\xe4")]
    head = forwarding.answer_head(299, "So\udce4 la", headers, chunked=True, close=True)
    assert head == (
        b'HTTP/1.1 299 So\xe4 la\r\nSet-Cookie: a=1\r\nETag: W/"6ef7:12"\r\nset-cookie: b=2\r\nX: \xe4\r\n'
        b"Transfer-Encoding: chunked\r\nConnection: close\r\n\r\n"
    )


@pytest.mark.parametrize(
    ("via", "ours"),
    [
        ("1.1 flagmeter", True),
        ("HTTP/1.1 proxy, 1.0 FLAGMETER (comment)", True),
        ("1.1 proxy", False),
        ("1.1 flagmeter-like", False),
        ("flagmeter", False),
        ("", False),
    ],
)
def test_what_a_gateway_has_passed_on_is_known_by_any_via(via: str, ours: bool) -> None:
    several = CIMultiDict([("via", "1.1 proxy"), ("Accept", "*/*"), ("VIA", via)])
    assert forwarding.came_from_a_gateway(CIMultiDictProxy(several)) is ours
    assert not forwarding.came_from_a_gateway(CIMultiDictProxy(CIMultiDict([("X-Via", via)])))
