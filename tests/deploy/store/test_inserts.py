"""One insert is one part, once, also over restarts and kills."""

import contextlib
import http.client
import threading

import pytest

from tests.support.store import StoreProcess
from tests.support.waiting import wait_for

SETTINGS = {"async_insert": "0", "deduplicate_insert": "enable", "wait_end_of_query": "1"}


def make_table(store: StoreProcess, name: str) -> None:
    made = store.service(
        f"CREATE TABLE {name} (id UInt64, s String, n UInt64) ENGINE = SummingMergeTree(n) ORDER BY (id, s) "
        "SETTINGS non_replicated_deduplication_window = 100000, fsync_after_insert = 1, fsync_part_directory = 1"
    )
    assert made.status == 200, made.text


def native(store: StoreProcess, rows: int, *, first: int = 0, blocks: int = 1) -> bytes:
    """Rows as Native bytes, in so many blocks, as clients send them."""
    size = rows // blocks
    return b"".join(
        store.service(
            f"SELECT {first + block * size} + number AS id, 'feature-' || toString(id % 1000) AS s, id AS n "
            f"FROM numbers({size}) SETTINGS max_block_size = {size}, max_threads = 1 FORMAT Native"
        ).body
        for block in range(blocks)
    )


def parts(store: StoreProcess, name: str) -> list[int]:
    """Rows of each part that an insert made, merges not counted."""
    found = store.visitor(
        "SELECT rows FROM system.parts WHERE database = 'flagmeter' AND min_block_number = max_block_number "
        f"AND table = '{name}' ORDER BY name"
    )
    return [int(line) for line in found.text.split()]


def totals(store: StoreProcess, name: str) -> tuple[int, int]:
    found = store.visitor(f"SELECT uniqExact(id), sum(n) FROM {name}")
    rows, total = found.text.split()
    return int(rows), int(total)


def test_a_million_rows_in_a_hundred_blocks_are_one_part_once(store: StoreProcess) -> None:
    make_table(store, "million")
    data = native(store, 1_000_000, blocks=100)
    for _ in range(2):
        answer = store.service(
            data, query="INSERT INTO million (id, s, n) FORMAT Native", insert_deduplication_token="t", **SETTINGS
        )
        assert answer.status == 200, answer.text
        assert '"written_rows":"1000000"' in answer.headers["X-ClickHouse-Summary"]
    assert sum(parts(store, "million")) >= 999_000  # SummingMergeTree leaves out rows that are all zero
    assert len(parts(store, "million")) == 1
    assert totals(store, "million") == (999_999, 499_999_500_000)


def test_two_hundred_megabytes_are_one_part(store: StoreProcess) -> None:
    made = store.service(
        "CREATE TABLE wide (id UInt64, s String) ENGINE = MergeTree ORDER BY id "
        "SETTINGS non_replicated_deduplication_window = 100"
    )
    assert made.status == 200
    row = b"\x00" * 8 + b"\xe8\x07" + b";\n\x00'" * 250  # RowBinary: an id, then 1,000 bytes that no text could hold
    data = row * 220_000
    answer = store.service(
        data,
        query="INSERT INTO wide FORMAT RowBinary",
        insert_deduplication_token="t",
        input_format_parallel_parsing="1",
    )
    assert answer.status == 200, answer.text
    assert parts(store, "wide") == [220_000]
    assert store.visitor("SELECT uniqExact(s), min(length(s)), count() FROM wide").text == "1\t1000\t220000\n"
    assert store.service("DROP TABLE wide SYNC").status == 200


def test_text_and_data_may_share_the_body_or_come_apart(store: StoreProcess) -> None:
    make_table(store, "apart")
    row = b"\x01\x00\x00\x00\x00\x00\x00\x00\x02;\n\x05\x00\x00\x00\x00\x00\x00\x00"
    asked = [
        (b"INSERT INTO apart FORMAT RowBinary\n" + row, {}),
        (row, {"query": "INSERT INTO apart FORMAT RowBinary"}),
        (row, {"query": "INSERT INTO flagmeter.apart (id, s, n) SETTINGS async_insert = 0 FORMAT RowBinary"}),
        (b'/* a ; */ insert into `apart` (`id`, "s", n) FORMAT CSV 1,";\n",5', {}),
        (b'{"id": 1, "s": ";\\n", "n": "5"}', {"query": "INSERT INTO apart FORMAT JSONEachRow"}),
        (b"INSERT INTO apart VALUES (1, ';\\n', 2 + 3)", {}),
        (b"(1, ';\\n', 5)", {"query": "INSERT INTO apart (id, s, n) VALUES"}),
        (b"FORMAT RowBinary\n" + row, {"query": "INSERT INTO apart"}),
    ]
    for number, (body, parameters) in enumerate(asked):
        answer = store.service(body, insert_deduplication_token=f"t{number}", **parameters)
        assert answer.status == 200, (body, answer.text)
    assert store.visitor("SELECT id, s, sum(n) FROM apart GROUP BY id, s").text == f"1\t;\\n\t{5 * len(asked)}\n"


def test_a_broken_insert_stores_nothing_and_its_token_stays_free(store: StoreProcess) -> None:
    make_table(store, "broken")
    data = native(store, 2000, blocks=2)
    into = {"query": "INSERT INTO broken FORMAT Native", "insert_deduplication_token": "t"}
    cut = store.service(data[:-7], **into)
    assert (cut.status, cut.code) == (500, 33)
    assert store.service(b"x,y\n", query="INSERT INTO broken FORMAT CSV").status == 400
    assert store.service(b"\x00" * 9, {"Content-Encoding": "gzip"}, **into).code == 271
    assert totals(store, "broken")[0] == 0
    assert store.service(data, **into).status == 200
    assert totals(store, "broken")[0] == 1999


def test_settings_of_one_insert_are_not_those_of_the_next(store: StoreProcess) -> None:
    make_table(store, "settings")
    row = "1,a,1\n"
    into = "INSERT INTO settings FORMAT CSV"
    assert store.service(row, query=into, insert_deduplication_token="t", max_execution_time="7").status == 200
    for _ in range(8):  # whichever connection answers
        seen = store.service(
            "SELECT getSetting('insert_deduplication_token'), getSetting('max_execution_time'), "
            "getSetting('min_insert_block_size_bytes')"
        )
        assert seen.text == "\t0\t1073741824\n"
    assert store.service("2,a,1\n", query=into).status == 200
    assert store.visitor("SELECT count() FROM settings").text == "2\n"


def test_a_client_that_leaves_in_the_middle_of_its_body_stores_nothing(store: StoreProcess) -> None:
    make_table(store, "left")
    connection = http.client.HTTPConnection("127.0.0.1", store.port)
    connection.putrequest("POST", "/?query=INSERT+INTO+left+FORMAT+CSV")
    connection.putheader("X-ClickHouse-User", "service")
    connection.putheader("X-ClickHouse-Key", store.secret)
    connection.putheader("Content-Length", "1000")
    connection.endheaders(b"1,a,1\n" * 10)
    connection.close()
    assert store.service("1,b,1\n", query="INSERT INTO left FORMAT CSV").status == 200
    assert store.visitor("SELECT s FROM left").text == "b\n"


def test_tokens_survive_a_restart(mortal_store: StoreProcess) -> None:
    make_table(mortal_store, "restarted")
    data = native(mortal_store, 1000)
    into = {"query": "INSERT INTO restarted FORMAT Native", "insert_deduplication_token": "first", **SETTINGS}
    assert mortal_store.service(data, **into).status == 200
    assert mortal_store.stop() == 0
    mortal_store.start()
    assert mortal_store.service(data, **into).status == 200
    assert totals(mortal_store, "restarted") == (999, 499_500)
    assert mortal_store.service(data, **{**into, "insert_deduplication_token": "second"}).status == 200
    assert totals(mortal_store, "restarted") == (999, 999_000)


@pytest.mark.parametrize("round_", range(2))
def test_every_acknowledged_insert_survives_a_kill_once(mortal_store: StoreProcess, round_: int) -> None:
    table = f"killed_{round_}"
    make_table(mortal_store, table)
    batch = 50
    acknowledged: list[int] = []
    sent = 0

    def insert(number: int) -> bool:
        rows = "".join(f"{number * batch + row + 1},a,1\n" for row in range(batch))
        answer = mortal_store.service(
            rows, query=f"INSERT INTO {table} FORMAT CSV", insert_deduplication_token=f"b{number}", **SETTINGS
        )
        return answer.status == 200

    def send() -> None:
        nonlocal sent
        with contextlib.suppress(OSError, http.client.HTTPException):
            while True:
                sent += 1
                if insert(sent):
                    acknowledged.append(sent)

    sender = threading.Thread(target=send)
    sender.start()
    wait_for(lambda: len(acknowledged) >= 20 + 15 * round_, seconds=30, what="twenty inserts")
    mortal_store.kill()
    sender.join(30)
    mortal_store.start()
    found = mortal_store.visitor(f"SELECT DISTINCT intDiv(id - 1, {batch}) FROM {table} ORDER BY 1").text.split()
    assert {int(number) for number in found} >= set(acknowledged)
    for number in range(1, sent + 1):  # what may be there or not is sent again: each batch counts once
        assert insert(number)
    assert totals(mortal_store, table) == (sent * batch, sent * batch)
