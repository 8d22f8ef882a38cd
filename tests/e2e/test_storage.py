"""Every recorded payload is stored as expected, through the whole stack (acceptance 2, the storage half)."""

import json
from pathlib import Path

from tests.support.stack import Stack
from tests.support.waiting import wait_for

ROWS = [
    json.loads(line)
    for line in (Path(__file__).parent.parent / "conformance" / "unleash" / "storage.jsonl").read_text().splitlines()
]


def test_all_recorded_rows_are_stored_as_expected(stack: Stack) -> None:
    assert len(ROWS) == 21
    for at, row in enumerate(ROWS):
        # The recording reuses app names; one more letter keeps the rows apart.
        body = row["body"] | {"appName": f"{row['body']['appName']}#{at}"}
        assert row["token"] == "$BACKEND_DEV"
        assert stack.post("/api/client/metrics", body).status == row["status"]
    expected = set()
    for at, row in enumerate(ROWS):
        for counted in row["expected"]:
            key = (f"{row['body']['appName']}#{at}", counted["feature"], counted["environment"], counted["hour"])
            if counted["yes"] or counted["no"]:
                expected.add((*key, "", counted["yes"], counted["no"], 0))
            expected |= {(*key, name, 0, 0, times) for name, times in counted["variants"].items() if times}

    def stored() -> set[tuple[object, ...]]:
        found = stack.sql(
            "SELECT app_name, feature, environment, formatDateTime(hour, '%Y-%m-%dT%H:%i:%SZ'), variant, "
            "toString(sum(yes)), toString(sum(no)), toString(sum(count)) FROM evaluations_hourly "
            "WHERE project = 'default' GROUP BY 1, 2, 3, 4, 5"
        )
        return {(*row[:5], *(int(number) for number in row[5:])) for row in found}

    wait_for(lambda: len(stored()) >= len(expected), what="the last row")
    assert stored() == expected
    reasons = dict(stack.sql("SELECT app_name, any(reason) FROM rejected FINAL GROUP BY app_name"))
    assert reasons == {"date-year 9999#6": "time_out_of_range", "names#20": "empty_feature"}
