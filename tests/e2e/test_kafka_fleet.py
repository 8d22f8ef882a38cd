"""The same on Kafka: several gateways and workers, as exact as on one machine (issue 4, acceptance 2 and 3)."""

import asyncio
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from deploy.fleet import Fleet
from tests.support.kafka import Cluster, KafkaProcess
from tests.support.proxy import HoldingProxy
from tests.support.services import PARTITIONS, TOKEN, Deployment
from tests.support.shipment import TOTALS, Shipment, stored
from tests.support.waiting import wait_for

END_HOUR = 1_795_305_600  # 2026-11-22T00:00:00Z
SESSION_SECONDS = 10.0


@pytest.fixture
def deployment(kafka: Cluster, tmp_path: Path) -> Iterator[Deployment]:
    made = Deployment(tmp_path / "deployment", kafka.url(f"fleet-{tmp_path.name}"))
    try:
        yield made.start()
    finally:
        made.close()


@pytest.fixture
def breakable(own_kafka: KafkaProcess, tmp_path: Path) -> Iterator[Deployment]:
    """A deployment whose Kafka may be broken, too."""
    made = Deployment(tmp_path / "deployment", own_kafka.start().url("fleet"))
    try:
        yield made.start()
    finally:
        made.close()


def check_totals(deployment: Deployment, shipment: Shipment) -> None:
    shipment.join()
    log = asyncio.run(deployment.in_the_log())
    wanted = shipment.expected(value for values in log.values() for value in values)
    deployment.check_markers({partition: len(values) for partition, values in log.items()})
    assert stored(deployment.sql(TOTALS)) == wanted
    assert deployment.sql("SELECT count() FROM rejected") == [[0]]


def test_two_thousand_payloads_through_two_gateways_and_two_workers(deployment: Deployment) -> None:
    gateways = [deployment.gateway().start() for _ in range(2)]
    workers = [deployment.aggregator().start() for _ in range(2)]
    deployment.wait_for_owners(lambda owned: all(len(partitions) == PARTITIONS / 2 for partitions in owned.values()))
    fleet = Fleet(seed=4, end_hour=END_HOUR, apps=3, instances=20, flags=30, hours=24, bulk_share=0.3)
    shipment = Shipment(fleet, [each.url for each in gateways], TOKEN, 2_000)
    check_totals(deployment, shipment)
    assert shipment.sent.acknowledged == 2_000
    assert all(each.metric("flagmeter_aggregator_records_total") > 100 for each in workers)
    assert sum(each.metric("flagmeter_gateway_appended_total") for each in gateways) == 2_000
    wait_for(lambda: not any(each.metric("flagmeter_aggregator_lag_records") for each in workers), what="no lag")
    assert [each.stop() for each in (*gateways, *workers)] == [0, 0, 0, 0]


@pytest.mark.slow
def test_twenty_thousand_payloads_arrive_exactly_once_while_workers_die_join_and_hang(deployment: Deployment) -> None:
    proxy = HoldingProxy(deployment.store.port)
    began = time.monotonic()
    try:
        gateways = [deployment.gateway().start() for _ in range(2)]
        through = deployment.store.url.replace(f":{deployment.store.port}/", f":{proxy.port}/")
        first, second = deployment.aggregator().start(), deployment.aggregator(clickhouse_url=through).start()
        deployment.wait_for_owners(lambda owned: all(owned.values()))
        fleet = Fleet(seed=3, end_hour=END_HOUR, apps=5, instances=40, flags=60, hours=48, bulk_share=0.2)
        shipment = Shipment(fleet, [each.url for each in gateways], TOKEN, 20_000, rate=300)
        shipment.wait_until(0.05)
        first.die_at("after-declare")
        first.start()
        shipment.wait_until(0.15)
        second.die_at("after-insert")
        second.start()
        shipment.wait_until(0.30)
        third = deployment.aggregator().start()
        deployment.wait_for_owners(lambda owned: all(len(partitions) == 2 for partitions in owned.values()))
        shipment.wait_until(0.40)

        proxy.hold()
        assert proxy.held.wait(30), "no insert came"
        hung = second.readyz()[1]["partitions"]
        second.freeze()
        frozen = time.monotonic()

        def taken_over() -> bool:
            owned = [partition for each in (first, third) for partition in each.readyz()[1]["partitions"]]
            return sorted(owned) == list(range(PARTITIONS))

        wait_for(taken_over, seconds=60, what="the others to take over")
        ends = dict.fromkeys(map(str, hung), "")
        markers = "SELECT feature, max(variant) FROM evaluations_hourly WHERE project = '__batch__' GROUP BY feature"
        ends |= {row[0]: row[1] for row in deployment.sql(markers) if row[0] in ends}

        def settled() -> bool:
            return all(row[1] > ends[row[0]] for row in deployment.sql(markers) if row[0] in ends)

        wait_for(settled, seconds=60, what="the ranges of the frozen worker")
        assert time.monotonic() - frozen > SESSION_SECONDS
        hung_for = time.monotonic() - frozen
        proxy.release()  # now its insert arrives, long after somebody else stored the range
        second.thaw()
        deployment.wait_for_owners(lambda owned: all(len(partitions) == 2 for partitions in owned.values()))
        check_totals(deployment, shipment)
        settles = sum(each.metric("flagmeter_aggregator_settled_total") for each in (first, second, third))
        print(
            f"\n20000 payloads in {time.monotonic() - began:.0f} s: {shipment.sent.acknowledged} acknowledged, "
            f"{shipment.sent.failed} refused, {len(shipment.sent.doubtful)} in doubt; {settles:.0f} ranges settled; "
            f"frozen for {hung_for:.0f} s with an insert under way"
        )
        assert [each.stop() for each in (*gateways, first, second, third)] == [0] * 5
    finally:
        proxy.close()


@pytest.mark.slow
def test_a_broker_that_hangs_and_one_that_is_killed_lose_and_double_nothing(
    breakable: Deployment, own_kafka: KafkaProcess
) -> None:
    gateways = [breakable.gateway().start() for _ in range(2)]
    workers = [breakable.aggregator().start() for _ in range(2)]
    breakable.wait_for_owners(lambda owned: all(owned.values()))
    fleet = Fleet(seed=8, end_hour=END_HOUR, apps=5, instances=40, flags=60, hours=48)
    shipment = Shipment(fleet, [each.url for each in gateways], TOKEN, 12_000, rate=150, concurrency=64)
    shipment.wait_until(0.1)
    own_kafka.freeze()
    time.sleep(25)  # longer than any session
    own_kafka.thaw()
    shipment.wait_until(0.6)
    own_kafka.kill()
    own_kafka.start()
    check_totals(breakable, shipment)
    assert all(each.is_ready() for each in (*gateways, *workers))
    print(
        f"\n12000 payloads while Kafka hung for 25 s and was killed once: {shipment.sent.acknowledged} acknowledged, "
        f"{shipment.sent.failed} refused, {len(shipment.sent.doubtful)} in doubt {shipment.sent.reasons}"
    )
