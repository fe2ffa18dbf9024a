"""`shoal up`, second half: a small process that keeps the workers of a node running.

It holds their listening sockets, so what arrives while a worker is started again waits in them, and the write end
of a pipe whose end workers read when the supervisor has died. It is started by cluster/start.py as

    python -P -m cluster.supervisor PLAN

PLAN is JSON: level and format of the log, config_fd, lock (null, or a descriptor to be kept), user (null, or name,
uid, gid, groups), node, file (null, or what to take up when it is edited) and its stamp, and workers: name, kind,
arguments (of Python), fds. It stays small by importing nothing but the standard library, and has one thread: it forks.

An edited file is read by cluster/reload.py. Workers get SIGHUP then and read their configuration again. Those that are
new on the node are started. Those that it lacks are not started again: gateways are ended, shards end by themselves
once others have what they hold.

Signals: SIGTERM and SIGINT stop the workers (SIGTERM, 4 s later SIGKILL), first those with sockets, then the
others, and end with 0; SIGHUP is passed on, and has the file read again.
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
from typing import Any

from cluster.watch import Answer, Watch
from cluster.worker import User, Worker, describe
from common import config_source, logs

log = logging.getLogger("shoal.supervisor")

STOPS = frozenset({signal.SIGTERM, signal.SIGINT})
WATCHED = STOPS | {signal.SIGHUP, signal.SIGCHLD}

PATIENCE = 4.0  # seconds that a worker has to save and exit
SHARD = "shard"  # a kind of worker
FAREWELL = 1.0  # more for shards, which tell the gateways of all nodes first


class Supervisor:
    """Keeps workers running until it is told to stop.

    watch: of the operator's file, if there is one. request: what its reader is told of this process.
    """

    def __init__(
        self,
        workers: Sequence[Worker],
        config_fd: int,
        watch: Watch | None = None,
        request: dict[str, Any] | None = None,
        user: User | None = None,
    ) -> None:
        self.workers = list(workers)
        self.config_fd = config_fd
        self.watch = watch
        self.request = request or {}
        self.user = user
        self.given = config_source.read(config_fd)
        self.told = ""  # what was refused last
        # Workers may read it only: root acts by what is there.
        os.fchmod(config_fd, 0o600)
        self.reading_fd = os.open(f"/dev/fd/{config_fd}", os.O_RDONLY | os.O_CLOEXEC)
        self.parent_pipe, self.alive = os.pipe()  # nothing is ever written; it closes when this process ends
        for fd in (config_fd, *(sock.fileno() for worker in workers for sock in worker.sockets)):
            os.set_inheritable(fd, False)  # each worker gets its own: a socket that others hold too stays open

    def __repr__(self) -> str:
        return f"<Supervisor {self.workers}>"

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
                self.hang_up()
            for worker, status in self.reap():
                if worker.leaving:
                    log.info("%s has left: %s", worker.name, describe(status))
                else:
                    worker.ended(status)
            if self.watch and (answer := self.watch.look(self.tell_reader())):
                self.take_up(answer)
            self.dismiss()

    def is_over(self) -> bool:
        """Whether there is nothing to wait for: what worked once may work again, as soon as a port is free."""
        staying = [worker for worker in self.workers if not worker.leaving]
        if not staying or not all(worker.out for worker in staying):  # a node without workers waits for an edit
            return False
        return all(worker.due == math.inf for worker in staying) or not any(one.settled for one in staying)

    def running(self) -> list[Worker]:
        """The workers that have a process."""
        return [worker for worker in self.workers if worker.pid]

    def waiting(self) -> list[Worker]:
        """The workers that will have a process; not before another of that name is gone."""
        leaving = {worker.name for worker in self.workers if worker.leaving}
        return [worker for worker in self.workers if not worker.pid and worker.name not in leaving]

    def start(self) -> None:
        """Start the workers that are due."""
        for worker in self.waiting():
            if worker.due <= time.monotonic():
                worker.start(self.parent_pipe, self.reading_fd)

    def wait(self) -> int:
        """Wait for a signal, its number, or until something is due, 0."""
        times = [worker.due for worker in self.waiting()]
        times += [worker.deadline for worker in self.running()]
        times += [self.watch.due()] if self.watch else []
        due = min(times, default=math.inf)
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
                status = os.waitstatus_to_exitcode(gone[1])
                # Other children are there if we are a container's first process.
                if worker := by_pid.get(gone[0]):
                    worker.pid = 0
                    ended.append((worker, status))
                elif self.watch and gone[0] == self.watch.pid:
                    self.take_up(self.watch.ended(status))
        except ChildProcessError:
            pass
        return ended

    def hang_up(self) -> None:
        """SIGHUP: all workers read again what may have changed, and the file is looked at."""
        for worker in self.running():
            os.kill(worker.pid, signal.SIGHUP)
        if self.watch:
            self.watch.asked = True
            self.told = ""

    def tell_reader(self) -> dict[str, Any]:
        """What the reader of an edited file must know."""
        workers = [
            {
                "name": worker.name,
                "kind": worker.kind,
                "leaving": worker.leaving,
                "place": worker.place,
                "fds": [sock.fileno() for sock in worker.sockets],
            }
            for worker in self.workers
        ]
        return {**self.request, "config_fd": self.reading_fd, "workers": workers}

    def take_up(self, answer: Answer) -> None:
        """Go by what the file means now; if it is refused, by what was taken up before."""
        if answer.refused:
            if answer.refused != self.told:
                log.warning("the configuration is not taken up: %s", answer.refused, extra={"unlimited": True})
            self.told = answer.refused
            self.give(self.given.config, answer.refused)
            return
        self.told = ""
        wanted = {(each["name"], each["kind"]) for each in answer.workers}
        for worker in self.workers:  # a shard that has not left yet may stay
            worker.leaving = (worker.name, worker.kind) not in wanted or worker.deadline < math.inf
        present = {(worker.name, worker.kind) for worker in self.workers if not worker.leaving}
        self.give(answer.config, "")
        opened = list(answer.sockets)
        if opened:  # at ports that those may have had to themselves who are taken out now
            for worker in self.workers:
                worker.notes = [one._replace(shared=True) for one in worker.notes]
        for each in answer.workers:
            if (each["name"], each["kind"]) not in present:
                mine, opened = opened[: each["sockets"]], opened[each["sockets"] :]
                self.workers.append(make_worker(each, mine, self.user))
        if not wanted:
            log.warning("the configuration has nothing for this node to run: it waits for another edit")

    def give(self, config: Any, refused: str) -> None:
        """Have workers read this, if it is new."""
        given = config_source.Given(config, refused)
        if given == self.given:
            return
        if config != self.given.config:
            log.info("version %d of the configuration is taken up", config["version"], extra={"unlimited": True})
        self.given = given
        config_source.write(self.config_fd, config, refused)
        for worker in self.workers:
            if not worker.leaving or worker.kind == SHARD:
                worker.renew()

    def dismiss(self) -> None:
        """End the workers that leave, but for shards, who know when they may; forget those that are gone."""
        for worker in self.workers:
            if worker.leaving and worker.pid and worker.kind != SHARD:
                worker.leave(PATIENCE)
            if worker.leaving and not worker.pid:
                worker.close()
        self.workers = [worker for worker in self.workers if worker.pid or not worker.leaving]

    def stop(self) -> None:
        """End all: gateways first, while there still are shards that answer them."""
        if self.watch:
            self.watch.close()
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
    workers = [make_worker(each, [socket.socket(fileno=fd) for fd in each["fds"]], user) for each in plan["workers"]]
    watch = Watch(plan["file"], plan["stamp"]) if plan["file"] else None
    request = {name: plan[name] for name in ("level", "format", "user", "node")}
    return Supervisor(workers, plan["config_fd"], watch, request, user).run()


def make_worker(described: dict[str, Any], sockets: list[socket.socket], user: User | None) -> Worker:
    """A worker as a plan describes it."""
    command = [sys.executable, "-P", *described["arguments"]]
    worker = Worker(described["name"], command, sockets, user, described["kind"])
    worker.place = described.get("place", {})
    return worker


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
