"""What the three Unleash families send, as the strict fast path decodes it.

Specifications 000 (frontend), 001 (client) and 002 (Edge bulk), and the union with what the recorded server takes.
A payload that does not fit goes to `schemas.lenient`, which coerces as that server does and gives the same structs.
Unknown fields are ignored. The texts in `seenTokens` have no place here: see `schemas.payload_secrets`.
"""

from typing import Annotated, Final, Literal

from msgspec import UNSET, Meta, Struct, UnsetType

from schemas.limits import MAX_COUNT

MAX_FLAVOR: Final = 256
MAX_FLAVOR_VERSION: Final = 32
ENDLESS: Final = "+Inf"
"""The bound of a histogram's last bucket."""

Count = Annotated[int, Meta(ge=0, le=MAX_COUNT)]
"""How often something was answered, 0 to 2^53-1."""

Date = str | int
"""A date-time string, or milliseconds since the epoch; read by `schemas.dates.parse`."""

Filled = Annotated[str, Meta(min_length=1)]
Flavor = Annotated[str, Meta(max_length=MAX_FLAVOR)]
FlavorVersion = Annotated[str, Meta(max_length=MAX_FLAVOR_VERSION)]
SdkKind = Literal["frontend", "backend"]


class Toggle(Struct, gc=False):
    """One flag in a window: how often it answered yes and no, and which variants it gave."""

    yes: Count = 0
    no: Count = 0
    variants: dict[str, Count] | None = None


class Bucket(Struct):
    """A window of time with its counts; `stop` is exclusive."""

    start: Date
    stop: Date
    toggles: dict[str, Toggle]


class ClientMetrics(Struct, rename="camel"):
    """POST /api/client/metrics and /api/frontend/client/metrics (specifications 001 and 000).

    `bucket` is null or absent in posts that carry impact metrics alone. Impact metrics are not declared here: the
    recorded server answers 202 whatever they hold, so they stay in the log as sent.
    """

    app_name: Filled
    instance_id: str | None = None
    environment: str | None = None
    connection_id: str | None = None
    sdk_version: str | None = None
    platform_name: str | None = None
    platform_version: str | None = None
    yggdrasil_version: str | None = None
    spec_version: str | None = None
    sdk_flavor: Flavor | None = None
    sdk_flavor_version: FlavorVersion | None = None
    bucket: Bucket | None = None


class BulkMetric(Struct, rename="camel"):
    """One flag of one app in one hour, as an Edge forwards it.

    An entry without timestamp is set aside; one with null for it is refused (recorded), hence `UNSET` and not None.
    """

    feature_name: str
    app_name: str
    environment: Filled
    timestamp: Date | UnsetType = UNSET
    yes: Count = 0
    no: Count = 0
    variants: dict[str, Count] = {}
    sdk_version: str | None = None
    sdk_type: str | None = None
    yggdrasil_version: str | None = None
    platform_name: str | None = None
    platform_version: str | None = None
    sdk_flavor: str | None = None
    sdk_flavor_version: str | None = None


class ConnectVia(Struct, rename="camel"):
    """The Edge through which an application is connected."""

    app_name: str
    instance_id: str


class Application(Struct, rename="camel"):
    """One running application, as an Edge forwards its registration (specification 002)."""

    app_name: str
    interval: float | UnsetType = UNSET
    started: Date | UnsetType = UNSET
    strategies: list[str] = []
    instance_id: str | None = None
    connection_id: str | None = None
    environment: str | None = None
    projects: list[str] | None = None
    connect_via: list[ConnectVia] | None = None
    sdk_version: str | None = None
    sdk_type: SdkKind | None = None
    yggdrasil_version: str | None = None
    platform_name: str | None = None
    platform_version: str | None = None
    spec_version: str | None = None
    sdk_flavor: str | None = None
    sdk_flavor_version: str | None = None

    @property
    def complete(self) -> bool:
        """Say whether `started` and `interval` are there; of a frontend SDK with a version neither is asked for."""
        if self.sdk_type == "frontend" and self.sdk_version:
            return True
        return self.started is not UNSET and self.interval is not UNSET


Labels = dict[str, str]


class NumericSample(Struct):
    """One value of a counter (what was added) or a gauge (what it is)."""

    value: float
    labels: Labels | None = None


class HistogramBucket(Struct):
    """How many observations were at most `le`; `le` is a number, or "+Inf"."""

    le: float | Literal["+Inf"]
    count: Count


class HistogramSample(Struct):
    """One histogram: observations, their sum, and cumulative buckets."""

    count: Count
    sum: float
    buckets: list[HistogramBucket]
    labels: Labels | None = None


class Counter(Struct, tag_field="type", tag="counter"):
    """An impact metric that only grows; samples are what was added since the last post."""

    name: str
    help: str
    samples: list[NumericSample]


class Gauge(Struct, tag_field="type", tag="gauge"):
    """An impact metric that is what it was last set to."""

    name: str
    help: str
    samples: list[NumericSample]


class Histogram(Struct, tag_field="type", tag="histogram"):
    """An impact metric of observations in buckets."""

    name: str
    help: str
    samples: list[HistogramSample]


ImpactMetric = Counter | Gauge | Histogram


class Forgotten(Struct, frozen=True, array_like=True):
    """Any array, of which nothing is kept."""


class BulkMetrics(Struct, rename="camel", omit_defaults=True):
    """POST /api/client/metrics/bulk (specification 002): what an Edge gathered from many applications.

    `seen_tokens` only says that the member, where it is sent, is an array (recorded: null is refused).
    """

    applications: list[Application]
    metrics: list[BulkMetric]
    impact_metrics: list[ImpactMetric] | None = None
    seen_tokens: Forgotten = Forgotten()


class Registration(Struct, rename="camel"):
    """POST /api/client/register and /api/frontend/client/register: an SDK says that it started.

    `interval` is in milliseconds (Ruby: seconds). `sdk_version` is empty where it is absent; sent as null or empty it
    is refused (recorded).
    """

    app_name: Filled
    interval: Annotated[float, Meta(ge=0, le=MAX_COUNT)]
    started: str | int | float
    strategies: list[str]
    instance_id: str | None = None
    connection_id: str | None = None
    environment: str | None = None
    sdk_version: Filled = ""
    platform_name: str | None = None
    platform_version: str | None = None
    yggdrasil_version: str | None = None
    spec_version: str | None = None
    sdk_flavor: Flavor | None = None
    sdk_flavor_version: FlavorVersion | None = None
