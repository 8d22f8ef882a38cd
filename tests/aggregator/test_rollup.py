import pytest

from aggregator.ports import Record
from aggregator.repeats import Repeats
from aggregator.rollup import Rollup, UnknownRulesError
from schemas.limits import MAX_COUNT, RULES
from schemas.markers import Range
from schemas.tables import EVALUATION_COLUMNS, EVALUATIONS, REJECTED, REJECTED_COLUMNS
from tests.aggregator.fakes import DAY_MS, headers, window


def rolled(*values: bytes, log_time: int = 20_000 * DAY_MS) -> Rollup:
    rollup = Rollup(Repeats())
    for at, value in enumerate(values):
        rollup.add("topic", 0, Record(at, log_time + at, headers(), value))
    return rollup


def test_rows_of_the_same_key_are_summed() -> None:
    (home,) = rolled(window("a", 1), window("a", 2), window("b", 4)).blocks("topic", 0, Range(0, 2))
    found = {
        (feature, variant): (yes, no, count)
        for feature, variant, yes, no, count in zip(
            *(home.columns[name] for name in ("feature", "variant", "yes", "no", "count")), strict=True
        )
    }
    assert found[("a", "")] == (3, 2, 0)
    assert found[("a", "blue")] == (0, 0, 3)
    assert found[("b", "")] == (4, 1, 0)


def test_columns_stand_in_the_order_of_the_table() -> None:
    rejected, home = rolled(b"x").blocks("topic", 0, Range(0, 0))
    assert (home.table, list(home.columns)) == (EVALUATIONS, list(EVALUATION_COLUMNS))
    assert (rejected.table, list(rejected.columns)) == (REJECTED, list(REJECTED_COLUMNS))


def test_a_batch_without_rows_still_has_its_marker() -> None:
    (home,) = rolled().blocks("topic", 7, Range(5, 9))
    assert home.rows == 1
    assert home.columns["feature"] == ("7",)
    assert home.columns["variable"] == ("00000000000000000005",)
    assert home.columns["variant"] == ("00000000000000000009",)
    assert home.columns["count"] == (1,)


def test_all_rows_are_received_on_the_day_of_the_first_record() -> None:
    end_of_day = 20_001 * DAY_MS - 1
    (home,) = rolled(window("a", 1), window("b", 1), log_time=end_of_day).blocks("topic", 0, Range(0, 1))
    assert set(home.columns["received"]) == {20_000}


def test_sums_wrap_as_the_store_does() -> None:
    largest = window("a", MAX_COUNT)
    (home,) = rolled(*[largest] * 2049).blocks("topic", 0, Range(0, 2048))
    at = home.columns["variant"].index("")
    assert home.columns["yes"][at] == (2049 * MAX_COUNT) % 2**64


def test_unknown_rules_are_refused_before_anything_is_read() -> None:
    with pytest.raises(UnknownRulesError, match=f"rules {RULES + 1}"):
        Rollup(Repeats(), RULES + 1)


def test_what_is_set_aside_counts_towards_the_batchs_size() -> None:
    """Bad names of 4 kB become rows of 300 kB: a thousand such posts must not be one insert."""
    long = "\U0001f600" * 255
    toggles = ",".join(f'"\\u0000{at:x}":{{"yes":1}}' for at in range(100))
    body = (
        f'{{"appName":"{long}","platformName":"{long}","bucket":{{"start":0,"stop":1,"toggles":{{{toggles}}}}}}}'
    ).encode()
    rollup = rolled(body)
    assert len(rollup.rejected) == 100
    assert rollup.bytes > 100 * 2 * 255
    assert rollup.bytes > sum(len(row.payload) for row in rollup.rejected)
