"""Replaying rejected rows: each counts once, whoever replays it, with whatever filter, and whenever it dies.

The rows of a unit are replayed by inserts that are numbered one after another. An insert holds the counts of some rows
and a marker for each of them, in one part: both are there or neither. Its token is the unit's next number, so of two
that run at once and read the same state only one stores anything; the other one sees the new markers, leaves out what
they name, and takes the number after. A row is never counted under a number that was taken before its marker was read.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final

from aggregator.adapters.clickhouse import ClickHouseStore
from aggregator.ports import StoreError
from deploy.home_block import home_block
from deploy.replay.pieces import Verdict, judge
from deploy.replay.source import Filter, Source, Unit
from schemas.insert import MAX_ROWS
from schemas.tables import EvaluationKey, RejectedRow

Judged = list[tuple[RejectedRow, Verdict]]

_MOST_ATTEMPTS: Final = 3
_PASSING_TRIES: Final = 5
SHOWN: Final = 1000
"""So many keys are listed of what was counted."""


@dataclass(slots=True)
class Done:
    """What a replay did, or would do.

    Attributes:
        replayed: rows that were counted, or hold nothing to count.
        before: rows that were replayed before.
        stays: rows that still cannot be stored, by the reasons of what is wrong with them.
        given_up: rows among the replayed of which only a part was counted.
        yes: counted.
        no: counted.
        count: counted, of variants.
        keys: yes, no and count by project, environment, feature, variant and hour; the first 1000.
    """

    replayed: int = 0
    before: int = 0
    stays: dict[str, int] = field(default_factory=dict)
    given_up: int = 0
    yes: int = 0
    no: int = 0
    count: int = 0
    keys: dict[EvaluationKey, list[int]] = field(default_factory=dict)

    def add(self, batch: Judged) -> None:
        """Take note of rows that are counted."""
        for _, verdict in batch:
            self.replayed += 1
            self.given_up += bool(verdict.stays)
            for key, sums in verdict.counts.items():
                self.yes, self.no, self.count = (
                    total + number for total, number in zip((self.yes, self.no, self.count), sums, strict=True)
                )
                if key in self.keys or len(self.keys) < SHOWN:
                    known = self.keys.setdefault(key, [0, 0, 0])
                    known[:] = [total + number for total, number in zip(known, sums, strict=True)]

    def leave(self, reasons: Sequence[str]) -> None:
        """Take note of a row that stays."""
        told = ", ".join(sorted(reasons))
        self.stays[told] = self.stays.get(told, 0) + 1


class Replayer:
    """Puts rejected rows back.

    Args:
        source: reads.
        store: inserts.
        partial: also rows of which only a part can be counted; the rest of such a row is given up.
        dry_run: only say what would be done.
        limit: of rows that are replayed; None: all.
        say: gets a line for each insert.
    """

    def __init__(
        self,
        source: Source,
        store: ClickHouseStore,
        *,
        partial: bool = False,
        dry_run: bool = False,
        limit: int | None = None,
        say: Callable[[str], None] = lambda _: None,
    ) -> None:
        self._source = source
        self._store = store
        self._partial = partial
        self._dry_run = dry_run
        self._limit = limit
        self._say = say

    async def run(self, wanted: Filter) -> Done:
        """Replay what the filter names.

        Raises:
            StoreError: the store refuses or does not answer; what was replayed stays so, run it again.
        """
        done = Done()
        for unit, rows in self._source.chunks(wanted):
            if self._limit is not None and done.replayed >= self._limit:
                break
            await self._chunk(unit, rows, done)
        return done

    async def _chunk(self, unit: Unit, rows: list[RejectedRow], done: Done) -> None:
        number, replayed = self._source.progress(unit, rows)
        judged: Judged = []
        for row in rows:
            if (row.offset, row.row) in replayed:
                done.before += 1
                continue
            verdict = judge(row)
            if verdict.stays and not (self._partial and verdict.counts):
                done.leave(verdict.stays)
            else:
                judged.append((row, verdict))
        while batch := self._first(judged, done):
            if self._dry_run or await self._insert(unit, number, batch):
                done.add(batch)
                judged = judged[len(batch) :]
                if not self._dry_run:
                    self._say(f"{unit.name}: {len(batch):,} rows are counted")
            if judged:
                number, replayed = self._source.progress(unit, [row for row, _ in judged])
                left = [each for each in judged if (each[0].offset, each[0].row) not in replayed]
                done.before += len(judged) - len(left)
                judged = left

    def _first(self, judged: Judged, done: Done) -> Judged:
        """Take as many rows as one insert may hold, and as are allowed."""
        allowed = len(judged) if self._limit is None else max(0, self._limit - done.replayed)
        size = 0
        for at, (_, verdict) in enumerate(judged[:allowed]):
            size += len(verdict.counts) + 1
            if size >= MAX_ROWS:
                return judged[: at + 1]
        return judged[:allowed]

    async def _insert(self, unit: Unit, number: int, batch: Judged) -> bool:
        """Store a batch under the unit's next number; False where another replay took it for something else."""
        counts: dict[EvaluationKey, list[int]] = {}
        for _, verdict in batch:
            for key, sums in verdict.counts.items():
                known = counts.setdefault(key, [0, 0, 0])
                known[:] = [total + more for total, more in zip(known, sums, strict=True)]
        block = home_block(counts, [unit.marker(row, number) for row, _ in batch], unit.day)
        rows = [row for row, _ in batch]
        mine = {(row.offset, row.row) for row in rows}
        attempt = failures = 0
        while True:
            try:
                await self._store.insert(block, unit.token(number, attempt))
                answered = True
            except StoreError as error:
                failures += 1
                if not error.passing or failures >= _PASSING_TRIES:
                    raise
                answered = False
            progress = self._source.progress(unit, rows)
            if progress.number > number:
                return mine <= progress.replayed
            if answered:
                # The token is known and its part is not there: lost, or so old that its markers are gone.
                attempt += 1
                if attempt > _MOST_ATTEMPTS:
                    raise StoreError(
                        "inserts succeed and their markers cannot be read: does the URL lead to one server for both?",
                        passing=False,
                    )
