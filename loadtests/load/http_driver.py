"""Drives a population over HTTP, in open loop: over kept connections, or one connection a request.

Request k is due k / rate seconds after the start, and its latency counts from then to the last byte of its answer, with
one connection a request to its end. A request waits for a connection of its peer's source if all that there may be are
busy; that waiting counts too. One greenlet does it all, see pacing.py.
"""

from __future__ import annotations

import resource
import time
from collections import Counter, deque
from random import Random
from typing import TYPE_CHECKING
from urllib.parse import quote_from_bytes

from loadtests.load import endpoints, http_answer
from loadtests.load.http_answer import MalformedError, RefusedError
from loadtests.load.http_connections import Connections, Request
from loadtests.load.pacing import NANOSECONDS, Pacer
from loadtests.load.population import FAULTS, Population
from loadtests.load.statistics import LATE, Batch, Statistics

if TYPE_CHECKING:
    from locust.env import Environment

    from loadtests.load.plan import Part, Target

PATIENCE = 3 * NANOSECONDS  # after which an answer is lost
AGAIN = 1 * NANOSECONDS  # after which what was lost is asked again
FLUSH = NANOSECONDS // 4
TURN = 64  # requests that leave before answers are read again
FILLING = 64  # requests under way while the tracker gets to know all peers
FILL_KEEP = 1000  # requests of a connection meanwhile
MALFORMED, ERROR = 1 << FAULTS.index("malformed"), 1 << FAULTS.index("error")
EVENTS = (b"", b"&event=completed", b"&event=started", b"&event=stopped")
STOPPED = 3
PROTOCOLS = {"http-kept": "HTTP kept", "http-oneshot": "HTTP one-shot"}

Made = tuple[Population, list[endpoints.Route]]


class Latencies:
    """Times in buckets of at most 3 %, and bytes that came with them."""

    def __init__(self) -> None:
        self.buckets: Counter[int] = Counter()
        self.total = 0
        self.least = 1 << 62
        self.most = 0
        self.size = 0

    def add(self, ns: int, size: int) -> None:
        """Count one."""
        ns = max(ns, 1)
        wide = max(ns.bit_length() - 6, 0)
        self.buckets[ns >> wide << wide] += 1
        self.total += ns
        self.least = min(self.least, ns)
        self.most = max(self.most, ns)
        self.size += size

    def batch(self) -> Batch:
        """In milliseconds, those of a bucket as its middle."""
        middles = {(low + (1 << max(low.bit_length() - 6, 0)) / 2) / 1e6: many for low, many in self.buckets.items()}
        return Batch(middles, self.total / 1e6, self.least / 1e6, self.most / 1e6, self.size)


class HttpDriver:
    """What one user does. `filled`: whether the tracker was told of all peers.

    made: a population whose peers have announced already, with its routes; otherwise it is made from the plan.
    """

    def __init__(
        self, environment: Environment, target: Target, part: Part, number: int, made: Made | None = None
    ) -> None:
        """Raises ValueError, OSError."""
        allow_sockets()
        self.part = part
        self.protocol = PROTOCOLS[part.kind]
        self.filled = False
        self.made = made is not None
        self.population, self.routes = made or endpoints.make(target, part, number)
        self.random = Random(number)
        self.statistics = Statistics(environment)
        for fault, many in self.population.faults().items() if made else ():  # found by who filled it
            self.statistics.fail("UDP", "announce", fault, many)
        self.pacer = Pacer(part.rate)
        self.latencies = {"announce": Latencies(), "scrape": Latencies()}
        self.late = Latencies()
        self.faults: Counter[tuple[str, str]] = Counter()
        self.totals: Counter[str] = Counter()
        self.under_way: dict[int, Request] = {}  # in the order in which they are lost
        self.lost: deque[tuple[int, Request]] = deque()  # to be sent again, and when
        self.requests = 0
        self.flush_at = 0
        host = f"[{target.host}]" if ":" in target.host else target.host
        self.host = f" HTTP/1.1\r\nHost: {host}:{target.port}\r\nUser-Agent: qBittorrent/4.6.7\r\n".encode()
        self.tail = b""
        self._connect(part.keep if part.kind == "http-kept" else 1)

    def run(self) -> None:
        """Until the greenlet is killed."""
        try:
            if self.part.fill and not self.made:
                self._fill()
            self.filled = True
            self.pacer.restart()
            while True:
                self._turn()
        finally:
            self.connections.close()
            self.pacer.close()
            self._flush()

    # What is sent

    def _connect(self, keep: int) -> None:
        """Use connections that serve so many requests from now on."""
        self.connections = Connections(self.pacer, self, self.routes, keep)
        close = b"Connection: close\r\n" if keep == 1 else b""
        self.tail = self.host + b"Accept-Encoding: gzip\r\n" + close + b"\r\n"

    def _fill(self) -> None:
        """Let each peer announce once, over kept connections, some at a time."""
        measured = self.connections
        keep = measured.keep
        self._connect(FILL_KEEP)
        ports = self.population.ports
        for port in range(ports):
            for first in range(0, self.population.peers, ports):
                while len(self.under_way) >= FILLING:
                    self._go_on(self.pacer.wait(paced=False))
                if self.population.begin(first + port):
                    self._announce(first + port, time.monotonic_ns())
        while self.under_way or self.lost:
            self._go_on(self.pacer.wait(paced=False))
        self.connections.close()
        self._connect(keep)

    def _turn(self) -> None:
        """Wait, deal with what came, and send what is due."""
        self._go_on(self.pacer.wait())
        many = min(self.pacer.due(time.monotonic_ns()), TURN)
        first = self.pacer.take(many)
        for number in range(first, first + many):
            if self.random.random() < self.part.scrapes:
                self._scrape(self.pacer.due_at(number))
            elif (peer := self.population.draw()) >= 0:
                self._announce(peer, self.pacer.due_at(number))
            else:
                self.totals["held"] += 1

    def _announce(self, peer: int, due: int) -> None:
        """Send what a peer announces."""
        population = self.population
        source, port = divmod(peer, population.ports)
        event = population.event_of(peer)
        data = b"GET /announce?info_hash=%b&peer_id=-qB4670-%012d&port=%d&uploaded=0&downloaded=0&left=%d" % (
            quote_from_bytes(population.info_hash(population.torrent_of(peer)), "").encode(),
            peer,
            population.first_port + port,
            population.left_of(peer) << 30,
        )
        more = b"&corrupt=0&key=%08X%b&numwant=%d&compact=1&no_peer_id=1&supportcrypto=1&redundant=0" % (
            peer * 0x9E3779B1 & 0xFFFFFFFF,
            EVENTS[event],
            0 if event == STOPPED else self.part.want,
        )
        request = Request(source, data + more + self.tail, due)
        request.peer = peer
        self._send(request)

    def _scrape(self, due: int) -> None:
        """Ask what is known of some torrents."""
        population = self.population
        torrents = self.random.sample(range(population.torrents), min(self.part.hashes, population.torrents))
        hashes = [population.info_hash(torrent) for torrent in torrents]
        query = "&".join(f"info_hash={quote_from_bytes(info_hash, '')}" for info_hash in hashes)
        source = self.random.randrange(population.sources)
        request = Request(source, b"GET /scrape?" + query.encode() + self.tail, due)
        request.hashes = hashes
        request.stamps = [(torrent, population.stamp(torrent)) for torrent in torrents]
        self._send(request)

    def _send(self, request: Request) -> None:
        """Send a request, or send it again."""
        self.requests += 1
        self.totals["sent again" if request.tries else "sent"] += 1
        request.tries += 1
        request.number = self.requests
        request.end = time.monotonic_ns() + PATIENCE
        self.under_way[request.number] = request
        self.connections.send(request)

    # What becomes of it

    def _go_on(self, ready: list[int]) -> None:
        """Deal with sockets that are ready, and with the time."""
        self.connections.take(ready)
        now = time.monotonic_ns()
        while self.under_way and (oldest := next(iter(self.under_way.values()))).end <= now:
            self.connections.drop(oldest)
            self.broken(oldest)
        while self.lost and self.lost[0][0] <= now:
            self._send(self.lost.popleft()[1])
        if now >= self.flush_at:
            self.flush_at = now + FLUSH
            self._flush()

    def left(self, request: Request) -> None:
        """It was sent for the first time."""
        if self.filled:
            self.late.add(time.monotonic_ns() - request.due, 0)

    def answered(self, request: Request, status: int, body: bytes, size: int) -> None:
        """A response came: judge it."""
        now = time.monotonic_ns()
        del self.under_way[request.number]
        judge = self._judge_announce if request.peer >= 0 else self._judge_scrape
        try:
            faults = judge(request, status, body)
        except MalformedError:
            self._refuse(request, MALFORMED)
        except RefusedError:
            self._refuse(request, ERROR)
        else:
            self._note(request, faults)
        self.totals["answers"] += 1
        if self.filled:
            self.latencies[name_of(request)].add(now - request.due, size)

    def malformed(self, request: Request) -> None:
        """Something came that is no response."""
        del self.under_way[request.number]
        self._refuse(request, MALFORMED)

    def broken(self, request: Request) -> None:
        """No response came: ask again, or give up."""
        del self.under_way[request.number]
        if request.tries == 1:
            self.totals["first lost"] += 1
        if request.tries <= self.part.tries:
            self.lost.append((time.monotonic_ns() + AGAIN, request))
            return
        self.totals["lost"] += 1
        self.faults[name_of(request), "lost"] += 1
        if request.peer >= 0:
            self.population.lose(request.peer)

    def _judge_announce(self, request: Request, status: int, body: bytes) -> int:
        told = http_answer.read_announce(status, body)
        self.totals["peers"] += len(told.listed4) // 6 + len(told.listed6) // 18
        return int(self.population.judge(request.peer, *told, self.part.want))

    def _judge_scrape(self, request: Request, status: int, body: bytes) -> int:
        faults = 0
        told = http_answer.read_scrape(status, body, request.hashes)
        for (torrent, stamp), (seeders, leechers) in zip(request.stamps, told, strict=True):
            faults |= self.population.judge_scrape(torrent, stamp, seeders, leechers)
        return faults

    def _refuse(self, request: Request, fault: int) -> None:
        """An answer is none."""
        self._note(request, fault)
        if request.peer >= 0:
            self.population.refuse(request.peer, fault)

    def _note(self, request: Request, faults: int) -> None:
        """Count the faults of an answer."""
        if faults:
            for bit, fault in enumerate(FAULTS):
                self.faults[name_of(request), fault] += faults >> bit & 1

    def _flush(self) -> None:
        """Hand over what was counted."""
        for name, latencies in self.latencies.items():
            self.statistics.add(self.protocol, name, latencies.batch())
        self.statistics.add("load", LATE, self.late.batch())
        for (name, fault), many in self.faults.items():
            self.statistics.fail(self.protocol, name, fault, many)
        self.totals["stray"] += self.connections.stray
        self.connections.stray = 0
        self.statistics.count(self.totals)
        self.latencies = {name: Latencies() for name in self.latencies}
        self.late = Latencies()
        self.faults.clear()
        self.totals.clear()


def allow_sockets() -> None:
    """Let this process have as many as the system lets it."""
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def name_of(request: Request) -> str:
    """What statistics call it."""
    return "announce" if request.peer >= 0 else "scrape"
