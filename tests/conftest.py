"""Fixtures for all tests. A kernel test runs twice: on the C module, and on its own source uncompiled."""

from collections.abc import Callable
from types import ModuleType

import pytest
from kernels import VARIANTS

# The first and the last of them compute, those between wait.
LONGEST = [
    "test_random.py",
    "test_operate.py",
    "test_failures.py",
    "test_moves.py",
    "test_plan.py",
    "test_slice_store.py",
]


@pytest.fixture(scope="session", params=VARIANTS)
def kernel(request: pytest.FixtureRequest) -> Callable[[str], ModuleType]:
    """A loader: kernel("shard.slice_store") gives the variant under test."""
    return VARIANTS[request.param]


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What takes longest comes first, so that no worker is left with it when others have nothing to do."""
    items.sort(key=lambda item: LONGEST.index(item.path.name) if item.path.name in LONGEST else len(LONGEST))
