"""The topic over a producer that is scripted: what is surely not taken, what is in doubt, and when it is made anew."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace

import pytest
import structlog
from prometheus_client import CollectorRegistry

from ingest_gateway.brokers.kafka import KafkaTopic, Pauses
from ingest_gateway.meters import Meters
from ingest_gateway.writer import InDoubt, NotTaken
from schemas import metric_names as names
from schemas.event import Event, Headers, Kind
from schemas.kafka_admin import KafkaAwayError
from schemas.kafka_topic import MissingTopicError
from tests.ingest_gateway.brokers.kafka_fakes import ScriptedCluster, ScriptedProducer, topic
from tests.ingest_gateway.support import SECONDS
from tests.support.waiting import until

HEADERS = Headers(
    kind=Kind.METRICS, route="/r", project="p", environment="e", token_id="t", received_ms=0, body_hash="h"
)
LONG = 60.0
QUICK = Pauses(
    look_every=0.01,
    again_after=0.01,
    stuck_after=LONG,
    answer_within=0.02,
    ask_again_after=0.001,
    end_within=0.5,
    first_backoff=0.001,
    longest_backoff=0.01,
)


class Following:
    """A topic that is followed, on a scripted Kafka."""

    def __init__(self, cluster: ScriptedCluster, pauses: Pauses) -> None:
        self.cluster = cluster
        self.registry = CollectorRegistry()
        self.topic = KafkaTopic(cluster, Meters(self.registry), pauses)
        self.found: list[int] = []
        self.task = asyncio.create_task(self.topic.follow(self.found.append))

    @property
    def producer(self) -> ScriptedProducer:
        return self.cluster.producers[-1]

    def append(self, partition: int, *values: bytes) -> "asyncio.Task[None]":
        events = [Event(b"key", HEADERS, value) for value in values or (b"x",)]
        return asyncio.create_task(self.topic.partition(partition).append(events))

    async def appended(self, partition: int, *values: bytes) -> Exception | None:
        return await outcome(self.append(partition, *values))

    async def probed(self, partition: int) -> Exception | None:
        return await outcome(asyncio.create_task(self.topic.partition(partition).probe()))

    @property
    def failures(self) -> float | None:
        return self.registry.get_sample_value(names.PRODUCERS_FAILED.name)


@asynccontextmanager
async def following(
    cluster: ScriptedCluster | None = None, pauses: Pauses = QUICK, *, ready: bool = True
) -> AsyncIterator[Following]:
    made = Following(cluster or ScriptedCluster(), pauses)
    if ready:
        await until(lambda: made.topic.trouble() is None)
    try:
        yield made
    finally:
        assert not made.task.done(), "nothing ends the only task that connects"
        made.task.cancel()
        await asyncio.wait({made.task})
        await made.topic.close()


async def outcome(task: "asyncio.Task[None]") -> Exception | None:
    try:
        async with asyncio.timeout(SECONDS):
            await task
    except (NotTaken, InDoubt) as error:
        return error
    return None


async def handed(producer: ScriptedProducer, count: int) -> None:
    await until(lambda: len(producer.open) == count)


# What is known of a group ---------------------------------------------------------------------------------------------


async def test_a_group_is_one_batch_of_its_partition() -> None:
    async with following() as found:
        assert await found.appended(1, b"a", b"b") is None
        assert await found.appended(0, b"c") is None
        assert found.producer.handed == [(1, [b"a", b"b"]), (0, [b"c"])]


async def test_until_kafka_was_reached_nothing_is_taken_and_the_reason_is_told() -> None:
    cluster = ScriptedCluster()
    cluster.look_fault = KafkaAwayError("b1:9092: connection refused")
    async with following(cluster, ready=False) as found:
        assert found.topic.trouble()
        await until(lambda: found.topic.trouble() == "b1:9092: connection refused")
        refused = await found.appended(0)
        assert isinstance(refused, NotTaken)
        assert str(refused) == "b1:9092: connection refused"
        assert found.found == []
        cluster.look_fault = None
        cluster.produce_fault = KafkaAwayError("lets no producer in")
        await until(lambda: found.topic.trouble() == "lets no producer in")
        cluster.produce_fault = None
        await until(lambda: found.topic.trouble() is None)
        assert await found.appended(0) is None


async def test_a_batch_that_was_not_handed_over_is_surely_not_taken() -> None:
    async with following() as found:
        first = found.producer
        first.send_fault = ValueError("no room")
        assert isinstance(await found.appended(0), NotTaken)
        await until(lambda: len(found.cluster.producers) == 2 and found.topic.trouble() is None)
        assert first.ended_within
        assert await found.appended(0, b"next") is None


async def test_a_group_that_fits_no_batch_is_not_taken_and_harms_nobody() -> None:
    async with following() as found:
        found.producer.fits = False
        assert isinstance(await found.appended(0), NotTaken)
        found.producer.fits = True
        assert await found.appended(0) is None
        assert found.failures == 0


async def test_a_batch_that_failed_is_in_doubt_and_never_sent_again() -> None:
    async with following() as found:
        first = found.producer
        first.answers = False
        lost = found.append(0, b"lost")
        await handed(first, 1)
        first.open[0].set_exception(RuntimeError("OutOfOrderSequenceNumber"))
        doubt = await outcome(lost)
        assert isinstance(doubt, InDoubt)
        assert "OutOfOrderSequenceNumber" in str(doubt)
        assert found.topic.trouble() is not None, "until it is made anew"
        await until(lambda: found.topic.trouble() is None)
        assert found.failures == 1
        assert await found.appended(0, b"next") is None
        assert [producer.handed for producer in found.cluster.producers] == [[(0, [b"lost"])], [(0, [b"next"])]]


async def test_what_others_have_in_flight_is_brought_to_its_end_before_the_producer_is_given_up() -> None:
    async with following() as found:
        first = found.producer
        first.answers, first.finishes = False, True
        lost, other = found.append(0), found.append(1)
        await handed(first, 2)
        first.open[0].set_exception(RuntimeError("refused"))
        assert isinstance(await outcome(lost), InDoubt)
        assert await outcome(other) is None
        assert first.ended_within == [QUICK.end_within]


async def test_what_does_not_end_in_time_is_in_doubt() -> None:
    async with following() as found:
        first = found.producer
        first.answers = False
        lost, other = found.append(0), found.append(1, b"other")
        await handed(first, 2)
        first.open[0].set_exception(RuntimeError("refused"))
        assert isinstance(await outcome(lost), InDoubt)
        assert isinstance(await outcome(other), InDoubt)
        await until(lambda: found.topic.trouble() is None)
        assert found.producer.handed == []


async def test_while_the_producer_is_made_anew_nothing_is_taken() -> None:
    async with following() as found:
        found.cluster.lets_in.clear()
        found.producer.send_fault = ValueError("closed")
        await found.appended(0)
        await until(lambda: found.cluster.producers[0].ended_within)
        for number in (0, 1):
            refused = await found.appended(number)
            assert isinstance(refused, NotTaken)
            assert "made anew: closed" in str(refused)
        found.cluster.lets_in.set()
        await until(lambda: found.topic.trouble() is None)
        assert await found.appended(1) is None


async def test_a_producer_that_failed_long_ago_tells_nothing_about_the_new_one() -> None:
    async with following() as found:
        first = found.producer
        first.answers = False
        one, two = found.append(0), found.append(1)
        await handed(first, 2)
        first.open[0].set_exception(RuntimeError("refused"))
        first.open[1].set_exception(RuntimeError("refused"))
        assert isinstance(await outcome(one), InDoubt)
        assert isinstance(await outcome(two), InDoubt)
        await until(lambda: found.topic.trouble() is None)
        assert len(found.cluster.producers) == 2
        assert found.failures == 1


async def test_producers_that_fail_one_after_another_are_made_ever_more_slowly() -> None:
    async with following(pauses=replace(QUICK, first_backoff=LONG, longest_backoff=LONG)) as found:
        for number in (1, 2):
            await until(lambda: found.topic.trouble() is None)
            assert len(found.cluster.producers) == number
            found.producer.send_fault = ValueError("not allowed")
            await found.appended(0)
        await until(lambda: found.producer.ended_within)
        for _ in range(100):
            await asyncio.sleep(0)
        assert len(found.cluster.producers) == 2, "the third waits"
        assert "not allowed" in str(found.topic.trouble())


async def test_a_producer_that_appended_something_is_made_anew_at_once() -> None:
    async with following(pauses=replace(QUICK, first_backoff=LONG, longest_backoff=LONG)) as found:
        for number in (1, 2, 3):
            await until(lambda: found.topic.trouble() is None)
            assert await found.appended(0) is None
            assert len(found.cluster.producers) == number
            found.producer.send_fault = ValueError("failed")
            await found.appended(0)


# Which brokers take events --------------------------------------------------------------------------------------------


async def test_a_partition_without_leader_is_not_taken_and_asked_for_while_others_go_on() -> None:
    async with following() as found:
        found.producer.leaders[0] = None
        before = found.producer.refreshed
        assert isinstance(await found.appended(0), NotTaken)
        assert isinstance(await found.probed(0), NotTaken)
        assert found.producer.refreshed == before + 2
        assert await found.appended(1) is None
        assert found.topic.trouble() is None
        found.producer.leaders[1] = None
        assert "has a leader" in str(found.topic.trouble())


async def test_a_broker_that_holds_a_batch_and_does_not_answer_gets_no_other_one() -> None:
    async with following(ScriptedCluster(3), replace(QUICK, stuck_after=0.02)) as found:
        producer = found.producer
        producer.leaders = {0: 1, 1: 1, 2: 2}
        producer.answers = False
        producer.answer.clear()
        stuck = found.append(0)
        await handed(producer, 1)
        producer.answers = True
        await until(lambda: bool(found.topic._silent(producer)))
        assert producer.asked == [1]
        refused = await found.appended(1)
        assert isinstance(refused, NotTaken)
        assert "broker 1" in str(refused)
        assert isinstance(await found.probed(1), NotTaken)
        assert await found.appended(2) is None
        assert found.topic.trouble() is None, "broker 2 takes events"
        producer.leaders[2] = 1
        assert found.topic.trouble() == "Kafka does not answer (broker 1)"
        producer.leaders[0] = 2  # the stuck batch goes to the new leader
        assert await found.appended(1) is None
        producer.leaders = {}
        producer.answer.set()
        producer.open[0].set_result(None)
        assert await outcome(stuck) is None
        assert await found.appended(1) is None
        assert found.failures == 0


async def test_a_broker_that_answers_takes_batches_for_others_while_it_holds_one() -> None:
    """As one does that has too few replicas in sync for one partition."""
    async with following(pauses=replace(QUICK, stuck_after=0.001)) as found:
        found.producer.answers = False
        stuck = found.append(0)
        await handed(found.producer, 1)
        found.producer.answers = True

        async def takes() -> bool:
            return await found.appended(1) is None

        for _ in range(10):
            await asyncio.sleep(0.005)
            await until(takes)
        await until(lambda: found.topic.trouble() is None)
        assert not stuck.done()
        found.producer.open[0].set_result(None)
        assert await outcome(stuck) is None


async def test_a_probe_asks_the_partitions_leader_and_appends_nothing() -> None:
    async with following() as found:
        found.producer.leaders = {0: 7, 1: 8}
        assert await found.probed(1) is None
        assert found.producer.asked == [8]
        assert found.producer.handed == []
        found.producer.ask_fault = ConnectionError("reset")
        refused = await found.probed(1)
        assert isinstance(refused, NotTaken)
        assert "broker 8: reset" in str(refused)


async def test_a_silent_broker_is_asked_once_and_not_again_and_again() -> None:
    async with following() as found:
        found.producer.answer.clear()
        for _ in range(3):
            refused = await found.probed(0)
            assert isinstance(refused, NotTaken)
            assert "does not answer" in str(refused)
        assert found.producer.asked == [1]
        found.producer.answer.set()
        await until(lambda: not found.topic._questions)
        assert await found.probed(0) is None


async def test_kafka_that_cannot_be_looked_at_stops_no_producer_that_works() -> None:
    async with following() as found:
        found.cluster.look_fault = KafkaAwayError("away")
        looks = found.cluster.looks
        await until(lambda: found.cluster.looks > looks + 2)
        assert found.topic.trouble() is None
        assert await found.appended(0) is None


async def test_kafka_that_is_away_is_seen_where_nobody_posts() -> None:
    async with following() as found:
        found.producer.ask_fault = ConnectionError("refused")
        found.cluster.look_fault = KafkaAwayError("b1:9092: connection refused")
        await until(lambda: found.topic.trouble() == "b1:9092: connection refused")
        assert await found.appended(0) is None, "it is tried all the same"
        await until(lambda: found.topic.trouble() == "b1:9092: connection refused")
        found.producer.ask_fault = found.cluster.look_fault = None
        await until(lambda: found.topic.trouble() is None)


# What the topic is like -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "settings",
    [
        {"max_message_bytes": "1048588"},
        {"message_timestamp_type": "CreateTime"},
        {"cleanup_policy": "compact"},
    ],
    ids=["small", "CreateTime", "compacted"],
)
async def test_an_unsafe_topic_is_refused_with_the_mending_command_until_it_is_mended(settings: dict[str, str]) -> None:
    async with following() as found:
        found.cluster.topic = topic(2, **settings)
        await until(lambda: found.topic.trouble() is not None)
        refused = await found.appended(0)
        assert isinstance(refused, NotTaken)
        (name,) = settings
        assert name.replace("_", ".") in str(refused)
        assert "flagmeter migrate --alter-topic" in str(refused)
        found.cluster.topic = topic(2)
        await until(lambda: found.topic.trouble() is None)
        assert await found.appended(0) is None
        assert len(found.cluster.producers) == 1


async def test_a_missing_topic_is_awaited() -> None:
    cluster = ScriptedCluster()
    cluster.look_fault = MissingTopicError("there is no topic x: run `flagmeter migrate`")
    async with following(cluster, ready=False) as found:
        await until(lambda: "flagmeter migrate" in str(found.topic.trouble()))
        cluster.look_fault = None
        await until(lambda: found.topic.trouble() is None)


async def test_advice_is_logged_once() -> None:
    cluster = ScriptedCluster()
    cluster.topic = topic(2, retention_bytes="1000")
    with structlog.testing.capture_logs() as lines:
        async with following(cluster) as found:
            await until(lambda: cluster.looks > 3)
            assert await found.appended(0) is None
    advice = [line for line in lines if "retention.bytes" in str(line.get("advice"))]
    assert len(advice) == 1


async def test_added_partitions_are_told() -> None:
    async with following() as found:
        found.cluster.topic = topic(5)
        before = found.producer.refreshed
        await until(lambda: found.found[-1] == 5)
        assert found.producer.refreshed == before + 1, "the producer's own metadata is older"


async def test_a_topic_that_was_made_anew_gets_a_producer_of_its_own() -> None:
    async with following() as found:
        assert await found.appended(0) is None
        found.cluster.topic = topic(2, identity="another")
        await until(lambda: len(found.cluster.producers) == 2 and found.topic.trouble() is None)
        assert found.cluster.producers[0].ended_within
        assert await found.appended(0) is None


async def test_a_fault_of_ours_ends_nothing() -> None:
    cluster = ScriptedCluster()
    cluster.look_fault = ZeroDivisionError()
    async with following(cluster, ready=False) as found:
        await until(lambda: "ZeroDivisionError" in str(found.topic.trouble()))
        cluster.look_fault = None
        await until(lambda: found.topic.trouble() is None)


async def test_closing_drops_what_is_stuck_and_it_is_in_doubt() -> None:
    async with following() as found:
        found.producer.answers = False
        stuck = found.append(0)
        await handed(found.producer, 1)
        await found.topic.close()
        assert found.producer.ended_within == [0]
        assert isinstance(await outcome(stuck), InDoubt)
        assert isinstance(await found.appended(1), NotTaken)
