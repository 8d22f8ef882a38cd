import base64
import stat

import pytest

from deploy.store import users
from deploy.store.errors import Fault
from deploy.store.privileges import Role

SECRET = "5ecret"


def basic(text: str) -> dict[str, str]:
    return {"Authorization": "Basic " + base64.b64encode(text.encode()).decode()}


@pytest.mark.parametrize(
    ("headers", "parameters", "role"),
    [
        ({}, {}, Role.VISITOR),
        (basic("default:"), {}, Role.VISITOR),
        (basic(f"service:{SECRET}"), {}, Role.SERVICE),
        ({"X-ClickHouse-User": "service", "X-ClickHouse-Key": SECRET}, {}, Role.SERVICE),
        ({"X-ClickHouse-User": "default"}, {}, Role.VISITOR),
        ({}, {"user": "service", "password": SECRET}, Role.SERVICE),
        ({}, {"user": "default"}, Role.VISITOR),
    ],
)
def test_each_way_to_say_who_one_is(headers, parameters, role):
    assert users.authenticate(headers, parameters, SECRET) is role


@pytest.mark.parametrize(
    ("headers", "parameters"),
    [
        (basic("service:wrong"), {}),
        (basic("service:"), {}),
        (basic("default:x"), {}),
        (basic(f"other:{SECRET}"), {}),
        ({"Authorization": "Bearer x"}, {}),
        ({"Authorization": "Basic"}, {}),
        ({"Authorization": "Basic //8="}, {}),
        ({}, {"password": SECRET}),
        (basic(f"service:{SECRET}"), {"user": "service", "password": SECRET}),
    ],
)
def test_anything_else_is_refused_without_the_secret_in_the_text(headers, parameters):
    with pytest.raises(Fault) as refused:
        users.authenticate(headers, parameters, SECRET)
    assert (refused.value.code, refused.value.status) == (516, 403)
    assert SECRET not in refused.value.message


def test_the_secret_is_made_once(tmp_path):
    path = tmp_path / "store.secret"
    made = users.read_or_make_secret(path)
    assert len(made) == 64
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert users.read_or_make_secret(path) == made


def test_an_empty_secret_is_no_secret(tmp_path):
    path = tmp_path / "store.secret"
    path.write_text("\n")
    with pytest.raises(ValueError, match="is empty"):
        users.read_or_make_secret(path)
