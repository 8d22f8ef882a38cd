import asyncio
import json

import pytest
from structlog.testing import capture_logs

from deploy.tokens_file import TokenFile
from schemas.tokens import WrongTokensError, digest_of

SECRET = "0123456789abcdef0123456789abcdef"
FIRST, SECOND = f"default:development.{SECRET}", f"default:production.{SECRET}"


def entry(text: str, **more: str) -> dict[str, object]:
    return {"token": text, "type": "backend", "projects": ["default"], "environment": "development", **more}


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "tokens.json"
    path.write_text(json.dumps({"tokens": [entry(FIRST)]}))
    return path


def replace(file, content: str) -> None:
    """As an editor does it: another file in its place."""
    draft = file.with_suffix(".new")
    draft.write_text(content)
    draft.replace(file)


def test_tokens_are_found_by_their_text(file):
    tokens = TokenFile(file)
    assert tokens.find(FIRST) is None
    tokens.load()
    assert tokens.find(FIRST).environment == "development"
    assert tokens.find(SECOND) is None
    assert len(tokens) == 1


def test_a_missing_file_and_a_wrong_one_are_told_apart(tmp_path):
    with pytest.raises(FileNotFoundError):
        TokenFile(tmp_path / "none.json").load()
    wrong = tmp_path / "wrong.json"
    wrong.write_text(json.dumps({"tokens": [entry(FIRST, type="root")]}))
    with pytest.raises(WrongTokensError) as raised:
        TokenFile(wrong).load()
    assert SECRET not in str(raised.value)


def test_a_change_is_seen_also_when_the_file_is_hashed_now(file):
    tokens = TokenFile(file)
    tokens.load()
    hashed = {"sha256": digest_of(SECOND), "type": "admin", "projects": ["*"], "environment": "*"}
    replace(file, json.dumps({"tokens": [hashed]}))
    with capture_logs() as logged:
        tokens.refresh()
        tokens.refresh()
    assert tokens.find(FIRST) is None
    assert tokens.find(SECOND).type == "admin"
    assert [line["event"] for line in logged] == ["the tokens file was read again"]


@pytest.mark.parametrize("content", ["", "{", json.dumps({"tokens": [{"token": FIRST}]})])
def test_a_broken_new_file_keeps_the_old_tokens_and_is_logged_once_without_them(file, content):
    tokens = TokenFile(file)
    tokens.load()
    replace(file, content)
    with capture_logs() as logged:
        tokens.refresh()
        tokens.refresh()
    assert tokens.find(FIRST) is not None
    assert [line["log_level"] for line in logged] == ["error"]
    assert SECRET not in str(logged)


def test_a_file_that_vanishes_and_comes_back_is_read_again(file):
    tokens = TokenFile(file)
    tokens.load()
    file.unlink()
    with capture_logs() as logged:
        tokens.refresh()
        tokens.refresh()
    assert len(logged) == 1
    assert tokens.find(FIRST) is not None
    file.write_text(json.dumps({"tokens": [entry(SECOND)]}))
    tokens.refresh()
    assert tokens.find(SECOND) is not None


async def test_watching_looks_each_second_until_it_is_cancelled(file):
    tokens = TokenFile(file)
    tokens.load()
    waits: list[float] = []

    async def sleep(seconds: float) -> None:
        waits.append(seconds)
        if len(waits) == 2:
            replace(file, json.dumps({"tokens": [entry(SECOND)]}))
        if len(waits) == 3:
            raise asyncio.CancelledError

    with pytest.raises(asyncio.CancelledError):
        await tokens.watch(sleep)
    assert waits == [1.0, 1.0, 1.0]
    assert tokens.find(SECOND) is not None
