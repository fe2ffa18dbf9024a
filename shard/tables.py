"""KERNEL: from info-hash to swarm, a table for each slice.

Each slice has a table in a block of the arena: slots of three words (the swarm's ref, 0 if free, and its tag:
bits 32..47 of the info-hash's SipHash), ordered by tag and info-hash, each swarm at or after its home,
tag * homes / 2^16, with no free slot between (ordered linear probing: Amble and Knuth, "Ordered hash tables",
1974). A few slots past the last home take what runs over. So tables grow slice by slice, and a cursor, an
info-hash in that order, skips no swarm while its table grows under it.
"""

import cython

from shard import layout

if cython.compiled:
    from cython.cimports.libc.string import memcmp, memcpy
    from cython.cimports.shard.arena import Arena
else:
    from shard.arena import Arena

u8 = cython.typedef(cython.uchar)
u32 = cython.typedef(cython.uint)
size = cython.typedef(cython.Py_ssize_t)
View = cython.typedef(cython.const[cython.uchar][::1])

HEAD = cython.declare(size, layout.HEAD)


def homes_of(granules: size) -> size:
    """Homes of a table of so many granules: its slots but for those at the end that take what runs over."""
    slots: size = granules * 4 // 3
    return slots - (slots // 4 if slots < 128 else 32 + slots // 64)


@cython.cfunc
@cython.inline
@cython.nogil
@cython.exceptval(check=False)
def next_room(granules: size) -> size:
    """The granules of the next larger table: half as many more, in steps that leave nothing of a frame unused."""
    if granules < 340:
        return granules + (granules + 1) // 2
    if granules < 1024:
        return 512 if granules < 512 else 1024
    return granules * 3 // 2 if (granules & (granules - 1)) == 0 else granules * 4 // 3


@cython.cfunc
@cython.inline
@cython.nogil
@cython.exceptval(check=False)
def read_u16(source: View, at: size) -> u32:
    high: u32 = source[at + 1]
    return source[at] | (high << 8)


@cython.cfunc
@cython.inline
@cython.nogil
@cython.exceptval(check=False)
def copy(to: u8[::1], at: size, source: View, start: size, many: size) -> cython.void:
    """Copy bytes between two buffers, if both ends are inside."""
    if many <= 0 or at < 0 or start < 0 or at + many > len(to) or start + many > len(source):
        return
    if cython.compiled:
        memcpy(cython.address(to[at]), cython.address(source[start]), many)
    else:
        to[at : at + many] = source[start : start + many]


@cython.cclass
class Tables:
    """The tables of all slices."""

    def __init__(self, arena: Arena, slices: u32):
        self.arena = arena
        self.words = arena.words
        self.raw = arena.raw
        self.table = memoryview(bytearray(4 * slices)).cast("I")
        self.room = memoryview(bytearray(4 * slices)).cast("I")
        self.filled = memoryview(bytearray(4 * slices)).cast("I")
        self.swarms = 0
        self.place = 0
        self.key = memoryview(bytearray(20))

    def word32(self, at: size) -> u32:
        high: u32 = self.words[at + 1]
        return self.words[at] | (high << 16)

    def set32(self, at: size, value: u32) -> cython.void:
        self.words[at] = value & 0xFFFF
        self.words[at + 1] = value >> 16

    def find(self, s: size, tag: u32) -> size:
        """The word of the slot of the swarm `key`, or 0; then `place` is where it would go."""
        slot: size
        ref: u32
        found: cython.int
        if self.table[s] == 0:
            self.place = 0
            return 0
        slot = cython.cast(size, self.table[s]) * 4 + 3 * ((cython.cast(size, tag) * homes_of(self.room[s])) >> 16)
        while True:
            ref = self.word32(slot)
            if ref == 0 or self.words[slot + 2] > tag:
                break
            if self.words[slot + 2] == tag:
                found = self.compare(cython.cast(size, ref) * 8)
                if found == 0:
                    return slot
                if found > 0:
                    break
            slot += 3
        self.place = slot
        return 0

    def compare(self, swarm: size) -> cython.int:
        """A stored info-hash against `key`: below, equal or above 0."""
        i: size
        if swarm < 0 or swarm + 20 > len(self.raw) or len(self.key) < 20:
            return 0
        if cython.compiled:
            return memcmp(cython.address(self.raw[swarm]), cython.address(self.key[0]), 20)
        else:
            for i in range(20):
                if self.raw[swarm + i] != self.key[i]:
                    return cython.cast(cython.int, self.raw[swarm + i]) - self.key[i]
            return 0

    def make_swarm(self, s: size, tag: u32) -> size:
        """The swarm `key`, without peers, in the table; the word of its slot, or 0 if memory ran out."""
        ref: u32
        head: size
        granules: size = (HEAD + 5 + 1 * 4 + 3) // 4  # the head block of one IPv4 peer
        if cython.cast(size, self.filled[s]) * 5 >= homes_of(self.room[s]) * 4 and not self._enlarge(s):
            return 0
        self.find(s, tag)
        while not self._shift(s):
            if not self._enlarge(s):
                return 0
            self.find(s, tag)
        ref = self.arena.take(granules)
        if ref == 0:
            self._unshift(s, self.place)
            return 0
        head = cython.cast(size, ref) * 4
        copy(self.raw, 2 * head, self.key, 0, 20)
        self.set32(head + 10, 0)
        self.set32(head + 12, 0)
        self.set32(head + HEAD, 0)
        self.words[head + HEAD + 2] = 0
        self.words[head + HEAD + 3] = 1
        self.words[head + HEAD + 4] = 0
        self.set32(self.place, ref)
        self.words[self.place + 2] = tag
        self.filled[s] += 1
        self.swarms += 1
        return self.place

    def remove(self, s: size, slot: size) -> cython.void:
        """Take the swarm at a slot out of its table."""
        self.filled[s] -= 1
        self.swarms -= 1
        self._unshift(s, slot)

    def end_of(self, s: size) -> size:
        """The word past a table's last slot; that slot always stays free, as the end of every search."""
        return cython.cast(size, self.table[s]) * 4 + 3 * (cython.cast(size, self.room[s]) * 4 // 3)

    def _shift(self, s: size) -> cython.bint:
        """Free the slot at `place` by moving those from it to the next free one; False if the table is full."""
        slot: size = self.place
        last: size = self.end_of(s) - 3
        while slot < last and self.word32(slot) != 0:
            slot += 3
        if slot >= last:
            return False
        while slot > self.place:
            slot -= 3
            self._copy_slot(slot + 3, slot)
        return True

    def _unshift(self, s: size, slot: size) -> cython.void:
        """Close the gap at `slot` with those after it that are not at their home."""
        base: size = cython.cast(size, self.table[s]) * 4
        homes: size = homes_of(self.room[s])
        while True:
            if self.word32(slot + 3) == 0:
                break
            if slot + 3 == base + 3 * ((cython.cast(size, self.words[slot + 5]) * homes) >> 16):
                break
            self._copy_slot(slot, slot + 3)
            slot += 3
        self.set32(slot, 0)

    def _copy_slot(self, to: size, start: size) -> cython.void:
        self.words[to] = self.words[start]
        self.words[to + 1] = self.words[start + 1]
        self.words[to + 2] = self.words[start + 2]

    def trim(self, s: size) -> cython.void:
        """Give back what is too large of a table."""
        granules: size = 6
        if cython.cast(size, self.filled[s]) * 6 >= cython.cast(size, self.room[s]) * 4 // 3:
            return
        if self.filled[s] == 0:
            self._replace(s, 0, 0)
            return
        while granules * 4 // 3 < 2 * cython.cast(size, self.filled[s]):
            granules = next_room(granules)
        if granules < cython.cast(size, self.room[s]):
            self._resize(s, granules)

    def _enlarge(self, s: size) -> cython.bint:
        """A larger table for a slice; False if memory ran out."""
        return self._resize(s, next_room(self.room[s]) if self.room[s] != 0 else 6)

    def _resize(self, s: size, granules: size) -> cython.bint:
        """A table of so many granules, or more if they do not do; False if memory ran out."""
        ref: u32
        while True:
            ref = self.arena.take(granules)
            if ref == 0:
                return False
            if self._fill(s, cython.cast(size, ref) * 4, granules):
                break
            self.arena.give(ref, granules)
            granules = next_room(granules)
        self._replace(s, ref, cython.cast(u32, granules))
        return True

    def _replace(self, s: size, ref: u32, granules: u32) -> cython.void:
        if self.table[s] != 0:
            self.arena.give(self.table[s], self.room[s])
        self.table[s] = ref
        self.room[s] = granules

    def _fill(self, s: size, base: size, granules: size) -> cython.bint:
        """Copy a slice's swarms in order into a new table at word `base`; False if they run over."""
        slots: size = granules * 4 // 3
        homes: size = homes_of(granules)
        slot: size = cython.cast(size, self.table[s]) * 4
        end: size = self.end_of(s)
        to: size = base
        home: size
        k: size
        for k in range(slots):
            self.set32(base + 3 * k, 0)
        while slot < end:
            if self.word32(slot) != 0:
                home = base + 3 * ((cython.cast(size, self.words[slot + 2]) * homes) >> 16)
                if to < home:
                    to = home
                if to >= base + 3 * (slots - 1):
                    return False
                self._copy_slot(to, slot)
                to += 3
            slot += 3
        return True

    def seek(self, s: size, cursor: u8[::1]) -> size:
        """The word of the first slot at or after a cursor, or of the table's end."""
        slot: size
        end: size = self.end_of(s)
        if self.table[s] == 0:
            return 0
        slot = cython.cast(size, self.table[s]) * 4
        if cursor[23] != 0:
            copy(self.key, 0, cursor, 0, 20)
            slot = self.find(s, read_u16(cursor, 20))
            if slot == 0:
                slot = self.place
        return self.next_slot(slot, end)

    def next_slot(self, slot: size, end: size) -> size:
        """The first slot in use from `slot` on, or the end."""
        while slot < end and self.word32(slot) == 0:
            slot += 3
        return slot
