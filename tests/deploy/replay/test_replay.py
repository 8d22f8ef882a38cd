"""Rejected rows count once, whoever replays them, with whatever filter, and whenever it dies."""

import asyncio
import itertools
import json
import signal
import subprocess
import sys
import uuid
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import clickhouse_connect
import msgspec
import pytest
from click.testing import CliRunner

from aggregator.adapters.clickhouse import ClickHouseStore
from aggregator.ports import Block, Record, StoreError
from aggregator.repeats import Repeats
from aggregator.rollup import Rollup
from deploy import cli
from deploy.replay.command import Job
from deploy.replay.replay import Done, Replayer
from deploy.replay.source import Filter, Source
from deploy.tool_config import StoreToolConfig
from schemas import event, rows
from schemas.event import Kind, Unreadable
from schemas.markers import HOME, Range
from schemas.tables import REJECTED
from tests.aggregator.fakes import headers, window
from tests.support.environment import ROOT, variables
from tests.support.store import StoreProcess, fresh_token

DAY_MS = 86_400_000
NOON = 20_000 * DAY_MS + DAY_MS // 2
LONG = "f" * 300


class Aside:
    """Records whose rows were set aside, in the shared store, under a log and a project of their own."""

    def __init__(self, store: StoreProcess) -> None:
        self.store = store
        self.topic_id = uuid.uuid4().hex
        self.project = f"project-{self.topic_id}"
        self.config = StoreToolConfig(clickhouse_url=store.url)
        self._offsets = itertools.count(10)

    async def add(self, *records: tuple[bytes, dict[str, object]], log_time: int = NOON) -> None:
        """Roll records up as a worker does, and store what it sets aside."""
        await self.add_records(
            [
                Record(next(self._offsets), log_time + at, headers(project=self.project, **changes), value)
                for at, (value, changes) in enumerate(records)
            ]
        )

    async def add_records(self, records: list[Record]) -> None:
        rollup = Rollup(Repeats())
        for record in records:
            rollup.add(self.topic_id, 3, record)
        blocks = rollup.blocks(self.topic_id, 3, Range(records[0].offset, records[-1].offset))
        adapter = ClickHouseStore(self.store.server, flush_seconds=1)
        try:
            for block in blocks:
                await adapter.insert(block, fresh_token())
        finally:
            await adapter.close()

    async def bad(self, count: int = 1, *, yes: int = 1, log_time: int = NOON, **changes: object) -> None:
        """Add windows with one flag each that has too long a name."""
        values = [(window(f"{LONG}{at}", yes), changes) for at in range(count)]
        await self.add(*values, log_time=log_time)

    async def replay(self, **options: Any) -> Done:
        wanted = Filter(project=self.project, **options.pop("wanted", {}))
        return await Job(self.config, wanted, **options).run()

    def totals(self) -> tuple[int, int, int]:
        answer = self.store.service(
            f"SELECT sum(yes), sum(no), sum(count) FROM flagmeter.{HOME} WHERE project = '{self.project}'",
            None,
            default_format="JSONCompact",
        )
        yes, no, count = answer.json()["data"][0]
        return int(yes), int(no), int(count)

    def markers(self) -> list[list[str]]:
        answer = self.store.service(
            f"SELECT variable, variant, sum(count) FROM flagmeter.{HOME} WHERE project = '__batch__' "
            f"AND environment = 'replay' AND startsWith(feature, '{self.topic_id}') GROUP BY 1, 2 ORDER BY 1, 2",
            None,
            default_format="JSONCompact",
        )
        return list(answer.json()["data"])


@pytest.fixture
def aside(store: StoreProcess) -> Aside:
    return Aside(store)


@pytest.fixture
def fixed(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """The fix: names may be longer from now on."""
    return lambda: monkeypatch.setattr(rows, "MAX_NAME", 1000)


async def test_what_cannot_be_stored_yet_stays(aside: Aside) -> None:
    await aside.bad(3)
    done = await aside.replay()
    assert (done.replayed, done.stays) == (0, {"name_too_long": 3})
    assert (aside.totals(), aside.markers()) == ((0, 0, 0), [])


async def test_after_a_fix_each_row_counts_once_however_often_it_is_replayed(
    aside: Aside, fixed: Callable[[], None]
) -> None:
    await aside.bad(5, yes=7)
    fixed()
    first = await aside.replay()
    again = await aside.replay()
    assert (first.replayed, first.before, first.yes, first.no, first.count) == (5, 0, 35, 5, 35)
    assert (again.replayed, again.before) == (0, 5)
    assert aside.totals() == (35, 5, 35)


async def test_a_dry_run_shows_and_changes_nothing(aside: Aside, fixed: Callable[[], None]) -> None:
    await aside.bad(2)
    fixed()
    done = await aside.replay(dry_run=True)
    assert (done.replayed, done.yes, len(done.keys)) == (2, 2, 4)
    assert aside.totals() == (0, 0, 0)
    assert (await aside.replay()).yes == 2


async def test_overlapping_filters_count_each_row_once(aside: Aside, fixed: Callable[[], None]) -> None:
    for day in range(3):
        await aside.bad(10, log_time=NOON + day * DAY_MS, environment=f"env-{day % 2}")
    fixed()
    since = datetime.fromtimestamp((NOON + DAY_MS) / 1000, UTC)
    assert (await aside.replay(limit=3)).replayed == 3
    assert (await aside.replay(wanted={"environment": "env-1"})).replayed == 10
    assert (await aside.replay(wanted={"since": since}, limit=5)).replayed == 5
    assert (await aside.replay(wanted={"reasons": ("empty_app",)})).replayed == 0
    assert (await aside.replay(wanted={"reasons": ("name_too_long",)})).replayed == 12
    assert aside.totals() == (30, 30, 30)
    assert [int(row[2]) for row in aside.markers()] == [1] * 30


async def test_replays_at_once_with_different_filters_count_each_row_once(
    aside: Aside, fixed: Callable[[], None]
) -> None:
    for environment in ("a", "b", "c"):
        await aside.bad(20, environment=environment)
    fixed()
    done = await asyncio.gather(
        aside.replay(),
        aside.replay(limit=30),
        aside.replay(wanted={"environment": "b"}),
        aside.replay(wanted={"reasons": ("name_too_long",)}),
        aside.replay(limit=7),
    )
    assert sum(each.replayed for each in done) >= 60
    assert aside.totals() == (60, 60, 60)
    assert {int(row[2]) for row in aside.markers()} == {1}
    assert len(aside.markers()) == 60


class Held(ClickHouseStore):
    """Waits before its first insert until a test lets it go on, and may lose an answer."""

    def __init__(self, store: StoreProcess) -> None:
        super().__init__(store.server, flush_seconds=1)
        self.waits = asyncio.Event()
        self.go_on = asyncio.Event()
        self.inserts = 0
        self.lost_answers = 0

    async def insert(self, block: Block, token: str) -> None:
        self.inserts += 1
        self.waits.set()
        await self.go_on.wait()
        await super().insert(block, token)
        if self.lost_answers:
            self.lost_answers -= 1
            raise StoreError("timed out", code=159)


async def test_a_replay_that_slept_before_its_insert_adds_nothing_that_another_counted(
    aside: Aside, fixed: Callable[[], None]
) -> None:
    await aside.bad(4)
    fixed()
    held = Held(aside.store)
    client = clickhouse_connect.get_client(
        host=aside.store.server.host,
        port=aside.store.server.port,
        username=aside.store.server.user,
        password=aside.store.server.password,
    )
    try:
        sleeper = asyncio.create_task(Replayer(Source(client, "flagmeter"), held).run(Filter(project=aside.project)))
        await held.waits.wait()
        assert (await aside.replay(limit=2)).replayed == 2
        held.go_on.set()
        done = await sleeper
    finally:
        await held.close()
        client.close()
    assert (done.replayed, done.before, held.inserts) == (2, 2, 2), "its first insert met a token that was taken"
    assert aside.totals() == (4, 4, 4)


async def test_an_answer_that_was_lost_is_asked_for(aside: Aside, fixed: Callable[[], None]) -> None:
    await aside.bad(2)
    fixed()
    held = Held(aside.store)
    held.go_on.set()
    held.lost_answers = 1
    client = clickhouse_connect.get_client(
        host=aside.store.server.host,
        port=aside.store.server.port,
        username=aside.store.server.user,
        password=aside.store.server.password,
    )
    try:
        done = await Replayer(Source(client, "flagmeter"), held).run(Filter(project=aside.project))
    finally:
        await held.close()
        client.close()
    assert (done.replayed, held.inserts) == (2, 1)
    assert aside.totals() == (2, 2, 2)


_KILLED_AFTER_ITS_INSERT = """
import asyncio, os, signal, sys
from schemas import rows
rows.MAX_NAME = 1000
from aggregator.adapters.clickhouse import ClickHouseStore
from deploy.replay.command import Job
from deploy.replay.source import Filter
from deploy.tool_config import StoreToolConfig
insert = ClickHouseStore.insert
async def die(self, block, token):
    await insert(self, block, token)
    os.kill(os.getpid(), signal.SIGKILL)
ClickHouseStore.insert = die
asyncio.run(Job(StoreToolConfig(), Filter(project=sys.argv[1]), limit=2).run())
"""


async def test_a_replay_that_is_killed_after_its_insert_is_finished_by_the_next(
    aside: Aside, fixed: Callable[[], None]
) -> None:
    await aside.bad(5)
    killed = await asyncio.to_thread(
        subprocess.run,
        [sys.executable, "-c", _KILLED_AFTER_ITS_INSERT, aside.project],
        env=variables(clickhouse_url=aside.store.url),
        cwd=ROOT,
        check=False,
        timeout=60,
    )
    assert killed.returncode == -signal.SIGKILL
    assert aside.totals() == (2, 2, 2)
    fixed()
    done = await aside.replay()
    assert (done.replayed, done.before) == (3, 2)
    assert aside.totals() == (5, 5, 5)


async def test_a_part_that_was_lost_with_its_token_known_is_stored_again(
    aside: Aside, fixed: Callable[[], None]
) -> None:
    await aside.bad(2)
    fixed()
    await aside.replay()
    lost = aside.store.service(
        f"ALTER TABLE flagmeter.{HOME} DELETE WHERE project = '{aside.project}' "
        f"OR (project = '__batch__' AND startsWith(feature, '{aside.topic_id}'))",
        None,
        mutations_sync="2",
    )
    assert lost.status == 200, lost.text
    assert aside.totals() == (0, 0, 0)
    assert (await aside.replay()).replayed == 2
    assert aside.totals() == (2, 2, 2)


async def test_records_whose_headers_nobody_could_read_count_when_one_can(aside: Aside) -> None:
    """Set aside by a version that did not know the headers; both brokers' ways of keeping them."""
    known = headers(project=aside.project)
    raws = [event.pack(known), msgspec.msgpack.encode(event.to_pairs(known))]
    await aside.add_records(
        [Record(10 + at, NOON, Unreadable(raw, "from the future"), window("a", 3)) for at, raw in enumerate(raws)]
    )
    job = Job(aside.config, Filter(reasons=("unreadable",)))
    await job.run()
    assert aside.totals() == (6, 2, 6)


async def test_a_row_is_counted_in_part_only_where_that_is_asked_for(aside: Aside) -> None:
    value = json.dumps(
        {
            "appName": "shop",
            "bucket": {
                "start": "2026-11-22T12:00:00Z",
                "stop": "2026-11-22T12:59:00Z",
                "toggles": {"good": {"yes": 4, "no": 0}, LONG: {"yes": 1, "no": 0}},
            },
        }
    ).encode()
    unreadable = Unreadable(event.pack(headers(project=aside.project)), "from the future")
    await aside.add_records([Record(10, NOON, unreadable, value)])
    wanted = Filter(reasons=("unreadable",))
    await Job(aside.config, wanted).run()
    assert aside.totals() == (0, 0, 0)
    done = await Job(aside.config, wanted, partial=True).run()
    assert done.given_up >= 1
    assert aside.totals() == (4, 0, 0)


@pytest.mark.parametrize("kind", Kind)
async def test_every_kind_of_payload_is_read_again(aside: Aside, fixed: Callable[[], None], kind: Kind) -> None:
    entry = {"featureName": LONG, "appName": "edge", "environment": "development", "timestamp": "2026-11-22T12:00:00Z"}
    values = {
        Kind.METRICS: window(LONG, 2),
        Kind.BULK: json.dumps({"applications": [], "metrics": [entry | {"yes": 2, "no": 1}]}).encode(),
        Kind.REGISTER: b"{}",
    }
    await aside.add((values[kind], {"kind": kind}))
    fixed()
    done = await aside.replay()
    assert (done.yes, aside.totals()[:2]) == ((0, (0, 0)) if kind is Kind.REGISTER else (2, (2, 1)))


async def test_thousands_of_rows_are_taken_in_parts(aside: Aside, fixed: Callable[[], None]) -> None:
    for _ in range(5):
        await aside.bad(500)
    fixed()
    assert (await aside.replay()).replayed == 2500
    assert aside.totals()[0] == 2500
    assert (await aside.replay()).before == 2500


def test_the_command_says_what_stays_by_its_exit_status(aside: Aside, fixed: Callable[[], None]) -> None:
    asyncio.run(aside.bad(2))
    environment = {"FLAGMETER_CLICKHOUSE_URL": aside.store.url}
    command = ["replay", "--project", aside.project, "--json"]
    stays = CliRunner().invoke(cli.main, command, env=environment)
    assert (stays.exit_code, json.loads(stays.stdout)["stays"]) == (1, {"name_too_long": 2})
    fixed()
    shown = CliRunner().invoke(cli.main, [*command[:-1], "--dry-run"], env=environment)
    assert "2 rejected rows would be replayed" in shown.output
    counted = CliRunner().invoke(cli.main, command, env=environment)
    assert (counted.exit_code, json.loads(counted.stdout)["replayed"]) == (0, 2)
    found = aside.store.service(f"SELECT count() FROM flagmeter.{REJECTED} WHERE project = '{aside.project}'", None)
    assert found.text.strip() == "2", "the rows stay where they are, for whoever asks what came"
