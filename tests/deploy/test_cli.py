import json
import os
import subprocess
import sys

import click
import pytest
from click.testing import CliRunner

from deploy import __version__, cli, up
from schemas.tokens import digest_of
from tests.support.ports import free_port

COMMANDS = ("aggregator", "audit", "gateway", "migrate", "query-api", "replay", "send", "store", "up")


@pytest.fixture(autouse=True)
def _own_environment(monkeypatch, tmp_path):
    for name in [name for name in os.environ if name.startswith("FLAGMETER_")]:
        monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)


def invoke(*arguments: str, **environment: str):
    return CliRunner().invoke(cli.main, arguments, env=environment)


def test_help_lists_every_command():
    assert tuple(cli.main.list_commands(click.Context(cli.main))) == COMMANDS
    shown = invoke("--help").output
    assert "flagmeter up" in shown
    for command in COMMANDS:
        assert f"\n  {command} " in shown


@pytest.mark.parametrize("command", COMMANDS)
def test_the_help_of_each_command_teaches_by_example(command):
    result = invoke(command, "--help")
    assert result.exit_code == 0
    assert "Example" in result.output
    assert f"flagmeter {command}" in result.output.split("Example", 1)[1]


@pytest.mark.parametrize("command", [command for command in COMMANDS if command != "send"])
def test_the_help_of_each_service_lists_its_variables(command):
    shown = invoke(command, "--help").output
    assert "Environment variables:" in shown
    assert "FLAGMETER_LOG_LEVEL" in shown
    own = {"gateway": "FLAGMETER_GATEWAY_PORT", "query-api": "FLAGMETER_QUERY_PORT", "store": "FLAGMETER_DATA_DIR"}
    assert own.get(command, "FLAGMETER_CLICKHOUSE_URL") in shown


def test_the_version_is_said():
    assert invoke("--version").output == f"flagmeter, version {__version__}\n"


def test_help_loads_no_service_and_no_driver():
    code = (
        "import sys\nfrom deploy import cli\n"
        "print([name for name in ('aiohttp', 'clickhouse_connect', 'chdb', 'pydantic', 'rich') if name in sys.modules])"
    )
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert said == "[]\n"


def test_wrong_settings_end_up_with_status_2_all_at_once():
    result = invoke("up", FLAGMETER_GATEWAY_PORT="x", FLAGMETER_CLICKHOUSE_URL="ftp://a:hush@b", FLAGMETER_DATA_DIT="y")
    assert result.exit_code == 2
    for name in ("FLAGMETER_GATEWAY_PORT", "FLAGMETER_CLICKHOUSE_URL", "FLAGMETER_DATA_DIT"):
        assert name in result.output
    assert "did you mean FLAGMETER_DATA_DIR?" in result.output
    assert "hush" not in result.output


def test_options_of_up_win_over_the_environment(monkeypatch, tmp_path):
    given = []
    monkeypatch.setattr(up, "run", lambda config, **_: given.append(config) or 0)
    monkeypatch.setattr(os, "umask", given.append)
    ports = [f"--{name}-port" for name in ("gateway", "query", "management", "clickhouse", "aggregator")]
    options = [word for at, port in enumerate(ports) for word in (port, str(5000 + at))]
    result = invoke("up", "--data-dir", str(tmp_path / "d"), *options, FLAGMETER_GATEWAY_PORT="1", FLAGMETER_HOST="::1")
    assert result.exit_code == 0
    mask, config = given
    assert mask == 0o077
    assert (config.data_dir, config.host) == (tmp_path / "d", "::1")
    assert [
        config.gateway_port,
        config.query_port,
        config.management_port,
        config.clickhouse_port,
        config.aggregator_port,
    ] == [5000, 5001, 5002, 5003, 5004]


def test_quiet_lowers_the_log_level_of_all(monkeypatch):
    levels = []
    monkeypatch.setattr(up, "run", lambda *_, **__: levels.append(os.environ["FLAGMETER_LOG_LEVEL"]) or 0)
    monkeypatch.setenv("FLAGMETER_LOG_LEVEL", "debug")
    monkeypatch.setattr(os, "umask", lambda _: None)
    assert invoke("up", "--quiet").exit_code == 0
    assert levels == ["warning"]


@pytest.mark.parametrize("option", ["--gateway-port", "--management-port"])
def test_a_port_out_of_range_is_refused_by_name(option):
    result = invoke("up", option, "70000")
    assert result.exit_code == 2
    assert option in result.output


@pytest.mark.parametrize(
    ("command", "package"), [("gateway", "ingest_gateway"), ("aggregator", "aggregator"), ("query-api", "query_api")]
)
def test_a_service_command_runs_the_services_own_main(command, package, monkeypatch):
    import importlib

    module = importlib.import_module(f"{package}.__main__")
    monkeypatch.setattr(module, "main", lambda: sys.exit(7))
    assert invoke(command).exit_code == 7


def test_the_store_command_hands_its_options_on(monkeypatch):
    import importlib

    seen = []
    module = importlib.import_module("deploy.store.__main__")
    monkeypatch.setattr(module, "main", lambda: seen.append(sys.argv[1:]) or 5)
    monkeypatch.setattr(sys, "argv", ["before"])
    assert invoke("store", "--data-dir", "d", "--port", "9000").exit_code == 5
    assert seen == [["--data-dir", "d", "--port", "9000"]]


def test_migrate_says_that_the_store_is_away():
    url = f"http://u:hush@127.0.0.1:{free_port()}/flagmeter"
    result = invoke("migrate", "--wait", "0", FLAGMETER_CLICKHOUSE_URL=url)
    assert result.exit_code == 1
    assert "did not answer within 0 s" in result.output
    assert "hush" not in result.output


def test_migrate_refuses_partitions_for_the_embedded_broker():
    result = invoke("migrate", "--partitions", "6")
    assert result.exit_code == 1
    assert "leave --partitions at 1" in result.output


def test_migrate_makes_status_and_dry_run_on_a_real_store(own_store, tmp_path):
    environment = {"FLAGMETER_CLICKHOUSE_URL": own_store.start().url, "FLAGMETER_DATA_DIR": str(tmp_path / "data")}
    assert "0001 evaluations_hourly: pending" in invoke("migrate", "--status", **environment).output
    dry = invoke("migrate", "--dry-run", **environment).output
    assert "CREATE TABLE IF NOT EXISTS `flagmeter`.evaluations_hourly" in dry
    made = invoke("migrate", **environment)
    assert made.exit_code == 0, made.output
    assert "applied 0001 evaluations_hourly" in made.output
    assert (tmp_path / "data" / "broker.db").exists()
    assert "0001 evaluations_hourly: applied" in invoke("migrate", "--status", **environment).output
    assert "-- nothing to do" in invoke("migrate", "--dry-run", **environment).output


def test_send_needs_a_token_and_says_where_from():
    result = invoke("send")
    assert result.exit_code == 2
    assert "FLAGMETER_TOKEN" in result.output


def test_send_needs_a_url_with_a_scheme():
    assert "begins with http://" in invoke("send", "--token", "x", "--url", "localhost:4242").output


def test_send_ends_with_status_1_and_the_reason_when_nothing_was_acknowledged():
    token = "default:development.0123456789abcdef"
    url = f"http://127.0.0.1:{free_port()}"
    result = invoke("send", "--url", url, "--payloads", "3", "--json", "--seed", "5", FLAGMETER_TOKEN=token)
    assert result.exit_code == 1
    document = json.loads(result.stdout)
    assert (document["acknowledged"], document["failed"], document["seed"]) == (0, 3, 5)
    assert token not in result.output
    assert digest_of(token) not in result.output
