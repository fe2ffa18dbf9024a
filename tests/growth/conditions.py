"""How hard a cluster is tried: lightly as one test of many, or as its promises have it.

GROWTH=full .venv/bin/pytest tests/growth -n 0 -s
"""

import os

IS_FULL = os.environ.get("GROWTH") == "full"
RATE = 21_000 if IS_FULL else 2_000  # announces a second
PAUSE = 10.0 if IS_FULL else 5.0  # seconds from a node's edit to the next one's
