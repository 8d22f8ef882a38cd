"""The numbers that the gateway and the aggregator must agree on, each with its unit and reason.

A change to any of them changes which rows a record gives: raise `RULES` with it (EXACTLY_ONCE.md, 1).
"""

from typing import Final

RULES: Final = 1
"""Version of everything that turns records into rows. Declared with every batch; kept readable for one release."""

MAX_COUNT: Final = 2**53 - 1
"""Largest count in one payload: the largest integer that JavaScript holds exactly (recorded: above it, 400)."""

COUNT_MODULUS: Final = 2**64
"""Counts are UInt64 in the store and wrap there; sums within a batch wrap alike, however batches are cut."""

MAX_NAME: Final = 255
"""Longest stored name, in Unicode code points: flags, variants, apps, environments, projects, platforms."""

MIN_HOUR: Final = -2208988800
"""1900-01-01T00:00:00Z in epoch seconds: the first instant of ClickHouse's DateTime64."""

MAX_HOUR: Final = 10413788400
"""2299-12-31T23:00:00Z in epoch seconds: the last hour of ClickHouse's DateTime64."""

MAX_EPOCH_MS: Final = 8_640_000_000_000_000
"""Largest distance from the epoch that JavaScript's Date takes, in milliseconds (recorded: beyond it, 400)."""

MAX_BODY_BYTES: Final = 2 * 1024 * 1024
"""Largest body after decompression. Half of the topic's `max.message.bytes`, so that the broker never refuses one."""

MARKER_DAYS: Final = 35
"""How long batch markers and rejected rows are kept, in days: longer than any record stays in the log."""

REPEAT_WINDOW_MS: Final = 15 * 60 * 1000
"""How far back in log time a repeated post is recognised, in milliseconds (EXACTLY_ONCE.md, 4)."""

MARKER_PROJECT: Final = "__batch__"
RESERVED_PREFIX: Final = "__"
"""Project names that begin so are ours alone and refused everywhere else."""
