"""DevCycle's results: which statements are asked, and what is not there.

A project or feature that was never counted is not found; one that is known but quiet gives zeros. Counts of unique
users (`results/evaluations`) need SDKs that name real users; for all others they are the totals, as here.
"""

import asyncio
from typing import Final

from query_api import shape, sql
from query_api.parameters import Query
from query_api.store import Rows
from schemas.answers import FeatureEvaluations, ProjectEvaluations, Summary
from schemas.limits import MAX_NAME, RESERVED_PREFIX
from schemas.tables import Source

_BLOCKING: Final = 20_000
"""From so many rows on (about 30 ms) an answer is put together beside the event loop."""


class NotFoundError(Exception):
    """Nothing was ever counted under this key."""

    def __init__(self, key: str) -> None:
        super().__init__(key)
        self.key = key


async def feature_evaluations(store: Rows, project: str, feature: str, query: Query) -> FeatureEvaluations:
    """Answer a feature's evaluations by bucket.

    Raises:
        NotFoundError: the project or the feature was never counted.
        StoreAwayError: the store gave no answer.
        TooLargeError: too many buckets times keys.
    """
    _check_names(project, feature)
    rows = await store.rows(sql.feature_series(project, feature, query.filters, query.span))
    sources = {row.source for row in rows}
    if Source.UNLEASH not in sources:
        sources |= await _sources(store, project, feature)
    if len(rows) < _BLOCKING:
        return shape.feature_series(rows, query.span, sources, by_variation=query.by_variation)
    return await asyncio.to_thread(shape.feature_series, rows, query.span, sources, by_variation=query.by_variation)


async def project_evaluations(store: Rows, project: str, query: Query) -> ProjectEvaluations:
    """Answer a project's evaluations by bucket.

    Raises:
        NotFoundError: the project was never counted.
        StoreAwayError: the store gave no answer.
    """
    _check_names(project)
    rows = await store.rows(sql.project_series(project, query.filters, query.span))
    if not rows:
        await _check_project(store, project)
    return shape.project_series(rows, query.span)


async def summary(store: Rows, project: str, feature: str, query: Query) -> Summary:
    """Answer a feature's summary over the range.

    Raises:
        NotFoundError: the project or the feature was never counted.
        StoreAwayError: the store gave no answer.
        TooLargeError: too many variants.
    """
    _check_names(project, feature)
    # The feature first: counts only grow, so the total is never less than the feature's.
    rows = await store.rows(sql.feature_summary(project, feature, query.filters, query.span))
    if not rows:
        await _sources(store, project, feature)
    (total,) = await store.rows(sql.project_total(project, query.filters, query.span))
    return shape.summary(rows, total)


async def _sources(store: Rows, project: str, feature: str) -> set[str]:
    sources = {row.text for row in await store.rows(sql.sources(project, feature))}
    if not sources:
        await _check_project(store, project)
        raise NotFoundError(feature)
    return sources


async def _check_project(store: Rows, project: str) -> None:
    if not await store.rows(sql.project_seen(project)):
        raise NotFoundError(project)


def _check_names(*keys: str) -> None:
    """Refuse keys that nothing can be counted under; batch markers stand under a reserved project."""
    if keys[0].startswith(RESERVED_PREFIX):
        raise NotFoundError(keys[0])
    for key in keys:
        if len(key) > MAX_NAME or "\0" in key:
            raise NotFoundError(key[:MAX_NAME])
