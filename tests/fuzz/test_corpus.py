"""What the fuzzers once found, and a short run of each with a fixed seed."""

import asyncio
import json
from pathlib import Path

import pytest

from schemas.event import Kind
from tests.fuzz import decode_fuzzer, decoding, http_fuzzer

CORPUS = Path(__file__).parent / "corpus"
BODIES = sorted(CORPUS.glob("decode-*.json"))
VISITS = sorted(CORPUS.glob("http-*.json"))


@pytest.mark.parametrize("file", BODIES, ids=lambda file: file.stem)
def test_a_body_that_once_broke_something_breaks_nothing(file: Path) -> None:
    found = json.loads(file.read_text())
    body = found["body"].encode("latin-1") * found.get("times", 1)
    body = found.get("before", "").encode("latin-1") + body + found.get("after", "").encode("latin-1")
    signature = decoding.check(Kind(found["kind"]), body)
    assert signature[1] == found["leads_to"]


async def test_visits_that_once_broke_something_break_nothing(tmp_path: Path) -> None:
    assert len(VISITS) > 2
    with http_fuzzer.gateway(tmp_path / "gateway") as service:
        for file in VISITS:
            for visit in http_fuzzer.from_json(file.read_text()):
                statuses = await http_fuzzer.pay(service.port, visit)
                assert 503 not in statuses, file.stem
        logged = service.log.read_text()
        assert service.stop() == 0
    assert not [fault for fault in http_fuzzer.FAULTS if fault in logged]


def test_a_short_run_on_the_decoders_finds_nothing(tmp_path: Path) -> None:
    report = decode_fuzzer.fuzz(seed=1, inputs=3_000, seconds=60, folder=tmp_path, tell=lambda _: None, trace=False)
    assert report.inputs == 3_000
    assert not report.finds, report.finds


def test_a_short_run_on_the_port_finds_nothing(tmp_path: Path) -> None:
    report = http_fuzzer.fuzz(seed=1, inputs=300, seconds=60, folder=tmp_path, tell=lambda _: None)
    assert report.inputs == 300
    assert not report.finds, report.finds


def test_a_broken_promise_is_found_and_its_input_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decoding, "MAX_COUNT", 1)
    report = decode_fuzzer.fuzz(seed=1, inputs=500, seconds=60, folder=tmp_path, tell=lambda _: None, trace=False)
    what, file = report.finds[0]
    assert what == "a count is out of its limits"
    found = json.loads(file.read_text())
    with pytest.raises(decoding.Finding, match="out of its limits"):
        decoding.check(Kind(found["kind"]), found["body"].encode("latin-1"))


@pytest.mark.parametrize(
    ("data", "what"),
    [
        (b"HTTP/1.1 500 Internal Server Error\r\nContent-Length: 0\r\n\r\n", "answered 500"),
        (b"<html>", "no answer"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nabc", "cut short"),
        (b"HTTP/1.1 200 OK\r\nContent-Le", "no answer"),
    ],
)
def test_what_is_no_wanted_answer_is_found(data: bytes, what: str) -> None:
    with pytest.raises(http_fuzzer.Finding, match=what):
        http_fuzzer.read_answers(data, whole=True)


def test_a_gateway_that_gives_no_answer_is_found() -> None:
    async def visit() -> None:
        async def close(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.close()

        server = await asyncio.start_server(close, "127.0.0.1", 0)
        async with server:
            port = server.sockets[0].getsockname()[1]
            await http_fuzzer.pay(port, http_fuzzer.Visit((b"POST / HTTP/1.1\r\n\r\n",), 0.0, "read", 1))

    with pytest.raises(http_fuzzer.Finding, match="0 answers to 1"):
        asyncio.run(visit())
