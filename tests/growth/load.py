"""A checked load over UDP, as a process of its own: each answer is held against what was acknowledged before.

    with client.network():
        load = Load()
    with load:
        sources = [["45.83.20.1", ["192.0.2.1", 6969]], ["45.83.20.2", ["192.0.2.2", 6969]]]
        load.make([{"name": "all", "torrents": 1000, "ports": 10_000, "most": 20_000, "sources": sources}])
        load.fill(["all"])
        load.pace(all=20_000)
        time.sleep(5)
        print(load.look()["all"])
        load.settle()
        assert load.verify([["192.0.2.1", 6969]], "45.83.20.1")["wrong"] == []

What is asked and what an answer may be is of loadtests/load: `population.py` and `udp_load.py`, kernels that share
nothing with the tracker. Here is what makes them a client of several gateways at once: an address asks the same gateway
again and again, as clients do, and peers of each torrent have all addresses. Open loop: announces are sent when they
are due. One without its answer is sent again after 1 s, three times; a second after the last it has failed.

A *part* is a population with a rate of its own. It is strict, as far as it is told to be: an answer that lacks a peer
that was acknowledged is wrong. An empty answer, which does not even count the asker, acknowledges nothing and is
counted apart.
"""

import json
import select
import socket
import struct
import subprocess
import sys
import time
from collections import Counter

NANOSECONDS = 1_000_000_000
AGAIN = NANOSECONDS  # until what has no answer is sent again
TRIES = 3  # times
LOOK = NANOSECONDS // 20  # between two looks for what has no answer
LONGEST = 0.05  # seconds to wait at most
FILLING = 512  # announces under way while the tracker gets to know all peers
TURN = 1024  # announces that leave before answers are read again
BUFFER = 4 << 20
FORCED = 33  # SO_RCVBUFFORCE
FIRST_PORT = 10_000
NOTHING = 20  # bytes of an announce's answer without peers
SCRAPED = 70  # torrents at once
DEFAULTS = {"most": 0, "skew": 0.5, "seeds": 0.3, "completes": 0.0, "want": 50, "strict": True, "seed": 1}
PATIENCE = 120.0


class Load:
    """The process, from outside. It is in the network that it was made in."""

    def __init__(self):
        command = [sys.executable, "-P", __file__]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.stdin.close()
        self.process.wait(PATIENCE)
        self.process.stdout.close()

    def make(self, parts):
        """Add parts, and get their connection ids.

        sources: addresses, and the gateway that each asks. ports: peers of an address. most: the greatest rate.
        DEFAULTS has what may be left out.
        """
        return self._order("make", parts=parts)

    def fill(self, names):
        """Let each peer of these parts announce once."""
        return self._order("fill", names=names)

    def pace(self, **rates):
        """Announces a second of parts, from now on."""
        return self._order("pace", rates=rates)

    def strict(self, **strict):
        """Whether answers must have all peers, by part."""
        return self._order("strict", strict=strict)

    def look(self):
        """What was found since the last look, by part."""
        return self._order("look")

    def settle(self):
        """Stop; what is under way is answered or has failed."""
        return self._order("settle")

    def verify(self, gateways, address):
        """Ask each gateway for each torrent, while nothing is under way: what is not as it was acknowledged."""
        return self._order("verify", gateways=gateways, address=address)

    def _order(self, do, **words):
        self.process.stdin.write(json.dumps({"do": do, **words}) + "\n")
        self.process.stdin.flush()
        line = self.process.stdout.readline()
        assert line, f"the load has ended with {self.process.wait(PATIENCE)}"
        return json.loads(line)


# The process


class Part:
    """A population, and the requests of its peers."""

    def __init__(self, name, torrents, ports, sources, **more):
        from loadtests.load.endpoints import sizes_of, stride_of
        from loadtests.load.population import Population
        from loadtests.load.udp_load import UdpLoad

        plan = DEFAULTS | more
        peers = len(sources) * ports
        sizes = sizes_of(torrents, peers, plan["skew"])
        packed = b"".join(socket.inet_aton(address).ljust(16, b"\0") for address, _ in sources)
        self.name = name
        self.population = Population(sizes, packed, bytes(len(sources)), FIRST_PORT, stride_of(peers), plan["seed"])
        self.population.set_mix(0.0, plan["seeds"], 0.0, plan["completes"])
        self.population.strict = self.strict = plan["strict"]
        under_way = max(plan["most"] * (TRIES + 2), 1.5 * peers)
        self.load = UdpLoad(self.population, max(10, int(under_way).bit_length()), AGAIN, TRIES)
        self.load.set_mix(0, 0, 1, plan["want"])
        self.sockets = [connected(address, tuple(gateway)) for address, gateway in sources]
        self.rate = 0.0
        self.start = self.taken = 0
        self.turn = 0  # the source whose turn it is
        self.told = self.counts()
        self.peers = 0
        self.heard = self.longest = 0  # when an answer had peers, and the longest time without one

    def pace(self, rate, now):
        self.note_peers(now)
        self.rate, self.start, self.taken = rate, now, 0

    def note_peers(self, now):
        """An answer has peers, or it is time to count."""
        if self.rate:
            self.longest = max(self.longest, now - self.heard)
        self.heard = now

    def due(self, now):
        """How many announces are."""
        return int((now - self.start) * self.rate / NANOSECONDS) + 1 - self.taken if self.rate else 0

    def next_due(self):
        """When the next one is."""
        return self.start + int(self.taken * NANOSECONDS / self.rate) if self.rate else None

    def counts(self):
        found = Counter(self.load.counters())
        found.update({f"wrong: {name}": many for name, many in self.population.faults().items()})
        return found

    def is_connected(self):
        return all(self.load.is_connected(source) for source in range(len(self.sockets)))


def connected(address, gateway):
    """A socket that asks a gateway from an address."""
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
    sock.setsockopt(socket.SOL_SOCKET, FORCED, BUFFER)
    sock.bind((address, 0))
    sock.connect(gateway)
    return sock


class Driver:
    """All parts, on one epoll."""

    def __init__(self):
        from loadtests.load.datagrams import Datagrams

        self.parts = {}
        self.epoll = select.epoll()
        self.epoll.register(sys.stdin, select.EPOLLIN)
        self.sources = {}  # part, and number of the source, by descriptor
        self.out, self.incoming, self.one = Datagrams(), Datagrams(), Datagrams()
        self.again = memoryview(bytearray(2 * 128)).cast("H")
        self.looked = 0
        self.late = 0
        self.began = time.monotonic_ns()

    def run(self):
        """Until nobody gives orders any longer."""
        while True:
            if self._turn():
                if not (line := sys.stdin.readline()):
                    return
                order = json.loads(line)
                print(json.dumps(getattr(self, order.pop("do"))(**order)), flush=True)

    # Orders

    def make(self, parts):
        made = [Part(**each) for each in parts]
        for part in made:
            self.parts[part.name] = part
            for source, sock in enumerate(part.sockets):
                self.sources[sock.fileno()] = (part, source)
                self.epoll.register(sock, select.EPOLLIN)
        while lacking := [part for part in made if not part.is_connected()]:
            for part in lacking:
                for source in range(len(part.sockets)):
                    if not part.load.is_connected(source):
                        self._send(part, source, 1, time.monotonic_ns(), 0)
            self._turn_until(lambda: all(part.is_connected() for part in made), 1.0)

    def fill(self, names):
        parts = [self.parts[name] for name in names]
        for part in parts:
            part.load.filling = True
        while not all(part.load.filled() and part.load.under_way == 0 for part in parts):
            for part in parts:
                for source in range(len(part.sockets)):
                    if part.load.under_way <= FILLING - 64:
                        self._send(part, source, 64, time.monotonic_ns(), 0)
            self._turn(0.001)
        for part in parts:
            part.load.filling = False
        return {part.name: part.population.present for part in parts}

    def pace(self, rates):
        now = time.monotonic_ns()
        for name, rate in rates.items():
            self.parts[name].pace(rate, now)

    def strict(self, strict):
        for name, is_strict in strict.items():
            self.parts[name].strict = self.parts[name].population.strict = is_strict

    def look(self):
        now = time.monotonic_ns()
        seconds, self.began = (now - self.began) / NANOSECONDS, now
        return {name: {"seconds": seconds, **self._figures(part, now)} for name, part in self.parts.items()}

    def settle(self):
        self.pace(dict.fromkeys(self.parts, 0.0))
        self._turn_until(lambda: not any(part.load.under_way for part in self.parts.values()), 10.0)
        return {name: part.load.under_way for name, part in self.parts.items()}

    def verify(self, gateways, address):
        wrong, asked, lacking = [], 0, 0
        for part in self.parts.values():
            before = Counter(part.population.faults())
            part.population.strict = True
            for gateway in gateways:
                for torrent, found in enumerate(scrape_all(part.population, tuple(gateway), address)):
                    asked += 1
                    if found is None or judge(part.population, torrent, *found):
                        least = least_of(part.population, torrent)
                        lacking += max(0, sum(least) - sum(found or (0, 0)))
                        wrong.append([part.name, gateway[0], torrent, found, least])
            part.population.strict = part.strict
            for name, many in (Counter(part.population.faults()) - before).items():
                part.told[f"wrong: {name}"] += many  # these are told here
        return {
            "asked": asked,
            "torrents": sum(part.population.torrents for part in self.parts.values()),
            "present": sum(part.population.present for part in self.parts.values()),
            "unsure": sum(part.population.unsure() for part in self.parts.values()),
            "lacking": lacking,
            "wrong": wrong[:20],
            "wrongs": len(wrong),
        }

    def _figures(self, part, now):
        found = part.counts()
        more = {name: many - part.told[name] for name, many in found.items()}
        part.told = found
        part.note_peers(now)
        longest, part.longest = part.longest, 0
        answers, total, _, most, _, buckets = part.load.harvest(1)
        late = part.load.harvest(3)[3]
        faults = {name.removeprefix("wrong: "): many for name, many in more.items() if name.startswith("wrong: ")}
        faults = {name: many for name, many in faults.items() if many}
        return {
            "sent": more["sent"],
            "answers": answers,
            "wrong": faults,
            "examples": {name: part.population.example(name) for name in faults},
            "lost at first": more["first lost"],
            "sent again": more["sent again"],
            "failed": more["lost"],
            "empty": more["empty"],
            "held": more["held"],
            "stray": more["stray"],
            "peers": more["peers"],
            "without peers": longest / NANOSECONDS,
            "p50": quantile(buckets, 0.5),
            "p99": quantile(buckets, 0.99),
            "most": most / 1e6 if answers else 0.0,
            "late": late / 1e6,
        }

    # Turns

    def _turn_until(self, condition, seconds):
        deadline = time.monotonic() + seconds
        while not condition() and time.monotonic() < deadline:
            self._turn()

    def _turn(self, longest=LONGEST):
        """Wait, take answers, send what is due. Whether there is an order."""
        now = time.monotonic_ns()
        dues = [due for part in self.parts.values() if (due := part.next_due()) is not None]
        wait = min(max(min(dues, default=now + NANOSECONDS) - now, 0) / NANOSECONDS, longest)
        is_told = False
        for fd, _ in self.epoll.poll(wait):
            if fd == sys.stdin.fileno():
                is_told = True
            else:
                self._receive(*self.sources[fd], fd)
        for part in self.parts.values():
            self._send_due(part)
        now = time.monotonic_ns()
        if now - self.looked > LOOK:
            self.looked = now
            for part in self.parts.values():
                self._send_again(part, now)
        return is_told

    def _send_due(self, part):
        left = min(part.due(time.monotonic_ns()), TURN)
        step = int(NANOSECONDS / part.rate) if left > 0 else 0
        while left > 0:
            many = min(left, 128)
            self._send(part, part.turn, many, part.next_due(), step)
            part.taken += many
            part.turn = (part.turn + 1) % len(part.sockets)
            left -= many

    def _send(self, part, source, many, due, step):
        rows = part.load.fill(self.out.data, self.out.iovecs, source, many, due, step, time.monotonic_ns())
        self.out.send(part.sockets[source].fileno(), rows)

    def _receive(self, part, source, fd):
        got = 128
        while got == 128:
            got = self.incoming.receive(fd)
            if got:
                self._take(part, source, got, time.monotonic_ns())

    def _take(self, part, source, got, now):
        data, headers = self.incoming.data, self.incoming.headers
        if part.strict and NOTHING in headers[7 : 8 * got : 8].tolist():
            for row in range(got):
                self._take_one(part, source, row, now)
        else:
            part.load.take(source, data, headers, got, now)
        peers = part.load.counters()["peers"]
        if peers != part.peers:
            part.peers = peers
            part.note_peers(now)

    def _take_one(self, part, source, row, now):
        """Take an answer that may be empty: one that does not count the asker is none that must have all peers."""
        stride = len(self.one.data) // 128
        length = self.incoming.headers[8 * row + 7] & 0xFFFF_FFFF
        answer = self.incoming.data[row * stride : row * stride + length]
        self.one.data[:length] = answer
        self.one.headers[7] = length
        is_empty = length == NOTHING and answer[3] == 1 and not any(answer[12:20])
        part.population.strict = not is_empty
        part.load.take(source, self.one.data, self.one.headers, 1, now)
        part.population.strict = True

    def _send_again(self, part, now):
        rows = 128
        while rows == 128:
            rows = part.load.expire(self.out.data, self.out.iovecs, self.again, now)
            for row in range(rows):
                at = row * (len(self.out.data) // 128)
                datagram = memoryview(self.out.data)[at : at + self.out.iovecs[2 * row + 1]]
                try:
                    part.sockets[self.again[row]].send(datagram)
                except OSError:
                    continue  # nobody listens at present: it is sent again, or has failed


def quantile(buckets, share):
    """Milliseconds that a share of what was timed took at most."""
    from loadtests.load.udp_load import value_of

    left = share * sum(buckets.values())
    for bucket in sorted(buckets):
        left -= buckets[bucket]
        if left <= 0:
            return value_of(bucket)
    return 0.0


# Afterwards


def scrape_all(population, gateway, address):
    """Seeders and leechers of each torrent, as a gateway says; None where it says nothing."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind((address, 0))
        sock.connect(gateway)
        sock.settimeout(AGAIN / NANOSECONDS)
        number, reply = 1, ask(sock, struct.pack(">QII", 0x417_2710_1980, 0, 1))
        known = reply[8:16]
        for first in range(0, population.torrents, SCRAPED):
            number += 1
            torrents = range(first, min(first + SCRAPED, population.torrents))
            hashes = b"".join(population.info_hash(torrent) for torrent in torrents)
            reply = ask(sock, known + struct.pack(">II", 2, number) + hashes)
            whole = len(reply) == 8 + 12 * len(torrents)
            for at in range(len(torrents)):
                yield struct.unpack_from(">I4xI", reply, 8 + 12 * at) if whole else None


def ask(sock, request):
    """The answer to a request, which is asked again as a client does; nothing if there is none."""
    for _ in range(1 + TRIES):
        try:
            sock.send(request)
            while (reply := sock.recv(4096))[4:8] != request[12:16]:
                pass
            if reply[:4] == request[8:12]:
                return reply
        except OSError:
            time.sleep(0.1)
    return b""


def judge(population, torrent, seeders, leechers):
    """Faults in what is said of a torrent."""
    return population.judge_scrape(torrent, population.stamp(torrent), seeders, leechers)


def least_of(population, torrent):
    """Seeders and leechers that a torrent surely has."""
    seeders = next(many for many in range(population.peers + 1) if not judge(population, torrent, many, 1 << 40) & 256)
    leechers = next(many for many in range(population.peers + 1) if not judge(population, torrent, 1 << 40, many) & 512)
    return seeders, leechers


if __name__ == "__main__":
    Driver().run()
