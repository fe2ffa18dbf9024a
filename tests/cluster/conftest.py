"""Fixtures for the operator's commands."""

import shutil
import tempfile
from pathlib import Path

import pytest


@pytest.fixture
def place():
    """A directory that others may enter, unlike those of pytest."""
    path = Path(tempfile.mkdtemp())
    path.chmod(0o755)
    yield path
    shutil.rmtree(path)
