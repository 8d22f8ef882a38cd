import io
import json
import logging
import sys

import pytest
import structlog
from hypothesis import given
from hypothesis import strategies as st

from deploy import logs

SECRET = "0123456789abcdef0123456789abcdef0123456789abcdef01234567"
TOKEN = f"default:development.{SECRET}"


class Written:
    """What came out on stderr so far."""

    def __init__(self, capsys: pytest.CaptureFixture[str]) -> None:
        self._capsys = capsys
        self._text = ""

    def getvalue(self) -> str:
        self._text += self._capsys.readouterr().err
        return self._text


@pytest.fixture
def written(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Written:
    monkeypatch.delenv("FLAGMETER_LOG_LEVEL", raising=False)
    return Written(capsys)


def lines(written: Written) -> list[dict[str, object]]:
    return [json.loads(line) for line in written.getvalue().splitlines()]


def test_a_line_is_one_json_object_with_service_level_and_time(written):
    logs.configure("gateway")
    structlog.get_logger().info("started", port=4242)
    (line,) = lines(written)
    assert (line["event"], line["service"], line["level"], line["port"]) == ("started", "gateway", "info", 4242)
    assert str(line["timestamp"]).endswith("Z")


def test_one_of_several_workers_says_its_number_in_every_line(written, monkeypatch):
    monkeypatch.setenv("FLAGMETER_WORKER", "2")
    logs.configure("gateway")
    structlog.get_logger().info("one")
    logging.getLogger("asyncio").error("other")
    assert [(line["service"], line["worker"]) for line in lines(written)] == [("gateway", 2)] * 2
    monkeypatch.delenv("FLAGMETER_WORKER")
    logs.configure("gateway")
    structlog.get_logger().info("alone")
    assert "worker" not in lines(written)[2]


def test_the_standard_librarys_loggers_come_in_the_same_form(written):
    logs.configure("gateway")
    logging.getLogger("asyncio").error("task %s failed with %s", "x", TOKEN)
    (line,) = lines(written)
    assert line["event"] == "task x failed with default:development.***"
    assert line["service"] == "gateway"


def fail() -> None:
    raise ValueError(TOKEN)


def test_no_token_and_no_password_is_logged_wherever_it_stands(written):
    logs.configure("gateway")
    log = structlog.get_logger()
    text = f"text {TOKEN}"
    log.warning(
        text,
        value=TOKEN,
        raw=TOKEN.encode(),
        nested={"a": [TOKEN, {TOKEN: 1}], "b": (f"Bearer {TOKEN}",)},
        url=f"http://service:{SECRET}@127.0.0.1:8123/flagmeter",
        error=ValueError(TOKEN),
    )
    try:
        fail()
    except ValueError:
        log.exception("failed")
        logging.getLogger("aiohttp.server").exception("failed")
    assert len(lines(written)) == 3
    assert SECRET not in written.getvalue()


def test_a_terminal_gets_a_readable_form_without_secrets_and_local_variables(written, monkeypatch):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    logs.configure("gateway")
    secret_of_a_frame = "a local variable's value"
    try:
        fail()
    except ValueError:
        structlog.get_logger().exception("failed", value=TOKEN)
    assert secret_of_a_frame
    assert not written.getvalue().startswith("{")
    assert "ValueError" in written.getvalue()
    assert SECRET not in written.getvalue()
    assert secret_of_a_frame not in written.getvalue()


def test_the_level_comes_from_the_environment(written, monkeypatch):
    monkeypatch.setenv("FLAGMETER_LOG_LEVEL", "Error")
    logs.configure("gateway")
    structlog.get_logger().warning("not this")
    structlog.get_logger().error("but this")
    assert [line["event"] for line in lines(written)] == ["but this"]


def test_a_wrong_level_is_named_with_the_right_ones(written, monkeypatch):
    monkeypatch.setenv("FLAGMETER_LOG_LEVEL", "loud")
    with pytest.raises(SystemExit) as ended:
        logs.configure("gateway")
    assert ended.value.code == 2
    assert "FLAGMETER_LOG_LEVEL: give one of debug, info, warning, error, critical" in written.getvalue()


@given(st.one_of(st.text(st.characters(exclude_categories=())), st.integers(), st.floats(), st.binary()))
def test_no_value_makes_a_log_line_fail(value):
    before = sys.stderr
    sys.stderr = stream = io.StringIO()
    try:
        logs.configure("gateway")
        structlog.get_logger().info("value", value=value)
        logs.configure("gateway")  # again, so that the stream is not this test's any more
    finally:
        sys.stderr = before
    assert json.loads(stream.getvalue())["event"] == "value"


@pytest.mark.parametrize(
    "token",
    [
        TOKEN,
        "*:*.964a287e1b728cb5f4f3e0120df92cb5",
        "*:development.unleash-insecure-api-token",
        "[]:production.abcdef0123456789abcdef",
    ],
)
def test_tokens_of_every_form_are_cut_and_keep_project_and_environment(token):
    name, _, secret = token.partition(".")
    assert logs.redact(f"a {token} b") == f"a {name}.*** b"
    assert secret not in logs.redact(f"'{token}'")


@pytest.mark.parametrize("text", ["aggregator.worker:run", "12:30:01.123456", "http://127.0.0.1:4242/api", "a: b.c"])
def test_ordinary_text_stays_as_it_is(text):
    assert logs.redact(text) == text
