"""KERNEL: HTTP requests in, records out; replies in, HTTP answers out (BEP 3, 7, 21, 23, 24, 31, 48; RFC 9112).

A request's ticket (see common/frames.py) names its connection, the boot and a number that no other request of
this process has, so a late reply reaches nobody. A scrape takes a place of 4,096 bytes in the gather table:

words 1 connection, 2 number, 3 options, 4 hashes, 5 missing, 6 and 7 bits of the parts that came,
8 deadline; from byte 80 on the hashes, in rising order, 20 bytes each; from byte 2,080 on 16 bytes for each:
seeders, completed, leechers, partial seeds.
"""

import cython

from common import counters, frames
from gateway import http_places, http_texts

if cython.compiled:
    from cython.cimports.gateway.connections import Connections
    from cython.cimports.gateway.http_answer import HttpAnswer
    from cython.cimports.gateway.http_request import HttpRequest
    from cython.cimports.gateway.records import Records
    from cython.cimports.gateway.sources import Sources, is_ipv6
else:
    from gateway.connections import Connections
    from gateway.http_answer import HttpAnswer
    from gateway.http_request import HttpRequest
    from gateway.records import Records
    from gateway.sources import Sources, is_ipv6

u32 = cython.typedef(cython.uint)
u64 = cython.typedef(cython.ulonglong)
size = cython.typedef(cython.Py_ssize_t)
View = cython.typedef(cython.const[cython.uchar][::1])

HEADER = cython.declare(size, frames.HEADER)
RECORD = cython.declare(size, frames.RECORD)
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
MAX_WANT = cython.declare(size, frames.MAX_WANT)
EVENT_SCRAPE = cython.declare(u32, frames.EVENT_SCRAPE)
FLAG_SEEDER = cython.declare(u32, frames.FLAG_SEEDER)
FLAG_BOTH_FAMILIES = cython.declare(u32, frames.FLAG_BOTH_FAMILIES)
FLAG_IPV6 = cython.declare(u32, frames.FLAG_IPV6)
FLAG_EXEMPT = cython.declare(u32, frames.FLAG_EXEMPT)
TICKET_HTTP = cython.declare(u64, frames.TICKET_HTTP)
TICKET_HTTP_GATHER = cython.declare(u64, frames.TICKET_HTTP_GATHER)
HTTP_ANNOUNCES = cython.declare(size, counters.HTTP_ANNOUNCES)
HTTP_SCRAPES = cython.declare(size, counters.HTTP_SCRAPES)
HTTP_ANNOUNCE_ANSWERS = cython.declare(size, counters.HTTP_ANNOUNCE_ANSWERS)
HTTP_SCRAPE_ANSWERS = cython.declare(size, counters.HTTP_SCRAPE_ANSWERS)
HTTP_EMPTY_ANSWERS = cython.declare(size, counters.HTTP_EMPTY_ANSWERS)
HTTP_FAILURES = cython.declare(size, counters.HTTP_FAILURES)
FORWARDED_IGNORED = cython.declare(size, counters.HTTP_FORWARDED_IGNORED)
LATE_REPLY = cython.declare(size, counters.HTTP_LATE_REPLY)
HTTP_BAD_REPLY = cython.declare(size, counters.HTTP_BAD_REPLY)
LONG_TARGET = cython.declare(size, http_texts.LONG_TARGET)
LONG_HEAD = cython.declare(size, http_texts.LONG_HEAD)
BAD_HASH = cython.declare(size, http_texts.BAD_HASH)
BAD_PEER_ID = cython.declare(size, http_texts.BAD_PEER_ID)
BAD_PORT = cython.declare(size, http_texts.BAD_PORT)
FULL_SCRAPE = cython.declare(size, http_texts.FULL_SCRAPE)
RATE_LIMIT = cython.declare(size, http_texts.RATE_LIMIT)
OVERLOADED = cython.declare(size, http_texts.OVERLOADED)
OK_KEEP = cython.declare(size, http_texts.OK_KEEP)
OK_CLOSE = cython.declare(size, http_texts.OK_CLOSE)
PEERS = cython.declare(size, http_texts.PEERS)
PEERS_6 = cython.declare(size, http_texts.PEERS_6)
PEER_LIST = cython.declare(size, http_texts.PEER_LIST)
FILES = cython.declare(size, http_texts.FILES)
FILE = cython.declare(size, http_texts.FILE)
FILE_DOWNLOADED = cython.declare(size, http_texts.FILE_DOWNLOADED)
FILE_DOWNLOADERS = cython.declare(size, http_texts.FILE_DOWNLOADERS)
FILE_INCOMPLETE = cython.declare(size, http_texts.FILE_INCOMPLETE)
FLAGS = cython.declare(size, http_texts.FLAGS)
LATE_SCRAPE = cython.declare(size, http_texts.LATE_SCRAPE)
ALL64 = cython.declare(u64, 0xFFFF_FFFF_FFFF_FFFF)
ALL32 = cython.declare(u64, 0xFFFF_FFFF)
ASKS_CLOSE = cython.declare(u32, http_places.ASKS_CLOSE)
ASKS_HEAD = cython.declare(u32, http_places.ASKS_HEAD)
ASKS_LIST = cython.declare(u32, http_places.ASKS_LIST)
ASKS_DRAIN = cython.declare(u32, http_places.ASKS_DRAIN)

# What a row was, if not a request that is under way or answered.
MORE, OTHER, REST = 1, 2, 3
IS_MORE = cython.declare(u32, MORE)
IS_OTHER = cython.declare(u32, OTHER)
IS_REST = cython.declare(u32, REST)
IS_READING = cython.declare(u32, http_places.READING)
IS_WAITING = cython.declare(u32, http_places.WAITING)
IS_ANSWERED = cython.declare(u32, http_places.ANSWERED)
TO_CLOSE = cython.declare(u32, http_places.CLOSE)
TO_DRAIN = cython.declare(u32, http_places.DRAIN)
LONGEST_HEAD = cython.declare(size, http_places.HEAD)
ROWS = cython.declare(size, http_places.ROWS)
ENOUGH = cython.declare(size, http_places.ENOUGH)
MOST_ANSWER = cython.declare(size, http_places.ANSWER)
HEAD_ROOM = cython.declare(size, 160)
PLACES = cython.declare(size, http_places.GATHERS)
PLACE = cython.declare(size, http_places.GATHER)
HASHES = cython.declare(size, 80)
NUMBERS = cython.declare(size, 2080)
WAIT_SECONDS = cython.declare(u32, http_places.REPLY_TIME)


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
        self.request = HttpRequest(connections.input, sources)
        self.answer = HttpAnswer(connections.output)
        self.output = connections.output
        self.gathers = allocate(PLACES * PLACE)
        self.gather_words = memoryview(self.gathers).cast("Q")
        self.free = memoryview(bytearray(4 * PLACES)).cast("I")
        for i in range(PLACES):
            self.free[i] = PLACES - 1 - i
        self.free_places = PLACES
        self.asked = memoryview(bytearray(connections.most))
        self.special_row = memoryview(bytearray(4 * ROWS)).cast("I")
        self.special_kind = memoryview(bytearray(ROWS))
        self.special_from = memoryview(bytearray(4 * ROWS)).cast("I")
        self.specials = 0
        self.counts = memoryview(bytearray(8 * counters.HTTP)).cast("Q")
        self.numbers = 0
        self.interval = 1800
        self.random = 1
        self.set_interval(1800)

    # Doors

    def set_interval(self, interval: u32) -> None:
        """The interval, in seconds, that failures and scrapes tell."""
        if not 60 <= interval <= 2_147_483:
            raise ValueError("an interval is 60 to 2147483 s")
        self.interval = interval
        self.answer.set_interval(interval)

    def decode(self, start: size, now: u64, seconds: u32) -> int:
        """Take the rows from `start` on; returns where to go on once the frames are sent and the answers too.

        now: microseconds of a clock that never goes back; seconds: of the connections' clock.
        """
        row: size
        if not 0 <= start <= self.connections.rows:
            raise ValueError("no such row")
        self.specials = 0
        for row in range(start, self.connections.rows):
            if self.records.is_full() or self.connections.answers >= ENOUGH:
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
        self.answer.replies = replies
        if len(replies) < HEADER or self.answer.u16_at(0) != VERSION or self.answer.u16_at(AT_KIND) != REPLIES:
            self.counts[HTTP_BAD_REPLY] += 1
            self.answer.replies = self.output
            return 0
        while at < len(replies):
            length = 0
            if at + REPLY <= len(replies):
                length = self.answer.u16_at(at) | (self.answer.u16_at(at + 2) << 16)
            if length < REPLY or at + length > len(replies):
                self.counts[HTTP_BAD_REPLY] += 1
                break
            if self._encode(at, length):
                many += 1
            at += length
        self.answer.replies = self.output
        return many

    def fail_scrapes(self, link: size) -> int:
        """Answer the scrapes in a link's frame, whose records will reach no shard, with a failure; returns how many.

        The records stay. A scrape for whose answer there is no room is late later.
        """
        at: size
        i: size
        many: size = 0
        if not 0 <= link < self.records.links:
            raise ValueError("no such link")
        for i in range(self.records.filled[link]):
            at = (link * self.records.frame_size + HEADER + i * RECORD) // 8
            if self.records.words[at] & 0xFFFF == TICKET_HTTP_GATHER and self._fail_scrape(at):
                many += 1
        return many

    def expire(self, seconds: u32, entropy: u64) -> int:
        """Answer requests whose replies are late: announces with nobody and a short interval; returns how many.

        There may be more: call again, once these are sent, until it returns 0.
        """
        place: size
        many: size = 0
        self.random = entropy | 1
        for place in range(self.connections.most):
            if self.connections.answers >= ENOUGH:
                break
            if self.connections.state[place] == IS_WAITING and self.connections.due[place] < seconds:
                self._give_up(place)
                many += 1
        for place in range(PLACES):
            # Its client is gone, and so may be the shard that has not answered.
            if self.gather_words[place * PLACE // 8 + 2] != 0 and self.gather_words[place * PLACE // 8 + 8] < seconds:
                self._free_late(place)
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
        if self.connections.state[self.place] != IS_READING or self.connections.held[self.place] != 0 or at == end:
            self._special(row, IS_MORE, 0)
            return
        rest = self.request.read_unsafe(at, end)
        self.options = self.request.options
        if rest == 0:
            if end - at > LONGEST_HEAD:
                self._fail_hard(self._too_long(at))
            else:
                self._special(row, IS_MORE, 0)
            return
        if self.request.fault >= 0:
            self._fail_hard(self.request.fault)
            return
        if rest - at > LONGEST_HEAD:
            self._fail_hard(self._too_long(at))
            return
        if self.request.kind == 0:
            self._special(row, IS_OTHER, 0)
            return
        while rest < end and (self.connections.input[rest] == 13 or self.connections.input[rest] == 10):
            rest += 1  # RFC 9112, 2.2
        if rest < end:
            if self.options & ASKS_CLOSE:
                self.options |= ASKS_DRAIN
            else:
                self._special(row, IS_REST, rest - at)
        self.request.take_source_unsafe(self.connections.high[self.place], self.connections.low[self.place])
        self.counts[FORWARDED_IGNORED] += self.request.ignored
        if self.request.fault >= 0:
            self._fail_hard(self.request.fault)
        else:
            self._ask(now, seconds)

    def _too_long(self, at: size) -> size:
        """Which fault a head from `at` on has that is too long."""
        return LONG_HEAD if 0 < self.request.line_end - at <= LONGEST_HEAD else LONG_TARGET

    def _special(self, row: size, kind: u32, start: size) -> cython.void:
        if self.specials < len(self.special_row):
            self.special_row[self.specials] = cython.cast(u32, row)
            self.special_kind[self.specials] = kind
            self.special_from[self.specials] = cython.cast(u32, start)
            self.specials += 1

    def _ask(self, now: u64, seconds: u32) -> cython.void:
        """The request in hand: its records, or its failure."""
        fault: size
        self.high = self.request.high
        self.low = self.request.low
        self.counts[HTTP_ANNOUNCES if self.request.kind == 1 else HTTP_SCRAPES] += 1
        if not self.sources.admit_request(self.high, self.low, now):
            self.sources.note_refused(self.high, self.low)
            self._fail(RATE_LIMIT)
            return
        self.numbers += 1
        self.request.take_query_unsafe()
        self.options = (self.options & ~ASKS_LIST) | (self.request.options & ASKS_LIST)
        fault = self.request.fault
        if fault < 0:
            fault = self._announce() if self.request.kind == 1 else self._scrape(seconds)
        if fault >= 0:
            self._fail(fault)
            return
        self.connections.number[self.place] = self.numbers
        self.connections.state[self.place] = IS_WAITING
        self.asked[self.place] = self.options
        self.connections.due[self.place] = seconds + WAIT_SECONDS

    def _announce(self) -> size:
        """The record of the announce in hand; or its fault, else -1."""
        record: size
        flags: u32 = self.request.event | FLAG_BOTH_FAMILIES
        port: u64
        want: u64 = self.request.numwant
        if self.request.hashes != 1 or self.request.bad_hash:
            return BAD_HASH
        if not self.request.has_peer_id:
            return BAD_PEER_ID
        if self.request.port < 0:
            return BAD_PORT
        if want == ALL64:
            want = self.want
        if want > self.most:
            want = self.most
        if self.request.seeder:
            flags |= FLAG_SEEDER
        if is_ipv6(self.request.own_high, self.request.own_low):
            flags |= FLAG_IPV6
        if self.sources.is_exempt(self.high, self.low):
            flags |= FLAG_EXEMPT
        port = cython.cast(u64, (self.request.port >> 8) | ((self.request.port & 0xFF) << 8))
        record = self.records.begin(self.request.key_words[0], self.request.key_words[1], self.request.key_words[2])
        self.records.words[record] = (
            TICKET_HTTP | (cython.cast(u64, self.options) << 16) | (cython.cast(u64, self.place) << 32)
        )
        self.records.words[record + 1] = self.boot
        self.records.words[record + 2] = self.numbers
        self.records.words[record + 3] = self.high
        self.records.words[record + 4] = self.low
        self.records.words[record + 5] = 0
        self.records.end(record, self.request.own_high, self.request.own_low, port, flags, want)
        return -1

    def _scrape(self, seconds: u32) -> size:
        """The records of the scrape in hand, one for each hash; or its fault, else -1."""
        base: size
        record: size
        i: size
        many: size = self.request.distinct
        if many == 0:
            return FULL_SCRAPE if self.request.hashes == 0 else BAD_HASH
        if self.free_places == 0:
            return OVERLOADED
        self.free_places -= 1
        self.gather = self.free[self.free_places]
        base = self.gather * PLACE // 8
        self.gather_words[base + 1] = self.place
        self.gather_words[base + 2] = self.numbers
        self.gather_words[base + 3] = self.options
        self.gather_words[base + 4] = many
        self.gather_words[base + 5] = many
        self.gather_words[base + 6] = 0
        self.gather_words[base + 7] = 0
        self.gather_words[base + 8] = seconds + WAIT_SECONDS
        for i in range(20 * many):
            self.gathers[8 * base + HASHES + i] = self.request.sorted[i]
        for i in range(many):
            self.request.take_sorted(i)
            record = self.records.begin(self.request.key_words[0], self.request.key_words[1], self.request.key_words[2])
            self.records.words[record] = (
                TICKET_HTTP_GATHER | (cython.cast(u64, i) << 16) | (cython.cast(u64, self.gather) << 32)
            )
            self.records.words[record + 1] = self.boot
            self.records.words[record + 2] = self.numbers
            self.records.words[record + 3] = 0
            self.records.words[record + 4] = 0
            self.records.words[record + 5] = 0
            self.records.end(record, 0, 0, 0, EVENT_SCRAPE, 0)
        return -1

    # Answers

    def _encode(self, at: size, length: size) -> cython.bint:
        """Write one reply's answer, or note its part of a scrape; False if it is not for this codec, or late."""
        kind: u64 = self.answer.u16_at(at + AT_TICKET)
        if kind != TICKET_HTTP and kind != TICKET_HTTP_GATHER:
            return False
        if self.answer.u64_at(at + AT_TICKET + 8) != self.boot:
            self.counts[LATE_REPLY] += 1
            return False
        if kind == TICKET_HTTP_GATHER:
            return self._gather(at)
        self.place = cython.cast(size, self.answer.u32_at(at + AT_TICKET + 4))
        self.options = self.answer.u16_at(at + AT_TICKET + 2)
        if not self._is_waiting(self.place, self.answer.u64_at(at + AT_TICKET + 16)):
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
        wide: cython.bint = self.answer.replies[at + AT_PART] & 2 != 0
        own: size = self.answer.u16_at(at + AT_OWN_FAMILY)
        other: size = self.answer.u16_at(at + AT_OTHER_FAMILY)
        fours: size = other if wide else own
        sixes: size = own if wide else other
        four_at: size = at + AT_PEERS + (18 * own if wide else 0)
        six_at: size = at + AT_PEERS + (0 if wide else 6 * own)
        interval: u64 = self.answer.be32_at(at + AT_INTERVAL)
        if AT_PEERS + 6 * fours + 18 * sixes != length or fours + sixes > MAX_WANT:
            return False
        self.high = self.answer.u64_at(at + AT_TICKET + 24)
        self.low = self.answer.u64_at(at + AT_TICKET + 32)
        self.answer.counts(
            self.high,
            self.low,
            self.answer.be32_at(at + AT_INTERVAL + 8),
            self.answer.u32_at(at + AT_COMPLETED),
            self.answer.be32_at(at + AT_INTERVAL + 4),
            interval,
        )
        if self.options & ASKS_LIST:
            self.answer.text(PEER_LIST)
            self.answer.peers(four_at, fours, 6)
            self.answer.peers(six_at, sixes, 18)
            self.answer.byte(101)
        else:
            self.answer.text(PEERS)
            self.answer.number(6 * fours)
            self.answer.byte(58)
            self.answer.take(four_at, 6 * fours)
            if sixes != 0 or wide:
                self.answer.text(PEERS_6)
                self.answer.number(18 * sixes)
                self.answer.byte(58)
                self.answer.take(six_at, 18 * sixes)
        self.answer.byte(101)
        return True

    def _gather(self, at: size) -> cython.bint:
        """Note a part of a scrape, and write the answer with the last; late parts are ignored."""
        index: size = self.answer.u16_at(at + AT_TICKET + 2)
        place: size = cython.cast(size, self.answer.u32_at(at + AT_TICKET + 4))
        base: size = place * PLACE // 8
        bit: u64 = wrap(cython.cast(u64, 1) << (index & 63))
        to: size
        if place >= PLACES or self.gather_words[base + 2] != self.answer.u64_at(at + AT_TICKET + 16):
            self.counts[LATE_REPLY] += 1
            return False
        if index >= cython.cast(size, self.gather_words[base + 4]) or self.gather_words[base + 6 + (index >> 6)] & bit:
            self.counts[HTTP_BAD_REPLY] += 1
            return False
        self.gather_words[base + 6 + (index >> 6)] |= bit
        to = (place * PLACE + NUMBERS + 16 * index) // 8
        self.gather_words[to] = self.answer.be32_at(at + AT_INTERVAL) | self.answer.be32_at(at + AT_INTERVAL + 4) << 32
        self.gather_words[to + 1] = self.answer.be32_at(at + AT_INTERVAL + 8) | (
            self.answer.u32_at(at + AT_PARTIAL_SEEDS) << 32
        )
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
        self.answer.text(FILES)
        for i in range(cython.cast(size, self.gather_words[base + 4])):
            to = (place * PLACE + NUMBERS + 16 * i) // 8
            leechers = self.gather_words[to + 1] & ALL32
            partial = self.gather_words[to + 1] >> 32
            self.answer.hash(self.gathers, place * PLACE + HASHES + 20 * i)
            self.answer.text(FILE)
            self.answer.number(self.gather_words[to] & ALL32)
            self.answer.text(FILE_DOWNLOADED)
            self.answer.number(self.gather_words[to] >> 32)
            self.answer.text(FILE_DOWNLOADERS)
            self.answer.number(leechers - partial if leechers > partial else 0)
            self.answer.text(FILE_INCOMPLETE)
            self.answer.number(leechers)
            self.answer.byte(101)
            self.answer.byte(101)
        self.answer.text(FLAGS)
        self.answer.number(self.interval)
        self.answer.byte(101)
        self.answer.byte(101)
        self.answer.byte(101)
        self.counts[HTTP_SCRAPE_ANSWERS] += 1
        self._close_answer()
        self._free_gather(place)
        return True

    def _free_gather(self, place: size) -> cython.void:
        self.gather_words[place * PLACE // 8 + 2] = 0
        self.free[self.free_places] = cython.cast(u32, place)
        self.free_places += 1

    def _free_late(self, place: size) -> cython.void:
        """Free the place of a scrape for whose parts nobody waits any longer."""
        base: size = place * PLACE // 8
        if not self._is_waiting(cython.cast(size, self.gather_words[base + 1]), self.gather_words[base + 2]):
            self._free_gather(place)

    def _fail_scrape(self, record: size) -> cython.bint:
        """Fail the scrape that a record, by its first word, is a part of; False if it has failed, or nobody waits."""
        gather: size = cython.cast(size, self.records.words[record] >> 32)
        base: size = gather * PLACE // 8
        number: u64 = self.records.words[record + 2]
        if self.gather_words[base + 2] != number:
            return False
        self.place = cython.cast(size, self.gather_words[base + 1])
        self.options = cython.cast(u32, self.gather_words[base + 3])
        if not self._is_waiting(self.place, number):
            self._free_gather(gather)
            return False
        if not self._open_answer():
            return False
        self._free_gather(gather)
        self._fail(LATE_SCRAPE)
        return True

    def _give_up(self, place: size) -> cython.void:
        """A late request's answer: a valid one with nobody in it and a short interval; a scrape's failure."""
        i: size
        short: u64
        self.place = place
        self.options = self.asked[place]
        if not self.options & ASKS_CLOSE:
            self.options |= ASKS_CLOSE | ASKS_DRAIN  # a next request may have come
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
        self.answer.counts(self.high, self.low, 0, 0, 0, short)
        if self.options & ASKS_LIST:
            self.answer.text(PEER_LIST)
            self.answer.byte(101)
        else:
            self.answer.text(PEERS)
            self.answer.number(0)
            self.answer.byte(58)
        self.answer.byte(101)
        self.counts[HTTP_EMPTY_ANSWERS] += 1
        self._close_answer()

    def _fail(self, fault: size) -> cython.void:
        """Answer with a failure, HTTP 200, that is counted."""
        self.counts[HTTP_FAILURES + fault] += 1
        if not self._open_answer():
            return
        self.answer.failure(fault)
        self._close_answer()

    def _fail_hard(self, fault: size) -> cython.void:
        """Answer with a failure of HTTP itself: 400, 414 or 431, and end the connection."""
        self.counts[HTTP_FAILURES + fault] += 1
        self.options = ASKS_CLOSE | ASKS_DRAIN
        if not self._open_answer():
            return
        self.answer.to = self.answer.start
        self.answer.failure(fault)
        self._add_answer(self.answer.start, self.answer.to - self.answer.start)

    def _open_answer(self) -> cython.bint:
        """Begin the body of an answer, behind room for its head; False if there is no room for it."""
        if self.connections.answers >= len(self.connections.answer_place):
            self.counts[HTTP_BAD_REPLY] += 1
            return False
        if self.connections.written + MOST_ANSWER > len(self.output):
            self.counts[HTTP_BAD_REPLY] += 1
            return False
        self.answer.start = self.connections.written + HEAD_ROOM
        self.answer.to = self.answer.start
        return True

    def _close_answer(self) -> cython.void:
        """Write the head in front of the body: from its end to its beginning."""
        value: u64 = self.answer.to - self.answer.start
        at: size = self.answer.start - 4
        text: size = OK_CLOSE if self.options & ASKS_CLOSE else OK_KEEP
        many: size = self.answer.text_at[text + 1] - self.answer.text_at[text]
        end: size = self.answer.to
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
        self.answer.to = at
        self.answer.text(text)
        self.answer.to = end
        self._add_answer(at, (self.answer.start if self.options & ASKS_HEAD else end) - at)

    def _add_answer(self, at: size, length: size) -> cython.void:
        after: u32 = 0
        if self.options & ASKS_CLOSE:
            after = TO_DRAIN if self.options & ASKS_DRAIN else TO_CLOSE
        self.connections.queue(self.place, at, length, after, self.answer.to)
        self.connections.number[self.place] = 0
        self.connections.state[self.place] = IS_ANSWERED
