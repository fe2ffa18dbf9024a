"""KERNEL: asks memory for what the next records will need, so that the waits for it overlap.

A record's way leads from its slice's table to the swarm, to its groups, through their directories to the
asker's block and to the one that is listed first. A step goes one link further for each of TOUCHED records
before the next step begins: each reads what the step before has asked for. Nothing is changed, and all of it
may be left out: a shard that fits into the caches leaves it out.
"""

import cython

from shard import layout

if cython.compiled:
    from cython.cimports.shard.arena import Arena
    from cython.cimports.shard.directories import spiral
    from cython.cimports.shard.listing import Listing
    from cython.cimports.shard.prefetch import prefetch
    from cython.cimports.shard.tables import Tables, homes_of
else:
    from shard.arena import Arena
    from shard.directories import spiral
    from shard.listing import Listing
    from shard.tables import Tables, homes_of

u32 = cython.typedef(cython.uint)
u64 = cython.typedef(cython.ulonglong)
size = cython.typedef(cython.Py_ssize_t)

TOUCHED = cython.declare(size, layout.TOUCHED)
HEAD = cython.declare(size, layout.HEAD)
LINE = cython.declare(size, 32)  # words of a line of the cache
KIND = cython.declare(u32, layout.KIND)
LEECHERS = cython.declare(u32, layout.LEECHERS)
SEEDERS = cython.declare(u32, layout.SEEDERS)


@cython.cclass
class Ahead:
    """Where each of the next TOUCHED records has come to on its way."""

    def __init__(self, arena: Arena, tables: Tables, listing: Listing):
        self.words = arena.words
        self.tables = tables
        self.listing = listing
        self.at = memoryview(bytearray(8 * TOUCHED)).cast("q")
        self.own = memoryview(bytearray(8 * TOUCHED)).cast("q")
        self.listed = memoryview(bytearray(8 * TOUCHED)).cast("q")
        self.directory = memoryview(bytearray(8 * TOUCHED)).cast("q")
        self.hash = memoryview(bytearray(8 * TOUCHED)).cast("Q")

    def word32(self, at: size) -> u32:
        high: u32 = self.words[at + 1]
        return self.words[at] | (high << 16)

    def ask(self, at: size) -> cython.void:
        """Ask for the line of word `at`."""
        if cython.compiled:
            prefetch(cython.address(self.words[at]))

    def ask_run(self, at: size, end: size) -> cython.void:
        """Ask for the lines of words at..end, as far as the arena goes."""
        if end > len(self.words):
            end = len(self.words)
        while at < end:
            self.ask(at)
            at += LINE

    def home(self, k: size, s: size, tag: u32) -> cython.void:
        """First step of record k: to the home of its tag in the table of slice s."""
        slot: size = cython.cast(size, self.tables.table[s]) * 4
        if slot != 0:
            slot += 3 * ((cython.cast(size, tag) * homes_of(self.tables.room[s])) >> 16)
            self.ask(slot)
        self.at[k] = slot

    def swarm(self, k: size, tag: u32) -> cython.void:
        """To the first swarm with this tag."""
        slot: size = self.at[k]
        if slot == 0:
            return
        while self.word32(slot) != 0 and self.words[slot + 2] < tag:
            slot += 3
        if self.words[slot + 2] != tag:
            self.at[k] = 0
            return
        slot = cython.cast(size, self.word32(slot)) * 4
        self.ask(slot)
        self.ask(slot + HEAD + 4)
        self.at[k] = slot + HEAD

    def group(self, k: size, kind: u32, seeder: u32) -> cython.void:
        """To a group's entries for the hash that was noted and for the draw, and to the next group."""
        g: size = self.at[k]
        word: u32
        form: u32
        self.own[k] = 0
        self.listed[k] = 0
        if g == 0:
            return
        word = self.words[g + 2]
        form = word >> 8
        if form == 0:
            self.own[k] = g + 3
        elif (word & KIND) == kind:
            if word & (LEECHERS if seeder != 0 else SEEDERS) == 0:
                self.own[k] = -self.entry(g, form, self.hash[k])
            if seeder == 0 or word & SEEDERS == 0:
                self.directory[k] = g
                self.listed[k] = self.entry(g, form, spiral(self.listing.draws[k]))
        self.at[k] = cython.cast(size, self.word32(g)) * 4
        if self.at[k] != 0:
            self.ask(self.at[k])

    def entry(self, g: size, form: u32, hash: u64) -> size:
        """Ask for a directory's entry; returns where it lies."""
        g += 6 + 2 * cython.cast(size, hash >> (33 - form))
        self.ask(g)
        return g

    def heads(self, k: size) -> cython.void:
        """To the heads of the two blocks, and to what is listed from the second one."""
        p: size
        if self.own[k] < 0:
            p = cython.cast(size, self.word32(-self.own[k])) * 4
            self.own[k] = p
            self.ask(p)
        if self.listed[k] != 0:
            p = cython.cast(size, self.word32(self.listed[k])) * 4
            self.ask_run(p, p + 5 * LINE)

    def blocks(self, k: size) -> cython.void:
        """To the block of the asker, and to the one after the first that is listed."""
        p: size = self.own[k]
        if p != 0:
            self.ask_run(p + LINE, p + 2 + 4 * (self.words[p] & 0xFF))
        if self.listed[k] != 0:
            p = self.next_block(self.directory[k], self.listed[k])
            self.ask_run(p, p + 5 * LINE)

    def next_block(self, g: size, e: size) -> size:
        """The block after the one that entry `e` of a directory names."""
        entries: size = 1 << ((self.words[g + 2] >> 8) - 1)
        step: size = entries >> (self.words[cython.cast(size, self.word32(e)) * 4] >> 8)
        e = (e - g - 6) // 2
        e = ((e & ~(step - 1)) + step) & (entries - 1)
        return cython.cast(size, self.word32(g + 6 + 2 * e)) * 4
