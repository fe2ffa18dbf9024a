"""A tracker in plain Python, UDP alone, that can be wrong on purpose: the load's checks are put to the test with it."""

from __future__ import annotations

import random
import socket
import struct
import threading
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from ipaddress import ip_address

CONNECTION = bytes(range(1, 9))
STOPPED = 3
FORGOTTEN = 1000  # one announce in so many


class ModelTracker:
    """`fault`: forgets, strangers, half, own, twice, departed, roles, counts, errors, garbage, or nothing."""

    def __init__(self, fault: str = "") -> None:
        self.fault = fault
        self.swarms: dict[bytes, dict[bytes, int]] = defaultdict(dict)  # endpoints, and what each has left
        self.announces = 0
        self.gone: dict[bytes, bytes] = {}
        self.random = random.Random(1)

    def answer(self, datagram: bytes, address: str) -> bytes:
        """What is sent back."""
        action, transaction = struct.unpack_from(">II", datagram, 8)
        if action == 0:
            assert datagram[:8] == bytes.fromhex("0000041727101980") and len(datagram) == 16
            return struct.pack(">II", 0, transaction) + CONNECTION
        assert datagram[:8] == CONNECTION
        if self.fault == "errors":
            return struct.pack(">II", 3, transaction) + b"no"
        if action == 1:
            return struct.pack(">II", 1, transaction) + self._announce(datagram, address)
        hashes = [datagram[at : at + 20] for at in range(16, len(datagram), 20)]
        return struct.pack(">II", 2, transaction) + b"".join(self._counts(each, "seeders first") for each in hashes)

    def _announce(self, datagram: bytes, address: str) -> bytes:
        assert len(datagram) == 98
        info_hash = datagram[16:36]
        (left, _, event) = struct.unpack_from(">QQI", datagram, 64)
        want, port = struct.unpack_from(">iH", datagram, 92)
        endpoint = ip_address(address).packed + struct.pack(">H", port)
        swarm = self.swarms[info_hash]
        self.announces += 1
        if event == STOPPED:
            swarm.pop(endpoint, None)
            self.gone[info_hash] = endpoint
        elif self.fault != "forgets" or self.announces % FORGOTTEN:
            swarm[endpoint] = left
        if self.fault == "garbage":
            return b"\0" * 7
        peers = self._list(info_hash, endpoint, left, want)
        return struct.pack(">I", 1800) + self._counts(info_hash) + b"".join(peers)

    def _list(self, info_hash: bytes, endpoint: bytes, left: int, want: int) -> list[bytes]:
        swarm = self.swarms[info_hash]
        fitting = [
            each
            for each, rest in swarm.items()
            if len(each) == len(endpoint) and each != endpoint and (left or rest or self.fault == "roles")
        ]
        peers = self.random.sample(fitting, min(want, len(fitting)))
        if self.fault == "half":
            return peers[: len(peers) // 2]
        planted = {
            "strangers": next((each for other in self.swarms.values() for each in other if each not in swarm), None),
            "own": endpoint,
            "twice": peers[0] if peers else None,
            "departed": self.gone.get(info_hash),
        }.get(self.fault)
        return peers + ([planted] if planted and len(planted) == len(endpoint) else [])

    def _counts(self, info_hash: bytes, order: str = "") -> bytes:
        rests = self.swarms[info_hash].values() if info_hash in self.swarms else ()
        seeders = sum(rest == 0 for rest in rests)
        leechers = len(rests) - seeders + (self.fault == "counts")
        return struct.pack(">III", seeders, 0, leechers) if order else struct.pack(">II", leechers, seeders)


@contextmanager
def served(fault: str = "") -> Iterator[int]:
    """Serve on a free port of 127.0.0.1 and of ::1, in threads; yields the port."""
    model, lock = ModelTracker(fault), threading.Lock()
    first = bound(socket.AF_INET, "127.0.0.1", 0)
    port: int = first.getsockname()[1]
    sockets = [first, bound(socket.AF_INET6, "::1", port)]
    threads = [threading.Thread(target=serve, args=(sock, model, lock)) for sock in sockets]
    for thread in threads:
        thread.start()
    try:
        yield port
    finally:
        for sock in sockets:
            with socket.socket(sock.family, socket.SOCK_DGRAM) as last:
                last.sendto(b"", sock.getsockname())
        for thread in threads:
            thread.join()


def bound(family: int, host: str, port: int) -> socket.socket:
    sock = socket.socket(family, socket.SOCK_DGRAM)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 << 20)
    sock.bind((host, port))
    return sock


def serve(sock: socket.socket, model: ModelTracker, lock: threading.Lock) -> None:
    """Until an empty datagram comes."""
    with sock:
        while True:
            datagram, address = sock.recvfrom(2048)
            if not datagram:
                return
            with lock:
                answer = model.answer(datagram, address[0])
            sock.sendto(answer, address)
