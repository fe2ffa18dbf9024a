"""The clock by which peers age: it counts what the process lived through, not what a wall clock says."""

from collections.abc import Callable
from time import monotonic

LONGEST_STEP = 10.0


class SteadyClock:
    """Seconds since some start. A step that took longer than 10 s counts as 10 s.

    So a process that was stopped, or a machine that was suspended, for an hour does not expire peers that
    had no chance to announce; and a change of the wall clock means nothing at all.
    """

    def __init__(self, source: Callable[[], float] = monotonic) -> None:
        self._source = source
        self._last = source()
        self._elapsed = 0.0

    def seconds(self) -> int:
        """Whole seconds since the start; to be called at least every 10 s."""
        now = self._source()
        self._elapsed += min(max(now - self._last, 0.0), LONGEST_STEP)
        self._last = now
        return int(self._elapsed)
