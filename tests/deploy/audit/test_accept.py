"""What a person may decide about a stopped partition."""

import pytest

from aggregator.adapters.clock import SystemClock
from aggregator.adapters.visit import WorkersError
from deploy.audit.accept import NothingToAcceptError
from schemas import declaration
from schemas.limits import RULES
from schemas.markers import Range
from tests.deploy.audit.conftest import Asked, Counted


async def goes_on(counted: Counted, flag: str = "later") -> None:
    """Start a worker, and see that it counts what comes now."""
    async with counted.worker() as status:
        counted.append(flag)
        await counted.stored_up_to()
        assert status.reasons == []


async def test_a_pruned_log_goes_on_when_its_loss_is_accepted(counted: Counted) -> None:
    async with counted.worker():
        await counted.batch("a")
    for flag in ("b", "c", "d"):
        counted.append(flag)
    counted.prune(4)
    own = await counted.own()
    assert own.log is not None
    assert (own.exact, own.log.stopped, own.log.lost) == (False, "lost_by_log", Range(2, 3))

    asked = Asked(answer=False)
    assert not await counted.accept(asked)
    assert asked.sentences == [
        "2 positions are given up: positions 2-3 will never be counted",
        "workers go on at position 4",
    ]
    assert not (await counted.own()).exact, "nothing was confirmed"

    assert await counted.accept()
    offset, metadata = counted.committed()
    assert (offset, declaration.read(4, metadata or "").declared) == (4, None)
    with pytest.raises(NothingToAcceptError):
        await counted.accept()
    await goes_on(counted)
    own = await counted.own()
    assert (own.exact, own.markers.accepted.shown) == (True, [Range(2, 3)])
    assert counted.totals() == {"a": 1, "d": 1, "later": 1}


async def test_a_declared_batch_of_which_a_part_is_gone_loses_that_part_alone(counted: Counted) -> None:
    async with counted.worker():
        await counted.batch("a")
    for flag in ("b", "c", "d"):
        counted.append(flag)
    counted.commit(2, declaration.write(4, RULES, 10**12))
    counted.prune(3)
    assert await counted.accept()
    assert any("waiting" in line for line in counted.said)
    await goes_on(counted)
    assert (await counted.own()).exact
    assert counted.totals() == {"a": 1, "c": 1, "d": 1, "later": 1}


async def test_nothing_is_accepted_while_a_worker_holds_the_lease(
    counted: Counted, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("aggregator.adapters.visit._TAKE_SECONDS", 1.0)
    async with counted.worker():
        await counted.batch("a")
    counted.append("b")
    counted.append("c")
    counted.prune(3)
    before = counted.committed()
    async with counted.worker() as status:
        await counted.until(lambda: any("lost_by_log" in reason for reason in status.reasons))
        with pytest.raises(WorkersError, match="holds the lease"):
            await counted.accept()
    assert (counted.committed(), counted.marked()) == (before, [(1, 1)])


async def test_an_older_file_goes_on_beyond_what_the_store_has(counted: Counted) -> None:
    """The file was replaced by a backup: what it gives up is said, and what comes from now on counts."""
    async with counted.worker():
        await counted.batch("a", "b", "c", "d", "e")
    counted.connection.execute("DELETE FROM log WHERE id > 2")
    counted.connection.execute("UPDATE sqlite_sequence SET seq = 2")
    counted.commit(2, declaration.write(1, RULES, SystemClock().now_ms()))
    counted.append("x")
    async with counted.worker() as status:
        await counted.until(lambda: any("another_log" in reason for reason in status.reasons))
    own = await counted.own()
    assert own.log is not None
    assert own.log.stopped == "another_log"

    asked = Asked()
    assert await counted.accept(asked)
    assert asked.sentences == [
        (
            "3 positions are given up: positions 1-3 of this log will never be counted, since the store holds records "
            "of another log under these numbers"
        ),
        "the log gives no position below 6 any more",
        "workers go on at position 6",
    ]
    await goes_on(counted)
    assert counted.totals() == {"a": 1, "b": 1, "c": 1, "d": 1, "e": 1, "later": 1}
    assert (await counted.own()).exact


async def test_an_older_file_that_outgrew_the_store_goes_on_there(counted: Counted) -> None:
    async with counted.worker():
        await counted.batch("a", "b")
    counted.connection.execute("DELETE FROM log")
    counted.connection.execute("UPDATE sqlite_sequence SET seq = 0")
    for flag in ("x", "y", "z"):
        counted.append(flag)
    counted.commit(1, declaration.write(0, RULES, SystemClock().now_ms(), stop="another_log"))
    assert await counted.accept()
    await goes_on(counted)
    assert counted.totals() == {"a": 1, "b": 1, "later": 1, "z": 1}


@pytest.mark.parametrize("count_again", [False, True])
async def test_a_batch_that_was_declared_too_long_ago_is_counted_or_given_up(
    counted: Counted, *, count_again: bool
) -> None:
    async with counted.worker():
        await counted.batch("a")
    counted.append("b")
    counted.append("c")
    counted.commit(2, declaration.write(3, RULES, 10**12))
    own = await counted.own()
    assert own.log is not None
    assert own.log.stopped == "declared_too_long_ago"
    asked = Asked()
    assert await counted.accept(asked, count_again=count_again)
    assert asked.sentences[0].startswith("2 positions are to be counted" if count_again else "2 positions are given up")
    await goes_on(counted)
    wanted = {"a": 1, "later": 1} | ({"b": 1, "c": 1} if count_again else {})
    assert counted.totals() == wanted
    assert (await counted.own()).exact


async def test_counting_again_is_for_old_batches_alone(counted: Counted) -> None:
    async with counted.worker():
        await counted.batch("a")
    with pytest.raises(NothingToAcceptError, match="not stopped"):
        await counted.accept(count_again=True)


async def test_a_partition_of_another_topic_is_refused(counted: Counted) -> None:
    with pytest.raises(NothingToAcceptError, match=f"give {counted.topic_id}/0"):
        await counted.auditor.accept("other/0", count_again=False, confirm=lambda _: True, say=counted.said.append)
