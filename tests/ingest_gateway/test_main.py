"""`python -m ingest_gateway`."""

from pathlib import Path

from tests.ingest_gateway import support
from tests.ingest_gateway.process import gateway_process, write_tokens


async def test_it_serves_until_sigterm_and_keeps_what_it_answered(tmp_path: Path) -> None:
    with gateway_process(tmp_path) as process:
        process.await_ready()
        assert (await support.ask(process.port)).status == 202
        status, output = process.end()
    assert status == 0
    assert support.BACKEND_DEV not in output
    assert len(support.log_of(tmp_path)) == 1


async def test_a_token_that_is_added_to_the_file_is_known_without_a_restart(tmp_path: Path) -> None:
    with gateway_process(tmp_path) as process:
        process.await_ready()
        new = support.headers_for("default:e.added-later")
        assert (await support.ask(process.port, headers=new)).status == 401
        write_tokens(tmp_path / "tokens.json", support.BACKEND_DEV, "default:e.added-later")
        statuses = []
        while not statuses or (statuses[-1] != 202 and len(statuses) < 5000):
            statuses.append((await support.ask(process.port, headers=new)).status)
        assert statuses[-1] == 202
        assert (await support.ask(process.port)).status == 202


def test_wrong_settings_are_listed_and_end_it_with_status_2(tmp_path: Path) -> None:
    with gateway_process(tmp_path, broker_url="redis://x", max_body_bytes="1") as process:
        output, _ = process.process.communicate(timeout=60)
    assert process.process.returncode == 2
    assert "FLAGMETER_BROKER_URL" in output
    assert "FLAGMETER_MAX_BODY_BYTES" in output


def test_a_tokens_file_that_cannot_be_read_ends_it_with_status_2_and_shows_no_token(tmp_path: Path) -> None:
    (tmp_path / "tokens.json").write_text('{"tokens": [{"token": "secret-text", "type": "nothing"}]}')
    with gateway_process(tmp_path) as process:
        output, _ = process.process.communicate(timeout=60)
    assert process.process.returncode == 2
    assert "FLAGMETER_TOKENS_FILE" in output
    assert "secret-text" not in output
