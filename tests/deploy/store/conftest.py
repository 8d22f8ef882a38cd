from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.deploy.store.process import StoreProcess


@pytest.fixture(scope="session")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[StoreProcess]:
    """A running store for tests that leave it as it was, or change tables of their own."""
    running = StoreProcess(tmp_path_factory.mktemp("store") / "data", store_max_buffered_result=str(32 << 20)).start()
    try:
        yield running
        assert running.stop() == 0
    finally:
        running.kill()


@pytest.fixture
def own_store(tmp_path: Path) -> Iterator[StoreProcess]:
    """A store that the test starts, stops and breaks itself."""
    made = StoreProcess(tmp_path / "data")
    try:
        yield made
    finally:
        made.kill()
