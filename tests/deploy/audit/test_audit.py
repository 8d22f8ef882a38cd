"""What the audit sees, on the embedded log and the real store."""

import asyncio
import dataclasses
import json
import uuid
from typing import Any

from click.testing import CliRunner

from deploy import cli
from deploy.audit.command import Auditor
from deploy.tool_config import LogToolConfig
from schemas import declaration, event
from schemas.limits import RULES
from schemas.markers import HOME, Range
from tests.aggregator.fakes import headers
from tests.deploy.audit.conftest import Asked, Counted
from tests.support.stack import Stack
from tests.support.waiting import wait_for


async def three_batches(counted: Counted) -> list[tuple[int, int]]:
    async with counted.worker():
        return [await counted.batch(f"{name}1", f"{name}2") for name in ("a", "b", "c")]


EXACT = {"a1": 1, "a2": 1, "b1": 1, "b2": 1, "c1": 1, "c2": 1}


async def test_an_honest_log_is_exact(counted: Counted) -> None:
    await three_batches(counted)
    report = await counted.audit()
    own = await counted.own(report)
    assert own.exact
    assert own.log is not None
    assert (own.markers.floor, own.markers.first, own.markers.last) == (1, 1, 6)
    assert (own.log.begin, own.log.end, own.log.committed, own.log.lag, own.log.stopped) == (1, 7, 7, 0, "")
    assert (report.caught_up, report.topic_id) == (True, counted.topic_id)


async def test_a_hole_is_found_and_repaired_with_exact_totals(counted: Counted) -> None:
    spans = await three_batches(counted)
    counted.lose(spans[1], "b1", "b2")
    own = await counted.own()
    assert (own.exact, own.markers.holes.ranges, own.markers.holes.shown) == (False, 1, [Range(3, 4)])
    assert own.log is not None
    assert own.log.oldest is not None, "the hole is what is not stored yet"
    own = await counted.repair()
    assert own.exact
    assert counted.totals() == EXACT
    assert any("3-4 is stored: 2 records" in line for line in counted.said)
    assert (await counted.repair()).exact
    assert counted.totals() == EXACT


async def test_two_repairs_at_once_store_once(counted: Counted) -> None:
    spans = await three_batches(counted)
    counted.lose(spans[1], "b1", "b2")
    await asyncio.gather(counted.repair(), counted.repair())
    assert (await counted.own()).exact
    assert counted.totals() == EXACT


async def test_a_repair_knows_what_came_twice(counted: Counted) -> None:
    async with counted.worker():
        first = counted.append("a", connection="x", body_hash="1")
        await counted.stored_up_to()
        again = counted.append("a", connection="x", body_hash="1")
        await counted.stored_up_to()
        counted.append("b")
        await counted.stored_up_to()
    counted.lose((again, again))
    assert counted.totals() == {"a": 1, "b": 1}
    assert (await counted.repair()).exact
    assert counted.totals() == {"a": 1, "b": 1}
    counted.lose((first, first), "a")
    assert (await counted.repair()).exact
    assert counted.totals() == {"a": 1, "b": 1}


async def test_a_hole_that_the_log_lost_in_part_is_left_until_that_is_accepted(counted: Counted) -> None:
    spans = await three_batches(counted)
    counted.lose(spans[1], "b1", "b2")
    counted.prune(4)
    own = await counted.repair()
    assert (own.exact, own.markers.holes.shown) == (False, [Range(3, 4)])
    assert f"--accept-loss {counted.topic_id}/0" in counted.said[-1]
    asked = Asked()
    assert await counted.accept(asked)
    assert asked.sentences == ["1 position is given up: position 3 will never be counted"]
    own = await counted.repair()
    assert (own.exact, own.markers.accepted.shown) == (True, [Range(3, 3)])
    assert counted.totals() == {flag: yes for flag, yes in EXACT.items() if flag != "b1"}


async def test_duplicates_and_overlaps_are_found_and_left(counted: Counted) -> None:
    await three_batches(counted)
    for span in (Range(3, 4), Range(4, 5)):
        counted.mark(span)
    own = await counted.repair()
    assert not own.exact
    assert own.markers.duplicates.shown == [Range(3, 4)]
    assert own.markers.overlaps.ranges >= 1
    assert own.markers.holes.ranges == 0


async def test_a_lost_end_is_told_and_left_to_the_workers(counted: Counted) -> None:
    spans = await three_batches(counted)
    counted.lose(spans[2], "c1", "c2")
    own = await counted.repair()
    assert own.log is not None
    assert (own.exact, own.log.lost, own.log.lag) == (False, Range(5, 6), 2)
    assert "left to the workers" in counted.said[-1]


async def test_records_that_wait_are_no_hole_and_hold_the_watermark_back(counted: Counted) -> None:
    await three_batches(counted)
    counted.append("late")
    report = await counted.audit()
    own = await counted.own(report)
    assert own.log is not None
    assert (own.exact, own.log.lag, report.caught_up) == (True, 1, False)
    (time_ms,) = counted.connection.execute("SELECT time_ms FROM log ORDER BY id DESC LIMIT 1").fetchone()
    assert report.watermark is not None
    assert int(report.watermark.timestamp() * 1000) == time_ms


async def test_many_markers_are_judged_in_parts_as_in_one(counted: Counted) -> None:
    for first in range(0, 100, 5):
        counted.mark(Range(first, first + 4))
    for span in (Range(110, 119), Range(112, 113), Range(120, 129), Range(140, 149), Range(140, 149)):
        counted.mark(span)
    whole = (await counted.own()).markers
    assert [spans.shown for spans in (whole.holes, whole.overlaps, whole.duplicates)] == [
        [Range(100, 109), Range(130, 139)],
        [Range(112, 113)],
        [Range(140, 149)],
    ]
    for at_once in (1, 2, 3, 7):
        counted.auditor = dataclasses.replace(counted.auditor, at_once=at_once)
        assert (await counted.own()).markers == whole


async def test_a_table_that_lacks_a_batch_or_has_one_too_many_is_told(counted: Counted) -> None:
    other = f"other_{uuid.uuid4().hex}"
    made = counted.store.service(f"CREATE TABLE flagmeter.{other} AS flagmeter.{HOME}")
    assert made.status == 200, made.text
    counted.auditor = dataclasses.replace(counted.auditor, additive=(other, HOME))
    counted.mark(Range(0, 4), HOME, other)
    counted.mark(Range(0, 4), HOME, other, table=other)
    counted.mark(Range(5, 9))
    own = await counted.own()
    assert own.exact, "each batch is where its home marker says"
    counted.mark(Range(10, 14), HOME, other)
    counted.mark(Range(5, 9), table=other)
    counted.mark(Range(15, 19), table=other)
    own = await counted.own()
    assert not own.exact
    assert own.markers.missing[other].shown == [Range(10, 14)]
    assert own.markers.surplus[other].shown == [Range(5, 9)], "a batch after the last marker is still under way"


async def test_without_a_log_the_markers_alone_are_judged(counted: Counted) -> None:
    counted.mark(Range(7, 9))
    counted.mark(Range(11, 12))
    config = LogToolConfig(clickhouse_url=counted.store.url, data_dir=counted.path.parent / "none")
    report = await Auditor(config).audit()
    own = await counted.own(report)
    assert (report.topic_id, report.watermark, own.log) == (None, None, None)
    assert (own.markers.floor, own.markers.holes.shown) == (7, [Range(10, 10)])


async def test_the_stop_of_a_partition_is_told(counted: Counted) -> None:
    await three_batches(counted)
    counted.commit(7, declaration.write(6, RULES, 0, stop="another_log"))
    own = await counted.own()
    assert own.log is not None
    assert own.log.stopped == "another_log"


def test_the_command_prints_json_and_ends_with_the_right_status(counted: Counted) -> None:
    counted.mark(Range(0, 4))
    counted.mark(Range(5, 9))
    environment = {"FLAGMETER_CLICKHOUSE_URL": counted.store.url, "FLAGMETER_DATA_DIR": "/nowhere"}
    said = CliRunner().invoke(cli.main, ["audit", "--json"], env=environment)
    own = [each for each in json.loads(said.stdout)["partitions"] if each["markers"]["topic_id"] == counted.topic_id]
    assert own[0]["exact"] is True
    counted.mark(Range(20, 24))
    said = CliRunner().invoke(cli.main, ["audit"], env=environment)
    assert said.exit_code == 1
    assert "hole: 10-19" in said.output
    assert "NOT exact" in said.output


async def test_garbage_neither_blocks_the_log_nor_disappears(counted: Counted) -> None:
    good = event.pack(headers())
    garbage = [(b"\x00\xff", good), (b"\xc1", b"\xc1"), (b"", b""), (b"{}", b"\x93not a map"), (b"[" * 50_000, good)]
    async with counted.worker():
        for value, packed in garbage:
            counted.append_raw(value, packed)
        counted.append("after")
        await counted.stored_up_to()
    assert counted.totals() == {"after": 1}
    found = counted.rows(
        f"SELECT offset, reason FROM flagmeter.rejected FINAL WHERE topic_id = '{counted.topic_id}' ORDER BY 1"
    )
    assert found == [[at, "unreadable"] for at in range(1, len(garbage) + 1)]
    assert (await counted.own()).exact


def test_on_the_embedded_stack_the_command_needs_no_settings_but_the_data_directory(stack: Stack) -> None:
    bucket = {"start": "2026-11-22T10:00:00Z", "stop": "2026-11-22T10:59:00Z", "toggles": {"a": {"yes": 2, "no": 1}}}
    assert stack.post("/api/client/metrics", {"appName": "audited", "bucket": bucket}).status == 202
    environment = {"FLAGMETER_DATA_DIR": str(stack.data_dir), "FLAGMETER_CLICKHOUSE_PORT": str(stack.store_port)}

    def stored() -> dict[str, Any] | None:
        said = CliRunner().invoke(cli.main, ["audit", "--json"], env=environment)
        assert said.exit_code == 0, said.output
        report: dict[str, Any] = json.loads(said.stdout)
        return report if report["caughtUp"] and report["partitions"][0]["markers"]["last"] else None

    report = wait_for(stored, what="the record in the store")
    (own,) = report["partitions"]
    assert (own["exact"], own["log"]["stopped"], report["topicId"]) == (True, "", own["markers"]["topic_id"])
    table = CliRunner().invoke(cli.main, ["audit"], env=environment)
    assert "exact: neither hole nor duplicate" in table.output
    assert "nothing waits" in table.output
    refused = CliRunner().invoke(cli.main, ["audit", "--accept-loss", f"{report['topicId']}/0"], env=environment)
    assert refused.exit_code == 1
    assert "there is nothing to accept" in refused.output
    assert CliRunner().invoke(cli.main, ["audit", "--repair"], env=environment).exit_code == 0
    assert CliRunner().invoke(cli.main, ["replay", "--dry-run"], env=environment).exit_code == 0
