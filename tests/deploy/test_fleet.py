import itertools
from datetime import UTC, datetime

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deploy.fleet import BULK_ROUTE, METRICS_ROUTE, Counts, Fleet, Key, Ledger
from schemas import decode, event, rows
from schemas.event import Headers, Kind
from schemas.rows import Counted

END = int(datetime(2026, 11, 22, 5, tzinfo=UTC).timestamp())
FLEET = Fleet(seed=7, end_hour=END, bulk_share=0.3)

fleets = st.builds(
    Fleet,
    seed=st.integers(0, 10**6),
    end_hour=st.integers(-600_000, 2_800_000).map(lambda hour: hour * 3600),
    apps=st.integers(1, 6),
    instances=st.integers(1, 50),
    flags=st.integers(1, 60),
    variants=st.integers(0, 5),
    hours=st.integers(1, 100),
    bulk_share=st.sampled_from([0.0, 0.5, 1.0]),
)


def stored(payload) -> dict[Key, Counts]:
    """What the aggregator's own rules make of a payload."""
    headers = Headers(
        kind=Kind.BULK if payload.route == BULK_ROUTE else Kind.METRICS,
        route=payload.route,
        project="default",
        environment="development",
        token_id="0" * 16,
        received_ms=0,
        body_hash=event.body_hash(payload.body),
    )
    found: dict[Key, Counts] = {}
    for outcome in rows.of_record(headers, payload.body):
        assert isinstance(outcome, Counted), outcome
        key = Key(outcome.key.feature, outcome.key.variant, outcome.key.hour, outcome.key.app_name)
        assert key not in found
        found[key] = Counts(outcome.yes, outcome.no, outcome.other)
    return found


@given(fleets, st.integers(0, 10_000))
def test_the_ledger_says_what_the_aggregators_rules_give(fleet, number):
    payload = fleet.payload(number)
    assert stored(payload) == payload.counts


@given(fleets, st.integers(0, 10_000))
def test_the_same_fleet_gives_the_same_bytes(fleet, number):
    assert fleet.payload(number) == fleet.payload(number)


@given(fleets, st.integers(0, 10_000))
def test_every_hour_lies_in_the_span(fleet, number):
    for key in fleet.payload(number).counts:
        assert fleet.end_hour - 3600 * (fleet.hours - 1) <= key.hour <= fleet.end_hour


@settings(max_examples=10, deadline=None)
@given(fleets)
def test_no_two_payloads_are_equal_and_no_connection_repeats_a_start(fleet):
    payloads = [fleet.payload(number) for number in range(300)]
    assert len({payload.body for payload in payloads}) == 300
    starts = []
    for payload in payloads:
        if payload.route == METRICS_ROUTE:
            window = decode.metrics(payload.body)
            starts.append((window.connection_id, window.bucket.start))
    assert len(set(starts)) == len(starts)


def test_a_run_has_every_app_flag_and_variant_and_both_routes():
    payloads = [FLEET.payload(number) for number in range(2000)]
    keys = {key for payload in payloads for key in payload.counts}
    assert len({key.app for key in keys}) == 4
    assert len({key.flag for key in keys}) == 20
    assert {key.variant for key in keys} == {"", "variant-1", "variant-2", "variant-3"}
    assert len({key.hour for key in keys}) == 24
    shares = [payload.route == BULK_ROUTE for payload in payloads]
    assert 0.25 < sum(shares) / len(shares) < 0.35


def test_some_windows_end_with_their_hour():
    stops = [
        decode.metrics(payload.body).bucket.stop
        for payload in map(FLEET.payload, range(300))
        if payload.route == METRICS_ROUTE
    ]
    assert any(str(stop).endswith(":00:00.000Z") for stop in stops)


def test_another_seed_gives_other_payloads_and_other_apps():
    other = Fleet(seed=8, end_hour=END)
    assert not {key.app for key in FLEET.payload(0).counts} & {key.app for key in other.payload(0).counts}


def test_a_ledger_adds_up_by_key_and_by_flag():
    payloads = [FLEET.payload(number) for number in range(500)]
    ledger = Ledger.of(payloads)
    every = list(itertools.chain.from_iterable(payload.counts.items() for payload in payloads))
    one = max(ledger.totals, key=lambda key: ledger.totals[key].yes)
    assert ledger.totals[one].yes == sum(counts.yes for key, counts in every if key == one)
    by_flag = ledger.by_flag()
    assert list(by_flag) == sorted(by_flag)
    for at in range(3):
        assert sum(counts[at] for counts in by_flag.values()) == sum(counts[at] for _, counts in every)


def test_the_rows_of_a_ledger_are_written_for_people():
    ledger = Ledger(
        {Key("flag-1", "", END, "app"): Counts(1, 2, 0), Key("flag-1", "blue", END, "app"): Counts(0, 0, 3)}
    )
    assert ledger.rows() == [
        ("flag-1", "", "2026-11-22T05:00:00.000Z", "app", 1, 2, 0),
        ("flag-1", "blue", "2026-11-22T05:00:00.000Z", "app", 0, 0, 3),
    ]


@pytest.mark.parametrize(
    ("number", "pinned"),
    list(
        enumerate(
            ["993d1ac1afdb8fadcc4ab3d723beec71", "03a5ce9f7f3b3c155d0e0a700385916f", "1431396698c58a7f36aa3f2d2e65de72"]
        )
    ),
)
def test_a_seed_gives_the_same_payloads_in_every_version(number, pinned):
    """Totals that were kept from an old run stay true only as long as this holds."""
    assert event.body_hash(FLEET.payload(number).body) == pinned
