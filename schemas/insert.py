"""How every insert into the store is sent (EXACTLY_ONCE.md, 2): explicit, whatever the server's defaults are."""

from typing import Final

MAX_ROWS: Final = 200_000
"""A batch is closed at this many rows; one more record adds at most 360,000: below the 1,000,000 of one block."""

INSERT_SECONDS: Final = 30
"""`max_execution_time` of an insert, in seconds: after it, a late writer is gone."""

URL_PARAMETERS: Final = {"wait_end_of_query": "1"}
"""Only valid as URL parameters, not as settings."""

_SETTINGS: Final[dict[str, str | int]] = {
    "async_insert": 0,
    "deduplicate_insert": "enable",
    "max_execution_time": INSERT_SECONDS,
    # One insert is one block: nothing may cut it.
    "max_insert_block_size": 1_048_449,
    "min_insert_block_size_rows": 1_048_449,
    "min_insert_block_size_bytes": 268_402_944,
}

_LEGACY_SETTINGS: Final[dict[str, str | int]] = {
    name: value for name, value in _SETTINGS.items() if name != "deduplicate_insert"
} | {"insert_deduplicate": 1}
_FIRST_WITH_DEDUPLICATE_INSERT: Final = (26, 2)


def settings(server_version: tuple[int, int], token: str) -> dict[str, str | int]:
    """Give the settings of one insert.

    Args:
        server_version: major and minor of the ClickHouse server; 26.2 renamed the switch for tokens.
        token: the insert's deduplication token, never empty: without one, two honest batches with equal rows collapse.
    """
    if not token:
        raise ValueError("an insert into a table with a deduplication window needs a token")
    known = _SETTINGS if server_version >= _FIRST_WITH_DEDUPLICATE_INSERT else _LEGACY_SETTINGS
    return {**known, "insert_deduplication_token": token}
