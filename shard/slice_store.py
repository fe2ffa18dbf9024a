"""KERNEL: the swarms of all slices: frames of records in, frames of replies out; sweep, dump and load.

Where things lie: a table for each slice (tables.py) leads to the swarms, a swarm to its peers (peers.py).

A cursor (32 bytes): 0 20 info-hash, 20 2 tag, 22 1 kind, 23 1 state (0 start, 1 under way, 2 end), 24 4 key
of a peer block inside a large swarm.

`now` is in seconds and never goes back; see common/clock.py. Bytes from strangers are checked by the doors:
nothing in a record can make a leaf fail, and what is out of range is clamped.
"""

import cython

from common import counters, frames
from shard import layout
from shard.arena import frames_in

if cython.compiled:
    from cython.cimports.libc.string import memcpy
    from cython.cimports.shard.ahead import Ahead
    from cython.cimports.shard.arena import Arena
    from cython.cimports.shard.listing import Listing
    from cython.cimports.shard.peers import Peers
    from cython.cimports.shard.tables import Tables
else:
    from shard.ahead import Ahead
    from shard.arena import Arena
    from shard.listing import Listing
    from shard.peers import Peers
    from shard.tables import Tables

u8 = cython.typedef(cython.uchar)
u32 = cython.typedef(cython.uint)
u64 = cython.typedef(cython.ulonglong)
size = cython.typedef(cython.Py_ssize_t)
View = cython.typedef(cython.const[cython.uchar][::1])

HEADER = cython.declare(size, frames.HEADER)
RECORD = cython.declare(size, frames.RECORD)
REPLY = cython.declare(size, frames.REPLY)
VERSION = cython.declare(u32, frames.VERSION)
RECORDS = cython.declare(u32, frames.RECORDS)
REPLIES = cython.declare(u32, frames.REPLIES)
AT_KIND = cython.declare(size, frames.AT_KIND)
AT_COUNT = cython.declare(size, frames.AT_COUNT)
AT_NUMBER = cython.declare(size, frames.AT_NUMBER)
AT_HASH = cython.declare(size, frames.AT_HASH)
AT_INFO_HASH = cython.declare(size, frames.AT_INFO_HASH)
AT_ADDRESS = cython.declare(size, frames.AT_ADDRESS)
AT_EVENT = cython.declare(size, frames.AT_EVENT)
AT_WANT = cython.declare(size, frames.AT_WANT)
AT_PEERS = cython.declare(size, frames.AT_PEERS)
EVENT_MASK = cython.declare(u32, frames.EVENT_MASK)
EVENT_COMPLETED = cython.declare(u32, frames.EVENT_COMPLETED)
EVENT_STOPPED = cython.declare(u32, frames.EVENT_STOPPED)
EVENT_PAUSED = cython.declare(u32, frames.EVENT_PAUSED)
EVENT_SCRAPE = cython.declare(u32, frames.EVENT_SCRAPE)
FLAG_SEEDER = cython.declare(u32, frames.FLAG_SEEDER)
FLAG_NO_REPLY = cython.declare(u32, frames.FLAG_NO_REPLY)
FLAG_BOTH_FAMILIES = cython.declare(u32, frames.FLAG_BOTH_FAMILIES)
FLAG_IPV6 = cython.declare(u32, frames.FLAG_IPV6)
FLAG_EXEMPT = cython.declare(u32, frames.FLAG_EXEMPT)
STATUS_NOT_STORED = cython.declare(u32, frames.STATUS_NOT_STORED)
STATE_NONE = cython.declare(u32, frames.STATE_NONE)
STATE_PART = cython.declare(u32, frames.STATE_PART)
STATE_LEAVING = cython.declare(u32, frames.STATE_LEAVING)
STATE_FULL = cython.declare(u32, frames.STATE_FULL)
FEW = cython.declare(size, 10)  # peers of an answer below which one that may lack some is asked for again soon
SHORT_INTERVAL = cython.declare(u32, frames.SHORT_INTERVAL)
SHORT_INTERVALS = cython.declare(u32, frames.SHORT_INTERVALS)
MAX_WANT = cython.declare(size, frames.MAX_WANT)
PUBLIC6 = cython.declare(u32, frames.PUBLIC6)
LOCAL = cython.declare(u32, frames.LOCAL4)
HIDDEN = cython.declare(u32, frames.HIDDEN4)
KINDS = cython.declare(u32, frames.HIDDEN6 + 1)
PEER_SEEDER = cython.declare(u32, frames.PEER_SEEDER)
PEER_COMPLETED = cython.declare(u32, frames.PEER_COMPLETED)
PEER_PARTIAL = cython.declare(u32, frames.PEER_PARTIAL)
SECTION = cython.declare(size, frames.SECTION)
LARGEST_SECTION = cython.declare(size, frames.SECTION + 63 * 21)
CURSOR = cython.declare(size, frames.CURSOR)

STORED = cython.declare(size, counters.STORED)
REFRESHED = cython.declare(size, counters.REFRESHED)
STOPPED = cython.declare(size, counters.STOPPED)
SWARM_LIMIT = cython.declare(size, counters.SWARM_LIMIT)
ENTRY_LIMIT = cython.declare(size, counters.ENTRY_LIMIT)
MEMORY = cython.declare(size, counters.MEMORY)
EXPIRED = cython.declare(size, counters.EXPIRED)
COMPLETIONS = cython.declare(size, counters.COMPLETIONS)
SHARD_SCRAPES = cython.declare(size, counters.SHARD_SCRAPES)

HEAD = cython.declare(size, layout.HEAD)
SECONDS = cython.declare(u32, layout.SECONDS)
COMPLETED = cython.declare(u32, layout.COMPLETED)
PARTIAL = cython.declare(u32, layout.PARTIAL)
ALL64 = cython.declare(u64, 0xFFFF_FFFF_FFFF_FFFF)
SPREAD = cython.declare(u64, 0x9E37_79B9_7F4A_7C15)
KEEP_HOURS = cython.declare(u32, 24)  # that a swarm without peers keeps its count of completed
TOUCHED = cython.declare(size, layout.TOUCHED)
LARGEST_REPLY = frames.REPLY + frames.MAX_WANT * 18
FIXED = 8 * 12 + 4 * 2 * (1 << 15) + 4 * (1 << 15)  # bytes of counters, whatever the size


def overhead(slices: int) -> int:
    """Bytes that a store of so many slices needs beside its arena."""
    return slices * 33 + FIXED


@cython.cclass
class SliceStore:
    """All slices of one shard. `memory` is the writable buffer that everything is stored in.

    interval: seconds between announces of a peer, as told, give or take a tenth. lifetime: seconds after
    which a silent peer is removed, at most 15,200. swarm_limit: new swarms per source and minute, at most 65,535;
    entry_limit: peers per source. secret: 64 random bits.
    """

    def __init__(
        self, memory, slices: u32, interval: u32, lifetime: u32, swarm_limit: u32, entry_limit: u32, secret: u64
    ):
        if slices < 1 or slices > 65536 or slices & (slices - 1):
            raise ValueError("slices must be a power of two up to 65536")
        if not 60 <= interval <= lifetime <= 15_200:
            raise ValueError("interval and lifetime must be within 60..15200 s")
        if swarm_limit > 65_535:
            raise ValueError("swarm_limit must be at most 65535")
        memory = memoryview(memory)
        frame_count: size = frames_in(len(memory))
        self.arena = Arena(memory[: frame_count * 4096], memory[frame_count * 4096 :])
        self.tables = Tables(self.arena, slices)
        self.peers = Peers(self.arena, slices, lifetime, secret)
        self.listing = Listing(self.peers, secret)
        self.words = self.arena.words
        self.raw = self.arena.raw
        self.slices = slices
        self.interval = interval
        self.swarm_limit = swarm_limit
        self.entry_limit = entry_limit
        self.secret = secret
        self.swept = 0
        self.steps = 0
        self.newcomers = memoryview(bytearray(4 * (1 << 15))).cast("I")
        self.counts = memoryview(bytearray(8 * counters.SHARD)).cast("Q")
        self.cursor = memoryview(bytearray(32))
        self.spare = memoryview(bytearray(32))
        # Frames of the arena that the processor's caches hold anyway; few, as between two batches the system
        # itself needs them for the datagrams.
        self.cached = 64
        self.ahead = Ahead(self.arena, self.tables, self.listing)
        self.line = memoryview(bytearray(32)).cast("Q")
        self.line_bytes = memoryview(self.line).cast("B")
        self.full = False
        self.states = memoryview(bytearray([frames.STATE_FULL]) * slices)
        self.changes = memoryview(bytearray(8 * slices)).cast("Q")
        self.asked = memoryview(bytearray(4 * slices)).cast("I")
        self.arrivals = 0
        self.dropping = 0  # the slice in which `spare` is a cursor
        self.dropped = 0
        self._let_go()

    # Doors

    def set_state(self, slice_id: u32, state: u32) -> None:
        """What is there of a slice: frames.STATE_*. Who asks for one that may lack peers, and gets few, is told to
        come back soon. A record that is stored in one of which there was nothing makes that part; see `arrivals`."""
        if slice_id >= self.slices or state > STATE_FULL:
            raise ValueError("no such slice, or no such state")
        self.states[slice_id] = state

    def pack_states(self, out: u8[::1]) -> None:
        """Write the states of all slices, 2 bits each."""
        s: size
        if len(out) != (self.slices + 3) // 4:
            raise ValueError("2 bits for each slice")
        for s in range(len(out)):
            out[s] = 0
        for s in range(self.slices):
            out[s >> 2] |= self.states[s] << (2 * (s & 3))

    def state_of(self, slice_id: u32) -> int:
        """What is there of a slice."""
        return self.states[slice_id]

    def changes_of(self, slice_id: u32) -> int:
        """How many records were stored in a slice, and merges changed something there; never reset."""
        return self.changes[slice_id]

    def asked_at(self, slice_id: u32) -> int:
        """When an announce was last answered from a slice that is not full: `now` of `answer`, 0 for never."""
        return self.asked[slice_id]

    def held(self, slice_id: u32) -> tuple[int, int, int]:
        """Swarms, leechers and seeders of a slice."""
        if slice_id >= self.slices:
            raise ValueError("no such slice")
        return self.tables.filled[slice_id], self.peers.held[2 * slice_id], self.peers.held[2 * slice_id + 1]

    def totals(self, which: View) -> tuple[int, int, int]:
        """Swarms, leechers and seeders of all slices whose byte in `which` is not 0."""
        s: size
        swarms: u64 = 0
        leechers: u64 = 0
        seeders: u64 = 0
        if len(which) != self.slices:
            raise ValueError("a byte for each slice")
        for s in range(self.slices):
            if which[s] != 0:
                swarms += self.tables.filled[s]
                leechers += self.peers.held[2 * s]
                seeders += self.peers.held[2 * s + 1]
        return swarms, leechers, seeders

    def drop(self, slice_id: u32, now: u32, budget: size) -> int:
        """Forget what is there of a slice, about `budget` steps of it; returns how many swarms are left."""
        expired: u64 = self.peers.expired
        if slice_id >= self.slices:
            raise ValueError("no such slice")
        if slice_id != self.dropping:
            self.dropping = slice_id
            self.spare[23] = 0
        self.peers.purging = True
        self.peers.slice_id = slice_id
        self._sweep_slice(slice_id, self.spare, now, budget)
        self.peers.purging = False
        self.dropped += self.peers.expired - expired
        self.peers.expired = expired
        return self.tables.filled[slice_id]

    def answer(self, frame: View, out: u8[::1], now: u32, entropy: u64) -> int:
        """Apply a frame of records in order and write the frame of their replies; returns its length.

        Raises ValueError if the frame does not add up or `out` could not hold the largest replies.
        """
        count: size
        i: size
        to: size = HEADER
        replies: u32 = 0
        end: size
        if len(frame) < HEADER or read_u16(frame, 0) != VERSION or read_u16(frame, AT_KIND) != RECORDS:
            raise ValueError("not a frame of records")
        count = read_u32(frame, AT_COUNT)
        if len(frame) != HEADER + count * RECORD:
            raise ValueError("a frame's length is not that of its records")
        if len(out) < HEADER + count * LARGEST_REPLY:
            raise ValueError("no room for the replies")
        self.frame = frame
        self.out = out
        self.listing.out = out
        self.listing.stir(entropy)
        for i in range(count):
            self.listing.turn = i % TOUCHED
            if i % TOUCHED == 0:
                self.listing.deal()
                if self.arena.taken > self.cached:
                    self._look_ahead(HEADER + i * RECORD, count - i if count - i < TOUCHED else TOUCHED)
            end = self._answer(HEADER + i * RECORD, to, now)
            if end > to:
                replies += 1
            to = end
        put_u16(out, 0, VERSION)
        put_u16(out, AT_KIND, REPLIES)
        put_u32(out, AT_COUNT, replies)
        for i in range(AT_NUMBER, HEADER):
            out[i] = frame[i]
        self._let_go()
        return to

    def _let_go(self) -> cython.void:
        """Hold no buffer of the caller's any longer."""
        self.frame = self.cursor
        self.out = self.cursor
        self.listing.out = self.cursor

    def sweep(self, now: u32, budget: size) -> int:
        """Remove expired peers, going on where the last call ended, for about `budget` steps; returns the steps.

        A peer is a quarter of a step, its removal a step, which is not counted in what is returned.
        `rounds()` rises when all slices have been gone through.
        """
        done: size = 0
        removed: size = cython.cast(size, self.peers.expired)
        s: size
        while done < budget:
            s = self.swept % self.slices
            self.peers.slice_id = s
            done += self._sweep_slice(s, self.cursor, now, budget - done)
            if self.cursor[23] == 0:
                self.swept += 1
                if self.swept % self.slices == 0:
                    self.steps = 0
                    break
        return done - (cython.cast(size, self.peers.expired) - removed)

    def rounds(self) -> int:
        """How often sweeps have gone through all slices."""
        return self.swept // self.slices

    def steps_of_a_round(self) -> int:
        """How many steps the present sweep through all slices takes, or a few more."""
        total: u64 = 0
        i: size
        for i in range(12):
            total += self.peers.totals[i]
        # A block of a large swarm has some 40 peers and takes 4 steps beside theirs.
        total = total * 3 // 8 + 2 * self.slices + 8 * self.tables.swarms + 4 * cython.cast(u64, self.peers.chained)
        if total > self.steps:
            self.steps = total  # never less than when the round began, however many peers it removes
        return self.steps

    def dump(self, slice_id: u32, cursor: u8[::1], out: u8[::1], now: u32) -> int:
        """Write the next chunk of a slice from `cursor` on, and move the cursor; returns the chunk's length.

        A cursor of zeros is the start; cursor[23] == 2 after the last chunk. Swarms that lose or gain peers
        meanwhile are not skipped. Raises ValueError if a buffer is too short.
        """
        if slice_id >= self.slices or len(cursor) != CURSOR or len(out) < 2 * LARGEST_SECTION:
            raise ValueError("no such slice, or a buffer too short")
        self.listing.out = out
        length: size = self._dump(slice_id, cursor, now)
        self._let_go()
        return length

    def load(self, slice_id: u32, chunk: View, now: u32) -> int:
        """Merge a chunk into a slice; returns how many peers were new, younger or turned seeder.

        Of two announces of an endpoint the younger wins, at equal age the seeder; `completed` takes the larger;
        a swarm without peers lost the last one when the store says so that knew it later.
        Raises ValueError if the chunk does not add up (nothing of it is merged), MemoryError if a peer found
        no room.
        """
        at: size = 0
        stride: size
        if slice_id >= self.slices:
            raise ValueError("no such slice")
        while at + SECTION <= len(chunk):
            if chunk[at + 22] >= KINDS and chunk[at + 23] != 0:
                raise ValueError("a section of an unknown kind")
            stride = 6 if chunk[at + 22] < PUBLIC6 else 18
            at += SECTION + chunk[at + 23] * (stride + 3)
        if at != len(chunk):
            raise ValueError("a chunk's length is not that of its sections")
        self.full = False
        self.peers.slice_id = slice_id
        merged: size = self._load(slice_id, chunk, now)
        if self.full:
            raise MemoryError("the memory ceiling keeps peers from being loaded")
        return merged

    def peers_by_kind(self) -> list[int]:
        """Peers stored: leechers, then seeders, of each kind of frames.PUBLIC4 and so on."""
        return list(self.peers.totals)

    def swarm_count(self) -> int:
        """Swarms stored, those without peers included."""
        return self.tables.swarms

    def bytes_taken(self) -> int:
        """Bytes in use of the memory ceiling."""
        return self.arena.bytes_taken() + overhead(self.slices)

    def counters(self) -> list[int]:
        """The counts named in common/counters.py."""
        self.counts[EXPIRED] = self.peers.expired
        return list(self.counts)

    # Words of the arena

    def word32(self, at: size) -> u32:
        high: u32 = self.words[at + 1]
        return self.words[at] | (high << 16)

    def set32(self, at: size, value: u32) -> cython.void:
        self.words[at] = value & 0xFFFF
        self.words[at + 1] = value >> 16

    # Answering

    def _look_ahead(self, at: size, many: size) -> cython.void:
        """Ask for what the next records will need, each step for all of them: see ahead.py."""
        start: size = at
        k: size
        kind: u32
        for k in range(many):
            self.ahead.home(k, self._slice_of(at), read_u16(self.frame, at + AT_HASH + 4))
            at += RECORD
        at = start
        for k in range(many):
            self.ahead.swarm(k, read_u16(self.frame, at + AT_HASH + 4))
            at += RECORD
        at = start
        for k in range(many):
            kind = kind_of(self.frame, at + AT_ADDRESS, self.frame[at + AT_EVENT])
            self._take_endpoint(at, kind)
            self.peers.take_peer(kind)
            self.ahead.hash[k] = self.peers.hash
            self.ahead.group(k, kind, self.frame[at + AT_EVENT] & FLAG_SEEDER)
            at += RECORD
        self._ask_blocks(many)
        at = start
        for k in range(many):
            kind = kind_of(self.frame, at + AT_ADDRESS, self.frame[at + AT_EVENT])
            self.ahead.group(k, kind, self.frame[at + AT_EVENT] & FLAG_SEEDER)  # seeders and leechers lie apart
            at += RECORD
        self._ask_blocks(many)

    def _ask_blocks(self, many: size) -> cython.void:
        k: size
        for k in range(many):
            self.ahead.heads(k)
        for k in range(many):
            self.ahead.blocks(k)

    def _take_endpoint(self, at: size, kind: u32) -> cython.void:
        copy(
            self.peers.endpoint,
            0,
            self.frame,
            at + AT_ADDRESS + (12 if kind < PUBLIC6 else 0),
            6 if kind < PUBLIC6 else 18,
        )

    def _slice_of(self, at: size) -> size:
        return read_u16(self.frame, at + AT_HASH) & (self.slices - 1)

    def _answer(self, at: size, to: size, now: u32) -> size:
        """Apply one record; returns where the next reply goes."""
        flags: u32 = self.frame[at + AT_EVENT]
        event: u32 = flags & EVENT_MASK
        s: size = self._slice_of(at)
        tag: u32 = read_u16(self.frame, at + AT_HASH + 4)
        slot: size
        kind: u32 = kind_of(self.frame, at + AT_ADDRESS, flags)
        seeder: u32 = flags & FLAG_SEEDER
        status: u32 = 0
        copy(self.tables.key, 0, self.frame, at + AT_INFO_HASH, 20)
        slot = self.tables.find(s, tag)
        if slot != 0:
            self.peers.walk(slot)
        else:
            self.peers.seeders = 0
            self.peers.leechers = 0
            self.peers.groups = 0
        self.peers.hit_block = 0
        if event == EVENT_SCRAPE:
            self.counts[SHARD_SCRAPES] += 1
            if flags & FLAG_NO_REPLY:
                return to
            return self._scraped(at, to)
        self._take_endpoint(at, kind)
        self.peers.take_peer(kind)
        self.peers.slice_id = s
        if event == EVENT_STOPPED:
            self.counts[STOPPED] += 1
            if slot != 0 and self.peers.find(seeder):
                self._remove(s, slot, now)
        elif slot != 0 and self.peers.find(seeder):
            self.counts[REFRESHED] += 1
            status = self._refresh(slot, seeder, event, now)
            self._note_change(s)
        else:
            status = self._store(s, slot, tag, at, seeder, event, now)
            if status == 0:
                self._note_change(s)
        if flags & FLAG_NO_REPLY:
            return to
        return self._listed(at, to, kind, status, now)

    def _note_change(self, s: size) -> cython.void:
        """Count what other copies of a slice may lack; what was nothing is now a part."""
        self.changes[s] += 1
        if self.states[s] == STATE_NONE:
            self.states[s] = STATE_PART
            self.arrivals += 1

    def _refresh(self, slot: size, seeder: u32, event: u32, now: u32) -> u32:
        """A known peer announced again: its time, role and bits; returns the reply's status."""
        was_seeder: cython.bint = self.peers.hit_seeder
        meta: u32 = (self.words[self.peers.hit_meta] & COMPLETED) | (now & SECONDS)
        if seeder != 0 and (meta & COMPLETED) == 0 and (event == EVENT_COMPLETED or not was_seeder):
            meta |= COMPLETED
            self._complete()
        if not self._rewrite(slot, seeder, meta, seeder == 0 and event == EVENT_PAUSED):
            self.counts[MEMORY] += 1
            return STATUS_NOT_STORED
        return 0

    def _rewrite(self, slot: size, seeder: u32, meta: u32, partial: cython.bint) -> cython.bint:
        """Give the peer that was found a new word and role; False if it keeps its role for lack of memory."""
        if self.words[self.peers.hit_meta] & PARTIAL:
            self.peers.add_partial(False)
        self.words[self.peers.hit_meta] = meta
        if (seeder != 0) != self.peers.hit_seeder and not self.peers.change_role(slot, seeder, meta):
            return False
        if partial:
            self.peers.add_partial(True)
            self.words[self.peers.hit_meta] = meta | PARTIAL
        return True

    def _complete(self) -> cython.void:
        """One more completion of the swarm at hand."""
        at: size = self.peers.at[0] - HEAD + 10
        count: u32 = self.word32(at)
        self.counts[COMPLETIONS] += 1
        if count < 0x7FFF_FFFF:
            self.set32(at, count + 1)

    def _store(self, s: size, slot: size, tag: u32, at: size, seeder: u32, event: u32, now: u32) -> u32:
        """Store a peer that is not known, if limits and memory allow; returns the reply's status."""
        exempt: u32 = self.frame[at + AT_EVENT] & FLAG_EXEMPT
        meta: u32 = now & SECONDS
        was_empty: cython.bint
        if self.peers.entries_of_source() >= self.entry_limit and exempt == 0:
            self.counts[ENTRY_LIMIT] += 1
            return STATUS_NOT_STORED
        if slot == 0:
            if not self._may_make_swarm(now) and exempt == 0:
                self.counts[SWARM_LIMIT] += 1
                return STATUS_NOT_STORED
            slot = self.tables.make_swarm(s, tag)
            if slot == 0:
                self.counts[MEMORY] += 1
                return STATUS_NOT_STORED
            self.peers.walk(slot)
        was_empty = self.peers.seeders + self.peers.leechers == 0
        if seeder == 0 and event == EVENT_PAUSED:
            meta |= PARTIAL
        if seeder != 0 and event == EVENT_COMPLETED:
            meta |= COMPLETED
        if not self.peers.insert(slot, seeder, meta):
            self.counts[MEMORY] += 1
            self._forget_empty(s, slot, now)
            return STATUS_NOT_STORED
        self.counts[STORED] += 1
        if was_empty:
            self.set32(self.peers.at[0] - 2, 0)  # it held the time of the last peer
        if meta & PARTIAL:
            self.peers.add_partial(True)
        if meta & COMPLETED:
            self._complete()
        self.peers.find(seeder)
        return 0

    def _remove(self, s: size, slot: size, now: u32) -> cython.void:
        """Remove the peer that was found, and its swarm if nothing is left to keep."""
        if self.words[self.peers.hit_meta] & PARTIAL:
            self.peers.add_partial(False)
        self.peers.remove_hit(slot)
        self._forget_empty(s, slot, now)

    def _forget_empty(self, s: size, slot: size, now: u32) -> cython.void:
        """If the swarm at hand has no peers: note since when, or free it if it counts no completions."""
        head: size = self.peers.at[0] - HEAD
        if self.peers.seeders + self.peers.leechers != 0:
            return
        if self.word32(head + 10) == 0:
            self.peers.free_swarm()
            self.tables.remove(s, slot)
        elif self.word32(head + 12) == 0:
            self.set32(head + 12, now)

    def _may_make_swarm(self, now: u32) -> cython.bint:
        """Count a new swarm against the source of the peer at hand; whether it is within this minute's limit."""
        word: u64 = self.peers.source()
        at: size
        minute: u32 = (now // 60) & 0xFFFF
        count: u32
        word = ((word ^ self.secret) * SPREAD) & ALL64
        at = cython.cast(size, word >> 49)
        count = self.newcomers[at]
        if count >> 16 != minute:
            count = minute << 16
        if (count & 0xFFFF) >= self.swarm_limit:
            return False
        self.newcomers[at] = count + 1
        return True

    # Replies

    def _scraped(self, at: size, to: size) -> size:
        """The reply to a scrape of the swarm at hand, if there is one."""
        head: size
        completed: u32 = 0
        partial: u32 = 0
        if self.peers.groups > 0:
            head = self.peers.at[0] - HEAD
            completed = self.word32(head + 10)
            if self.peers.leechers > 0:
                partial = self.word32(head + 12)
        self.line[0] = REPLY
        if self.states[self._slice_of(at)] < STATE_LEAVING:
            self.line[0] |= cython.cast(u64, 1) << 40
        self.line[1] = cython.cast(u64, partial) | (cython.cast(u64, completed) << 32)
        self.line[2] = turn32(self.peers.seeders) | (turn32(completed) << 32)
        self.line[3] = turn32(self.peers.leechers)
        self._write_line(at, to)
        return to + REPLY

    def _listed(self, at: size, to: size, kind: u32, status: u32, now: u32) -> size:
        """The reply to an announce: counts and peers of the swarm at hand."""
        flags: u32 = self.frame[at + AT_EVENT]
        want: size = self.frame[at + AT_WANT]
        family: u32 = PUBLIC6 if kind >= PUBLIC6 else 0
        local: cython.bint = is_local(self.frame, at + AT_ADDRESS, family)
        tenth: u32 = self.interval // 10
        own: size = 0
        other: size = 0
        completed: u32 = 0
        end: size = to + AT_PEERS
        if want > MAX_WANT:
            want = MAX_WANT
        if (flags & EVENT_MASK) == EVENT_STOPPED:
            want = 0
        if self.peers.groups > 0:
            completed = self.word32(self.peers.at[0] - HEAD + 10)
            if want > 0:
                own = self._list_family(family, local, flags & FLAG_SEEDER, want, end)
                end += own * (6 if family == 0 else 18)
                if flags & FLAG_BOTH_FAMILIES and own < want:
                    family = PUBLIC6 - family
                    other = self._list_family(family, local, flags & FLAG_SEEDER, want - own, end)
                    end += other * (6 if family == 0 else 18)
        self.line[0] = cython.cast(u64, end - to) | (cython.cast(u64, status) << 32) | (cython.cast(u64, own) << 48)
        if kind >= PUBLIC6:
            self.line[0] |= cython.cast(u64, 2) << 40
        self.line[1] = cython.cast(u64, other) | (cython.cast(u64, completed) << 32)
        if self._may_lack(self._slice_of(at), now) and own + other < FEW:
            tenth = SHORT_INTERVAL + cython.cast(u32, self.listing.draw(SHORT_INTERVALS))
        else:
            tenth = self.interval - tenth + cython.cast(u32, self.listing.draw(2 * tenth + 1))
            if tenth < 60:
                tenth = 60
        self.line[2] = turn32(tenth) | (turn32(self.peers.leechers) << 32)
        self.line[3] = turn32(self.peers.seeders)
        self._write_line(at, to)
        return end

    def _may_lack(self, s: size, now: u32) -> cython.bint:
        """Whether a slice may lack peers that others have, which the reply then says; notes who was asked."""
        if self.states[s] == STATE_FULL:
            return False
        self.asked[s] = now
        if self.states[s] == STATE_LEAVING:
            return False
        self.line[0] |= cython.cast(u64, 1) << 40
        return True

    def _write_line(self, at: size, to: size) -> cython.void:
        """The fixed part of a reply: 16 bytes of `line`, the ticket of the record at `at`, 12 bytes of `line`."""
        copy(self.out, to, self.line_bytes, 0, 16)
        copy(self.out, to + 16, self.frame, at, 48)
        copy(self.out, to + 64, self.line_bytes, 16, 12)

    def _list_family(self, family: u32, local: cython.bint, seeder: u32, want: size, to: size) -> size:
        """Endpoints of one family; an asker in a local range gets such peers first."""
        many: size = 0
        if local:
            many = self.listing.list_peers(family + LOCAL, seeder, want, to)
        if many < want:
            to += many * (6 if family == 0 else 18)
            many += self.listing.list_peers(family, seeder, want - many, to)
        return many

    # Cursors

    def _note(self, cursor: u8[::1], slot: size) -> cython.void:
        """Let a cursor name the swarm at a slot, and the peer block where work on it stopped."""
        at: size = cython.cast(size, self.word32(slot)) * 8
        k: size
        for k in range(20):
            cursor[k] = self.raw[at + k]
        put_u16(cursor, 20, self.words[slot + 2])
        cursor[22] = self.peers.resume_kind & 0xFF
        cursor[23] = 1
        put_u32(cursor, 24, self.peers.resume_key)

    def _resume(self, cursor: u8[::1], slot: size) -> cython.void:
        """Set the peers' resume point from a cursor if it names the swarm at a slot, otherwise to its start."""
        self.peers.resume_kind = 0
        copy(self.tables.key, 0, cursor, 0, 20)
        if cursor[23] == 1 and self.tables.compare(cython.cast(size, self.word32(slot)) * 8) == 0:
            self.peers.resume_kind = cursor[22]
            self.peers.resume_key = read_u32(cursor, 24)

    # Sweeping

    def _sweep_slice(self, s: size, cursor: u8[::1], now: u32, budget: size) -> size:
        """Sweep a slice from the cursor on; cursor[23] is 0 if its end was reached. Returns the steps."""
        slot: size = self.tables.seek(s, cursor)
        done: size = 2
        swarms: u64
        if slot != 0:
            while slot < self.tables.end_of(s):
                self._resume(cursor, slot)
                done += self.peers.sweep(slot, now, budget - done)
                swarms = self.tables.swarms
                if self.peers.resume_kind == 0:
                    self._expire_swarm(s, slot, now)
                    if self.tables.swarms == swarms:
                        slot += 3
                    slot = self.tables.next_slot(slot, self.tables.end_of(s))
                    cursor[23] = 0
                if done >= budget and slot < self.tables.end_of(s):
                    self._note(cursor, slot)
                    return done
            self.tables.trim(s)
        cursor[23] = 0
        return done

    def _expire_swarm(self, s: size, slot: size, now: u32) -> cython.void:
        """Free a swarm without peers whose count of completed is none, or old."""
        head: size = self.peers.at[0] - HEAD
        if self.peers.seeders + self.peers.leechers != 0:
            return
        if self.peers.purging or (self.word32(head + 12) != 0 and now - self.word32(head + 12) > 3600 * KEEP_HOURS):
            self.set32(head + 10, 0)
        self._forget_empty(s, slot, now)

    # Dump and load

    def _dump(self, s: size, cursor: u8[::1], now: u32) -> size:
        slot: size = self.tables.seek(s, cursor)
        to: size = 0
        if slot != 0 and cursor[23] != 2:
            while slot < self.tables.end_of(s):
                if to + LARGEST_SECTION > len(self.listing.out):
                    self.peers.resume_kind = 0
                    self._note(cursor, slot)
                    return to
                self._resume(cursor, slot)
                to = self.listing.dump(slot, self.words[slot + 2], now, to)
                if self.peers.resume_kind != 0:
                    self._note(cursor, slot)
                    return to
                cursor[23] = 0
                slot = self.tables.next_slot(slot + 3, self.tables.end_of(s))
        cursor[23] = 2
        return to

    def _load(self, s: size, chunk: View, now: u32) -> size:
        at: size = 0
        merged: size = 0
        kind: u32
        slot: size
        many: size
        stride: size
        while at < len(chunk):
            kind = chunk[at + 22]
            many = chunk[at + 23]
            stride = 6 if kind < PUBLIC6 else 18
            if many == 0 and kind > KEEP_HOURS:
                at += SECTION
                continue
            copy(self.tables.key, 0, chunk, at, 20)
            slot = self.tables.find(s, read_u16(chunk, at + 20))
            if slot == 0:
                slot = self.tables.make_swarm(s, read_u16(chunk, at + 20))
            if slot == 0:
                self.full = True
            else:
                merged += self._load_section(s, slot, chunk, at, now)
                self.peers.walk(slot)
                self._forget_empty(s, slot, now)
            at += SECTION + many * (stride + 3)
        return merged

    def _load_section(self, s: size, slot: size, chunk: View, at: size, now: u32) -> size:
        """Merge one section into its swarm; sets `full` if a peer found no room."""
        kind: u32 = chunk[at + 22]
        many: size = chunk[at + 23]
        completed: u32 = read_u32(chunk, at + 24) & 0x7FFF_FFFF
        merged: size = 0
        k: size
        age: u32
        stride: size = 6 if kind < PUBLIC6 else 18
        since: u32 = 1
        self.peers.walk(slot)
        if completed > self.word32(self.peers.at[0] - HEAD + 10):
            self.set32(self.peers.at[0] - HEAD + 10, completed)
            self.changes[s] += 1
        if many == 0 and self.peers.seeders + self.peers.leechers == 0:
            if now > 3600 * kind:
                since = now - 3600 * kind
            if since > self.word32(self.peers.at[0] - 2):
                self.set32(self.peers.at[0] - 2, since)
        at += SECTION
        for k in range(many):
            age = read_u16(chunk, at + stride)
            if age <= self.peers.lifetime and self._merge_peer(slot, chunk, at, kind, age, chunk[at + stride + 2], now):
                merged += 1
            at += stride + 3
        self.changes[s] += merged
        return merged

    def _merge_peer(self, slot: size, chunk: View, at: size, kind: u32, age: u32, bits: u32, now: u32) -> cython.bint:
        """Merge one peer of a chunk into the swarm at hand; whether that changed anything."""
        seeder: u32 = bits & PEER_SEEDER
        partial: cython.bint = seeder == 0 and (bits & PEER_PARTIAL) != 0
        meta: u32 = (now - age) & SECONDS
        known: u32
        known_age: u32
        was_empty: cython.bint = self.peers.seeders + self.peers.leechers == 0
        copy(self.peers.endpoint, 0, chunk, at, 6 if kind < PUBLIC6 else 18)
        self.peers.take_peer(kind)
        if bits & PEER_COMPLETED:
            meta |= COMPLETED
        if not self.peers.find(seeder):
            if not self.peers.insert(slot, seeder, meta | (PARTIAL if partial else 0)):
                self.full = True
                return False
            if was_empty:
                self.set32(self.peers.at[0] - 2, 0)
            if partial:
                self.peers.add_partial(True)
            return True
        known = self.words[self.peers.hit_meta]
        known_age = (now - known) & SECONDS
        if age > known_age or (age == known_age and (self.peers.hit_seeder or seeder == 0)):
            return False
        if not self._rewrite(slot, seeder, meta | (known & COMPLETED), partial):
            self.full = True
        return True


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
def read_u32(source: View, at: size) -> u32:
    return read_u16(source, at) | (read_u16(source, at + 2) << 16)


@cython.cfunc
@cython.inline
@cython.nogil
@cython.exceptval(check=False)
def put_u16(out: u8[::1], at: size, value: u32) -> cython.void:
    out[at] = value & 0xFF
    out[at + 1] = (value >> 8) & 0xFF


@cython.cfunc
@cython.inline
@cython.nogil
@cython.exceptval(check=False)
def put_u32(out: u8[::1], at: size, value: u32) -> cython.void:
    put_u16(out, at, value & 0xFFFF)
    put_u16(out, at + 2, value >> 16)


@cython.cfunc
@cython.inline
@cython.nogil
@cython.exceptval(check=False)
def turn32(x: u32) -> u64:
    """A number, to be written most significant byte first."""
    return ((x & 0xFF) << 24) | ((x & 0xFF00) << 8) | ((x >> 8) & 0xFF00) | (x >> 24)


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


@cython.cfunc
@cython.inline
@cython.nogil
@cython.exceptval(check=False)
def is_local(frame: View, at: size, family: u32) -> cython.bint:
    """Whether an address of 16 bytes is in a private, shared, link-local or loopback range.

    RFC 1918, RFC 6598, RFC 3927, RFC 1122; for IPv6 RFC 4193, RFC 4291.
    """
    a: u32
    b: u32
    i: size
    if family != 0:
        a = frame[at]
        b = frame[at + 1]
        if (a & 0xFE) == 0xFC or (a == 0xFE and (b & 0xC0) == 0x80):
            return True
        for i in range(15):
            if frame[at + i] != 0:
                return False
        return frame[at + 15] == 1
    a = frame[at + 12]
    b = frame[at + 13]
    if a == 10 or a == 127:
        return True
    if a == 192:
        return b == 168
    if a == 172:
        return (b & 0xF0) == 16
    if a == 169:
        return b == 254
    return a == 100 and (b & 0xC0) == 64


@cython.cfunc
@cython.inline
@cython.nogil
@cython.exceptval(check=False)
def kind_of(frame: View, at: size, flags: u32) -> u32:
    """The kind of the peer whose address and port lie at `at`."""
    family: u32 = PUBLIC6 if flags & FLAG_IPV6 else 0
    if frame[at + 16] == 0 and frame[at + 17] < 2:
        return family + HIDDEN
    return family + LOCAL if is_local(frame, at, family) else family
