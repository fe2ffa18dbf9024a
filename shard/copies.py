"""The slices of a shard: what it has of each, how it fills them from other shards, and when it forgets one.

Sans-I/O: it is given what others say and the time in ms, and says what is to be sent. See design: "Copy, confirm,
drop". Copies of a slice merge, so one too many is harmless; nothing but `_may_drop` ever deletes one.

        nothing  ──record, or a configuration wants it──▶  part  ──filled──▶  full, if it should be here
           ▲                                                ▲  │
           └──dropped── leaving ◀──filled, if it should not─┼──┘
                           ▲ └──wanted again, stood still───┘
                           └── full, and a configuration wants it elsewhere

Who fills (the puller)                                  Who is asked (the giver)
1. waits until gateways copy announces to it            1. writes a chunk from the cursor on, names the dump
2. asks each shard that shows the slice, a chunk at     2. keeps nothing between chunks: a cursor skips no swarm
   a time and source; merges what comes                    while the slice changes under it
3. after the last chunk confirms the dump by its name   3. notes who has which dump: its boot, and the count of
4. with no chunk for 2 s it starts over                    changes when it began
"""

from __future__ import annotations

from collections import OrderedDict, deque
from heapq import heappop, heappush
from struct import Struct
from typing import TYPE_CHECKING, NamedTuple

from common import frames
from common.control import FrameError, pack_header, state_of

if TYPE_CHECKING:
    from collections.abc import Iterable

    from common.control import Hello
    from common.link_state import LinkState
    from common.topology import Self, Topology
    from shard.service import ShardWorker

BODY = Struct("<IIQQ32s")  # slice, 0, the dump's boot and changes, cursor
START = bytes(frames.CURSOR)
END = bytes(23) + b"\2" + bytes(8)
AT_CURSOR_STATE = 23
NO_DUMP = (0, 0)
MOST = 512  # slices that are pulled again from a tick on
MOST_LOOKS, LEAST = 2048, 32  # slices and sources that are looked at in a tick; slices at least
MOST_DROPPED = 256  # slices, in a tick
FEW = 8  # swarms and peers, of which many slices may be dropped in a tick
DROP_STEPS = 8000  # of the store, in a tick: well under a millisecond

Out = list[tuple[str, bytes]]  # frames, and to which shard


class Timing(NamedTuple):
    """Milliseconds."""

    settle: int = 1000  # after which gateways copy announces to a shard that shows a part
    soon: int = 10_000  # from filling to the next pull
    again: int = 300_000  # between pulls
    leaving: int = 10_000  # between pulls from who leaves
    asked: int = 300_000  # how long who left pulls after it was asked
    patience: int = 2000  # for a chunk
    missed: int = 300_000  # after which who is not heard holds nothing up
    quiet: int = 60_000  # without a change before a copy is dropped
    confirmed: int = 30_000  # how long a confirmation counts


class Slice:
    """A slice of which something is here, or should be."""

    __slots__ = ("changes", "confirmed", "due", "ended", "held_back", "known", "quiet", "since", "slice_id")

    def __init__(self, slice_id: int, now: int) -> None:
        self.slice_id = slice_id
        self.since = now  # when it became a part
        self.ended: dict[str, int] = {}  # when the last pull began that ended, by source
        self.known: dict[str, tuple[int, int]] = {}  # the last dump that was merged whole, by source
        self.held_back: dict[str, int] = {}  # sources that are not asked before a time, as memory ran out
        self.confirmed: dict[str, tuple[int, int, int]] = {}  # by puller: its boot, the dump's changes, when
        self.due = 0  # when others are asked again
        self.changes = -1  # and since when there are no more
        self.quiet = now

    def begin_anew(self, now: int) -> None:
        """It may lack what others have."""
        self.since = now
        self.ended.clear()
        self.known.clear()
        self.held_back.clear()
        self.confirmed.clear()


class Pull:
    """One slice, chunk by chunk, from one source."""

    __slots__ = ("begun", "boot", "cursor", "dump", "failed", "number", "sent", "slice_id")

    def __init__(self, slice_id: int, now: int, boot: int, dump: tuple[int, int]) -> None:
        self.slice_id = slice_id
        self.begun = now
        self.boot = boot
        self.dump = dump
        self.cursor = START
        self.number = 0  # of the frame that is not answered
        self.sent = now
        self.failed = False  # memory ran out


class Source:
    """Another shard, to pull from. `wanted`: slices that wait for it."""

    def __init__(self, name: str, link: LinkState, now: int) -> None:
        self.name = name
        self.link = link
        self.since = now  # when it came to be known
        self.wanted: OrderedDict[int, None] = OrderedDict()
        self.pull: Pull | None = None
        self.number = 0
        self.was_heard = False
        self.boot = 0
        self.states = b""  # when `leaving` was made
        self.tables = (0, 0)  # ours and its at that time
        self.leaving: dict[int, None] = {}  # slices that are full here, and that it leaves or has by another table
        self.next_leaving = 0
        self.chunks = 0
        self.bytes = 0
        self.restarts = 0  # pulls begun again, as no chunk came

    def state_of(self, slice_id: int) -> int:
        """What it showed of a slice."""
        pong = self.link.pong
        return state_of(pong.states, slice_id) if pong is not None else frames.STATE_NONE


class Copies:
    """All slices of a shard. `links`: to the other shards of the configuration, by name."""

    def __init__(self, me: Self, worker: ShardWorker, now: int, timing: Timing | None = None) -> None:
        self.me = me
        self.worker = worker
        self.store = worker.store
        self.timing = timing or Timing()
        self.wanted = bytearray(me.topology.slices)  # whether a slice should be here
        self.slices: dict[int, Slice] = {}
        self.sources: dict[str, Source] = {}
        self.moving: OrderedDict[int, None] = OrderedDict()  # part and leaving slices, whose turn is next first
        self.rounds: list[tuple[int, int]] = []  # when a full slice is pulled again
        self.dropping: deque[int] = deque()
        self.arrivals = self.store.arrivals
        self.began = now  # this life
        self.counts = dict.fromkeys(("pulls", "empty", "chunks", "bytes", "merged", "dropped", "full_memory"), 0)
        self.fill_of = 0  # slices that an edit or a start had to fill
        self.fill_since = now
        for slice_id in range(me.topology.slices):
            self.store.set_state(slice_id, frames.STATE_NONE)

    # The configuration

    @property
    def topology(self) -> Topology:
        """The configuration's."""
        return self.me.topology

    @property
    def alone(self) -> bool:
        """Whether there is no other shard: then all is here, always."""
        return len(self.topology.shards) == 1

    def configure(self, links: dict[str, LinkState], now: int) -> None:
        """Take up the configuration that `me` has by now, the first one too. Raises ValueError without this shard."""
        topology = self.topology
        own = topology.shards.index(self.me.name)
        self.sources = {name: self.sources.get(name) or Source(name, link, now) for name, link in links.items()}
        wanted = bytearray(topology.slices)
        for slice_id in topology.ring.held_by(own):
            wanted[slice_id] = 1
        self.wanted = wanted
        before = sum(map(self._is_filling, self.slices))
        for slice_id in range(topology.slices):
            self._adapt(slice_id, now)
        self._count_filling(before, now)

    def _adapt(self, slice_id: int, now: int) -> None:
        """Let a slice be what the configuration makes of its state."""
        state = self.store.state_of(slice_id)
        if self.alone:
            self._enter(slice_id, frames.STATE_FULL, now)
        elif self.wanted[slice_id] and state in (frames.STATE_NONE, frames.STATE_LEAVING):
            self._enter(slice_id, frames.STATE_PART, now)
        elif not self.wanted[slice_id] and state == frames.STATE_FULL:
            self._enter(slice_id, frames.STATE_LEAVING, now)
        elif state == frames.STATE_FULL and not self.slices[slice_id].due:
            self._pull_at(self.slices[slice_id], now + self.timing.soon)  # it was alone until now

    def _enter(self, slice_id: int, state: int, now: int) -> None:
        """Give a slice a state."""
        entry = self.slices.get(slice_id)
        if entry is None:
            entry = self.slices[slice_id] = Slice(slice_id, now)
        self.store.set_state(slice_id, state)
        if state == frames.STATE_PART:
            entry.begin_anew(now)
        if state == frames.STATE_LEAVING:
            entry.changes = -1
        if state == frames.STATE_FULL:
            self.moving.pop(slice_id, None)
            for source in self.sources.values():
                if self._may_know_more(source, slice_id):
                    source.leaving[slice_id] = None
        else:
            self.moving[slice_id] = None
        if state != frames.STATE_PART and not self.alone:
            self._pull_at(entry, now + self.timing.soon)

    def _pull_at(self, entry: Slice, due: int) -> None:
        entry.due = due
        heappush(self.rounds, (due, entry.slice_id))

    def _is_filling(self, slice_id: int) -> bool:
        return bool(self.wanted[slice_id]) and self.store.state_of(slice_id) == frames.STATE_PART

    def _count_filling(self, before: int, now: int) -> None:
        """For the operator: what there is to fill since the last time that there was nothing."""
        filling = sum(map(self._is_filling, self.slices))
        if before == 0:
            self.fill_of, self.fill_since = filling, now
        else:
            self.fill_of += max(0, filling - before)

    # A life's beginning

    def restore(self, slice_ids: Iterable[int], now: int) -> None:
        """Slices that a snapshot held were loaded into the store: parts, until others were asked."""
        for slice_id in slice_ids:
            if not self.alone:
                self._enter(slice_id, frames.STATE_PART, now)

    def begin_anew(self, now: int) -> None:
        """The process had stood still: others went on meanwhile, so all that is here may lack something."""
        self.began = now
        self._note_arrivals(now)
        if self.alone:
            return
        before = sum(map(self._is_filling, self.slices))
        for slice_id in list(self.slices):
            self._enter(slice_id, frames.STATE_PART, now)
        self._count_filling(before, now)
        for source in self.sources.values():
            source.pull = None
            source.wanted.clear()
            source.was_heard = False

    # Ticks

    def tick(self, now: int) -> Out:
        """What is to be done now; to be called some times a second."""
        self._note_arrivals(now)
        out: Out = []
        if not self.alone:
            for source in self.sources.values():
                self._look_at(source, now)
            self._pull_again(now)
            turns = max(LEAST, MOST_LOOKS // (1 + len(self.sources)))
            for _ in range(min(turns, len(self.moving))):
                self._move(next(iter(self.moving)), now)
            for source in self.sources.values():
                self._go_on(source, now, out)
        self._drop_some()
        return out

    def _note_arrivals(self, now: int) -> None:
        """Records came for slices of which there was nothing: they are parts now."""
        if self.store.arrivals == self.arrivals:
            return
        self.arrivals = self.store.arrivals
        for slice_id in range(self.topology.slices):
            if slice_id not in self.slices and self.store.state_of(slice_id) != frames.STATE_NONE:
                self._enter(slice_id, frames.STATE_PART, now)

    def _look_at(self, source: Source, now: int) -> None:
        """See whether another shard is heard, is heard again, or shows something else than before."""
        link = source.link
        if link.is_silent(now) or link.pong is None:
            source.was_heard = False
            self._interrupt(source)
            return
        if link.boot != source.boot:
            self._interrupt(source)
        tables = (self.topology.table, link.pong.table)
        if source.states != link.pong.states or source.tables != tables:
            source.states, source.tables = link.pong.states, tables
            for slice_id in self.slices:
                if self.store.state_of(slice_id) == frames.STATE_FULL and self._may_know_more(source, slice_id):
                    source.leaving[slice_id] = None
        if not source.was_heard or link.boot != source.boot:
            for slice_id in self.slices:
                if self._pulls_again(slice_id):
                    self._want(source, slice_id)
                    self._pull_at(self.slices[slice_id], now + self.timing.soon)  # gateways hear it a little later
        source.was_heard = True
        source.boot = link.boot
        if source.leaving and now >= source.next_leaving:
            source.next_leaving = now + self.timing.leaving
            self._want_leaving(source)

    def _want_leaving(self, source: Source) -> None:
        """What a source leaves it may forget once it was pulled."""
        for slice_id in list(source.leaving):
            if self.store.state_of(slice_id) == frames.STATE_FULL and self._may_know_more(source, slice_id):
                source.wanted[slice_id] = None
            else:
                del source.leaving[slice_id]

    def _may_know_more(self, source: Source, slice_id: int) -> bool:
        """Whether gateways may ask a source for a slice and send no copies here: it leaves it, or agrees with gateways
        on another table, by which it is the owner."""
        theirs = source.state_of(slice_id)
        pong = source.link.pong
        is_elsewhere = pong is not None and pong.table != self.topology.table
        return theirs == frames.STATE_LEAVING or (theirs != frames.STATE_NONE and is_elsewhere)

    def _pull_again(self, now: int) -> None:
        """Full slices, and those that left and are asked all the same, learn what other copies heard."""
        for _ in range(MOST):
            if not self.rounds or self.rounds[0][0] > now:
                return
            due, slice_id = heappop(self.rounds)
            entry = self.slices.get(slice_id)
            if entry is None or entry.due != due:
                continue
            if self.store.state_of(slice_id) < frames.STATE_LEAVING:
                entry.due = 0
                continue
            # Spread, so that those that were filled together are not always pulled together.
            spread = self.timing.again * slice_id // self.topology.slices // 4
            self._pull_at(entry, now + self.timing.again - spread)
            if self._pulls_again(slice_id):
                for source in self.sources.values():
                    self._want(source, slice_id)

    def _pulls_again(self, slice_id: int) -> bool:
        state = self.store.state_of(slice_id)
        if state == frames.STATE_FULL:
            return True
        asked = self.store.asked_at(slice_id)
        lately = self.worker.clock.seconds() - self.timing.asked // 1000
        return state == frames.STATE_LEAVING and asked > 0 and asked >= lately

    def _want(self, source: Source, slice_id: int) -> None:
        if source.state_of(slice_id) != frames.STATE_NONE:
            source.wanted[slice_id] = None

    def _move(self, slice_id: int, now: int) -> None:
        """A slice that is a part, or leaves; then it is another's turn."""
        self.moving.move_to_end(slice_id)
        entry = self.slices[slice_id]
        state = self.store.state_of(slice_id)
        if state == frames.STATE_PART and self._is_filled(entry, now):
            self._enter(slice_id, frames.STATE_FULL if self.wanted[slice_id] else frames.STATE_LEAVING, now)
        elif state == frames.STATE_LEAVING and self._may_drop(entry, now):
            self._forget(slice_id)

    def _is_filled(self, entry: Slice, now: int) -> bool:
        """Whether every other shard that may have it has been asked; asks those that have not."""
        ready = entry.since + self.timing.settle
        if now < ready:
            return False
        filled = True
        for source in self.sources.values():
            filled &= self._has_given(source, entry, ready, now)
        return filled

    def _has_given(self, source: Source, entry: Slice, ready: int, now: int) -> bool:
        """Whether nothing is to be had of a source for a part that was ready for it at some time."""
        if not source.was_heard:
            if source.link.pong is None and source.name not in self.topology.in_file:
                return True  # whoever it is
            last = max(source.link.last_heard, source.since, self.began)
            return now - last >= self.timing.missed
        if source.state_of(entry.slice_id) == frames.STATE_NONE:
            return source.link.last_heard >= ready
        if entry.ended.get(source.name, -1) >= ready:
            return True
        if entry.held_back.get(source.name, 0) <= now:
            source.wanted[entry.slice_id] = None
        return False

    # Pulling

    def _interrupt(self, source: Source) -> None:
        """A pull under way does not come to its end; it is wanted again."""
        if source.pull is not None:
            source.wanted[source.pull.slice_id] = None
            source.pull = None

    def _go_on(self, source: Source, now: int, out: Out) -> None:
        """Begin the next pull, or one that gets no answer again."""
        if not source.was_heard:
            return
        pull = source.pull
        if pull is not None and now - pull.sent >= self.timing.patience:
            source.restarts += 1
            self._interrupt(source)
        while source.pull is None and source.wanted:
            slice_id, _ = source.wanted.popitem(last=False)
            entry = self.slices.get(slice_id)
            if entry is not None:
                self.counts["pulls"] += 1
                source.pull = Pull(slice_id, now, source.link.boot, entry.known.get(source.name, NO_DUMP))
                out.append((source.name, self._ask(source, source.pull, now)))

    def _ask(self, source: Source, pull: Pull, now: int) -> bytes:
        source.number += 1
        pull.number = source.number
        pull.sent = now
        receiver = (source.link.boot, source.link.tick)
        return _pack(frames.PULL, source.number, receiver, pull.slice_id, pull.dump, pull.cursor)

    def take_chunk(self, name: str, number: int, frame: memoryview, now: int) -> Out:
        """A SLICE frame came; what to ask next. Raises FrameError."""
        source = self.sources.get(name)
        slice_id, dump, cursor = _unpack(frame, self.topology.slices)
        pull = source.pull if source is not None else None
        if source is None or pull is None or (number, slice_id) != (pull.number, pull.slice_id):
            return []
        if pull.boot != source.link.boot:  # half of the dump of another life
            self._interrupt(source)
            return []
        entry = self.slices.get(slice_id)
        chunk = frame[frames.HEADER + BODY.size :]
        source.chunks += 1
        source.bytes += len(frame)
        self.counts["chunks"] += 1
        self.counts["bytes"] += len(frame)
        if entry is not None:
            self._merge(pull, entry, chunk)
        out: Out = []
        if cursor[AT_CURSOR_STATE] != 2 and entry is not None:
            pull.dump, pull.cursor = dump, cursor
            return [(name, self._ask(source, pull, now))]
        source.pull = None
        if entry is not None:
            self._end(source, pull, entry, dump, now, out)
        self._go_on(source, now, out)
        return out

    def _merge(self, pull: Pull, entry: Slice, chunk: memoryview) -> None:
        """Merge a chunk. Raises FrameError if it does not add up."""
        if not len(chunk):
            return
        try:
            self.counts["merged"] += self.store.load(entry.slice_id, chunk, self.worker.clock.seconds())
        except MemoryError:
            pull.failed = True
            self.counts["full_memory"] += 1
        except ValueError as error:
            raise FrameError(str(error)) from None

    def _end(self, source: Source, pull: Pull, entry: Slice, dump: tuple[int, int], now: int, out: Out) -> None:
        """The last chunk came. A dump that found no room is not confirmed, so who gave it does not drop it."""
        if pull.failed:
            entry.held_back[source.name] = now + self.timing.soon
            return
        if dump == entry.known.get(source.name):
            self.counts["empty"] += 1
        if pull.begun < entry.since:
            return  # of what came before it began anew, something may be gone
        entry.ended[source.name] = pull.begun
        entry.known[source.name] = dump
        pull.dump, pull.cursor = dump, END
        out.append((source.name, self._ask(source, pull, now)))

    # Giving

    def answer_pull(self, puller: Hello, number: int, frame: memoryview, now: int) -> bytes | None:
        """A PULL frame of another shard, which showed itself so; the SLICE frame for it. Raises FrameError."""
        slice_id, dump, cursor = _unpack(frame, self.topology.slices)
        if len(frame) != frames.HEADER + BODY.size:
            raise FrameError("a frame that asks for a slice is too long")
        changes = self.store.changes_of(slice_id)
        life = self.me.life.boot
        if cursor[AT_CURSOR_STATE] == 2:
            entry = self.slices.get(slice_id)
            if entry is not None and dump[0] == life and puller.name in self.sources:
                entry.confirmed[puller.name] = (puller.boot, dump[1], now)
            return None
        receiver = (puller.boot, puller.tick)
        if cursor[AT_CURSOR_STATE] == 0 and dump == (life, changes):  # it has all of it
            return _pack(frames.SLICE, number, receiver, slice_id, dump, END)
        if cursor[AT_CURSOR_STATE] == 0:
            dump = (life, changes)
        at = bytearray(cursor)
        length = self.store.dump(slice_id, at, self.worker.chunk, self.worker.clock.seconds())
        return _pack(frames.SLICE, number, receiver, slice_id, dump, bytes(at)) + bytes(self.worker.chunk[:length])

    # Dropping

    def _may_drop(self, entry: Slice, now: int) -> bool:
        """Whether all who should have a slice have all that is here."""
        changes = self.store.changes_of(entry.slice_id)
        if changes != entry.changes:
            entry.changes, entry.quiet = changes, now
        if now - entry.quiet < self.timing.quiet:
            return False
        names = [self.topology.shards[at] for at in self.topology.ring.members_of(entry.slice_id)]
        members = [self.sources[name] for name in names if name in self.sources]
        heard = [one for one in members if now - max(one.link.last_heard, self.began) < self.timing.missed]
        return bool(heard) and all(self._has_confirmed(one, entry, changes, now) for one in heard)

    def _has_confirmed(self, source: Source, entry: Slice, changes: int, now: int) -> bool:
        """Whether a member is there, agrees on the configuration, is full, and has confirmed what is here now."""
        pong = source.link.pong
        if not source.was_heard or pong is None or pong.stopping or source.link.is_silent(now):
            return False
        if (pong.version, pong.table) != (self.topology.version, self.topology.table):
            return False
        boot, dumped, when = entry.confirmed.get(source.name, (0, -1, 0))
        has_all = boot == pong.boot and dumped == changes and now - when <= self.timing.confirmed
        return has_all and source.state_of(entry.slice_id) == frames.STATE_FULL

    def _forget(self, slice_id: int) -> None:
        self.store.set_state(slice_id, frames.STATE_NONE)
        del self.slices[slice_id], self.moving[slice_id]
        self.dropping.append(slice_id)
        self.counts["dropped"] += 1

    def _drop_some(self) -> None:
        """Free what was dropped, in small steps; a record that came meanwhile keeps what is left."""
        now = self.worker.clock.seconds()
        for _ in range(MOST_DROPPED):
            if not self.dropping:
                return
            slice_id = self.dropping[0]
            held = sum(self.store.held(slice_id))
            if self.store.state_of(slice_id) == frames.STATE_NONE and self.store.drop(slice_id, now, DROP_STEPS):
                return
            self.dropping.popleft()
            if held > FEW:
                return

    # For the operator

    def answered_here(self) -> bytearray:
        """Of each slice, whether gateways that hear all whom this shard hears ask it."""
        which = bytearray(self.topology.slices)
        names = self.topology.shards
        for slice_id in self.slices:
            row = self.topology.ring.row(slice_id)
            _, place = max((self._state_at(names[at], slice_id), -place) for place, at in enumerate(row))
            which[slice_id] = names[row[-place]] == self.me.name
        return which

    def _state_at(self, name: str, slice_id: int) -> int:
        """What a shard has of a slice; below all states if it cannot be asked."""
        if name == self.me.name:
            return self.store.state_of(slice_id)
        source = self.sources[name]
        return source.state_of(slice_id) if source.was_heard else -1

    def held(self) -> dict[str, list[int]]:
        """Each slice of which something is here: its number, state, torrents, leechers, seeders."""
        ids = sorted(self.slices)
        held = [self.store.held(slice_id) for slice_id in ids]
        return {
            "slice": ids,
            "state": [self.store.state_of(slice_id) for slice_id in ids],
            **{name: [each[at] for each in held] for at, name in enumerate(("torrents", "leechers", "seeders"))},
        }

    def totals(self) -> dict[str, int]:
        """How many slices are in each state, here and on the move."""
        states = [self.store.state_of(slice_id) for slice_id in self.slices]
        return {
            "full": states.count(frames.STATE_FULL),
            "part": states.count(frames.STATE_PART),
            "leaving": states.count(frames.STATE_LEAVING),
            "wanted": sum(self.wanted),
        }

    def show(self, now: int) -> dict[str, object]:
        """What is on the move."""
        filling = sum(map(self._is_filling, self.slices))
        return {
            "fill": {"of": self.fill_of, "left": filling, "since_ms": now - self.fill_since},
            "counts": {**self.counts},
            "sources": [
                {
                    "shard": source.name,
                    "waiting": len(source.wanted) + (source.pull is not None),
                    "chunks": source.chunks,
                    "bytes": source.bytes,
                    "restarts": source.restarts,
                }
                for source in self.sources.values()
            ],
        }


def _pack(
    kind: int, number: int, receiver: tuple[int, int], slice_id: int, dump: tuple[int, int], cursor: bytes
) -> bytes:
    return pack_header(kind, number, *receiver) + BODY.pack(slice_id, 0, *dump, cursor)


def _unpack(frame: memoryview, slices: int) -> tuple[int, tuple[int, int], bytes]:
    """Slice, dump and cursor of a PULL or SLICE frame. Raises FrameError."""
    if len(frame) < frames.HEADER + BODY.size:
        raise FrameError("a frame of a slice is too short")
    slice_id, _, boot, changes, cursor = BODY.unpack_from(frame, frames.HEADER)
    if slice_id >= slices or cursor[AT_CURSOR_STATE] > 2:
        raise FrameError("a frame of a slice that there is not")
    return slice_id, (boot, changes), cursor
