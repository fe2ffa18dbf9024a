"""`shoal find`: where a torrent is kept, and what every shard has of it."""

from __future__ import annotations

import re
import secrets
from struct import Struct
from typing import TYPE_CHECKING, Any

from cluster import asking
from cluster.client import UsageError
from common import control, frames, keys
from common.config_errors import ConfigError
from common.control import FrameError
from common.life import Life, milliseconds
from common.topology import Self, Topology
from gateway.siphash import siphash

if TYPE_CHECKING:
    from common.config import Config

STATES = ("none", "part", "leaving", "full")
LOCAL = bytes(10) + b"\xff\xff\x7f\0\0\1"  # 127.0.0.1: a scrape changes nothing, whoever asks
RECORD = Struct("<48sQ20s16sHBB")
REPLY = Struct("<IBBHII48s")
COUNTS = Struct(">III")
assert RECORD.size == frames.RECORD


def parse_info_hash(text: str) -> bytes:
    """20 bytes from 40 hex digits, or from the 64 of BEP 52, which trackers know by the first 20 bytes.

    Raises UsageError.
    """
    if re.fullmatch(r"[0-9A-Fa-f]{40}|[0-9A-Fa-f]{64}", text, re.ASCII):
        return bytes.fromhex(text)[:20]
    raise UsageError(f"{text}: expected an info-hash, 40 hex digits or the 64 of a version 2 torrent")


def find(config: Config, node: str | None, info_hash: bytes, timeout: float) -> dict[str, Any]:
    """All that is known of a torrent. Raises ConfigError, also of a tracker without links; KeyFileError."""
    if config.is_embedded:
        expected = "a configuration whose shards have links, or the command `shoal scrape`"
        raise ConfigError("--config", expected, "the embedded tracker")
    mine = asking.key_of(config, node)
    key = keys.load_cluster(config.key_directory)  # unlike a process, a command makes no files
    hashed = siphash(key, info_hash)
    topology = Topology(config, key)
    me = Self(topology, Life(milliseconds()), frames.ROLE_OPERATOR, "shoal-find")
    talks = [Question(me, name, info_hash, hashed) for name in topology.shards]
    whys = asking.talk_to_shards(config, mine, talks, timeout)
    slice_id = hashed & (config.slices - 1)
    many = len(topology.shards)
    order = list(topology.ring.order[slice_id * many : (slice_id + 1) * many])
    return {
        "info_hash": info_hash.hex(),
        "slice": slice_id,
        "slices": config.slices,
        "owner": topology.shards[order[0]],
        "shards": [
            {
                "name": topology.shards[at],
                "node": config.node_of(config.shards[at]),
                "role": role_of(place, topology.ring.members, talks[at].holds()),
                **talks[at].told(slice_id, talks[at].refused or whys[at]),
            }
            for place, at in enumerate(order)
        ],
    }


def role_of(place: int, members: int, holds: bool) -> str:
    """What a shard is to a slice, by its place in the order, of which so many should hold it."""
    if place < members:
        return "replica" if place else "owner"
    return "stray" if holds else "next"


class Question:
    """How many peers has a torrent? First a ping: only who pings may ask."""

    def __init__(self, me: Self, name: str, info_hash: bytes, hashed: int) -> None:
        self.me = me
        self.name = name
        self.info_hash = info_hash
        self.hashed = hashed
        self.ticket = secrets.token_bytes(frames.TICKET)
        self.pong: control.Hello | None = None
        self.refused = ""  # why it cannot be asked
        self.counts: dict[str, int] = {}
        self.done = False

    def begin(self) -> bytes:
        """The ping."""
        return control.pack_hello(frames.PING, 1, self.me.hello(milliseconds()))

    def hear(self, frame: memoryview) -> bytes | None:
        """A pong, then a reply; the question between them. Raises FrameError."""
        head = control.header(frame)
        if head.kind == frames.PONG and self.pong is None:
            return self._ask(control.unpack_hello(frame))
        if head.kind == frames.REPLIES and head.boot == self.me.life.boot:
            self._take_counts(head, frame)
        return None

    def _ask(self, pong: control.Hello) -> bytes | None:
        self.pong = pong
        known = self.me.topology
        if pong.cluster != known.cluster:
            self.refused = "it has another cluster key"
        elif pong.slices != known.slices:
            self.refused = f"it has {pong.slices} slices"
        elif pong.name != self.name:
            self.refused = f"there is {pong.name}"
        elif len(pong.states) != control.states_length(known.slices):
            raise FrameError("a pong without the states of all slices")
        if self.refused:
            self.done = True
            return None
        head = control.HEADER.pack(frames.VERSION, frames.RECORDS, 1, 2, pong.boot, pong.tick)
        return head + RECORD.pack(self.ticket, self.hashed, self.info_hash, LOCAL, 0, frames.EVENT_SCRAPE, 0)

    def _take_counts(self, head: control.Header, frame: memoryview) -> None:
        if head.records != 1 or len(frame) != frames.HEADER + frames.REPLY:
            raise FrameError("not one reply to a scrape")
        _, _, _, _, partial, completed, ticket = REPLY.unpack_from(frame, frames.HEADER)
        if ticket != self.ticket:
            raise FrameError("a reply to somebody else")
        seeders, _, leechers = COUNTS.unpack_from(frame, frames.HEADER + frames.AT_INTERVAL)
        self.counts = {"seeders": seeders, "leechers": leechers, "partial_seeds": partial, "completed": completed}
        self.done = True

    def holds(self) -> bool:
        """Whether the shard has anything of the torrent."""
        return any(self.counts.values())

    def told(self, slice_id: int, why: str) -> dict[str, Any]:
        """What the shard said: its state of the slice and its counts; or why it said nothing."""
        if why or self.pong is None:
            return {"heard": False, "why": why}
        state = STATES[control.state_of(self.pong.states, slice_id)]
        return {"heard": True, "state": state, "stopping": self.pong.stopping, "holds": self.holds(), **self.counts}
