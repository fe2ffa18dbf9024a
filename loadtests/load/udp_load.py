"""KERNEL: UDP requests of a population in batches, and what becomes of each (BEP 15).

It judges the tracker's codec, so it has no line of it in common. A request's transaction id is its number; what is
known of it lies in a ring. Patience is a client's: without an answer a request is sent again, at last it is lost.
Latencies count from when a request was due to its answer, however often it was sent; patience from when it left.

Times are nanoseconds of a clock that never goes back. Shares are of 65536.
"""

import cython

if cython.compiled:
    from cython.cimports.loadtests.load.population import Population
else:
    from loadtests.load.population import Population

u8 = cython.typedef(cython.uchar)
u16 = cython.typedef(cython.ushort)
u32 = cython.typedef(cython.uint)
u64 = cython.typedef(cython.ulonglong)
i64 = cython.typedef(cython.longlong)
size = cython.typedef(cython.Py_ssize_t)
View = cython.typedef(cython.const[cython.uchar][::1])

STRIDE = 2048  # bytes from one datagram to the next, both ways
ROWS = 128  # datagrams of a batch
MOST_HASHES = 74  # of a scrape
KINDS = ("connect", "announce", "scrape")
TIMED = (*KINDS, "sent late")  # what latencies are kept of

ROW = cython.declare(size, STRIDE)
MANY = cython.declare(size, ROWS)
HASHES = cython.declare(size, MOST_HASHES)
SCRAPES = cython.declare(size, 4096)  # those under way that can be judged
CONNECT = cython.declare(u32, 1)  # kinds, 0 is free
ANNOUNCE = cython.declare(u32, 2)
SCRAPE = cython.declare(u32, 3)
LATE = cython.declare(size, 3)
BUCKETS = cython.declare(size, 960)
FIGURES = cython.declare(size, 5)  # of what is timed: count, sum, least, most, bytes

COUNTERS = ("sent", "sent again", "first lost", "lost", "stray", "peers", "held", "empty")
SENT = cython.declare(size, 20)
AGAIN = cython.declare(size, 21)
FIRST_LOST = cython.declare(size, 22)
LOST = cython.declare(size, 23)
STRAY = cython.declare(size, 24)  # answers to nothing that is under way: too late, or twice
PEERS = cython.declare(size, 25)
HELD = cython.declare(size, 26)  # nobody found who could announce, or too much under way
EMPTY = cython.declare(size, 27)  # valid, but nothing is acknowledged: no shard was heard

MAGIC = cython.declare(u64, 0x417_2710_1980)
MALFORMED = cython.declare(u32, 1)  # as population.py has them
ERROR = cython.declare(u32, 2)
ALL32 = cython.declare(u64, 0xFFFF_FFFF)
FOREVER = cython.declare(u64, 0xFFFF_FFFF_FFFF_FFFF)


def value_of(bucket: size) -> float:
    """The middle of a bucket, in milliseconds. Buckets are 3 % wide, or a microsecond."""
    wide = bucket // 32 - 1 if bucket >= 64 else 0
    return ((bucket - 32 * wide) + 0.5) * (1 << wide) / 1000


@cython.cfunc
@cython.inline
@cython.nogil
@cython.exceptval(check=False)
def bucket_of(nanoseconds: i64) -> size:
    """Where a latency is counted."""
    wide: size = 0
    micro: u64 = cython.cast(u64, nanoseconds) // 1000 if nanoseconds > 0 else 0
    micro = ALL32 if micro > ALL32 else micro
    while micro >> wide >= 64:
        wide += 1
    return 32 * wide + cython.cast(size, micro >> wide)


@cython.cfunc
@cython.inline
@cython.nogil
@cython.exceptval(check=False)
def read(raw: View, at: size) -> u32:
    """32 bits, big-endian."""
    high: u32 = cython.cast(u32, raw[at]) << 24 | cython.cast(u32, raw[at + 1]) << 16
    return high | cython.cast(u32, raw[at + 2]) << 8 | raw[at + 3]


@cython.cfunc
@cython.inline
@cython.nogil
@cython.exceptval(check=False)
def write(out: u8[::1], at: size, word: u64, length: size) -> cython.void:
    """The low bytes of a word, big-endian."""
    n: size
    for n in range(length):
        out[at + n] = cython.cast(u8, (word >> cython.cast(u64, 8 * (length - 1 - n))) & 0xFF)


@cython.cclass
class UdpLoad:
    """Requests of a population, and what is under way.

    bits: of how many requests may be under way. patience: nanoseconds until a request is sent again, `tries` times.
    connects, scrapes: shares of requests. hashes: of a scrape. want: peers asked for. Raises ValueError.
    """

    def __init__(self, population: Population, bits: size, patience: i64, tries: size):
        if not 4 <= bits <= 24 or not 0 <= tries <= 8 or patience < 1:
            raise ValueError("bits 4 to 24, tries 0 to 8, patience from 1")
        self.population = population
        self.room = 1 << bits
        self.patience = patience
        self.tries = tries
        self.next = 1
        self.filling = False
        self.under_way = 0
        self.scanned = memoryview(bytearray(4 * 9)).cast("I")
        for k in range(9):
            self.scanned[k] = 1
        self.cursors = memoryview(bytearray(4 * population.sources)).cast("I")
        self.kinds = bytearray(self.room)
        self.sources = memoryview(bytearray(2 * self.room)).cast("H")
        self.transactions = memoryview(bytearray(4 * self.room)).cast("I")
        self.subjects = memoryview(bytearray(4 * self.room)).cast("I")
        self.due = memoryview(bytearray(8 * self.room)).cast("q")
        self.left = memoryview(bytearray(8 * self.room)).cast("q")
        self.scrape_slots = memoryview(bytearray(4 * self.room)).cast("I")
        self.next_scrape = 0
        self.scrape_stamps = memoryview(bytearray(4 * SCRAPES * HASHES)).cast("I")
        self.scrape_owners = memoryview(bytearray(4 * SCRAPES)).cast("I")
        self.ids = bytearray(8 * population.sources)
        self.connected = bytearray(population.sources)
        self.buckets = memoryview(bytearray(4 * 4 * BUCKETS)).cast("I")
        self.tally = memoryview(bytearray(8 * 28)).cast("Q")
        for k in range(4):
            self.tally[FIGURES * k + 2] = FOREVER
        self.set_mix(0, 0, 1, 50)

    def set_mix(self, connects: u32, scrapes: u32, hashes: size, want: u32) -> None:
        """What is asked."""
        if connects > 65536 or scrapes > 65536 - connects or not 1 <= hashes <= min(HASHES, self.population.torrents):
            raise ValueError("shares are of 65536, hashes 1 to 74 and no more than torrents")
        self.connects = connects
        self.scrapes = scrapes
        self.hashes = hashes
        self.want = want

    # Doors

    def is_connected(self, source: size) -> bool:
        """Whether a source has a connection id."""
        if not 0 <= source < self.population.sources:
            raise ValueError("no such source")
        return self.connected[source] != 0

    def filled(self) -> bool:
        """Whether every peer has announced once, while filling."""
        source: size
        for source in range(self.population.sources):
            if cython.cast(size, self.cursors[source]) < self.population.ports:
                return False
        return True

    def fill(self, out: u8[::1], iovecs: u64[::1], source: size, many: size, due: i64, step: i64, now: i64) -> int:
        """Write up to `many` requests of a source, due from `due` on; how many there are.

        Without a connection id there is one, for that. iovecs: a word of two for each gets its length.
        """
        if not 0 <= many <= MANY or len(out) < MANY * ROW or len(iovecs) < 2 * MANY:
            raise ValueError("room is for 128 requests")
        if not 0 <= source < self.population.sources:
            raise ValueError("no such source")
        rows: size = 0
        n: size
        flight: size
        for n in range(many):
            flight = self.next & (self.room - 1)
            if self.kinds[flight]:
                self.tally[HELD] += 1
                continue
            if not self._choose(source, flight):
                self.tally[HELD] += not self.filling
                continue
            self.sources[flight] = cython.cast(u16, source)
            self.transactions[flight] = self.next
            self.due[flight] = due + n * step
            self.left[flight] = now
            self.next = cython.cast(u32, (cython.cast(u64, self.next) + 1) & ALL32)
            self.under_way += 1
            iovecs[2 * rows + 1] = cython.cast(u64, self._write(out, rows * ROW, flight))
            rows += 1
            self.tally[SENT] += 1
            self._time(LATE, now - due - n * step)
            if not self.connected[source]:
                break
        return rows

    def take(self, source: size, raw: View, headers: u64[::1], many: size, now: i64) -> None:
        """Judge datagrams that came to a source. headers: 8 words each, the last is the length (recvmmsg(2))."""
        if not 0 <= many <= MANY or len(raw) < MANY * ROW or len(headers) < 8 * MANY:
            raise ValueError("room is for 128 answers")
        if not 0 <= source < self.population.sources:
            raise ValueError("no such source")
        n: size
        length: size
        for n in range(many):
            length = cython.cast(size, headers[8 * n + 7] & ALL32)
            self._answer(source, raw, n * ROW, ROW if length > ROW else length, now)

    def expire(self, out: u8[::1], iovecs: u64[::1], of: u16[::1], now: i64) -> int:
        """Write what must be sent again, with the source of each; give up what was sent often enough."""
        if len(out) < MANY * ROW or len(iovecs) < 2 * MANY or len(of) < MANY:
            raise ValueError("room is for 128 requests")
        rows: size = 0
        k: size
        flight: size
        for k in range(self.tries + 1):
            while self.scanned[k] != self.next and rows < MANY:
                flight = self.scanned[k] & (self.room - 1)
                if self.kinds[flight] and self.transactions[flight] == self.scanned[k]:
                    if self.left[flight] + (k + 1) * self.patience > now:
                        break
                    self.tally[FIRST_LOST] += k == 0
                    if k < self.tries:
                        iovecs[2 * rows + 1] = cython.cast(u64, self._write(out, rows * ROW, flight))
                        of[rows] = self.sources[flight]
                        rows += 1
                        self.tally[AGAIN] += 1
                    else:
                        self.tally[LOST] += 1
                        self._end(flight)
                self.scanned[k] = cython.cast(u32, (cython.cast(u64, self.scanned[k]) + 1) & ALL32)
        return rows

    def harvest(self, what: size) -> tuple:
        """What was timed since the last time: count, nanoseconds in all, least, most, bytes, {bucket: count}."""
        if not 0 <= what < 4:
            raise ValueError("nothing of that kind is timed")
        n: size
        at: size = FIGURES * what
        found = {n: self.buckets[BUCKETS * what + n] for n in range(BUCKETS) if self.buckets[BUCKETS * what + n]}
        figures = tuple(self.tally[at : at + FIGURES])
        for n in range(BUCKETS):
            self.buckets[BUCKETS * what + n] = 0
        for n in range(FIGURES):
            self.tally[at + n] = FOREVER if n == 2 else 0
        return (*figures, found)

    def counters(self) -> dict:
        """What was counted from the start, by COUNTERS."""
        return {name: self.tally[SENT + n] for n, name in enumerate(COUNTERS)}

    # Requests

    def _choose(self, source: size, flight: size) -> cython.bint:
        """Decide what a request is; False if there is nothing to ask."""
        peer: size
        roll: u32 = cython.cast(u32, self.population.word() >> 48)
        if not self.connected[source] or (not self.filling and roll < self.connects):
            self.kinds[flight] = cython.cast(u8, CONNECT)
            return True
        if self.filling:
            if cython.cast(size, self.cursors[source]) >= self.population.ports:
                return False
            peer = source * self.population.ports + self.cursors[source]
            self.cursors[source] += 1
            if self.population.is_flying(peer):
                return False
        elif roll < self.connects + self.scrapes:
            self._begin_scrape(flight)
            return True
        else:
            peer = self.population.choose(source)
            if peer < 0:
                return False
        self.kinds[flight] = cython.cast(u8, ANNOUNCE)
        self.subjects[flight] = cython.cast(u32, self.population.start(peer))
        return True

    def _begin_scrape(self, flight: size) -> cython.void:
        """Choose torrents that lie together, and keep their stamps."""
        n: size
        slot: size = self.next_scrape & (SCRAPES - 1)
        span: u64 = cython.cast(u64, self.population.torrents - self.hashes + 1)
        first: size = cython.cast(size, ((self.population.word() >> 32) * span) >> 32)
        self.kinds[flight] = cython.cast(u8, SCRAPE)
        self.subjects[flight] = cython.cast(u32, first)
        self.scrape_slots[flight] = cython.cast(u32, slot)
        self.next_scrape = cython.cast(u32, (cython.cast(u64, self.next_scrape) + 1) & ALL32)
        self.scrape_owners[slot] = self.next
        for n in range(self.hashes):
            self.scrape_stamps[slot * HASHES + n] = self.population.stamp_of(first + n)

    def _write(self, out: u8[::1], at: size, flight: size) -> size:
        """Write a request; its length."""
        n: size
        kind: u32 = self.kinds[flight]
        if kind == CONNECT:
            write(out, at, MAGIC, 8)
            write(out, at + 8, 0, 4)
            write(out, at + 12, self.transactions[flight], 4)
            return 16
        for n in range(8):
            out[at + n] = self.ids[8 * cython.cast(size, self.sources[flight]) + n]
        write(out, at + 8, kind - 1, 4)
        write(out, at + 12, self.transactions[flight], 4)
        if kind == ANNOUNCE:
            return self._write_announce(out, at, self.subjects[flight])
        for n in range(self.hashes):
            self.population.put_hash(out, at + 16 + 20 * n, cython.cast(size, self.subjects[flight]) + n)
        return 16 + 20 * self.hashes

    def _write_announce(self, out: u8[::1], at: size, peer: size) -> size:
        """Write the rest of an announce; the length of all."""
        n: size
        self.population.put_hash(out, at + 16, self.population.torrent(peer))
        for n in range(36, 84):  # the peer id, downloaded, left, uploaded
            out[at + n] = 0
        write(out, at + 36, 0x2D71_4234_3637_302D, 8)  # -qB4670-
        write(out, at + 48, cython.cast(u64, peer), 8)
        write(out, at + 64, cython.cast(u64, self.population.left(peer)) << 20, 8)
        write(out, at + 80, self.population.event(peer), 4)
        write(out, at + 84, 0, 4)
        write(out, at + 88, cython.cast(u64, peer), 4)
        write(out, at + 92, self.want, 4)
        write(out, at + 96, cython.cast(u64, self.population.first_port + peer % self.population.ports), 2)
        return 98

    # Answers

    def _answer(self, source: size, raw: View, at: size, length: size, now: i64) -> cython.void:
        """Judge an answer."""
        flight: size
        kind: size
        if length < 8:
            self.tally[STRAY] += 1
            return
        flight = read(raw, at + 4) & (self.room - 1)
        if (
            self.kinds[flight] == 0
            or self.transactions[flight] != read(raw, at + 4)
            or cython.cast(size, self.sources[flight]) != source
        ):
            self.tally[STRAY] += 1
            return
        kind = cython.cast(size, self.kinds[flight]) - 1
        if read(raw, at) == 3:
            self._refused(flight, ERROR)
        elif read(raw, at) != cython.cast(u32, kind):
            self._refused(flight, MALFORMED)
        elif kind == 0:
            self._connect(flight, raw, at, length)
        elif kind == 1:
            self._judge_announce(flight, raw, at, length)
        else:
            self._judge_scrape(flight, raw, at, length)
        self.tally[FIGURES * kind + 4] += cython.cast(u64, length)
        self._time(kind, now - self.due[flight])
        self._end(flight)

    def _connect(self, flight: size, raw: View, at: size, length: size) -> u32:
        """Take a connection id."""
        n: size
        source: size = self.sources[flight]
        if length != 16:
            return self._refused(flight, MALFORMED)
        for n in range(8):
            self.ids[8 * source + n] = raw[at + 8 + n]
        self.connected[source] = 1
        return 0

    def _judge_announce(self, flight: size, raw: View, at: size, length: size) -> u32:
        """Judge counts and peers."""
        peer: size = self.subjects[flight]
        ipv6: cython.bint = self.population.families[self.sources[flight]] != 0
        stride: size = 18 if ipv6 else 6
        many: size = (length - 20) // stride
        stopped: cython.bint
        doubt: i64
        faults: u32
        if length < 20 or (length - 20) % stride or read(raw, at + 8) == 0:
            return self._refused(flight, MALFORMED)
        if many == 0 and self.population.is_empty(peer, read(raw, at + 16), read(raw, at + 12)):
            self.population.give_up(peer)
            self.tally[EMPTY] += 1
            return 0
        stopped = self.population.event(peer) == 3
        doubt = self.population.acknowledge(peer)
        faults = self.population.judge_counts(
            self.population.torrent(peer), doubt, read(raw, at + 16), read(raw, at + 12)
        )
        faults |= self.population.judge_listed(peer, raw, at + 20, many, ipv6, doubt)
        if not stopped:
            faults |= self.population.judge_many(peer, many, self.want, doubt)
        self.tally[PEERS] += cython.cast(u64, many)
        return faults

    def _judge_scrape(self, flight: size, raw: View, at: size, length: size) -> u32:
        """Judge the counts of each torrent."""
        n: size
        faults: u32 = 0
        torrent: size = self.subjects[flight]
        slot: size = self.scrape_slots[flight]
        if length != 8 + 12 * self.hashes:
            return self._refused(flight, MALFORMED)
        if self.scrape_owners[slot] != self.transactions[flight]:
            return 0  # too many others since
        for n in range(self.hashes):
            faults |= self.population.judge_counts(
                torrent + n,
                self.population.doubt_since(torrent + n, self.scrape_stamps[slot * HASHES + n]),
                read(raw, at + 8 + 12 * n),
                read(raw, at + 16 + 12 * n),
            )
        return faults

    def _refused(self, flight: size, fault: u32) -> u32:
        """Count an answer that is none."""
        peer: size = -1
        torrent: size = -1
        if self.kinds[flight] == ANNOUNCE:
            peer = self.subjects[flight]
            torrent = self.population.torrent(peer)
        return self.population.note(fault, torrent, peer, 0, 0, 0)

    def _end(self, flight: size) -> cython.void:
        """A request is no longer under way."""
        if self.kinds[flight] == ANNOUNCE:
            self.population.give_up(self.subjects[flight])
        self.kinds[flight] = 0
        self.under_way -= 1

    def _time(self, what: size, nanoseconds: i64) -> cython.void:
        """Count a latency, unless the tracker is being filled."""
        took: u64 = cython.cast(u64, nanoseconds) if nanoseconds > 0 else 0
        at: size = FIGURES * what
        if self.filling:
            return
        self.buckets[BUCKETS * what + bucket_of(nanoseconds)] += 1
        self.tally[at] += 1
        self.tally[at + 1] += took
        if took < self.tally[at + 2]:
            self.tally[at + 2] = took
        if took > self.tally[at + 3]:
            self.tally[at + 3] = took
