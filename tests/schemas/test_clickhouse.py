"""TLS and users of ClickHouse: the settings, and what the driver is given for them."""

import ssl
from pathlib import Path

import pytest
from pydantic import ValidationError

from schemas.clickhouse import ClickHouseSettings, client_options, wrong_setting
from tests.support.tls import Authority

URL = "https://me:secret@clickhouse.example/counts"


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path / "authority")


def settings(**given: object) -> ClickHouseSettings:
    return ClickHouseSettings.model_validate(given)


def test_https_alone_is_checked_against_the_systems_certificates() -> None:
    assert client_options(settings().clickhouse(URL)) == {
        "host": "clickhouse.example",
        "port": 8443,
        "interface": "https",
        "username": "me",
        "password": "secret",
    }


def test_files_stand_beside_the_url(authority: Authority) -> None:
    certificate, key = authority.client("me")
    made = settings(clickhouse_ca_file=authority.file, clickhouse_cert_file=certificate, clickhouse_key_file=key)
    options = client_options(made.clickhouse(URL))
    assert options["ca_cert"] == str(authority.file)
    assert (options["client_cert"], options["client_cert_key"]) == (str(certificate), str(key))
    assert options["tls_mode"] == "strict", "who has a password logs in with it"
    assert "verify" not in options


@pytest.mark.parametrize(
    ("user", "mode"), [("me@", "mutual"), ("me:secret@", "strict"), ("", "strict")], ids=["cert", "both", "nobody"]
)
def test_a_certificate_is_the_login_where_there_is_a_user_and_no_password(
    authority: Authority, user: str, mode: str
) -> None:
    certificate, key = authority.client("me")
    made = settings(clickhouse_cert_file=certificate, clickhouse_key_file=key)
    assert client_options(made.clickhouse(f"https://{user}h/d"))["tls_mode"] == mode


def test_without_https_no_file_matters(authority: Authority) -> None:
    options = client_options(settings(clickhouse_ca_file=authority.file).clickhouse("http://127.0.0.1/flagmeter"))
    assert options == {"host": "127.0.0.1", "port": 8123, "interface": "http", "username": None, "password": ""}


def test_files_that_cannot_be_used_are_named_at_the_start(authority: Authority, tmp_path: Path) -> None:
    text = tmp_path / "text.pem"
    text.write_text("no certificate")
    certificate, key = authority.client("me")
    for wrong in (tmp_path / "nowhere", text):
        with pytest.raises(ValidationError, match="FLAGMETER_CLICKHOUSE_CA_FILE cannot be read"):
            settings(clickhouse_ca_file=wrong)
    with pytest.raises(ValidationError, match="CERT_FILE and FLAGMETER_CLICKHOUSE_KEY_FILE cannot be used"):
        settings(clickhouse_cert_file=certificate, clickhouse_key_file=text)
    for alone in ({"clickhouse_cert_file": certificate}, {"clickhouse_key_file": key}):
        with pytest.raises(ValidationError, match="belong together"):
            settings(**alone)


class CodedError(Exception):
    code = 516


def wrapped(cause: Exception) -> Exception:
    """Make an error as drivers do: around another one."""
    outer = RuntimeError("driver")
    outer.__cause__ = ConnectionError("transport")
    outer.__cause__.__context__ = cause
    return outer


@pytest.mark.parametrize(
    ("error", "named"),
    [
        (CodedError(), "FLAGMETER_CLICKHOUSE_URL"),
        (wrapped(ssl.SSLCertVerificationError("self-signed")), "FLAGMETER_CLICKHOUSE_CA_FILE"),
        (wrapped(ssl.SSLError("WRONG_VERSION_NUMBER")), "FLAGMETER_CLICKHOUSE_CERT_FILE"),
    ],
)
def test_an_error_names_the_setting_that_it_speaks_of(error: Exception, named: str) -> None:
    said = wrong_setting(error)
    assert said is not None
    assert named in said


@pytest.mark.parametrize(
    "error", [wrapped(OSError("refused")), wrapped(ssl.SSLEOFError("broken off")), ValueError("x")]
)
def test_what_goes_away_by_itself_is_no_wrong_setting(error: Exception) -> None:
    assert wrong_setting(error) is None
