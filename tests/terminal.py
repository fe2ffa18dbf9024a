"""An operator's terminal: a command on a pseudo-terminal, what it shows, and keys for it.

with Terminal("top", "--config", file) as terminal:
    terminal.until("shard1")
    terminal.press("q")
    assert terminal.ended() == 0
"""

import os
import re
import select
import signal
import subprocess
import sys
import termios
import time
from contextlib import suppress

PATIENCE = 60.0
ESCAPES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]|\r")


class Terminal:
    """A command of `shoal` on a terminal of so many rows and columns."""

    def __init__(self, *arguments, rows=40, columns=120, kind="xterm"):
        command = [sys.executable, "-P", "-m", "cluster", *map(str, arguments)]
        env = {name: value for name, value in os.environ.items() if name not in ("COLUMNS", "LINES")}
        self.ours, self.theirs = os.openpty()
        termios.tcsetwinsize(self.theirs, (rows, columns))
        self.before = termios.tcgetattr(self.theirs)
        self.raw = ""
        where = dict.fromkeys(("stdin", "stdout", "stderr"), self.theirs)
        self.process = subprocess.Popen(command, **where, env=env | {"TERM": kind})

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.kill()
        self.process.wait()
        os.close(self.theirs)
        os.close(self.ours)

    @property
    def shown(self):
        """All that it has shown, without what steers the terminal."""
        return ESCAPES.sub("", self.raw)

    def until(self, pattern):
        """Wait until something was shown since the last wait; the match."""
        already = len(self.shown)
        deadline = time.monotonic() + PATIENCE
        while not (match := re.compile(pattern).search(self.shown, already)):
            left = deadline - time.monotonic()
            assert left > 0 and self.process.poll() is None, f"{pattern} is not in {self.shown[already:]}"
            self._read(min(left, 0.2))
        return match

    def press(self, keys):
        os.write(self.ours, keys.encode())

    def interrupt(self):
        """Ctrl-C: this is no controlling terminal, so the signal is sent."""
        self.process.send_signal(signal.SIGINT)

    def ended(self):
        """Its exit status."""
        deadline = time.monotonic() + PATIENCE
        while self.process.poll() is None:
            assert time.monotonic() < deadline, self.shown
            self._read(0.1)
        self._read(0)
        return self.process.returncode

    def is_as_before(self):
        """Whether keys are read as before the command."""
        return termios.tcgetattr(self.theirs) == self.before

    def _read(self, patience):
        while select.select([self.ours], [], [], patience)[0]:
            with suppress(OSError):
                self.raw += os.read(self.ours, 65536).decode(errors="replace")
            patience = 0
