"""`python -m deploy.store --data-dir D --port 8123`: the embedded store, in the foreground."""

import argparse
import asyncio
import os
import sys

import structlog

from deploy import logs, run, settings
from deploy.store.app import serve
from deploy.store.config import StoreConfig
from deploy.store.engine import LockedError

_FAILED = 1


def main() -> int:
    """Run the store; exit status 2 for wrong settings, 1 when it failed, 0 otherwise."""
    parser = argparse.ArgumentParser(prog="python -m deploy.store", description=__doc__)
    parser.add_argument("--data-dir", help="everything that the embedded stack keeps (FLAGMETER_DATA_DIR)")
    parser.add_argument("--port", help="port on 127.0.0.1 (FLAGMETER_CLICKHOUSE_PORT)")
    given = parser.parse_args()
    # As variables, so that flags and environment are checked, and reported, in one go.
    for name, value in (("FLAGMETER_DATA_DIR", given.data_dir), ("FLAGMETER_CLICKHOUSE_PORT", given.port)):
        if value is not None:
            os.environ[name] = value
    logs.configure("store")
    config = settings.load(StoreConfig)

    locked = False

    async def service(stop: asyncio.Event) -> None:
        nonlocal locked
        try:
            await serve(config, stop)
        except LockedError as error:
            locked = True
            structlog.get_logger().error("the store cannot start", detail=str(error))

    return run.until_signalled(service) or (_FAILED if locked else 0)


if __name__ == "__main__":
    sys.exit(main())
