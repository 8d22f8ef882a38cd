"""Settings of the embedded store: variables with the prefix FLAGMETER_, read with `deploy.settings`."""

import os
from pathlib import Path
from typing import Final

from pydantic import Field, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

MIB: Final = 1 << 20
GIB: Final = 1 << 30
DATABASE: Final = "flagmeter"
"""The default database, and the only one that the services may change."""


def _most_of_memory() -> int:
    """60 % of the machine's memory: the rest is for the other services and the page cache."""
    return max(GIB, os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") * 6 // 10)


class StoreConfig(BaseSettings):
    """What the store's process needs to know. Sizes are bytes, times are seconds."""

    model_config = SettingsConfigDict(env_prefix="FLAGMETER_", frozen=True, extra="ignore")

    data_dir: Path = Field(default=Path("flagmeter-data"), description="Everything that the embedded stack keeps.")
    clickhouse_port: int = Field(default=8123, ge=1, le=65535, description="Port of the front, on loopback.")

    store_max_memory: int = Field(
        default_factory=_most_of_memory,
        ge=GIB,
        description="The engine's own limit in bytes, 60 % of the machine's memory by default; queries above it fail.",
    )
    store_max_body: int = Field(
        default=512 * MIB,
        ge=MIB,
        description="Largest request body in bytes, after inflating; an insert is at most 256 MB.",
    )
    store_max_buffered_result: int = Field(
        default=128 * MIB,
        ge=MIB,
        description="Largest result in bytes in a format that cannot be streamed (JSON, Parquet).",
    )
    store_max_reads: int = Field(default=8, ge=1, le=256, description="Reading queries that run at the same time.")
    store_max_writes: int = Field(default=4, ge=1, le=64, description="Writing queries that run at the same time.")
    store_max_waiting: int = Field(default=128, ge=0, description="Queries that wait for their turn; more are refused.")
    store_body_timeout: float = Field(default=30, gt=0, description="Longest silence of a client that sends a body.")
    store_send_timeout: float = Field(default=60, gt=0, description="Longest wait for a client that reads slowly.")
    store_shutdown_timeout: float = Field(
        default=20, ge=0, description="How long running queries may go on at the end."
    )

    store_visitor_max_seconds: int = Field(default=60, ge=1, description="Longest run of a visitor's query.")
    store_visitor_max_memory: int = Field(default=GIB, ge=64 * MIB, description="Memory of a visitor's query, bytes.")
    store_visitor_max_result: int = Field(default=GIB, ge=MIB, description="Result of a visitor's query, bytes.")

    @field_validator("data_dir")
    @classmethod
    def _fits_a_connection_string(cls, value: Path) -> Path:
        # chDB takes path and options as one string and cuts it at the first question mark.
        if "?" in str(value.absolute()):
            raise ValueError("the path of the embedded store must not contain a question mark")
        return value

    @property
    def store_dir(self) -> Path:
        """The directory that belongs to the store alone."""
        return self.data_dir.absolute() / "store"

    @property
    def secret_file(self) -> Path:
        """Where the password of the user `service` stands."""
        return self.data_dir.absolute() / "store.secret"
