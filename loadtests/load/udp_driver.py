"""Drives a population over UDP, in open loop: what is due is sent, whatever comes back. One greenlet; see pacing.py."""

from __future__ import annotations

import _socket
import time
from collections import Counter
from contextlib import suppress
from typing import TYPE_CHECKING

from loadtests.load import endpoints
from loadtests.load.datagrams import Datagrams
from loadtests.load.pacing import NANOSECONDS, Pacer
from loadtests.load.statistics import Batch, Statistics
from loadtests.load.udp_load import ROWS, STRIDE, TIMED, UdpLoad, value_of

if TYPE_CHECKING:
    from locust.env import Environment

    from loadtests.load.plan import Part, Target

PATIENCE = NANOSECONDS  # until the first connects are sent again
FLUSH = NANOSECONDS // 4
LOOK = NANOSECONDS // 20  # between two looks for what has no answer
TURN = 16 * ROWS  # requests that leave before answers are read again
FILLING = 512  # requests under way while the tracker gets to know all peers
BUFFER = 4 << 20  # bytes
FORCED = 33  # SO_RCVBUFFORCE: root may exceed net.core.rmem_max
SHARE = 65536


class UdpDriver:
    """The load of one user. `filled`: its peers have announced."""

    def __init__(self, environment: Environment, target: Target, part: Part, number: int) -> None:
        """Raises ValueError, OSError."""
        self.part = part
        self.population, self.routes = endpoints.make(target, part, number)
        self.load = UdpLoad(self.population, ring_for(part), int(part.patience * NANOSECONDS), part.tries)
        self.load.set_mix(
            round(part.connects * SHARE), round(part.scrapes * SHARE), min(part.hashes, part.torrents), part.want
        )
        self.statistics = Statistics(environment)
        self.pacer = Pacer(part.rate)
        self.sockets = [open_socket(route) for route in self.routes]
        self.source_of = {sock.fileno(): n for n, sock in enumerate(self.sockets)}
        self.out, self.incoming = Datagrams(), Datagrams()
        self.again = memoryview(bytearray(2 * ROWS)).cast("H")
        self.turn = 0  # the source whose turn it is
        self.filled = False
        self.flushed = self.looked = 0
        self.told: Counter[str] = Counter()  # of what was counted
        self.failed: Counter[str] = Counter()
        for sock in self.sockets:
            self.pacer.register(sock)

    def fill(self) -> None:
        """Let every peer announce once, and end."""
        self.load.filling = True
        try:
            self._connect()
            self._fill()
        finally:
            self._close()

    def run(self) -> None:
        """Until the greenlet is killed."""
        try:
            self.load.filling = True
            self._connect()
            if self.part.fill:
                self._fill()
            self.load.filling = False
            self.told = Counter(self.load.counters())
            self.filled = True
            self.pacer.restart()
            while True:
                self._turn()
        finally:
            self._flush()
            self._close()

    def _close(self) -> None:
        self.pacer.close()
        for sock in self.sockets:
            sock.close()

    def _connect(self) -> None:
        """Get a connection id for each source."""
        asked = 0
        while missing := [n for n in range(len(self.sockets)) if not self.load.is_connected(n)]:
            now = time.monotonic_ns()
            if now - asked > PATIENCE:
                asked = now
                for source in missing:
                    self._send(source, 1, now, now)
            self._receive(self.pacer.wait(paced=False))
            self.load.expire(self.out.data, self.out.iovecs, self.again, time.monotonic_ns())

    def _fill(self) -> None:
        """Let every peer announce once, as quickly as the tracker answers."""
        while not self.load.filled() or self.load.under_way:
            now = time.monotonic_ns()
            for source in range(len(self.sockets)):
                if self.load.under_way <= FILLING - ROWS:
                    self._send(source, ROWS, now, now)
            self._receive(self.pacer.wait(paced=False))
            self._look(time.monotonic_ns())

    def _turn(self) -> None:
        """Wait, take answers, send what is due."""
        self._receive(self.pacer.wait())
        left = min(self.pacer.due(time.monotonic_ns()), TURN)
        step = int(NANOSECONDS / self.part.rate)
        while left > 0:
            many = min(left, ROWS)
            self._send(self.turn, many, self.pacer.due_at(self.pacer.take(many)), time.monotonic_ns(), step)
            self.turn = (self.turn + 1) % len(self.sockets)
            left -= many
        now = time.monotonic_ns()
        self._look(now)
        if now - self.flushed > FLUSH:
            self.flushed = now
            self._flush()

    def _send(self, source: int, many: int, due: int, now: int, step: int = 0) -> None:
        rows = self.load.fill(self.out.data, self.out.iovecs, source, many, due, step, now)
        self.out.send(self.sockets[source].fileno(), rows)

    def _receive(self, ready: list[int]) -> None:
        for fd in ready:
            got = ROWS
            while got == ROWS:
                got = self.incoming.receive(fd)
                if got:
                    now = time.monotonic_ns()
                    self.load.take(self.source_of[fd], self.incoming.data, self.incoming.headers, got, now)

    def _look(self, now: int) -> None:
        """Send again what has no answer."""
        if now - self.looked < LOOK:
            return
        self.looked = now
        rows = self.load.expire(self.out.data, self.out.iovecs, self.again, now)
        for row in range(rows):
            length = self.out.iovecs[2 * row + 1]
            datagram = memoryview(self.out.data)[row * STRIDE : row * STRIDE + length]
            try:
                self.sockets[self.again[row]].send(datagram)
            except OSError:
                continue  # nobody listens now, or there is no room: it is sent again, or lost

    def _flush(self) -> None:
        """Hand over what was found since the last time."""
        for number, name in enumerate(TIMED):
            many, total, least, most, size, buckets = self.load.harvest(number)
            if many:
                latencies = {value_of(bucket): count for bucket, count in buckets.items()}
                batch = Batch(latencies, total / 1e6, least / 1e6, most / 1e6, size)
                self.statistics.add("UDP" if number < 3 else "load", name, batch)
        for fault, many in (found := Counter(self.population.faults())).items():
            self.statistics.fail("UDP", "announce", fault, many - self.failed[fault])
        self.failed = found
        counted = Counter(self.load.counters())
        self.statistics.count({name: many - self.told[name] for name, many in counted.items()})
        self.told = counted


def ring_for(part: Part) -> int:
    """Bits of a ring that holds what may be under way until it is lost."""
    lasting = part.rate * part.patience * (part.tries + 2)
    return max(10, int(max(lasting, 1.5 * part.sources * part.ports)).bit_length())  # the rate may rise


def open_socket(route: endpoints.Route) -> _socket.socket:
    """A socket of the system's, not of gevent's: waiting is the pacer's. Raises OSError."""
    sock = _socket.socket(route.family, _socket.SOCK_DGRAM | _socket.SOCK_NONBLOCK | _socket.SOCK_CLOEXEC)
    for option in (_socket.SO_RCVBUF, FORCED):  # what does not fit is lost, for which the tracker would be blamed
        with suppress(PermissionError):
            sock.setsockopt(_socket.SOL_SOCKET, option, BUFFER)
    sock.bind((route.address, 0))
    sock.connect((route.host, route.port))
    return sock
