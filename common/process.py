"""What every worker is: started by the supervisor or by hand, periodic tasks, the admin address, an end in order.

    python -m gateway --config cluster.yaml [--name gateway1]
    python -m gateway --name gateway1 --config-fd 8 --parent-pipe 7 --fds 5,6

The second form is the supervisor's. --config-fd: what common/config_source.py writes. --parent-pipe: at its end the
supervisor is gone. --fds: listening sockets.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import logging
import signal
import socket
import sys
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, Protocol, TypeVar

import uvloop

from common import logs
from common.admin import Admin
from common.config_errors import ConfigError
from common.config_source import TornError
from common.metrics import Metrics
from common.renewal import Handed, OwnFile, Renewal

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from common.config import Config, Gateway, Shard
    from common.renewal import Source
    from common.values import Endpoint

log = logging.getLogger(__name__)

Named = TypeVar("Named", "Gateway", "Shard")

MOVE_AGAIN = 0.25  # seconds before a new admin address that cannot be had is tried again
MOVE_TRIES = 40  # before that is told: who has it may have to move, or to end, too


class AdminError(Exception):
    """The admin address cannot be listened on; the text names it and says why."""


class Start(NamedTuple):
    """How a worker was started. `name` may be empty; sockets are None if it is to open its own."""

    config: Config
    name: str
    sockets: list[socket.socket] | None
    parent_pipe: int | None
    source: Source


class Worker(Protocol):
    """A process's work."""

    config_refused: str  # why the file that the operator wrote last is not taken up; empty if it is

    @property
    def admin(self) -> AdminServer:
        """Its admin address."""

    @property
    def own(self) -> Gateway | Shard | None:
        """Which process of the configuration it is; None if it is all of them."""

    async def start(self) -> None:
        """Begin."""

    async def stop(self) -> None:
        """End in order."""

    def hang_up(self) -> None:
        """SIGHUP: read again what may have changed, but for the configuration."""

    def reconfigure(self, config: Config) -> None:
        """Take up another configuration. Raises ConfigError if it cannot; then the old one stays."""

    def tell(self) -> None:
        """Print where it is reached, once it is."""


class Periodic:
    """Tasks that are done again and again, and the health that follows: all is well while none has failed.

    facts: what /health shows beside.
    """

    def __init__(self, facts: dict[str, str]) -> None:
        self.facts = facts
        self.timers: list[asyncio.TimerHandle] = []
        self.failed: set[str] = set()  # tasks whose last run failed

    def every(self, seconds: float, name: str, call: Callable[[], float | None]) -> None:
        """Call again and again, after `seconds` or what the call returns; a failure is logged and does not end it."""
        loop = asyncio.get_running_loop()
        place = len(self.timers)

        def run() -> None:
            pause = None
            try:
                pause = call()
                self.failed.discard(name)
            except Exception:
                self.failed.add(name)
                log.exception("a periodic task failed: %s", name)
            self.timers[place] = loop.call_later(pause or seconds, run)

        self.timers.append(loop.call_later(seconds, run))

    def cancel(self) -> None:
        """No more."""
        for timer in self.timers:
            timer.cancel()

    def health(self) -> dict[str, object]:
        """Whether all is well: what is to be done periodically was done, and no kernel failed."""
        failed = sorted(self.failed)
        faults = logs.kernel_faults()
        ok = not failed and faults == 0
        status = "ok" if ok else "failing"
        return {"ok": ok, "status": status, "failed_tasks": failed, "kernel_faults": faults, **self.facts}

    def healthy(self) -> bool:
        """Whether all is well."""
        return self.health()["ok"] is True


class AdminServer:
    """The admin address of a worker."""

    def __init__(self, address: Endpoint | None, health: Callable[[], dict[str, object]]) -> None:
        self.address = address
        self.metrics = Metrics()
        self.admin = Admin(self.metrics, health)
        self.moving: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Begin to serve. Raises AdminError if the address cannot be had."""
        if self.address is None:
            return
        try:
            await self.admin.start(str(self.address.address), self.address.port)
        except OSError as error:
            raise AdminError(f"admin: cannot listen on {self.address} (TCP): {error.strerror or error}") from error

    def move(self, address: Endpoint | None) -> None:
        """Serve at another address as soon as it can be had: it may be that of a process that has to move, too."""
        if address == self.address:
            return
        self.address = address
        if self.moving is None or self.moving.done():
            self.moving = asyncio.get_running_loop().create_task(self._follow())

    async def stop(self) -> None:
        """End all connections."""
        if self.moving is not None:
            self.moving.cancel()
            await asyncio.wait([self.moving])
        with contextlib.suppress(TimeoutError):
            await self.admin.stop()

    async def _follow(self) -> None:
        """Serve at the address, whatever that becomes meanwhile."""
        tries = 0
        while True:
            with contextlib.suppress(TimeoutError):
                await self.admin.stop()
            wanted = self.address
            try:
                await self.start()
            except AdminError as error:
                tries += 1
                if tries % MOVE_TRIES == 0:
                    log.warning("%s; it is tried again", error)
                await asyncio.sleep(MOVE_AGAIN)
            else:
                if wanted == self.address:
                    return


def choose(processes: Sequence[Named], name: str, kind: str) -> Named:
    """The process of this name, or the only one. Raises ConfigError."""
    names = ", ".join(str(process.name) for process in processes)
    if not name and len(processes) == 1:
        return processes[0]
    for process in processes:
        if process.name == name:
            return process
    raise ConfigError(kind, f"one of {names}, given by --name", repr(name) if name else "none")


def read_arguments(program: str, words: Sequence[str]) -> Start:
    """What the command line says. Raises ConfigError, TornError; exits with 2 if it cannot be understood."""
    parser = argparse.ArgumentParser(prog=program)
    either = parser.add_mutually_exclusive_group(required=True)
    either.add_argument("--config", type=Path, help="the configuration file")
    either.add_argument("--config-fd", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--name", default="", help="which process of the file; may be left out if there is but one")
    parser.add_argument("--fds", help=argparse.SUPPRESS)
    parser.add_argument("--parent-pipe", type=int, help=argparse.SUPPRESS)
    args = parser.parse_args(words)
    source: Source = OwnFile(args.config) if args.config else Handed(args.config_fd)
    wanted = source.first()
    sockets = None if args.fds is None else [socket.socket(fileno=int(fd)) for fd in args.fds.split(",") if fd]
    return Start(wanted, args.name, sockets, args.parent_pipe, source)


def run(
    program: str, make: Callable[[Start], Worker], mistakes: tuple[type[Exception], ...], words: Sequence[str]
) -> int:
    """Be a worker until told to stop. Exit code 0 after a clean stop, 2 if its configuration can never work.

    make: is called on the running loop. mistakes: what else it raises that is the operator's to mend; one line, and
    exit code 1, as such things pass: a port is free again, an address or a file is there.
    """
    try:
        start = read_arguments(program, words)
    except (ConfigError, TornError) as error:
        print(f"{program}: {error}", file=sys.stderr)
        return 2 if isinstance(error, ConfigError) else 1
    how = start.config.log
    logs.set_up(how.level, how.format, addresses=how.addresses, process=start.name)
    try:
        uvloop.run(_serve(start, make))
    except Exception as error:
        if not isinstance(error, (ConfigError, AdminError, *mistakes)):
            raise
        log.error("%s", error)
        return 2 if isinstance(error, ConfigError) else 1
    return 0


async def _serve(start: Start, make: Callable[[Start], Worker]) -> None:
    """Run until SIGTERM, SIGINT, or the supervisor's end."""
    loop = asyncio.get_running_loop()
    done = asyncio.Event()
    worker = make(start)
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, done.set)
    node = start.config.node_of(worker.own or start.config.gateways[0])
    renewal = Renewal(worker, start.source, start.config, node)
    loop.add_signal_handler(signal.SIGHUP, renewal.hang_up)
    if start.parent_pipe is not None:
        loop.add_reader(start.parent_pipe, done.set)
    await worker.start()
    with contextlib.suppress(OSError):  # nobody may read it: no reason not to serve
        worker.tell()
    renewal.begin()
    await done.wait()
    renewal.end()
    if start.parent_pipe is not None:
        loop.remove_reader(start.parent_pipe)
    await worker.stop()
