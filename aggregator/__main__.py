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
from aggregator.ports import Clock, Membership
from aggregator.status import Status
from aggregator.worker import Worker
from deploy import logs, peers, run, settings, workers
from deploy.workers import Plan
from schemas import urls
from schemas.kafka import GROUP
from schemas.peers import Peers

_LEAVE_SECONDS = 6.0
"""After the drain: to leave the group, and to close what is open."""

_log = structlog.get_logger(__name__)


async def serve(config: AggregatorConfig, stop: asyncio.Event) -> None:
    """Work until `stop` is set, alone or as one of several workers."""
    async with peers.joined(config.workers) as all_workers:
        await _work(config, stop, all_workers)


async def _work(config: AggregatorConfig, stop: asyncio.Event, all_workers: Peers) -> None:
    clock = SystemClock()
    store = ClickHouseStore(config.clickhouse(config.clickhouse_url), flush_seconds=config.flush_seconds)
    status = Status(CollectorRegistry())
    points = KillPoints(config.kill_point_file) if config.kill_point_file else NoPoints()
    worker = Worker(store, clock, points, status, flush_seconds=config.flush_seconds)
    runner = web.AppRunner(make_app(worker, status, all_workers), access_log=None)
    await runner.setup()
    try:
        site = web.TCPSite(runner, config.host, config.aggregator_port, reuse_port=all_workers.shares_port)
        await site.start()
        _log.info("aggregator started", port=config.aggregator_port, broker=repr(config.broker))
        await worker.run(_membership(config, clock), stop, drain_seconds=config.drain_seconds)
    finally:
        await runner.cleanup()
        await store.close()
    _log.info("aggregator ended")


def _membership(config: AggregatorConfig, clock: Clock) -> Membership:
    broker = config.broker
    if isinstance(broker, urls.SqliteBroker):
        return SqliteMembership(SqliteFile(broker.path), clock, group=GROUP)
    from aggregator.adapters.kafka import KafkaMembership  # noqa: PLC0415 - the embedded stack starts without it

    return KafkaMembership(broker, config, clock, group=GROUP)


def main() -> None:
    """Run until SIGTERM or SIGINT."""
    config = settings.load(AggregatorConfig)
    logs.configure("aggregator")
    without_data_frames()
    if workers.wanted(config.workers):
        sys.exit(workers.keep(_plan(config)))
    sys.exit(run.until_signalled(lambda stop: serve(config, stop)))


def _plan(config: AggregatorConfig) -> Plan:
    return Plan(
        package="aggregator",
        workers=config.workers,
        host=config.host,
        port=config.aggregator_port,
        port_variable="FLAGMETER_AGGREGATOR_PORT",
        stop_seconds=config.drain_seconds + _LEAVE_SECONDS,
    )


if __name__ == "__main__":
    main()
