"""What the topic must be like for the promise to hold, as one pure check (EXACTLY_ONCE.md, 3)."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from schemas.kafka import MAX_MESSAGE_BYTES
from schemas.limits import MARKER_DAYS

_DAY_MS: Final = 86_400_000
RETENTION_MS: Final = 7 * _DAY_MS
LONGEST_RETENTION_MS: Final = (MARKER_DAYS - 1) * _DAY_MS
"""A marker must outlive the record that it speaks of."""

MEND: Final = "flagmeter migrate --alter-topic"
"""The command that sets what is unsafe."""

SETTINGS: Final[Mapping[str, str]] = {
    "max.message.bytes": str(MAX_MESSAGE_BYTES),
    "message.timestamp.type": "LogAppendTime",
    "cleanup.policy": "delete",
    "retention.ms": str(RETENTION_MS),
}
"""What `flagmeter migrate` makes a topic with, beside partitions and replication."""


@dataclass(frozen=True, slots=True)
class Topic:
    """A topic as it is found.

    Attributes:
        name: of the topic.
        id: Kafka's own, a UUID; a topic that is made anew has another.
        partitions: how many.
        replication: copies of the partition that has the fewest.
        settings: Kafka's names and values; empty where we may not read them.
    """

    name: str
    id: str
    partitions: int
    replication: int
    settings: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Fault:
    """A setting that does not fit.

    Attributes:
        setting: Kafka's name.
        found: its value.
        wanted: a value that fits.
        why: what happens otherwise.
        unsafe: True where the promise would not hold; else it is advice.
    """

    setting: str
    found: str
    wanted: str
    why: str
    unsafe: bool = True

    def __str__(self) -> str:
        """Write it for people."""
        return f"{self.setting} is {self.found}, must be {self.wanted}: {self.why}"


class UnsafeTopicError(Exception):
    """The topic is missing, or would not keep the promise; says what mends it."""


class MissingTopicError(UnsafeTopicError):
    """There is no such topic."""


def faults(topic: Topic) -> list[Fault]:
    """Check a topic; gives what does not fit, the unsafe ones first."""
    settings = topic.settings
    found: list[Fault] = []
    size = int(settings.get("max.message.bytes", 0))
    if size < MAX_MESSAGE_BYTES:
        why = "the broker would refuse a large post after it was taken, and the producer fails with it"
        found.append(Fault("max.message.bytes", str(size), SETTINGS["max.message.bytes"], why))
    kind = settings.get("message.timestamp.type", "")
    if kind != "LogAppendTime":
        why = "repeated posts are told by the broker's time, which senders must not set"
        found.append(Fault("message.timestamp.type", kind, "LogAppendTime", why))
    policy = settings.get("cleanup.policy", "")
    if policy != "delete":
        found.append(Fault("cleanup.policy", policy, "delete", "compaction drops posts that were not counted yet"))
    found += _retention(settings)
    found += _copies(topic)
    return sorted(found, key=lambda fault: not fault.unsafe)


def _retention(settings: Mapping[str, str]) -> list[Fault]:
    found: list[Fault] = []
    kept = int(settings.get("retention.ms", -1))
    if not 0 <= kept <= LONGEST_RETENTION_MS:
        why = f"markers are kept for {MARKER_DAYS} days, and must outlive the records that they speak of"
        found.append(Fault("retention.ms", str(kept), SETTINGS["retention.ms"], why))
    elif kept < _DAY_MS:
        why = "posts that wait longer than that for the store are lost"
        found.append(Fault("retention.ms", str(kept), SETTINGS["retention.ms"], why, unsafe=False))
    size = int(settings.get("retention.bytes", -1))
    if size != -1:
        why = "posts may be dropped by size before they are counted"
        found.append(Fault("retention.bytes", str(size), "-1", why, unsafe=False))
    return found


def _copies(topic: Topic) -> list[Fault]:
    found: list[Fault] = []
    in_sync = int(topic.settings.get("min.insync.replicas", 1))
    wanted = min(2, topic.replication)
    if topic.replication > 1 and topic.settings.get("unclean.leader.election.enable", "false") != "false":
        why = "a broker that missed acknowledged posts may take over"
        found.append(Fault("unclean.leader.election.enable", "true", "false", why))
    if in_sync > topic.replication:
        why = "there are fewer copies than that, so the broker refuses every post"
        found.append(Fault("min.insync.replicas", str(in_sync), str(wanted), why))
    elif in_sync < wanted:
        why = "a 2xx would rest on one broker alone"
        found.append(Fault("min.insync.replicas", str(in_sync), str(wanted), why, unsafe=False))
    return found


def refuse_unsafe(topic: Topic) -> list[Fault]:
    """Refuse a topic that would not keep the promise; gives the advice that is left.

    Raises:
        UnsafeTopicError: names every unsafe setting, and the command that mends them.
    """
    found = faults(topic)
    unsafe = [fault for fault in found if fault.unsafe]
    if unsafe:
        listed = "; ".join(str(fault) for fault in unsafe)
        raise UnsafeTopicError(f"the topic {topic.name} is unsafe: {listed}. `{MEND}` sets it")
    return found
