"""Fixtures for all tests. A kernel test runs twice: on the C module, and on its own source uncompiled."""

from collections.abc import Callable
from types import ModuleType

import pytest
from kernels import VARIANTS


@pytest.fixture(scope="session", params=VARIANTS)
def kernel(request: pytest.FixtureRequest) -> Callable[[str], ModuleType]:
    """A loader: kernel("shard.slice_store") gives the variant under test."""
    return VARIANTS[request.param]
