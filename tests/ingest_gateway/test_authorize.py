import pytest

from ingest_gateway.authorize import authorize
from ingest_gateway.refusals import Refused
from ingest_gateway.routing import Routes
from tests.ingest_gateway import support

BACKEND = Routes().find("/api/client/metrics")
FRONTEND = Routes().find("/api/frontend/client/metrics")
assert BACKEND is not None
assert FRONTEND is not None


@pytest.mark.parametrize("written", ["{}", "Bearer {}", "bearer {}", "BEARER   {}", "  {}  "])
def test_a_token_is_found_with_and_without_bearer(written: str) -> None:
    token = authorize(written.format(support.BACKEND_DEV), support.TABLE, BACKEND)
    assert (token.project, token.environment) == ("default", "development")


@pytest.mark.parametrize(
    "authorization", [None, "", "Bearer ", "Basic abc", "nope", support.BACKEND_DEV + "x", "é\udcff"]
)
def test_no_known_token_is_401(authorization: str | None) -> None:
    with pytest.raises(Refused) as refused:
        authorize(authorization, support.TABLE, BACKEND)
    assert refused.value.status == 401
    assert b"requires an API token" in refused.value.body


@pytest.mark.parametrize(
    ("token", "route"),
    [
        (support.FRONTEND_DEV, BACKEND),
        (support.ADMIN, BACKEND),
        (support.BACKEND_DEV, FRONTEND),
        (support.ADMIN, FRONTEND),
    ],
)
def test_a_token_of_another_type_is_403(token: str, route: object) -> None:
    with pytest.raises(Refused) as refused:
        authorize(token, support.TABLE, route)  # type: ignore[arg-type]
    assert refused.value.status == 403
    assert token.encode() not in refused.value.body
