import json

import pytest
from multidict import CIMultiDict, CIMultiDictProxy

from ingest_gateway.accept import accept
from ingest_gateway.routing import Routes
from schemas import event
from schemas.event import Event, Kind
from schemas.lenient import MalformedJsonError
from schemas.refusal import RefusedPayload
from tests.ingest_gateway import support


def accepted(path: str, body: bytes, token: str = support.BACKEND_DEV, **headers: str) -> Event:
    route = Routes().find(path)
    found = support.TABLE.find(token)
    assert route is not None
    assert route.kind is not None
    assert found is not None
    sent = CIMultiDictProxy(CIMultiDict({name.replace("_", "-"): value for name, value in headers.items()}))
    made = accept(route, route.kind, found, sent, body, received_ms=1234)
    # Whatever a client sends, the broker can carry it both ways.
    assert event.unpack(event.pack(made.headers)) == made.headers
    assert event.from_pairs(event.to_pairs(made.headers)) == made.headers
    return made


def test_a_window_becomes_an_event_with_all_that_was_known() -> None:
    body = support.window(connectionId="c-1", sdkVersion="unleash-node:6.0.0")
    made = accepted("/api/client/metrics", body, Idempotency_Key="k-1")
    token = support.TABLE.find(support.BACKEND_DEV)
    assert token is not None
    assert made.value == body
    assert made.headers == event.Headers(
        kind=Kind.METRICS,
        route="/api/client/metrics",
        project="default",
        environment="development",
        token_id=token.id,
        received_ms=1234,
        body_hash=event.body_hash(body),
        connection="c-1",
        sdk="unleash-node:6.0.0",
        start=1795348800 * 10**9,
        idempotency_key="k-1",
    )
    assert made.key == event.partition_key(made.headers, app="shop")


def test_the_body_names_the_connection_before_the_header_does() -> None:
    path = "/api/frontend/client/metrics"
    both = accepted(path, support.window(connectionId="body"), support.FRONTEND_DEV, unleash_connection_id="header")
    browser = accepted(path, support.window(), support.FRONTEND_DEV, unleash_connection_id="header")
    assert both.headers.connection == "body"
    assert browser.headers.connection == "header"


def test_the_header_names_the_sdk_before_the_body_does() -> None:
    body = support.window(sdkVersion="body:1")
    assert accepted("/api/client/metrics", body, unleash_sdk="header:2").headers.sdk == "header:2"
    assert accepted("/api/client/metrics", body).headers.sdk == "body:1"


def test_a_window_without_bucket_has_no_start() -> None:
    assert accepted("/api/client/metrics", b'{"appName":"a"}').headers.start is None


@pytest.mark.parametrize("start", ["9999-12-31T23:59:59Z", -8_640_000_000_000_000, "0001-01-01T00:00:00Z"])
def test_a_start_that_no_header_holds_is_left_out_and_the_window_taken(start: object) -> None:
    body = json.dumps({"appName": "a", "bucket": {"start": start, "stop": 0, "toggles": {}}}).encode()
    assert accepted("/api/client/metrics", body).headers.start is None


@pytest.mark.parametrize("start", ["1678-01-01T00:00:00Z", "2261-12-31T23:59:59Z"])
def test_every_start_within_64_bits_is_kept(start: str) -> None:
    body = json.dumps({"appName": "a", "bucket": {"start": start, "stop": 0, "toggles": {}}}).encode()
    assert accepted("/api/client/metrics", body).headers.start is not None


def test_a_bulk_post_is_keyed_by_its_posters_headers() -> None:
    path = "/api/client/metrics/bulk"
    made = accepted(path, json.dumps(support.BULK).encode(), unleash_appname="unleash-edge", unleash_connection_id="E1")
    assert made.headers.kind is Kind.BULK
    assert made.headers.start is None
    assert made.key == b"development\0unleash-edge\0E1"


def test_a_registration_is_an_event_too() -> None:
    body = json.dumps({**support.REGISTRATION, "connectionId": "c", "sdkVersion": "s:1"}).encode()
    made = accepted("/api/client/register", body)
    assert (made.headers.kind, made.headers.connection, made.headers.sdk) == (Kind.REGISTER, "c", "s:1")


def test_without_a_connection_equal_bytes_share_a_key_and_others_do_not() -> None:
    one = accepted("/api/client/metrics", support.window("a"))
    again = accepted("/api/client/metrics", support.window("a"))
    other = accepted("/api/client/metrics", support.window("b"))
    assert one.key == again.key != other.key


def test_a_token_of_any_environment_leaves_it_open() -> None:
    made = accepted("/api/client/metrics", support.window(), support.BACKEND_ANY)
    assert (made.headers.project, made.headers.environment) == ("default", "*")


def test_seen_tokens_are_cut_out_and_the_hash_is_of_what_was_received() -> None:
    body = json.dumps({**support.BULK, "seenTokens": ["default:development.seen-secret"], "x": 1}).encode()
    made = accepted("/api/client/metrics/bulk", body)
    assert b"seen-secret" not in made.value
    assert json.loads(made.value) == {**support.BULK, "x": 1}
    assert made.headers.body_hash == event.body_hash(body)


@pytest.mark.parametrize("odd", ["x" * 300, "nul\0inside", "bytes\udcff", "é" * 256])
def test_an_odd_identity_is_bounded_and_stays_different_from_others(odd: str) -> None:
    path = "/api/client/metrics"
    first = accepted(path, support.window(), unleash_connection_id=odd, Idempotency_Key=odd)
    second = accepted(path, support.window(), unleash_connection_id=odd + "1", Idempotency_Key=odd + "1")
    for value in (first.headers.connection, first.headers.idempotency_key):
        assert value.startswith("sha256:")
        assert len(value) < 100
    assert first.headers.connection != second.headers.connection
    assert first.headers.idempotency_key != second.headers.idempotency_key


def test_a_plain_identity_stays_as_it_is_in_any_script() -> None:
    made = accepted("/api/client/metrics", support.window(), unleash_connection_id="соединение")
    assert made.headers.connection == "соединение"


@pytest.mark.parametrize("odd", ["x" * 300, "a\0b", "bytes\udcff"])
def test_an_odd_sdk_name_is_bounded_and_readable(odd: str) -> None:
    sdk = accepted("/api/client/metrics", support.window(), unleash_sdk=odd).headers.sdk
    assert len(sdk) <= 255
    assert "\0" not in sdk
    assert sdk.encode()


def test_what_only_the_lenient_decoder_reads_is_told() -> None:
    route = Routes().find("/api/client/metrics")
    token = support.TABLE.find(support.BACKEND_DEV)
    assert route is not None
    assert token is not None
    told: list[int] = []
    sent = CIMultiDictProxy(CIMultiDict[str]())
    for body in (support.window(), support.window(appName=5)):
        accept(route, Kind.METRICS, token, sent, body, received_ms=0, on_lenient=lambda: told.append(1))
    assert told == [1]


def test_what_is_refused_makes_no_event() -> None:
    with pytest.raises(RefusedPayload):
        accepted("/api/client/metrics", b"{}")
    with pytest.raises(MalformedJsonError):
        accepted("/api/client/metrics", b"{")
