"""`shoal up`, second half: a small process that keeps the workers of a node running.

It holds their listening sockets, so what arrives while a worker is started again waits in them, and the write end
of a pipe whose end workers read when the supervisor has died. It is started by cluster/start.py as

    python -P -m cluster.supervisor PLAN

PLAN is JSON: level and format of the log, config_fd, lock (null, or a descriptor to be kept), user (null, or name,
uid, gid, groups), and workers: name, arguments (of Python), fds. It stays small by importing nothing but the
standard library, and has one thread: it forks.

Signals: SIGTERM and SIGINT stop the workers (SIGTERM, 4 s later SIGKILL), first those with sockets, then the
others, and end with 0; SIGHUP is passed on.
Exit status 1: every worker is taken out, and none of them ever ran for a minute, or all refuse their configuration.
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

from cluster.worker import User, Worker
from common import logs

log = logging.getLogger("shoal.supervisor")

STOPS = frozenset({signal.SIGTERM, signal.SIGINT})
WATCHED = STOPS | {signal.SIGHUP, signal.SIGCHLD}

PATIENCE = 4.0  # seconds that a worker has to save and exit
FAREWELL = 1.0  # more for shards, which tell the gateways of all nodes first


class Supervisor:
    """Keeps workers running until it is told to stop."""

    def __init__(self, workers: Sequence[Worker], config_fd: int) -> None:
        self.workers = workers
        self.config_fd = config_fd
        self.parent_pipe, self.alive = os.pipe()  # nothing is ever written; it closes when this process ends
        for fd in (config_fd, *(sock.fileno() for worker in workers for sock in worker.sockets)):
            os.set_inheritable(fd, False)  # each worker gets its own: a socket that others hold too stays open

    def __repr__(self) -> str:
        return f"<Supervisor {list(self.workers)}>"

    def run(self) -> int:
        """Start workers until a signal or their failures end it; the exit status."""
        # Signals are taken from the queue where it suits; they never interrupt.
        signal.pthread_sigmask(signal.SIG_BLOCK, WATCHED)
        signal.signal(signal.SIGHUP, signal.SIG_IGN)  # inherited: a worker has no handler yet while it starts
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # if whoever started us ignores it, no end would be told
        while True:
            self.start()
            if self.is_over():
                log.error("no worker is left")
                return 1
            number = self.wait()
            if number in STOPS:
                self.stop()
                return 0
            if number == signal.SIGHUP:
                for worker in self.running():
                    os.kill(worker.pid, signal.SIGHUP)
            for worker, status in self.reap():
                worker.ended(status)

    def is_over(self) -> bool:
        """Whether there is nothing to wait for: what worked once may work again, as soon as a port is free."""
        if not all(worker.out for worker in self.workers):
            return False
        return all(worker.due == math.inf for worker in self.workers) or not any(one.settled for one in self.workers)

    def running(self) -> list[Worker]:
        """The workers that have a process."""
        return [worker for worker in self.workers if worker.pid]

    def start(self) -> None:
        """Start the workers that are due."""
        for worker in self.workers:
            if not worker.pid and worker.due <= time.monotonic():
                worker.start(self.parent_pipe, self.config_fd)

    def wait(self) -> int:
        """Wait for a signal, its number, or until a worker is due, 0."""
        due = min((worker.due for worker in self.workers if not worker.pid), default=math.inf)
        if due == math.inf:
            return signal.sigwaitinfo(WATCHED).si_signo
        got = signal.sigtimedwait(WATCHED, max(0.0, due - time.monotonic()))
        return got.si_signo if got else 0

    def reap(self) -> list[tuple[Worker, int]]:
        """The workers that have ended, and their exit statuses."""
        ended = []
        by_pid = {worker.pid: worker for worker in self.running()}
        try:
            while (gone := os.waitpid(-1, os.WNOHANG))[0]:
                # Other children are there if we are a container's first process.
                if worker := by_pid.get(gone[0]):
                    worker.pid = 0
                    ended.append((worker, os.waitstatus_to_exitcode(gone[1])))
        except ChildProcessError:
            pass
        return ended

    def stop(self) -> None:
        """End all: gateways first, while there still are shards that answer them."""
        self.end([worker for worker in self.running() if worker.sockets], PATIENCE)
        self.end(self.running(), PATIENCE + FAREWELL)

    def end(self, workers: Sequence[Worker], patience: float) -> None:
        """End some, by their own hand or else by force."""
        for worker in workers:
            os.kill(worker.pid, signal.SIGTERM)
        deadline = time.monotonic() + patience
        while any(worker.pid for worker in workers) and (left := deadline - time.monotonic()) > 0:
            signal.sigtimedwait({signal.SIGCHLD}, left)
            for worker, _ in self.reap():
                log.info("%s stopped", worker.name)
        for worker in workers:
            if worker.pid:
                log.warning("%s did not stop within %g s and is killed", worker.name, patience)
                os.kill(worker.pid, signal.SIGKILL)
                with contextlib.suppress(ChildProcessError):
                    os.waitpid(worker.pid, 0)
                worker.pid = 0


def main(arguments: Sequence[str]) -> int:
    """The process: see the head of this file."""
    plan = json.loads(arguments[0])
    logs.set_up(plan["level"], plan["format"], process="supervisor")
    if plan["lock"] is not None:
        os.set_inheritable(plan["lock"], False)  # it is held for as long as this process lives, and no longer
    user = User(**plan["user"]) if plan["user"] else None
    workers = []
    for each in plan["workers"]:
        command = [sys.executable, "-P", *each["arguments"]]
        workers.append(Worker(each["name"], command, [socket.socket(fileno=fd) for fd in each["fds"]], user))
    return Supervisor(workers, plan["config_fd"]).run()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
