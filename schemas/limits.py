"""The numbers that the gateway and the aggregator must agree on, each with its unit and reason.

A change to any of them changes which rows a record gives: raise `RULES` with it (EXACTLY_ONCE.md, 1).
"""

from typing import Final

RULES: Final = 2
"""Version of everything that turns records into rows. Declared with every batch; kept readable for one release.

1: every record counts whole. 2: what SDKs send twice counts once.
"""

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

REPEAT_BULK_MS: Final = 60 * 1000
"""The same for equal bytes of bulk posts: an Edge repeats them within seconds, later ones may be honest."""

REPEAT_RECORDS: Final = 250_000
"""A repeat is recognised among so many of a partition's last records: 15 minutes of 270 a second, about 100 MB."""

REPEAT_BYTES: Final = 64 * 1024 * 1024
"""So many bytes of windows are held for comparison in a partition: 45,000 windows of 20 flags."""

REPEAT_WINDOWS: Final = 4
"""So many windows are held of one connection."""

REPEAT_WINDOW_BYTES: Final = 256 * 1024
"""A window of more bytes than this is not held: one that grew out of it counts whole."""

MARKER_PROJECT: Final = "__batch__"
RESERVED_PREFIX: Final = "__"
"""Project names that begin so are ours alone and refused everywhere else."""
