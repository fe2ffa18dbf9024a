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

Gather place (1024 bytes), for a scrape of several hashes: words 0 generation, 1 hashes | missing << 32,
2 deadline, 3..8 ticket, 9..10 bits of the parts that came; from byte 88 on the answer.
"""

import cython

from common import counters, frames

if cython.compiled:
    from cython.cimports.gateway.records import Records
    from cython.cimports.gateway.siphash import sip
    from cython.cimports.gateway.sources import Sources, is_ipv6
    from cython.cimports.libc.string import memcpy
else:
    from gateway.records import Records
    from gateway.siphash import sip
    from gateway.sources import Sources, is_ipv6

u8 = cython.typedef(cython.uchar)
u32 = cython.typedef(cython.uint)
u64 = cython.typedef(cython.ulonglong)
size = cython.typedef(cython.Py_ssize_t)
View = cython.typedef(cython.const[cython.uchar][::1])

HEADER = cython.declare(size, frames.HEADER)
REPLY = cython.declare(size, frames.REPLY)
VERSION = cython.declare(u64, frames.VERSION)
REPLIES = cython.declare(u32, frames.REPLIES)
AT_KIND = cython.declare(size, frames.AT_KIND)
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
TICKET_HTTP_GATHER = cython.declare(size, frames.TICKET_HTTP_GATHER)
MAX_SCRAPE = cython.declare(size, frames.MAX_UDP_SCRAPE)

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
MAPPED = cython.declare(u64, 0xFFFF_0000)  # bytes 8..11 of an IPv4 address seen as IPv6
PORT = cython.declare(u64, 0xFFFF_0000)  # of a socket address's and a ticket's first word
MAGIC = cython.declare(u64, 0x8019_1027_1704_0000)  # BEP 15's protocol id, as a little-endian word
# Actions as they lie in a word's low half.
ANNOUNCE = cython.declare(u64, 0x0100_0000)
SCRAPE = cython.declare(u64, 0x0200_0000)
ERROR = cython.declare(u64, 0x0300_0000)
AF_INET = cython.declare(u64, 2)
AF_INET6 = cython.declare(u64, 10)

STRIDE = cython.declare(size, 264)  # words from one datagram to the next: 2,112 bytes, so that they share no cache set
LONGEST = cython.declare(size, 2048)
DIRECT = cython.declare(size, 8)  # words of an answer that needs no shard
MOST6 = cython.declare(u32, 67)  # IPv6 peers within 1,232 bytes
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

    def __init__(
        self, batch, records: Records, sources: Sources, want: u32, most: u32, windows: u32, answer_invalid: bool
    ):
        if not want <= most <= frames.MAX_WANT or not 1 <= windows <= 200:
            raise ValueError("want, most or windows out of range")
        self.records = records
        self.sources = sources
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
        self.others = 0  # replies of the last frame that are not for this codec
        self.want = want
        self.most = most
        self.windows = windows
        self.answer_invalid = answer_invalid
        self.gathers = batch.allocate(1024 * 1024)
        self.gather_words = memoryview(self.gathers).cast("Q")
        self.gather_address = batch.address_of(self.gathers)
        self.free = memoryview(bytearray(4 * 1024)).cast("I")
        for i in range(1024):
            self.free[i] = 1023 - i
        self.free_places = 1024
        self.ticket = memoryview(bytearray(48)).cast("Q")
        self.ticket_bytes = memoryview(self.ticket).cast("B")
        self.counts = memoryview(bytearray(8 * counters.GATEWAY)).cast("Q")
        self.set_error_limit(1000)
        self.set_keys(bytes(16), b"", 0)

    # Doors: settings

    def set_keys(self, current: bytes, previous: bytes, rotated: u64) -> None:
        """Keys of connection ids, 16 bytes; `previous` (or nothing) is good for ids of windows up to `rotated`."""
        if len(current) != 16 or len(previous) not in (0, 16):
            raise ValueError("keys have 16 bytes")
        word = [int.from_bytes(key[at : at + 8], "little") for key in (current, previous) for at in (0, 8)]
        self.key0, self.key1, self.old0, self.old1 = word
        self.rotated = rotated
        self.has_old = len(previous) == 16

    def set_error_limit(self, errors: u64) -> None:
        """Error answers a second, for all sources together."""
        self.error_cost = 1_000_000 // max(1, errors)
        self.errors_full = 0

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
            if self.records.is_full():
                return i
            self._decode(socket, socket * self.depth + i, now, window)
        return many

    def encode(self, replies: View, address: u64) -> int:
        """Queue the answers of a frame of replies, which lies at `address`; returns how many there are.

        What does not add up is counted, with all after it. The frame must stay until the answers are sent.
        """
        at: size = HEADER
        length: size
        many: size = 0
        self.others = 0
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
        return many - self.others

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
            elif self.sources.admit_request(self.high, self.low, now):
                self._announce(socket, at, length)
            else:
                self._refuse(REQUEST_LIMIT)
        elif action == SCRAPE and length >= 36:
            self.counts[SCRAPES] += 1
            if not good:
                self._refuse_id(socket, now)
            elif self.sources.admit_request(self.high, self.low, now):
                self._scrape(socket, at, length, now)
            else:
                self._refuse(REQUEST_LIMIT)
        elif not good:
            self._refuse(BAD_ID)
        elif not self.sources.admit_request(self.high, self.low, now):
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
            self.ipv6 = is_ipv6(self.high, self.low)
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
        if not self.sources.admit_connect(self.high, self.low, now):
            self._refuse(CONNECT_LIMIT)
            return
        self.direct[at] = self.transaction << 32
        self.direct[at + 1] = self._make_id(self.key0, self.key1, self.high, self.low, window)
        self._queue_direct(socket, 16)
        self.counts[CONNECT_ANSWERS] += 1

    def _announce(self, socket: size, at: size, length: size) -> cython.void:
        """The record of an announce whose connection id is good."""
        record: size = self._begin_record(at + 2)
        flags: u32 = FLAG_EXEMPT if self.sources.is_exempt(self.high, self.low) else 0
        word: u64 = self.got_words[at + 10]
        event: u64 = word & ALL32
        want: u32 = swap32(self.got_words[at + 11] >> 32)
        most: u32 = self.most
        low: u64 = self.low
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
        if word >> 32 != 0 and not self.ipv6 and self._may_speak_for(word >> 32):
            low = MAPPED | (word >> 32 << 32)
        self.records.end(record, self.high, low, self.got_words[at + 12] & 0xFFFF, flags, want)
        if length > 98:
            self._check_options(at * 8 + 98, at * 8 + length)

    def _may_speak_for(self, address: u64) -> cython.bint:
        """Whether the source in hand is trusted with another's address, and that is a public one."""
        a: u64 = address & 0xFF
        b: u64 = (address >> 8) & 0xFF
        if not self.sources.is_trusted(self.high, self.low):
            return False
        if a == 0 or a == 10 or a == 127 or a >= 224 or (a == 192 and b == 168) or (a == 172 and (b & 0xF0) == 16):
            return False
        return not ((a == 169 and b == 254) or (a == 100 and (b & 0xC0) == 64))

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
            self.records.end(record, 0, 0, 0, EVENT_SCRAPE, 0)
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
            self.records.words[record] = TICKET_GATHER | (i << 16) | (place << 32)
            self.records.words[record + 1] = self.gather_words[place * PLACE]
            self.records.end(record, 0, 0, 0, EVENT_SCRAPE, 0)

    def _begin_record(self, at: size) -> size:
        """A new record for the info-hash at word `at` of the batch; returns its word."""
        return self.records.begin(self.got_words[at], self.got_words[at + 1], self.got_words[at + 2])

    def _write_ticket(self, record: size, socket: size, action: u64) -> cython.void:
        self.records.words[record] = cython.cast(u64, socket) | (self.port << 16) | (self.scope << 32)
        self.records.words[record + 1] = self.high
        self.records.words[record + 2] = self.low
        self.records.words[record + 3] = self.local_high
        self.records.words[record + 4] = self.local_low
        self.records.words[record + 5] = action | (self.transaction << 32)

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
        if self.sources.admit_connect(self.high, self.low, now):
            self._error(socket, MISMATCH, 36, now)
        else:
            self.counts[ERRORS_HELD_BACK] += 1

    def _refuse(self, reason: size) -> cython.void:
        """Count a refusal, and remember whose it was."""
        self.counts[reason] += 1
        self.sources.note_refused(self.high, self.low)

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
        if socket >= TICKET_HTTP_GATHER:
            self.others += 1
            return True
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
