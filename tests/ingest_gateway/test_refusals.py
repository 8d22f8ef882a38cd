import json

import pytest

from ingest_gateway import refusals
from schemas.refusal import Check, Detail, RefusedPayload


def test_a_schema_refusal_carries_id_name_message_and_details_with_paths() -> None:
    refused = refusals.of_payload(RefusedPayload(Check.SCHEMA, Detail("no", "/body/x")), silent=True)
    document = json.loads(refused.body)
    assert refused.status == 400
    assert set(document) == {"id", "name", "message", "details"}
    assert document["details"] == [{"message": "no", "path": "/body/x"}]


def test_a_value_refusal_is_silent_for_servers_and_has_no_id_for_others() -> None:
    why = RefusedPayload(Check.VALUE, Detail("too much"))
    assert refusals.of_payload(why, silent=True).body == b""
    assert set(json.loads(refusals.of_payload(why, silent=False).body)) == {"name", "message", "details"}


@pytest.mark.parametrize("refused", [refusals.not_found("/" + "x" * 5000), refusals.content_type("y" * 5000)])
def test_what_is_repeated_to_the_sender_is_bounded(refused: refusals.Refused) -> None:
    assert len(refused.body) < 1500


def test_what_is_no_utf8_can_be_repeated_too() -> None:
    for refused in (refusals.not_found("/\udcff"), refusals.content_type("\udcff")):
        assert "\udcff" in json.loads(refused.body)["message"]
