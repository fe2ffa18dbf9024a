"""KERNEL: the frames of records that a turn of the loop fills, one for each link to a shard.

All protocols put their requests here; see common/frames.py for how a record and a frame lie.
"""

import cython

from common import frames

if cython.compiled:
    from cython.cimports.gateway.siphash import sip
else:
    from gateway.siphash import sip

u32 = cython.typedef(cython.uint)
u64 = cython.typedef(cython.ulonglong)
size = cython.typedef(cython.Py_ssize_t)
View = cython.typedef(cython.const[cython.uchar][::1])
Shorts = cython.typedef(cython.const[cython.ushort][::1])
Words = cython.typedef(cython.const[cython.uint][::1])

HEADER = cython.declare(size, frames.HEADER)
RECORD = cython.declare(size, frames.RECORD)
VERSION = cython.declare(u64, frames.VERSION)
RECORDS = cython.declare(u64, frames.RECORDS)
REPLIES = cython.declare(u64, frames.REPLIES)
REPLY = cython.declare(size, frames.REPLY)
TICKET = cython.declare(size, frames.TICKET)
AT_EVENT = cython.declare(size, frames.AT_EVENT)
AT_PART = cython.declare(size, frames.AT_PART)
AT_TICKET = cython.declare(size, frames.AT_TICKET)
AT_INTERVAL = cython.declare(size, frames.AT_INTERVAL)
EVENT_MASK = cython.declare(u32, frames.EVENT_MASK)
EVENT_SCRAPE = cython.declare(u32, frames.EVENT_SCRAPE)
FLAG_NO_REPLY = cython.declare(u32, frames.FLAG_NO_REPLY)
FLAG_IPV6 = cython.declare(u32, frames.FLAG_IPV6)
SHORT_INTERVAL = cython.declare(u32, frames.SHORT_INTERVAL)
SHORT_INTERVALS = cython.declare(u64, frames.SHORT_INTERVALS)

ALL32 = cython.declare(u64, 0xFFFF_FFFF)
ALL64 = cython.declare(u64, 0xFFFF_FFFF_FFFF_FFFF)


@cython.cfunc
@cython.inline
@cython.nogil
@cython.exceptval(check=False)
def wrap(x: u64) -> u64:
    """A shift, modulo 2^64: what C does of itself."""
    if cython.compiled:
        return x
    else:
        return x & ALL64


@cython.cclass
class Records:
    """A frame for each of `links` shards, with room for `depth` records and one scrape, and for copies of others'.

    allocate: gives memory, see common/batch_io.py. slices: a power of two.
    """

    def __init__(self, allocate, links: size, slices: u32, depth: size):
        if slices < 1 or slices > 65536 or slices & (slices - 1) or not 1 <= links <= 4096:
            raise ValueError("slices must be a power of two up to 65536, links 1 to 4096")
        self.allocate = allocate
        self.slices = slices
        self.depth = depth
        self.room = 2 * depth if depth > frames.MAX_SCRAPE else depth + frames.MAX_SCRAPE
        self.frame_size = frames.HEADER + self.room * frames.RECORD
        self.uncopied = 0
        self.set_count(links)
        self.empty = allocate(frames.HEADER + (depth + frames.MAX_SCRAPE) * frames.REPLY)
        self.empty_raw = self.empty
        self.empty_words = memoryview(self.empty)[:32].cast("Q")
        self.random = 1
        self.set_key(bytes(16))

    # Doors

    def set_key(self, cluster: bytes) -> None:
        """The cluster's key, 16 bytes: it decides which slice an info-hash belongs to."""
        if len(cluster) != 16:
            raise ValueError("keys have 16 bytes")
        self.key0 = int.from_bytes(cluster[:8], "little")
        self.key1 = int.from_bytes(cluster[8:], "little")

    def set_count(self, links: size) -> None:
        """Begin anew with frames for so many shards; what was in frames is gone. `set_links` must follow."""
        if not 1 <= links <= 4096:
            raise ValueError("links must be 1 to 4096")
        self.links = links
        self.view = self.allocate(links * self.frame_size, links * self.frame_size)
        self.raw = self.view
        self.words = memoryview(self.view).cast("Q")
        self.filled = memoryview(bytearray(4 * links)).cast("I")
        self.seen = memoryview(bytearray(4 * links)).cast("I")
        self.fullest = 0
        self.table = memoryview(bytearray(2 * self.slices)).cast("H")
        self.first = memoryview(bytearray(4 * (self.slices + 1))).cast("I")
        self.copies = memoryview(bytearray(2)).cast("H")
        self.copying = False

    def set_links(self, table: Shorts, first: Words, copies: Shorts) -> None:
        """Which link answers for each slice, and who gets copies of its records: copies[first[s]:first[s + 1]]."""
        i: size
        if len(table) != self.slices or len(first) != self.slices + 1:
            raise ValueError("a link for each slice")
        for i in range(self.slices):
            if table[i] >= self.links:
                raise ValueError("no such link")
            if first[i] > first[i + 1]:
                raise ValueError("copies in no order")
        if first[self.slices] > len(copies):
            raise ValueError("fewer copies than there should be")
        for i in range(first[self.slices]):
            if copies[i] >= self.links:
                raise ValueError("no such link")
        self.copies = memoryview(bytearray(2 * (first[self.slices] + 1))).cast("H")
        for i in range(first[self.slices]):
            self.copies[i] = copies[i]
        for i in range(self.slices):
            self.table[i] = table[i]
            self.first[i] = first[i]
        self.first[self.slices] = first[self.slices]
        self.copying = first[self.slices] > 0

    def copy(self, room: View) -> int:
        """Add copies of the new records to the frames of others that should have them; returns how many.

        They ask for no reply. room: for each link, whether it takes copies now; what it does not is counted in
        `uncopied`.
        """
        link: size
        i: size
        record: size
        flags: u32
        many: u32 = 0
        if len(room) != self.links:
            raise ValueError("whether there is room, for each link")
        for link in range(self.links):
            for i in range(self.seen[link], self.filled[link]):
                record = link * self.frame_size + HEADER + i * RECORD
                flags = self.raw[record + AT_EVENT]
                if flags & FLAG_NO_REPLY == 0 and flags & EVENT_MASK != EVENT_SCRAPE:
                    many += self._copy_record(record, link, room)
        for link in range(self.links):
            self.seen[link] = self.filled[link]
        return many

    def close(self, link: size, number: u64, boot: u64, tick: u64) -> int:
        """Write the header of a link's frame and begin a new one; returns its length, 0 if it has no records."""
        at: size = link * self.frame_size // 8
        count: u64
        if not 0 <= link < self.links:
            raise ValueError("no such link")
        count = self.filled[link]
        if count == 0:
            return 0
        self.words[at] = VERSION | (RECORDS << 16) | (count << 32)
        self.words[at + 1] = number
        self.words[at + 2] = boot
        self.words[at + 3] = tick
        self.drop(link)
        return HEADER + count * RECORD

    def waiting(self, link: size) -> int:
        """How many records a link's frame has."""
        if not 0 <= link < self.links:
            raise ValueError("no such link")
        return self.filled[link]

    def has_room(self, link: size) -> bool:
        """Whether a link's frame may stay open for another scrape."""
        if not 0 <= link < self.links:
            raise ValueError("no such link")
        return self.filled[link] <= self.depth

    def drop(self, link: size) -> int:
        """Begin a new frame for a link; returns how many records the old one had."""
        i: size
        count: u32
        if not 0 <= link < self.links:
            raise ValueError("no such link")
        count = self.filled[link]
        self.filled[link] = 0
        self.seen[link] = 0
        self.fullest = 0
        for i in range(self.links):
            if self.filled[i] > self.fullest:
                self.fullest = self.filled[i]
        return count

    def answer_empty(self, link: size, entropy: u64) -> int:
        """Drop a link's records, and write into `empty` the replies of nobody: no peers, and to come back soon.

        Scrapes get none: zeros would be believed. Returns the frame's length.
        """
        record: size
        to: size = HEADER
        count: u32 = 0
        i: size
        if not 0 <= link < self.links:
            raise ValueError("no such link")
        self.random = entropy | 1
        for i in range(self.filled[link]):
            record = link * self.frame_size + HEADER + i * RECORD
            if (self.raw[record + AT_EVENT] & EVENT_MASK) != EVENT_SCRAPE:
                self._answer_empty(record, to)
                to += REPLY
                count += 1
        self.empty_words[0] = VERSION | (REPLIES << 16) | (cython.cast(u64, count) << 32)
        self.empty_words[1] = 0
        self.empty_words[2] = 0
        self.empty_words[3] = 0
        self.drop(link)
        return to

    # Leaves

    def _copy_record(self, record: size, link: size, room: View) -> u32:
        """Copy one record to all who should have it but for `link`; how many."""
        s: size = cython.cast(size, self.words[record // 8 + 6] & (self.slices - 1))
        c: size
        k: size
        to: size
        other: size
        many: u32 = 0
        for c in range(self.first[s], self.first[s + 1]):
            other = self.copies[c]
            if other == link:
                continue
            if room[other] == 0 or self.filled[other] >= self.room:
                self.uncopied += 1
                continue
            to = (other * self.frame_size + HEADER + self.filled[other] * RECORD) // 8
            for k in range(RECORD // 8):
                self.words[to + k] = self.words[record // 8 + k]
            self.raw[8 * to + AT_EVENT] |= FLAG_NO_REPLY
            self.filled[other] += 1
            if self.filled[other] > self.fullest:
                self.fullest = self.filled[other]
            many += 1
        return many

    def _answer_empty(self, record: size, to: size) -> cython.void:
        i: size
        interval: u32
        self.random ^= wrap(self.random << 13)
        self.random ^= self.random >> 7
        self.random ^= wrap(self.random << 17)
        interval = SHORT_INTERVAL + cython.cast(u32, (self.random >> 32) % SHORT_INTERVALS)
        for i in range(REPLY):
            self.empty_raw[to + i] = 0
        self.empty_raw[to] = REPLY
        self.empty_raw[to + AT_PART] = 3 if self.raw[record + AT_EVENT] & FLAG_IPV6 else 1
        for i in range(TICKET):
            self.empty_raw[to + AT_TICKET + i] = self.raw[record + i]
        self.empty_raw[to + AT_INTERVAL + 2] = interval >> 8
        self.empty_raw[to + AT_INTERVAL + 3] = interval & 0xFF

    def is_full(self) -> cython.bint:
        """Whether a frame has no room left for another scrape; then all must be closed."""
        return self.fullest > self.depth

    def begin(self, m0: u64, m1: u64, m2: u64) -> size:
        """A new record for an info-hash of 2.5 words, in the frame of its slice; returns its word.

        Its ticket is left to the codec, the rest to `end`.
        """
        hashed: u64
        link: size
        many: u32
        record: size
        m2 &= ALL32
        hashed = sip(self.key0, self.key1, m0, m1, m2 | (cython.cast(u64, 20) << 56), 0, 0, 3)
        link = self.table[cython.cast(size, hashed & (self.slices - 1))]
        many = self.filled[link]
        record = (link * self.frame_size + HEADER + many * RECORD) // 8
        self.filled[link] = many + 1
        if many + 1 > self.fullest:
            self.fullest = many + 1
        self.words[record + 6] = hashed
        self.words[record + 7] = m0
        self.words[record + 8] = m1
        self.words[record + 9] = m2
        return record

    def end(self, record: size, high: u64, low: u64, port: u64, flags: u64, want: u64) -> cython.void:
        """The peer's address (two words of ::ffff:a.b.c.d or IPv6) and port, as they lie in memory; what is asked."""
        self.words[record + 9] |= wrap(high << 32)
        self.words[record + 10] = (high >> 32) | wrap(low << 32)
        self.words[record + 11] = (low >> 32) | (port << 32) | (flags << 48) | (want << 56)
