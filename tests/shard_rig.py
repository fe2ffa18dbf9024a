"""Shards joined directly in memory, with a told clock: what one sends is there at once, unless a link is cut."""

from collections import Counter
from itertools import count
from types import SimpleNamespace

from packing import Request, pack_frame, split_replies, unpack_chunk, unpack_reply

from common import config, control, frames
from common.clock import SteadyClock
from common.control import Hello, pack_hello
from common.life import Life
from common.topology import Self, Topology
from shard.machine import ShardMachine
from shard.service import ShardWorker

KEY = bytes(16)
SLICES = 16
START = 10_000
STEP = 250  # ms between two ticks
GATEWAY = b"\0gate"
NONE, PART, LEAVING, FULL = frames.STATE_NONE, frames.STATE_PART, frames.STATE_LEAVING, frames.STATE_FULL


def topology_of(*numbers, **words):
    """That of a configuration of shards with these numbers."""
    shards = [{"name": f"shard{number}"} for number in numbers]
    return Topology(config.read({"slices": SLICES, "shards": shards, **words}), KEY)


def peer_of(slice_id, number=1, torrent=0, **words):
    """An announce of a peer of some torrent of a slice, each from an address of its own."""
    address = f"5.{number >> 16}.{number >> 8 & 0xFF}.{number & 0xFF}"
    info_hash = bytes([slice_id, 0, 0, 0, torrent]) + bytes(15)
    return Request(info_hash, address=address, port=6881, exempt=True).but(**words)


class OneShard:
    """A shard. It keeps what is sent over its links as (to whom, kind of frame)."""

    def __init__(self, cluster, name, topology, memory=16 << 20):
        self.cluster = cluster
        self.name = name
        self.clock = SteadyClock(lambda: cluster.now / 1000)
        boots = count(1000 * (1 + len(cluster.lives)))
        cluster.lives.append(name)
        me = Self(topology, Life(cluster.now, lambda: next(boots)), frames.ROLE_SHARD, name)
        shard = SimpleNamespace(name=name, memory=memory)
        self.worker = ShardWorker(topology.config, shard, self.clock)
        self.store = self.worker.store
        self.machine = ShardMachine(me, self.worker, bytes, lambda _: b"{}", cluster.now, cluster.timing)
        self.copies = self.machine.copies

    def tick(self):
        self.machine.beat(self.cluster.now)
        self.clock.seconds()
        self.send(self.machine.tick(self.cluster.now))
        self.machine.is_done(self.cluster.now)

    def send(self, out):
        for name, frame in out:
            self.cluster.carry(self.name, name, frame)

    def take(self, sender, frame):
        self.machine.beat(self.cluster.now)
        answer = self.machine.take(sender, memoryview(frame), self.cluster.now)
        return None if answer is None else bytes(answer)

    def hear(self, name, frame):
        """A frame comes over the link to another; returns what is to be sent."""
        self.machine.beat(self.cluster.now)
        return self.machine.hear(name, memoryview(frame), self.cluster.now)

    def ping(self, sender, role=frames.ROLE_GATEWAY, name="gateway1", **changes):
        """Let somebody ping; what the pong says."""
        known = self.machine.me.topology
        hello = Hello(900, 4321, known.version, known.table, known.cluster, SLICES, role, False, name)
        return control.unpack_hello(
            memoryview(self.take(sender, pack_hello(frames.PING, 1, hello._replace(**changes))))
        )

    def ask(self, *requests):
        """What a gateway is answered."""
        self.ping(GATEWAY)
        frame = pack_frame(list(requests), 7, self.machine.me.life.boot, self.cluster.now)
        return [unpack_reply(reply) for reply in split_replies(self.take(GATEWAY, frame))]

    def announce(self, *requests):
        """Let a gateway's records come that ask for no reply."""
        assert self.ask(*(request.but(no_reply=True) for request in requests)) == []

    @property
    def states(self):
        return [self.store.state_of(slice_id) for slice_id in range(SLICES)]

    @property
    def wanted(self):
        """The slices that the configuration gives it."""
        topology = self.machine.me.topology
        return topology.ring.held_by(topology.shards.index(self.name))

    @property
    def dropped(self):
        return {reason: many for reason, many in self.machine.dropped.items() if many}

    def peers(self, slice_id):
        """Who is stored of a slice: of each torrent the endpoints."""
        cursor, out, found = bytearray(frames.CURSOR), bytearray(frames.CHUNK), {}
        while cursor[23] != 2:
            length = self.store.dump(slice_id, cursor, out, self.clock.seconds())
            for section in unpack_chunk(bytes(out[:length])):
                found.setdefault(section.info_hash, set()).update(endpoint for endpoint, _, _ in section.peers)
        return found


class Joined:
    """Shards that reach each other. cut: pairs (from, to) between which no frame goes. still: who stands still, and
    what came for it meanwhile."""

    def __init__(self, *numbers, timing=None, memory=16 << 20, **words):
        self.now = START
        self.timing = timing
        self.memory = memory
        self.cut = set()
        self.still = {}
        self.lives = []
        self.sent = Counter()  # frames by (from, to, kind)
        self.refuse = lambda source, to, kind: False  # frames that get lost
        self.topology = topology_of(*numbers, **words)
        self.shards = {}
        for name in self.topology.shards:
            self.start(name)

    def __getitem__(self, number):
        return self.shards[f"shard{number}"]

    def start(self, name, memory=None):
        """A process begins, with nothing stored."""
        self.shards[name] = OneShard(self, name, self.topology, memory or self.memory)
        return self.shards[name]

    def edit(self, *numbers, only=None, **words):
        """An edit reaches processes: all, or some; shards that are new begin."""
        self.topology = topology_of(*numbers, **words)
        for name in self.topology.shards:
            if name not in self.shards:
                self.start(name)
            elif only is None or name in only:
                self.shards[name].machine.configure(self.topology, self.now)
        for name in self.shards.keys() - set(self.topology.shards):
            if only is None or name in only:
                self.shards[name].machine.configure(self.topology, self.now)

    def carry(self, source, to, frame):
        """A frame on its way over the link of `source` to a shard, and its answer back."""
        if to in self.still:
            self.still[to].append((source, to, frame))
            return
        if not self._passes(source, to, frame):
            return
        answer = self.shards[to].take(source.encode(), frame)
        if answer is not None and self._passes(to, source, answer):
            self.shards[source].send(self.shards[source].hear(to, answer))

    def _passes(self, source, to, frame):
        kind = control.header(memoryview(frame)).kind
        if (source, to) in self.cut or to not in self.shards or self.refuse(source, to, kind):
            return False
        self.sent[source, to, kind] += 1
        return True

    def cut_off(self, one, other):
        self.cut |= {(one, other), (other, one)}

    def stand_still(self, name, milliseconds):
        """Let time pass in which a shard does nothing; then it reads what waited for it."""
        self.still[name] = []
        self.run(milliseconds)
        for waited in self.still.pop(name):
            self.carry(*waited)
        self.shards[name].tick()

    def run(self, milliseconds, step=STEP):
        """Let time pass."""
        end = self.now + milliseconds
        while self.now < end:
            self.now = min(end, self.now + step)
            for shard in list(self.shards.values()):
                if shard.name not in self.still:
                    shard.tick()

    def run_until(self, condition, most=600_000):
        """Let time pass until something is so; returns how long that took."""
        began = self.now
        while not condition():
            assert self.now - began < most, "it does not come"
            self.run(STEP)
        return self.now - began

    def settle(self):
        """Let all be filled."""
        return self.run_until(lambda: all(self.is_settled(shard) for shard in self.shards.values()))

    def is_settled(self, shard):
        return all(shard.store.state_of(slice_id) == FULL for slice_id in shard.wanted)

    def pulls(self, source, to):
        return self.sent[source, to, frames.PULL]
