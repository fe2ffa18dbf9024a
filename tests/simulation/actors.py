"""Gateways and shards of a simulated cluster, on the objects and kernels of the real ones."""

import socket
from random import Random
from types import SimpleNamespace

from packing import unpack_chunk
from trackers import announce_request, as_ipv6, pack_name, put, queued
from world import Process

from common import frames
from common.batch_io import Batch, address_of, allocate
from common.clock import SteadyClock
from common.life import Life
from common.topology import Self
from gateway.machine import GatewayMachine
from gateway.records import Records
from gateway.router import Router
from gateway.shards import Shards
from gateway.sources import Sources
from gateway.udp_codec import UdpCodec
from shard.machine import ShardMachine
from shard.service import ShardWorker

WINDOW = 1000
DEPTH = 8
SWEEP = 2000  # ms between two sweeps
FAREWELL = 1000


class Shard(Process):
    """A shard process. `snapshot`: what it finds when it starts."""

    def __init__(self, world, name, skew, topology, settings, timing, snapshot=None):
        super().__init__(world, name, skew)
        random = Random(world.random.getrandbits(64))
        life = Life(self.local, lambda: random.getrandbits(64) | 1)
        me = Self(topology, life, frames.ROLE_SHARD, name)
        shard = SimpleNamespace(name=name, memory=16 << 20)
        self.worker = ShardWorker(settings, shard, SteadyClock(self.seconds), random.getrandbits)
        self.machine = ShardMachine(me, self.worker, bytes, lambda _: b"{}", self.local, timing)
        if snapshot:
            self.restore(snapshot)
        self.link(self.machine.links)
        self.swept = world.now

    @property
    def store(self):
        return self.worker.store

    def configure(self, topology):
        """Take up a configuration that has this shard."""
        self.beat()
        self.machine.configure(topology, self.local)
        self.link(self.machine.links)
        if self.name not in topology.in_file:
            self.world.counts["shard that the file lacks"] += 1

    def beat(self):
        if self.machine.beat(self.local):
            self.world.counts["stall of a shard"] += 1

    def tick(self):
        self.beat()
        now = self.local
        self.reconnect(self.machine.links)
        for name, frame in self.machine.tick(now):
            self.send(name, frame)
        self.link(self.machine.links)
        if self.machine.is_done(now):
            self.world.counts["shard that ended by itself"] += 1
            self.end()
            return
        if self.world.now - self.swept >= SWEEP:
            self.swept = self.world.now
            self.store.sweep(self.worker.clock.seconds(), 100_000)
        self.worker.clock.seconds()

    def handle(self, kind, line, frame):
        self.beat()
        view = memoryview(frame)
        if kind == "take":
            answer = self.machine.take(line.id, view, self.local)
            if answer is not None and line.up:
                line.send(bytes(answer), there=False)
        else:
            for name, out in self.machine.hear(line.shard, view, self.local):
                self.send(name, out)

    # What outlives it

    def save(self):
        """A snapshot, by the wall clock of this machine."""
        chunks = {}
        now = self.worker.clock.seconds()
        for slice_id in range(self.machine.me.topology.slices):
            if self.store.state_of(slice_id) != frames.STATE_NONE:
                chunks[slice_id] = self.dump(slice_id, now)
        return self.local, chunks

    def dump(self, slice_id, now):
        cursor = bytearray(frames.CURSOR)
        chunks = []
        while cursor[23] != 2:
            length = self.store.dump(slice_id, cursor, self.worker.chunk, now)
            chunks.append(bytes(self.worker.chunk[:length]))
        return chunks

    def restore(self, snapshot):
        """Load what was saved, with ages that went on."""
        self.world.counts["snapshot restored"] += 1
        saved, chunks = snapshot
        passed = -(-(self.local - saved) // 1000)
        now = self.worker.clock.seconds()
        for slice_id, each in chunks.items():
            for chunk in each:
                self.store.load(slice_id, change_ages(chunk, lambda age: min(65_535, age + passed)), now)
        self.machine.copies.restore(chunks, self.local)

    def peers_of(self, slice_id):
        """All endpoints that it has of a slice: {(info-hash, (host, port)): age}."""
        now = self.worker.clock.seconds()
        return {
            (section.info_hash, endpoint): age
            for chunk in self.dump(slice_id, now)
            for section in unpack_chunk(chunk)
            for endpoint, age, _ in section.peers
        }

    def farewell(self):
        """SIGTERM: let others know, then end."""
        self.machine.stopping = True


def change_ages(chunk, change):
    """A chunk whose ages are what `change` makes of them."""
    changed = bytearray(chunk)
    at = 0
    while at < len(changed):
        kind, many = changed[at + 22], changed[at + 23]
        length = 6 if kind < frames.PUBLIC6 else 18
        at += frames.SECTION
        for _ in range(many):
            age = int.from_bytes(changed[at + length : at + length + 2], "little")
            changed[at + length : at + length + 2] = (change(age) & 0xFFFF).to_bytes(2, "little")
            at += length + 3
    return changed


class NoHttp:
    """In place of the codec of HTTP: nobody asks by HTTP here."""

    def fail_scrapes(self, _):
        return 0


class Gateway(Process):
    """A gateway process; clients hand it datagrams. `answered` is called with (name, datagram) of each answer."""

    def __init__(self, world, name, skew, topology, key, answered):
        super().__init__(world, name, skew)
        random = Random(world.random.getrandbits(64))
        life = Life(self.local, lambda: random.getrandbits(64) | 1)
        self.batch = Batch([socket.AF_INET], DEPTH)
        self.machine = GatewayMachine(
            Shards(Self(topology, life, frames.ROLE_GATEWAY, name)),
            self.send_counted,
            lambda: self.local,
            lambda: None,
        )
        records = Records(allocate, self.machine.count, topology.slices, DEPTH)
        records.set_key(key)
        sources = Sources(allocate)
        sources.set_limits(100_000, 100_000, 100_000, 100_000)
        self.codec = UdpCodec(self.batch, records, sources, 50, 200, 6, True)
        self.codec.set_keys(bytes(16), b"", 0)
        self.router = Router(records, self.codec, NoHttp())
        self.machine.connect(self.router)
        self.answered = answered
        self.buffer = allocate(1 << 16)
        self.address = address_of(self.buffer)
        self.frames_sent = 0
        self.link(self.machine.shards.by_name)

    def configure(self, topology):
        self.beat()
        self.machine.configure(topology, self.local)
        self.link(self.machine.shards.by_name)
        self.flush()

    def beat(self):
        if self.machine.shards.beat(self.local):
            self.world.counts["stall of a gateway"] += 1

    def tick(self):
        self.beat()
        self.reconnect(self.machine.shards.by_name)
        self.machine.tick(self.local)
        self.link(self.machine.shards.by_name)
        self.flush()

    def handle(self, kind, line, frame):
        if kind == "ask":
            self.decode(line, frame)
            return
        self.beat()
        self.buffer[: len(frame)] = frame
        if self.machine.take(line.shard, self.buffer[: len(frame)], self.address, self.local):
            self.flush()
        if self.machine.go_on(line.shard):
            self.flush()

    def send_counted(self, name, frame):
        self.frames_sent += frame[frames.AT_KIND] == frames.RECORDS
        return self.send(name, frame)

    # Clients

    def ask(self, source, info_hash, transaction, **what):
        """A client announces; source: its host and port."""
        connection_id = self.codec.connection_id(as_ipv6(source[0]), WINDOW)
        request = bytearray(announce_request(connection_id, info_hash, port=source[1], **what))
        request[12:16] = transaction
        self.put("ask", source, bytes(request))

    def decode(self, source, request):
        self.beat()
        put(self.batch, 0, request, pack_name(*source))
        heard = any(self.machine.shards.usable)
        nobody = self.machine.nobody.answered
        before = self.frames_sent
        self.codec.decode(0, 0, 1, self.local * 1000, WINDOW)
        self.router.dispatch()
        self.flush()
        self.check_asked(heard, self.machine.nobody.answered - nobody, self.frames_sent - before)

    def check_asked(self, heard, by_nobody, sent):
        """Who hears a shard asks it, by no more frames than there are copies and one."""
        world = self.world
        if heard and by_nobody and any(self.machine.shards.usable):
            world.broken("who hears a shard gets an answer from a shard", f"{self.name} answered by itself")
        world.counts["empty answer"] += by_nobody
        world.counts["frame that is a copy"] += max(0, sent - 1)
        if sent > len(self.machine.shards.links):
            world.broken("an answer takes copies + 1 frames", f"{sent} frames of {self.name}")

    def flush(self):
        for name, datagram in queued(self.batch, 0, self.codec.take_pending(0)):
            self.answered(name, datagram)

    def farewell(self):
        """SIGTERM."""
