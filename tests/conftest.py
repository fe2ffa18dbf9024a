"""Fixtures for all tests. A kernel test runs twice: on the C module, and on its own source uncompiled."""

from collections.abc import Callable
from types import ModuleType

import pytest
from kernels import VARIANTS


@pytest.fixture(scope="session", params=VARIANTS)
def kernel(request: pytest.FixtureRequest) -> Callable[[str], ModuleType]:
    """A loader: kernel("shard.slice_store") gives the variant under test."""
    return VARIANTS[request.param]


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What computes longest comes first, so that no worker is left with it when the other has nothing to do."""
    items.sort(key=lambda item: item.path.name != "test_slice_store.py")
