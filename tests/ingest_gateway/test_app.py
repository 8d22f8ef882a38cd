"""What the gateway answers, over real connections."""

import asyncio
import gzip
import json
import time
import zlib
from pathlib import Path
from typing import Any

import pytest

from ingest_gateway.groups import Bounds
from ingest_gateway.writer import InDoubt, NotTaken
from schemas import metric_names as names
from tests.ingest_gateway import support
from tests.ingest_gateway.support import ScriptedLog, ask, connect, gateway, headers_for, window
from tests.support.waiting import until

JSON_ERROR = {"id", "name", "message", "details"}
LIMIT = 2 * 1024 * 1024


async def test_the_recorded_successes(tmp_path: Path) -> None:
    async with gateway(tmp_path) as found:
        metrics = await ask(found.port)
        register = await ask(found.port, "/api/client/register", json.dumps(support.REGISTRATION).encode())
        bulk = await ask(found.port, "/api/client/metrics/bulk", json.dumps(support.BULK).encode())
        edge = await ask(found.port, "/api/client/metrics/edge", b"{whatever")
        frontend = headers_for(support.FRONTEND_DEV)
        browser = await ask(found.port, "/api/frontend/client/metrics", window(), frontend)
    assert [reply.status for reply in (metrics, register, bulk, edge, browser)] == [202, 202, 202, 202, 200]
    assert (metrics.body, bulk.body, edge.body, browser.body) == (b"", b"", b"", b"OK")
    assert register.headers["x-unleash-version"]
    assert browser.headers["access-control-allow-origin"] == "*"
    assert browser.headers["content-type"].startswith("text/plain")
    assert [headers.kind for headers, _ in support.log_of(tmp_path)] == ["metrics", "register", "bulk", "metrics"]


async def test_a_2xx_is_sent_only_when_the_broker_has_the_event() -> None:
    log = ScriptedLog()
    async with gateway(Path(), log=log) as found, connect(found.port) as connection:
        log.gate.clear()
        await connection.send("POST", "/api/client/metrics", headers_for(), window())
        answer = asyncio.create_task(connection.receive())
        await until(lambda: log.entered == 1)
        assert not answer.done()
        log.gate.set()
        assert (await answer).status == 202
        assert len(log.events) == 1


async def test_empty_windows_and_impact_metrics_alone_are_in_the_log_too(tmp_path: Path) -> None:
    bodies = [
        b'{"appName":"a","bucket":{"start":0,"stop":0,"toggles":{}}}',
        b'{"appName":"a","bucket":null,"impactMetrics":[{"name":"x"}]}',
    ]
    async with gateway(tmp_path) as found:
        for body in bodies:
            assert (await ask(found.port, body=body)).status == 202
    assert [value for _, value in support.log_of(tmp_path)] == bodies


# What may be wrong with a request.


@pytest.mark.parametrize(
    ("path", "method"),
    [
        ("/", "GET"),
        ("/api/client/metrics", "GET"),
        ("/api/client/metrics", "DELETE"),
        ("/api/client/features", "GET"),
        ("/api/frontend", "POST"),
        ("/healthz", "POST"),
        ("/edge/validate", "GET"),
    ],
)
async def test_everything_else_is_404_in_unleashs_shape(path: str, method: str, tmp_path: Path) -> None:
    async with gateway(tmp_path) as found:
        reply = await ask(found.port, path, b"{}", method=method)
        assert reply.status == 404
        assert set(reply.json()) == JSON_ERROR
        assert reply.json()["name"] == "NotFoundError"
        assert path in reply.json()["message"]


async def test_bytes_that_are_no_text_in_a_path_or_a_header_are_an_ordinary_refusal(tmp_path: Path) -> None:
    async with gateway(tmp_path) as found:
        odd = b"\xff\xfe".decode("latin-1")
        for headers, status in (
            (headers_for(odd), 401),
            (headers_for(Content_Encoding=odd), 415),
            (headers_for(content_type=odd), 415),
            (headers_for(unleash_connection_id=odd, unleash_sdk=odd, unleash_appname=odd, Idempotency_Key=odd), 202),
        ):
            assert (await ask(found.port, headers=headers)).status == status
            bulk = json.dumps(support.BULK).encode()
            assert (await ask(found.port, "/api/client/metrics/bulk", bulk, headers)).status == status
        assert (await ask(found.port, f"/{odd}")).status in {400, 404}


async def test_frontend_paths_are_404_when_switched_off(tmp_path: Path) -> None:
    async with gateway(tmp_path, frontend_api="off") as found:
        for method in ("POST", "OPTIONS"):
            reply = await ask(found.port, "/api/frontend/client/metrics", window(), method=method)
            assert reply.status == 404


@pytest.mark.parametrize("path", ["/api/client/metrics", "/api/client/metrics/bulk", "/api/client/metrics/edge"])
@pytest.mark.parametrize(
    ("token", "status"), [(None, 401), ("nope", 401), (support.FRONTEND_DEV, 403), (support.ADMIN, 403)]
)
async def test_the_token_decides_before_anything_else(
    path: str, token: str | None, status: int, tmp_path: Path
) -> None:
    async with gateway(tmp_path) as found:
        reply = await ask(found.port, path, b"{broken", headers_for(token, "text/plain", Content_Encoding="br"))
    assert reply.status == status
    assert set(reply.json()) == {"message"}


@pytest.mark.parametrize(
    ("headers", "status", "words"),
    [
        ({"Content_Encoding": "br"}, 415, 'unsupported content encoding "br"'),
        ({"Content_Encoding": "gzip, gzip"}, 415, "unsupported content encoding"),
        ({"content_type": "application/json; charset=latin1"}, 415, 'unsupported charset "LATIN1"'),
        ({"content_type": "application/json; charset=utf-99"}, 415, "unsupported charset"),
        ({"content_type": "text/plain"}, 415, "text/plain"),
        ({"content_type": ""}, 415, "you didn't provide one"),
    ],
)
async def test_unsupported_bodies_are_415(headers: dict[str, str], status: int, words: str, tmp_path: Path) -> None:
    async with gateway(tmp_path) as found:
        reply = await ask(found.port, headers=headers_for(**headers))
    assert reply.status == status
    assert words in reply.json()["message"]


@pytest.mark.parametrize(
    "content_type",
    ["application/json", "Application/JSON ; Charset=UTF-8", 'application/json;charset="utf-8"', "application/json;"],
)
async def test_json_is_taken_however_its_type_is_written(content_type: str, tmp_path: Path) -> None:
    async with gateway(tmp_path) as found:
        assert (await ask(found.port, headers=headers_for(content_type=content_type))).status == 202


async def test_another_unicode_charset_is_stored_as_utf8(tmp_path: Path) -> None:
    body = window("größe").decode().encode("utf-16")
    async with gateway(tmp_path) as found:
        reply = await ask(found.port, body=body, headers=headers_for(content_type="application/json; charset=utf-16"))
        assert reply.status == 202
    [(_, value)] = support.log_of(tmp_path)
    assert value == window("größe")


@pytest.mark.parametrize(
    ("encoding", "compressed"),
    [("gzip", gzip.compress(window())), ("DEFLATE", zlib.compress(window())), ("identity", window())],
)
async def test_what_is_stored_is_inflated(encoding: str, compressed: bytes, tmp_path: Path) -> None:
    async with gateway(tmp_path) as found:
        assert (await ask(found.port, body=compressed, headers=headers_for(Content_Encoding=encoding))).status == 202
    [(_, value)] = support.log_of(tmp_path)
    assert value == window()


async def test_broken_compression_is_400_with_a_message(tmp_path: Path) -> None:
    async with gateway(tmp_path) as found:
        reply = await ask(found.port, body=window(), headers=headers_for(Content_Encoding="gzip"))
    assert (reply.status, reply.json()) == (400, {"message": "incorrect header check"})


@pytest.mark.parametrize("body", [b"{", b"nonsense", b'{"appName":"a"', b"\xff\xfe"])
async def test_malformed_json_is_400_with_a_message(body: bytes, tmp_path: Path) -> None:
    async with gateway(tmp_path) as found:
        reply = await ask(found.port, body=body)
    assert reply.status == 400
    assert set(reply.json()) == {"message"}


async def test_a_body_of_the_limit_is_taken_and_one_byte_more_is_413(tmp_path: Path) -> None:
    body = window()
    async with gateway(tmp_path, max_body_bytes=5000) as found:
        exact = await ask(found.port, body=body + b" " * (5000 - len(body)))
        more = await ask(found.port, body=body + b" " * (5001 - len(body)))
        inflated = gzip.compress(body + b" " * 5000)
        zipped = await ask(found.port, body=inflated, headers=headers_for(Content_Encoding="gzip"))
    assert exact.status == 202
    for reply in (more, zipped):
        assert (reply.status, reply.json()) == (413, {"message": "request entity too large"})


async def test_a_declared_length_above_the_limit_is_refused_before_it_is_read(tmp_path: Path) -> None:
    async with gateway(tmp_path) as found, connect(found.port) as connection:
        headers = headers_for(Content_Length=str(50_000_000))
        await connection.send("POST", "/api/client/metrics", headers, b"{", length=False)
        assert (await connection.receive()).status == 413
        assert found.door.held == 0


async def test_a_body_of_50_mb_is_413_and_its_sender_sees_it(tmp_path: Path) -> None:
    async with gateway(tmp_path) as found:
        assert (await ask(found.port, body=b" " * 50_000_000)).status == 413
        assert (await ask(found.port)).status == 202
        assert found.door.held == 0


async def test_a_byte_order_mark_is_no_reason_to_refuse(tmp_path: Path) -> None:
    async with gateway(tmp_path) as found:
        assert (await ask(found.port, body=b"\xef\xbb\xbf" + window())).status == 202


async def test_a_chunked_body_above_the_limit_is_413_without_holding_more(tmp_path: Path) -> None:
    async with gateway(tmp_path) as found, connect(found.port) as connection:
        await connection.send("POST", "/api/client/metrics", headers_for(Transfer_Encoding="chunked"), None)
        most = 0
        chunk = b"10000\r\n" + b" " * 65536 + b"\r\n"
        for _ in range(LIMIT // 65536 + 1):
            connection.writer.write(chunk)
            await connection.writer.drain()
            await asyncio.sleep(0.001)
            most = max(most, found.door.held)
        assert (await connection.receive()).status == 413
        assert 0 < most <= LIMIT


async def test_a_chunked_body_is_taken(tmp_path: Path) -> None:
    async with gateway(tmp_path) as found, connect(found.port) as connection:
        await connection.send("POST", "/api/client/metrics", headers_for(Transfer_Encoding="chunked"), None)
        for byte in window():
            connection.writer.write(b"1\r\n" + bytes([byte]) + b"\r\n")
        connection.writer.write(b"0\r\n\r\n")
        assert (await connection.receive()).status == 202
    assert [value for _, value in support.log_of(tmp_path)] == [window()]


async def test_a_client_that_expects_100_gets_it_before_its_body_and_not_without_a_token(tmp_path: Path) -> None:
    body = window()
    async with gateway(tmp_path) as found:
        async with connect(found.port) as connection:
            headers = headers_for(Expect="100-continue", Content_Length=str(len(body)))
            await connection.send("POST", "/api/client/metrics", headers, None)
            assert (await connection.receive()).status == 100
            connection.writer.write(body)
            assert (await connection.receive()).status == 202
        async with connect(found.port) as connection:
            headers = headers_for("nope", Expect="100-continue", Content_Length=str(len(body)))
            await connection.send("POST", "/api/client/metrics", headers, None)
            assert (await connection.receive()).status == 401


async def test_a_body_that_takes_too_long_is_503_and_the_connection_ends(tmp_path: Path) -> None:
    async with gateway(tmp_path, body_seconds=0.1) as found, connect(found.port) as connection:
        await connection.send("POST", "/api/client/metrics", headers_for(Content_Length="100"), None)
        connection.writer.write(b"{")
        began = time.monotonic()
        reply = await connection.receive()
        assert await connection.ended() == b""
        assert (reply.status, reply.headers["connection"]) == (503, "close")
        assert time.monotonic() - began < 2
        assert found.door.requests == 0


async def test_a_client_that_leaves_in_the_middle_leaves_nothing_behind(tmp_path: Path) -> None:
    async with gateway(tmp_path) as found:
        async with connect(found.port) as connection:
            await connection.send("POST", "/api/client/metrics", headers_for(Content_Length="1000"), None)
            connection.writer.write(b"{" * 100)
            await until(lambda: found.door.held == 100)
        await until(lambda: found.door.requests == 0)
        assert found.door.held == 0
        assert (await ask(found.port)).status == 202


async def test_chunks_that_are_none_end_like_a_body_that_takes_too_long(tmp_path: Path) -> None:
    async with gateway(tmp_path, body_seconds=0.2) as found, connect(found.port) as connection:
        await connection.send("POST", "/api/client/metrics", headers_for(Transfer_Encoding="chunked"), None)
        await until(lambda: found.door.requests == 1)
        connection.writer.write(b"zz\r\n")
        assert (await connection.receive()).status == 503
        await connection.ended()
        assert found.door.requests == 0


async def test_what_is_no_http_is_answered_without_repeating_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    async with gateway(tmp_path) as found, connect(found.port) as connection:
        connection.writer.write(b"POST /api/client/metrics HTTP/1.1\r\nAuthoriz ation: secret-text\r\n\r\n")
        reply = await connection.receive()
        assert reply.status == 400
        assert b"secret-text" not in reply.body + await connection.ended()
    seen = capsys.readouterr()
    assert "secret-text" not in seen.out + seen.err


# Trouble that passes.


@pytest.mark.parametrize("path", ["/api/client/metrics", "/api/client/metrics/bulk"])
async def test_what_was_surely_not_taken_is_503_with_retry_after(path: str) -> None:
    log = ScriptedLog()
    body = window() if path.endswith("metrics") else json.dumps(support.BULK).encode()
    async with gateway(Path(), log=log) as found:
        log.fault = NotTaken("locked")
        reply = await ask(found.port, path, body)
        assert reply.status == 503
        assert int(reply.headers["retry-after"]) > 0
        assert set(reply.json()) == {"message"}


async def test_a_browser_can_read_its_503() -> None:
    log = ScriptedLog()
    async with gateway(Path(), log=log) as found:
        log.fault = NotTaken("locked")
        reply = await ask(found.port, "/api/frontend/client/metrics", window(), headers_for(support.FRONTEND_DEV))
        assert (reply.status, reply.headers["access-control-allow-origin"]) == (503, "*")


async def test_in_doubt_a_single_window_is_503_and_a_bulk_post_waits_until_it_is_known() -> None:
    log = ScriptedLog()
    bulk = json.dumps(support.BULK).encode()
    async with gateway(Path(), log=log, bounds=support.QUICK) as found, connect(found.port) as edge:
        log.gate.clear()
        await edge.send("POST", "/api/client/metrics/bulk", headers_for(), bulk)
        await until(lambda: log.entered == 1)
        late = await ask(found.port)
        assert late.status == 503
        answer = asyncio.create_task(edge.receive())
        await asyncio.sleep(0)
        assert not answer.done()
        log.gate.set()
        assert (await answer).status == 202


async def test_a_bulk_post_that_can_never_be_known_gets_no_answer() -> None:
    log = ScriptedLog()
    async with gateway(Path(), log=log) as found, connect(found.port) as edge:
        log.fault = InDoubt("fsync")
        await edge.send("POST", "/api/client/metrics/bulk", headers_for(), json.dumps(support.BULK).encode())
        assert await edge.ended() == b""
        assert (await ask(found.port)).status == 503


async def test_an_edge_that_leaves_frees_its_place() -> None:
    log = ScriptedLog()
    async with gateway(Path(), log=log, bounds=support.QUICK) as found:
        log.gate.clear()
        async with connect(found.port) as edge:
            await edge.send("POST", "/api/client/metrics/bulk", headers_for(), json.dumps(support.BULK).encode())
            await until(lambda: log.entered == 1)
            assert found.door.requests == 1
        await until(lambda: found.door.requests == 0)
        log.gate.set()
        await until(lambda: len(log.events) == 1)


async def test_above_the_door_it_is_503_at_once_and_afterwards_202_again() -> None:
    log = ScriptedLog()
    async with (
        gateway(Path(), log=log, bounds=Bounds(), max_in_flight_requests=2) as found,
        connect(found.port) as first,
        connect(found.port) as second,
    ):
        log.gate.clear()
        for connection in (first, second):
            await connection.send("POST", "/api/client/metrics", headers_for(), window())
        await until(lambda: found.door.requests == 2)
        reply = await ask(found.port)
        assert (reply.status, "retry-after" in reply.headers) == (503, True)
        log.gate.set()
        assert [(await connection.receive()).status for connection in (first, second)] == [202, 202]
        assert (await ask(found.port)).status == 202
        assert found.door.held == 0


async def test_bytes_in_flight_are_bounded_by_their_inflated_size() -> None:
    log = ScriptedLog()
    large = window() + b" " * 700_000
    packed = headers_for(Content_Encoding="gzip")
    async with gateway(Path(), log=log, max_in_flight_bytes=1024 * 1024) as found, connect(found.port) as first:
        log.gate.clear()
        await first.send("POST", "/api/client/metrics", packed, gzip.compress(large))
        await until(lambda: found.door.held > 700_000)
        assert (await ask(found.port, body=gzip.compress(large), headers=packed)).status == 503
        log.gate.set()
        assert (await first.receive()).status == 202
        await until(lambda: found.door.held == 0)


async def test_a_fault_of_ours_is_503_and_tells_nothing(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise ZeroDivisionError(value)

    value = f"{'value'}-of-the-client"  # put together: a traceback shows this very line

    log = ScriptedLog()
    async with gateway(Path(), log=log) as found:
        monkeypatch.setattr("ingest_gateway.accept.accept", fail)
        reply = await ask(found.port)
        assert reply.status == 503
        assert found.door.requests == 0
    seen = capsys.readouterr()
    assert "ZeroDivisionError" in seen.out + seen.err
    assert value not in seen.out + seen.err


# Browsers, connections, and what people look at.


async def test_a_browser_may_post_with_the_headers_that_it_asked_for(tmp_path: Path) -> None:
    asked = "authorization,content-type,unleash-appname,unleash-connection-id,unleash-sdk"
    headers = [
        ("Origin", "https://example.com"),
        ("Access-Control-Request-Method", "POST"),
        ("Access-Control-Request-Headers", asked),
    ]
    async with gateway(tmp_path) as found:
        reply = await ask(found.port, "/api/frontend/client/metrics", headers=headers, method="OPTIONS")
    assert (reply.status, reply.body) == (204, b"")
    assert reply.headers["access-control-allow-origin"] == "*"
    assert reply.headers["access-control-allow-headers"] == asked
    assert reply.headers["access-control-allow-credentials"] == "true"
    assert reply.headers["access-control-max-age"] == "86400"
    assert "POST" in reply.headers["access-control-allow-methods"]


async def test_a_browser_can_read_its_refusals(tmp_path: Path) -> None:
    async with gateway(tmp_path) as found:
        for token, body in ((None, window()), (support.FRONTEND_DEV, b"{}"), (support.FRONTEND_DEV, b"{")):
            reply = await ask(found.port, "/api/frontend/client/metrics", body, headers_for(token))
            assert reply.status in {400, 401}
            assert reply.headers["access-control-allow-origin"] == "*"


async def test_one_connection_serves_post_after_post_also_after_refusals(tmp_path: Path) -> None:
    async with gateway(tmp_path) as found, connect(found.port) as connection:
        statuses = []
        for body in (window(), b"{", window(), b"{}", window()):
            await connection.send("POST", "/api/client/metrics", headers_for(), body)
            statuses.append((await connection.receive()).status)
        assert statuses == [202, 400, 202, 400, 202]


async def test_pipelined_posts_are_answered_in_their_order(tmp_path: Path) -> None:
    async with gateway(tmp_path) as found, connect(found.port) as connection:
        for body in [window(), b"{"] * 40:
            await connection.send("POST", "/api/client/metrics", headers_for(), body)
        assert [(await connection.receive()).status for _ in range(80)] == [202, 400] * 40


@pytest.mark.parametrize("line", [b"HTTP/1.1\r\nConnection: close", b"HTTP/1.0", b"HTTP/1.0\r\nConnection: keep-alive"])
async def test_a_client_that_wants_no_more_gets_its_connection_closed(line: bytes, tmp_path: Path) -> None:
    async with gateway(tmp_path) as found, connect(found.port) as connection:
        body = window()
        head = b"POST /api/client/metrics %b\r\nHost: x\r\nAuthorization: %b\r\nContent-Type: application/json\r\n"
        length = b"Content-Length: %d\r\n\r\n" % len(body)
        connection.writer.write(head % (line, support.BACKEND_DEV.encode()) + length + body)
        reply = await connection.receive()
        assert (reply.status, reply.headers["connection"]) == (202, "close")
        assert await connection.ended() == b""


async def test_a_client_that_reads_no_answers_is_not_read_from_for_ever(tmp_path: Path) -> None:
    request = b"POST /x HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n" * 1000
    async with gateway(tmp_path) as found, connect(found.port) as connection:
        connection.writer.transport.pause_reading()  # type: ignore[attr-defined]

        async def send_on() -> None:
            for _ in range(2000):
                connection.writer.write(request)
                async with asyncio.timeout(1):
                    await connection.writer.drain()

        with pytest.raises(TimeoutError):
            await send_on()
        connection.writer.transport.abort()
        assert (await ask(found.port)).status == 202


async def test_head_gives_the_head_alone(tmp_path: Path) -> None:
    async with gateway(tmp_path) as found, connect(found.port) as connection:
        for path, status in (("/api/client/metrics", 404), ("/healthz", 200), ("/readyz", 200), ("/x", 404)):
            await connection.send("HEAD", path, headers_for(), None)
            assert (await connection.receive(head_only=True)).status == status


async def test_readiness_tells_why_not() -> None:
    log = ScriptedLog()
    async with gateway(Path(), log=log, bounds=support.QUICK) as found:
        ready = await ask(found.port, "/readyz", method="GET")
        assert (ready.status, ready.json()) == (200, {"ready": True, "reasons": []})
        log.fault = log.probe_fault = NotTaken("database is locked")
        await ask(found.port)
        unready = await ask(found.port, "/readyz", method="GET")
        assert (unready.status, unready.json()) == (503, {"ready": False, "reasons": ["database is locked"]})
        assert (await ask(found.port, "/healthz", method="GET")).status == 200
        log.probe_fault = None
        await until(lambda: found.writer.trouble() is None)


async def test_every_metric_of_the_gateway_is_exposed_and_counts(tmp_path: Path) -> None:
    async with gateway(tmp_path) as found:
        await ask(found.port)
        await ask(found.port, body=window(appName=5))
        await ask(found.port, headers=headers_for("nope"))
        value = found.gateway._meters.registry.get_sample_value
        assert value(names.REQUESTS.name, {"route": "/api/client/metrics", "status": "202"}) == 2
        assert value(names.REQUESTS.name, {"route": "/api/client/metrics", "status": "401"}) == 1
        assert value(names.LENIENT.name, {"kind": "metrics"}) == 1
        assert value(names.APPENDED.name) == 2
        text = (await ask(found.port, "/metrics", method="GET")).body.decode()
    for metric in names.ALL:
        if metric.name.startswith("flagmeter_gateway_"):
            assert f"# HELP {metric.name.removesuffix('_total')}" in text


async def test_no_token_text_is_in_any_answer_log_or_metric(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    secret = "default:development.5e0c0ffee"
    said = []
    async with gateway(tmp_path) as found:
        for token in (f"{secret}-unknown", f"Bearer {secret}"):
            said.append((await ask(found.port, headers=headers_for(token))).body)
        for seen in ([f"{secret}-seen"], f"{secret}-text", {f"{secret}-key": 1}, [[f"{secret}-deep"]]):
            body = json.dumps({**support.BULK, "seenTokens": seen}).encode()
            said.append((await ask(found.port, "/api/client/metrics/bulk", body)).body)
            broken = json.dumps({"seenTokens": seen}).encode()
            said += [(await ask(found.port, "/api/client/metrics/bulk", part)).body for part in (broken, broken[:-1])]
        said.append((await ask(found.port, "/metrics", method="GET")).body)
        said += [value for _, value in support.log_of(tmp_path)]
        said += [repr(headers).encode() for headers, _ in support.log_of(tmp_path)]
    output = capsys.readouterr()
    assert secret.encode() not in b"".join(said)
    assert secret not in output.out + output.err
    assert len(support.log_of(tmp_path)) >= 1


async def test_hostile_payloads_cost_nobody_else_anything(tmp_path: Path) -> None:
    toggles = {f"flag-{number}": {"yes": 1} for number in range(60_000)}
    many = json.dumps({"appName": "a", "bucket": {"start": 0, "stop": 0, "toggles": toggles}}).encode()
    months = [
        {
            "featureName": "f",
            "appName": "a",
            "environment": "development",
            "timestamp": number * 2_629_800_000,
            "yes": 1,
        }
        for number in range(4000)
    ]
    bulk = json.dumps({"applications": [], "metrics": months}).encode()
    names_ = json.dumps(
        {
            "appName": "x" * 10_000,
            "bucket": {
                "start": 0,
                "stop": 0,
                "toggles": {"y" * 10_000: {"yes": 1}, "nul\0": {"yes": 1}, "\ud800": {"yes": 1}},
            },
        }
    ).encode()
    deep = b'{"appName":"a","x":' + b"[" * 100_000 + b"]" * 100_000 + b"}"
    async with gateway(tmp_path) as found:
        expected = [(many, 202), (names_, 202), (b"[" * 1_000_000, 400)]
        for body, status in expected:
            assert (await ask(found.port, body=body)).status == status
        assert (await ask(found.port, body=deep)).status in {202, 400}
        assert (await ask(found.port, "/api/client/metrics/bulk", bulk)).status == 202
        bomb = gzip.compress(b" " * 100_000_000)
        assert (await ask(found.port, body=bomb, headers=headers_for(Content_Encoding="gzip"))).status == 413
        assert (await ask(found.port)).status == 202
