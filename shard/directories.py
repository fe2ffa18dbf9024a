"""KERNEL: extendible hashing of peers, in blocks of the arena (Fagin et al., TODS 4(3), 1979).

A peer's block is named by the first bits of its endpoint's keyed hash; a full block splits in two, two poor
ones join. So every step is bounded by 63 peers, but for the directory, which is 4 bytes for some 45 peers.

directory                          peer block
 0  2  (the group's, see peers.py)  0  1  room for peers | depth << 8: how many bits of their hashes are equal
 2  1  kind | form << 8             1  1  peers | leechers << 8
 3  2  peers in all                 2 ..  endpoints, 3 or 9 words each, leechers first, as on the wire
 6 ..  refs of 2^(form-1) blocks          then a word for each peer: 14 bits seconds, completed, partial

Hashes are twice as dense at one end as at the other (Martin's spiral storage, 1979): so at any time blocks of
all fillings are there, while with even hashes all would split at the same time, and leave their pages full of
holes.

A directory lies at word `g`, `head` words into a block of the arena; the ref of that block is at word `owner`.
"""

import cython

from shard import layout

if cython.compiled:
    from cython.cimports.libc.string import memcpy
    from cython.cimports.shard.arena import Arena
else:
    from shard.arena import Arena

u16 = cython.typedef(cython.ushort)
u32 = cython.typedef(cython.uint)
u64 = cython.typedef(cython.ulonglong)
size = cython.typedef(cython.Py_ssize_t)

ALL64 = cython.declare(u64, 0xFFFF_FFFF_FFFF_FFFF)
SPREAD = cython.declare(u64, 0x9E37_79B9_7F4A_7C15)
LINEAR = cython.declare(u64, 0xA800_0000)  # of spiral(), which is nearly 2^x - 1
SQUARE = cython.declare(u64, 0x5800_0000)

MOST = cython.declare(size, layout.MOST)
JOIN = cython.declare(size, 40)  # two blocks with so few together become one
DEEPEST = cython.declare(size, 24)


@cython.cfunc
@cython.inline
@cython.nogil
@cython.exceptval(check=False)
def wrap(x: u64) -> u64:
    """A product or shift, modulo 2^64: what C does of itself."""
    if cython.compiled:
        return x
    else:
        return x & ALL64


def mix(word: u64) -> u64:
    """Scatter a keyed word over 64 bits."""
    word = wrap(word * SPREAD)
    word ^= word >> 32
    word = wrap(word * SPREAD)
    return word ^ (word >> 29)


def spiral(hash: u64) -> u64:
    """A hash of 32 bits, low ones twice as close together as high ones."""
    return (hash * (LINEAR + ((hash * SQUARE) >> 32))) >> 32


def more_room(room: size) -> size:
    """The room that a full block grows to: a fifth more, so that a tenth is unused on average."""
    room += 1 + room // 5
    return room if room < MOST else MOST


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


@cython.cclass
class Directories:
    """Finds, splits and joins the blocks of directories."""

    def __init__(self, arena: Arena, secret: u64):
        self.arena = arena
        self.words = arena.words
        self.secret = secret
        self.peer = memoryview(bytearray(2 * 9)).cast("H")
        self.deepest = 0

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

    # The endpoint in `peer`

    def hash_peer(self, stride: size) -> u32:
        """Its keyed hash."""
        return hash_in(self.peer, 0, stride, self.secret)

    def source(self, stride: size) -> u64:
        """Its address, /32 or /64, as a word."""
        return source_in(self.peer, 0, stride)

    # Blocks

    def block_of(self, g: size, key: u32) -> size:
        """The peer block in which a peer with this hash would lie."""
        form: u32 = self.words[g + 2] >> 8
        if form == 1:
            return cython.cast(size, self.word32(g + 6)) * 4
        return cython.cast(size, self.word32(g + 6 + 2 * cython.cast(size, key >> (33 - form)))) * 4

    def block_granules(self, stride: size, room: size) -> size:
        return (2 + room * (stride + 1) + 3) // 4

    def granules_of(self, head: size, form: size) -> size:
        """Granules of a block with a directory."""
        return (head + 6 + (2 << (form - 1)) + 3) // 4

    def spread(self, g: size, head: size, owner: size, granules: size, stride: size) -> cython.bint:
        """A full group in one block, of so many granules, becomes a directory with one peer block."""
        words: size = 2 + MOST * (stride + 1)
        ref: u32 = self.arena.take(self.granules_of(head, 1))
        block: u32
        to: size
        if ref == 0:
            return False
        block = self.arena.take(self.block_granules(stride, MOST))
        if block == 0:
            self.arena.give(ref, self.granules_of(head, 1))
            return False
        self.move_words(cython.cast(size, block) * 4, g + 3, words)
        to = cython.cast(size, ref) * 4 + head
        self.move_words(to - head, g - head, head + 3)
        self.words[to + 2] = (self.words[g + 2] & 0xFF) | (1 << 8)
        self.set32(to + 3, self.words[g + 4] & 0xFF)
        self.set32(to + 6, block)
        self.arena.give(cython.cast(u32, (g - head) // 4), granules)
        self.set32(owner, ref)
        return True

    def _point(self, g: size, key: u32, depth: size, ref: u32) -> cython.void:
        """Let the directory's entries for the first `depth` bits of `key` name block `ref`."""
        total: size = (self.words[g + 2] >> 8) - 1
        start: size = (cython.cast(size, key) >> (32 - depth)) << (total - depth) if depth > 0 else 0
        i: size
        for i in range(1 << (total - depth)):
            self.set32(g + 6 + 2 * (start + i), ref)

    def set_block(self, g: size, p: size, room: size, stride: size, key: u32) -> cython.bint:
        """Move peer block p of a directory, in which hash `key` lies, to one with other room."""
        many: size = self.words[p + 1] & 0xFF
        old: size = self.words[p] & 0xFF
        depth: size = self.words[p] >> 8
        ref: u32 = self.arena.take(self.block_granules(stride, room))
        to: size = cython.cast(size, ref) * 4
        if ref == 0:
            return False
        self.words[to] = room | (depth << 8)
        self.words[to + 1] = self.words[p + 1]
        self.move_words(to + 2, p + 2, many * stride)
        self.move_words(to + 2 + room * stride, p + 2 + old * stride, many)
        self._point(g, key, depth, ref)
        self.arena.give(cython.cast(u32, p // 4), self.block_granules(stride, old))
        return True

    def split(self, g: size, head: size, owner: size, p: size, stride: size, key: u32) -> cython.bint:
        """Two blocks for the full one in which `key` lies, or a directory of twice the size if it must be first."""
        depth: size = self.words[p] >> 8
        total: size = (self.words[g + 2] >> 8) - 1
        many: size = self.words[p + 1] & 0xFF
        role: size = 1 if self.words[p + 1] >> 8 != 0 else 0
        ones: size = 0
        k: size
        if depth == total:
            return depth < DEEPEST and self._double(g, head, owner)
        bit: u32 = cython.cast(u32, 1) << (31 - depth)
        which: u64 = 0  # bit k: the next bit of peer k's hash
        one: u64 = 1
        for k in range(many):
            if (hash_in(self.words, p + 2 + k * stride, stride, self.secret) & bit) != 0:
                which |= one << k
                ones += 1
        low: u32 = self.arena.take(self.block_granules(stride, more_room(many - ones)))
        if low == 0:
            return False
        high: u32 = self.arena.take(self.block_granules(stride, more_room(ones)))
        if high == 0:
            self.arena.give(low, self.block_granules(stride, more_room(many - ones)))
            return False
        self._deal(p, cython.cast(size, low) * 4, more_room(many - ones), ~which & ALL64, many, depth + 1, role, stride)
        self._deal(p, cython.cast(size, high) * 4, more_room(ones), which, many, depth + 1, role, stride)
        key |= bit
        self._point(g, key ^ bit, depth + 1, low)
        self._point(g, key, depth + 1, high)
        self.arena.give(cython.cast(u32, p // 4), self.block_granules(stride, MOST))
        if depth + 1 > self.deepest:
            self.deepest = depth + 1
        return True

    def _deal(
        self, p: size, to: size, room: size, which: u64, many: size, depth: size, role: size, stride: size
    ) -> cython.void:
        """Copy the peers of block p whose bit is set in `which` to a new block."""
        n: size = 0
        k: size
        old: size = self.words[p] & 0xFF
        for k in range(many):
            if (which >> k) & 1:
                self.move_words(to + 2 + n * stride, p + 2 + k * stride, stride)
                self.words[to + 2 + room * stride + n] = self.words[p + 2 + old * stride + k]
                n += 1
        self.words[to] = room | (depth << 8)
        self.words[to + 1] = n | ((n << 8) if role != 0 else 0)

    def _double(self, g: size, head: size, owner: size) -> cython.bint:
        """A directory of twice the size, each entry twice."""
        form: size = self.words[g + 2] >> 8
        ref: u32 = self.arena.take(self.granules_of(head, form + 1))
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
        self.arena.give(cython.cast(u32, (g - head) // 4), self.granules_of(head, form))
        self.set32(owner, ref)
        return True

    def halve(self, g: size, head: size, owner: size, deepest: size) -> cython.void:
        """Cut a directory down to 2^deepest entries, when no block is deeper."""
        form: size = self.words[g + 2] >> 8
        step: size = form - 1 - deepest
        ref: u32
        to: size
        k: size
        if step <= 0:
            return
        ref = self.arena.take(self.granules_of(head, deepest + 1))
        if ref == 0:
            return
        to = cython.cast(size, ref) * 4 + head
        self.move_words(to - head, g - head, head + 6)
        self.words[to + 2] = (self.words[g + 2] & 0xFF) | ((deepest + 1) << 8)
        for k in range(1 << deepest):
            self.set32(to + 6 + 2 * k, self.word32(g + 6 + 2 * (k << step)))
        self.arena.give(cython.cast(u32, (g - head) // 4), self.granules_of(head, form))
        self.set32(owner, ref)

    def join(self, g: size, p: size, stride: size, key: u32) -> size:
        """One block for p, in which `key` lies, and its sibling if they are poor, or 0."""
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
        other = self.block_of(g, key ^ (cython.cast(u32, 1) << (32 - depth)))
        more = self.words[other + 1] & 0xFF
        if self.words[other] >> 8 != depth or many + more > JOIN:
            return 0
        room = more_room(many + more)
        ref = self.arena.take(self.block_granules(stride, room))
        if ref == 0:
            return 0
        to = cython.cast(size, ref) * 4
        if (self.words[p + 1] | self.words[other + 1]) >> 8 != 0:
            role = many + more
        self.words[to] = room | ((depth - 1) << 8)
        self.words[to + 1] = (many + more) | (role << 8)
        self.move_words(to + 2, p + 2, many * stride)
        self.move_words(to + 2 + many * stride, other + 2, more * stride)
        to += 2 + room * stride
        self.move_words(to, p + 2 + (self.words[p] & 0xFF) * stride, many)
        self.move_words(to + many, other + 2 + (self.words[other] & 0xFF) * stride, more)
        self._point(g, key, depth - 1, ref)
        self.arena.give(cython.cast(u32, p // 4), self.block_granules(stride, self.words[p] & 0xFF))
        self.arena.give(cython.cast(u32, other // 4), self.block_granules(stride, self.words[other] & 0xFF))
        return cython.cast(size, ref) * 4

    def free_blocks(self, g: size, stride: size) -> cython.void:
        """Free the peer blocks of a directory."""
        entries: size = 1 << ((self.words[g + 2] >> 8) - 1)
        k: size = 0
        p: size
        while k < entries:
            p = cython.cast(size, self.word32(g + 6 + 2 * k)) * 4
            k += entries >> (self.words[p] >> 8)
            self.arena.give(cython.cast(u32, p // 4), self.block_granules(stride, self.words[p] & 0xFF))
