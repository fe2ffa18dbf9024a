"""Where the operator's commands print."""

import sys

from rich.console import Console

WIDE = 10_000  # columns, more than any table has


def make_console() -> Console:
    """On a terminal tables fit its width; in a pipe or a file each row is one line, for who searches or cuts it."""
    return Console(highlight=False, width=None if sys.stdout.isatty() else WIDE)
