"""An open loop of one-shot HTTP announces: RATE connections a second, whatever comes back. Prints a line of JSON.

    http_load.py -p PORT [-R RATE] [-d SECONDS] [-u WARMUP]

Each announce has a connection of its own, which the tracker is asked to close. Latency counts from the moment at
which an announce was due to its last byte (no coordinated omission); `late` is how much of it went by before the
announce left, as this generator shares its core.

Torrents, their sizes and their peers' ports are those of the yardstick's udpload, so that both may load one
tracker: a port's residue mod 61 tells its torrent's. An answer is wrong if it is not a bencoded dictionary with
peers and nothing else, if it lists the asker or a peer of another swarm, or if it is a failure.
"""

from __future__ import annotations

import argparse
import errno
import json
import resource
import select
import socket
import struct
import sys
from random import Random
from time import monotonic
from typing import NamedTuple
from urllib.parse import quote

TORRENTS, PEERS, SOURCES, RESIDUES = 2000, 4000, 4, 61  # as udpload has them
PREPARED = 4000  # announces, sent in turn
PATIENCE = 3.0  # seconds after which an answer is lost
LOCAL = bytes((127, 0, 0, 1))
READY = select.EPOLLIN | select.EPOLLOUT | select.EPOLLRDHUP | select.EPOLLET


class Announce(NamedTuple):
    """What is sent, and what its answer is judged by."""

    request: bytes
    residue: int
    port: int


class Flight:
    """An announce under way."""

    def __init__(self, sock: socket.socket, announce: Announce, due: float, counts: bool) -> None:
        self.sock = sock
        self.announce = announce
        self.due = due
        self.counts = counts  # False in the warm-up
        self.answered = 0.0
        self.left = 0.0
        self.got = b""


class Load:
    """Sends announces for `seconds` after `warmup`, and notes what became of them."""

    def __init__(self, port: int, rate: float, seconds: float, warmup: float) -> None:
        self.address = ("127.0.0.1", port)
        self.rate = rate
        self.first = int(rate * warmup)  # of those that count
        self.total = self.first + int(rate * seconds)
        self.announces = prepare(Random(7))
        self.epoll = select.epoll()
        self.flights: dict[int, Flight] = {}
        self.latencies: list[float] = []
        self.late: list[float] = []
        self.lost = 0
        self.wrong = 0

    def run(self) -> None:
        """Until the last announce was answered, or is lost."""
        start = monotonic()
        index = 0
        while index < self.total or self.flights:
            now = monotonic()
            while index < self.total and start + index / self.rate <= now:
                self.begin(index, start + index / self.rate)
                index += 1
            due = start + index / self.rate if index < self.total else now + 0.1
            # Unlike epoll's own, this wait is in microseconds.
            select.select([self.epoll], [], [], max(due - monotonic(), 0))
            for fd, _ in self.epoll.poll(0):
                self.go_on(self.flights[fd])
            self.give_up(monotonic() - PATIENCE)

    def begin(self, index: int, due: float) -> None:
        """Connect, and send if that is possible at once."""
        announce = self.announces[index % len(self.announces)]
        counts = index >= self.first
        try:
            sock = socket.socket()
        except OSError:
            self.lost += counts
            return
        sock.setblocking(False)
        flight = Flight(sock, announce, due, counts)
        if sock.connect_ex(self.address) not in (0, errno.EINPROGRESS):
            self.lost += counts
            sock.close()
            return
        self.flights[sock.fileno()] = flight
        self.epoll.register(sock.fileno(), READY)
        self.go_on(flight)

    def go_on(self, flight: Flight) -> None:
        """Send if it was not sent, and read what came."""
        try:
            if not flight.left:
                flight.sock.send(flight.announce.request)
                flight.left = monotonic()
            while data := flight.sock.recv(65536):
                flight.got += data
                flight.answered = monotonic()
        except BlockingIOError:
            return
        except OSError:  # refused, or broken
            flight.answered = 0.0
        self.end(flight)

    def give_up(self, before: float) -> None:
        """End those that were due before a time; they are in the order of that."""
        while self.flights and (oldest := next(iter(self.flights.values()))).due < before:
            oldest.answered = 0.0
            self.end(oldest)

    def end(self, flight: Flight) -> None:
        """Note what became of an announce."""
        del self.flights[flight.sock.fileno()]
        flight.sock.close()
        if not flight.counts:
            return
        if not flight.answered:
            self.lost += 1
            return
        self.latencies.append(flight.answered - flight.due)
        self.late.append(flight.left - flight.due)
        self.wrong += not is_right(flight.got, flight.announce)

    def report(self) -> dict[str, float]:
        """What was measured, in microseconds."""
        return {
            "sent": self.total - self.first,
            "answers": len(self.latencies),
            "lost": self.lost,
            "wrong": self.wrong,
            "p50_us": percentile(self.latencies, 0.5),
            "p99_us": percentile(self.latencies, 0.99),
            "late_p50_us": percentile(self.late, 0.5),
            "late_p99_us": percentile(self.late, 0.99),
        }


def percentile(seconds: list[float], share: float) -> int:
    """A percentile in microseconds; 0 of none."""
    return round(1e6 * sorted(seconds)[int(share * (len(seconds) - 1))]) if seconds else 0


def info_hash(torrent: int) -> bytes:
    """The info-hash of a torrent of udpload's."""
    words = []
    word = torrent * 2_654_435_761 & 0xFFFF_FFFF
    for _ in range(5):
        words.append(word)
        word = (word * 1_664_525 + 1_013_904_223 + torrent) & 0xFFFF_FFFF
    return struct.pack("<5I", *words)


def prepare(random: Random) -> list[Announce]:
    """Announces of random peers of random torrents, both drawn as udpload draws them."""
    announces = []
    for number in range(PREPARED):
        torrent = int(TORRENTS * random.random() ** 2)
        residue = torrent % RESIDUES
        peers = max(1, int(PEERS / (torrent + 1) ** 0.5 / SOURCES))
        port = random.randrange(peers) * RESIDUES + residue + 1
        request = (
            f"GET /announce?info_hash={quote(info_hash(torrent))}&peer_id=-qB4670-{number:012}&port={port}"
            "&uploaded=0&downloaded=0&left=1&numwant=50&compact=1 HTTP/1.1\r\nHost: tracker.example.org\r\n"
            "User-Agent: qBittorrent/4.6.7\r\nAccept-Encoding: gzip\r\nConnection: close\r\n\r\n"
        )
        announces.append(Announce(request.encode(), residue, port))
    return announces


def is_right(answer: bytes, announce: Announce) -> bool:
    """Whether an answer is whole, and fits what was asked."""
    head, _, body = answer.partition(b"\r\n\r\n")
    if not head.startswith(b"HTTP/1.1 200 ") or f"\r\nContent-Length: {len(body)}".encode() not in head:
        return False
    try:
        told, end = bdecode(body, 0)
    except (ValueError, IndexError):
        return False
    if end != len(body) or not isinstance(told, dict) or b"failure reason" in told:
        return False
    peers = told.get(b"peers")
    if not isinstance(peers, bytes) or len(peers) % 6:
        return False
    return all(
        (port - 1) % RESIDUES == announce.residue and (address != LOCAL or port != announce.port)
        for address, port in struct.iter_unpack(">4sH", peers)
    )


def bdecode(data: bytes, at: int) -> tuple[object, int]:
    """The bencoded value at a place, and where it ends. Raises ValueError, IndexError."""
    kind = data[at : at + 1]
    if kind == b"i":
        end = data.index(b"e", at)
        return int(data[at + 1 : end]), end + 1
    if kind.isdigit():
        colon = data.index(b":", at)
        end = colon + 1 + int(data[at:colon])
        if end > len(data):
            raise ValueError("a string that is cut off")
        return data[colon + 1 : end], end
    if kind not in (b"l", b"d"):
        raise ValueError("no bencoded value")
    items = []
    at += 1
    while data[at] != ord("e"):
        item, at = bdecode(data, at)
        items.append(item)
    if kind == b"l":
        return items, at + 1
    if len(items) % 2 or not all(isinstance(key, bytes) for key in items[::2]):
        raise ValueError("no dictionary")
    return dict(zip(items[::2], items[1::2], strict=True)), at + 1


def main() -> int:
    """0 if no answer was wrong."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-p", dest="port", type=int, required=True)
    parser.add_argument("-R", dest="rate", type=float, default=2000)
    parser.add_argument("-d", dest="seconds", type=float, default=5)
    parser.add_argument("-u", dest="warmup", type=float, default=0)
    args = parser.parse_args()
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    load = Load(args.port, args.rate, args.seconds, args.warmup)
    load.run()
    print(json.dumps(load.report()))
    return 1 if load.wrong else 0


if __name__ == "__main__":
    sys.exit(main())
