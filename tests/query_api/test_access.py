import pytest

from query_api import access
from query_api.problems import RefusedError
from schemas import tokens
from schemas.tokens import Token, TokenType

TABLE = tokens.read(
    b"""{"tokens": [
      {"token": "*:*.all", "type": "admin", "projects": ["*"], "environment": "*"},
      {"token": "shop:*.one", "type": "admin", "projects": ["shop"], "environment": "*"},
      {"token": "default:development.b", "type": "backend", "projects": ["default"], "environment": "development"},
      {"token": "default:development.f", "type": "frontend", "projects": ["default"], "environment": "development"}
    ]}"""
)


def known(text: str) -> Token:
    return access.authorize(text, TABLE)


def refusal(authorization: str | None) -> RefusedError:
    with pytest.raises(RefusedError) as refused:
        access.authorize(authorization, TABLE)
    return refused.value


@pytest.mark.parametrize("header", ["*:*.all", "Bearer *:*.all", "bearer  *:*.all ", " *:*.all"])
def test_an_admin_token_is_let_in_with_and_without_bearer(header: str):
    assert known(header).type is TokenType.ADMIN


@pytest.mark.parametrize("header", [None, "", "Bearer", "Bearer ", "nobody", "Bearer nobody", "Basic Kjoq", "x" * 9000])
def test_without_a_known_token_it_is_401(header: str | None):
    refused = refusal(header)
    assert (refused.problem.status_code, refused.problem.message, refused.problem.error) == (401, "Unauthorized", "")
    assert refused.headers == {"WWW-Authenticate": "Bearer"}


@pytest.mark.parametrize("header", ["default:development.b", "Bearer default:development.f"])
def test_a_token_that_only_posts_is_403(header: str):
    assert refusal(header).problem.status_code == 403


@pytest.mark.parametrize("header", ["Bearer nobody.secret", "default:development.b"])
def test_no_refusal_repeats_the_token(header: str):
    refused = refusal(header)
    assert header.removeprefix("Bearer ") not in f"{refused} {refused.problem} {refused.headers}"


def test_a_token_of_all_projects_sees_any():
    access.check_project(known("*:*.all"), "whatever")


def test_a_project_outside_of_the_tokens_looks_like_one_that_is_not_there():
    access.check_project(known("shop:*.one"), "shop")
    with pytest.raises(RefusedError) as refused:
        access.check_project(known("shop:*.one"), "default")
    assert refused.value.problem.status_code == 404
    assert refused.value.problem.message == "Item with key 'default' not found"
