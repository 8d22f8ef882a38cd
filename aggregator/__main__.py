"""Runs one aggregator worker: `python -m aggregator`, or `flagmeter aggregator`."""

import asyncio
import sys

import structlog
from aiohttp import web
from prometheus_client import CollectorRegistry

from aggregator.adapters.clickhouse import ClickHouseStore, without_data_frames
from aggregator.adapters.clock import SystemClock
from aggregator.adapters.points import KillPoints, NoPoints
from aggregator.adapters.sqlite import SqliteFile, SqliteMembership
from aggregator.config import AggregatorConfig
from aggregator.health import make_app
from aggregator.status import Status
from aggregator.worker import Worker
from deploy import logs, run, settings
from schemas import urls

GROUP = "flagmeter.aggregator"

_log = structlog.get_logger(__name__)


async def serve(config: AggregatorConfig, stop: asyncio.Event) -> None:
    """Work until `stop` is set."""
    clock = SystemClock()
    store = ClickHouseStore(
        urls.parse_clickhouse(config.clickhouse_url.get_secret_value()), flush_seconds=config.flush_seconds
    )
    status = Status(CollectorRegistry())
    points = KillPoints(config.kill_point_file) if config.kill_point_file else NoPoints()
    worker = Worker(store, clock, points, status, flush_seconds=config.flush_seconds)
    runner = web.AppRunner(make_app(worker, status), access_log=None)
    await runner.setup()
    try:
        await web.TCPSite(runner, config.host, config.aggregator_port).start()
        _log.info("aggregator started", port=config.aggregator_port, broker=str(config.broker.path))
        membership = SqliteMembership(SqliteFile(config.broker.path), clock, group=GROUP)
        await worker.run(membership, stop, drain_seconds=config.drain_seconds)
    finally:
        await runner.cleanup()
        await store.close()
    _log.info("aggregator ended")


def main() -> None:
    """Run until SIGTERM or SIGINT."""
    config = settings.load(AggregatorConfig)
    logs.configure("aggregator")
    without_data_frames()
    sys.exit(run.until_signalled(lambda stop: serve(config, stop)))


if __name__ == "__main__":
    main()
