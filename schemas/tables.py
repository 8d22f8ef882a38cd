"""The tables' names and columns, as the aggregator writes and the query API reads them.

The tables themselves are made by the numbered files in `schemas/migrations`.
"""

from enum import StrEnum
from typing import Final, NamedTuple

EVALUATIONS: Final = "evaluations_hourly"
REJECTED: Final = "rejected"


class EvaluationKey(NamedTuple):
    """The key columns of `evaluations_hourly`, in the order of its primary key.

    `hour` is in epoch seconds. What one evaluation is: DESIGN.md, Tables.
    """

    project: str
    environment: str
    feature: str
    variable: str
    variant: str
    hour: int
    app_name: str
    platform: str
    sdk_type: str
    source: str


EVALUATION_COLUMNS: Final = {
    "project": "LowCardinality(String)",
    "environment": "LowCardinality(String)",
    "feature": "LowCardinality(String)",
    "variable": "LowCardinality(String)",
    "variant": "String",
    "hour": "DateTime64(0, 'UTC')",
    "app_name": "LowCardinality(String)",
    "platform": "LowCardinality(String)",
    "sdk_type": "LowCardinality(String)",
    "source": "LowCardinality(String)",
    "received": "Date",
    "yes": "UInt64",
    "no": "UInt64",
    "count": "UInt64",
}
"""Column names to types, in the order of an insert; a test holds them against the migrations."""


class RejectedRow(NamedTuple):
    """A row of `rejected`: what could not be stored, and where it stands in the log.

    `payload` is a document of the same `kind` that holds only what was set aside. With `route`, which tells a browser
    from a server, it can be replayed.
    `log_time` is the broker's append time in milliseconds.
    """

    topic_id: str
    partition: int
    offset: int
    row: int
    log_time: int
    kind: str
    route: str
    reason: str
    project: str
    environment: str
    app_name: str
    feature: str
    payload: str


REJECTED_COLUMNS: Final = {
    "topic_id": "LowCardinality(String)",
    "partition": "UInt32",
    "offset": "UInt64",
    "row": "UInt32",
    "log_time": "DateTime64(3, 'UTC')",
    "kind": "LowCardinality(String)",
    "route": "LowCardinality(String)",
    "reason": "LowCardinality(String)",
    "project": "LowCardinality(String)",
    "environment": "LowCardinality(String)",
    "app_name": "String",
    "feature": "String",
    "payload": "String",
    "received": "Date",
}

COLUMNS: Final = {EVALUATIONS: EVALUATION_COLUMNS, REJECTED: REJECTED_COLUMNS}

ADDITIVE: Final = (EVALUATIONS,)
"""Tables where a row that is stored twice counts twice: each carries the batch's marker in its own insert."""


class SdkType(StrEnum):
    """What kind of SDK evaluated; DevCycle's own words."""

    SERVER = "server"
    CLIENT = "client"
    MOBILE = "mobile"
    API = "api"


class Source(StrEnum):
    """Which protocol a count came by."""

    UNLEASH = "unleash"
    DEVCYCLE = "devcycle"
    OTEL = "otel"
