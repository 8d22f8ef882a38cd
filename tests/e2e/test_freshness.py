"""From the post to the first query that sees it (acceptance 7)."""

import statistics
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.support.stack import Stack

POSTS = 200
SDKS = 5


def seen_after(stack: Stack, at: int) -> float:
    """Post one window, and measure until the query API knows its flag."""
    flag = f"fresh-{at}"
    time.sleep(at % 10 / 20)  # spread over the flush interval
    bucket = {"start": "2026-11-22T10:00:00Z", "stop": "2026-11-22T10:59:00Z", "toggles": {flag: {"yes": 1}}}
    began = time.monotonic()
    assert stack.post("/api/client/metrics", {"appName": "fresh", "bucket": bucket}).status == 202
    path = f"/v1/projects/default/features/{flag}/results/summary"
    while stack.get(path, startDate="2026-11-22T00:00:00Z", endDate="2026-11-23T00:00:00Z").status != 200:
        assert time.monotonic() - began < 30
        time.sleep(0.02)
    return time.monotonic() - began


@pytest.mark.slow
def test_a_post_is_visible_within_two_seconds(stack: Stack) -> None:
    with ThreadPoolExecutor(SDKS) as sdks:
        seconds = list(sdks.map(lambda at: seen_after(stack, at), range(POSTS)))
    cuts = statistics.quantiles(seconds, n=20)
    p50, p95, worst = statistics.median(seconds), cuts[-1], max(seconds)
    print(f"\nfreshness over {POSTS} posts: p50 {p50:.3f} s, p95 {p95:.3f} s, max {worst:.3f} s")
    assert p95 <= 2.0
