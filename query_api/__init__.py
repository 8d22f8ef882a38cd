"""ClickHouse in, answers out: DevCycle's result endpoints over the hourly counts.

What decides (`parameters`, `buckets`, `sql`, `shape`) is pure; `store`, `cache` and `app` do the I/O.
"""
