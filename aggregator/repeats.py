"""What SDKs send twice: for each record in the order of the log, what of it counts (EXACTLY_ONCE.md, 4).

Pure: no I/O, no clock. The state must be the same whether it was carried on or rebuilt by reading back fifteen minutes
of log time, or a range that is read again would give other rows. Three rules see to that:

- Every record leaves the same mark, whatever was decided about it.
- Whether a mark is still there depends on it and on what came after it alone: the oldest go first, always.
- A mark counts while log time has moved by less than fifteen minutes since, and the log by less than so many records.

So two states that saw all of that decide alike, wherever they began before.
"""

from collections import deque
from enum import StrEnum
from typing import Final, NamedTuple

from aggregator import supersets
from aggregator.ports import Record
from schemas.event import Headers, Kind, Unreadable
from schemas.limits import (
    REPEAT_BULK_MS,
    REPEAT_BYTES,
    REPEAT_RECORDS,
    REPEAT_WINDOW_BYTES,
    REPEAT_WINDOW_MS,
    REPEAT_WINDOWS,
)
from schemas.payloads import ClientMetrics


class By(StrEnum):
    """How a repeat was recognised; the metric's label."""

    KEY = "key"
    BYTES = "bytes"
    SUPERSET = "superset"


class Repeat(NamedTuple):
    """A record of which not all counts: only what `adds` holds, or nothing."""

    by: By
    adds: ClientMetrics | None


class _Rule(NamedTuple):
    """How repeats of one kind of payload are recognised, besides by their Idempotency-Key.

    Attributes:
        bytes_ms: equal bytes of one token, route and connection are a repeat for so long; 0 where they never are.
        unconnected: bytes are compared without a connection, too.
        supersets: windows of some SDKs grow when they are sent again.
    """

    bytes_ms: int
    unconnected: bool = False
    supersets: bool = False


_RULES: Final[dict[Kind, _Rule]] = {
    Kind.METRICS: _Rule(REPEAT_WINDOW_MS, supersets=True),
    Kind.BULK: _Rule(REPEAT_BULK_MS, unconnected=True),
    Kind.REGISTER: _Rule(0),  # it counts nothing
}

_Id = tuple[str, str, str]
"""Route, token id and connection."""
_Key = tuple[str, str]
"""Token id and Idempotency-Key."""


class _Connection:
    """What is remembered of one connection: its posts by their bytes, and those whose windows are held, in order."""

    __slots__ = ("id", "posts", "windows")

    def __init__(self, id_: _Id) -> None:
        self.id = id_
        self.posts: dict[str, _Post] = {}
        self.windows: list[_Post] = []


class _Post:
    """The mark that a record leaves; `window` is its value while that is held for comparison, else empty."""

    __slots__ = ("body_hash", "connection", "key", "log_time", "offset", "start", "window")

    def __init__(self, offset: int, log_time: int, body_hash: str) -> None:
        self.offset = offset
        self.log_time = log_time
        self.body_hash = body_hash
        self.connection: _Connection | None = None
        self.key: _Key | None = None
        self.start = 0
        self.window = b""


class Repeats:
    """The retry state of one partition.

    Args:
        log_time: the largest append time (ms) of all records before the first one that this state is to judge.
    """

    def __init__(self, log_time: int = -1) -> None:
        self._log_time = log_time
        """The largest append time so far, in milliseconds: a broker's times may fall, log time never does."""
        self._posts: deque[_Post] = deque()
        self._connections: dict[_Id, _Connection] = {}
        self._keys: dict[_Key, _Post] = {}
        self._windows: deque[_Post] = deque()
        self._window_bytes = 0

    @property
    def connections(self) -> int:
        """How many connections something is remembered of."""
        return len(self._connections)

    def judge(self, record: Record) -> Repeat | None:
        """Take the log's next record; say what of it counts, None where all does."""
        now = self._log_time = max(self._log_time, record.log_time)
        horizon = record.offset - REPEAT_RECORDS
        posts = self._posts
        while posts and (now - posts[0].log_time >= REPEAT_WINDOW_MS or posts[0].offset <= horizon):
            self._forget(posts.popleft())
        headers = record.headers
        if isinstance(headers, Unreadable):
            return None
        rule = _RULES[headers.kind]
        compared = rule.bytes_ms > 0 and (rule.unconnected or headers.connection != "")
        if not (compared or headers.idempotency_key):
            return None
        post = _Post(record.offset, now, headers.body_hash)
        repeat = self._by_connection(post, headers, record.value, rule) if compared else None
        if headers.idempotency_key:
            repeat = self._by_key(post, (headers.token_id, headers.idempotency_key)) or repeat
        posts.append(post)
        return repeat

    def _by_key(self, post: _Post, key: _Key) -> Repeat | None:
        known = key in self._keys
        post.key = key
        self._keys[key] = post
        return Repeat(By.KEY, None) if known else None

    def _by_connection(self, post: _Post, headers: Headers, value: bytes, rule: _Rule) -> Repeat | None:
        id_ = (headers.route, headers.token_id, headers.connection)
        connection = self._connections.get(id_)
        if connection is None:
            connection = self._connections[id_] = _Connection(id_)
        post.connection = connection
        twin = connection.posts.get(headers.body_hash)
        connection.posts[headers.body_hash] = post
        repeat = None
        if rule.supersets and headers.start is not None and (how := supersets.merges(headers.sdk)) is not None:
            post.start = headers.start
            repeat = self._by_start(post, connection, value, how)
        if twin is not None and post.log_time - twin.log_time < rule.bytes_ms:
            return Repeat(By.BYTES, None)
        return repeat

    def _by_start(self, post: _Post, connection: _Connection, value: bytes, how: supersets.Merges) -> Repeat | None:
        earlier = [each for each in connection.windows if each.start == post.start]
        holds = len(value) <= REPEAT_WINDOW_BYTES
        repeat = None
        if earlier:
            addition = supersets.added(value, [each.window for each in earlier], how)
            if addition.payload is not None:
                repeat = Repeat(By.SUPERSET, addition.payload)
            for each, covered in zip(earlier, addition.covers, strict=True):
                if covered and holds:
                    self._let_go(each)
        if holds:
            self._hold(post, connection, value)
        return repeat

    def _hold(self, post: _Post, connection: _Connection, value: bytes) -> None:
        if len(connection.windows) >= REPEAT_WINDOWS:
            self._let_go(connection.windows[0])
        connection.windows.append(post)
        post.window = value
        self._windows.append(post)
        self._window_bytes += len(value)
        while self._window_bytes > REPEAT_BYTES:
            self._let_go(self._windows[0])

    def _let_go(self, post: _Post) -> None:
        """Drop a post's window, if it is still held."""
        connection = post.connection
        if connection is not None and post.window:
            connection.windows.remove(post)
            self._window_bytes -= len(post.window)
            post.window = b""
            windows = self._windows
            while windows and not windows[0].window:
                windows.popleft()

    def _forget(self, post: _Post) -> None:
        """Take the oldest post's marks away, where no later post renewed them."""
        connection = post.connection
        if connection is not None:
            if connection.posts.get(post.body_hash) is post:
                del connection.posts[post.body_hash]
            self._let_go(post)
            if not connection.posts:
                del self._connections[connection.id]
        if post.key is not None and self._keys.get(post.key) is post:
            del self._keys[post.key]
