"""Trackers to put to the test, as processes and inside this one, and a client of BEP 15 to ask them.

The client is written from the protocol's tables and shares no code with the tracker. All three are context managers.
"""

import asyncio
import ctypes
import json
import os
import signal
import socket
import struct
import subprocess
import sys
import threading
import urllib.error
import urllib.request
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit

import uvloop
from ports import free_port

from cluster.embedded import Embedded
from common import config
from common.batch_io import STRIDE
from common.clock import SteadyClock
from gateway import listening

MAGIC = 0x41727101980
CONNECT, ANNOUNCE, SCRAPE, ERROR = range(4)
NONE, COMPLETED, STARTED, STOPPED, PAUSED = range(5)
PEER_ID = b"-TR4060-0123456789ab"
PATIENCE = 20.0


class Answer(NamedTuple):
    """The answer to an announce; peers as (address, port)."""

    interval: int
    leechers: int
    seeders: int
    peers: list[tuple[str, int]]


class Counts(NamedTuple):
    """The answer to a scrape of one torrent."""

    seeders: int
    completed: int
    leechers: int


# Requests


def connect_request(transaction=None, magic=MAGIC):
    return struct.pack(">QI", magic, CONNECT) + (transaction or os.urandom(4))


def announce_request(
    connection_id,
    info_hash,
    *,
    event=NONE,
    left=1,
    port=6881,
    ip="0.0.0.0",
    want=-1,
    downloaded=0,
    uploaded=0,
    key=0,
    peer_id=PEER_ID,
    tail=b"",
):
    head = connection_id + struct.pack(">I", ANNOUNCE) + os.urandom(4) + info_hash + peer_id
    amounts = struct.pack(">QQQ", downloaded, left, uploaded)
    return head + amounts + struct.pack(">I4sIiH", event, socket.inet_aton(ip), key, want, port) + tail


def scrape_request(connection_id, *info_hashes):
    return connection_id + struct.pack(">I", SCRAPE) + os.urandom(4) + b"".join(info_hashes)


# Replies


def action_of(reply):
    return int.from_bytes(reply[:4], "big")


def is_answer(reply, request):
    """Whether a reply is the answer to a request rather than an error."""
    return reply[:8] == request[8:16]


def is_error(reply, request):
    return reply[:8] == struct.pack(">I", ERROR) + request[12:16]


def parse_answer(reply, ipv6=False):
    peers = []
    for at in range(20, len(reply), 18 if ipv6 else 6):
        entry = reply[at : at + (18 if ipv6 else 6)]
        host = socket.inet_ntop(socket.AF_INET6 if ipv6 else socket.AF_INET, entry[:-2])
        peers.append((host, int.from_bytes(entry[-2:], "big")))
    return Answer(*struct.unpack_from(">III", reply, 8), peers)


def parse_counts(reply):
    return [Counts(*struct.unpack_from(">III", reply, at)) for at in range(8, len(reply), 12)]


class Client:
    """A socket at `source` (by default the address that is asked) that asks the tracker at `address`."""

    def __init__(self, address, source=None):
        self.address = address
        self.ipv6 = ":" in address[0]
        self.socket = socket.socket(socket.AF_INET6 if self.ipv6 else socket.AF_INET, socket.SOCK_DGRAM)
        self.socket.bind((source or address[0], 0))
        self.socket.settimeout(PATIENCE)
        self.endpoint = self.socket.getsockname()[:2]
        self._id = None

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.socket.close()

    @property
    def id(self):
        """A connection id, asked for once."""
        if self._id is None:
            self._id = self.connect()
        return self._id

    def send(self, datagram):
        self.socket.sendto(datagram, self.address)

    def receive(self):
        """The next reply, which comes from the address that was asked."""
        reply, sender = self.socket.recvfrom(65536)
        assert sender[:2] == self.address[:2]
        return reply

    def ask(self, request):
        """The reply to a request."""
        self.send(request)
        reply = self.receive()
        assert reply[4:8] == request[12:16]
        return reply

    def exchange(self, *datagrams):
        """Send datagrams; all that comes back.

        Nobody waits for silence: the tracker answers in order but for the requests of one turn of its loop,
        so what comes before the answer to a second question is all there is. No more than 100 datagrams at once
        fit into every socket's buffer.
        """
        for datagram in datagrams:
            self.send(datagram)
        replies = []
        for _ in range(2):
            question = connect_request()
            self.send(question)
            while not is_answer(reply := self.receive(), question):
                replies.append(reply)
        return replies

    def connect(self):
        """A new connection id."""
        return self.ask(connect_request())[8:]

    def announce(self, info_hash, **fields):
        """Announce with good manners; the answer."""
        request = announce_request(self.id, info_hash, **fields)
        reply = self.ask(request)
        assert is_answer(reply, request), reply
        return parse_answer(reply, self.ipv6)

    def announce_all(self, requests):
        """Send many announces, some at a time, and wait for all answers."""
        for at in range(0, len(requests), 32):
            for request in requests[at : at + 32]:
                self.send(request)
            for _ in requests[at : at + 32]:
                assert action_of(self.receive()) == ANNOUNCE

    def scrape(self, *info_hashes):
        """Scrape with good manners; what is counted for each hash."""
        request = scrape_request(self.id, *info_hashes)
        reply = self.ask(request)
        assert is_answer(reply, request), reply
        return parse_counts(reply)


def settings(directory, listen=("127.0.0.1:0", "[::1]:0"), memory="64 MiB", **more):
    """A configuration with its data in a directory."""
    return {
        "data": str(directory),
        "admin": None,
        "log": {"level": "error", "figures": 0},
        "gateways": [{"name": "gateway1", "listen": list(listen)}],
        "shards": [{"name": "shard1", "memory": memory}],
        **more,
    }


class Process:
    """`shoal up` as an operator runs it. `addresses` are those to ask, in the order of `listen`."""

    def __init__(self, directory, **more):
        self.admin = f"127.0.0.1:{free_port()}"
        wanted = settings(directory / "data", **{"admin": self.admin, **more})
        self.file = directory / "cluster.yaml"
        self.file.write_text(json.dumps(wanted))
        command = [sys.executable, "-P", "-m", "cluster", "up", "--config", str(self.file)]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        self.addresses = []
        for endpoint in wanted["gateways"][0]["listen"]:
            host = endpoint.rpartition(":")[0].strip("[]")
            self.addresses.append(({"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host), self._announced_port()))

    def _announced_port(self):
        for line in self.process.stdout:
            if line.startswith("announce URL: "):
                return urlsplit(line.split()[-1]).port
        raise AssertionError(f"shoal up ended with {self.process.wait()} before it listened")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(PATIENCE)
        finally:
            self.process.kill()
            self.process.wait()
            self.process.stdout.close()

    def worker(self):
        """The pid of the one child of the supervisor."""
        pid = self.process.pid
        (child,) = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        return int(child)

    def get(self, path):
        """Status and body at the admin address."""
        return get(self.admin, path)

    def metrics(self):
        """All numbers: {'name{label="value"}': number}."""
        _, text = self.get("/metrics")
        return parse_metrics(text)


def get(admin, path):
    """Status and body of an HTTP request."""
    try:
        with urllib.request.urlopen(f"http://{admin}{path}", timeout=PATIENCE) as response:
            return response.status, response.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode()


def parse_metrics(text):
    lines = [line.rpartition(" ") for line in text.splitlines() if not line.startswith("#")]
    return {name: float(value) for name, _, value in lines}


class Local:
    """The embedded tracker on real sockets in a thread of this process.

    Its clocks are told the time, and what it does now and then it does when it is told to.
    """

    def __init__(self, directory, sockets=None, **more):
        wanted = config.read(settings(directory, **more))
        self.now = 0.0
        self.wall = 1_700_000_400.0  # where a window of 10 minutes begins
        self.sockets = sockets or listening.open_sockets(wanted, wanted.gateways[0])
        self.addresses = [sock.getsockname()[:2] for sock in self.sockets]
        self.clock = SteadyClock(lambda: self.now)
        self.tracker = Embedded(wanted, self.sockets, clock=self.clock, wall=lambda: self.wall)
        self.store = self.tracker.shard.store
        self.loop = uvloop.new_event_loop()
        self.failures = []
        self.loop.set_exception_handler(lambda _, failure: self.failures.append(failure))
        self.thread = threading.Thread(target=self.loop.run_forever)

    def __enter__(self):
        self.thread.start()
        self.wait_for(self.tracker.start())
        for timer in self.tracker.periodic.timers:
            self.call(timer.cancel)
        return self

    def __exit__(self, *_):
        self.wait_for(self.tracker.stop())
        self.loop.call_soon_threadsafe(self.loop.stop)
        self.thread.join()
        self.loop.close()
        for sock in self.sockets:
            sock.close()
        assert self.failures == []

    def wait_for(self, coroutine):
        return asyncio.run_coroutine_threadsafe(coroutine, self.loop).result(PATIENCE)

    def call(self, function, *arguments):
        """Call in the tracker's thread."""

        async def run():
            return function(*arguments)

        return self.wait_for(run())

    def counters(self):
        """What the gateway counted."""
        return self.call(self.tracker.gateway.codec.counters)

    def feed(self, batch_of, now=0):
        """Let the gateway take datagrams, as (name, datagram), as if its first socket had received them.

        Returns what it would send, in the same form.
        """
        return self.call(self._feed, batch_of, now)

    def _feed(self, batch_of, now):
        udp = self.tracker.gateway.udp
        for place, (name, datagram) in enumerate(batch_of):
            put(udp.batch, place, datagram, name)
        done = 0
        replies = []
        while done < len(batch_of):
            done = udp.codec.decode(0, done, len(batch_of), now, int(self.wall) // udp.window)
            udp.router.dispatch()
            replies += queued(udp.batch, 0, udp.codec.take_pending(0))
        return replies

    def id_of(self, host):
        """The connection id that an address gets now."""
        udp = self.tracker.gateway.udp
        return self.call(udp.codec.connection_id, as_ipv6(host), int(self.wall) // udp.window)

    def announce_from(self, host, info_hash, **fields):
        """The answer to an announce from any address of the first socket's family; None if it gets none."""
        request = announce_request(self.id_of(host), info_hash, **fields)
        replies = self.feed([(pack_name(host, 5000), request)])
        return parse_answer(replies[0][1], ":" in host) if replies else None

    def advance(self, seconds):
        """Let time pass for the shard, as fast as it can; it sweeps as it would."""
        self.call(self._advance, seconds)

    def _advance(self, seconds):
        end = self.now + seconds
        while end - self.now > 10:  # the sweep of these seconds removes nobody that a later one would not
            self.now += 9
            self.clock.seconds()
        while self.now < end:
            self.now += 1 / 32  # more often than each TICK, and exact in binary
            self.tracker.shard.tick()


def dual_stack():
    """A socket that IPv4 clients reach too, as ::ffff:a.b.c.d."""
    sock = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
    sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
    sock.bind(("::", 0))
    return sock


# Batches that a test fills as recvmmsg does, and empties as sendmmsg does


def as_ipv6(host):
    """The 16 bytes of an address; IPv4 as ::ffff:a.b.c.d."""
    if ":" in host:
        return socket.inet_pton(socket.AF_INET6, host)
    return bytes(10) + b"\xff\xff" + socket.inet_aton(host)


def pack_name(host, port):
    """A socket address, as the kernel writes it."""
    if ":" in host:
        return struct.pack("<H", 10) + struct.pack(">HI", port, 0) + socket.inet_pton(socket.AF_INET6, host) + bytes(4)
    return struct.pack("<H", 2) + struct.pack(">H", port) + socket.inet_aton(host) + bytes(8)


def put(batch, place, datagram, name):
    """Let a datagram from `name` (see pack_name) lie at a place of a batch."""
    batch.received.data.cast("B")[STRIDE * place : STRIDE * place + len(datagram)] = datagram
    batch.received.headers[8 * place + 7] = len(datagram)
    batch.received.names.cast("B")[32 * place : 32 * place + len(name)] = name


def queued(batch, socket_index, many):
    """The first `many` datagrams queued for a socket, as (name, datagram)."""
    names = batch.sent.names.cast("B")
    length = 28 if batch.ipv6[socket_index] else 16
    found = []
    for place in range(2 * batch.depth * socket_index, 2 * batch.depth * socket_index + many):
        name = bytes(names[32 * place : 32 * place + length])
        found.append((name, ctypes.string_at(*batch.sent.iovecs[2 * place : 2 * place + 2])))
    return found
