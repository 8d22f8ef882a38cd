"""`flagmeter up` with tiny services in place of the real ones: `DATA_DIR DIARY PORTS… [NAME=BEHAVIOUR …]`."""

import sys
from pathlib import Path

from deploy import logs, migrate, stack, up
from deploy.config import UpConfig
from deploy.ports import Wanted
from deploy.supervisor import Backoff, Service

NAMES = ("store", "gateway", "aggregator", "query-api")


def main() -> int:
    home, diary, ports = Path(sys.argv[1]), sys.argv[2], [int(port) for port in sys.argv[3:7]]
    behaviours = dict(word.split("=") for word in sys.argv[7:])

    def service(name: str, port: int) -> Service:
        return Service(
            name=name,
            argv=(sys.executable, "-m", "tests.deploy.stand_in", name, str(port), diary, behaviours.get(name, "")),
            url=f"http://127.0.0.1:{port}",
            ready_url=f"http://127.0.0.1:{port}/readyz",
            stop_seconds=0.5 if "stubborn" in behaviours.values() and "--patient" not in behaviours else 10,
        )

    def plan(config: UpConfig, *, data_dir: Path, tokens_file: Path, secret: str) -> stack.Stack:
        assert secret
        store, *others = (service(name, port) for name, port in zip(NAMES, ports, strict=True))
        return stack.Stack(
            store,
            tuple(others),
            config.broker_url.get_secret_value() if config.broker_url else stack.sqlite_url(data_dir / "broker.db"),
            "http://127.0.0.1:1/flagmeter",
            tuple(Wanted(name, "127.0.0.1", port, f"--{name}-port") for name, port in zip(NAMES, ports, strict=True)),
        )

    def migrated(*_: object, partitions: int, **__: object) -> list[object]:
        with Path(diary).open("a") as out:
            out.write(f"migrate done {partitions}\n")
        return []

    stack.plan = plan
    migrate.run = migrated
    logs.configure("up")
    return up.run(
        UpConfig(data_dir=home),
        say=lambda line: print(line, flush=True),
        complain=lambda line: print(f"complains: {line}", flush=True),
        backoff=Backoff(first=0.05),
    )


if __name__ == "__main__":
    sys.exit(main())
