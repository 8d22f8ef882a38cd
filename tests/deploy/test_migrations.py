import pytest

from deploy.migrations import Migration, RefusedMigrationError, State, files, pending, states, window

ONE, TWO = Migration(1, "one", "CREATE TABLE {database}.one"), Migration(2, "two", "SELECT {window}, {marker_days}")


def applied(*done: Migration) -> dict[int, tuple[str, str]]:
    return {migration.number: (migration.name, migration.sha256) for migration in done}


def test_the_files_are_numbered_without_a_gap():
    assert [migration.number for migration in files()] == list(range(1, len(files()) + 1))


def test_an_empty_store_gets_all_in_order():
    assert pending([ONE, TWO], {}) == [ONE, TWO]


def test_what_was_applied_is_not_applied_again():
    assert pending([ONE, TWO], applied(ONE)) == [TWO]
    assert pending([ONE, TWO], applied(ONE, TWO)) == []


def test_a_changed_text_is_refused():
    changed = Migration(1, "one", ONE.text + " ")
    with pytest.raises(RefusedMigrationError, match=r"0001_one\.sql was applied with another text"):
        pending([changed, TWO], applied(ONE))


def test_a_newer_store_is_refused():
    with pytest.raises(RefusedMigrationError, match="newer than this version of flagmeter: it has 0002 two"):
        pending([ONE], applied(ONE, TWO))


def test_states_name_each_one():
    changed = Migration(1, "one", "x")
    assert states([changed, TWO], applied(ONE) | {3: ("three", "")}) == [
        (1, "one", State.CHANGED),
        (2, "two", State.PENDING),
        (3, "three", State.UNKNOWN),
    ]
    assert states([ONE], applied(ONE)) == [(1, "one", State.APPLIED)]


def test_database_window_and_days_are_filled_in():
    assert ONE.statements(database="x_1", window=5) == ["CREATE TABLE `x_1`.one"]
    assert TWO.statements(database="x", window=5) == ["SELECT 5, 35"]


def test_what_is_filled_in_does_not_change_the_hash():
    assert ONE.sha256 == Migration(1, "other name", ONE.text).sha256


@pytest.mark.parametrize(
    ("partitions", "flush_seconds", "expected"),
    [(1, 1.0, 100_000), (1, 0.1, 144_000), (64, 1.0, 921_600), (64, 10.0, 100_000)],
)
def test_the_window_covers_four_hours_of_batches_and_never_less_than_100000(partitions, flush_seconds, expected):
    assert window(partitions=partitions, flush_seconds=flush_seconds) == expected
