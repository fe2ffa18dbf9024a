"""Whom a load goes to: a Shoal started for it, embedded or a cluster, or a tracker that runs already."""

from __future__ import annotations

import ipaddress
import os
import platform
import random
import signal
import socket
import time
from collections import Counter
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import urlsplit

from loadtests import clusters
from loadtests.clusters import Shape, Tracker
from loadtests.load.endpoints import has_ipv6

if TYPE_CHECKING:
    from collections.abc import Iterator

SHAPES = {"embedded": Shape("embedded"), "cluster": Shape("ipc", 2, 3)}
FIRST, LAST = 20_000, 30_000  # ports that are tried
PATIENCE = 3.0  # seconds for an answer of one that runs
SPAN = 60  # ports that a cluster takes, links and admin addresses included
# What the tracker says of what it did not answer: metric, and words.
REFUSALS = {
    "shoal_socket_drops_total": "datagrams dropped by the system, as a socket's buffer was full",
    "shoal_link_shed_total": "announces shed, as a shard had too much to do",
    "shoal_refusals_total": "datagrams refused, for limits or as malformed",
    "shoal_empty_answers_total": "answers without peers, as no shard was heard",
}


class Address(NamedTuple):
    """Of a tracker."""

    host: str
    port: int


class Subject:
    """A tracker under load. `tracker` is None if others have started it: then its processes are not ours to touch."""

    def __init__(self, name: str, address: Address, tracker: Tracker | None = None) -> None:
        self.name = name
        self.address = address
        self.tracker = tracker

    def spent(self) -> Counter[str]:
        """Nanoseconds of processor time so far by role; nothing if its processes are not ours."""
        return Counter() if self.tracker is None else spent(self.tracker)

    def resident(self) -> dict[str, float]:
        """MiB by role; nothing if its processes are not ours."""
        total: dict[str, float] = {}
        for pid in self.pids():
            role = clusters.role_of(pid)
            total[role] = total.get(role, 0) + clusters.resident(pid)
        return total

    def refused(self) -> dict[str, float]:
        """What it did not answer so far, by metric; nothing if it cannot be asked. Costs its gateways milliseconds."""
        lines = self.metrics()
        total = dict.fromkeys(REFUSALS, 0.0) if lines else {}
        for line in lines:
            name, _, value = line.rpartition(" ")
            name = name.partition("{")[0]
            if name in total:
                total[name] += float(value)
        return total

    def metrics(self) -> list[str]:
        """Lines of its gateways' metrics; none of those that do not answer."""
        if self.tracker is None or self.tracker.shape is None:
            return []
        lines: list[str] = []
        for number in range(self.tracker.shape.gateways):
            with suppress(OSError):
                lines += self.tracker.metrics(number)
        return lines

    def pids(self) -> list[int]:
        """All of its processes, if they are ours."""
        return [] if self.tracker is None else clusters.descendants(self.tracker.process.pid)

    def workers(self) -> list[int]:
        """Those of its processes that serve, gateways first: all but the supervisor."""
        return sorted(self.pids()[1:], key=lambda pid: (clusters.role_of(pid) != "gateway", pid))


def spent(tracker: Tracker) -> Counter[str]:
    """As Tracker.spent, though a process may end meanwhile."""
    while True:
        try:
            return tracker.spent()
        except (FileNotFoundError, ProcessLookupError):
            continue


def read_address(text: str) -> Address | None:
    """udp://HOST:PORT as an address; None for the names of what is started. Raises ValueError."""
    if text in SHAPES:
        return None
    parts = urlsplit(text)
    wrong = f"no tracker: {text!r}. Expected {', '.join(SHAPES)}, or udp://HOST:PORT of one that runs"
    try:
        if parts.scheme not in ("udp", "http") or not parts.hostname or not parts.port:
            raise ValueError(wrong)
    except ValueError:  # a port that is none
        raise ValueError(wrong) from None
    return Address(resolve(parts.hostname, parts.port), parts.port)


def resolve(host: str, port: int) -> str:
    """The address of a host. Raises ValueError."""
    try:
        return str(ipaddress.ip_address(host))
    except ValueError:
        pass
    try:
        return str(socket.getaddrinfo(host, port, socket.AF_INET, socket.SOCK_DGRAM)[0][4][0])
    except OSError as error:
        raise ValueError(f"no address of {host}: {error.strerror}") from None


@contextmanager
def subject(name: str, folder: Path) -> Iterator[Subject]:
    """The tracker that is asked for: started, and ended at the end, or one that runs."""
    address = read_address(name)
    if address is not None:
        if not clusters.speaks_udp(address.port, address.host, PATIENCE):
            raise RuntimeError(f"{name} does not answer")
        yield Subject(name, address)
        return
    shape, port = SHAPES[name], free_port()
    listen = [f"127.0.0.1:{port}", *([f"[::1]:{port}"] if has_ipv6() else [])]
    gateways = [{"name": f"g{n}", "listen": listen} for n in range(shape.gateways)]
    file = clusters.write_config(folder / name, port, shape, gateways=gateways)
    with clusters.started(name, port, clusters.shoal_command(file), shape) as tracker:
        yield Subject(name, Address("127.0.0.1", port), tracker)


def free_port() -> int:
    """A port, such that those after it that a cluster takes are free as well."""
    while True:
        first = random.randrange(FIRST, LAST - SPAN, SPAN)
        if all(is_free(port) for port in range(first, first + SPAN)):
            return first


def is_free(port: int) -> bool:
    """Whether nobody has a port of loopback, by TCP or UDP."""
    return all(clusters.is_free(port, host) for host in ("127.0.0.1", *(["::1"] if has_ipv6() else [])))


def replaced(subject: Subject, pid: int, sign: signal.Signals, patience: float = 30.0) -> None:
    """End a worker by a signal, and wait until the supervisor's next one serves. Raises RuntimeError if none does."""
    assert subject.tracker is not None
    many = len(subject.workers())
    os.kill(pid, sign)
    deadline = time.monotonic() + patience
    while not ended(subject, pid, many):
        if time.monotonic() > deadline:
            raise RuntimeError(f"a process of the tracker did not come back after {sign.name}")
        time.sleep(0.05)
    subject.tracker.wait(clusters.speaks_udp)


def ended(subject: Subject, pid: int, many: int) -> bool:
    """Whether a worker is gone, and there are as many as before."""
    try:
        workers = subject.workers()
    except (FileNotFoundError, ProcessLookupError):  # one ended while it was looked at
        return False
    return pid not in workers and len(workers) == many


def share_cores() -> None:
    """Keep this process, and those it starts, off the tracker's core, if there is another one."""
    cores = os.sched_getaffinity(0)
    if len(cores) > 1:
        os.sched_setaffinity(0, cores - {min(cores)})


def machine() -> str:
    """What it runs on, in a few words: cores, processor, kernel, Python."""
    system = f"Linux {platform.release()}, Python {platform.python_version()}"
    return f"{os.cpu_count()} cores, {clusters.processor()}, {system}"
