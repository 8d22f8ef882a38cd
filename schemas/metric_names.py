"""Every metric that flagmeter exposes: name, kind, unit and meaning, in one place.

Each service builds its own from here; the documentation is made from here. Labels never hold a token, a flag or an
app: their number would grow with the fleet.
"""

from collections.abc import Sequence
from typing import Final, Literal, NamedTuple

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

_SECONDS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)


class Metric(NamedTuple):
    """One metric's definition.

    `over_workers` is what several processes of one service show of a gauge: the sum, or the largest. Counters and
    histograms are summed.
    """

    name: str
    kind: Literal["counter", "gauge", "histogram"]
    help: str
    labels: tuple[str, ...] = ()
    buckets: Sequence[float] = _SECONDS
    over_workers: Literal["sum", "max"] = "sum"


# The gateway.
REQUESTS = Metric("flagmeter_gateway_requests_total", "counter", "Requests answered.", ("route", "status"))
REQUEST_SECONDS = Metric(
    "flagmeter_gateway_request_seconds", "histogram", "Seconds from the request's head to its answer.", ("route",)
)
LENIENT = Metric(
    "flagmeter_gateway_lenient_total", "counter", "Payloads that only the lenient decoder could read.", ("kind",)
)
APPENDED = Metric("flagmeter_gateway_appended_total", "counter", "Events that the broker holds durably.")
APPEND_SECONDS = Metric(
    "flagmeter_gateway_append_seconds", "histogram", "Seconds of one append of a group of events to the broker."
)
APPEND_ERRORS = Metric(
    "flagmeter_gateway_append_errors_total", "counter", "Appends that failed, by what is known of them.", ("outcome",)
)
PARTITIONS_AWAY = Metric(
    "flagmeter_gateway_partitions_away",
    "gauge",
    "Partitions of the Kafka topic that take no events now.",
    over_workers="max",
)
PRODUCERS_FAILED = Metric(
    "flagmeter_gateway_producers_failed_total", "counter", "Kafka producers that failed for good and were made anew."
)
IN_FLIGHT_BYTES = Metric(
    "flagmeter_gateway_in_flight_bytes", "gauge", "Bytes of bodies that are being read or wait for the broker."
)
SHED = Metric(
    "flagmeter_gateway_shed_total",
    "counter",
    "Requests turned away at the door: 503, or 429 for the reason `rate`.",
    ("reason",),
)
PASSED = Metric(
    "flagmeter_gateway_passed_total",
    "counter",
    "Requests for the Unleash server, by outcome: the class of its answer (2xx to 5xx); or no answer: away, late; or "
    "not passed: full, refused, slow_body, ending, failed. Counted beside these: broken (its answer ended too soon), "
    "left (the client did).",
    ("outcome",),
)
PASSED_SECONDS = Metric(
    "flagmeter_gateway_passed_first_byte_seconds",
    "histogram",
    "Seconds from a request for the Unleash server to the first byte of its answer.",
)
OPEN_STREAMS = Metric("flagmeter_gateway_open_streams", "gauge", "Streams of the Unleash server that are open now.")
MIRRORED = Metric(
    "flagmeter_gateway_mirrored_total",
    "counter",
    "Accepted posts for the Unleash server, by outcome: the class of its answer; away, late, failed; or dropped: there "
    "was no room, or the server has been away for a while.",
    ("outcome",),
)
TOKEN_QUESTIONS = Metric(
    "flagmeter_gateway_token_questions_total",
    "counter",
    "Tokens that were to be asked for, by outcome: found, unknown, unanswered; not asked at all: away, full.",
    ("outcome",),
)
TOKEN_SECONDS = Metric(
    "flagmeter_gateway_token_question_seconds", "histogram", "Seconds of one post to the tokens' upstream."
)
TOKENS_CACHED = Metric(
    "flagmeter_gateway_tokens_cached",
    "gauge",
    "Tokens whose answer from the tokens' upstream is kept, by answer: found, unknown.",
    ("answer",),
)
TOKEN_UPSTREAM_AWAY = Metric(
    "flagmeter_gateway_token_upstream_away",
    "gauge",
    "1 while the tokens' upstream counts as away.",
    over_workers="max",
)

# The aggregator.
RECORDS = Metric("flagmeter_aggregator_records_total", "counter", "Records stored.", ("partition",))
BATCHES = Metric("flagmeter_aggregator_batches_total", "counter", "Batches stored.", ("partition",))
ROWS = Metric("flagmeter_aggregator_rows_total", "counter", "Rows inserted, by table.", ("table",))
REJECTED = Metric("flagmeter_aggregator_rejected_total", "counter", "Things set aside, by reason.", ("reason",))
REPEATS = Metric(
    "flagmeter_aggregator_repeats_total",
    "counter",
    "Records that counted nothing or only in part, since they came before, by what told so: key, bytes, superset.",
    ("by",),
)
CONNECTIONS = Metric(
    "flagmeter_aggregator_connections",
    "gauge",
    "Connections that are remembered to recognise repeats.",
    ("partition",),
)
INSERT_SECONDS = Metric(
    "flagmeter_aggregator_insert_seconds", "histogram", "Seconds of one insert into the store.", ("table",)
)
SETTLED = Metric(
    "flagmeter_aggregator_settled_total", "counter", "Declared ranges settled after a doubt, by cause.", ("cause",)
)
REPAIRED = Metric(
    "flagmeter_aggregator_repaired_total",
    "counter",
    "Inserts repeated under a new token because their marker was absent after a success.",
)
STORE_ERRORS = Metric(
    "flagmeter_aggregator_store_errors_total", "counter", "Errors of the store, by ClickHouse's code.", ("code",)
)
ALARM = Metric(
    "flagmeter_aggregator_alarm", "gauge", "1 while a partition is stopped or in trouble, by reason.",
    ("partition", "reason"), over_workers="max",
)  # fmt: skip
LAG_RECORDS = Metric(
    "flagmeter_aggregator_lag_records",
    "gauge",
    "Records in the log that no batch holds yet.",
    ("partition",),
    over_workers="max",
)
LAG_SECONDS = Metric(
    "flagmeter_aggregator_lag_seconds",
    "gauge",
    "Age of the oldest record of the last batch, while more wait behind it; else 0.",
    ("partition",),
    over_workers="max",
)

# The query API.
QUERIES = Metric("flagmeter_query_requests_total", "counter", "Requests answered.", ("route", "status"))
QUERY_SECONDS = Metric("flagmeter_query_seconds", "histogram", "Seconds of one request.", ("route",))
CACHE = Metric("flagmeter_query_cache_total", "counter", "Look-ups in the result cache.", ("outcome",))

ALL: Final[tuple[Metric, ...]] = tuple(value for value in list(globals().values()) if isinstance(value, Metric))


def counter(metric: Metric, registry: CollectorRegistry) -> Counter:
    """Build a counter from its definition."""
    return Counter(metric.name, metric.help, metric.labels, registry=registry)


def gauge(metric: Metric, registry: CollectorRegistry) -> Gauge:
    """Build a gauge from its definition."""
    return Gauge(metric.name, metric.help, metric.labels, registry=registry)


def histogram(metric: Metric, registry: CollectorRegistry) -> Histogram:
    """Build a histogram from its definition."""
    return Histogram(metric.name, metric.help, metric.labels, registry=registry, buckets=metric.buckets)
