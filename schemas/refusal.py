"""Why a whole request is refused, in the terms of the recorded server.

Only what a recorded answer refuses is refused: wrong types, negative counts, missing required fields, counts above
2^53-1 and impossible dates. Everything else is settled row by row (`schemas.rows`).
"""

from enum import StrEnum

import msgspec


class Check(StrEnum):
    """Which of the recorded server's two validators refuses; their answers have different shapes."""

    SCHEMA = "schema"
    VALUE = "value"


class Detail(msgspec.Struct, frozen=True, omit_defaults=True):
    """One reason: a sentence, and the JSON path of the field as the recorded server writes it (`/body/bucket/stop`)."""

    message: str
    path: str = ""


class RefusedPayload(ValueError):  # noqa: N818 - what it is, not that it failed
    """The payload is refused as a whole; the gateway answers 400, the aggregator sets the record aside."""

    def __init__(self, check: Check, *details: Detail) -> None:
        super().__init__("; ".join(detail.message for detail in details))
        self.check = check
        self.details = details
