"""Inserts into the home table that no log's batch gives: counts of replayed rows, and markers."""

from collections.abc import Mapping, Sequence

from aggregator.ports import Block
from schemas.limits import COUNT_MODULUS
from schemas.markers import HOME
from schemas.tables import EVALUATION_COLUMNS, EvaluationKey

Counts = Mapping[EvaluationKey, Sequence[int]]
"""Yes, no and count by key."""


def home_block(counts: Counts, markers: Sequence[EvaluationKey], received: int) -> Block:
    """Build one insert.

    Args:
        counts: what is counted.
        markers: stored with it, each once; at least one.
        received: of all rows, in days since the epoch.
    """
    columns = dict(zip(EvaluationKey._fields, zip(*counts, *markers, strict=True), strict=True))
    sums = [*counts.values(), *([(0, 0, 1)] * len(markers))]
    for at, name in enumerate(("yes", "no", "count")):
        columns[name] = tuple(each[at] % COUNT_MODULUS for each in sums)
    columns["received"] = (received,) * len(sums)
    return Block(HOME, {name: columns[name] for name in EVALUATION_COLUMNS})
