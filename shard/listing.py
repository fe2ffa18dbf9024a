"""KERNEL: what is told of the peers of one swarm: lists for askers, chunks for other shards.

See peers.py for how a swarm lies in the arena. Functions work on the swarm at hand there, and leave out the
peer that was found.
"""

import cython

from common import frames
from shard import layout

if cython.compiled:
    from cython.cimports.libc.string import memcpy
    from cython.cimports.shard.directories import spiral
    from cython.cimports.shard.peers import Peers
else:
    from shard.directories import spiral
    from shard.peers import Peers

u8 = cython.typedef(cython.uchar)
u32 = cython.typedef(cython.uint)
u64 = cython.typedef(cython.ulonglong)
size = cython.typedef(cython.Py_ssize_t)

ALL64 = cython.declare(u64, 0xFFFF_FFFF_FFFF_FFFF)
EVERY_HASH = cython.declare(size, 0x1_0000_0000)
TOUCHED = cython.declare(size, layout.TOUCHED)

HEAD = cython.declare(size, layout.HEAD)
KIND = cython.declare(u32, layout.KIND)
SEEDERS = cython.declare(u32, layout.SEEDERS)
ROLES = cython.declare(u32, layout.ROLES)
SECONDS = cython.declare(u32, layout.SECONDS)
COMPLETED = cython.declare(u32, layout.COMPLETED)
PARTIAL = cython.declare(u32, layout.PARTIAL)
VISITS = cython.declare(size, 256)  # blocks that one answer may look into
PUBLIC6 = cython.declare(u32, frames.PUBLIC6)
PEER_SEEDER = cython.declare(u32, frames.PEER_SEEDER)
PEER_COMPLETED = cython.declare(u32, frames.PEER_COMPLETED)
PEER_PARTIAL = cython.declare(u32, frames.PEER_PARTIAL)
SECTION = cython.declare(size, frames.SECTION)
LARGEST_SECTION = cython.declare(size, frames.SECTION + 63 * 21)


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


@cython.cfunc
@cython.inline
@cython.nogil
@cython.exceptval(check=False)
def stride_of(kind: u32) -> size:
    """Words of an endpoint."""
    return 3 if (kind & KIND) < PUBLIC6 else 9


@cython.cclass
class Listing:
    """Lists and dumps the peers of the swarm at hand."""

    def __init__(self, peers: Peers, secret: u64):
        self.peers = peers
        self.words = peers.words
        self.raw = peers.arena.raw
        self.random = secret | 1
        self.draws = memoryview(bytearray(8 * TOUCHED)).cast("Q")  # for the next records: where lists begin
        self.turn = 0  # the record at hand
        self.out = memoryview(bytearray(1))
        self.stride = 3

    def word32(self, at: size) -> u32:
        high: u32 = self.words[at + 1]
        return self.words[at] | (high << 16)

    def send(self, to: size, start: size, many: size) -> cython.void:
        """Copy `many` bytes from the arena's word `start` to byte `to` of `out`."""
        start *= 2
        if many <= 0 or to < 0 or start < 0 or to + many > len(self.out) or start + many > len(self.raw):
            return
        if cython.compiled:
            memcpy(cython.address(self.out[to]), cython.address(self.raw[start]), many)
        else:
            self.out[to : to + many] = self.raw[start : start + many]

    def stir(self, entropy: u64) -> cython.void:
        """Go on with other random numbers."""
        self.random ^= entropy
        if self.random == 0:
            self.random = 1

    def draw(self, below: size) -> size:
        """A random number from 0 to below - 1 (xorshift64, Marsaglia 2003)."""
        x: u64 = self.random
        x ^= wrap(x << 13)
        x ^= x >> 7
        x ^= wrap(x << 17)
        self.random = x
        return cython.cast(size, ((x >> 32) * cython.cast(u64, below)) >> 32)

    def deal(self) -> cython.void:
        """Draw where the lists of the next records begin."""
        k: size
        for k in range(TOUCHED):
            self.draws[k] = self.draw(EVERY_HASH)

    # Lists

    def list_peers(self, kind: u32, seeder: u32, want: size, to: size) -> size:
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
        self.stride = stride_of(kind)
        for i in range(self.peers.groups):
            g = self.peers.at[i]
            word = self.words[g + 2]
            if (word & KIND) != kind:
                continue
            if (word & ROLES) == 0:
                return self._list_small(g + 3, seeder, want, to)
            if word & SEEDERS:
                seeds = i
            else:
                leeches = i
                many = self._listed_in(i)
        if seeds >= 0 and seeder == 0:
            share = want // 2 if many >= want - want // 2 else want - many
            share = self._list_group(seeds, share, to)
            to += share * 2 * stride_of(kind)
            want -= share
            if leeches < 0:
                return share
            return share + self._list_group(leeches, want, to)
        if leeches < 0:
            return 0
        return self._list_group(leeches, want, to)

    def _list_small(self, p: size, seeder: u32, want: size, to: size) -> size:
        """List from a block with both roles."""
        many: size = self.words[p + 1] & 0xFF
        leechers: size = self.words[p + 1] >> 8
        share: size
        if seeder != 0:
            return self._list_block(p, 0, leechers, want, to)
        if many <= want:
            return self._list_block(p, 0, many, want, to)
        share = leechers
        if p == self.peers.hit_block and self.peers.hit_index < leechers:
            share -= 1
        share = want // 2 if share >= want - want // 2 else want - share
        share = self._list_block(p, leechers, many, share, to)
        return share + self._list_block(p, 0, leechers, want - share, to + share * 2 * self.stride)

    def _listed_in(self, i: size) -> size:
        """How many peers of a group of one role may be listed to the peer at hand."""
        g: size = self.peers.at[i]
        many: size = self.words[g + 4] & 0xFF
        if self.words[g + 2] >> 8 != 0:
            many = self.word32(g + 3)
        if self.peers.hit_block != 0 and self.peers.hit_group == i:
            many -= 1
        return many

    def _list_group(self, i: size, want: size, to: size) -> size:
        """Up to `want` peers of a group of one role: whole blocks from a random one on, then a run."""
        g: size = self.peers.at[i]
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
            return self._list_block(g + 3, 0, self.words[g + 4] & 0xFF, want, to)
        entries = 1 << (form - 1)
        start = cython.cast(size, spiral(self.draws[self.turn]) >> (33 - form))
        while gone < entries and many < want and visits < VISITS:
            k = (start + gone) & (entries - 1)
            p = cython.cast(size, self.word32(g + 6 + 2 * k)) * 4
            step = entries >> (self.words[p] >> 8)
            if gone == 0:
                start = k & ~(step - 1)  # the block's first entry, so that it does not come round again
            many += self._list_block(p, 0, self.words[p + 1] & 0xFF, want - many, to + many * stride)
            gone += step
            visits += 1
        return many

    def _list_block(self, p: size, first: size, end: size, want: size, to: size) -> size:
        """Up to `want` of the peers first..end of a block: all of them, or a run from a random one on."""
        own: size = end
        start: size
        run: size
        many: size = end - first
        stride: size = 2 * self.stride
        if p == self.peers.hit_block and first <= self.peers.hit_index < end:
            own = self.peers.hit_index
            many -= 1
        if many <= want:
            self._send_run(p, first, first + many, own, to)
            return many
        if want == 0:
            return 0
        start = self.draw(many)
        run = many - start if many - start < want else want
        self._send_run(p, first + start, first + start + run, own, to)
        self._send_run(p, first, first + want - run, own, to + run * stride)
        return want

    def _send_run(self, p: size, start: size, end: size, own: size, to: size) -> cython.void:
        """Copy endpoints start..end of a block, counted without the one at `own`."""
        stride: size = self.stride
        p += 2
        if start >= own:
            start += 1
            end += 1
        elif end > own:
            self.send(to, p + start * stride, 2 * stride * (own - start))
            to += 2 * stride * (own - start)
            start = own + 1
            end += 1
        self.send(to, p + start * stride, 2 * stride * (end - start))

    # Chunks

    def dump(self, slot: size, tag: u32, now: u32, to: size) -> size:
        """Write the sections of the swarm at `slot` from resume_* on; returns where the next one goes.

        If `out` has no room for another section, resume_* is where to go on, otherwise resume_kind is 0.
        """
        self.peers.walk(slot)
        i: size = self.peers.seek_group()
        g: size
        p: size
        key: u64 = self.peers.resume_key
        end: u64 = 1
        end <<= 32
        while i < self.peers.groups:
            g = self.peers.at[i]
            p = self.peers.block_of(g, cython.cast(u32, key))
            to = self._dump_block(g, p, tag, now, to)
            key = self.peers.key_after(g, p, cython.cast(u32, key))
            if key >= end:
                key = 0
                i += 1
            if to + LARGEST_SECTION > len(self.out):
                break
        self.peers.stop_at(i, key)
        return to

    def _dump_block(self, g: size, p: size, tag: u32, now: u32, to: size) -> size:
        """One section: a block of a group. An empty one is written only to tell of a swarm without peers."""
        many: size = self.words[p + 1] & 0xFF
        leechers: size = self.words[p + 1] >> 8
        stride: size = stride_of(self.words[g + 2])
        head: size = self.peers.at[0] - HEAD
        k: size
        meta: u32
        age: u32
        bits: u32
        if many == 0 and self.peers.seeders + self.peers.leechers != 0:
            return to
        self.send(to, head, 20)
        self.out[to + 20] = tag & 0xFF
        self.out[to + 21] = tag >> 8
        self.out[to + 22] = self.words[g + 2] & KIND if many > 0 else self._hours_empty(now)
        self.out[to + 23] = many
        self.send(to + 24, head + 10, 4)
        to += SECTION
        for k in range(many):
            self.send(to, p + 2 + k * stride, 2 * stride)
            to += 2 * stride
            meta = self.words[self.peers.meta_at(p, k, stride)]
            age = ((now - meta) & SECONDS) + 1
            bits = 0 if k < leechers else PEER_SEEDER
            if meta & COMPLETED:
                bits |= PEER_COMPLETED
            if meta & PARTIAL:
                bits |= PEER_PARTIAL
            self.out[to] = age & 0xFF
            self.out[to + 1] = age >> 8
            self.out[to + 2] = bits
            to += 3
        return to

    def _hours_empty(self, now: u32) -> u32:
        """How long ago the swarm at hand, which has no peers, lost the last one: hours, rounded up."""
        hours: u32 = (now - self.word32(self.peers.at[0] - 2)) // 3600 + 1
        return hours if hours < 255 else 255
