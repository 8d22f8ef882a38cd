from types import SimpleNamespace
from typing import Any

import pytest
from aiokafka import TopicPartition

from aggregator.adapters import kafka_group
from aggregator.adapters.kafka import Assignment, KafkaLog
from aggregator.adapters.kafka_group import Fence, Offset
from aggregator.ports import BrokerAwayError, MembershipLostError
from schemas import declaration, kafka_admin
from schemas.kafka_topic import MissingTopicError
from schemas.limits import RULES


class Topic:
    """What the broker says of the topic, and what was committed for it."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.id = "old"
        self.committed: Offset | None = None
        self.missing = False
        monkeypatch.setattr(kafka_admin, "topic_id", self._topic_id)
        monkeypatch.setattr(kafka_group, "committed", self._committed)
        monkeypatch.setattr(kafka_group, "commit", self._commit)
        consumer: Any = SimpleNamespace(_client=None)
        self.assignment = Assignment(consumer, "group", Fence(1, "member"))
        self.log = KafkaLog(self.assignment, TopicPartition("topic", 0), "old")

    async def _topic_id(self, _client: object, _name: str) -> str:
        if self.missing:
            raise MissingTopicError("topic")
        return self.id

    async def _committed(self, *_: object) -> Offset | None:
        return self.committed

    async def _commit(self, _consumer: object, _group: str, _fence: Fence, _at: TopicPartition, offset: Offset) -> None:
        self.committed = offset


@pytest.fixture
def topic(monkeypatch: pytest.MonkeyPatch) -> Topic:
    return Topic(monkeypatch)


async def test_the_first_declaration_is_refused_when_the_topic_was_made_anew(topic: Topic) -> None:
    """Nothing was committed that could have gone with the old topic; what was read may be the new one's."""
    assert await topic.log.committed() is None
    topic.id = "new"
    with pytest.raises(MembershipLostError, match="made anew"):
        await topic.log.commit(0, declaration.write(5, RULES, 1))
    assert topic.committed is None
    assert topic.assignment.lost.is_set()


async def test_the_first_declaration_waits_for_a_topic_that_is_missing(topic: Topic) -> None:
    topic.missing = True
    with pytest.raises(BrokerAwayError):
        await topic.log.commit(0, declaration.write(5, RULES, 1))
    topic.missing = False
    await topic.log.commit(0, declaration.write(5, RULES, 1))
    assert topic.committed is not None
    assert not topic.assignment.lost.is_set()
