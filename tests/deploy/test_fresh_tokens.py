import re
import stat

from deploy import fresh_tokens
from schemas.tokens import TokenType, read


def test_the_first_call_makes_three_tokens_of_which_the_file_keeps_no_text(tmp_path):
    file = tmp_path / "tokens.json"
    made = fresh_tokens.make(file)
    assert [token.type for token in made] == [TokenType.BACKEND, TokenType.FRONTEND, TokenType.ADMIN]
    for token, name in zip(made, (r"default:development", r"default:development", r"\*:\*"), strict=True):
        assert re.fullmatch(rf"{name}\.[0-9a-f]{{56}}", token.text)
        assert token.text.partition(".")[2] not in file.read_text()
    assert stat.S_IMODE(file.stat().st_mode) == 0o600


def test_the_file_is_what_the_services_read(tmp_path):
    file = tmp_path / "tokens.json"
    made = fresh_tokens.make(file)
    table = read(file.read_bytes())
    backend, frontend, admin = (table.find(token.text) for token in made)
    assert (backend.type, backend.environment, backend.project) == ("backend", "development", "default")
    assert (frontend.type, frontend.environment, frontend.project) == ("frontend", "development", "default")
    assert (admin.type, admin.environment, admin.sees("anything")) == ("admin", "*", True)


def test_a_file_that_is_there_is_left_alone(tmp_path):
    file = tmp_path / "tokens.json"
    file.write_text("mine")
    assert fresh_tokens.make(file) == []
    assert file.read_text() == "mine"


def test_no_two_tokens_are_alike(tmp_path):
    texts = [token.text for at in range(5) for token in fresh_tokens.make(tmp_path / f"{at}.json")]
    assert len(set(texts)) == 15
