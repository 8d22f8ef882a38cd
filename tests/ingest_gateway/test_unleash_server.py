"""What is logged of a server that comes and goes."""

import pytest

from ingest_gateway.unleash_server import Presence


def test_a_server_that_comes_and_goes_is_logged_once_a_minute(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    now = 1000.0
    monkeypatch.setattr("ingest_gateway.unleash_server.time.monotonic", lambda: now)
    presence = Presence("it fails", "it is well")

    def said(*faults: str) -> tuple[int, int]:
        for fault in faults:
            presence.note(fault)
        text = capsys.readouterr().out
        return text.count("it fails"), text.count("it is well")

    assert said("", "") == (0, 0)
    assert said("away", "away") == (1, 0)
    assert said("", "") == (0, 1)
    assert said("away", "", "away", "") == (0, 0)
    now += 61
    assert said("away", "away", "", "") == (1, 1)
