"""A tracker as an operator runs it, for clients to meet at."""

import pytest
from trackers import Process


@pytest.fixture(scope="session")
def tracker(tmp_path_factory):
    """One tracker for all tests: each has a torrent of its own."""
    with Process(tmp_path_factory.mktemp("tracker")) as tracker:
        yield tracker
