"""The shared store, for the tests of this folder that speak to it by its address."""

import pytest

from schemas.urls import ClickHouse
from tests.support.store import StoreProcess


@pytest.fixture
def real_store(store: StoreProcess) -> ClickHouse:
    """Its address, as the services' user."""
    return store.server
