"""KERNEL: datagrams of BEP 15 and BEP 41 into records, replies into datagrams; connection ids; limits per source.

Works on the arrays of common/batch_io.py, which recvmmsg fills and sendmmsg empties, as 64-bit words in the
machine's order (little-endian; the service refuses to start elsewhere).

Request (all BE)      connect, 16 bytes     announce, 98 bytes and BEP 41's options     scrape, 16 + 20 n
 0 word 0             0x41727101980         connection id                               connection id
 8 word 1             action 0, transaction action 1, transaction                       action 2, transaction
16 words 2..4                               info-hash, 20 bytes                         info-hashes
64 word 8                                   left
80 word 10                                  event, IP address
88 word 11                                  key, num_want
96 word 12                                  port

Whatever comes from strangers, readers do not fail: a datagram is answered, turned into records, or counted
as refused. An unproven source gets at most 16 bytes, or an error shorter than its request; an error is
only sent to what looks like an announce or scrape, so two trackers cannot be made to answer each other.

Connection id: the window's low byte, then 7 bytes of SipHash-2-4(key, 01 | window, 8 bytes BE | address,
16 bytes), least significant first; bound to the address alone, so any gateway that has the key takes it.

Limits: a token bucket for connects and one for the rest, for each /32 or /64, kept as the time at which the
bucket is full again (GCRA, ITU-T I.371). The table is of fixed size, four places to a set; the place whose
buckets are fullest is taken over, so a flood of sources does not free one that is being limited.

Gather place (1024 bytes), for a scrape of several hashes: words 0 generation, 1 hashes | missing << 32,
2 deadline, 3..8 ticket, 9..10 bits of the parts that came; from byte 88 on the answer.
"""

import cython

from common import counters, frames

if cython.compiled:
    from cython.cimports.libc.string import memcpy

u8 = cython.typedef(cython.uchar)
u32 = cython.typedef(cython.uint)
u64 = cython.typedef(cython.ulonglong)
size = cython.typedef(cython.Py_ssize_t)
View = cython.typedef(cython.const[cython.uchar][::1])

HEADER = cython.declare(size, frames.HEADER)
RECORD = cython.declare(size, frames.RECORD)
REPLY = cython.declare(size, frames.REPLY)
VERSION = cython.declare(u64, frames.VERSION)
RECORDS = cython.declare(u64, frames.RECORDS)
REPLIES = cython.declare(u32, frames.REPLIES)
AT_COUNT = cython.declare(size, frames.AT_COUNT)
AT_KIND = cython.declare(size, frames.AT_KIND)
AT_INFO_HASH = cython.declare(size, frames.AT_INFO_HASH)
AT_ADDRESS = cython.declare(size, frames.AT_ADDRESS)
AT_PORT = cython.declare(size, frames.AT_PORT)
AT_EVENT = cython.declare(size, frames.AT_EVENT)
AT_WANT = cython.declare(size, frames.AT_WANT)
AT_PART = cython.declare(size, frames.AT_PART)
AT_OWN_FAMILY = cython.declare(size, frames.AT_OWN_FAMILY)
AT_TICKET = cython.declare(size, frames.AT_TICKET)
AT_ANSWER = cython.declare(size, frames.AT_ANSWER)
AT_INTERVAL = cython.declare(size, frames.AT_INTERVAL)
EVENT_PAUSED = cython.declare(u32, frames.EVENT_PAUSED)
EVENT_SCRAPE = cython.declare(u32, frames.EVENT_SCRAPE)
FLAG_SEEDER = cython.declare(u32, frames.FLAG_SEEDER)
FLAG_IPV6 = cython.declare(u32, frames.FLAG_IPV6)
FLAG_EXEMPT = cython.declare(u32, frames.FLAG_EXEMPT)
TICKET_GATHER = cython.declare(u64, frames.TICKET_GATHER)
MAX_SCRAPE = cython.declare(size, frames.MAX_SCRAPE)

CONNECTS = cython.declare(size, counters.CONNECTS)
ANNOUNCES = cython.declare(size, counters.ANNOUNCES)
SCRAPES = cython.declare(size, counters.SCRAPES)
CONNECT_ANSWERS = cython.declare(size, counters.CONNECT_ANSWERS)
ANNOUNCE_ANSWERS = cython.declare(size, counters.ANNOUNCE_ANSWERS)
SCRAPE_ANSWERS = cython.declare(size, counters.SCRAPE_ANSWERS)
ERROR_ANSWERS = cython.declare(size, counters.ERROR_ANSWERS)
TOO_SHORT = cython.declare(size, counters.TOO_SHORT)
NO_CONNECT = cython.declare(size, counters.NO_CONNECT)
BAD_ID = cython.declare(size, counters.BAD_ID)
UNKNOWN_ACTION = cython.declare(size, counters.UNKNOWN_ACTION)
MALFORMED_ANNOUNCE = cython.declare(size, counters.MALFORMED_ANNOUNCE)
NO_HASHES = cython.declare(size, counters.NO_HASHES)
BAD_SOURCE = cython.declare(size, counters.BAD_SOURCE)
CONNECT_LIMIT = cython.declare(size, counters.CONNECT_LIMIT)
REQUEST_LIMIT = cython.declare(size, counters.REQUEST_LIMIT)
GATHER_FULL = cython.declare(size, counters.GATHER_FULL)
GATHER_LATE = cython.declare(size, counters.GATHER_LATE)
BAD_REPLY = cython.declare(size, counters.BAD_REPLY)
URL_DATA = cython.declare(size, counters.URL_DATA)
BAD_OPTIONS = cython.declare(size, counters.BAD_OPTIONS)
ERRORS_HELD_BACK = cython.declare(size, counters.ERRORS_HELD_BACK)

ALL32 = cython.declare(u64, 0xFFFF_FFFF)
ALL64 = cython.declare(u64, 0xFFFF_FFFF_FFFF_FFFF)
LOW56 = cython.declare(u64, 0x00FF_FFFF_FFFF_FFFF)
SPREAD = cython.declare(u64, 0x9E37_79B9_7F4A_7C15)
MAPPED = cython.declare(u64, 0xFFFF_0000)  # bytes 8..11 of an IPv4 address seen as IPv6
PORT = cython.declare(u64, 0xFFFF_0000)  # of a socket address's and a ticket's first word
MAGIC = cython.declare(u64, 0x8019_1027_1704_0000)  # BEP 15's protocol id, as a little-endian word
# Actions as they lie in a word's low half.
ANNOUNCE = cython.declare(u64, 0x0100_0000)
SCRAPE = cython.declare(u64, 0x0200_0000)
ERROR = cython.declare(u64, 0x0300_0000)
SIP0 = cython.declare(u64, 0x736F_6D65_7073_6575)
SIP1 = cython.declare(u64, 0x646F_7261_6E64_6F6D)
SIP2 = cython.declare(u64, 0x6C79_6765_6E65_7261)
SIP3 = cython.declare(u64, 0x7465_6462_7974_6573)
AF_INET = cython.declare(u64, 2)
AF_INET6 = cython.declare(u64, 10)

STRIDE = cython.declare(size, 264)  # words from one datagram to the next: 2,112 bytes, so that they share no cache set
LONGEST = cython.declare(size, 2048)
DIRECT = cython.declare(size, 8)  # words of an answer that needs no shard
MOST6 = cython.declare(u32, 67)  # IPv6 peers within 1,232 bytes
SETS = cython.declare(u64, 1 << 14)
PLACES = cython.declare(size, 1024)
PLACE = cython.declare(size, 128)  # words of a gather place
GATHER_SECONDS = cython.declare(u64, 3)

MISMATCH = cython.declare(View, b"Connection ID mismatch")
UNKNOWN = cython.declare(View, b"unknown action")
MALFORMED = cython.declare(View, b"malformed announce")
EMPTY = cython.declare(View, b"no hash")


@cython.cfunc
@cython.inline
@cython.nogil
@cython.exceptval(check=False)
def wrap(x: u64) -> u64:
    """A sum, product or shift, modulo 2^64: what C does of itself."""
    if cython.compiled:
        return x
    else:
        return x & ALL64


@cython.cfunc
@cython.inline
@cython.nogil
@cython.exceptval(check=False)
def turn(x: u64, by: u32) -> u64:
    return wrap(x << by) | (x >> (64 - by))


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def sip(k0: u64, k1: u64, m0: u64, m1: u64, m2: u64, m3: u64, m4: u64, words: size) -> u64:
    """SipHash-2-4 of up to five message words, the last of which holds the length (Aumasson, Bernstein 2012)."""
    v0: u64 = k0 ^ SIP0
    v1: u64 = k1 ^ SIP1
    v2: u64 = k0 ^ SIP2
    v3: u64 = k1 ^ SIP3
    m: u64
    i: size
    r: size
    rounds: size = 2
    for i in range(words + 1):
        m = m0
        m0 = m1
        m1 = m2
        m2 = m3
        m3 = m4
        if i == words:
            m = 0
            v2 ^= 0xFF
            rounds = 4
        v3 ^= m
        for r in range(rounds):
            v0 = wrap(v0 + v1)
            v1 = turn(v1, 13) ^ v0
            v0 = turn(v0, 32)
            v2 = wrap(v2 + v3)
            v3 = turn(v3, 16) ^ v2
            v0 = wrap(v0 + v3)
            v3 = turn(v3, 21) ^ v0
            v2 = wrap(v2 + v1)
            v1 = turn(v1, 17) ^ v2
            v2 = turn(v2, 32)
        v0 ^= m
    return v0 ^ v1 ^ v2 ^ v3


@cython.cfunc
@cython.inline
@cython.nogil
@cython.exceptval(check=False)
def swap32(x: u64) -> u32:
    """The 4 bytes of a word's low half in the other order."""
    return cython.cast(u32, ((x & 0xFF) << 24) | ((x & 0xFF00) << 8) | ((x >> 8) & 0xFF00) | ((x >> 24) & 0xFF))


@cython.cfunc
@cython.inline
@cython.nogil
@cython.exceptval(check=False)
def read_u16(source: View, at: size) -> u32:
    high: u32 = source[at + 1]
    return source[at] | (high << 8)


def siphash(key: bytes, message: bytes) -> int:
    """SipHash-2-4 of at most 39 bytes under a key of 16, as a number (its bytes least significant first)."""
    if len(key) != 16 or len(message) > 39:
        raise ValueError("a key of 16 bytes and a message of at most 39")
    padded = message + bytes(39 - len(message)) + b"\0"
    m = [int.from_bytes(padded[8 * i : 8 * i + 8], "little") for i in range(5)]
    words = len(message) // 8 + 1
    m[words - 1] |= (len(message) & 0xFF) << 56
    k0 = int.from_bytes(key[:8], "little")
    k1 = int.from_bytes(key[8:], "little")
    return sip(k0, k1, m[0], m[1], m[2], m[3], m[4], words)


def url_data(datagram: bytes) -> bytes:
    """The path and query of the tracker's URL in an announce's options (BEP 41); empty if there is none.

    Pieces are joined; what is cut off, and all after it, is ignored; more than 1,024 bytes count as none.
    """
    url = b""
    at = 98
    while at < len(datagram) and datagram[at] != 0:
        if datagram[at] == 1:
            at += 1
            continue
        if at + 2 > len(datagram) or at + 2 + datagram[at + 1] > len(datagram):
            break
        if datagram[at] == 2:
            url += datagram[at + 2 : at + 2 + datagram[at + 1]]
        at += 2 + datagram[at + 1]
    return url if len(url) <= 1024 else b""


@cython.cclass
class UdpCodec:
    """Between the arrays of `batch` (common/batch_io.py: Batch) and the frames of `links` shards.

    slices: a power of two. most: peers an answer may have at most. windows: how many past windows of
    connection ids are good. Rates are per second and source; `error_rate` is for all sources together.
    """

    def __init__(self, batch, links: size, slices: u32, want: u32, most: u32, windows: u32, answer_invalid: bool):
        if slices < 1 or slices > 65536 or slices & (slices - 1) or not 1 <= links <= 4096:
            raise ValueError("slices must be a power of two up to 65536, links 1 to 4096")
        if not want <= most <= frames.MAX_WANT or not 1 <= windows <= 200:
            raise ValueError("want, most or windows out of range")
        self.sockets = batch.sockets
        self.depth = batch.depth
        self.got = batch.received.headers
        self.got_words = batch.received.data
        self.got_bytes = memoryview(self.got_words).cast("B")
        self.got_names = batch.received.names
        self.got_controls = batch.received.controls
        self.out_iovecs = batch.sent.iovecs
        self.out_names = batch.sent.names
        self.out_controls = batch.sent.controls
        self.direct = batch.sent.data
        self.direct_bytes = memoryview(self.direct).cast("B")
        self.direct_address = batch.sent.data_address
        self.family6 = memoryview(bytearray(batch.ipv6))
        self.pending = memoryview(bytearray(4 * batch.sockets)).cast("I")
        self.direct_used = 0
        self.links = links
        self.slices = slices
        self.want = want
        self.most = most
        self.windows = windows
        self.answer_invalid = answer_invalid
        self.frame_size = frames.HEADER + (batch.depth + frames.MAX_SCRAPE) * frames.RECORD
        self.frames_view = batch.allocate(links * self.frame_size, links * self.frame_size)
        self.frames = self.frames_view
        self.frame_words = memoryview(self.frames).cast("Q")
        self.filled = memoryview(bytearray(4 * links)).cast("I")
        self.fullest = 0
        self.table = memoryview(bytearray(2 * slices)).cast("H")
        self.gathers = batch.allocate(1024 * 1024)
        self.gather_words = memoryview(self.gathers).cast("Q")
        self.gather_address = batch.address_of(self.gathers)
        self.free = memoryview(bytearray(4 * 1024)).cast("I")
        for i in range(1024):
            self.free[i] = 1023 - i
        self.free_places = 1024
        self.buckets = memoryview(batch.allocate((1 << 14) * 4 * 24)).cast("Q")
        self.ticket = memoryview(bytearray(48)).cast("Q")
        self.ticket_bytes = memoryview(self.ticket).cast("B")
        self.refused_high = 0
        self.refused_low = 0
        self.counts = memoryview(bytearray(8 * counters.GATEWAY)).cast("Q")
        self.exempt = memoryview(bytearray(0)).cast("Q")
        self.trusted = memoryview(bytearray(0)).cast("Q")
        self.set_limits(20, 60, 50, 300, 1000)
        self.set_keys(bytes(16), bytes(16), b"", 0, 0)

    # Doors: settings

    def set_keys(self, cluster: bytes, current: bytes, previous: bytes, rotated: u64, secret: u64) -> None:
        """Keys of 16 bytes; `previous` (or nothing) is good for ids of windows up to `rotated`."""
        if len(cluster) != 16 or len(current) != 16 or len(previous) not in (0, 16):
            raise ValueError("keys have 16 bytes")
        word = [int.from_bytes(key[at : at + 8], "little") for key in (cluster, current, previous) for at in (0, 8)]
        self.slice0, self.slice1, self.key0, self.key1, self.old0, self.old1 = word
        self.rotated = rotated
        self.has_old = len(previous) == 16
        self.secret = secret

    def set_limits(self, connects: float, connect_burst: u64, requests: float, request_burst: u64, errors: u64) -> None:
        """Token buckets: rates per second, bursts in tokens; `errors` a second for all sources."""
        self.connect_cost = max(1, round(1_000_000 / connects))
        self.connect_burst = self.connect_cost * connect_burst
        self.request_cost = max(1, round(1_000_000 / requests))
        self.request_burst = self.request_cost * request_burst
        self.error_cost = 1_000_000 // max(1, errors)
        self.errors_full = 0

    def set_networks(self, exempt: bytes, trusted: bytes) -> None:
        """Networks that limits do not refuse, and those whose IP field is honoured: 16 bytes, then their mask's 16."""
        if len(exempt) % 32 or len(trusted) % 32:
            raise ValueError("a network has 16 bytes and a mask of 16")
        self.exempt = memoryview(bytearray(exempt)).cast("Q")
        self.trusted = memoryview(bytearray(trusted)).cast("Q")

    def set_links(self, table: View) -> None:
        """Which link answers for each slice: 2 bytes each, little-endian."""
        i: size
        if len(table) != 2 * self.slices:
            raise ValueError("a link for each slice")
        for i in range(self.slices):
            if read_u16(table, 2 * i) >= self.links:
                raise ValueError("no such link")
        for i in range(self.slices):
            self.table[i] = read_u16(table, 2 * i)

    # Doors: batches

    def decode(self, socket: size, start: size, many: size, now: u64, window: u64) -> int:
        """Take datagrams start..many of a socket's batch; returns where to go on once the frames are sent.

        now: microseconds of a clock that never goes back. window: the connection ids' window.
        What `pending` counts must have been sent since the last call.
        """
        i: size
        if not 0 <= socket < self.sockets or not 0 <= start <= many <= self.depth:
            raise ValueError("no such socket, or more datagrams than a batch has")
        self.direct_used = 0
        for i in range(start, many):
            if self.fullest > self.depth:
                return i
            self._decode(socket, socket * self.depth + i, now, window)
        return many

    def close_frame(self, link: size, number: u64, boot: u64, tick: u64) -> int:
        """Write the header of a link's frame and begin a new one; returns its length, 0 if it has no records."""
        at: size = link * self.frame_size // 8
        count: u64
        if not 0 <= link < self.links:
            raise ValueError("no such link")
        count = self.filled[link]
        if count == 0:
            return 0
        self.frame_words[at] = VERSION | (RECORDS << 16) | (count << 32)
        self.frame_words[at + 1] = number
        self.frame_words[at + 2] = boot
        self.frame_words[at + 3] = tick
        self.filled[link] = 0
        self.fullest = 0
        return HEADER + count * RECORD

    def encode(self, replies: View, address: u64) -> int:
        """Queue the answers of a frame of replies, which lies at `address`; returns how many there are.

        What does not add up is counted, with all after it. The frame must stay until the answers are sent.
        """
        at: size = HEADER
        length: size
        many: size = 0
        if len(replies) < HEADER or read_u16(replies, 0) != VERSION or read_u16(replies, AT_KIND) != REPLIES:
            self.counts[BAD_REPLY] += 1
            return 0
        while at < len(replies):
            length = 0
            if at + REPLY <= len(replies):
                length = read_u16(replies, at) | (read_u16(replies, at + 2) << 16)
            if length < REPLY or at + length > len(replies) or not self._encode(replies, at, length, address + at):
                self.counts[BAD_REPLY] += 1
                break
            at += length
            many += 1
        return many

    def take_pending(self, socket: size) -> int:
        """How many datagrams are queued for a socket, from the first place of its arrays on."""
        many: u32 = self.pending[socket]
        self.pending[socket] = 0
        return many

    def expire_gathers(self, now: u64) -> int:
        """Give up scrapes some of whose parts are 3 s late; returns how many."""
        place: size
        late: size = 0
        for place in range(PLACES):
            if self.gather_words[place * PLACE + 2] != 0 and self.gather_words[place * PLACE + 2] < now:
                self._free_place(place)
                late += 1
        self.counts[GATHER_LATE] += late
        return late

    def connection_id(self, address: bytes, window: u64) -> bytes:
        """The connection id of an address of 16 bytes in a window."""
        high = int.from_bytes(address[:8], "little")
        low = int.from_bytes(address[8:], "little")
        return int(self._make_id(self.key0, self.key1, high, low, window)).to_bytes(8, "little")

    def last_refused(self) -> bytes:
        """The address, 16 bytes, that a limit or a bad connection id refused last; empty if there is none."""
        if self.refused_high == 0 and self.refused_low == 0:
            return b""
        return int(self.refused_high).to_bytes(8, "little") + int(self.refused_low).to_bytes(8, "little")

    def counters(self) -> list[int]:
        """The counts named in common/counters.py."""
        return list(self.counts)

    # Decoding

    def _decode(self, socket: size, i: size, now: u64, window: u64) -> cython.void:
        """One datagram."""
        length: size = cython.cast(size, self.got[8 * i + 7] & ALL32)
        at: size = i * STRIDE
        action: u64
        wide: cython.bint = self.family6[socket] != 0
        good: cython.bint
        if length < 16:
            self.counts[TOO_SHORT] += 1
            return
        if length > LONGEST:
            length = LONGEST
        if not self._take_source(i, wide):
            self.counts[BAD_SOURCE] += 1
            return
        action = self.got_words[at + 1] & ALL32
        self.transaction = self.got_words[at + 1] >> 32
        if action == 0:
            if self.got_words[at] == MAGIC:
                self._connect(socket, now, window)
            else:
                self.counts[NO_CONNECT] += 1
            return
        good = self._is_good_id(self.got_words[at], window)
        if action == ANNOUNCE and length >= 98:
            self.counts[ANNOUNCES] += 1
            if not good:
                self._refuse_id(socket, now)
            elif self._admit(self.request_cost, self.request_burst, 2, now):
                self._announce(socket, at, length)
            else:
                self._refuse(REQUEST_LIMIT)
        elif action == SCRAPE and length >= 36:
            self.counts[SCRAPES] += 1
            if not good:
                self._refuse_id(socket, now)
            elif self._admit(self.request_cost, self.request_burst, 2, now):
                self._scrape(socket, at, length, now)
            else:
                self._refuse(REQUEST_LIMIT)
        elif not good:
            self._refuse(BAD_ID)
        elif not self._admit(self.request_cost, self.request_burst, 2, now):
            self._refuse(REQUEST_LIMIT)
        elif action == ANNOUNCE:
            self.counts[MALFORMED_ANNOUNCE] += 1
            self._error(socket, MALFORMED, length, now)
        elif action == SCRAPE:
            self.counts[NO_HASHES] += 1
            self._error(socket, EMPTY, length, now)
        else:
            self.counts[UNKNOWN_ACTION] += 1
            self._error(socket, UNKNOWN, length, now)

    def _take_source(self, i: size, wide: cython.bint) -> cython.bint:
        """Take a datagram's addresses in hand; False if nobody can be there."""
        word: u64 = self.got_names[4 * i]
        first: u64
        self.port = (word >> 16) & 0xFFFF
        if wide:
            self.high = self.got_names[4 * i + 1]
            self.low = self.got_names[4 * i + 2]
            self.scope = self.got_names[4 * i + 3] & ALL32
            self.local_high = self.got_controls[6 * i + 2]
            self.local_low = self.got_controls[6 * i + 3]
            self.ipv6 = self.high != 0 or (self.low & ALL32) != MAPPED
            if self.ipv6:
                # Multicast, or unspecified.
                return self.port != 0 and (self.high & 0xFF) != 0xFF and (self.high | self.low) != 0
        else:
            self.high = 0
            self.low = MAPPED | ((word >> 32) << 32)
            self.scope = 0
            self.local_high = 0
            self.local_low = MAPPED | ((self.got_controls[6 * i + 2] >> 32) << 32)
            self.ipv6 = False
        first = (self.low >> 32) & 0xFF
        return self.port != 0 and first != 0 and first < 224

    def _connect(self, socket: size, now: u64, window: u64) -> cython.void:
        at: size = self.direct_used * DIRECT
        self.counts[CONNECTS] += 1
        if not self._admit(self.connect_cost, self.connect_burst, 1, now):
            self._refuse(CONNECT_LIMIT)
            return
        self.direct[at] = self.transaction << 32
        self.direct[at + 1] = self._make_id(self.key0, self.key1, self.high, self.low, window)
        self._queue_direct(socket, 16)
        self.counts[CONNECT_ANSWERS] += 1

    def _announce(self, socket: size, at: size, length: size) -> cython.void:
        """The record of an announce whose connection id is good."""
        record: size = self._begin_record(at + 2)
        flags: u32 = FLAG_EXEMPT if self._is_in(self.exempt) else 0
        word: u64 = self.got_words[at + 10]
        event: u64 = word & ALL32
        want: u32 = swap32(self.got_words[at + 11] >> 32)
        most: u32 = self.most
        byte: size = record * 8
        if (event & 0xFF_FFFF) == 0 and (event >> 24) <= EVENT_PAUSED:
            flags |= cython.cast(u32, event >> 24)
        if self.got_words[at + 8] == 0:
            flags |= FLAG_SEEDER
        if self.ipv6:
            flags |= FLAG_IPV6
            if most > MOST6:
                most = MOST6
        if want >> 31 != 0:
            want = self.want
        if want > most:
            want = most
        self._write_ticket(record, socket, ANNOUNCE)
        self._copy(self.frames, byte + AT_ADDRESS, self.frames, byte + 8, 16)
        if word >> 32 != 0 and not self.ipv6:
            self._take_ip_field(byte, word >> 32)
        word = self.got_words[at + 12]
        self.frames[byte + AT_PORT] = word & 0xFF
        self.frames[byte + AT_PORT + 1] = (word >> 8) & 0xFF
        self.frames[byte + AT_EVENT] = flags
        self.frames[byte + AT_WANT] = want
        if length > 98:
            self._check_options(at * 8 + 98, at * 8 + length)

    def _take_ip_field(self, record: size, address: u64) -> cython.void:
        """Store the address that a trusted source speaks for, if it is a public one."""
        a: u64 = address & 0xFF
        b: u64 = (address >> 8) & 0xFF
        i: size
        if not self._is_in(self.trusted):
            return
        if a == 0 or a == 10 or a == 127 or a >= 224 or (a == 192 and b == 168) or (a == 172 and (b & 0xF0) == 16):
            return
        if (a == 169 and b == 254) or (a == 100 and (b & 0xC0) == 64):
            return
        for i in range(4):
            self.frames[record + AT_ADDRESS + 12 + i] = (address >> (8 * i)) & 0xFF

    def _check_options(self, at: size, end: size) -> cython.void:
        """Count whether an announce carries its URL, or options that are cut off (BEP 41); it is taken anyway."""
        has_url: cython.bint = False
        while at < end and self.got_bytes[at] != 0:
            if self.got_bytes[at] == 1:
                at += 1
                continue
            if at + 2 > end or at + 2 + self.got_bytes[at + 1] > end:
                self.counts[BAD_OPTIONS] += 1
                break
            if self.got_bytes[at] == 2:
                has_url = True
            at += 2 + self.got_bytes[at + 1]
        if has_url:
            self.counts[URL_DATA] += 1

    def _scrape(self, socket: size, at: size, length: size, now: u64) -> cython.void:
        """The records of a scrape whose connection id is good: one for each hash."""
        many: size = (length - 16) // 20
        record: size
        place: size
        i: size
        if many > MAX_SCRAPE:
            many = MAX_SCRAPE
        if many == 1:
            record = self._begin_record(at + 2)
            self._write_ticket(record, socket, SCRAPE)
            self._end_scrape_record(record)
            return
        if self.free_places == 0:
            self.counts[GATHER_FULL] += 1
            return
        self.free_places -= 1
        place = self.free[self.free_places]
        self._open_place(place, socket, many, now)
        for i in range(many):
            # A hash begins at any multiple of 4 bytes: it is brought to the start of a word.
            self._copy(self.ticket_bytes, 0, self.got_bytes, at * 8 + 16 + 20 * i, 20)
            self._copy(self.got_bytes, at * 8, self.ticket_bytes, 0, 20)
            record = self._begin_record(at)
            self.frame_words[record] = TICKET_GATHER | (i << 16) | (place << 32)
            self.frame_words[record + 1] = self.gather_words[place * PLACE]
            self._end_scrape_record(record)

    def _end_scrape_record(self, record: size) -> cython.void:
        i: size
        for i in range(AT_ADDRESS, AT_EVENT):
            self.frames[record * 8 + i] = 0
        self.frames[record * 8 + AT_EVENT] = EVENT_SCRAPE
        self.frames[record * 8 + AT_WANT] = 0

    def _begin_record(self, at: size) -> size:
        """A new record for the info-hash at word `at` of the batch, in the frame of its slice; returns its word."""
        m0: u64 = self.got_words[at]
        m1: u64 = self.got_words[at + 1]
        m2: u64 = (self.got_words[at + 2] & ALL32) | (cython.cast(u64, 20) << 56)
        hashed: u64 = sip(self.slice0, self.slice1, m0, m1, m2, 0, 0, 3)
        link: size = self.table[cython.cast(size, hashed & (self.slices - 1))]
        many: u32 = self.filled[link]
        record: size = (link * self.frame_size + HEADER + many * RECORD) // 8
        self.filled[link] = many + 1
        if many + 1 > self.fullest:
            self.fullest = many + 1
        self.frame_words[record + 6] = hashed
        self._copy(self.frames, record * 8 + AT_INFO_HASH, self.got_bytes, at * 8, 20)
        return record

    def _write_ticket(self, record: size, socket: size, action: u64) -> cython.void:
        self.frame_words[record] = cython.cast(u64, socket) | (self.port << 16) | (self.scope << 32)
        self.frame_words[record + 1] = self.high
        self.frame_words[record + 2] = self.low
        self.frame_words[record + 3] = self.local_high
        self.frame_words[record + 4] = self.local_low
        self.frame_words[record + 5] = action | (self.transaction << 32)

    # Connection ids

    def _make_id(self, k0: u64, k1: u64, high: u64, low: u64, window: u64) -> u64:
        turned: u64 = cython.cast(u64, swap32(window & ALL32)) << 32 | swap32(window >> 32)
        mac: u64 = sip(
            k0,
            k1,
            wrap(turned << 8) | 1,
            (turned >> 56) | wrap(high << 8),
            (high >> 56) | wrap(low << 8),
            (low >> 56) | (cython.cast(u64, 25) << 56),
            0,
            4,
        )
        mac = (window & 0xFF) | ((mac & LOW56) << 8)
        return mac if mac != 0 and mac != MAGIC else mac ^ cython.cast(u64, 1) << 56

    def _is_good_id(self, given: u64, window: u64) -> cython.bint:
        """Whether the source in hand was given this id, at most `windows` windows ago or in the next one."""
        age: u64 = (window - given) & 0xFF
        issued: u64 = window - age
        if age == 255:
            issued = window + 1
        elif age > self.windows:
            return False
        if given == self._make_id(self.key0, self.key1, self.high, self.low, issued):
            return True
        if not self.has_old or issued > self.rotated:
            return False
        return given == self._make_id(self.old0, self.old1, self.high, self.low, issued)

    def _refuse_id(self, socket: size, now: u64) -> cython.void:
        """A plausible request with a bad id: an error, within the limits for unproven sources."""
        self._refuse(BAD_ID)
        if not self.answer_invalid:
            return
        if self._admit(self.connect_cost, self.connect_burst, 1, now):
            self._error(socket, MISMATCH, 36, now)
        else:
            self.counts[ERRORS_HELD_BACK] += 1

    def _refuse(self, reason: size) -> cython.void:
        """Count a refusal, and remember whose it was."""
        self.counts[reason] += 1
        self.refused_high = self.high
        self.refused_low = self.low

    def _error(self, socket: size, text: View, length: size, now: u64) -> cython.void:
        """Queue an error, if it is no longer than the request and within the limit for all."""
        at: size = self.direct_used * DIRECT
        if 8 + len(text) > length:
            return
        if self.errors_full < now:
            self.errors_full = now
        if self.errors_full - now > 1_000_000:
            self.counts[ERRORS_HELD_BACK] += 1
            return
        self.errors_full += self.error_cost
        self.direct[at] = ERROR | (self.transaction << 32)
        self._copy(self.direct_bytes, at * 8 + 8, text, 0, len(text))
        self._queue_direct(socket, 8 + len(text))
        self.counts[ERROR_ANSWERS] += 1

    # Limits

    def _is_in(self, networks: u64[::1]) -> cython.bint:
        """Whether the source in hand is in one of the networks."""
        i: size = 0
        while i < len(networks):
            if (self.low & networks[i + 3]) == networks[i + 1] and (self.high & networks[i + 2]) == networks[i]:
                return True
            i += 4
        return False

    def _admit(self, cost: u64, burst: u64, which: size, now: u64) -> cython.bint:
        """Take a token from the bucket (1 or 2) of the source in hand; exempt sources are not refused."""
        key: u64 = wrap((self.secret ^ (self.high if self.ipv6 else self.low)) * SPREAD)
        key ^= key >> 32
        key = wrap(key * SPREAD)
        key |= 1  # 0: a place never used
        at: size = cython.cast(size, (key >> 40) & (SETS - 1)) * 12
        place: size = at
        oldest: u64 = ALL64
        latest: u64
        i: size
        for i in range(4):
            if self.buckets[at] == key:
                place = at
                break
            latest = self.buckets[at + 1] if self.buckets[at + 1] > self.buckets[at + 2] else self.buckets[at + 2]
            if latest < oldest:
                oldest = latest
                place = at
            at += 3
        if self.buckets[place] != key:
            self.buckets[place] = key
            self.buckets[place + 1] = 0
            self.buckets[place + 2] = 0
        latest = self.buckets[place + which]
        if latest < now:
            latest = now
        if latest + cost > now + burst:
            return self._is_in(self.exempt)
        self.buckets[place + which] = latest + cost
        return True

    # Encoding

    def _encode(self, replies: View, at: size, length: size, address: u64) -> cython.bint:
        """Queue one reply's answer, or note its part of a scrape; False if it does not add up."""
        socket: size
        answer: size = 20
        kind: size = SCRAPE_ANSWERS
        self._copy(self.ticket_bytes, 0, replies, at + AT_TICKET, 48)
        if (self.ticket[0] & 0xFFFF) == TICKET_GATHER:
            return self._gather(replies, at)
        socket = cython.cast(size, self.ticket[0] & 0xFFFF)
        if socket >= self.sockets:
            return False
        if (self.ticket[5] & ALL32) == ANNOUNCE:
            answer += read_u16(replies, at + AT_OWN_FAMILY) * (18 if replies[at + AT_PART] & 2 else 6)
            kind = ANNOUNCE_ANSWERS
        if AT_ANSWER + answer > length:
            return False
        self.counts[kind] += 1
        self._queue(socket, address + AT_ANSWER, answer)
        return True

    def _queue(self, socket: size, address: u64, length: size) -> cython.void:
        """Queue a datagram to the client of the ticket in hand."""
        many: size = self.pending[socket]
        i: size = 2 * self.depth * socket + many
        if many >= 2 * self.depth:
            self.counts[BAD_REPLY] += 1
            return
        self.pending[socket] += 1
        self.out_iovecs[2 * i] = address
        self.out_iovecs[2 * i + 1] = length
        if self.family6[socket] != 0:
            self.out_names[4 * i] = AF_INET6 | (self.ticket[0] & PORT)
            self.out_names[4 * i + 1] = self.ticket[1]
            self.out_names[4 * i + 2] = self.ticket[2]
            self.out_names[4 * i + 3] = self.ticket[0] >> 32
            self.out_controls[6 * i + 2] = self.ticket[3]
            self.out_controls[6 * i + 3] = self.ticket[4]
            self.out_controls[6 * i + 4] = self.ticket[0] >> 32
        else:
            self.out_names[4 * i] = AF_INET | (self.ticket[0] & PORT) | (self.ticket[2] >> 32 << 32)
            self.out_controls[6 * i + 2] = self.ticket[4] >> 32 << 32

    def _queue_direct(self, socket: size, length: size) -> cython.void:
        """Queue the answer that was written at the next direct place, to the source in hand."""
        self.ticket[0] = (self.port << 16) | (self.scope << 32)
        self.ticket[1] = self.high
        self.ticket[2] = self.low
        self.ticket[3] = self.local_high
        self.ticket[4] = self.local_low
        self._queue(socket, self.direct_address + self.direct_used * DIRECT * 8, length)
        self.direct_used += 1

    def _open_place(self, place: size, socket: size, many: size, now: u64) -> cython.void:
        """Begin to gather a scrape of several hashes."""
        at: size = place * PLACE
        parts: u64 = many
        self.gather_words[at] += 1
        self.gather_words[at + 1] = parts | (parts << 32)
        self.gather_words[at + 2] = now + GATHER_SECONDS * 1_000_000
        self.gather_words[at + 3] = cython.cast(u64, socket) | (self.port << 16) | (self.scope << 32)
        self.gather_words[at + 4] = self.high
        self.gather_words[at + 5] = self.low
        self.gather_words[at + 6] = self.local_high
        self.gather_words[at + 7] = self.local_low
        self.gather_words[at + 8] = 0
        self.gather_words[at + 9] = 0
        self.gather_words[at + 10] = 0
        self.gather_words[at + 11] = SCRAPE | (self.transaction << 32)

    def _gather(self, replies: View, at: size) -> cython.bint:
        """Note a part of a scrape, and queue the answer with the last; late parts are ignored."""
        index: size = cython.cast(size, (self.ticket[0] >> 16) & 0xFFFF)
        place: size = cython.cast(size, self.ticket[0] >> 32)
        base: size = place * PLACE
        parts: size
        bit: u64
        i: size
        if place >= PLACES:
            return False
        if self.gather_words[base] != self.ticket[1] or self.gather_words[base + 2] == 0:
            return True
        parts = cython.cast(size, self.gather_words[base + 1] & ALL32)
        bit = cython.cast(u64, 1) << (index & 63)
        if index >= parts or self.gather_words[base + 9 + (index >> 6)] & bit:
            return index < parts
        self.gather_words[base + 9 + (index >> 6)] |= bit
        self._copy(self.gathers, base * 8 + 96 + 12 * index, replies, at + AT_INTERVAL, 12)
        self.gather_words[base + 1] -= cython.cast(u64, 1) << 32
        if self.gather_words[base + 1] >> 32 != 0:
            return True
        for i in range(5):
            self.ticket[i] = self.gather_words[base + 3 + i]
        self._queue(cython.cast(size, self.ticket[0] & 0xFFFF), self.gather_address + base * 8 + 88, 8 + 12 * parts)
        self.counts[SCRAPE_ANSWERS] += 1
        self._free_place(place)
        return True

    def _free_place(self, place: size) -> cython.void:
        self.gather_words[place * PLACE + 2] = 0
        self.free[self.free_places] = cython.cast(u32, place)
        self.free_places += 1

    def _copy(self, to: u8[::1], at: size, source: View, start: size, many: size) -> cython.void:
        """Copy bytes between two buffers, if both ends are inside."""
        if many <= 0 or at < 0 or start < 0 or at + many > len(to) or start + many > len(source):
            return
        if cython.compiled:
            memcpy(cython.address(to[at]), cython.address(source[start]), many)
        else:
            to[at : at + many] = source[start : start + many]
