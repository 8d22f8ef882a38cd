"""What the log itself says: its bounds, what the group committed, and the records that are not stored yet."""

import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Final

from aggregator.adapters.clock import SystemClock
from aggregator.adapters.visit import SqliteVisit, Visit
from aggregator.ports import BrokerAwayError, OutOfRangeError, PartitionLog
from deploy.tool_config import LogToolConfig
from schemas import urls
from schemas.declaration import Committed, UnreadableCommitError
from schemas.limits import MARKER_DAYS

MARKER_LIFE_MS: Final = (MARKER_DAYS - 1) * 86_400_000
"""So long a marker is surely still there, in milliseconds."""

_READ_SECONDS: Final = 2.0
_READS: Final = 5


@dataclass(frozen=True, slots=True)
class Look:
    """A partition of the log, before the markers were read.

    Attributes:
        begin: B, the log's first position.
        young: the first position whose marker must still be there.
        committed: C; None where there is none, or where it cannot be read.
        trouble: why C cannot be read; empty where it can.
    """

    begin: int
    young: int
    committed: Committed | None
    trouble: str = ""


@contextlib.asynccontextmanager
async def visit(config: LogToolConfig) -> AsyncIterator[Visit | None]:
    """Look at the log that the settings name; None where they name none.

    Raises:
        BrokerAwayError: it cannot be reached.
    """
    broker = config.broker
    if broker is None:
        yield None
        return
    made: Visit
    if isinstance(broker, urls.KafkaBroker):
        from aggregator.adapters.kafka_visit import KafkaVisit  # noqa: PLC0415 - aiokafka is loaded where there is a Kafka

        made = await KafkaVisit.begin(broker, config)
    else:
        made = await SqliteVisit.begin(broker.path, SystemClock())
    try:
        yield made
    finally:
        await made.close()


async def look(log: PartitionLog, now_ms: int) -> Look:
    """Ask for what must be known before the markers are read: batches that are stored meanwhile look like none."""
    begin = (await log.bounds()).begin
    young = max(begin, await log.position_at(max(0, now_ms - MARKER_LIFE_MS)))
    try:
        return Look(begin, young, await log.committed())
    except UnreadableCommitError as error:
        return Look(begin, young, None, str(error))


async def log_time_at(log: PartitionLog, position: int, end: int) -> int | None:
    """Read the log time (ms) of the first record from `position` on; None where there is none before `end`."""
    at = max(position, (await log.bounds()).begin)
    for _ in range(_READS):
        if at >= end:
            return None
        try:
            chunk = await log.read(at, until=None, wait_seconds=_READ_SECONDS)
        except OutOfRangeError as error:
            raise BrokerAwayError(f"the log moved on while it was read: {error}") from error
        if chunk.records:
            return chunk.records[0].log_time
        at = chunk.position
    return None
