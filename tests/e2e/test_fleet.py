"""A seeded fleet's totals through crashes of every process (acceptance 4)."""

import re
import sqlite3
import time
from pathlib import Path

import msgspec
import pytest

from deploy.fleet import Fleet
from tests.support.shipment import TOTALS, Shipment, stored
from tests.support.stack import Stack
from tests.support.waiting import wait_for

PAYLOADS = 20_000
END_HOUR = 1_795_305_600  # 2026-11-22T00:00:00Z


def in_the_log(stack: Stack) -> list[bytes]:
    with sqlite3.connect(f"file:{stack.data_dir / 'broker.db'}?mode=ro", uri=True) as broker:
        return [bytes(value) for (value,) in broker.execute("SELECT value FROM log")]


def ship(stack: Stack, fleet: Fleet, payloads: int, rate: float) -> Shipment:
    return Shipment(fleet, [stack.gateway], stack.tokens["backend"], payloads, rate=rate)


def check_totals(stack: Stack, shipment: Shipment) -> None:
    """What the log holds is what is stored, and everything acknowledged is in the log, once."""
    shipment.join()
    bodies = in_the_log(stack)
    wanted = shipment.expected(bodies)

    def arrived() -> bool:
        end = stack.sql("SELECT max(variant) FROM evaluations_hourly WHERE project = '__batch__'")[0][0]
        return int(end or 0) >= len(bodies)

    wait_for(arrived, seconds=120, what="the last record")
    assert stored(stack.sql(TOTALS)) == wanted
    markers = stack.sql(
        "SELECT toString(sum(count)), variable, variant FROM evaluations_hourly WHERE project = '__batch__' "
        "GROUP BY variable, variant ORDER BY variable"
    )
    position = 1
    for times, first, final in markers:
        assert (int(times), int(first)) == (1, position), "a hole or a duplicate"
        position = int(final) + 1
    assert stack.number("SELECT count() FROM rejected") == 0


@pytest.fixture
def breakable(tmp_path: Path) -> Stack:
    return Stack(tmp_path / "data", FLAGMETER_KILL_POINT_FILE=str(tmp_path / "kill-point"))


def kill_at(stack: Stack, point: str) -> None:
    """Let the aggregator die at the next such point, and wait for its return."""
    old = stack.child("aggregator").pid
    file = Path(stack.environment["FLAGMETER_KILL_POINT_FILE"])
    file.with_suffix(".new").write_text(point)
    file.with_suffix(".new").rename(file)
    wait_for(lambda: not file.exists(), what=f"the death {point}")

    def back() -> bool:
        try:
            return stack.child("aggregator").pid != old and stack.ready("aggregator")
        except AssertionError:
            return False

    wait_for(back, seconds=60, what="the aggregator's return")


@pytest.mark.slow
def test_twenty_thousand_payloads_arrive_exactly_once_through_crashes(breakable: Stack) -> None:
    stack = breakable
    try:
        stack.start()
        began = time.monotonic()
        fleet = Fleet(seed=3, end_hour=END_HOUR, apps=5, instances=40, flags=60, hours=48, bulk_share=0.2)
        shipment = ship(stack, fleet, PAYLOADS, rate=400)
        shipment.wait_until(0.10)
        kill_at(stack, "after-declare")
        shipment.wait_until(0.25)
        kill_at(stack, "after-insert")
        shipment.wait_until(0.45)
        stack.kill_child("gateway")
        shipment.wait_until(0.60)
        stack.kill_child("store")
        shipment.wait_until(0.80)
        stack.kill_child("store")
        check_totals(stack, shipment)
        settled = re.findall(
            r'"?(?:range)"?[=:] ?"?(\d+-\d+)"?.*',
            "\n".join(line for line in stack.logged().splitlines() if '"settled"' in line or "settled " in line),
        )
        assert settled, "the log names the ranges that were settled"
        print(
            f"\n{PAYLOADS} payloads in {time.monotonic() - began:.0f} s: {shipment.sent.acknowledged} acknowledged, "
            f"{shipment.sent.failed} refused, {len(shipment.sent.doubtful)} in doubt; settled ranges: {settled}"
        )
        assert stack.stop() == 0
    finally:
        stack.kill()


def test_two_thousand_payloads_arrive_exactly_once(stack: Stack) -> None:
    fleet = Fleet(seed=4, end_hour=END_HOUR, apps=3, instances=10, flags=30, hours=24, bulk_share=0.3)
    shipment = ship(stack, fleet, 2_000, rate=0)
    check_totals(stack, shipment)
    assert shipment.sent.acknowledged == 2_000
    assert msgspec.json.encode(shipment.sent.ledger.rows())


def test_a_stop_under_load_keeps_everything_that_was_acknowledged(own_stack: Stack) -> None:
    own_stack.start()
    fleet = Fleet(seed=6, end_hour=END_HOUR)
    shipment = ship(own_stack, fleet, 3000, rate=0)
    shipment.wait_until(0.3)
    assert own_stack.stop() == 0
    sent = shipment.join()
    assert 0 < sent.acknowledged < 3000
    own_stack.start()
    check_totals(own_stack, shipment)


def test_up_that_is_killed_leaves_no_process_and_nothing_lost(own_stack: Stack) -> None:
    own_stack.start()
    fleet = Fleet(seed=5, end_hour=END_HOUR)
    shipment = ship(own_stack, fleet, 300, rate=0)
    shipment.join()
    own_stack.kill()  # checks that no child outlives it
    own_stack.start()
    check_totals(own_stack, shipment)
