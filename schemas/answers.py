"""What the query API answers, as DevCycle's Management API shapes it (specification 004).

Times are `YYYY-MM-DDTHH:MM:SS.sssZ`. Sums are clamped to 2^53-1, the largest integer that JSON readers hold exactly.
"""

from typing import Generic, TypeVar

import msgspec

R = TypeVar("R")


class Envelope(msgspec.Struct, Generic[R], frozen=True, rename="camel"):
    """Around every result: whether it came from the result cache, and when it was computed."""

    result: R
    cached: bool
    updated_at: str


class FeaturePoint(msgspec.Struct, frozen=True):
    """One bucket of a feature's series.

    `values` adds up to the bucket's evaluations; `variants` is Unleash's breakdown of them, never added to it.
    """

    date: str
    values: dict[str, int]
    variants: dict[str, int]


class ProjectPoint(msgspec.Struct, frozen=True):
    """One bucket of a project's series: its evaluations."""

    date: str
    value: int


class FeatureEvaluations(msgspec.Struct, frozen=True):
    """A feature's dense series: every bucket of the range, zeros included."""

    evaluations: list[FeaturePoint]


class ProjectEvaluations(msgspec.Struct, frozen=True):
    """A project's dense series."""

    evaluations: list[ProjectPoint]


class Counts(msgspec.Struct, frozen=True, rename="camel"):
    """`total`: all evaluations in scope; `with_feature`: answered yes; `accessed_feature`: all of this feature."""

    total: int
    with_feature: int
    accessed_feature: int


class Summary(msgspec.Struct, frozen=True, rename="camel"):
    """A feature's summary over the range."""

    counts: Counts
    yes: int
    no: int
    variants: dict[str, int]
    applications: list[str]
    first_seen: str | None
    last_seen: str | None


class Problem(msgspec.Struct, frozen=True, rename="camel", omit_defaults=True):
    """An error in DevCycle's shape: `message` is a list for 400, a sentence elsewhere; 401 has no `error`."""

    status_code: int
    message: str | list[str]
    error: str = ""
