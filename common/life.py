"""The life of a process: its boot and its tick, by which others know whether a frame is still for it."""

from __future__ import annotations

import secrets
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

STALL = 2000  # ms without a beat after which a process has been away
TOO_OLD = 5000  # ms after which a frame is not for it any longer


# A suspended machine must notice that it was: CLOCK_MONOTONIC stands still meanwhile.
_CLOCK = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)


def milliseconds() -> int:
    """A clock that never goes back."""
    return time.clock_gettime_ns(_CLOCK) // 1_000_000


def random_boot() -> int:
    """A boot: never 0, which stands for none."""
    return secrets.randbits(64) | 1


class Life:
    """`boot` is random and new in each life; a process that stood still for 2 s begins another.

    Whoever reads a link beats first: so nothing is applied that waited while the process stood still.
    """

    def __init__(self, now: int, draw: Callable[[], int] = random_boot) -> None:
        self.draw = draw
        self.boot = draw()
        self.last = now
        self.stalls = 0

    def beat(self, now: int) -> bool:
        """Whether the process had stood still, and has a new boot."""
        away = now - self.last
        self.last = now
        if away < STALL:
            return False
        self.stalls += 1
        self.boot = self.draw()
        return True

    def refuses(self, boot: int, tick: int, now: int) -> str:
        """Why a frame that names this boot and tick is not taken; empty if it is."""
        if boot != self.boot:
            return "other_boot"
        return "too_old" if now - tick > TOO_OLD else ""
