"""Where one look at a cluster follows another: drawn in place on a terminal, printed below each other elsewhere."""

from __future__ import annotations

import contextlib
import os
import select
import sys
import termios
import time
import tty
from typing import TYPE_CHECKING

from rich.console import Group
from rich.live import Live
from rich.segment import SegmentLines
from rich.text import Text

from cluster import shown
from cluster.console import make_console

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import TracebackType

    from rich.console import RenderableType

QUIT = b"qQ"


class Display:
    """What is shown at present. whole: it takes the whole screen, and the key q ends it."""

    def __init__(self, *, whole: bool = False) -> None:
        self.console = make_console()
        self.whole = whole
        self.is_live = sys.stdout.isatty() and not self.console.is_dumb_terminal
        self.live = Live(console=self.console, screen=whole, auto_refresh=False, vertical_overflow="crop")
        self.stack = contextlib.ExitStack()
        self.keyboard = -1  # its descriptor, if keys are read
        self.next = time.monotonic()
        self.shown_before = False

    def __enter__(self) -> Display:
        if self.is_live:
            if self.whole and sys.stdin.isatty():
                self._read_keys(sys.stdin.fileno())
            self.stack.enter_context(self.live)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stack.close()

    def show(self, parts: Sequence[RenderableType]) -> None:
        """Show this in place of what was there; elsewhere than on a terminal below it."""
        if self.is_live:
            self.live.update(self._fitted(parts), refresh=True)
            return
        if self.shown_before:
            self.console.print()
        self.shown_before = True
        self.say(parts)

    def _fitted(self, parts: Sequence[RenderableType]) -> RenderableType:
        """All of it, or what the screen has room for and how much it has not."""
        lines = self.console.render_lines(Group(*parts), pad=False)
        room = self.console.height - 2
        if len(lines) <= room:
            return Group(*parts)
        more = f"... {len(lines) - room} more lines: a higher terminal shows them, or a pipe"
        return Group(SegmentLines(lines[:room], new_lines=True), Text(more))

    def say(self, parts: Sequence[RenderableType]) -> None:
        """Print this at once."""
        shown.put(self.console, parts)
        sys.stdout.flush()

    def wait(self, interval: float) -> bool:
        """Wait until it is time for the next look; whether there is to be one."""
        self.next = max(self.next + interval, time.monotonic())
        while (left := self.next - time.monotonic()) > 0:
            if self.keyboard < 0:
                time.sleep(left)
            elif select.select([self.keyboard], [], [], left)[0] and not self._goes_on():
                return False
        return True

    def _goes_on(self) -> bool:
        """Whether the keys that were pressed do not end it."""
        try:
            pressed = os.read(self.keyboard, 64)
        except OSError:
            return False
        return bool(pressed) and not any(key in QUIT for key in pressed)  # nothing: the terminal is gone

    def _read_keys(self, keyboard: int) -> None:
        """Have keys come as they are pressed, until the end."""
        before = termios.tcgetattr(keyboard)
        self.stack.callback(termios.tcsetattr, keyboard, termios.TCSADRAIN, before)
        tty.setcbreak(keyboard, termios.TCSADRAIN)
        self.keyboard = keyboard
