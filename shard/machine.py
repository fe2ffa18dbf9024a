"""A shard as others see it over links: frames and the time in, frames out. Sans-I/O: no socket, no clock of its own.

A PING makes its sender known: its boot and tick are what replies to it must name. RECORDS are applied if they are for
this life and not too old, and answered by REPLIES, if need be empty; PULL by SLICE. What is not taken is dropped and
counted. `take` has what others send of themselves, `hear` what other shards answer; copies.py decides on slices.
"""

from __future__ import annotations

import json
from collections import Counter
from struct import Struct
from typing import TYPE_CHECKING

from common import control, frames
from common.control import FrameError, Hello, pack_header, pack_hello
from common.link_state import PING_EVERY, SILENT
from common.topology import lingers, links_of, pings
from shard.copies import Copies

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from common.link_state import LinkState
    from common.topology import Self, Topology
    from shard.copies import Out, Timing
    from shard.service import ShardWorker

RECEIVER = Struct("<QQ")  # boot and tick, in a header
MOST_PEERS = 4096  # processes that are known at once
MOST_OF_A_NAME = 8
MOST_DEPARTING = 16  # shards that the file lacks and that are listened to
MOST_TOLD = 2 << 20  # bytes of JSON about them in the answer to STATUS
KNOWN = 4000  # ms after which all others have heard that nothing is here
FAREWELL = 2 * PING_EVERY  # ms in which every gateway hears that this shard stops
FORGET = 60_000  # ms since its last ping after which a process is forgotten


class Peer:
    """A process that pings: how it showed itself, when, and the number of its last frame of records."""

    __slots__ = ("heard", "hello", "last")

    def __init__(self, hello: Hello, now: int) -> None:
        self.hello = hello
        self.heard = now
        self.last = 0

    def show(self, now: int) -> dict[str, object]:
        """For the operator."""
        hello = self.hello
        return {
            "name": hello.name,
            "role": frames.ROLES[hello.role] if hello.role < len(frames.ROLES) else "unknown",
            "heard_ms": now - self.heard,
            "boot": f"{hello.boot:016x}",
            "config_version": hello.version,
            "table": f"{hello.table:016x}",
            "report": control.read_report(hello.report),
        }


class ShardMachine:
    """Answers frames, and asks other shards. `report`: what pongs carry; `status`: the answer to STATUS, given whether
    it is to tell of each slice; place: where others reach it, told by its pings; all JSON. timing: of copies."""

    def __init__(
        self,
        me: Self,
        worker: ShardWorker,
        report: Callable[[], bytes],
        status: Callable[[bool], bytes],
        now: int,
        timing: Timing | None = None,
        place: bytes = b"",
    ) -> None:
        self.me = me
        self.place = place
        self.worker = worker
        self.report = report
        self.status = status
        self.stopping = False
        self.peers: dict[bytes, Peer] = {}  # by routing id
        self.links: dict[str, LinkState] = {}  # to the other shards
        self.idle_since: int | None = None  # the file lacks this shard, and it holds nothing
        self.copies = Copies(me, worker, now, timing)
        self.states = bytearray(control.states_length(me.topology.slices))
        self.dropped: Counter[str] = Counter(
            dict.fromkeys(
                ("other_boot", "too_old", "malformed", "unknown_sender", "other_cluster", "unexpected", "crowd"), 0
            )
        )
        self.configure(me.topology, now)

    def configure(self, topology: Topology, now: int) -> None:
        """Take up a configuration. Shards that the file lacks stay as long as they may hold something: this one too."""
        stay = [name for name in self.links if not self._is_gone(name, now)]
        topology = topology.with_departing([*stay, *self._strangers(topology, now), self.me.name])
        self.me.topology = topology
        self.links = links_of(topology, self.links, self.me.name)
        self.copies.configure(self.links, now)

    def beat(self, now: int) -> bool:
        """Whether the process had stood still, and begins another life; to be called before links are read."""
        if not self.me.life.beat(now):
            return False
        self.copies.begin_anew(now)
        return True

    def tick(self, now: int) -> Out:
        """What is to be sent to other shards now; to be called some times a second, after `beat`."""
        topology = self.me.topology
        if any(self._is_gone(name, now) for name in topology.departing) or self._strangers(topology, now):
            self.configure(topology, now)
        return [*pings(self.me, self.links.values(), now, self.place), *self.copies.tick(now)]

    def is_done(self, now: int) -> bool:
        """Whether the file lacks this shard, and it has held nothing for so long that all know: `stops` tells them."""
        if self.me.name in self.me.topology.in_file or self.copies.slices:
            self.idle_since = None
            return False
        if self.idle_since is None:
            self.idle_since = now
        return now - self.idle_since >= KNOWN + FAREWELL

    def stops(self, now: int) -> bool:
        """Whether others are to know that this shard is about to end."""
        return self.stopping or (self.idle_since is not None and now - self.idle_since >= KNOWN)

    def _strangers(self, topology: Topology, now: int) -> list[str]:
        """Shards that ping and are neither in the file nor known: they depart, and a former life of this knew them."""
        pinging = [peer.hello for peer in self.peers.values() if now - peer.heard < SILENT]
        names = dict.fromkeys(hello.name for hello in pinging if hello.role == frames.ROLE_SHARD)
        found = [name for name in names if name not in topology.shards and name not in self.links]
        return found[: max(0, MOST_DEPARTING - len(topology.departing))]

    def _is_gone(self, name: str, now: int) -> bool:
        """Whether a shard, if the file lacks it, has nothing any longer, and does not ping."""
        if name == self.me.name or lingers(self.links[name], now):
            return False
        return all(peer.hello.name != name or now - peer.heard >= SILENT for peer in self.peers.values())

    def place_of(self, name: str) -> dict[str, object]:
        """Where a shard that pings says that it is: `link` and `key`."""
        for peer in self.peers.values():
            if peer.hello.name == name and peer.hello.role == frames.ROLE_SHARD:
                return control.read_report(peer.hello.report)
        return {}

    def take(self, sender: bytes, frame: memoryview, now: int) -> bytes | memoryview | None:
        """Deal with a frame; the answer to its sender, if there is one, valid until the next call."""
        try:
            head = control.header(frame)
            if head.kind == frames.RECORDS:
                return self._answer(sender, head, frame, now)
            if head.kind == frames.PING:
                return self._pong(sender, head.number, control.unpack_hello(frame), now)
            if head.kind == frames.PULL:
                return self._give(sender, head, frame, now)
            if head.kind == frames.STATUS:
                return pack_header(frames.STATUS, head.number) + self.status(head.records != 0)
        except ValueError:
            self.dropped["malformed"] += 1
            return None
        self.dropped["unexpected"] += 1
        return None

    def hear(self, name: str, frame: memoryview, now: int) -> Out:
        """Deal with a frame that another shard sent over the link to it; what to send now."""
        try:
            head = control.header(frame)
            if head.kind == frames.PONG:
                if name in self.links:
                    self.links[name].take_pong(head.number, control.unpack_hello(frame), now)
                return []
            if head.kind == frames.SLICE:
                return [] if self._refuses(head, now) else self.copies.take_chunk(name, head.number, frame, now)
        except FrameError:
            self.dropped["malformed"] += 1
            return []
        self.dropped["unexpected"] += 1
        return []

    def forget(self, now: int) -> None:
        """Forget who has not pinged for long; to be called now and then."""
        for sender in [sender for sender, peer in self.peers.items() if now - peer.heard > FORGET]:
            del self.peers[sender]

    def tell_peers(self, now: int, known: Collection[str]) -> tuple[list[str], int]:
        """JSON of those who ping, for the operator, and how many it leaves out, so that it stays short: others than
        `known` first, then those with the longest reports."""
        told: list[str] = []
        room = MOST_TOLD
        for peer in sorted(self.peers.values(), key=lambda one: (one.hello.name not in known, len(one.hello.report))):
            try:
                text = json.dumps(peer.show(now))
            except RecursionError:  # it could just be read
                continue
            room -= len(text)
            if room < 0:
                break
            told.append(text)
        return told, len(self.peers) - len(told)

    def _answer(self, sender: bytes, head: control.Header, frame: memoryview, now: int) -> memoryview | None:
        peer = self._known(sender)
        if peer is None:
            return None
        peer.last = head.number
        if self._refuses(head, now):
            return None
        replies = self.worker.answer(frame)
        RECEIVER.pack_into(replies, frames.AT_BOOT, peer.hello.boot, peer.hello.tick)
        return replies

    def _give(self, sender: bytes, head: control.Header, frame: memoryview, now: int) -> bytes | None:
        peer = self._known(sender)
        if peer is None or self._refuses(head, now):
            return None
        if peer.hello.role != frames.ROLE_SHARD:
            self.dropped["unexpected"] += 1
            return None
        return self.copies.answer_pull(peer.hello, head.number, frame, now)

    def _known(self, sender: bytes) -> Peer | None:
        peer = self.peers.get(sender)
        self.dropped["unknown_sender"] += peer is None
        return peer

    def _refuses(self, head: control.Header, now: int) -> bool:
        """Whether a frame is for another life, or waited too long."""
        reason = self.me.life.refuses(head.boot, head.tick, now)
        if reason:
            self.dropped[reason] += 1
        return bool(reason)

    def _make_room(self, name: str) -> None:
        """A name has a few places: a process that comes again and again leaves those of its former lives."""
        same = [sender for sender, peer in self.peers.items() if peer.hello.name == name]
        if len(same) >= MOST_OF_A_NAME:
            del self.peers[min(same, key=lambda sender: self.peers[sender].heard)]

    def _pong(self, sender: bytes, number: int, hello: Hello, now: int) -> bytes | None:
        self.worker.store.pack_states(self.states)
        states = bytes(self.states)
        mine = self.me.hello(now, self.report())
        if (hello.cluster, hello.slices) != (mine.cluster, mine.slices):
            # It is told so, as its operator must hear of it; nothing else of it is taken.
            self.dropped["other_cluster"] += 1
            self.peers.pop(sender, None)
            return pack_hello(frames.PONG, number, mine._replace(states=states, report=b""))
        if hello.role == frames.ROLE_OPERATOR:
            hello = hello._replace(report=b"")  # nobody reads it
        peer = self.peers.get(sender)
        if peer is None:
            if len(self.peers) >= MOST_PEERS:
                self.dropped["crowd"] += 1
                return None
            self._make_room(hello.name)
            peer = self.peers[sender] = Peer(hello, now)
        peer.hello, peer.heard = hello, now
        return pack_hello(frames.PONG, number, mine._replace(stopping=self.stops(now), last=peer.last, states=states))
