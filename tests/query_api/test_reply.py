import gzip

import msgspec
import pytest
from multidict import CIMultiDictProxy

from query_api import reply
from query_api.cache import Answer
from schemas.answers import Envelope, ProjectEvaluations, ProjectPoint


def series(points: int, value: int = 1) -> ProjectEvaluations:
    return ProjectEvaluations([ProjectPoint(f"point {number}", value) for number in range(points)])


async def answered(found: Answer, **headers: str) -> tuple[int, CIMultiDictProxy[str], bytes]:
    sent = {name.replace("_", "-"): value for name, value in headers.items()}
    response = await reply.response(found, cached=False, request_headers=sent)
    return response.status, CIMultiDictProxy(response.headers), bytes(response.body or b"")  # type: ignore[arg-type]


async def test_the_envelope_says_when_it_was_computed_and_whether_it_was_kept():
    found = reply.answer(series(1), 1_795_342_830.25)
    body = (await reply.response(found, cached=True, request_headers={})).body
    assert msgspec.json.decode(body) == {
        "result": {"evaluations": [{"date": "point 0", "value": 1}]},
        "cached": True,
        "updatedAt": "2026-11-22T10:20:30.250Z",
    }


def test_an_instant_before_1970_keeps_its_milliseconds():
    assert reply.answer(series(0), -0.25).updated_at == "1969-12-31T23:59:59.750Z"


def test_the_entity_tag_is_weak_and_is_that_of_the_result_alone():
    first, later, other = reply.answer(series(3), 0), reply.answer(series(3), 99), reply.answer(series(3, 2), 0)
    assert first.etag.startswith('W/"')
    assert first.etag == later.etag
    assert first.etag != other.etag


@pytest.mark.parametrize("form", ["{}", '"other", {}', "*", "{strong}", ' {} ,"x"'])
async def test_a_client_that_has_the_result_gets_304(form: str):
    found = reply.answer(series(100), 0)
    known = form.replace("{strong}", found.etag.removeprefix("W/")).replace("{}", found.etag)
    status, headers, body = await answered(found, If_None_Match=known)
    assert (status, body) == (304, b"")
    assert headers["ETag"] == found.etag


@pytest.mark.parametrize("known", ["", '"other"', 'W/"other"', "{bare}"])
async def test_a_client_that_has_another_result_gets_this_one(known: str):
    found = reply.answer(series(1), 0)
    status, _, body = await answered(found, If_None_Match=known.replace("{bare}", found.etag[3:-1]))
    assert status == 200
    assert msgspec.json.decode(body, type=Envelope[ProjectEvaluations]).result == series(1)


@pytest.mark.parametrize("points", [100, 10_000])
async def test_a_body_is_compressed_for_those_who_take_it(points: int):
    found = reply.answer(series(points), 0)
    _, plain_headers, plain = await answered(found)
    _, headers, body = await answered(found, Accept_Encoding="br, gzip;q=0.8")
    assert headers["Content-Encoding"] == "gzip"
    assert "Accept-Encoding" in headers["Vary"]
    assert gzip.decompress(body) == plain
    assert "Content-Encoding" not in plain_headers


async def test_a_small_body_is_not_worth_it():
    _, headers, _ = await answered(reply.answer(series(1), 0), Accept_Encoding="gzip")
    assert "Content-Encoding" not in headers


@pytest.mark.parametrize(
    ("header", "taken"),
    [
        ("", False),
        ("gzip", True),
        ("GZIP", True),
        ("deflate, gzip;q=1.0, *;q=0.5", True),
        ("gzip;q=0", False),
        ("gzip; q=0.000", False),
        ("gzip;q=x", False),
        ("identity", False),
        ("br", False),
        ("*", True),
        ("*;q=0", False),
        ("*, gzip;q=0", False),
    ],
)
def test_who_takes_gzip(header: str, taken: bool):
    assert reply.takes_gzip(header) is taken
