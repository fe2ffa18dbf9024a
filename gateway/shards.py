"""What a gateway knows of all shards, whom it asks for each slice, who gets copies. Sans-I/O: frames and the time, ms.

Answerer of a slice: of the shards that are heard and do not stop, the one with the best state (full, leaving, part,
none), of equals the first in the ring's order. With no shard heard, nobody: the router then answers for itself.
Copies of what changes a slice go to all others that hold it, so that it may be asked of another at any time.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from common import control, frames
from common.control import FrameError, states_length
from common.topology import lingers, links_of, pings
from gateway.answerers import choose

if TYPE_CHECKING:
    from common.link_state import LinkState
    from common.topology import Self, Topology


class Shards:
    """The shards of a configuration, in its order.

    `table`: of each slice the index of who is asked; `copies[first[s]:first[s + 1]]`: who gets copies.
    """

    def __init__(self, me: Self) -> None:
        self.me = me
        self.by_name: dict[str, LinkState] = {}
        self.dropped: Counter[str] = Counter(dict.fromkeys(("other_boot", "too_old", "malformed", "unexpected"), 0))
        self._set_topology(me.topology)

    def configure(self, topology: Topology, now: int) -> None:
        """Take up a configuration; `look` must follow. What is known of shards that stay is kept, and of those that the
        file lacks, as long as they may hold something."""
        stay = [name for name, link in self.by_name.items() if lingers(link, now)]
        self._set_topology(topology.with_departing(stay))

    def departed(self, now: int) -> bool:
        """Whether a shard that the file lacks has nothing any longer; then `configure` is to be called."""
        return any(not lingers(self.by_name[name], now) for name in self.me.topology.departing)

    def _set_topology(self, topology: Topology) -> None:
        self.me.topology = topology
        self.by_name = links_of(topology, self.by_name)
        self.links = list(self.by_name.values())
        self.nobody = len(self.links)
        self.order = memoryview(topology.ring.order)
        self.row = states_length(topology.slices)
        self.states = bytearray(self.row * len(self.links))
        for index, link in enumerate(self.links):
            if link.pong is not None:
                self.states[index * self.row : (index + 1) * self.row] = link.pong.states
        self.usable = bytearray(len(self.links))
        self.table = memoryview(bytearray(2 * topology.slices)).cast("H")
        self.first = memoryview(bytearray(4 * (topology.slices + 1))).cast("I")
        self.copies = memoryview(bytearray(2 * topology.slices * len(self.links))).cast("H")
        for slice_id in range(topology.slices):
            self.table[slice_id] = self.nobody
        self.changed = True  # since the table was made

    def beat(self, now: int) -> bool:
        """Whether the process had stood still, and begins another life; to be called before links are read."""
        return self.me.life.beat(now)

    def tick(self, now: int, report: bytes = b"") -> list[tuple[str, bytes]]:
        """The pings that are to be sent now, and to whom; to be called some times a second."""
        return pings(self.me, self.links, now, report)

    def take(self, name: str, frame: memoryview, now: int) -> bool:
        """Deal with a frame of a shard; whether it is one of replies, to be given to the codecs."""
        link = self.by_name.get(name)
        try:
            head = control.header(frame)
            if head.kind == frames.PONG:
                self._note_pong(link, head.number, control.unpack_hello(frame), now)
                return False
        except FrameError:
            self.dropped["malformed"] += 1
            return False
        if head.kind != frames.REPLIES or link is None:
            self.dropped["unexpected"] += 1
            return False
        link.note_replies()
        if reason := self.me.life.refuses(head.boot, head.tick, now):
            self.dropped[reason] += 1
            return False
        return True

    def look(self, now: int) -> bool:
        """Make the tables again if something changed; whether they were made."""
        usable = bytes(link.is_usable(now) for link in self.links)
        if usable == self.usable and not self.changed:
            return False
        self.usable[:] = usable
        self.changed = False
        members = self.me.topology.ring.members
        choose(self.order, self.states, self.usable, members, self.nobody, self.table, self.first, self.copies)
        return True

    def all_heard(self) -> bool:
        """Whether every shard has answered a ping."""
        return all(link.pong is not None for link in self.links)

    def away(self) -> list[str]:
        """The shards that are not asked, as they are silent or stop."""
        return [link.name for link, usable in zip(self.links, self.usable, strict=True) if not usable]

    def unanswered(self) -> int:
        """Frames of records that may still be answered, of all links."""
        return sum(link.unanswered for link, usable in zip(self.links, self.usable, strict=True) if usable)

    def _note_pong(self, link: LinkState | None, number: int, hello: control.Hello, now: int) -> None:
        if link is None or not link.take_pong(number, hello, now):
            return
        at = self.links.index(link) * self.row
        if self.states[at : at + self.row] != hello.states:
            self.states[at : at + self.row] = hello.states
            self.changed = True
