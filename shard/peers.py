"""KERNEL: the peers of one swarm, packed into blocks of the arena.

A swarm is a chain of groups; its first block carries the swarm's own fields in front (words of 16 bits):

head block                    group                                 peer block
 0 10  info-hash               0  2  next group's ref, or 0          0  1  room for peers | depth << 8
10  2  completed               2  1  kind | form << 8                1  1  peers | leechers << 8
12  2  partial seeds (*)       3 ..  form 0: a peer block            2 ..  endpoints, 3 or 9 words each,
14 ..  a group                       else: 3  2  peers in all                leechers first, as on the wire
                                           6 ..  refs of 2^(form-1)       then one word for each peer:
                                                 peer blocks                14 bits seconds, completed, partial

(*) while the swarm has no peers: the second at which it lost the last one.

A group holds peers of one kind: of a family, and listed to all, to askers in local ranges only, or to nobody.
While it has at most 63 peers it lies in one block, seeders and leechers together. Then it parts into a group
of leechers and one of seeders, and each grows by extendible hashing (Fagin et al., TODS 4(3), 1979): a peer's
block is named by the first bits of its endpoint's keyed hash, a full block splits in two, two poor ones join.
So every step is bounded by 63 peers, but for the directory, which is 4 bytes for some 45 peers. Hashes are
twice as dense at one end as at the other (Martin's spiral storage, 1979): so at any time blocks of all fillings
are there, while with even hashes all would split at the same time, and leave their pages full of holes.

A peer's time is a second of the shard's clock modulo 2^14; whoever calls sweeps often enough that no age
comes near 2^14. Functions work on the swarm at hand (`walk`) and the peer at hand (`take_peer`).
"""

import cython

from common import frames

if cython.compiled:
    from cython.cimports.libc.string import memcpy
    from cython.cimports.shard.arena import Arena
else:
    from shard.arena import Arena

u8 = cython.typedef(cython.uchar)
u16 = cython.typedef(cython.ushort)
u32 = cython.typedef(cython.uint)
u64 = cython.typedef(cython.ulonglong)
size = cython.typedef(cython.Py_ssize_t)
View = cython.typedef(cython.const[cython.uchar][::1])

ALL32 = cython.declare(u64, 0xFFFF_FFFF)
ALL64 = cython.declare(u64, 0xFFFF_FFFF_FFFF_FFFF)
SPREAD = cython.declare(u64, 0x9E37_79B9_7F4A_7C15)
LINEAR = cython.declare(u64, 0xA800_0000)  # of spiral(), which is nearly 2^x - 1
SQUARE = cython.declare(u64, 0x5800_0000)

HEAD = cython.declare(size, 14)  # words in front of the first group
MOST = cython.declare(size, 63)  # peers of a block
JOIN = cython.declare(size, 40)  # two blocks with so few together become one
DEEPEST = cython.declare(size, 24)
KIND = cython.declare(u32, 0x0F)
LEECHERS = cython.declare(u32, 0x10)  # of a group that has parted
SEEDERS = cython.declare(u32, 0x20)
ROLES = cython.declare(u32, 0x30)
UNDER_WAY = cython.declare(u32, 0x80)  # in resume_kind
SECONDS = cython.declare(u32, 0x3FFF)
COMPLETED = cython.declare(u32, 0x4000)
PARTIAL = cython.declare(u32, 0x8000)
ROW = cython.declare(size, 1 << 15)  # counters of entries per source, two rows
HIDDEN4 = cython.declare(u32, frames.HIDDEN4)
PUBLIC6 = cython.declare(u32, frames.PUBLIC6)
HIDDEN6 = cython.declare(u32, frames.HIDDEN6)
PEER_SEEDER = cython.declare(u32, frames.PEER_SEEDER)
PEER_COMPLETED = cython.declare(u32, frames.PEER_COMPLETED)
PEER_PARTIAL = cython.declare(u32, frames.PEER_PARTIAL)
SECTION = cython.declare(size, frames.SECTION)
EVERY_HASH = cython.declare(size, 0x1_0000_0000)
VISITS = cython.declare(size, 256)  # blocks that one answer may look into


@cython.cfunc
@cython.inline
@cython.nogil
@cython.exceptval(check=False)
def mix(word: u64) -> u64:
    """Scatter a keyed word over 64 bits."""
    word = (word * SPREAD) & ALL64
    word ^= word >> 32
    word = (word * SPREAD) & ALL64
    return word ^ (word >> 29)


@cython.cfunc
@cython.inline
@cython.nogil
@cython.exceptval(check=False)
def source_in(words: u16[::1], q: size, stride: size) -> u64:
    """The address of the endpoint at word q, /32 or /64, as a word."""
    part: u64 = words[q + 1]
    word: u64 = words[q] | (part << 16)
    if stride == 9:
        part = words[q + 2]
        word |= part << 32
        part = words[q + 3]
        word |= part << 48
    return word


@cython.cfunc
@cython.inline
@cython.nogil
@cython.exceptval(check=False)
def hash_in(words: u16[::1], q: size, stride: size, secret: u64) -> u32:
    """The keyed hash of the endpoint at word q."""
    part: u64
    word: u64 = secret ^ source_in(words, q, stride)
    if stride == 9:
        word = mix(word)
        part = words[q + 4]
        word ^= part << 16
        part = words[q + 5]
        word ^= part << 32
        part = words[q + 6]
        word ^= part << 48
        part = words[q + 7]
        word ^= part
    part = words[q + stride - 1]
    return cython.cast(u32, spiral(mix(word ^ (part << 32)) >> 32))


@cython.cfunc
@cython.inline
@cython.nogil
@cython.exceptval(check=False)
def spiral(hash: u64) -> u64:
    """A hash of 32 bits, low ones twice as close together as high ones."""
    return (hash * (LINEAR + ((hash * SQUARE) >> 32))) >> 32


@cython.cfunc
@cython.inline
@cython.nogil
@cython.exceptval(check=False)
def more_room(room: size) -> size:
    """The room that a full block grows to: a fifth more, so that a tenth is unused on average."""
    room += 1 + room // 5
    return room if room < MOST else MOST


@cython.cfunc
@cython.inline
@cython.nogil
@cython.exceptval(check=False)
def stride_of(kind: u32) -> size:
    """Words of an endpoint."""
    return 3 if (kind & KIND) < PUBLIC6 else 9


@cython.cclass
class Peers:
    """Looks up, stores, removes and lists the peers of the swarm at hand; counts all peers of the store."""

    def __init__(self, arena: Arena, lifetime: u32, secret: u64):
        self.arena = arena
        self.raw = arena.raw
        self.words = arena.words
        self.lifetime = lifetime
        self.secret = secret
        self.random = secret | 1
        self.totals = memoryview(bytearray(8 * 12)).cast("Q")
        self.entries = memoryview(bytearray(4 * 2 * (1 << 15))).cast("I")
        self.at = memoryview(bytearray(8 * 16)).cast("q")
        self.owner = memoryview(bytearray(8 * 16)).cast("q")
        self.peer = memoryview(bytearray(2 * 9)).cast("H")
        self.groups = 0
        self.seeders = 0
        self.leechers = 0
        self.hash = 0
        self.stride = 3
        self.kind = 0
        self.hit_group = 0
        self.hit_block = 0
        self.hit_index = 0
        self.hit_meta = 0
        self.hit_seeder = False
        self.expired = 0
        self.chained = 0
        self.deepest = 0
        self.list_stride = 3
        self.resume_kind = 0
        self.resume_key = 0

    # Words of the arena

    def word32(self, at: size) -> u32:
        high: u32 = self.words[at + 1]
        return self.words[at] | (high << 16)

    def set32(self, at: size, value: u32) -> cython.void:
        self.words[at] = value & 0xFFFF
        self.words[at + 1] = value >> 16

    def move_words(self, to: size, start: size, many: size) -> cython.void:
        """Copy words inside the arena; the two places do not overlap."""
        if many <= 0 or to < 0 or start < 0 or to + many > len(self.words) or start + many > len(self.words):
            return
        if cython.compiled:
            memcpy(cython.address(self.words[to]), cython.address(self.words[start]), 2 * many)
        else:
            self.words[to : to + many] = self.words[start : start + many]

    def send(self, out: u8[::1], to: size, start: size, many: size) -> cython.void:
        """Copy `many` bytes from the arena's word `start` to byte `to` of `out`."""
        start *= 2
        if many <= 0 or to < 0 or start < 0 or to + many > len(out) or start + many > len(self.raw):
            return
        if cython.compiled:
            memcpy(cython.address(out[to]), cython.address(self.raw[start]), many)
        else:
            out[to : to + many] = self.raw[start : start + many]

    def draw(self, below: size) -> size:
        """A random number from 0 to below - 1 (xorshift64, Marsaglia 2003)."""
        x: u64 = self.random
        x ^= (x << 13) & ALL64
        x ^= x >> 7
        x ^= (x << 17) & ALL64
        self.random = x
        return cython.cast(size, ((x >> 32) * cython.cast(u64, below)) >> 32)

    # The swarm and the peer at hand

    def walk(self, slot: size) -> cython.void:
        """Take the swarm in hand whose ref lies at word `slot`: note its groups, count its peers."""
        owner: size = slot
        g: size = cython.cast(size, self.word32(slot)) * 4 + HEAD
        many: size = 0
        seeders: u32 = 0
        leechers: u32 = 0
        word: u32
        ref: u32
        while many < 16:
            self.at[many] = g
            self.owner[many] = owner
            many += 1
            word = self.words[g + 2]
            if word >> 8 == 0:
                word = self.words[g + 4]
                leechers += word >> 8
                seeders += (word & 0xFF) - (word >> 8)
            elif word & SEEDERS:
                seeders += self.word32(g + 3)
            else:
                leechers += self.word32(g + 3)
            ref = self.word32(g)
            if ref == 0:
                break
            owner = g
            g = cython.cast(size, ref) * 4
        self.groups = many
        self.seeders = seeders
        self.leechers = leechers

    def take_peer(self, source: View, at: size, kind: u32) -> cython.void:
        """Take the peer in hand whose endpoint (6 or 18 bytes) lies at `at`; hidden ones are one an address."""
        self.kind = kind
        self.stride = stride_of(kind)
        i: size
        word: u32
        for i in range(self.stride):
            # As the machine would load the two bytes from the arena: low byte first.
            word = source[at + 2 * i + 1]
            self.peer[i] = source[at + 2 * i] | (word << 8)
        if kind == HIDDEN4 or kind == HIDDEN6:
            self.peer[self.stride - 1] = 0
        self.hash = hash_in(self.peer, 0, self.stride, self.secret)

    def entries_of_source(self) -> u32:
        """How many peers the peer's source has in the store, or a few more (a count-min sketch of two rows)."""
        word: u64 = mix(self.secret ^ source_in(self.peer, 0, self.stride))
        one: u32 = self.entries[cython.cast(size, word & 0x7FFF)]
        other: u32 = self.entries[ROW + cython.cast(size, (word >> 32) & 0x7FFF)]
        return one if one < other else other

    def count_peer(self, seeder: u32, more: cython.bint) -> cython.void:
        """Count the peer at hand in the store's totals and its source's entries, or no longer."""
        word: u64 = mix(self.secret ^ source_in(self.peer, 0, self.stride))
        one: size = cython.cast(size, word & 0x7FFF)
        other: size = ROW + cython.cast(size, (word >> 32) & 0x7FFF)
        total: size = 2 * cython.cast(size, self.kind & KIND) + (1 if seeder != 0 else 0)
        if more:
            self.entries[one] += 1
            self.entries[other] += 1
            self.totals[total] += 1
        else:
            self.entries[one] -= 1
            self.entries[other] -= 1
            self.totals[total] -= 1

    # Finding

    def block_of(self, g: size, key: u32) -> size:
        """The peer block of a group in which a peer with this hash would lie."""
        form: u32 = self.words[g + 2] >> 8
        if form == 0:
            return g + 3
        if form == 1:
            return cython.cast(size, self.word32(g + 6)) * 4
        return cython.cast(size, self.word32(g + 6 + 2 * cython.cast(size, key >> (33 - form)))) * 4

    def index_in(self, p: size) -> size:
        """The peer at hand's place in a block, or -1."""
        many: size = self.words[p + 1] & 0xFF
        q: size = p + 2
        last: u32 = self.peer[self.stride - 1]
        one: u32 = self.peer[0]
        two: u32 = self.peer[1]
        i: size
        k: size
        if self.stride == 3:
            for i in range(many):
                if self.words[q + 2] == last and self.words[q] == one and self.words[q + 1] == two:
                    return i
                q += 3
            return -1
        for i in range(many):
            if self.words[q + 8] == last:
                k = 0
                while k < 8 and self.words[q + k] == self.peer[k]:
                    k += 1
                if k == 8:
                    return i
            q += 9
        return -1

    def find(self, seeder: u32) -> cython.bint:
        """Look for the peer at hand, where a seeder (or leecher) would be first; sets hit_*."""
        wrong: u32 = LEECHERS if seeder != 0 else SEEDERS
        if self._find_among(wrong, 0):
            return True
        return self._find_among(wrong, wrong)

    def _find_among(self, mask: u32, roles: u32) -> cython.bint:
        """Look into the groups of the peer's kind whose kind under `mask` is `roles`."""
        i: size
        index: size
        p: size
        kind: u32
        for i in range(self.groups):
            kind = self.words[self.at[i] + 2] & 0xFF
            if (kind & KIND) == self.kind and (kind & mask) == roles:
                p = self.block_of(self.at[i], self.hash)
                index = self.index_in(p)
                if index >= 0:
                    self.hit_group = i
                    self.hit_block = p
                    self.hit_index = index
                    self.hit_meta = self.meta_at(p, index, self.stride)
                    self.hit_seeder = index >= (self.words[p + 1] >> 8)
                    return True
        self.hit_block = 0
        return False

    def meta_at(self, p: size, index: size, stride: size) -> size:
        """The word with a peer's time and bits."""
        return p + 2 + (self.words[p] & 0xFF) * stride + index

    # Storing

    def insert(self, slot: size, seeder: u32, meta: u32) -> cython.bint:
        """Store the peer at hand, which is not there, in the swarm at hand; False if memory ran out.

        The swarm is walked again; where the peer came to lie must be found again.
        """
        g: size
        p: size
        i: size
        done: cython.bint = False
        while True:
            i = self._group_for(seeder)
            if i < 0:
                if not self._add_group(seeder):
                    break
            else:
                g = self.at[i]
                p = self.block_of(g, self.hash)
                if (self.words[p + 1] & 0xFF) < (self.words[p] & 0xFF):
                    self._put(p, seeder, meta)
                    if self.words[g + 2] >> 8 != 0:
                        self.set32(g + 3, self.word32(g + 3) + 1)
                    self.count_peer(seeder, True)
                    done = True
                    break
                if not self._make_room(i, p):
                    break
            self.walk(slot)
        self.walk(slot)
        return done

    def _group_for(self, seeder: u32) -> size:
        """The group that takes the peer at hand, or -1."""
        i: size
        kind: u32
        role: u32 = SEEDERS if seeder != 0 else LEECHERS
        for i in range(self.groups):
            kind = self.words[self.at[i] + 2] & 0xFF
            if (kind & KIND) == self.kind and ((kind & ROLES) == 0 or (kind & role) != 0):
                return i
        return -1

    def _add_group(self, seeder: u32) -> cython.bint:
        """An empty group for the peer at hand: the head if it is empty, else one at the chain's end."""
        i: size
        g: size
        ref: u32
        kind: u32 = self.kind
        granules: size
        for i in range(self.groups):
            if (self.words[self.at[i] + 2] & KIND) == self.kind:  # it has parted
                kind |= SEEDERS if seeder != 0 else LEECHERS
        if self.groups == 1 and self.seeders + self.leechers == 0 and self.words[self.at[0] + 2] >> 8 == 0:
            return self._set_flat(0, kind, 1)
        granules = self._flat_granules(0, kind, 1)
        ref = self.arena.take(granules)
        if ref == 0:
            return False
        g = cython.cast(size, ref) * 4
        self.set32(g, 0)
        self.words[g + 2] = kind
        self.words[g + 3] = 1
        self.words[g + 4] = 0
        self.set32(self.at[self.groups - 1], ref)
        self.chained += 1
        return True

    def _flat_granules(self, head: size, kind: u32, room: size) -> size:
        """Granules of a group in one block; `head` is the count of words in front of it."""
        return (head + 5 + room * (stride_of(kind) + 1) + 3) // 4

    def _block_granules(self, stride: size, room: size) -> size:
        return (2 + room * (stride + 1) + 3) // 4

    def group_granules(self, i: size) -> size:
        """Granules of the first block of a group, whatever its form."""
        g: size = self.at[i]
        head: size = HEAD if i == 0 else 0
        form: u32 = self.words[g + 2] >> 8
        if form == 0:
            return self._flat_granules(head, self.words[g + 2], self.words[g + 3] & 0xFF)
        return (head + 6 + (2 << (form - 1)) + 3) // 4

    def _set_flat(self, i: size, kind: u32, room: size) -> cython.bint:
        """Move a group in one block to a block with other room; of another kind only if it is empty."""
        head: size = HEAD if i == 0 else 0
        g: size = self.at[i]
        many: size = self.words[g + 4] & 0xFF
        stride: size = stride_of(kind)
        ref: u32 = self.arena.take(self._flat_granules(head, kind, room))
        to: size = cython.cast(size, ref) * 4 + head
        if ref == 0:
            return False
        self.move_words(to - head, g - head, head + 5)
        self.words[to + 2] = kind
        self.words[to + 3] = room
        self.move_words(to + 5, g + 5, many * stride)
        self.move_words(to + 5 + room * stride, g + 5 + (self.words[g + 3] & 0xFF) * stride, many)
        self.arena.give(cython.cast(u32, (g - head) // 4), self.group_granules(i))
        self.set32(self.owner[i], ref)
        return True

    def _put(self, p: size, seeder: u32, meta: u32) -> cython.void:
        """Write the peer at hand into a block that has room; a leecher goes before the first seeder."""
        many: size = self.words[p + 1] & 0xFF
        leechers: size = self.words[p + 1] >> 8
        place: size = many
        k: size
        if seeder == 0:
            place = leechers
            if leechers < many:
                self._copy_peer(p, many, leechers)
            leechers += 1
        for k in range(self.stride):
            self.words[p + 2 + place * self.stride + k] = self.peer[k]
        self.words[self.meta_at(p, place, self.stride)] = meta
        self.words[p + 1] = (many + 1) | (leechers << 8)

    def _copy_peer(self, p: size, to: size, start: size) -> cython.void:
        """Copy a peer inside its block."""
        k: size
        for k in range(self.stride):
            self.words[p + 2 + to * self.stride + k] = self.words[p + 2 + start * self.stride + k]
        self.words[self.meta_at(p, to, self.stride)] = self.words[self.meta_at(p, start, self.stride)]

    def _make_room(self, i: size, p: size) -> cython.bint:
        """Let the full block p of a group grow, part or split."""
        g: size = self.at[i]
        kind: u32 = self.words[g + 2] & 0xFF
        room: size = self.words[p] & 0xFF
        if self.words[g + 2] >> 8 != 0:
            if room < MOST:
                return self._set_block(g, p, more_room(room))
            return self._split(i, p)
        if room < MOST:
            return self._set_flat(i, kind, more_room(room))
        if (kind & ROLES) == 0:
            return self._part(i)
        return self._spread(i)

    def _part(self, i: size) -> cython.bint:
        """A group of both roles becomes one of leechers, its seeders a new group at the chain's end."""
        g: size = self.at[i]
        kind: u32 = self.words[g + 2] & KIND
        stride: size = stride_of(kind)
        many: size = self.words[g + 4] & 0xFF
        leechers: size = self.words[g + 4] >> 8
        room: size = self.words[g + 3] & 0xFF
        seeders: size = many - leechers
        to: size
        ref: u32
        if leechers == 0:
            self.words[g + 2] = kind | SEEDERS
            return True
        if seeders > 0:
            ref = self.arena.take(self._flat_granules(0, kind, seeders))
            if ref == 0:
                return False
            to = cython.cast(size, ref) * 4
            self.set32(to, 0)
            self.words[to + 2] = kind | SEEDERS
            self.words[to + 3] = seeders
            self.words[to + 4] = seeders
            self.move_words(to + 5, g + 5 + leechers * stride, seeders * stride)
            self.move_words(to + 5 + seeders * stride, g + 5 + room * stride + leechers, seeders)
            self.set32(self.at[self.groups - 1], ref)
            self.chained += 1
        self.words[g + 2] = kind | LEECHERS
        self.words[g + 4] = leechers | (leechers << 8)
        return True

    def _spread(self, i: size) -> cython.bint:
        """A full group in one block becomes a directory with one peer block."""
        head: size = HEAD if i == 0 else 0
        g: size = self.at[i]
        many: size = self.words[g + 4] & 0xFF
        stride: size = stride_of(self.words[g + 2])
        words: size = 2 + MOST * (stride + 1)
        ref: u32 = self.arena.take((head + 6 + 2 + 3) // 4)
        block: u32
        to: size
        if ref == 0:
            return False
        block = self.arena.take(self._block_granules(stride, MOST))
        if block == 0:
            self.arena.give(ref, (head + 6 + 2 + 3) // 4)
            return False
        self.move_words(cython.cast(size, block) * 4, g + 3, words)
        to = cython.cast(size, ref) * 4 + head
        self.move_words(to - head, g - head, head + 3)
        self.words[to + 2] = (self.words[g + 2] & 0xFF) | (1 << 8)
        self.set32(to + 3, cython.cast(u32, many))
        self.set32(to + 6, block)
        self.arena.give(cython.cast(u32, (g - head) // 4), self.group_granules(i))
        self.set32(self.owner[i], ref)
        return True

    def _point(self, g: size, key: u32, depth: size, ref: u32) -> cython.void:
        """Let the directory's entries for the first `depth` bits of `key` name block `ref`."""
        total: size = (self.words[g + 2] >> 8) - 1
        start: size = (cython.cast(size, key) >> (32 - depth)) << (total - depth) if depth > 0 else 0
        i: size
        for i in range(1 << (total - depth)):
            self.set32(g + 6 + 2 * (start + i), ref)

    def _set_block(self, g: size, p: size, room: size) -> cython.bint:
        """Move peer block p of a directory, in which the peer at hand's hash lies, to one with other room."""
        many: size = self.words[p + 1] & 0xFF
        old: size = self.words[p] & 0xFF
        depth: size = self.words[p] >> 8
        ref: u32 = self.arena.take(self._block_granules(self.stride, room))
        to: size = cython.cast(size, ref) * 4
        if ref == 0:
            return False
        self.words[to] = room | (depth << 8)
        self.words[to + 1] = self.words[p + 1]
        self.move_words(to + 2, p + 2, many * self.stride)
        self.move_words(to + 2 + room * self.stride, p + 2 + old * self.stride, many)
        self._point(g, self.hash, depth, ref)
        self.arena.give(cython.cast(u32, p // 4), self._block_granules(self.stride, old))
        return True

    def _split(self, i: size, p: size) -> cython.bint:
        """Two blocks for a full one, by the next bit of the hash; the directory doubles if it must."""
        g: size = self.at[i]
        depth: size = self.words[p] >> 8
        total: size = (self.words[g + 2] >> 8) - 1
        many: size = self.words[p + 1] & 0xFF
        role: size = 1 if self.words[p + 1] >> 8 != 0 else 0
        key: u32 = self.hash
        ones: size = 0
        k: size
        if depth == total:
            return depth < DEEPEST and self._double(i)
        bit: u32 = cython.cast(u32, 1) << (31 - depth)
        which: u64 = 0  # bit k: the next bit of peer k's hash
        one: u64 = 1
        for k in range(many):
            if (hash_in(self.words, p + 2 + k * self.stride, self.stride, self.secret) & bit) != 0:
                which |= one << k
                ones += 1
        low: u32 = self.arena.take(self._block_granules(self.stride, more_room(many - ones)))
        if low == 0:
            return False
        high: u32 = self.arena.take(self._block_granules(self.stride, more_room(ones)))
        if high == 0:
            self.arena.give(low, self._block_granules(self.stride, more_room(many - ones)))
            return False
        self._deal(p, cython.cast(size, low) * 4, more_room(many - ones), ~which & ALL64, many, depth + 1, role)
        self._deal(p, cython.cast(size, high) * 4, more_room(ones), which, many, depth + 1, role)
        key |= bit
        self._point(g, key ^ bit, depth + 1, low)
        self._point(g, key, depth + 1, high)
        self.arena.give(cython.cast(u32, p // 4), self._block_granules(self.stride, MOST))
        if depth + 1 > self.deepest:
            self.deepest = depth + 1
        return True

    def _deal(self, p: size, to: size, room: size, which: u64, many: size, depth: size, role: size) -> cython.void:
        """Copy the peers of block p whose bit is set in `which` to a new block."""
        n: size = 0
        k: size
        old: size = self.words[p] & 0xFF
        for k in range(many):
            if (which >> k) & 1:
                self.move_words(to + 2 + n * self.stride, p + 2 + k * self.stride, self.stride)
                self.words[to + 2 + room * self.stride + n] = self.words[p + 2 + old * self.stride + k]
                n += 1
        self.words[to] = room | (depth << 8)
        self.words[to + 1] = n | ((n << 8) if role != 0 else 0)

    def _double(self, i: size) -> cython.bint:
        """A directory of twice the size, each entry twice."""
        head: size = HEAD if i == 0 else 0
        g: size = self.at[i]
        form: size = self.words[g + 2] >> 8
        ref: u32 = self.arena.take((head + 6 + (2 << form) + 3) // 4)
        to: size = cython.cast(size, ref) * 4 + head
        k: size
        block: u32
        if ref == 0:
            return False
        self.move_words(to - head, g - head, head + 6)
        self.words[to + 2] = (self.words[g + 2] & 0xFF) | ((form + 1) << 8)
        for k in range(1 << (form - 1)):
            block = self.word32(g + 6 + 2 * k)
            self.set32(to + 6 + 4 * k, block)
            self.set32(to + 8 + 4 * k, block)
        self.arena.give(cython.cast(u32, (g - head) // 4), self.group_granules(i))
        self.set32(self.owner[i], ref)
        return True

    def halve(self, i: size, deepest: size) -> cython.void:
        """Cut a directory down to 2^deepest entries, when no block is deeper."""
        head: size = HEAD if i == 0 else 0
        g: size = self.at[i]
        form: size = self.words[g + 2] >> 8
        step: size = form - 1 - deepest
        ref: u32
        to: size
        k: size
        if step <= 0:
            return
        ref = self.arena.take((head + 6 + (2 << deepest) + 3) // 4)
        if ref == 0:
            return
        to = cython.cast(size, ref) * 4 + head
        self.move_words(to - head, g - head, head + 6)
        self.words[to + 2] = (self.words[g + 2] & 0xFF) | ((deepest + 1) << 8)
        for k in range(1 << deepest):
            self.set32(to + 6 + 2 * k, self.word32(g + 6 + 2 * (k << step)))
        self.arena.give(cython.cast(u32, (g - head) // 4), self.group_granules(i))
        self.set32(self.owner[i], ref)

    # Removing

    def remove_hit(self, slot: size) -> cython.void:
        """Remove the peer that was found; the swarm is walked again."""
        g: size = self.at[self.hit_group]
        self._cut(self.hit_block, self.hit_index)
        if self.words[g + 2] >> 8 != 0:
            self.set32(g + 3, self.word32(g + 3) - 1)
        self.tidy(self.hit_group, self.hit_block)
        self.hit_block = 0
        self.walk(slot)

    def _cut(self, p: size, index: size) -> cython.void:
        """Take the peer at hand out of its block, closing the gap with the last of its role, then of all."""
        many: size = self.words[p + 1] & 0xFF
        leechers: size = self.words[p + 1] >> 8
        if index < leechers:
            self.count_peer(0, False)
            self._copy_peer(p, index, leechers - 1)
            index = leechers - 1
            leechers -= 1
        else:
            self.count_peer(1, False)
        self._copy_peer(p, index, many - 1)
        self.words[p + 1] = (many - 1) | (leechers << 8)

    def tidy(self, i: size, p: size) -> cython.void:
        """After removals from block p of a group: free, join or shrink what has become poor."""
        g: size = self.at[i]
        many: size = self.words[p + 1] & 0xFF
        room: size = self.words[p] & 0xFF
        joined: size
        if self.words[g + 2] >> 8 != 0:
            if self.word32(g + 3) == 0:
                self._dissolve(i)
                return
            joined = self._join(g, p)
            if joined == 0 and room > 4 and 2 * many < room:
                self._set_block(g, p, more_room(many))
            while joined != 0:
                joined = self._join(g, joined)
        elif many == 0 and i > 0:
            self._unchain(i)
        elif room > 4 and 2 * many < room:
            self._set_flat(i, self.words[g + 2] & 0xFF, more_room(many))

    def _join(self, g: size, p: size) -> size:
        """One block for p and its sibling if they are poor, or 0."""
        depth: size = self.words[p] >> 8
        many: size = self.words[p + 1] & 0xFF
        role: size = 0
        other: size
        more: size
        room: size
        ref: u32
        to: size
        if depth == 0:
            return 0
        other = self.block_of(g, self.hash ^ (cython.cast(u32, 1) << (32 - depth)))
        more = self.words[other + 1] & 0xFF
        if self.words[other] >> 8 != depth or many + more > JOIN:
            return 0
        room = more_room(many + more)
        ref = self.arena.take(self._block_granules(self.stride, room))
        if ref == 0:
            return 0
        to = cython.cast(size, ref) * 4
        if (self.words[p + 1] | self.words[other + 1]) >> 8 != 0:
            role = many + more
        self.words[to] = room | ((depth - 1) << 8)
        self.words[to + 1] = (many + more) | (role << 8)
        self.move_words(to + 2, p + 2, many * self.stride)
        self.move_words(to + 2 + many * self.stride, other + 2, more * self.stride)
        to += 2 + room * self.stride
        self.move_words(to, self.meta_at(p, 0, self.stride), many)
        self.move_words(to + many, self.meta_at(other, 0, self.stride), more)
        self._point(g, self.hash, depth - 1, ref)
        self.arena.give(cython.cast(u32, p // 4), self._block_granules(self.stride, self.words[p] & 0xFF))
        self.arena.give(cython.cast(u32, other // 4), self._block_granules(self.stride, self.words[other] & 0xFF))
        return cython.cast(size, ref) * 4

    def _dissolve(self, i: size) -> cython.void:
        """Free an empty directory and its blocks; the head stays, as an empty group in one block.

        If there is no memory for that block, the head stays as it is.
        """
        g: size = self.at[i]
        kind: u32 = self.words[g + 2] & 0xFF
        ref: u32
        to: size
        if i > 0:
            self._free_blocks(g)
            self._unchain(i)
            return
        ref = self.arena.take(self._flat_granules(HEAD, kind, 1))
        if ref == 0:
            return
        self._free_blocks(g)
        to = cython.cast(size, ref) * 4
        self.move_words(to, g - HEAD, HEAD + 2)
        self.words[to + HEAD + 2] = kind
        self.words[to + HEAD + 3] = 1
        self.words[to + HEAD + 4] = 0
        self.set32(self.owner[0], ref)
        self.arena.give(cython.cast(u32, (g - HEAD) // 4), self.group_granules(0))

    def _free_blocks(self, g: size) -> cython.void:
        """Free the peer blocks of a directory."""
        stride: size = stride_of(self.words[g + 2])
        entries: size = 1 << ((self.words[g + 2] >> 8) - 1)
        k: size = 0
        p: size
        while k < entries:
            p = cython.cast(size, self.word32(g + 6 + 2 * k)) * 4
            k += entries >> (self.words[p] >> 8)
            self.arena.give(cython.cast(u32, p // 4), self._block_granules(stride, self.words[p] & 0xFF))

    def _unchain(self, i: size) -> cython.void:
        """Free the first block of a group that is not the head, which has no peers."""
        self.set32(self.owner[i], self.word32(self.at[i]))
        self.arena.give(cython.cast(u32, self.at[i] // 4), self.group_granules(i))
        self.chained -= 1

    def change_role(self, slot: size, seeder: u32, meta: u32) -> cython.bint:
        """Move the peer that was found to the other role; False if memory ran out: it stays in the old one."""
        done: cython.bint = True
        if (self.words[self.at[self.hit_group] + 2] & ROLES) == 0:
            self._cut(self.hit_block, self.hit_index)
            self._put(self.hit_block, seeder, meta)
            self.count_peer(seeder, True)
        elif self.insert(slot, seeder, meta):
            self._find_among(ROLES, LEECHERS if seeder != 0 else SEEDERS)
            self.remove_hit(slot)
        else:
            done = False
        self.walk(slot)
        self.find(seeder)
        return done

    def free_swarm(self) -> cython.void:
        """Free the blocks of the swarm at hand, which has no peers."""
        while self.groups > 0:
            self.groups -= 1
            if self.words[self.at[self.groups] + 2] >> 8 != 0:
                self._free_blocks(self.at[self.groups])
            if self.groups > 0:
                self._unchain(self.groups)
        self.arena.give(cython.cast(u32, (self.at[0] - HEAD) // 4), self.group_granules(0))

    def source(self) -> u64:
        """The address of the peer at hand, /32 or /64, as a word."""
        return source_in(self.peer, 0, self.stride)

    # Sweeping

    def add_partial(self, more: cython.bint) -> cython.void:
        """One partial seed more in the swarm at hand, or one less."""
        at: size = self.at[0] - 2
        self.set32(at, self.word32(at) + 1 if more else self.word32(at) - 1)

    def _sweep_block(self, g: size, p: size, now: u32) -> size:
        """Remove the expired peers of a block; returns how many. The last of them is then at hand."""
        many: size = self.words[p + 1] & 0xFF
        k: size = many
        n: size
        meta: u32
        removed: size = 0
        while k > 0:
            k -= 1
            meta = self.words[self.meta_at(p, k, self.stride)]
            if ((now - meta) & SECONDS) > self.lifetime:
                for n in range(self.stride):
                    self.peer[n] = self.words[p + 2 + k * self.stride + n]
                if meta & PARTIAL:
                    self.add_partial(False)
                self._cut(p, k)
                removed += 1
        if removed > 0:
            self.expired += removed
            self.hash = hash_in(self.peer, 0, self.stride, self.secret)
            if self.words[g + 2] >> 8 != 0:
                self.set32(g + 3, self.word32(g + 3) - cython.cast(u32, removed))
        return removed

    def seek_group(self) -> size:
        """The group in which a sweep or dump goes on (resume_*), or the first."""
        i: size
        if self.resume_kind != 0:
            for i in range(self.groups):
                if ((self.words[self.at[i] + 2] & 0xFF) | UNDER_WAY) == self.resume_kind:
                    if self.words[self.at[i] + 2] >> 8 == 0:
                        self.resume_key = 0
                    return i
        self.resume_key = 0
        return 0

    def stop_at(self, i: size, key: u64) -> cython.void:
        """Let a sweep or dump go on at the block of `key` in a group; it is done after the last group."""
        self.resume_kind = 0
        self.resume_key = 0
        if i < self.groups:
            self.resume_kind = (self.words[self.at[i] + 2] & 0xFF) | UNDER_WAY
            self.resume_key = cython.cast(u32, key)

    def key_after(self, g: size, p: size, key: u32) -> u64:
        """The first hash past block p, in which `key` lies; 2^32 after the last block."""
        depth: size = self.words[p] >> 8
        one: u64 = 1
        if self.words[g + 2] >> 8 == 0:
            return one << 32
        return ((cython.cast(u64, key) >> (32 - depth)) + 1) << (32 - depth)

    def sweep(self, slot: size, now: u32, budget: size) -> size:
        """Remove the expired peers of the swarm at `slot`, from resume_* on; returns the steps taken.

        If the budget runs out first, resume_* is where to go on, otherwise resume_kind is 0.
        """
        self.walk(slot)
        done: size = 4
        i: size = self.seek_group()
        g: size
        p: size
        depth: size
        groups: size
        key: u64 = self.resume_key
        end: u64 = 1
        end <<= 32
        while i < self.groups:
            g = self.at[i]
            self.kind = self.words[g + 2] & KIND
            self.stride = stride_of(self.kind)
            if key == 0:
                self.deepest = 0
            p = self.block_of(g, cython.cast(u32, key))
            depth = self.words[p] >> 8
            if depth > self.deepest:
                self.deepest = depth
            done += 4 + (self.words[p + 1] & 0xFF) // 4
            key = self.key_after(g, p, cython.cast(u32, key))
            if self._sweep_block(g, p, now) > 0:
                groups = self.groups
                self.tidy(i, p)
                self.walk(slot)
                if self.groups < groups:
                    key = 0
                    continue
                if self.words[self.at[i] + 2] >> 8 == 0:
                    key = end
            if key >= end:
                if self.words[self.at[i] + 2] >> 8 > self.deepest + 1:
                    self.halve(i, self.deepest)
                    self.walk(slot)
                key = 0
                i += 1
            if done >= budget:
                break
        self.stop_at(i, key)
        return done

    # Listing

    def list_peers(self, kind: u32, seeder: u32, want: size, out: u8[::1], to: size) -> size:
        """Write up to `want` endpoints of a kind, the peer found left out; returns how many.

        A seeder gets leechers only; a leecher gets up to half seeders, more where leechers are few.
        """
        i: size
        g: size
        word: u32
        seeds: size = -1
        leeches: size = -1
        many: size = 0
        share: size
        self.list_stride = stride_of(kind)
        for i in range(self.groups):
            g = self.at[i]
            word = self.words[g + 2]
            if (word & KIND) != kind:
                continue
            if (word & ROLES) == 0:
                many = self.words[g + 4] >> 8 if seeder != 0 else self.words[g + 4] & 0xFF
                return self._list_block(g + 3, many, want, out, to)
            if word & SEEDERS:
                seeds = i
            else:
                leeches = i
                many = self._listed_in(i)
        if seeds >= 0 and seeder == 0:
            share = want // 2 if many >= want - want // 2 else want - many
            share = self._list_group(seeds, share, out, to)
            to += share * 2 * stride_of(kind)
            want -= share
            if leeches < 0:
                return share
            return share + self._list_group(leeches, want, out, to)
        if leeches < 0:
            return 0
        return self._list_group(leeches, want, out, to)

    def _listed_in(self, i: size) -> size:
        """How many peers of a group of one role may be listed to the peer at hand."""
        g: size = self.at[i]
        many: size = self.words[g + 4] & 0xFF
        if self.words[g + 2] >> 8 != 0:
            many = self.word32(g + 3)
        if self.hit_block != 0 and self.hit_group == i:
            many -= 1
        return many

    def _list_group(self, i: size, want: size, out: u8[::1], to: size) -> size:
        """Up to `want` peers of a group of one role: whole blocks from a random one on, then a run."""
        g: size = self.at[i]
        form: size = self.words[g + 2] >> 8
        stride: size = 2 * stride_of(self.words[g + 2])
        entries: size
        k: size
        start: size
        p: size
        step: size
        visits: size = 0
        gone: size = 0
        many: size = 0
        if form == 0:
            return self._list_block(g + 3, self.words[g + 4] & 0xFF, want, out, to)
        entries = 1 << (form - 1)
        start = cython.cast(size, spiral(cython.cast(u64, self.draw(EVERY_HASH))) >> (33 - form))
        while gone < entries and many < want and visits < VISITS:
            k = (start + gone) & (entries - 1)
            p = cython.cast(size, self.word32(g + 6 + 2 * k)) * 4
            step = entries >> (self.words[p] >> 8)
            if gone == 0:
                start = k & ~(step - 1)  # the block's first entry, so that it does not come round again
            many += self._list_block(p, self.words[p + 1] & 0xFF, want - many, out, to + many * stride)
            gone += step
            visits += 1
        return many

    def _list_block(self, p: size, many: size, want: size, out: u8[::1], to: size) -> size:
        """Up to `want` of the first `many` peers of a block: all of them, or a run from a random one on."""
        own: size = many
        start: size = 0
        first: size
        stride: size = 2 * self.list_stride
        if p == self.hit_block and self.hit_index < many:
            own = self.hit_index
            many -= 1
        if many <= want:
            self._send_run(p, 0, many, own, out, to)
            return many
        if want == 0:
            return 0
        start = self.draw(many)
        first = many - start if many - start < want else want
        self._send_run(p, start, start + first, own, out, to)
        self._send_run(p, 0, want - first, own, out, to + first * stride)
        return want

    def _send_run(self, p: size, start: size, end: size, own: size, out: u8[::1], to: size) -> cython.void:
        """Copy endpoints start..end of a block, counted without the one at `own`."""
        stride: size = self.list_stride
        p += 2
        if start >= own:
            start += 1
            end += 1
        elif end > own:
            self.send(out, to, p + start * stride, 2 * stride * (own - start))
            to += 2 * stride * (own - start)
            start = own + 1
            end += 1
        self.send(out, to, p + start * stride, 2 * stride * (end - start))

    # Dumping

    def dump(self, slot: size, tag: u32, now: u32, out: u8[::1], to: size) -> size:
        """Write the sections of the swarm at `slot` from resume_* on; returns where the next one goes.

        If `out` has no room for another section, resume_* is where to go on, otherwise resume_kind is 0.
        """
        self.walk(slot)
        i: size = self.seek_group()
        g: size
        p: size
        key: u64 = self.resume_key
        end: u64 = 1
        end <<= 32
        while i < self.groups:
            g = self.at[i]
            p = self.block_of(g, cython.cast(u32, key))
            to = self._dump_block(g, p, tag, now, out, to)
            key = self.key_after(g, p, cython.cast(u32, key))
            if key >= end:
                key = 0
                i += 1
            if to + SECTION + MOST * 21 > len(out):
                break
        self.stop_at(i, key)
        return to

    def _dump_block(self, g: size, p: size, tag: u32, now: u32, out: u8[::1], to: size) -> size:
        """One section: a block of a group. An empty one is written only to tell of a swarm without peers."""
        many: size = self.words[p + 1] & 0xFF
        leechers: size = self.words[p + 1] >> 8
        stride: size = stride_of(self.words[g + 2])
        head: size = self.at[0] - HEAD
        k: size
        meta: u32
        age: u32
        bits: u32
        if many == 0 and self.seeders + self.leechers != 0:
            return to
        self.send(out, to, head, 20)
        out[to + 20] = tag & 0xFF
        out[to + 21] = tag >> 8
        out[to + 22] = self.words[g + 2] & KIND if many > 0 else self._hours_empty(now)
        out[to + 23] = many
        self.send(out, to + 24, head + 10, 4)
        to += SECTION
        for k in range(many):
            self.send(out, to, p + 2 + k * stride, 2 * stride)
            to += 2 * stride
            meta = self.words[self.meta_at(p, k, stride)]
            age = ((now - meta) & SECONDS) + 1
            bits = 0 if k < leechers else PEER_SEEDER
            if meta & COMPLETED:
                bits |= PEER_COMPLETED
            if meta & PARTIAL:
                bits |= PEER_PARTIAL
            out[to] = age & 0xFF
            out[to + 1] = age >> 8
            out[to + 2] = bits
            to += 3
        return to

    def _hours_empty(self, now: u32) -> u32:
        """How long ago the swarm at hand, which has no peers, lost the last one: hours, rounded up."""
        hours: u32 = (now - self.word32(self.at[0] - 2)) // 3600 + 1
        return hours if hours < 255 else 255
