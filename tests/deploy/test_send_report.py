import json

from deploy import send_report
from deploy.fleet import Fleet
from deploy.send import Sent, Verdict

FLEET = Fleet(seed=7, end_hour=1795323600, flags=3)


def some() -> Sent:
    sent = Sent(seconds=2.0)
    for number in range(20):
        sent.note(FLEET.payload(number), Verdict.ACKNOWLEDGED, "")
    sent.note(FLEET.payload(20), Verdict.FAILED, "refused with 401")
    sent.note(FLEET.payload(21), Verdict.DOUBTFUL, "answered 503")
    return sent


def test_the_table_has_each_flags_totals_and_the_query_to_compare(capsys):
    sent = some()
    send_report.show(FLEET, sent)
    shown = capsys.readouterr().out
    for flag, counts in sent.ledger.by_flag().items():
        assert flag in shown
        assert f"{counts.yes:,}" in shown
    assert "20 acknowledged, 1 failed, 1 doubtful in 2.0 s (11 payloads/s)" in shown
    assert "1 x refused with 401" in shown
    assert "--seed 7 --until 2026-11-22T05:00:00" in shown
    assert send_report.query(FLEET) in shown


def test_a_long_table_is_cut_and_says_so(capsys):
    fleet = Fleet(seed=7, end_hour=1795323600, flags=200)
    sent = Sent()
    for number in range(200):
        sent.note(fleet.payload(number), Verdict.ACKNOWLEDGED, "")
    send_report.show(fleet, sent)
    assert "more (--json has all)" in capsys.readouterr().out


def test_the_json_has_every_total_and_the_doubtful_payloads():
    sent = some()
    document = json.loads(send_report.as_json(FLEET, sent))
    assert (document["acknowledged"], document["failed"], document["doubtful"]) == (20, 1, 1)
    assert document["doubtfulPayloads"] == [21]
    assert [tuple(row) for row in document["totals"]] == sent.ledger.rows()
    assert document["seed"] == 7
    assert document["until"] == "2026-11-22T05:00:00.000Z"


def test_the_store_port_of_the_hint_follows_the_environment(capsys, monkeypatch):
    monkeypatch.setenv("FLAGMETER_CLICKHOUSE_PORT", "9009")
    send_report.show(FLEET, some())
    assert "http://127.0.0.1:9009/" in capsys.readouterr().out


def test_without_a_terminal_progress_is_a_line_now_and_then(capsys):
    now = 0.0
    say = send_report._lines(100, clock=lambda: now)
    sent = Sent(acknowledged=10)
    say(sent)
    now = 6.0
    say(sent)
    say(sent)
    sent.acknowledged = 99
    sent.failed = 1
    say(sent)
    assert capsys.readouterr().err.splitlines() == [
        "10 of 100 payloads; all acknowledged",
        "100 of 100 payloads; 1 not acknowledged",
    ]


def test_on_a_terminal_progress_is_a_bar(capsys, monkeypatch):
    import sys

    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    with send_report.progress(2) as tell:
        tell(Sent(acknowledged=2))
    assert capsys.readouterr().out == ""
