from unittest.mock import Mock

import pytest

from ingest_gateway import bodies
from ingest_gateway.bodies import ClientLeft, _charset, _inflater
from ingest_gateway.door import Door
from ingest_gateway.refusals import Refused


@pytest.mark.parametrize(
    ("content_type", "charset"),
    [
        ("application/json", None),
        ("APPLICATION/JSON; charset=UTF-8", None),
        ("application/json; boundary=x; charset=utf8", None),
        ("application/json; charset=UTF-16LE", "utf-16le"),
        ('application/json; charset="utf-32"', "utf-32"),
    ],
)
def test_the_charset_of_a_json_type_is_found(content_type: str, charset: str | None) -> None:
    assert _charset(content_type) == charset


@pytest.mark.parametrize(
    "content_type",
    [
        None,
        "",
        "json",
        "text/json",
        "application/jsonx",
        "application/vnd.api+json",
        "application/json; charset=latin1",
        "application/json; charset=utf-\udcff",
        "application/json; charset=utf-8\0",
        "application/json; charset=utf-99",
    ],
)
def test_other_types_and_charsets_are_415(content_type: str | None) -> None:
    with pytest.raises(Refused) as refused:
        _charset(content_type)
    assert refused.value.status == 415


@pytest.mark.parametrize("encoding", ["br", "zstd", "x-gzip", "gzip, deflate", "\udcff"])
def test_other_codings_are_415(encoding: str) -> None:
    with pytest.raises(Refused) as refused:
        _inflater(encoding)
    assert refused.value.status == 415


async def test_a_client_that_left_before_it_was_told_to_continue_has_left() -> None:
    class Leaving:
        async def write(self, _: bytes) -> None:
            raise ConnectionResetError

    content = Mock(exception=lambda: None, is_eof=lambda: False)
    headers = {"Expect": "100-continue", "Content-Type": "application/json"}
    request = Mock(headers=headers, content=content, content_length=3, writer=Leaving())
    with pytest.raises(ClientLeft):
        await bodies.read(request, Door(max_bytes=10, max_requests=1).enter(), limit=10, seconds=1)
