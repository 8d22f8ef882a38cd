from ingest_gateway import answers
from ingest_gateway.refusals import Refused
from ingest_gateway.routing import Routes


def test_each_routes_success_is_the_recorded_one() -> None:
    found = {route.path: answers.success(route).to(keep=True) for route in Routes(validate=False).all()}
    assert {path: answer.status for path, answer in found.items()} == {
        "/api/client/metrics": 202,
        "/api/client/metrics/bulk": 202,
        "/api/client/metrics/edge": 202,
        "/api/client/register": 202,
        "/api/frontend/client/metrics": 200,
        "/api/frontend/client/register": 200,
    }


def test_a_prepared_answer_has_a_form_that_keeps_the_connection_and_one_that_ends_it() -> None:
    busy = answers.busy(frontend=False)
    assert busy.to(keep=True).keep_alive
    assert not busy.to(keep=False).keep_alive
    assert b"Connection: close" in busy.to(keep=False)._head
    assert b"Retry-After: 2" in busy.to(keep=True)._head


def test_a_header_of_an_answer_never_carries_bytes_that_are_no_latin_1() -> None:
    refused = answers.refusal(Refused.with_message(415, "\ud800 \u20ac"[2:]), frontend=True, keep=True)
    assert refused._head.startswith(b"HTTP/1.1 415 ")
    assert answers.Answer(200, pairs=(("X", "\u20ac"),))._head.count(b"?") == 1
