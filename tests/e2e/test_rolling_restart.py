"""Every gateway and every worker restarted under load, twice, one after another (issue 5, acceptance 6)."""

import asyncio
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from aggregator.config import AggregatorConfig
from deploy.fleet import Fleet
from ingest_gateway.server import STOP_SECONDS
from tests.support.kafka import Cluster
from tests.support.services import PARTITIONS, TOKEN, Deployment, ServiceProcess
from tests.support.shipment import TOTALS, Shipment, stored
from tests.support.waiting import wait_for

END_HOUR = 1_795_305_600  # 2026-11-22T00:00:00Z
PAYLOADS = 36_000
"""At most; the load ends with the last restart."""
RATE = 150.0
LEAVE_SECONDS = 6.0


@pytest.fixture
def deployment(kafka: Cluster, tmp_path: Path) -> Iterator[Deployment]:
    made = Deployment(tmp_path / "deployment", kafka.url(f"rolling-{tmp_path.name}"))
    try:
        yield made.start()
    finally:
        made.close()


def restart(service: ServiceProcess) -> float:
    """Restart a service as an operator does; gives the seconds that its end took."""
    began = time.monotonic()
    assert service.stop() == 0
    seconds = time.monotonic() - began
    service.start()
    return seconds


@pytest.mark.slow
def test_a_rolling_restart_under_load_loses_nothing_and_answers_no_5xx(deployment: Deployment) -> None:
    gateways = [deployment.gateway().start() for _ in range(2)]
    workers = [deployment.aggregator().start() for _ in range(3)]

    def shared(owned: dict[int, list[int]]) -> bool:
        return sorted(len(partitions) for partitions in owned.values()) == [PARTITIONS // 3] * 3

    deployment.wait_for_owners(shared)
    fleet = Fleet(seed=6, end_hour=END_HOUR, apps=5, instances=40, flags=40, hours=24, bulk_share=0.2)
    shipment = Shipment(fleet, [each.url for each in gateways], TOKEN, PAYLOADS, rate=RATE, concurrency=32)
    shipment.wait_until(0.02)
    ends: dict[str, list[float]] = {"gateway": [], "aggregator": []}
    for _ in range(2):
        for gateway in gateways:
            ends["gateway"].append(restart(gateway))
        for worker in workers:
            ends["aggregator"].append(restart(worker))
            deployment.wait_for_owners(shared)
    assert shipment.sent.done < PAYLOADS, "the load ended before the restarts did"
    sent = shipment.finish()
    log = asyncio.run(deployment.in_the_log())
    wanted = shipment.expected(value for values in log.values() for value in values)
    deployment.check_markers({partition: len(values) for partition, values in log.items()})
    assert stored(deployment.sql(TOTALS)) == wanted
    assert deployment.sql("SELECT count() FROM rejected") == [[0]]
    wait_for(lambda: not any(each.metric("flagmeter_aggregator_lag_records") for each in workers), what="no lag")
    print(
        f"\n{sent.done} payloads during ten restarts: {sent.acknowledged} acknowledged, {sent.failed} "
        f"refused, {len(sent.doubtful)} in doubt {sent.reasons}; seconds to leave: "
        + "; ".join(f"{name} {', '.join(f'{each:.1f}' for each in seconds)}" for name, seconds in ends.items())
    )
    assert max(ends["gateway"]) < STOP_SECONDS
    assert max(ends["aggregator"]) < AggregatorConfig.model_fields["drain_seconds"].default + LEAVE_SECONDS
    # No answer but 2xx; a connection that lay idle may be closed just as its client uses it again.
    assert all(reason.startswith(("no connection", "the connection broke")) for reason in sent.reasons), sent.reasons
    assert len(sent.doubtful) < 20
    assert [each.stop() for each in (*gateways, *workers)] == [0] * 5
