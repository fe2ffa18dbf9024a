"""`shoal up`, second half: a small process that keeps a worker running.

It holds the listening sockets, so datagrams that arrive while no worker runs wait in them, and the write end of a
pipe whose end a worker reads when the supervisor has died. It is started by cluster/start.py as

    python -P -m cluster.supervisor FDS CONFIG_FD LEVEL FORMAT

and stays small by importing nothing but the standard library.

Signals: SIGTERM and SIGINT stop the worker (SIGTERM, 4 s later SIGKILL) and end with 0; SIGHUP is passed on.
Exit status 1: the worker refused its configuration (2), or five workers in a row ended within a second.
"""

import logging
import os
import signal
import sys
import time
from collections.abc import Sequence

from common import logs

log = logging.getLogger("shoal.supervisor")

STOPS = frozenset({signal.SIGTERM, signal.SIGINT})
WATCHED = STOPS | {signal.SIGHUP, signal.SIGCHLD}

PATIENCE = 4.0  # seconds that a worker has to save and exit
FIRST_DELAY, LAST_DELAY = 0.1, 10.0  # seconds before another worker is started
SETTLED = 60.0  # a worker that ran for so long has the first delay again
QUICK = 1.0
MOST_QUICK = 5
REFUSED = 2  # a worker's exit status: its configuration cannot work


class Supervisor:
    """Keeps one worker running until it is told to stop.

    `command` starts a worker; `--fds`, `--parent-pipe` and `--config-fd` are added to it.
    """

    def __init__(self, command: Sequence[str], sockets: Sequence[int], config_fd: int) -> None:
        self.config_fd = config_fd
        parent_pipe, self.alive = os.pipe()  # nothing is ever written; it closes when this process ends
        for fd in (*sockets, config_fd, parent_pipe):
            os.set_inheritable(fd, True)
        fds = ",".join(map(str, sockets))
        self.command = [*command, "--fds", fds, "--parent-pipe", str(parent_pipe), "--config-fd", str(config_fd)]
        self.worker = 0  # its pid; 0 while there is none
        self.started = 0.0
        self.delay = FIRST_DELAY
        self.quick = 0  # workers in a row that ended within QUICK

    def __repr__(self) -> str:
        state = f"worker {self.worker}" if self.worker else f"no worker, next in {self.delay:g} s"
        return f"<Supervisor {state}>"

    def run(self) -> int:
        """Start workers until a signal or their failures end it; the exit status."""
        # Signals are taken from the queue where it suits; they never interrupt.
        signal.pthread_sigmask(signal.SIG_BLOCK, WATCHED)
        signal.signal(signal.SIGHUP, signal.SIG_IGN)  # inherited: a worker has no handler yet while it starts
        while True:
            status = self.start() or self.watch()
            if status is None:
                return 0
            if self.hopeless(status):
                return 1
            if not self.rest():
                return 0

    def start(self) -> int | None:
        """Start a worker; an exit status if even that failed."""
        os.lseek(self.config_fd, 0, os.SEEK_SET)  # whoever reads it reads from its start
        self.started = time.monotonic()
        try:
            # Its own process group: Ctrl-C on a terminal reaches the supervisor alone, which stops it in order.
            self.worker = os.posix_spawn(self.command[0], self.command, os.environ, setpgroup=0, setsigmask=())
        except OSError as error:
            log.error("no worker could be started: %s", error.strerror)
            return 1
        log.info("worker %d started", self.worker)
        return None

    def watch(self) -> int | None:
        """Wait for the worker's end: its exit status, or None if it was stopped by a signal to us."""
        while True:
            number = signal.sigwaitinfo(WATCHED).si_signo
            if number in STOPS:
                self.stop()
                return None
            if number == signal.SIGHUP:
                os.kill(self.worker, signal.SIGHUP)
            elif (status := self.reap()) is not None:
                return status

    def stop(self) -> None:
        """End the worker, in PATIENCE by its own hand or else by force."""
        os.kill(self.worker, signal.SIGTERM)
        deadline = time.monotonic() + PATIENCE
        while (left := deadline - time.monotonic()) > 0:
            if signal.sigtimedwait({signal.SIGCHLD}, left) and self.reap() is not None:
                log.info("worker stopped")
                return
        log.warning("worker %d did not stop within %g s and is killed", self.worker, PATIENCE)
        os.kill(self.worker, signal.SIGKILL)
        os.waitpid(self.worker, 0)

    def reap(self) -> int | None:
        """The worker's exit status if it has ended; other children are there if we are a container's first process."""
        try:
            while (ended := os.waitpid(-1, os.WNOHANG))[0]:
                if ended[0] == self.worker:
                    self.worker = 0
                    return os.waitstatus_to_exitcode(ended[1])
        except ChildProcessError:
            pass
        return None

    def hopeless(self, status: int) -> bool:
        """Note how a worker ended; whether it is no use to start another."""
        lived = time.monotonic() - self.started
        self.quick = self.quick + 1 if lived < QUICK else 0
        if lived >= SETTLED:
            self.delay = FIRST_DELAY
        if status == REFUSED:
            log.error("the worker cannot work with this configuration")
            return True
        if self.quick >= MOST_QUICK:
            log.error("worker ended: %s; %d in a row ended at once, giving up", describe(status), self.quick)
            return True
        log.error("worker ended after %.1f s: %s; another in %g s", lived, describe(status), self.delay)
        return False

    def rest(self) -> bool:
        """Wait before the next worker; False if a signal ended the wait."""
        deadline = time.monotonic() + self.delay
        self.delay = min(2 * self.delay, LAST_DELAY)
        while (left := deadline - time.monotonic()) > 0:
            got = signal.sigtimedwait(WATCHED, left)
            if got and got.si_signo in STOPS:
                return False
            self.reap()
        return True


def describe(status: int) -> str:
    """An exit status in words."""
    if status >= 0:
        return f"exit status {status}"
    return f"killed by {signal.Signals(-status).name}"


def main(arguments: Sequence[str]) -> int:
    """The process: see the head of this file."""
    fds, config_fd, level, fmt = arguments
    logs.set_up(level, fmt)
    worker = [sys.executable, "-P", "-m", "cluster.embedded"]
    return Supervisor(worker, [int(fd) for fd in fds.split(",")], int(config_fd)).run()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
