"""The command line: `flagmeter …`."""

import asyncio
import contextlib
import importlib
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, NoReturn

import click

from deploy import __version__

_PORT: Final = click.IntRange(1, 65535)
_HOUR: Final = 3600
_LARGEST_SEED: Final = 999_999
_CONTEXT: Final = {"help_option_names": ["-h", "--help"], "max_content_width": 100}


class Documented(click.Command):
    """A command whose help ends with the environment variables that it reads, taken from its settings class."""

    def __init__(self, *args: Any, config_module: str = "", config_class: str = "", **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.config_module = config_module
        self.config_class = config_class

    def variables(self) -> dict[str, str]:
        """Give the meaning of each variable that the command reads, by name."""
        from deploy import configs, logs  # noqa: PLC0415 - a command loads what it needs, so that it starts quickly

        found = {}
        for cls in configs.classes(self.config_module):
            if self.config_class in {"", cls.__name__}:
                for name, field in configs.fields(cls):
                    text, default = (field.description or "").rstrip("."), configs.default(field)
                    found[configs.variable(cls, name)] = f"{text}. Default: {default}." if default else f"{text}."
        return found | {logs.LEVEL_VARIABLE: configs.OTHERS[logs.LEVEL_VARIABLE]}

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the table of variables after the options."""
        with formatter.section("Environment variables"):
            formatter.write_dl(list(self.variables().items()))
        super().format_epilog(ctx, formatter)


@click.group(context_settings=_CONTEXT)
@click.version_option(__version__, prog_name="flagmeter")
def main() -> None:
    """Count feature-flag evaluations for whole SDK fleets, each exactly once.

    \b
    Start everything on this machine, and point an Unleash SDK at http://127.0.0.1:4242/api:
      flagmeter up
    Fill it, and see that the totals agree:
      FLAGMETER_TOKEN=… flagmeter send --payloads 1000

    At scale each service runs alone, configured by environment variables; `flagmeter <service> --help` lists them.
    """  # noqa: D301 - click's own mark: these lines are not to be wrapped


@main.command(cls=Documented, config_module="deploy.config", config_class="UpConfig")
@click.option(
    "--data-dir",
    type=click.Path(path_type=Path, file_okay=False),
    help="Everything that the stack keeps; made where it is missing.",
)
@click.option("--gateway-port", type=_PORT, help="Where SDKs post. Default: 4242.")
@click.option("--query-port", type=_PORT, help="Where results are asked for. Default: 4243.")
@click.option("--management-port", type=_PORT, help="Reserved for the management API. Default: 4244.")
@click.option("--clickhouse-port", type=_PORT, help="Where SQL is asked, on loopback. Default: 8123.")
@click.option("--aggregator-port", type=_PORT, help="Health and metrics of the aggregator. Default: 4245.")
@click.option("--quiet", is_flag=True, help="Log warnings and errors only.")
def up(*, quiet: bool, **options: Any) -> None:
    """Run the whole stack on this machine: store, gateway, aggregator, query API.

    Nothing else is needed: the broker is a SQLite file, the store is ClickHouse's own engine. The first start makes
    the data directory with three tokens, and prints them once: keep them. Each service's URL is printed when it is
    ready. A service that dies is started again.

    Ctrl-C (or SIGTERM) ends everything cleanly; what was answered with a 2xx is in the store or in the broker's file,
    and the next start counts it. A second Ctrl-C kills.

    \b
    Examples:
      flagmeter up
      flagmeter up --data-dir /var/lib/flagmeter --gateway-port 8080
    """  # noqa: D301 - click's own mark: these lines are not to be wrapped
    from deploy import configs, logs, settings  # noqa: PLC0415 - as above
    from deploy import up as stack  # noqa: PLC0415
    from deploy.config import UpConfig  # noqa: PLC0415

    given = {name: value for name, value in options.items() if value is not None}
    config = settings.load(UpConfig, also=[found for _, found in configs.every()], **given)
    if quiet:
        os.environ[logs.LEVEL_VARIABLE] = "warning"  # the services inherit it
    logs.configure("up")
    os.umask(0o077)  # the broker's file holds what SDKs sent; nobody else is to read it
    sys.exit(stack.run(config, say=_say, complain=_complain))


def _service(name: str, package: str, text: str) -> None:
    def command() -> None:
        _run_main(package)

    main.command(name, cls=Documented, config_module=f"{package}.config", help=text)(command)


_service(
    "gateway",
    "ingest_gateway",
    """Run the gateway alone: HTTP in, broker out.

    SDKs post to it; it answers a 2xx once the broker has the payload durably. Stateless: run as many as you like.

    \b
    Example:
      FLAGMETER_BROKER_URL=sqlite:////var/lib/flagmeter/broker.db \\
      FLAGMETER_TOKENS_FILE=/etc/flagmeter/tokens.json  flagmeter gateway
    """,
)
_service(
    "aggregator",
    "aggregator",
    """Run one aggregator worker alone: broker in, hourly counts out.

    \b
    Example:
      FLAGMETER_BROKER_URL=sqlite:////var/lib/flagmeter/broker.db \\
      FLAGMETER_CLICKHOUSE_URL=http://user:password@127.0.0.1:8123/flagmeter  flagmeter aggregator
    """,
)
_service(
    "query-api",
    "query_api",
    """Run the query API alone: ClickHouse in, results out. It needs an admin token in the tokens file.

    \b
    Example:
      FLAGMETER_CLICKHOUSE_URL=http://user:password@127.0.0.1:8123/flagmeter \\
      FLAGMETER_TOKENS_FILE=/etc/flagmeter/tokens.json  flagmeter query-api
    """,
)


@main.command(
    cls=Documented,
    config_module="deploy.store.config",
    context_settings={"ignore_unknown_options": True, "allow_extra_args": True},
)
@click.option("--data-dir", type=click.Path(path_type=Path, file_okay=False), help="Where the store keeps its files.")
@click.option("--port", type=_PORT, help="Port of the front, on loopback. Default: 8123.")
def store(data_dir: Path | None, port: int | None) -> None:
    """Run the embedded store alone: ClickHouse's engine behind ClickHouse's HTTP interface, on loopback.

    Without credentials it answers reading queries only.

    \b
    Example:
      flagmeter store --data-dir flagmeter-data
      curl 'http://127.0.0.1:8123/?query=SELECT+1'
    """  # noqa: D301 - click's own mark: these lines are not to be wrapped
    arguments = [*(["--data-dir", str(data_dir)] if data_dir else []), *(["--port", str(port)] if port else [])]
    sys.argv = ["flagmeter store", *arguments]
    _run_main("deploy.store")


@main.command(cls=Documented, config_module="deploy.config", config_class="MigrateConfig")
@click.option(
    "--status", is_flag=True, help="Only say what the topic is like, and list the migrations and how each stands."
)
@click.option("--dry-run", is_flag=True, help="Only print the SQL that would be sent, and what the topic would get.")
@click.option(
    "--partitions",
    type=click.IntRange(1),
    help="Partitions of the log. Default: as many as there are; 6 for a new topic in Kafka, 1 for the embedded log.",
)
@click.option("--replication", type=click.IntRange(1), help="Copies of a new topic in Kafka. Default: 1.")
@click.option(
    "--alter-topic",
    is_flag=True,
    help="Change a topic that is there: set what is unsafe, and add partitions up to --partitions.",
)
@click.option(
    "--wait",
    type=click.FloatRange(0),
    default=30.0,
    show_default=True,
    help="Seconds to wait for Kafka, and then for the store, to answer.",
)
def migrate(
    *, status: bool, dry_run: bool, partitions: int | None, replication: int | None, alter_topic: bool, wait: float
) -> None:
    """Make the tables in ClickHouse and the log of the broker, or bring them to this version.

    Numbered SQL files are applied in order, each once. Kafka's topic is made where it is missing. One that is there is
    checked, and changed only with --alter-topic; its other settings stay. Run it before a new version's services start;
    running it again, or twice at once, is harmless. `flagmeter up` does it by itself.

    \b
    Examples:
      FLAGMETER_CLICKHOUSE_URL=http://user:password@clickhouse:8123/flagmeter  flagmeter migrate
      FLAGMETER_BROKER_URL=kafka://b1:9092,b2:9092/flagmeter.metrics \\
        flagmeter migrate --partitions 6 --replication 3
      flagmeter migrate --status
    """  # noqa: D301 - click's own mark: these lines are not to be wrapped
    from deploy import logs, migrate_command, settings  # noqa: PLC0415 - as above
    from deploy.config import MigrateConfig  # noqa: PLC0415

    config = settings.load(MigrateConfig)
    logs.configure("migrate")
    with _failing_clearly():
        job = migrate_command.Job(
            config, partitions=partitions, replication=replication, alter_topic=alter_topic, wait_seconds=wait
        )
        if status:
            job.status(_say)
        elif dry_run:
            job.dry_run(_say)
        else:
            job.run(_say)


@main.command(cls=Documented, config_module="deploy.tool_config", config_class="LogToolConfig")
@click.option("--json", "as_json", is_flag=True, help="Print everything as JSON instead of a table.")
@click.option("--repair", is_flag=True, help="Settle holes out of the log first, and say what was done.")
@click.option(
    "--accept-loss",
    metavar="TOPIC/PARTITION",
    help="Let a stopped partition go on without what is lost; TOPIC is the log's id, as the table names it.",
)
@click.option(
    "--count-again",
    is_flag=True,
    help="With --accept-loss, where it says `declared_too_long_ago`: count that batch, maybe for the second time.",
)
@click.option("--yes", is_flag=True, help="Do not ask before --accept-loss gives anything up.")
def audit(*, as_json: bool, repair: bool, accept_loss: str | None, count_again: bool, yes: bool) -> None:
    """Prove that every record is counted once, from the markers in the store.

    Each batch left a marker beside its counts. A hole between markers is a loss, a marker that is there twice is a
    duplicate. The exit status is 0 only when there is neither. Workers may go on meanwhile: nothing is changed, unless
    --repair or --accept-loss is given.

    --repair reads what is missing out of the log once more and stores it; harmless to repeat, and when two run at
    once. --accept-loss says what would be given up, asks, and needs the aggregators to be stopped.

    \b
    Examples:
      flagmeter audit
      flagmeter audit --repair
      FLAGMETER_BROKER_URL=kafka://b1:9092/flagmeter.metrics \\
      FLAGMETER_CLICKHOUSE_URL=http://user:password@clickhouse:8123/flagmeter  flagmeter audit --json
    """  # noqa: D301 - click's own mark: these lines are not to be wrapped
    if count_again and not accept_loss:
        raise click.UsageError("--count-again belongs to --accept-loss")
    if repair and accept_loss:
        raise click.UsageError("give --repair and --accept-loss one after the other")
    from deploy import logs, settings  # noqa: PLC0415 - as above
    from deploy.audit import show  # noqa: PLC0415
    from deploy.audit.command import FAILURES, Auditor  # noqa: PLC0415
    from deploy.tool_config import LogToolConfig  # noqa: PLC0415

    auditor = Auditor(settings.load(LogToolConfig))
    os.environ.setdefault(logs.LEVEL_VARIABLE, "warning")  # what is done is said in sentences
    logs.configure("audit")

    def confirm(sentences: Sequence[str]) -> bool:
        for sentence in sentences:
            _complain(sentence)
        return yes or click.confirm("Do it?", err=True)

    with _failing_clearly(*FAILURES):
        if accept_loss:
            accepted = auditor.accept(accept_loss, count_again=count_again, confirm=confirm, say=_complain)
            sys.exit(0 if asyncio.run(accepted) else 1)
        report = asyncio.run(auditor.repair(_complain) if repair else auditor.audit())
    if as_json:
        _say(show.as_json(report))
    else:
        show.show(report)
    sys.exit(0 if report.exact else 1)


@main.command(cls=Documented, config_module="deploy.tool_config", config_class="StoreToolConfig")
@click.option("--reason", "reasons", multiple=True, help="Only what was set aside for this reason; may be repeated.")
@click.option("--since", type=click.DateTime(), help="Only what came at this time (UTC) or later.")
@click.option("--project", help="Only of this project.")
@click.option("--environment", help="Only of this environment; `*` where a token leaves it to each entry.")
@click.option("--limit", type=click.IntRange(1), help="Replay at most so many rows.")
@click.option("--partial", is_flag=True, help="Also rows of which only a part can be counted; the rest is given up.")
@click.option("--dry-run", is_flag=True, help="Only show what would be counted.")
@click.option("--json", "as_json", is_flag=True, help="Print everything as JSON instead of a table.")
def replay(
    *,
    reasons: tuple[str, ...],
    since: datetime | None,
    project: str | None,
    environment: str | None,
    limit: int | None,
    partial: bool,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Put rejected rows back after a fix, each once.

    What could not be stored stands in the table `rejected` for 35 days, with its reason. This reads it again by the
    rules of this version and counts what can be counted now. A row that was replayed is never replayed again, whatever
    the options, also when two replays run at once or one is killed. What still cannot be stored stays.

    The exit status is 0 when nothing stayed, else 1.

    \b
    Examples:
      flagmeter replay --dry-run
      flagmeter replay --reason name_too_long --since 2026-11-01
    """  # noqa: D301 - click's own mark: these lines are not to be wrapped
    from deploy import logs, settings  # noqa: PLC0415 - as above
    from deploy.replay import command  # noqa: PLC0415
    from deploy.replay.source import Filter  # noqa: PLC0415
    from deploy.tool_config import StoreToolConfig  # noqa: PLC0415

    config = settings.load(StoreToolConfig)
    os.environ.setdefault(logs.LEVEL_VARIABLE, "warning")  # what is done is said in sentences
    logs.configure("replay")
    wanted = Filter(reasons, since.replace(tzinfo=UTC) if since else None, project, environment)
    with _failing_clearly(*command.FAILURES):
        job = command.Job(config, wanted, limit=limit, partial=partial, dry_run=dry_run)
        done = asyncio.run(job.run())
    if as_json:
        _say(command.as_json(done, dry_run=dry_run))
    else:
        command.show(done, dry_run=dry_run)
    sys.exit(1 if done.stays else 0)


@main.command()
@click.option(
    "--url",
    "urls",
    default=["http://127.0.0.1:4242"],
    show_default=True,
    multiple=True,
    help="The gateway; given several times, they are posted to in turn.",
)
@click.option("--token", envvar="FLAGMETER_TOKEN", help="A backend token; better given as FLAGMETER_TOKEN.")
@click.option("--payloads", type=click.IntRange(1), default=1000, show_default=True, help="How many to post.")
@click.option("--apps", type=click.IntRange(1, 99), default=4, show_default=True, help="Applications.")
@click.option("--instances", type=click.IntRange(1, 9999), default=25, show_default=True, help="Of each application.")
@click.option("--flags", type=click.IntRange(1, 9999), default=20, show_default=True, help="Flags in all.")
@click.option("--variants", type=click.IntRange(0, 99), default=3, show_default=True, help="Of every second flag.")
@click.option("--hours", type=click.IntRange(1, 87_600), default=24, show_default=True, help="Hours back in time.")
@click.option("--until", type=click.DateTime(), help="The latest hour (UTC). Default: this one.")
@click.option(
    "--rate", type=click.FloatRange(0), default=0.0, show_default=True, help="Payloads a second; 0: all it takes."
)
@click.option("--concurrency", type=click.IntRange(1, 2000), default=32, show_default=True, help="Posts at a time.")
@click.option(
    "--bulk-share",
    type=click.FloatRange(0, 1),
    default=0.0,
    show_default=True,
    help="The share that comes as from an Edge.",
)
@click.option("--environment", default="development", show_default=True, help="In an Edge's entries; the token's.")
@click.option("--seed", type=click.IntRange(0), help="The same seed and hours: the same payloads. Default: a new one.")
@click.option("--json", "as_json", is_flag=True, help="Print every total as JSON instead of a table.")
def send(
    *,
    urls: tuple[str, ...],
    token: str | None,
    until: datetime | None,
    payloads: int,
    rate: float,
    concurrency: int,
    seed: int | None,
    as_json: bool,
    **shape: Any,
) -> None:
    """Post like a fleet of SDKs, and say what the store must now hold.

    Payloads are made from a seed. As an SDK does, it never posts one twice. It ends with the totals of what was
    acknowledged, and how to ask the store for the same. Exit status 1 when something was not acknowledged.

    \b
    Examples:
      FLAGMETER_TOKEN=default:development.… flagmeter send
      flagmeter send --payloads 20000 --flags 200 --rate 500
      flagmeter send --seed 7 --until 2026-11-22T12:00:00 --json > sent.json
    """  # noqa: D301 - click's own mark: these lines are not to be wrapped
    if not token:
        raise click.UsageError("a backend token is needed: set FLAGMETER_TOKEN, or give --token")
    if not all(url.startswith(("http://", "https://")) for url in urls):
        raise click.BadParameter("begins with http:// or https://", param_hint="--url")
    import secrets  # noqa: PLC0415 - as above

    from deploy import send_report  # noqa: PLC0415
    from deploy.fleet import Fleet  # noqa: PLC0415
    from deploy.send import Sent  # noqa: PLC0415
    from deploy.send import send as post  # noqa: PLC0415

    latest = until.replace(tzinfo=UTC) if until else datetime.now(UTC)
    fleet = Fleet(
        seed=secrets.randbelow(_LARGEST_SEED) + 1 if seed is None else seed,
        end_hour=int(latest.timestamp()) // _HOUR * _HOUR,
        **shape,
    )
    sent = Sent()
    with send_report.progress(payloads) as progress, contextlib.suppress(KeyboardInterrupt):
        asyncio.run(
            post(
                fleet,
                sent,
                urls=urls,
                token=token,
                payloads=payloads,
                rate=rate,
                concurrency=concurrency,
                progress=progress,
            )
        )
    if as_json:
        _say(send_report.as_json(fleet, sent))
    else:
        send_report.show(fleet, sent)
    sys.exit(0 if sent.acknowledged == payloads else 1)


def _run_main(package: str) -> NoReturn:
    run: Callable[[], int | None] = importlib.import_module(f"{package}.__main__").main
    sys.exit(run())


def _say(line: str) -> None:
    try:
        click.echo(line)
        sys.stdout.flush()
    except OSError:  # whoever read our lines is gone; that is no reason to end a stack
        return


def _complain(line: str) -> None:
    click.echo(f"flagmeter: {line}", err=True)


@contextlib.contextmanager
def _failing_clearly(*more: type[Exception]) -> Iterator[None]:
    """Turn what a person can mend into one sentence and exit status 1."""
    from deploy.migrations import BrokerAwayError, RefusedMigrationError, StoreAwayError  # noqa: PLC0415 - as above

    failures: tuple[type[Exception], ...] = (BrokerAwayError, StoreAwayError, RefusedMigrationError, *more)
    try:
        yield
    except failures as error:
        _complain(str(error))
        sys.exit(1)


if __name__ == "__main__":
    main()
