"""KERNEL: one HTTP request from a stranger: its head (RFC 9112), who asks, and the query (BEP 3, 23).

Functions that read strangers' bytes end in _unsafe: they cannot fail, they note what is wrong in `fault`.
"""

import cython

from common import frames
from gateway import http_places, http_texts

if cython.compiled:
    from cython.cimports.gateway.http_addresses import AddressReader, digit_of
    from cython.cimports.gateway.sources import Sources, is_ipv6
    from cython.cimports.libc.string import memchr, memcmp, memcpy, memmove
else:
    from gateway.http_addresses import AddressReader, digit_of
    from gateway.sources import Sources, is_ipv6

u8 = cython.typedef(cython.uchar)
u32 = cython.typedef(cython.uint)
u64 = cython.typedef(cython.ulonglong)
size = cython.typedef(cython.Py_ssize_t)

EVENT_COMPLETED = cython.declare(u32, frames.EVENT_COMPLETED)
EVENT_STARTED = cython.declare(u32, frames.EVENT_STARTED)
EVENT_STOPPED = cython.declare(u32, frames.EVENT_STOPPED)
EVENT_PAUSED = cython.declare(u32, frames.EVENT_PAUSED)
MOST_HASHES = cython.declare(size, frames.MAX_SCRAPE)
BAD_REQUEST = cython.declare(size, http_texts.BAD_REQUEST)
LONG_HEAD = cython.declare(size, http_texts.LONG_HEAD)
TOO_MANY = cython.declare(size, http_texts.TOO_MANY)
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
HUGE = cython.declare(u64, 1 << 40)
ASKS_CLOSE = cython.declare(u32, http_places.ASKS_CLOSE)
ASKS_HEAD = cython.declare(u32, http_places.ASKS_HEAD)
ASKS_LIST = cython.declare(u32, http_places.ASKS_LIST)
ASKS_DRAIN = cython.declare(u32, http_places.ASKS_DRAIN)
MOST_LINES = cython.declare(size, 64)
MOST_PAIRS = cython.declare(size, 100)
LONGEST_VALUE = cython.declare(size, 512)


@cython.cclass
class HttpRequest:
    """The request in hand, which lies in `input`."""

    def __init__(self, input: u8[::1], sources: Sources):
        self.input = input
        self.sources = sources
        self.addresses = AddressReader(input)
        self.key_words = memoryview(bytearray(32)).cast("Q")
        self.key = memoryview(self.key_words).cast("B")
        self.sorted = memoryview(bytearray(20 * (frames.MAX_SCRAPE + 1)))
        self.forwarded = memoryview(bytearray(4 * 16)).cast("I")
        self.forwards = 0
        self.ignored = 0
        self.fault = -1

    def read_unsafe(self, at: size, end: size) -> size:
        """Read a head: what is asked, where its query lies, options; returns where it ends, 0 if it is not complete.

        kind: 0 another path or method, 1 announce, 2 scrape.
        """
        line: size
        lines: size = 0
        self.line_end = 0
        self.kind = 0
        self.ignored = 0
        self.options = 0
        self.fault = -1
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

    def _find(self, byte: u32, at: size, end: size) -> size:
        """Where a byte is first, from `at` on; `end` if it is not there."""
        if at < 0 or at >= end or end > len(self.input):
            return end
        if cython.compiled:
            found = cython.cast(cython.p_uchar, memchr(cython.address(self.input[at]), byte, end - at))
            return end if found == cython.NULL else found - cython.address(self.input[0])
        else:
            while at < end and self.input[at] != byte:
                at += 1
            return at

    def _line_end(self, at: size, end: size) -> size:
        """Where the line from `at` on has its line feed; 0 if it has none before `end`."""
        found: size = self._find(10, at, end)
        return found if found < end else 0

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
        if at < 0 or many > 8 or at + many > len(self.input):
            return 0
        if cython.compiled and many == 8:
            memcpy(cython.address(word), cython.address(self.input[at]), 8)
            return word
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
            while i < end and (self.input[i] == 32 or self.input[i] == 9):
                i += 1
            if self._is_word_unsafe(i, end, CLOSE_WORD, 5):
                self.options |= ASKS_CLOSE
        elif word == X_FORWAR and end - at >= 16 and self.input[at + 15] == 58:
            if (self._word(at + 8, 7) | LOWER >> 8) == DED_FOR:
                if self.forwards == 8:
                    for i in range(14):
                        self.forwarded[i] = self.forwarded[i + 2]
                    self.forwards = 7
                self.forwarded[2 * self.forwards] = cython.cast(u32, at + 16)
                self.forwarded[2 * self.forwards + 1] = cython.cast(u32, end)
                self.forwards += 1
        elif (word == CONTENT_ or word == TRANSFER) and (self.input[at + 8] | 0x20 == 108 or word == TRANSFER):
            # A body, which no tracker's client sends: it is not read, the connection ends.
            self.options |= ASKS_CLOSE | ASKS_DRAIN

    def _is_word_unsafe(self, at: size, end: size, word: u64, many: size) -> cython.bint:
        """Whether a header's value has this word, in any case, as its first or a later element."""
        while at + many <= end:
            if (self._word(at, many) | (LOWER >> (8 * (8 - many)))) == word:
                return True
            at = self._find(44, at, end) + 1
            while at < end and (self.input[at] == 32 or self.input[at] == 9):
                at += 1
        return False

    def take_source_unsafe(self, high: u64, low: u64) -> cython.void:
        """The client's address: the connection's, or what a trusted proxy says (the right-most that is no proxy)."""
        self.high = high
        self.low = low
        if self.forwards != 0:
            if self.sources.is_proxy(self.high, self.low):
                self._forwarded_unsafe()
            else:
                self.ignored += 1

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
                if not self.addresses.read_unsafe(comma + 1, end):
                    self.fault = BAD_REQUEST  # to take the proxy for the client would lift the limits
                    return
                self.high = self.addresses.high
                self.low = self.addresses.low
                if not self.sources.is_proxy(self.high, self.low):
                    return
                end = comma

    def take_query_unsafe(self) -> cython.void:
        """Go through the query's pairs; of those that come twice the last one counts."""
        end: size
        stop: size = self.query_end
        pairs: size = 0
        name: u64
        tail: u64
        self.pos = self.query
        self.hashes = 0
        self.bad_hash = False
        self.distinct = 0
        self.has_peer_id = False
        self.port = -1
        self.seeder = False
        self.event = 0
        self.numwant = ALL64
        self.own_high = self.high
        self.own_low = self.low
        while self.pos < stop:
            if self.input[self.pos] == 38:
                self.pos += 1
                continue
            end = self._find(38, self.pos, stop)
            self.pair_end = end
            name = self._name_unsafe()
            tail = self.name_tail
            if name == INFO_HAS and tail == 104 and self.name_length == 9:
                self._hash_unsafe()
                self.pos = end + 1
                continue
            pairs += 1
            if pairs > MOST_PAIRS or end - self.pos > LONGEST_VALUE:
                self.fault = TOO_MANY
                return
            if self.name_length <= 8 and self.kind == 1:
                self._value_unsafe(name)
            self.pos = end + 1

    def _name_unsafe(self) -> u64:
        """Read a pair's name: its first eight bytes, the next in name_tail; `pos` is then at the value."""
        word: u64 = 0
        byte: u64
        end: size = self._find(61, self.pos, self.pair_end)
        self.name_tail = 0
        self.name_length = 0
        if end - self.pos > 9 and self._find(37, self.pos, end) == end:
            self.name_length = end - self.pos  # no name that we know
            self.name_tail = ALL64
            self.pos = end
        while self.pos < end:
            byte = self.input[self.pos]
            if byte == 37 or byte == 43:
                byte = self._byte_unsafe()
            else:
                self.pos += 1
            if byte == 0:
                self.name_length = 15  # no name has it, and a word could not tell it from its end
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
            byte = self.input[self.pos]
            if byte == 37 or byte == 43:
                byte = self._byte_unsafe()
            else:
                self.pos += 1
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
            self.numwant = self._number_unsafe()
        elif name == EVENT:
            self._event_unsafe()
        elif name == COMPACT:
            if self._number_unsafe() == 0:
                self.options |= ASKS_LIST
            else:
                self.options &= ~ASKS_LIST
        elif name == PEER_ID:
            self._peer_id_unsafe()
        elif name == IP and self.sources.is_trusted(self.high, self.low) and self._ip_unsafe():
            self.own_high = self.addresses.high
            self.own_low = self.addresses.low

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

    def _ip_unsafe(self) -> cython.bint:
        """Read the address that a trusted source speaks for; False if it is none, or not a public one."""
        a: u64
        b: u64
        first: u64
        start: size = self.pos
        to: size = start
        byte: u32
        while self.pos < self.pair_end:  # in place: decoded it is not longer
            byte = self._byte_unsafe()
            self.input[to] = byte
            to += 1
        if not self.addresses.read_unsafe(start, to):
            return False
        a = (self.addresses.low >> 32) & 0xFF
        b = (self.addresses.low >> 40) & 0xFF
        first = self.addresses.high & 0xFF
        if is_ipv6(self.addresses.high, self.addresses.low):
            return (first & 0xFE) != 0xFC and first != 0xFE and first != 0xFF and self.addresses.high != 0
        if a == 0 or a == 10 or a == 127 or a >= 224 or (a == 192 and b == 168) or (a == 172 and (b & 0xF0) == 16):
            return False
        return not ((a == 169 and b == 254) or (a == 100 and (b & 0xC0) == 64))

    def _add_hash(self) -> cython.void:
        """Put `key` among the sorted ones, in order, once; those beyond the limit are left out."""
        many: size = self.distinct
        at: size = 0
        order: cython.int
        if many == MOST_HASHES:
            return
        at = many
        while at > 0:
            order = self._compare(20 * (at - 1))
            if order == 0:
                return
            if order < 0:
                break
            at -= 1
        self._shift(20 * at, 20 * (many - at))
        self._copy_out(20 * at, 20)
        self.distinct = many + 1

    def take_sorted(self, i: size) -> cython.void:
        """Put one of the sorted hashes into `key`."""
        k: size
        for k in range(20):
            self.key[k] = self.sorted[20 * i + k]

    def _compare(self, at: size) -> cython.int:
        """A sorted hash against `key`: below, equal or above 0."""
        i: size
        if at < 0 or at + 20 > len(self.sorted):
            return 0
        if cython.compiled:
            return memcmp(cython.address(self.sorted[at]), cython.address(self.key[0]), 20)
        else:
            for i in range(20):
                if self.sorted[at + i] != self.key[i]:
                    return self.sorted[at + i] - self.key[i]
            return 0

    def _shift(self, at: size, many: size) -> cython.void:
        """Move sorted bytes up by one hash."""
        if many <= 0 or at < 0 or at + many + 20 > len(self.sorted):
            return
        if cython.compiled:
            memmove(cython.address(self.sorted[at + 20]), cython.address(self.sorted[at]), many)
        else:
            self.sorted[at + 20 : at + 20 + many] = bytes(self.sorted[at : at + many])

    def _copy_out(self, at: size, many: size) -> cython.void:
        """From `key` to the sorted hashes."""
        if at < 0 or at + many > len(self.sorted) or many > len(self.key):
            return
        if cython.compiled:
            memcpy(cython.address(self.sorted[at]), cython.address(self.key[0]), many)
        else:
            self.sorted[at : at + many] = self.key[:many]
