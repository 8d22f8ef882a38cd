"""Pruning the embedded log: what is acknowledged and old goes, or earlier where the file grows too large.

A day is counted from the newest record, so that a log that stood still keeps what a restored store would need. But
markers live 35 days by the store's clock: what is acknowledged and older than that must be gone, or it would look as
if the store had lost it. Repeats of SDKs are recognised over 15 minutes of log time: a worker that starts anew reads
back so far from the first record that is not acknowledged, and that always stays.
"""

import sqlite3
from typing import Final

from schemas import sqlite_log
from schemas.limits import MARKER_DAYS, REPEAT_WINDOW_MS

AT_ONCE: Final = 10_000
"""Records removed in one transaction: the gateway's appends wait for it."""

BYTES_AT_ONCE: Final = 64 * 1024 * 1024
"""Bytes of values removed in one transaction, likewise."""

_MARKERS_SURE_MS: Final = (MARKER_DAYS - 1) * 86_400_000
"""So long the marker of an acknowledged record is surely still there, in milliseconds."""


def prune(
    connection: sqlite3.Connection,
    *,
    acknowledged: int,
    now_ms: int,
    expired_only: bool = False,
    since: int | None = None,
) -> int:
    """Remove acknowledged records that are no longer needed, some thousands at once.

    Args:
        connection: to the broker's file, in autocommit.
        acknowledged: the first position that is not acknowledged; nothing from there on is removed.
        now_ms: milliseconds since the epoch.
        expired_only: remove nothing but what is too old for its marker to be there surely.
        since: when the last commit was made (ms): if that is long ago, all markers are old, whatever the log times say.

    Returns:
        How many records went.
    """
    row = connection.execute("SELECT time_ms FROM log ORDER BY id DESC LIMIT 1").fetchone()
    if row is None:
        return 0
    (newest,) = row
    first = connection.execute("SELECT time_ms FROM log WHERE id >= ? ORDER BY id LIMIT 1", (acknowledged,)).fetchone()
    read_back_from = newest if first is None else first[0]
    too_large = sqlite_log.used_bytes(connection) > sqlite_log.PRUNE_BYTES * 3 // 4
    kept_from = newest if too_large else newest - sqlite_log.PRUNE_AGE_MS
    young = now_ms - _MARKERS_SURE_MS
    if since is not None and since < young:
        young = newest + 1
    elif not expired_only:
        young = max(min(kept_from, read_back_from - REPEAT_WINDOW_MS), young)
    # Log times never fall, so the first record that is young enough ends the search.
    oldest = connection.execute(
        "SELECT id, time_ms, length(value) FROM log WHERE id < ? ORDER BY id LIMIT ?", (acknowledged, AT_ONCE)
    )
    last, size = None, 0
    for at, time_ms, length in oldest:
        size += length
        if time_ms >= young or (last is not None and size > BYTES_AT_ONCE):
            break
        last = at
    return 0 if last is None else connection.execute("DELETE FROM log WHERE id <= ?", (last,)).rowcount
