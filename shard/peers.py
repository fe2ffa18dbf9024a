"""KERNEL: the peers of one swarm, packed into blocks of the arena.

A swarm is a chain of groups; its first block carries the swarm's own fields in front (words of 16 bits):

head block                    group                                     peer block: see directories.py
 0 10  info-hash               0  2  next group's ref, or 0
10  2  completed               2  1  kind | form << 8
12  2  partial seeds (*)       3 ..  form 0: a peer block
14 ..  a group                       else: a directory of 2^(form-1) entries

(*) while the swarm has no peers: the second at which it lost the last one.

A group holds peers of one kind: of a family, and listed to all, to askers in local ranges only, or to nobody.
While it has at most 63 peers it lies in one block, seeders and leechers together. Then it parts into a group
of leechers and one of seeders, and each that is full again becomes a directory.

A peer's time is a second of the shard's clock modulo 2^14; whoever calls sweeps often enough that no age
comes near 2^14. Functions work on the swarm at hand (`walk`) and the peer at hand (`take_peer`).
"""

import cython

from common import frames
from shard import layout

if cython.compiled:
    from cython.cimports.shard.arena import Arena
    from cython.cimports.shard.directories import Directories, mix, more_room
else:
    from shard.arena import Arena
    from shard.directories import Directories, mix, more_room

u32 = cython.typedef(cython.uint)
u64 = cython.typedef(cython.ulonglong)
size = cython.typedef(cython.Py_ssize_t)

HEAD = cython.declare(size, layout.HEAD)
MOST = cython.declare(size, layout.MOST)
KIND = cython.declare(u32, layout.KIND)
LEECHERS = cython.declare(u32, layout.LEECHERS)
SEEDERS = cython.declare(u32, layout.SEEDERS)
ROLES = cython.declare(u32, layout.ROLES)
UNDER_WAY = cython.declare(u32, 0x80)  # in resume_kind
SECONDS = cython.declare(u32, layout.SECONDS)
PARTIAL = cython.declare(u32, layout.PARTIAL)
ROW = cython.declare(size, 1 << 15)  # counters of entries per source, two rows
HIDDEN4 = cython.declare(u32, frames.HIDDEN4)
PUBLIC6 = cython.declare(u32, frames.PUBLIC6)
HIDDEN6 = cython.declare(u32, frames.HIDDEN6)


@cython.cfunc
@cython.inline
@cython.nogil
@cython.exceptval(check=False)
def stride_of(kind: u32) -> size:
    """Words of an endpoint."""
    return 3 if (kind & KIND) < PUBLIC6 else 9


@cython.cclass
class Peers:
    """Looks up, stores and removes the peers of the swarm at hand; counts all peers of the store."""

    def __init__(self, arena: Arena, slices: u32, lifetime: u32, secret: u64):
        self.arena = arena
        self.words = arena.words
        self.directories = Directories(arena, secret)
        self.peer = self.directories.peer
        self.endpoint = memoryview(self.directories.peer).cast("B")  # the same bytes: 6 or 18 of an endpoint
        self.lifetime = lifetime
        self.secret = secret
        self.totals = memoryview(bytearray(8 * 12)).cast("Q")
        self.held = memoryview(bytearray(4 * 2 * slices)).cast("I")  # of each slice leechers, then seeders
        self.slice_id = 0  # that of the swarm at hand
        self.purging = False  # a sweep removes whoever it meets
        self.entries = memoryview(bytearray(4 * 2 * (1 << 15))).cast("I")
        self.at = memoryview(bytearray(8 * 16)).cast("q")
        self.owner = memoryview(bytearray(8 * 16)).cast("q")
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
        self.stored = 0
        self.expired = 0
        self.chained = 0
        self.resume_kind = 0
        self.resume_key = 0

    # Words of the arena

    def word32(self, at: size) -> u32:
        high: u32 = self.words[at + 1]
        return self.words[at] | (high << 16)

    def set32(self, at: size, value: u32) -> cython.void:
        self.words[at] = value & 0xFFFF
        self.words[at + 1] = value >> 16

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

    def take_peer(self, kind: u32) -> cython.void:
        """Take the peer in hand whose endpoint was put into `endpoint`; hidden ones are one an address."""
        self.kind = kind
        self.stride = stride_of(kind)
        if kind == HIDDEN4 or kind == HIDDEN6:
            self.peer[self.stride - 1] = 0
        self.hash = self.directories.hash_peer(self.stride)

    def entries_of_source(self) -> u32:
        """About how many peers the peer's source has in the store.

        A sketch of two rows of counters (Cormode and Muthukrishnan, count-min, 2005), of which the share of
        all other sources, the row's mean, is taken off (Deng and Rafiei, count-mean-min, 2007).
        """
        word: u64 = mix(self.secret ^ self.source())
        one: u32 = self.entries[cython.cast(size, word & 0x7FFF)]
        other: u32 = self.entries[ROW + cython.cast(size, (word >> 32) & 0x7FFF)]
        mean: u32 = cython.cast(u32, self.stored >> 15)
        if other < one:
            one = other
        return one - mean if one > mean else 0

    def count_peer(self, seeder: u32, more: cython.bint) -> cython.void:
        """Count the peer at hand in the store's totals and its source's entries, or no longer."""
        word: u64 = mix(self.secret ^ self.source())
        one: size = cython.cast(size, word & 0x7FFF)
        other: size = ROW + cython.cast(size, (word >> 32) & 0x7FFF)
        total: size = 2 * cython.cast(size, self.kind & KIND) + (1 if seeder != 0 else 0)
        if more:
            self.stored += 1
            self.entries[one] += 1
            self.entries[other] += 1
            self.totals[total] += 1
            self.held[2 * self.slice_id + (total & 1)] += 1
        else:
            self.stored -= 1
            self.entries[one] -= 1
            self.entries[other] -= 1
            self.totals[total] -= 1
            self.held[2 * self.slice_id + (total & 1)] -= 1

    def source(self) -> u64:
        """The address of the peer at hand, /32 or /64, as a word."""
        return self.directories.source(self.stride)

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

    def group_granules(self, i: size) -> size:
        """Granules of the first block of a group, whatever its form."""
        g: size = self.at[i]
        head: size = HEAD if i == 0 else 0
        if self.words[g + 2] >> 8 == 0:
            return self._flat_granules(head, self.words[g + 2], self.words[g + 3] & 0xFF)
        return self.directories.granules_of(head, self.words[g + 2] >> 8)

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
        self.directories.move_words(to - head, g - head, head + 5)
        self.words[to + 2] = kind
        self.words[to + 3] = room
        self.directories.move_words(to + 5, g + 5, many * stride)
        self.directories.move_words(to + 5 + room * stride, g + 5 + (self.words[g + 3] & 0xFF) * stride, many)
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
        head: size = HEAD if i == 0 else 0
        g: size = self.at[i]
        kind: u32 = self.words[g + 2] & 0xFF
        room: size = self.words[p] & 0xFF
        if self.words[g + 2] >> 8 != 0:
            if room < MOST:
                return self.directories.set_block(g, p, more_room(room), self.stride, self.hash)
            return self.directories.split(g, head, self.owner[i], p, self.stride, self.hash)
        if room < MOST:
            return self._set_flat(i, kind, more_room(room))
        if (kind & ROLES) == 0:
            return self._part(i)
        return self.directories.spread(g, head, self.owner[i], self.group_granules(i), self.stride)

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
            self.directories.move_words(to + 5, g + 5 + leechers * stride, seeders * stride)
            self.directories.move_words(to + 5 + seeders * stride, g + 5 + room * stride + leechers, seeders)
            self.set32(self.at[self.groups - 1], ref)
            self.chained += 1
        self.words[g + 2] = kind | LEECHERS
        self.words[g + 4] = leechers | (leechers << 8)
        return True

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
            joined = self.directories.join(g, p, self.stride, self.hash)
            if joined == 0 and room > 4 and 2 * many < room:
                self.directories.set_block(g, p, more_room(many), self.stride, self.hash)
            while joined != 0:
                joined = self.directories.join(g, joined, self.stride, self.hash)
        elif many == 0 and i > 0:
            self._unchain(i)
        elif room > 4 and 2 * many < room:
            self._set_flat(i, self.words[g + 2] & 0xFF, more_room(many))

    def _dissolve(self, i: size) -> cython.void:
        """Free an empty directory and its blocks; the head stays, as an empty group in one block.

        If there is no memory for that block, the head stays as it is.
        """
        g: size = self.at[i]
        kind: u32 = self.words[g + 2] & 0xFF
        ref: u32
        to: size
        if i > 0:
            self.directories.free_blocks(g, self.stride)
            self._unchain(i)
            return
        ref = self.arena.take(self._flat_granules(HEAD, kind, 1))
        if ref == 0:
            return
        self.directories.free_blocks(g, self.stride)
        to = cython.cast(size, ref) * 4
        self.directories.move_words(to, g - HEAD, HEAD + 2)
        self.words[to + HEAD + 2] = kind
        self.words[to + HEAD + 3] = 1
        self.words[to + HEAD + 4] = 0
        self.set32(self.owner[0], ref)
        self.arena.give(cython.cast(u32, (g - HEAD) // 4), self.group_granules(0))

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
        g: size
        while self.groups > 0:
            self.groups -= 1
            g = self.at[self.groups]
            if self.words[g + 2] >> 8 != 0:
                self.directories.free_blocks(g, stride_of(self.words[g + 2]))
            if self.groups > 0:
                self._unchain(self.groups)
        self.arena.give(cython.cast(u32, (self.at[0] - HEAD) // 4), self.group_granules(0))

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
            if self.purging or ((now - meta) & SECONDS) > self.lifetime:
                for n in range(self.stride):
                    self.peer[n] = self.words[p + 2 + k * self.stride + n]
                if meta & PARTIAL:
                    self.add_partial(False)
                self._cut(p, k)
                removed += 1
        if removed > 0:
            self.expired += removed
            self.hash = self.directories.hash_peer(self.stride)
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
        removed: size
        key: u64 = self.resume_key
        end: u64 = 1
        end <<= 32
        while i < self.groups:
            g = self.at[i]
            self.kind = self.words[g + 2] & KIND
            self.stride = stride_of(self.kind)
            if key == 0 and not self.purging:
                self.directories.deepest = 0
            p = self.block_of(g, cython.cast(u32, key))
            depth = self.words[p] >> 8
            if depth > self.directories.deepest:
                self.directories.deepest = depth
            done += 4 + (self.words[p + 1] & 0xFF) // 4
            key = self.key_after(g, p, cython.cast(u32, key))
            removed = self._sweep_block(g, p, now)
            done += removed
            if removed > 0:
                groups = self.groups
                self.tidy(i, p)
                self.walk(slot)
                if self.groups < groups:
                    key = 0
                    continue
                if self.words[self.at[i] + 2] >> 8 == 0:
                    key = end
            if key >= end:
                # `deepest` is of the directory that a sweep is in, which is another's if this is a purge between two.
                if not self.purging and self.words[self.at[i] + 2] >> 8 > self.directories.deepest + 1:
                    self.directories.halve(self.at[i], HEAD if i == 0 else 0, self.owner[i], self.directories.deepest)
                    self.walk(slot)
                key = 0
                i += 1
            if done >= budget:
                break
        self.stop_at(i, key)
        return done
