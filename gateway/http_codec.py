"""KERNEL: HTTP requests in, records out; replies in, HTTP answers out (BEP 3, 7, 21, 23, 24, 31, 48; RFC 9112).

Functions that read a stranger's bytes end in _unsafe: they cannot fail, they note what is wrong in `fault`.
A request's ticket (see common/frames.py) names its connection, the boot and a number that no other request of
this process has, so a late reply reaches nobody. A scrape takes a place of 4,096 bytes in the gather table:

words 0 generation, 1 connection, 2 number, 3 options, 4 hashes, 5 missing, 6 and 7 bits of the parts that came,
8 deadline; from byte 80 on the hashes, in rising order, 20 bytes each; from byte 2,080 on 16 bytes for each:
seeders, completed, leechers, partial seeds.
"""

import cython

from common import counters, frames
from gateway import http_texts

if cython.compiled:
    from cython.cimports.gateway.connections import Connections
    from cython.cimports.gateway.records import Records
    from cython.cimports.gateway.sources import Sources, is_ipv6
    from cython.cimports.libc.string import memcmp, memcpy, memmove
else:
    from gateway.connections import Connections
    from gateway.records import Records
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
AT_OTHER_FAMILY = cython.declare(size, frames.AT_OTHER_FAMILY)
AT_PARTIAL_SEEDS = cython.declare(size, frames.AT_PARTIAL_SEEDS)
AT_COMPLETED = cython.declare(size, frames.AT_COMPLETED)
AT_TICKET = cython.declare(size, frames.AT_TICKET)
AT_INTERVAL = cython.declare(size, frames.AT_INTERVAL)
AT_PEERS = cython.declare(size, frames.AT_PEERS)
EVENT_COMPLETED = cython.declare(u32, frames.EVENT_COMPLETED)
EVENT_STARTED = cython.declare(u32, frames.EVENT_STARTED)
EVENT_STOPPED = cython.declare(u32, frames.EVENT_STOPPED)
EVENT_PAUSED = cython.declare(u32, frames.EVENT_PAUSED)
EVENT_SCRAPE = cython.declare(u32, frames.EVENT_SCRAPE)
FLAG_SEEDER = cython.declare(u32, frames.FLAG_SEEDER)
FLAG_BOTH_FAMILIES = cython.declare(u32, frames.FLAG_BOTH_FAMILIES)
FLAG_IPV6 = cython.declare(u32, frames.FLAG_IPV6)
FLAG_EXEMPT = cython.declare(u32, frames.FLAG_EXEMPT)
TICKET_HTTP = cython.declare(u64, frames.TICKET_HTTP)
TICKET_HTTP_GATHER = cython.declare(u64, frames.TICKET_HTTP_GATHER)
MOST_HASHES = cython.declare(size, frames.MAX_SCRAPE)

HTTP_ANNOUNCES = cython.declare(size, counters.HTTP_ANNOUNCES)
HTTP_SCRAPES = cython.declare(size, counters.HTTP_SCRAPES)
HTTP_ANNOUNCE_ANSWERS = cython.declare(size, counters.HTTP_ANNOUNCE_ANSWERS)
HTTP_SCRAPE_ANSWERS = cython.declare(size, counters.HTTP_SCRAPE_ANSWERS)
HTTP_EMPTY_ANSWERS = cython.declare(size, counters.HTTP_EMPTY_ANSWERS)
HTTP_FAILURES = cython.declare(size, counters.HTTP_FAILURES)
FORWARDED_IGNORED = cython.declare(size, counters.HTTP_FORWARDED_IGNORED)
LATE_REPLY = cython.declare(size, counters.HTTP_LATE_REPLY)
HTTP_BAD_REPLY = cython.declare(size, counters.HTTP_BAD_REPLY)

# Faults of a request; each is counted and has its answer in http_texts.py.
BAD_REQUEST = cython.declare(size, http_texts.BAD_REQUEST)
LONG_TARGET = cython.declare(size, http_texts.LONG_TARGET)
LONG_HEAD = cython.declare(size, http_texts.LONG_HEAD)
BAD_HASH = cython.declare(size, http_texts.BAD_HASH)
BAD_PEER_ID = cython.declare(size, http_texts.BAD_PEER_ID)
BAD_PORT = cython.declare(size, http_texts.BAD_PORT)
TOO_MANY = cython.declare(size, http_texts.TOO_MANY)
FULL_SCRAPE = cython.declare(size, http_texts.FULL_SCRAPE)
RATE_LIMIT = cython.declare(size, http_texts.RATE_LIMIT)
OVERLOADED = cython.declare(size, http_texts.OVERLOADED)
FAULTS = cython.declare(size, http_texts.FAULTS)

# Texts of answers.
OK_KEEP = cython.declare(size, http_texts.OK_KEEP)
OK_CLOSE = cython.declare(size, http_texts.OK_CLOSE)
COMPLETE = cython.declare(size, http_texts.COMPLETE)
DOWNLOADED = cython.declare(size, http_texts.DOWNLOADED)
EXTERNAL_4 = cython.declare(size, http_texts.EXTERNAL_4)
EXTERNAL_6 = cython.declare(size, http_texts.EXTERNAL_6)
INCOMPLETE = cython.declare(size, http_texts.INCOMPLETE)
INTERVAL = cython.declare(size, http_texts.INTERVAL)
MIN_INTERVAL = cython.declare(size, http_texts.MIN_INTERVAL)
PEERS = cython.declare(size, http_texts.PEERS)
PEERS_6 = cython.declare(size, http_texts.PEERS_6)
PEER_LIST = cython.declare(size, http_texts.PEER_LIST)
PEER_IP = cython.declare(size, http_texts.PEER_IP)
PEER_PORT = cython.declare(size, http_texts.PEER_PORT)
FILES = cython.declare(size, http_texts.FILES)
FILE = cython.declare(size, http_texts.FILE)
FILE_DOWNLOADED = cython.declare(size, http_texts.FILE_DOWNLOADED)
FILE_DOWNLOADERS = cython.declare(size, http_texts.FILE_DOWNLOADERS)
FILE_INCOMPLETE = cython.declare(size, http_texts.FILE_INCOMPLETE)
FLAGS = cython.declare(size, http_texts.FLAGS)
LATE_SCRAPE = cython.declare(size, http_texts.LATE_SCRAPE)

# Names of parameters and headers, as words: eight bytes, least significant first.
INFO_HAS = cython.declare(u64, int.from_bytes(b"info_has", "little"))
PEER_ID = cython.declare(u64, int.from_bytes(b"peer_id", "little"))
PORT = cython.declare(u64, int.from_bytes(b"port", "little"))
LEFT = cython.declare(u64, int.from_bytes(b"left", "little"))
EVENT = cython.declare(u64, int.from_bytes(b"event", "little"))
COMPACT = cython.declare(u64, int.from_bytes(b"compact", "little"))
NUMWANT = cython.declare(u64, int.from_bytes(b"numwant", "little"))
IP = cython.declare(u64, int.from_bytes(b"ip", "little"))
STARTED = cython.declare(u64, int.from_bytes(b"started", "little"))
COMPLETED_1 = cython.declare(u64, int.from_bytes(b"complete", "little"))
STOPPED = cython.declare(u64, int.from_bytes(b"stopped", "little"))
PAUSED = cython.declare(u64, int.from_bytes(b"paused", "little"))
CONNECTI = cython.declare(u64, int.from_bytes(b"connecti", "little"))
CONTENT_ = cython.declare(u64, int.from_bytes(b"content-", "little"))
TRANSFER = cython.declare(u64, int.from_bytes(b"transfer", "little"))
X_FORWAR = cython.declare(u64, int.from_bytes(b"x-forwar", "little"))
DED_FOR = cython.declare(u64, int.from_bytes(b"ded-for", "little"))
HTTP_1 = cython.declare(u64, int.from_bytes(b"HTTP/1.", "little"))
GET = cython.declare(u64, int.from_bytes(b"GET", "little"))
HEAD_WORD = cython.declare(u64, int.from_bytes(b"HEAD", "little"))
SCHEME = cython.declare(u64, int.from_bytes(b"http://", "little"))
ANNOUNCE_PATH = cython.declare(u64, int.from_bytes(b"/announc", "little"))
SCRAPE_PATH = cython.declare(u64, int.from_bytes(b"/scrape", "little"))
CLOSE_WORD = cython.declare(u64, int.from_bytes(b"close", "little"))
LOWER = cython.declare(u64, 0x2020_2020_2020_2020)

ALL64 = cython.declare(u64, 0xFFFF_FFFF_FFFF_FFFF)
ALL32 = cython.declare(u64, 0xFFFF_FFFF)
MAPPED = cython.declare(u64, 0xFFFF_0000)
HUGE = cython.declare(u64, 1 << 40)

# Options of a request, which travel in its ticket.
ASKS_CLOSE = cython.declare(u32, 1)
ASKS_HEAD = cython.declare(u32, 2)
ASKS_LIST = cython.declare(u32, 4)
ASKS_DRAIN = cython.declare(u32, 8)  # there are bytes that nobody will read

# What a row was, if not a request that is under way or answered.
MORE, OTHER, REST = 1, 2, 3
IS_MORE = cython.declare(u32, MORE)
IS_OTHER = cython.declare(u32, OTHER)
IS_REST = cython.declare(u32, REST)

IS_READING = cython.declare(u32, 1)
IS_WAITING = cython.declare(u32, 2)
TO_CLOSE = cython.declare(u32, 1)
TO_DRAIN = cython.declare(u32, 2)
LONGEST_HEAD = cython.declare(size, 8192)
MOST_LINES = cython.declare(size, 64)
MOST_PAIRS = cython.declare(size, 100)
LONGEST_VALUE = cython.declare(size, 512)
MOST_ANSWER = cython.declare(size, 24_000)  # bytes of an answer: 200 peers as dictionaries, or 100 scrapes
HEAD_ROOM = cython.declare(size, 160)
PLACES = cython.declare(size, 256)
PLACE = cython.declare(size, 4096)
HASHES = cython.declare(size, 80)
NUMBERS = cython.declare(size, 2080)
WAIT_SECONDS = cython.declare(u32, 3)


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
def digit_of(byte: u32) -> u32:
    """A hexadecimal digit's value, 16 if it is none."""
    if 48 <= byte <= 57:
        return byte - 48
    byte |= 0x20
    return byte - 87 if 97 <= byte <= 102 else 16


@cython.cclass
class HttpCodec:
    """Between the rows and answers of `connections` and the frames of `records`.

    want, most: peers of an answer by default, and at most. boot: 64 random bits, of this life of the process.
    """

    def __init__(
        self, allocate, connections: Connections, records: Records, sources: Sources, want: u32, most: u32, boot: u64
    ):
        if not want <= most <= frames.MAX_WANT:
            raise ValueError("want or most out of range")
        self.connections = connections
        self.records = records
        self.sources = sources
        self.want = want
        self.most = most
        self.boot = boot
        self.input = connections.input
        self.output = connections.output
        self.texts = memoryview(http_texts.TEXTS)
        self.text_at = memoryview(http_texts.TEXT_AT)
        self.faults = memoryview(b"")
        self.fault_at = memoryview(bytearray(8 * http_texts.FAULTS)).cast("I")
        self.gathers = allocate(256 * 4096)
        self.replies = self.gathers
        self.gather_words = memoryview(self.gathers).cast("Q")
        self.free = memoryview(bytearray(4 * 256)).cast("I")
        for i in range(256):
            self.free[i] = 255 - i
        self.free_places = 256
        self.special_row = memoryview(bytearray(4 * 512)).cast("I")
        self.special_kind = memoryview(bytearray(512))
        self.special_from = memoryview(bytearray(4 * 512)).cast("I")
        self.specials = 0
        self.counts = memoryview(bytearray(8 * counters.HTTP)).cast("Q")
        self.numbers = 0
        self.key_words = memoryview(bytearray(32)).cast("Q")
        self.key = memoryview(self.key_words).cast("B")
        self.forwarded = memoryview(bytearray(4 * 16)).cast("I")
        self.digits = memoryview(bytearray(24))
        self.groups = memoryview(bytearray(2 * 8)).cast("H")
        self.interval = 1800
        self.random = 1
        self.set_interval(1800)

    # Doors

    def set_interval(self, interval: u32) -> None:
        """The interval, in seconds, that failures and scrapes tell."""
        if not 60 <= interval <= 2_147_483:
            raise ValueError("an interval is 60 to 2147483 s")
        self.interval = interval
        text: bytes = b""
        for fault in range(http_texts.FAULTS):
            self.fault_at[2 * fault] = len(text)
            text += http_texts.failure(fault, interval)
            self.fault_at[2 * fault + 1] = len(text)
        self.faults = text

    def decode(self, start: size, now: u64, seconds: u32) -> int:
        """Take the rows from `start` on; returns where to go on once the frames are sent and the answers too.

        now: microseconds of a clock that never goes back; seconds: of the connections' clock.
        """
        row: size
        if not 0 <= start <= self.connections.rows:
            raise ValueError("no such row")
        self.specials = 0
        for row in range(start, self.connections.rows):
            if self.records.is_full() or self.connections.answers >= 2048:
                return row
            self._decode_unsafe(row, now, seconds)
        return self.connections.rows

    def take_specials(self) -> list[tuple[int, int, int]]:
        """Rows of the last `decode` that are left to the server: (row, kind, from which byte of it).

        MORE: the head is not complete, or bytes before it are held. OTHER: not for this codec. REST: a request,
        and behind it bytes of the next.
        """
        return [(self.special_row[i], self.special_kind[i], self.special_from[i]) for i in range(self.specials)]

    def encode(self, replies: View) -> int:
        """Write the answers of a frame of replies; returns how many there are. Others' replies are passed over."""
        at: size = HEADER
        length: size
        many: size = 0
        self.replies = replies
        if len(replies) < HEADER or self._u16(0) != VERSION or self._u16(AT_KIND) != REPLIES:
            self.counts[HTTP_BAD_REPLY] += 1
            self.replies = self.gathers
            return 0
        while at < len(replies):
            length = 0
            if at + REPLY <= len(replies):
                length = self._u16(at) | (self._u16(at + 2) << 16)
            if length < REPLY or at + length > len(replies):
                self.counts[HTTP_BAD_REPLY] += 1
                break
            if self._encode(at, length):
                many += 1
            at += length
        self.replies = self.gathers
        return many

    def refuse(self, place: size, fault: size) -> None:
        """Answer a request that cannot be taken, and end the connection."""
        if not 0 <= fault < FAULTS or not 0 <= place < self.connections.most:
            raise ValueError("no such fault, or no such place")
        self.place = place
        self.options = ASKS_CLOSE
        self._fail(fault)

    def expire(self, seconds: u32, entropy: u64) -> int:
        """Answer requests whose replies are late: announces with nobody and a short interval; returns how many."""
        place: size
        many: size = 0
        self.random = entropy | 1
        for place in range(self.connections.most):
            if self.connections.answers >= 2048:
                break
            if self.connections.state[place] == IS_WAITING and self.connections.due[place] < seconds:
                self._give_up(place)
                many += 1
        return many

    def counters(self) -> list[int]:
        """The counts named in common/counters.py."""
        return list(self.counts)

    # Requests

    def _decode_unsafe(self, row: size, now: u64, seconds: u32) -> cython.void:
        """One row: a request becomes records, or its answer; else it is special."""
        at: size = self.connections.row_at[row]
        end: size = at + self.connections.row_length[row]
        rest: size
        self.place = self.connections.row_place[row]
        self.options = 0
        self.fault = -1
        if self.connections.state[self.place] != IS_READING or self.connections.held[self.place] != 0 or at == end:
            self._special(row, IS_MORE, 0)
            return
        rest = self._request_unsafe(at, end)
        if rest == 0:
            if end - at > LONGEST_HEAD:
                self._fail_hard(LONG_HEAD if self.line_end != 0 else LONG_TARGET)
            else:
                self._special(row, IS_MORE, 0)
            return
        if self.fault >= 0:
            self._fail_hard(self.fault)
            return
        if self.kind == 0:
            self._special(row, IS_OTHER, 0)
            return
        if rest < end:
            if self.options & ASKS_CLOSE:
                self.options |= ASKS_DRAIN
            else:
                self._special(row, IS_REST, rest - at)
        self._source_unsafe()
        self._ask_unsafe(now, seconds)

    def _special(self, row: size, kind: u32, start: size) -> cython.void:
        if self.specials < len(self.special_row):
            self.special_row[self.specials] = cython.cast(u32, row)
            self.special_kind[self.specials] = kind
            self.special_from[self.specials] = cython.cast(u32, start)
            self.specials += 1

    def _request_unsafe(self, at: size, end: size) -> size:
        """Read a head: what is asked, where its query lies, options; returns where it ends, 0 if it is not complete.

        kind: 0 another path or method, 1 announce, 2 scrape.
        """
        line: size
        lines: size = 0
        self.line_end = 0
        self.kind = 0
        self.forwards = 0
        # RFC 9112, 2.2: empty lines before a request are passed over.
        while at < end and (self.input[at] == 13 or self.input[at] == 10):
            at += 1
        line = self._line_end(at, end)
        if line == 0:
            if not self._may_be_request_unsafe(at, end):
                self.fault = BAD_REQUEST
                return end
            return 0
        self.line_end = line
        if not self._request_line_unsafe(at, line):
            self.fault = BAD_REQUEST
            return end
        while True:
            at = line + 1
            line = self._line_end(at, end)
            if line == 0:
                return 0
            if line == at or (line == at + 1 and self.input[at] == 13):
                return line + 1
            lines += 1
            if lines > MOST_LINES:
                self.fault = LONG_HEAD
                return end
            self._header_unsafe(at, line)

    def _line_end(self, at: size, end: size) -> size:
        """Where the line from `at` on has its line feed; 0 if it has none before `end`."""
        while at < end:
            if self.input[at] == 10:
                return at
            at += 1
        return 0

    def _may_be_request_unsafe(self, at: size, end: size) -> cython.bint:
        """Whether what came so far can be the beginning of a request: a method, then printable bytes."""
        i: size = at
        while i < end and 65 <= self.input[i] <= 90:
            i += 1
        if i == end:
            return i - at <= 16
        return self.input[i] == 32 and 3 <= i - at <= 16

    def _request_line_unsafe(self, at: size, end: size) -> cython.bint:
        """Read `GET target HTTP/1.x`; False if it is nothing of the kind."""
        start: size = at
        space: size
        if end > at and self.input[end - 1] == 13:
            end -= 1
        while at < end and 65 <= self.input[at] <= 90:
            at += 1
        if at == start or at - start > 16 or at >= end or self.input[at] != 32 or end - at < 11:
            return False
        space = end - 9
        if self.input[space] != 32 or not self._is(space + 1, end, HTTP_1, 7):  # HTTP/1.
            return False
        if self.input[end - 1] == 48:
            self.options |= ASKS_CLOSE
        elif self.input[end - 1] != 49:
            return False
        if at - start == 4 and self._is(start, at, HEAD_WORD, 4):
            self.options |= ASKS_HEAD
        elif at - start != 3 or not self._is(start, at, GET, 3):
            return True
        self._target_unsafe(at + 1, space)
        return True

    def _is(self, at: size, end: size, word: u64, many: size) -> cython.bint:
        """Whether `many` bytes from `at` on, at most 8, are those of a word."""
        return end - at >= many and self._word(at, many) == word

    def _word(self, at: size, many: size) -> u64:
        """Up to eight bytes as a word."""
        word: u64 = 0
        byte: u64
        i: size
        for i in range(many):
            byte = self.input[at + i]
            word |= byte << (8 * i)
        return word

    def _target_unsafe(self, at: size, end: size) -> cython.void:
        """Which path a target has, and where its query begins; absolute ones lose scheme and host."""
        if self._is(at, end, SCHEME, 7):  # http://
            at += 7
            while at < end and self.input[at] != 47 and self.input[at] != 63:
                at += 1
        if self._is(at, end, ANNOUNCE_PATH, 8) and at + 8 < end and self.input[at + 8] == 101:
            at += 9  # /announce
            self.kind = 1
        elif self._is(at, end, SCRAPE_PATH, 7):  # /scrape
            at += 7
            self.kind = 2
        else:
            return
        if at < end and self.input[at] != 63:
            self.kind = 0
            return
        self.query = at + 1 if at < end else at
        self.query_end = end

    def _header_unsafe(self, at: size, end: size) -> cython.void:
        """Look at a header's line, without its line feed."""
        word: u64
        i: size
        if self.input[end - 1] == 13:
            end -= 1
        if end - at < 12:
            return
        word = self._word(at, 8) | LOWER
        if word == CONNECTI and self.input[at + 10] == 58:
            i = at + 11
            while i < end and self.input[i] == 32:
                i += 1
            if self._is_word_unsafe(i, end, CLOSE_WORD, 5):
                self.options |= ASKS_CLOSE
        elif word == X_FORWAR and end - at > 16 and self.input[at + 15] == 58:
            if (self._word(at + 8, 7) | LOWER >> 8) == DED_FOR:
                if self.forwards == 8:
                    for i in range(14):
                        self.forwarded[i] = self.forwarded[i + 2]
                    self.forwards = 7
                self.forwarded[2 * self.forwards] = cython.cast(u32, at + 16)
                self.forwarded[2 * self.forwards + 1] = cython.cast(u32, end)
                self.forwards += 1
        elif word == CONTENT_ or word == TRANSFER:
            if self.input[at + 8] | 0x20 == 108 or word == TRANSFER:
                # A body, which no tracker's client sends: it is not read, the connection ends.
                self.options |= ASKS_CLOSE | ASKS_DRAIN

    def _is_word_unsafe(self, at: size, end: size, word: u64, many: size) -> cython.bint:
        """Whether a header's value has this word, in any case, as its first or a later element."""
        while at + many <= end:
            if (self._word(at, many) | (LOWER >> (8 * (8 - many)))) == word:
                return True
            while at < end and self.input[at] != 44:
                at += 1
            at += 1
            while at < end and self.input[at] == 32:
                at += 1
        return False

    # Who asks

    def _source_unsafe(self) -> cython.void:
        """The client's address: the connection's, or what a trusted proxy says (the right-most that is no proxy)."""
        self.high = self.connections.high[self.place]
        self.low = self.connections.low[self.place]
        if self.forwards != 0:
            if self.sources.is_proxy(self.high, self.low):
                self._forwarded_unsafe()
            else:
                self.counts[FORWARDED_IGNORED] += 1
        self.ipv6 = is_ipv6(self.high, self.low)

    def _forwarded_unsafe(self) -> cython.void:
        line: size = self.forwards
        start: size
        end: size
        comma: size
        while line > 0:
            line -= 1
            start = self.forwarded[2 * line]
            end = self.forwarded[2 * line + 1]
            while end >= start:
                comma = end - 1
                while comma >= start and self.input[comma] != 44:
                    comma -= 1
                if not self._address_unsafe(comma + 1, end):
                    self.counts[FORWARDED_IGNORED] += 1
                    return
                self.high = self.address_high
                self.low = self.address_low
                if not self.sources.is_proxy(self.high, self.low):
                    return
                end = comma

    def _address_unsafe(self, at: size, end: size) -> cython.bint:
        """Read an address of text, with or without a port; False if it is none."""
        bracket: cython.bint
        colons: size = 0
        i: size
        while at < end and (self.input[at] == 32 or self.input[at] == 9):
            at += 1
        while at < end and (self.input[end - 1] == 32 or self.input[end - 1] == 9):
            end -= 1
        bracket = at < end and self.input[at] == 91
        if bracket:
            at += 1
            i = at
            while i < end and self.input[i] != 93:
                i += 1
            if i == end:
                return False
            return self._address6_unsafe(at, i)
        for i in range(at, end):
            if self.input[i] == 58:
                colons += 1
        if colons > 1:
            return self._address6_unsafe(at, end)
        if colons == 1:
            while self.input[end - 1] != 58:
                end -= 1
            end -= 1
        return self._address4_unsafe(at, end)

    def _address4_unsafe(self, at: size, end: size) -> cython.bint:
        """Read a dotted quad into address_high and _low."""
        parts: size = 0
        many: size = 0
        value: u64 = 0
        low: u64 = MAPPED
        byte: u32
        if end - at < 7 or end - at > 15:
            return False
        while at <= end:
            byte = self.input[at] if at < end else 46
            if byte == 46:
                if many == 0 or value > 255 or parts == 4:
                    return False
                low |= value << (32 + 8 * parts)
                parts += 1
                many = 0
                value = 0
            elif 48 <= byte <= 57 and many < 3:
                value = value * 10 + (byte - 48)
                many += 1
            else:
                return False
            at += 1
        self.address_high = 0
        self.address_low = low
        return parts == 4

    def _address6_unsafe(self, at: size, end: size) -> cython.bint:
        """Read an IPv6 address (RFC 4291, 2.2), without a zone, into address_high and _low."""
        many: size = 0
        gap: size = -1
        digits: size = 0
        value: u32 = 0
        start: size = at
        i: size
        word: u64
        if end - at < 2 or end - at > 45:
            return False
        for i in range(8):
            self.groups[i] = 0
        if self.input[at] == 58:
            if self.input[at + 1] != 58:
                return False
            at += 1
        while at < end:
            if self.input[at] == 58:
                if digits == 0:
                    if gap >= 0:
                        return False
                    gap = many
                else:
                    if many == 8:
                        return False
                    self.groups[many] = value
                    many += 1
                at += 1
                start = at
                digits = 0
                value = 0
                continue
            if self.input[at] == 46:
                if many > 6 or not self._address4_unsafe(start, end):
                    return False
                self.groups[many] = ((self.address_low >> 32) & 0xFF) << 8 | ((self.address_low >> 40) & 0xFF)
                self.groups[many + 1] = ((self.address_low >> 48) & 0xFF) << 8 | ((self.address_low >> 56) & 0xFF)
                many += 2
                digits = -1
                break
            if digit_of(self.input[at]) > 15 or digits == 4:
                return False
            value = value * 16 + digit_of(self.input[at])
            digits += 1
            at += 1
        if digits > 0:
            if many == 8:
                return False
            self.groups[many] = value
            many += 1
        elif digits == 0 and gap != many:
            return False
        if gap < 0 and many != 8 or gap >= 0 and many > 7:
            return False
        if gap >= 0:
            for i in range(many - gap):
                self.groups[7 - i] = self.groups[many - 1 - i]
            for i in range(gap, 8 - (many - gap)):
                self.groups[i] = 0
        self.address_high = 0
        self.address_low = 0
        for i in range(4):
            word = (self.groups[i] >> 8) | ((self.groups[i] & 0xFF) << 8)
            self.address_high |= word << (16 * i)
            word = (self.groups[4 + i] >> 8) | ((self.groups[4 + i] & 0xFF) << 8)
            self.address_low |= word << (16 * i)
        return True

    # What is asked

    def _ask_unsafe(self, now: u64, seconds: u32) -> cython.void:
        """A request that may be answered: its records, or its failure."""
        self.counts[HTTP_ANNOUNCES if self.kind == 1 else HTTP_SCRAPES] += 1
        if not self.sources.admit_request(self.high, self.low, now):
            self.sources.note_refused(self.high, self.low)
            self._fail(RATE_LIMIT)
            return
        self.numbers += 1
        if self.kind == 1:
            self._announce_unsafe()
        else:
            self._scrape_unsafe(seconds)
        if self.fault >= 0:
            self._fail(self.fault)
            return
        self.connections.number[self.place] = self.numbers
        self.connections.state[self.place] = IS_WAITING
        self.connections.due[self.place] = seconds + WAIT_SECONDS

    def _announce_unsafe(self) -> cython.void:
        """Read an announce's query; its record, or its fault."""
        self.hashes = 0
        self.bad_hash = False
        self.has_peer_id = False
        self.port = -1
        self.seeder = False
        self.event = 0
        self.numwant = self.want
        self.own_high = self.high
        self.own_low = self.low
        self._pairs_unsafe()
        if self.fault >= 0:
            return
        if self.hashes != 1 or self.bad_hash:
            self.fault = BAD_HASH
        elif not self.has_peer_id:
            self.fault = BAD_PEER_ID
        elif self.port < 0:
            self.fault = BAD_PORT
        else:
            self._record()

    def _record(self) -> cython.void:
        """The record of the announce at hand."""
        record: size = self.records.begin(self.key_words[0], self.key_words[1], self.key_words[2])
        flags: u32 = self.event | FLAG_BOTH_FAMILIES
        wire: u64 = cython.cast(u64, (self.port >> 8) | ((self.port & 0xFF) << 8))
        if self.seeder:
            flags |= FLAG_SEEDER
        if is_ipv6(self.own_high, self.own_low):
            flags |= FLAG_IPV6
        if self.sources.is_exempt(self.high, self.low):
            flags |= FLAG_EXEMPT
        self._ticket(record, TICKET_HTTP, self.numbers)
        self.records.end(record, self.own_high, self.own_low, wire, flags, self.numwant)

    def _ticket(self, record: size, kind: u64, number: u64) -> cython.void:
        self.records.words[record] = (
            kind | (cython.cast(u64, self.options) << 16) | (cython.cast(u64, self.place) << 32)
        )
        self.records.words[record + 1] = self.boot
        self.records.words[record + 2] = number
        self.records.words[record + 3] = self.high
        self.records.words[record + 4] = self.low
        self.records.words[record + 5] = 0

    def _pairs_unsafe(self) -> cython.void:
        """Go through the query's pairs; of those that come twice the last one counts."""
        end: size
        stop: size = self.query_end
        pairs: size = 0
        name: u64
        tail: u64
        self.pos = self.query
        while self.pos < stop:
            if self.input[self.pos] == 38:
                self.pos += 1
                continue
            end = self.pos
            while end < stop and self.input[end] != 38:
                end += 1
            pairs += 1
            self.pair_end = end
            name = self._name_unsafe()
            tail = self.name_tail
            if name == INFO_HAS and tail == 104 and self.name_length == 9:
                self._hash_unsafe()
            elif pairs > MOST_PAIRS or end - self.pos > LONGEST_VALUE:
                self.fault = TOO_MANY
                return
            elif tail == 0 and self.kind == 1:
                self._value_unsafe(name)
            self.pos = end + 1

    def _name_unsafe(self) -> u64:
        """Read a pair's name: its first eight bytes, the next in name_tail; `pos` is then at the value."""
        word: u64 = 0
        byte: u64
        self.name_tail = 0
        self.name_length = 0
        while self.pos < self.pair_end and self.input[self.pos] != 61:
            byte = self._byte_unsafe()
            if self.name_length < 8:
                word |= byte << (8 * self.name_length)
            elif self.name_length == 8:
                self.name_tail = byte
            self.name_length += 1
        if self.pos < self.pair_end:
            self.pos += 1
        return word

    def _byte_unsafe(self) -> u32:
        """The next byte of the pair at hand, decoded once; a bad escape is noted and stands for itself."""
        byte: u32 = self.input[self.pos]
        high: u32
        low: u32
        self.pos += 1
        if byte == 43:
            return 32
        if byte != 37:
            return byte
        if self.pos + 2 > self.pair_end:
            self.bad_escape = True
            return byte
        high = digit_of(self.input[self.pos])
        low = digit_of(self.input[self.pos + 1])
        if high > 15 or low > 15:
            self.bad_escape = True
            return byte
        self.pos += 2
        return high << 4 | low

    def _hash_unsafe(self) -> cython.void:
        """Read an info-hash into `key`."""
        many: size = 0
        byte: u32
        self.bad_escape = False
        while self.pos < self.pair_end:
            byte = self._byte_unsafe()
            if many < 20:
                self.key[many] = byte
            many += 1
        self.hashes += 1
        if many != 20 or self.bad_escape:
            self.bad_hash = True
        elif self.kind == 2:
            self._add_hash()

    def _value_unsafe(self, name: u64) -> cython.void:
        """Read the value of a parameter of announces."""
        number: u64
        if name == PORT:
            number = self._number_unsafe()
            self.port = cython.cast(size, number) if number <= 0xFFFF else -1
        elif name == LEFT:
            self.seeder = self._number_unsafe() == 0
        elif name == NUMWANT:
            number = self._number_unsafe()
            self.numwant = (
                self.want if number == ALL64 else cython.cast(u32, number if number < self.most else self.most)
            )
        elif name == EVENT:
            self._event_unsafe()
        elif name == COMPACT:
            if self.pair_end - self.pos == 1 and self.input[self.pos] == 48:
                self.options |= ASKS_LIST
            else:
                self.options &= ~ASKS_LIST
        elif name == PEER_ID:
            self._peer_id_unsafe()
        elif name == IP and self.sources.is_trusted(self.high, self.low):
            if self._address_unsafe(self.pos, self.pair_end):
                self._take_ip()

    def _number_unsafe(self) -> u64:
        """A decimal number, HUGE if it is larger; ALL64 if it is none."""
        value: u64 = 0
        byte: u32
        if self.pos >= self.pair_end:
            return ALL64
        while self.pos < self.pair_end:
            byte = self._byte_unsafe()
            if byte < 48 or byte > 57:
                return ALL64
            if value < HUGE:
                value = value * 10 + (byte - 48)
        return value if value < HUGE else HUGE

    def _event_unsafe(self) -> cython.void:
        word: u64 = 0
        byte: u64
        many: size = 0
        while self.pos < self.pair_end and many < 10:
            byte = self._byte_unsafe()
            if many < 8:
                word |= byte << (8 * many)
            elif many == 8 and byte != 100:
                many = 10
            many += 1
        self.event = 0
        if word == STARTED and many == 7:
            self.event = EVENT_STARTED
        elif word == COMPLETED_1 and many == 9:
            self.event = EVENT_COMPLETED
        elif word == STOPPED and many == 7:
            self.event = EVENT_STOPPED
        elif word == PAUSED and many == 6:
            self.event = EVENT_PAUSED

    def _peer_id_unsafe(self) -> cython.void:
        many: size = 0
        self.bad_escape = False
        while self.pos < self.pair_end:
            self._byte_unsafe()
            many += 1
        self.has_peer_id = many == 20 and not self.bad_escape

    def _take_ip(self) -> cython.void:
        """Store the address that a trusted source speaks for, if it is a public one."""
        a: u64 = (self.address_low >> 32) & 0xFF
        b: u64 = (self.address_low >> 40) & 0xFF
        first: u64 = self.address_high & 0xFF
        if is_ipv6(self.address_high, self.address_low):
            if (first & 0xFE) == 0xFC or first == 0xFE or first == 0xFF or self.address_high == 0:
                return
        elif a == 0 or a == 10 or a == 127 or a >= 224 or (a == 192 and b == 168) or (a == 172 and (b & 0xF0) == 16):
            return
        elif (a == 169 and b == 254) or (a == 100 and (b & 0xC0) == 64):
            return
        self.own_high = self.address_high
        self.own_low = self.address_low

    # Scrapes

    def _scrape_unsafe(self, seconds: u32) -> cython.void:
        """Read a scrape's query; a record for each hash, or its fault."""
        base: size
        record: size
        i: size
        if self.free_places == 0:
            self.fault = OVERLOADED
            return
        self.hashes = 0
        self.bad_hash = False
        self.gather = self.free[self.free_places - 1]
        base = self.gather * PLACE // 8
        self.gather_words[base + 4] = 0
        self._pairs_unsafe()
        if self.fault < 0 and self.gather_words[base + 4] == 0:
            self.fault = FULL_SCRAPE if self.hashes == 0 else BAD_HASH
        if self.fault >= 0:
            return
        self.free_places -= 1
        self.gather_words[base] += 1
        self.gather_words[base + 1] = self.place
        self.gather_words[base + 2] = self.numbers
        self.gather_words[base + 3] = self.options
        self.gather_words[base + 5] = self.gather_words[base + 4]
        self.gather_words[base + 6] = 0
        self.gather_words[base + 7] = 0
        self.gather_words[base + 8] = seconds + WAIT_SECONDS
        for i in range(cython.cast(size, self.gather_words[base + 4])):
            self._copy_in(0, self.gather * PLACE + HASHES + 20 * i, 20)
            record = self.records.begin(self.key_words[0], self.key_words[1], self.key_words[2])
            self.records.words[record] = (
                TICKET_HTTP_GATHER | (cython.cast(u64, i) << 16) | (cython.cast(u64, self.gather) << 32)
            )
            self.records.words[record + 1] = self.boot
            self.records.words[record + 2] = self.numbers
            self.records.words[record + 3] = 0
            self.records.words[record + 4] = 0
            self.records.words[record + 5] = 0
            self.records.end(record, 0, 0, 0, EVENT_SCRAPE, 0)

    def _add_hash(self) -> cython.void:
        """Put `key` among the gathered hashes, in order, once; those beyond the limit are left out."""
        base: size = self.gather * PLACE
        many: size = cython.cast(size, self.gather_words[base // 8 + 4])
        at: size = 0
        order: cython.int
        if many == MOST_HASHES:
            return
        at = many
        while at > 0:
            order = self._compare(base + HASHES + 20 * (at - 1))
            if order == 0:
                return
            if order < 0:
                break
            at -= 1
        self._shift(base + HASHES + 20 * at, 20 * (many - at))
        self._copy_out(base + HASHES + 20 * at, 20)
        self.gather_words[base // 8 + 4] = many + 1

    def _compare(self, at: size) -> cython.int:
        """A gathered hash against `key`: below, equal or above 0."""
        i: size
        if at < 0 or at + 20 > len(self.gathers):
            return 0
        if cython.compiled:
            return memcmp(cython.address(self.gathers[at]), cython.address(self.key[0]), 20)
        else:
            for i in range(20):
                if self.gathers[at + i] != self.key[i]:
                    return self.gathers[at + i] - self.key[i]
            return 0

    def _shift(self, at: size, many: size) -> cython.void:
        """Move gathered bytes up by one hash."""
        if many <= 0 or at < 0 or at + many + 20 > len(self.gathers):
            return
        if cython.compiled:
            memmove(cython.address(self.gathers[at + 20]), cython.address(self.gathers[at]), many)
        else:
            self.gathers[at + 20 : at + 20 + many] = bytes(self.gathers[at : at + many])

    def _copy_out(self, at: size, many: size) -> cython.void:
        """From `key` to the gathers."""
        if at < 0 or at + many > len(self.gathers) or many > len(self.key):
            return
        if cython.compiled:
            memcpy(cython.address(self.gathers[at]), cython.address(self.key[0]), many)
        else:
            self.gathers[at : at + many] = self.key[:many]

    def _copy_in(self, to: size, at: size, many: size) -> cython.void:
        """From the gathers to `key`."""
        if at < 0 or at + many > len(self.gathers) or to + many > len(self.key):
            return
        if cython.compiled:
            memcpy(cython.address(self.key[to]), cython.address(self.gathers[at]), many)
        else:
            self.key[to : to + many] = self.gathers[at : at + many]

    # Answers

    def _u16(self, at: size) -> u32:
        high: u32 = self.replies[at + 1]
        return self.replies[at] | (high << 8)

    def _u32(self, at: size) -> u64:
        return self._u16(at) | cython.cast(u64, self._u16(at + 2)) << 16

    def _u64(self, at: size) -> u64:
        return self._u32(at) | self._u32(at + 4) << 32

    def _be32(self, at: size) -> u64:
        word: u64 = self._u32(at)
        return (word & 0xFF) << 24 | (word & 0xFF00) << 8 | (word >> 8 & 0xFF00) | word >> 24

    def _encode(self, at: size, length: size) -> cython.bint:
        """Write one reply's answer, or note its part of a scrape; False if it is not for this codec, or late."""
        kind: u64 = self._u16(at + AT_TICKET)
        if kind != TICKET_HTTP and kind != TICKET_HTTP_GATHER:
            return False
        if self._u64(at + AT_TICKET + 8) != self.boot:
            self.counts[LATE_REPLY] += 1
            return False
        if kind == TICKET_HTTP_GATHER:
            return self._gather(at)
        self.place = cython.cast(size, self._u32(at + AT_TICKET + 4))
        self.options = self._u16(at + AT_TICKET + 2)
        if not self._is_waiting(self.place, self._u64(at + AT_TICKET + 16)):
            self.counts[LATE_REPLY] += 1
            return False
        if not self._open_answer():
            return False
        if not self._announced(at, length):
            self.counts[HTTP_BAD_REPLY] += 1
            return False
        self.counts[HTTP_ANNOUNCE_ANSWERS] += 1
        self._close_answer()
        return True

    def _is_waiting(self, place: size, number: u64) -> cython.bint:
        """Whether a connection still waits for this request's answer."""
        return (
            place < self.connections.most
            and self.connections.state[place] == IS_WAITING
            and self.connections.number[place] == number
        )

    def _announced(self, at: size, length: size) -> cython.bint:
        """The body of an announce's answer; False if the reply does not add up."""
        wide: cython.bint = self.replies[at + AT_PART] & 2 != 0
        own: size = self._u16(at + AT_OWN_FAMILY)
        other: size = self._u16(at + AT_OTHER_FAMILY)
        fours: size = other if wide else own
        sixes: size = own if wide else other
        four_at: size = at + AT_PEERS + (18 * own if wide else 0)
        six_at: size = at + AT_PEERS + (0 if wide else 6 * own)
        interval: u64 = self._be32(at + AT_INTERVAL)
        if AT_PEERS + 6 * fours + 18 * sixes != length or fours + sixes > 400:
            return False
        self.high = self._u64(at + AT_TICKET + 24)
        self.low = self._u64(at + AT_TICKET + 32)
        self._counts(
            self._be32(at + AT_INTERVAL + 8),
            self._u32(at + AT_COMPLETED),
            self._be32(at + AT_INTERVAL + 4),
            interval,
        )
        if self.options & ASKS_LIST:
            self._text(PEER_LIST)
            self._list(four_at, fours, 6)
            self._list(six_at, sixes, 18)
            self._byte(101)
        else:
            self._text(PEERS)
            self._number(6 * fours)
            self._byte(58)
            self._bytes(four_at, 6 * fours)
            if sixes != 0 or wide:
                self._text(PEERS_6)
                self._number(18 * sixes)
                self._byte(58)
                self._bytes(six_at, 18 * sixes)
        self._byte(101)
        return True

    def _counts(self, seeders: u64, completed: u64, leechers: u64, interval: u64) -> cython.void:
        """What comes before the peers, in the order of the keys."""
        i: size
        self._text(COMPLETE)
        self._number(seeders)
        self._text(DOWNLOADED)
        self._number(completed)
        if is_ipv6(self.high, self.low):
            self._text(EXTERNAL_6)
            for i in range(8):
                self._byte(cython.cast(u32, self.high >> (8 * i) & 0xFF))
            for i in range(8):
                self._byte(cython.cast(u32, self.low >> (8 * i) & 0xFF))
        else:
            self._text(EXTERNAL_4)
            for i in range(4, 8):
                self._byte(cython.cast(u32, self.low >> (8 * i) & 0xFF))
        self._text(INCOMPLETE)
        self._number(leechers)
        self._text(INTERVAL)
        self._number(interval)
        self._text(MIN_INTERVAL)
        self._number(interval // 2)

    def _list(self, at: size, many: size, stride: size) -> cython.void:
        """Peers as dictionaries, without the ids that nobody keeps."""
        i: size
        start: size
        for i in range(many):
            self._text(PEER_IP)
            start = self.to
            self.to += 3  # room for the length, two digits at most
            if stride == 6:
                self._write4(at)
            else:
                self._write6(at)
            self._prefix(start, self.to - start - 3)
            self._text(PEER_PORT)
            self._number(cython.cast(u64, self.replies[at + stride - 2]) << 8 | self.replies[at + stride - 1])
            self._byte(101)
            self._byte(101)
            at += stride

    def _prefix(self, start: size, many: size) -> cython.void:
        """Write a string's length and colon in front of it, closing up the room that was left."""
        i: size
        wide: size = 3 if many > 9 else 2
        if many > 9:
            self.output[start] = 48 + many // 10
        self.output[start + wide - 2] = 48 + many % 10
        self.output[start + wide - 1] = 58
        if wide == 2:
            for i in range(many):
                self.output[start + 2 + i] = self.output[start + 3 + i]
            self.to -= 1

    def _write4(self, at: size) -> cython.void:
        i: size
        for i in range(4):
            if i != 0:
                self._byte(46)
            self._number(self.replies[at + i])

    def _write6(self, at: size) -> cython.void:
        """An IPv6 address as RFC 5952 has it: the longest run of zero groups left out."""
        i: size
        run: size = 0
        best: size = 0
        begin: size = -1
        group: u32
        shift: u32
        for i in range(8):
            run = run + 1 if self.replies[at + 2 * i] == 0 and self.replies[at + 2 * i + 1] == 0 else 0
            if run > best:
                best = run
                begin = i - run + 1
        if best < 2:
            begin = -1
        i = 0
        while i < 8:
            if i == begin:
                self._byte(58)
                self._byte(58)
                i += best
                continue
            if i != 0 and i != begin + best or begin < 0 and i != 0:
                self._byte(58)
            group = cython.cast(u32, self.replies[at + 2 * i]) << 8 | self.replies[at + 2 * i + 1]
            shift = 12
            while shift > 0 and group >> shift == 0:
                shift -= 4
            while True:
                self._byte(48 + (group >> shift & 15) if (group >> shift & 15) < 10 else 87 + (group >> shift & 15))
                if shift == 0:
                    break
                shift -= 4
            i += 1

    def _gather(self, at: size) -> cython.bint:
        """Note a part of a scrape, and write the answer with the last; late parts are ignored."""
        index: size = self._u16(at + AT_TICKET + 2)
        place: size = cython.cast(size, self._u32(at + AT_TICKET + 4))
        base: size = place * PLACE // 8
        bit: u64 = wrap(cython.cast(u64, 1) << (index & 63))
        to: size
        if place >= PLACES or self.gather_words[base + 2] != self._u64(at + AT_TICKET + 16):
            self.counts[LATE_REPLY] += 1
            return False
        if index >= cython.cast(size, self.gather_words[base + 4]) or self.gather_words[base + 6 + (index >> 6)] & bit:
            self.counts[HTTP_BAD_REPLY] += 1
            return False
        self.gather_words[base + 6 + (index >> 6)] |= bit
        to = (place * PLACE + NUMBERS + 16 * index) // 8
        self.gather_words[to] = self._be32(at + AT_INTERVAL) | self._be32(at + AT_INTERVAL + 4) << 32
        self.gather_words[to + 1] = self._be32(at + AT_INTERVAL + 8) | (self._u32(at + AT_PARTIAL_SEEDS) << 32)
        self.gather_words[base + 5] -= 1
        if self.gather_words[base + 5] != 0:
            return False
        return self._scraped(place)

    def _scraped(self, place: size) -> cython.bint:
        """The answer to a scrape all of whose parts are there."""
        base: size = place * PLACE // 8
        i: size
        to: size
        leechers: u64
        partial: u64
        self.place = cython.cast(size, self.gather_words[base + 1])
        self.options = cython.cast(u32, self.gather_words[base + 3])
        if not self._is_waiting(self.place, self.gather_words[base + 2]) or not self._open_answer():
            self.counts[LATE_REPLY] += 1
            self._free_gather(place)
            return False
        self._text(FILES)
        for i in range(cython.cast(size, self.gather_words[base + 4])):
            to = (place * PLACE + NUMBERS + 16 * i) // 8
            leechers = self.gather_words[to + 1] & ALL32
            partial = self.gather_words[to + 1] >> 32
            self._hash_text(place * PLACE + HASHES + 20 * i)
            self._text(FILE)
            self._number(self.gather_words[to] & ALL32)
            self._text(FILE_DOWNLOADED)
            self._number(self.gather_words[to] >> 32)
            self._text(FILE_DOWNLOADERS)
            self._number(leechers - partial if leechers > partial else 0)
            self._text(FILE_INCOMPLETE)
            self._number(leechers)
            self._byte(101)
            self._byte(101)
        self._text(FLAGS)
        self._number(self.interval)
        self._byte(101)
        self._byte(101)
        self._byte(101)
        self.counts[HTTP_SCRAPE_ANSWERS] += 1
        self._close_answer()
        self._free_gather(place)
        return True

    def _free_gather(self, place: size) -> cython.void:
        self.gather_words[place * PLACE // 8 + 2] = 0
        self.free[self.free_places] = cython.cast(u32, place)
        self.free_places += 1

    def _give_up(self, place: size) -> cython.void:
        """A late request's answer: a valid one with nobody in it and a short interval; a scrape's failure."""
        i: size
        short: u64
        self.place = place
        self.options = ASKS_CLOSE
        for i in range(PLACES):
            if self.gather_words[i * PLACE // 8 + 2] == self.connections.number[place]:
                self._free_gather(i)
                self._fail(LATE_SCRAPE)
                return
        if not self._open_answer():
            return
        self.random ^= wrap(self.random << 13)
        self.random ^= self.random >> 7
        self.random ^= wrap(self.random << 17)
        short = 120 + (self.random >> 32) % 181
        self.high = self.connections.high[place]
        self.low = self.connections.low[place]
        self._counts(0, 0, 0, short)
        self._text(PEERS)
        self._number(0)
        self._byte(58)
        self._byte(101)
        self.counts[HTTP_EMPTY_ANSWERS] += 1
        self._close_answer()

    def _fail(self, fault: size) -> cython.void:
        """Answer with a failure, HTTP 200, that is counted."""
        self.counts[HTTP_FAILURES + fault] += 1
        if not self._open_answer():
            return
        self._bytes_of_fault(fault)
        self._close_answer()

    def _fail_hard(self, fault: size) -> cython.void:
        """Answer with a failure of HTTP itself: 400, 414 or 431, and end the connection."""
        self.counts[HTTP_FAILURES + fault] += 1
        self.options = ASKS_CLOSE | ASKS_DRAIN
        if not self._open_answer():
            return
        self.to = self.start
        self._bytes_of_fault(fault)
        self._add_answer(self.start, self.to - self.start)

    def _bytes_of_fault(self, fault: size) -> cython.void:
        i: size
        for i in range(self.fault_at[2 * fault], self.fault_at[2 * fault + 1]):
            self._byte(self.faults[i])

    def _open_answer(self) -> cython.bint:
        """Begin the body of an answer, behind room for its head; False if there is no room for it."""
        if self.connections.answers >= len(self.connections.answer_place):
            self.counts[HTTP_BAD_REPLY] += 1
            return False
        if self.connections.written + MOST_ANSWER > len(self.output):
            self.counts[HTTP_BAD_REPLY] += 1
            return False
        self.start = self.connections.written + HEAD_ROOM
        self.to = self.start
        return True

    def _close_answer(self) -> cython.void:
        """Write the head in front of the body: from its end to its beginning."""
        value: u64 = self.to - self.start
        at: size = self.start - 4
        text: size = OK_CLOSE if self.options & ASKS_CLOSE else OK_KEEP
        many: size = self.text_at[text + 1] - self.text_at[text]
        end: size = self.to
        self.output[at] = 13
        self.output[at + 1] = 10
        self.output[at + 2] = 13
        self.output[at + 3] = 10
        while True:
            at -= 1
            self.output[at] = 48 + value % 10
            value //= 10
            if value == 0:
                break
        at -= many
        self.to = at
        self._text(text)
        self.to = end
        self._add_answer(at, (self.start if self.options & ASKS_HEAD else end) - at)

    def _add_answer(self, at: size, length: size) -> cython.void:
        i: size = self.connections.answers
        after: u32 = 0
        if self.options & ASKS_CLOSE:
            after = TO_DRAIN if self.options & ASKS_DRAIN else TO_CLOSE
        self.connections.answer_place[i] = cython.cast(u32, self.place)
        self.connections.answer_at[i] = cython.cast(u32, at)
        self.connections.answer_length[i] = cython.cast(u32, length)
        self.connections.answer_after[i] = after
        self.connections.answers += 1
        self.connections.written = self.to + (-self.to & 7)
        self.connections.number[self.place] = 0
        self.connections.state[self.place] = IS_READING

    # Writing at `to`; what is written fits into MOST_ANSWER

    def _byte(self, byte: u32) -> cython.void:
        self.output[self.to] = byte
        self.to += 1

    def _text(self, text: size) -> cython.void:
        """One of the texts."""
        start: size = self.text_at[text]
        many: size = self.text_at[text + 1] - start
        if start + many > len(self.texts) or self.to + many > len(self.output):
            return
        if cython.compiled:
            memcpy(cython.address(self.output[self.to]), cython.address(self.texts[start]), many)
        else:
            self.output[self.to : self.to + many] = self.texts[start : start + many]
        self.to += many

    def _bytes(self, at: size, many: size) -> cython.void:
        if many <= 0 or at + many > len(self.replies) or self.to + many > len(self.output):
            return
        if cython.compiled:
            memcpy(cython.address(self.output[self.to]), cython.address(self.replies[at]), many)
        else:
            self.output[self.to : self.to + many] = self.replies[at : at + many]
        self.to += many

    def _hash_text(self, at: size) -> cython.void:
        """A gathered hash as a key: 20:..."""
        i: size
        self._byte(50)
        self._byte(48)
        self._byte(58)
        for i in range(20):
            self._byte(self.gathers[at + i])

    def _number(self, value: u64) -> cython.void:
        """A number in decimal."""
        at: size = 24
        i: size
        while True:
            at -= 1
            self.digits[at] = 48 + value % 10
            value //= 10
            if value == 0:
                break
        for i in range(at, 24):
            self._byte(self.digits[i])
