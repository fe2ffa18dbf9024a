"""What a gateway knows of all shards, and whom it asks for each slice. Sans-I/O: frames and the time in, ms.

Answerer of a slice: of the shards that are heard and do not stop, the one with the best state (full, leaving, part,
none), of equals the first in the ring's order. With no shard heard, nobody: the router then answers for itself.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from common import control, frames
from common.control import FrameError, states_length
from common.link_state import LinkState
from gateway.answerers import choose

if TYPE_CHECKING:
    from common.topology import Self


class Shards:
    """The shards of a configuration, in its order. `table`: 2 bytes a slice, the index of who is asked."""

    def __init__(self, me: Self) -> None:
        topology = me.topology
        self.me = me
        self.links = [LinkState(name, topology.slices, topology.cluster) for name in topology.shards]
        self.nobody = len(self.links)
        self.order = memoryview(topology.ring.order)
        self.row = states_length(topology.slices)
        self.states = bytearray(self.row * len(self.links))
        self.usable = bytearray(len(self.links))
        self.table = memoryview(bytearray(2 * topology.slices)).cast("H")
        for slice_id in range(topology.slices):
            self.table[slice_id] = self.nobody
        self.changed = False  # since the table was made
        self.dropped: Counter[str] = Counter(dict.fromkeys(("other_boot", "too_old", "malformed", "unexpected"), 0))

    def beat(self, now: int) -> bool:
        """Whether the process had stood still, and begins another life; to be called before links are read."""
        return self.me.life.beat(now)

    def take(self, index: int, frame: memoryview, now: int) -> bool:
        """Deal with a frame of a shard; whether it is one of replies, to be given to the codecs."""
        try:
            head = control.header(frame)
            if head.kind == frames.PONG:
                self._note_pong(index, head.number, control.unpack_hello(frame), now)
                return False
        except FrameError:
            self.dropped["malformed"] += 1
            return False
        if head.kind != frames.REPLIES:
            self.dropped["unexpected"] += 1
            return False
        self.links[index].note_replies()
        if reason := self.me.life.refuses(head.boot, head.tick, now):
            self.dropped[reason] += 1
            return False
        return True

    def look(self, now: int) -> bool:
        """Make the table again if something changed; whether a slice has another answerer."""
        usable = bytes(link.is_usable(now) for link in self.links)
        if usable == self.usable and not self.changed:
            return False
        self.usable[:] = usable
        self.changed = False
        return bool(choose(self.order, self.states, self.usable, self.nobody, self.table))

    def all_heard(self) -> bool:
        """Whether every shard has answered a ping."""
        return all(link.pong is not None for link in self.links)

    def away(self) -> list[str]:
        """The shards that are not asked, as they are silent or stop."""
        return [link.name for link, usable in zip(self.links, self.usable, strict=True) if not usable]

    def unanswered(self) -> int:
        """Frames of records that may still be answered, of all links."""
        return sum(link.unanswered for link, usable in zip(self.links, self.usable, strict=True) if usable)

    def _note_pong(self, index: int, number: int, hello: control.Hello, now: int) -> None:
        link = self.links[index]
        if not link.take_pong(number, hello, now):
            return
        at = index * self.row
        if self.states[at : at + self.row] != hello.states:
            self.states[at : at + self.row] = hello.states
            self.changed = True
