"""One worker of the supervisor: its process, its sockets, and when another is started in its place.

Standard library only, as cluster/supervisor.py.
"""

import logging
import math
import os
import signal
import socket
import sys
import time
from collections.abc import Sequence
from typing import NamedTuple

from common import sockets

log = logging.getLogger("shoal.supervisor")

FIRST_DELAY, LAST_DELAY = 0.1, 10.0  # seconds before another process is started
SETTLED = 60.0  # one that ran for so long has the first delay again, and is no part of a crash loop
MOST_SHORT = 5  # lives below SETTLED, in a row
AGAIN = 30.0  # seconds before one that is taken out is tried again
REFUSED = 2  # exit status: the configuration cannot work; 1 is for what may pass by itself
NOT_STARTED = 127


class User(NamedTuple):
    """Whom a process runs as."""

    name: str
    uid: int
    gid: int
    groups: Sequence[int]

    def become(self) -> None:
        """For good. Raises OSError."""
        os.setgroups(self.groups)
        os.setgid(self.gid)
        os.setuid(self.uid)


class Worker:
    """A process that is kept running.

    Its sockets stay open while there is none, so that what comes waits for the next. If five in a row end within
    a minute each it is taken out: the sockets are closed, so that the system gives all to others at the same port,
    and they are opened again for a try now and then. `out` is true from then to the try; for good if it refuses its
    configuration, unless it has worked with that: `settled` is true once it has run for a minute.

    kind: what of the configuration it is. One that is `leaving` is not started again. place: where a shard is, and
    listens.
    """

    def __init__(
        self, name: str, command: Sequence[str], listening: list[socket.socket], user: User | None, kind: str = ""
    ) -> None:
        self.name = name
        self.kind = kind
        self.command = command
        self.sockets = listening
        self.user = user
        self.notes: list[sockets.Note] = []  # of sockets that are closed
        self.pid = 0  # 0 while there is none
        self.started = 0.0
        self.due = 0.0  # when to start
        self.out = False
        self.delay = FIRST_DELAY
        self.short = 0  # lives below SETTLED, in a row
        self.settled = False  # whether it ever ran for so long
        self.leaving = False
        self.place: dict[str, str] = {}
        self.deadline = math.inf  # when it is killed

    def __repr__(self) -> str:
        return f"<Worker {self.name} " + (f"{self.pid}>" if self.pid else "taken out>" if self.out else "waiting>")

    def start(self, parent_pipe: int, config_fd: int) -> None:
        """Start a process; a failure to do so counts as the end of one."""
        self.started = time.monotonic()
        try:
            if self.notes:
                self.sockets, self.notes = sockets.open_again(self.notes), []
            self.out = False
            fds = [sock.fileno() for sock in self.sockets]
            command = [*self.command, *(["--fds", ",".join(map(str, fds))] if fds else [])]
            command += ["--parent-pipe", str(parent_pipe), "--config-fd", str(config_fd)]
            self.pid = spawn(command, [*fds, parent_pipe, config_fd], self.user)
        except OSError as error:
            log.error("%s could not be started: %s", self.name, error.strerror)
            self.ended(NOT_STARTED)
        else:
            log.info("%s started, pid %d", self.name, self.pid)

    def ended(self, status: int) -> None:
        """Its process is gone: decide when there is another."""
        now = time.monotonic()
        lived = now - self.started
        self.pid = 0
        self.short += 1
        if lived >= SETTLED:
            self.settled = True
            self.short = 0
            self.delay = FIRST_DELAY
        how = describe(status)
        if status == REFUSED and not self.settled:
            self.take_out(math.inf)
            log.error("%s cannot work with this configuration and is taken out for good", self.name)
        elif self.short >= MOST_SHORT:
            self.take_out(now + AGAIN)
            lives = f"{self.short} in a row ended within {SETTLED:g} s"
            log.error("%s ended after %.1f s: %s; %s, it is taken out", self.name, lived, how, lives)
        else:
            log.error("%s ended after %.1f s: %s; another in %g s", self.name, lived, how, self.delay)
            self.due = now + self.delay
            self.delay = min(2 * self.delay, LAST_DELAY)

    def take_out(self, due: float) -> None:
        """Close its sockets until then."""
        self.out = True
        self.due = due
        self.notes = self.notes or [sockets.note(sock) for sock in self.sockets]
        self.close()

    def close(self) -> None:
        """Close its sockets."""
        for sock in self.sockets:
            sock.close()
        self.sockets = []

    def renew(self) -> None:
        """There is another configuration: have its process read it, or try again if the last one was refused."""
        if self.pid:
            os.kill(self.pid, signal.SIGHUP)
        elif self.due == math.inf:
            self.due = 0.0

    def leave(self, patience: float) -> None:
        """End its process, in so many seconds."""
        now = time.monotonic()
        if self.deadline == math.inf:
            self.deadline = now + patience
            os.kill(self.pid, signal.SIGTERM)
        elif now >= self.deadline:
            self.deadline = now + patience
            log.warning("%s did not stop within %g s and is killed", self.name, patience)
            os.kill(self.pid, signal.SIGKILL)


def spawn(command: list[str], fds: Sequence[int], user: User | None) -> int:
    """Start a process that inherits these descriptors; its pid. Raises OSError if there can be no more processes."""
    pid = os.fork()
    if pid:
        return pid
    try:
        # Its own process group: Ctrl-C on a terminal reaches the supervisor alone, which stops all in order.
        os.setpgid(0, 0)
        for fd in fds:
            os.set_inheritable(fd, True)
        if user is not None:
            user.become()
        signal.pthread_sigmask(signal.SIG_SETMASK, ())
        os.execv(command[0], command)
    except OSError as error:
        log.error("%s: %s", " ".join(command), error.strerror)
    finally:
        sys.stderr.flush()
        os._exit(NOT_STARTED)


def describe(status: int) -> str:
    """An exit status in words."""
    if status >= 0:
        return f"exit status {status}"
    return f"killed by {signal.Signals(-status).name}"
