"""An eye on the operator's file: once it was written again, a child of the supervisor says what it means now.

The child, cluster/reload.py, has the libraries that read and check a configuration; it may be slow, or hang, and holds
nothing up. It sends descriptors: that of a file with its answer, then those of the sockets that it has opened.
Standard library only, as cluster/supervisor.py.
"""

import contextlib
import json
import logging
import math
import os
import signal
import socket
import sys
import time
from collections.abc import Sequence
from typing import Any, NamedTuple

from cluster.worker import describe, spawn
from common import config_source

log = logging.getLogger("shoal.supervisor")

EVERY = 1.0  # seconds between two looks
MISSING = 3  # looks in a row that do not find the file before that is told: editors replace files
PATIENCE = 20.0  # seconds that a child may take
AGAIN = 30.0  # seconds before another child is started after one that failed
MOST_FDS = 250  # descriptors in a message; the system takes 253
READER = [sys.executable, "-P", "-m", "cluster.reload"]


class Answer(NamedTuple):
    """What the file means, or why it is not taken up."""

    refused: str
    config: Any = None  # what workers are to have, as JSON
    workers: Sequence[dict[str, Any]] = ()  # all of this node: name, kind, arguments and the number of new sockets
    sockets: Sequence[socket.socket] = ()  # of new workers, in their order


class Watch:
    """Looks at a file, and has it read when it is another than that of the stamp.

    Not before it was the same at two looks: half a file may mean something, too.
    """

    def __init__(self, file: str, stamp: Sequence[int] | None) -> None:
        self.file = file
        self.stamp = None if stamp is None else tuple(stamp)
        self.seen = self.stamp  # at the last look
        self.next = time.monotonic() + EVERY
        self.missing = 0  # looks in a row
        self.asked = False  # whether to have it read whatever its stamp
        self.again = math.inf
        self.pid = 0  # of the child; 0 while there is none
        self.deadline = math.inf
        self.channel: socket.socket | None = None  # from the child

    def __repr__(self) -> str:
        return f"<Watch {self.file}" + (f" read by {self.pid}>" if self.pid else ">")

    def due(self) -> float:
        """When to look next."""
        return self.deadline if self.pid else self.next

    def look(self, request: dict[str, Any]) -> Answer | None:
        """Have the file read if it is time for that; an answer if there is nothing to read."""
        now = time.monotonic()
        if self.pid:
            if now >= self.deadline:
                self.deadline = math.inf
                os.kill(self.pid, signal.SIGKILL)
            return None
        if now < self.next and not self.asked:
            return None
        self.next = now + EVERY
        stamp, before = config_source.stamp(self.file), self.seen
        asked, self.asked, self.seen = self.asked, False, stamp
        self.missing = self.missing + 1 if stamp is None else 0
        if stamp is None:
            self.stamp = None
            return Answer(f"{self.file}: expected a file, found none") if asked or self.missing == MISSING else None
        edited = stamp != self.stamp and stamp == before
        return self._read(request, stamp) if edited or asked or now >= self.again else None

    def ended(self, status: int) -> Answer:
        """The child is gone: its answer."""
        channel, self.channel = self.channel, None
        self.pid = 0
        assert channel is not None
        with channel:
            if status == 0:
                with contextlib.suppress(OSError, ValueError, LookupError, TypeError):
                    return _receive(channel)
        if self.deadline == math.inf:  # we have killed it
            return self._failed(f"that took more than {PATIENCE:g} s")
        return self._failed(describe(status) if status else "its answer does not add up")

    def close(self) -> None:
        """End the child, if there is one."""
        if self.pid:
            os.kill(self.pid, signal.SIGKILL)
            with contextlib.suppress(ChildProcessError):
                os.waitpid(self.pid, 0)
            self.pid = 0
        if self.channel is not None:
            self.channel.close()

    def _read(self, request: dict[str, Any], stamp: tuple[int, ...]) -> Answer | None:
        """Start a child; an answer if it cannot be started."""
        self.stamp, self.again = stamp, math.inf
        self.channel, theirs = socket.socketpair()
        with theirs:
            told = request | {"file": self.file, "channel": theirs.fileno()}
            fds = [theirs.fileno(), request["config_fd"], *(fd for each in request["workers"] for fd in each["fds"])]
            try:
                self.pid = spawn([*READER, json.dumps(told)], fds, None)
            except OSError as error:
                self.channel.close()
                return self._failed(str(error.strerror))
        self.deadline = time.monotonic() + PATIENCE
        return None

    def _failed(self, why: str) -> Answer:
        self.again = time.monotonic() + AGAIN
        return Answer(f"{self.file}: could not be looked at: {why}")


def _receive(channel: socket.socket) -> Answer:
    """All that a child has sent before its end. Raises OSError, or another error if that does not add up."""
    with contextlib.ExitStack() as failed:
        fds: list[int] = []
        channel.settimeout(1.0)  # nobody else should hold the other end
        while True:
            data, more, _, _ = socket.recv_fds(channel, 1, MOST_FDS)
            for fd in more:
                failed.callback(os.close, fd)
                os.set_inheritable(fd, False)
            fds += more
            if not data:
                break
        told = json.loads(os.pread(fds[0], os.fstat(fds[0]).st_size, 0))
        if len(fds) != 1 + sum(each["sockets"] for each in told["workers"]):
            raise OSError("too many open files")
        failed.pop_all()
    os.close(fds[0])
    return Answer(**told, sockets=[socket.socket(fileno=fd) for fd in fds[1:]])
