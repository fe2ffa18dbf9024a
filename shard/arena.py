"""KERNEL: blocks of one flat memory, in bounded steps and without fragments that stay.

The memory is cut into frames of 4 KiB. A buddy allocator hands out runs of 2^order frames (Knowlton,
"A fast storage allocator", CACM 1965), and cuts a quarter off where three are enough. Blocks of up to
4 KiB are cut from pages, a run of frames that holds blocks of one size (Bonwick, "The slab allocator",
USENIX 1994); a page whose last block is freed goes back to the buddy allocator, so a flood of small
blocks does not keep the memory from larger ones.

Blocks are named by `ref`, their first byte's number divided by 8; ref 0 is no block.
Sizes are in granules of 8 bytes. Everything takes a bounded number of steps, at most one for each order.
"""

import cython

u8 = cython.typedef(cython.uchar)
u32 = cython.typedef(cython.uint)
size = cython.typedef(cython.Py_ssize_t)

GRANULES = cython.declare(size, 512)  # of a frame
ORDERS = cython.declare(size, 24)
NOTHING = cython.declare(u32, 0xFFFF_FFFF)
FREE = cython.declare(u8, 0x80)  # state of a run's first frame: free, and its order
PAGE = cython.declare(u8, 0x40)  # state of a page's first frame: cut into blocks, and its order
ORDER = cython.declare(u8, 0x3F)
SMALL = cython.declare(size, 64)  # up to here there is a class for each size,
MEDIUM = cython.declare(size, 512)  # up to here one for each 8 granules; larger blocks are runs
PER_FRAME = 17  # bytes of the columns below for each frame


def frames_in(memory: int) -> int:
    """How many frames fit into `memory` bytes together with what is kept about them."""
    return memory // (4096 + PER_FRAME)


@cython.cclass
class Arena:
    """The allocator over `memory`, a writable buffer of whole frames, the first of which stays unused.

    columns: a writable buffer of zeros, PER_FRAME bytes a frame, of which as much is touched as of the frames.
    """

    def __init__(self, memory, columns=None):
        if len(memory) % 4096 or not 2 * 4096 <= len(memory) <= 32 << 30:
            raise ValueError("memory must be whole frames of 4096 bytes, from two of them to 32 GiB")
        many = len(memory) // 4096
        if columns is None:
            columns = memoryview(bytearray(PER_FRAME * many))
        if len(columns) < PER_FRAME * many:
            raise ValueError("too little memory for what is kept about the frames")
        self.raw = memory
        self.words = memoryview(memory).cast("H")
        self.frames = many
        self.taken = 1
        self.next = columns[: 4 * many].cast("I")
        self.prev = columns[4 * many : 8 * many].cast("I")
        self.head = columns[8 * many : 12 * many].cast("I")
        self.used = columns[12 * many : 14 * many].cast("H")
        self.first = columns[14 * many : 16 * many].cast("H")
        self.state = columns[16 * many : 17 * many]
        self.runs = memoryview(bytearray(b"\xff" * (4 * 24))).cast("I")
        self.pages = memoryview(bytearray(b"\xff" * (4 * (64 + 56 + 1)))).cast("I")
        self._free_all()

    def bytes_taken(self) -> int:
        """The bytes of frames in use, and of what is kept about them."""
        return self.taken * (4096 + PER_FRAME)

    def allocate(self, granules: size) -> int:
        """A block's ref, or 0 when there is no room for it."""
        if not 1 <= granules <= 512 << 23:
            raise ValueError("a block has 1 granule or more")
        return self.take(granules)

    def release(self, ref: u32, granules: size) -> None:
        """Give back a block of that many granules."""
        if not 0 < ref < self.frames * 512:
            raise ValueError("no such block")
        self.give(ref, granules)

    def _free_all(self) -> cython.void:
        """All frames but the first, as the largest aligned runs that fit."""
        at: size = 1
        order: size
        while at < self.frames:
            order = 0
            while order + 1 < ORDERS and at % (2 << order) == 0 and at + (2 << order) <= self.frames:
                order += 1
            self._push_run(at, order)
            at += 1 << order

    def take(self, granules: size) -> u32:
        """A block's ref, or 0."""
        kind: size
        page: u32
        block: size
        slot: u32
        base: size
        if granules > MEDIUM:
            return self._take_frames(granules) * 512
        kind = _class_of(granules)
        block = _size_of(kind)
        page = self.pages[kind]
        if page == NOTHING:
            page = self._new_page(kind)
            if page == NOTHING:
                return 0
        base = cython.cast(size, page) * GRANULES
        slot = self.first[page]
        # A free block's first word names the next free one plus 1; 0 means: the one after it, never used yet.
        if self.words[(base + slot) * 4] == 0:
            self.first[page] = (slot + block) & 0xFFFF
        else:
            self.first[page] = self.words[(base + slot) * 4] - 1
        self.used[page] += 1
        if cython.cast(size, self.used[page]) == _blocks_in(kind):
            self._unlink_page(page, kind)
        return cython.cast(u32, base + slot)

    def give(self, ref: u32, granules: size) -> cython.void:
        """Take back a block of that many granules."""
        kind: size
        page: u32
        if granules > MEDIUM:
            self._give_frames(ref // 512, granules)
            return
        kind = _class_of(granules)
        page = self.head[ref // 512]
        if cython.cast(size, self.used[page]) == _blocks_in(kind):
            self._link_page(page, kind)
        self.used[page] -= 1
        if self.used[page] == 0:
            self._unlink_page(page, kind)
            self._give_run(page, self.state[page] & ORDER)
            return
        self.words[cython.cast(size, ref) * 4] = (self.first[page] + 1) & 0xFFFF
        self.first[page] = (ref - page * 512) & 0xFFFF

    def _new_page(self, kind: size) -> u32:
        """A run cut into blocks of one class, first in its list."""
        order: size = _page_order(kind)
        page: u32 = self._take_run(order)
        block: size = _size_of(kind)
        i: size
        if page == 0:
            return NOTHING
        self.state[page] = PAGE | cython.cast(u8, order)
        self.used[page] = 0
        self.first[page] = 0
        for i in range(1 << order):
            self.head[page + i] = page
        for i in range(_blocks_in(kind)):
            self.words[(cython.cast(size, page) * GRANULES + i * block) * 4] = 0
        self._link_page(page, kind)
        return page

    def _link_page(self, page: u32, kind: size) -> cython.void:
        old: u32 = self.pages[kind]
        self.next[page] = old
        self.prev[page] = NOTHING
        if old != NOTHING:
            self.prev[old] = page
        self.pages[kind] = page

    def _unlink_page(self, page: u32, kind: size) -> cython.void:
        if self.prev[page] == NOTHING:
            self.pages[kind] = self.next[page]
        else:
            self.next[self.prev[page]] = self.next[page]
        if self.next[page] != NOTHING:
            self.prev[self.next[page]] = self.prev[page]

    def _take_frames(self, granules: size) -> u32:
        """The first of the frames for so many granules, or 0."""
        order: size = _order_of(granules)
        at: u32 = self._take_run(order)
        if at != 0 and _is_short(granules, order):
            self._give_run(at + (3 << (order - 2)), order - 2)
        return at

    def _give_frames(self, at: u32, granules: size) -> cython.void:
        order: size = _order_of(granules)
        if _is_short(granules, order):
            self._give_run(at, order - 1)
            self._give_run(at + (2 << (order - 2)), order - 2)
        else:
            self._give_run(at, order)

    def _take_run(self, order: size) -> u32:
        """The first frame of a run of 2^order, or 0."""
        found: size = order
        at: u32
        while found < ORDERS and self.runs[found] == NOTHING:
            found += 1
        if found >= ORDERS:
            return 0
        at = self.runs[found]
        self._pop_run(at, found)
        while found > order:
            found -= 1
            self._push_run(at + (1 << found), found)
        self.taken += 1 << order
        return at

    def _give_run(self, at: u32, order: size) -> cython.void:
        """Take a run back and join it with its free neighbours."""
        other: u32
        self.taken -= 1 << order
        self.state[at] = 0
        while order + 1 < ORDERS:
            other = at ^ (1 << order)
            if cython.cast(size, other) + (1 << order) > self.frames or self.state[other] != (FREE | order):
                break
            self._pop_run(other, order)
            if other < at:
                at = other
            order += 1
        self._push_run(at, order)

    def _push_run(self, at: u32, order: size) -> cython.void:
        old: u32 = self.runs[order]
        self.state[at] = FREE | cython.cast(u8, order)
        self.next[at] = old
        self.prev[at] = NOTHING
        if old != NOTHING:
            self.prev[old] = at
        self.runs[order] = at

    def _pop_run(self, at: u32, order: size) -> cython.void:
        self.state[at] = 0
        if self.prev[at] == NOTHING:
            self.runs[order] = self.next[at]
        else:
            self.next[self.prev[at]] = self.next[at]
        if self.next[at] != NOTHING:
            self.prev[self.next[at]] = self.prev[at]


@cython.cfunc
@cython.inline
@cython.nogil
@cython.exceptval(check=False)
def _class_of(granules: size) -> size:
    if granules <= SMALL:
        return granules
    return SMALL + (granules - SMALL + 7) // 8


@cython.cfunc
@cython.inline
@cython.nogil
@cython.exceptval(check=False)
def _size_of(kind: size) -> size:
    if kind <= SMALL:
        return kind
    return SMALL + (kind - SMALL) * 8


@cython.cfunc
@cython.inline
@cython.nogil
@cython.exceptval(check=False)
def _page_order(kind: size) -> size:
    """Pages of larger blocks are larger, so that less is left over at their end."""
    return 0 if kind <= 16 else 2


@cython.cfunc
@cython.inline
@cython.nogil
@cython.exceptval(check=False)
def _blocks_in(kind: size) -> size:
    return (GRANULES << _page_order(kind)) // _size_of(kind)


@cython.cfunc
@cython.inline
@cython.nogil
@cython.exceptval(check=False)
def _order_of(granules: size) -> size:
    """The order of the smallest run that holds so many granules."""
    order: size = 0
    while (GRANULES << order) < granules:
        order += 1
    return order


@cython.cfunc
@cython.inline
@cython.nogil
@cython.exceptval(check=False)
def _is_short(granules: size, order: size) -> cython.bint:
    """Whether three quarters of the run are enough."""
    return order >= 2 and granules <= (3 * GRANULES) << (order - 2)
