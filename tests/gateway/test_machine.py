"""A gateway's side of all links without sockets: announces in, frames out, replies back; the clock is told."""

import importlib
import socket

import pytest
from http_bench import CLUSTER, Bench, announce_head, announce_reply, kernels_of
from packing import HEADER

from common import config, control, frames
from common.batch_io import Batch, address_of
from common.control import Hello, pack_hello
from common.life import Life
from common.link_state import PING_EVERY, SILENT
from common.topology import Self, Topology
from gateway.machine import GatewayMachine
from gateway.router import Router
from gateway.shards import Shards
from gateway.siphash import siphash
from gateway.udp_codec import UdpCodec

SLICES = 16
DEPTH = 8
START = 10_000
BOOT = 500


def topology_of(*numbers, **words):
    shards = [{"name": f"shard{number}"} for number in numbers]
    return Topology(config.read({"slices": SLICES, "shards": shards, **words}), CLUSTER)


class Rig:
    """A gateway; what it sends is kept, by shard."""

    def __init__(self, *numbers, **words):
        topology = topology_of(*numbers, **words)
        self.now = START
        self.sent = {}
        self.away = set()
        self.told = []  # who is not asked, each time that it changed
        self.shards = Shards(Self(topology, Life(START, lambda: BOOT), frames.ROLE_GATEWAY, "gateway1"))
        self.machine = GatewayMachine(self.shards, self.send, lambda: self.now, self.note_change)
        self.bench = Bench(
            kernels_of(importlib.import_module), links=self.machine.count, slices=SLICES, depth=DEPTH, most=32
        )
        udp = UdpCodec(Batch([socket.AF_INET], DEPTH), self.bench.records, self.bench.sources, 50, 200, 6, False)
        self.router = Router(self.bench.records, udp, self.bench.codec)
        self.machine.connect(self.router)

    def send(self, name, frame):
        if name in self.away:
            return False
        self.sent.setdefault(name, []).append(bytes(frame))
        return True

    def note_change(self):
        self.told.append(self.shards.away())

    def pong(self, name, state=None, **changes):
        """Ping a shard, and take its pong: it is full of what it should hold, or shows one state of it."""
        topology = self.shards.me.topology
        held = topology.ring.held_by(topology.shards.index(name))
        wanted = frames.STATE_FULL if state is None else state
        states = control.pack_states([wanted * (slice_id in held) for slice_id in range(SLICES)])
        link = self.shards.by_name[name]
        link.next_ping = 0
        hello = Hello(1, 2, 1, 0, topology.cluster, SLICES, frames.ROLE_SHARD, False, name, states=states)
        pong = pack_hello(frames.PONG, link.ping_due(self.now), hello._replace(**changes))
        assert not self.take(name, pong)

    def take(self, name, frame):
        buffer = memoryview(bytearray(frame))
        return self.machine.take(name, buffer, address_of(buffer), self.now)

    def hear(self, *names, **words):
        for name in names:
            self.pong(name, **words)
        self.machine.look(self.now)

    def put(self, *info_hashes):
        """Let announces come; they wait in their frames."""
        self.bench.put(*(announce_head(each) for each in info_hashes))
        assert self.bench.codec.decode(0, self.bench.now, self.bench.seconds) == len(info_hashes)
        self.bench.connections.clear()

    def ask(self, *info_hashes):
        self.put(*info_hashes)
        self.router.dispatch()

    def asked(self):
        """The info-hashes of the frames that were sent since the last call, by shard: of announces, and of copies."""
        found = {}
        for name, sent in self.sent.items():
            for frame in sent:
                assert HEADER.unpack_from(frame)[1] == frames.RECORDS
                for at in range(frames.HEADER, len(frame), frames.RECORD):
                    is_copy = frame[at + frames.AT_EVENT] & frames.FLAG_NO_REPLY != 0
                    own = found.setdefault(name, ([], []))[is_copy]
                    own.append(frame[at + frames.AT_INFO_HASH :][:20])
        self.sent = {}
        return found

    def answers(self):
        return [answer for _, answer, _ in self.bench.answers()]


def hash_of(topology, shard):
    """An info-hash that a shard owns."""
    wanted = topology.shards.index(shard)
    hashes = (number.to_bytes(20) for number in range(10_000))
    return next(each for each in hashes if topology.ring.owner(siphash(CLUSTER, each) % SLICES) == wanted)


@pytest.fixture
def rig():
    return Rig(1, 2, 3)


@pytest.fixture
def hashes(rig):
    """One of each shard."""
    return [hash_of(rig.shards.me.topology, name) for name in rig.shards.me.topology.shards]


def test_with_nobody_heard_announces_are_answered_here(rig, hashes):
    rig.ask(*hashes)
    assert rig.sent == {}
    assert rig.machine.nobody.answered == 3
    assert len(rig.answers()) == 3
    assert rig.machine.asked == []


def test_owners_are_asked_and_their_replies_become_answers(rig, hashes):
    rig.hear("shard1", "shard2", "shard3")
    rig.ask(*hashes)
    (frame,) = rig.sent["shard2"]
    assert rig.asked() == {f"shard{at}": ([info_hash], []) for at, info_hash in enumerate(hashes, 1)}
    reply = HEADER.pack(frames.VERSION, frames.REPLIES, 1, 1, BOOT, START) + announce_reply(frame[frames.HEADER :][:48])
    assert rig.take("shard2", reply)
    (answer,) = rig.answers()
    assert answer.startswith(b"HTTP/1.1 200 OK")
    assert [link.name for link in rig.machine.asked] == ["shard1", "shard2", "shard3"]
    assert not rig.take("shard9", reply)


def test_who_is_being_filled_gets_copies(rig, hashes):
    rig.hear("shard1", "shard2", "shard3")
    rig.hear("shard1", state=frames.STATE_PART)
    rig.hear("shard3", states=control.pack_states([frames.STATE_LEAVING] * SLICES))
    rig.ask(*hashes)
    assert rig.asked() == {
        "shard1": ([], [hashes[0]]),
        "shard2": ([hashes[1]], []),
        "shard3": ([hashes[0], hashes[2]], []),
    }


def test_of_a_shard_that_falls_silent_the_next_is_asked_and_what_waited_is_shed(rig, hashes):
    rig.hear("shard1", "shard2", "shard3")
    assert rig.told == [[]]
    link = rig.shards.by_name["shard2"]
    while link.has_room():
        link.note_sent()
    rig.ask(hashes[1])
    assert rig.asked() == {}
    rig.now += SILENT + 1
    rig.pong("shard1")
    rig.pong("shard3")
    rig.machine.tick(rig.now)
    assert rig.told[-1] == ["shard2"]
    assert rig.machine.remote["shard2"].shed == 1
    rig.sent = {}
    rig.ask(hashes[1])
    ((name, (own, copies)),) = rig.asked().items()
    assert name in ("shard1", "shard3")
    assert (own, copies) == ([hashes[1]], [])


def test_who_is_not_there_is_found_out_by_sending(rig, hashes):
    rig.hear("shard1", "shard2", "shard3")
    rig.away = {"shard2"}
    rig.ask(hashes[1])
    assert rig.told[-1] == ["shard2"]
    assert rig.machine.remote["shard2"].shed == 1
    rig.ask(hashes[1])
    assert len(rig.asked()) == 1
    assert rig.machine.nobody.answered == 0


def test_with_nobody_there_any_longer_announces_are_answered_here(rig, hashes):
    rig.hear("shard1", "shard2", "shard3")
    rig.away = {"shard1", "shard2", "shard3"}
    rig.ask(*hashes)
    assert [link.shed for link in rig.machine.remote.values()] == [1, 1, 1]
    rig.ask(*hashes)
    assert rig.machine.nobody.answered == 3


def test_what_waits_is_sent_once_there_is_room(rig, hashes):
    rig.hear("shard1", "shard2", "shard3")
    link = rig.shards.by_name["shard2"]
    while link.has_room():
        link.note_sent()
    rig.ask(hashes[1], hashes[1])
    assert not rig.machine.go_on("shard1")
    assert rig.asked() == {}
    link.note_replies()
    assert rig.machine.go_on("shard2")
    assert rig.asked() == {"shard2": ([hashes[1]] * 2, [])}
    assert not rig.machine.go_on("shard2")
    assert not rig.machine.go_on("shard9")


def test_pings_are_sent_each_half_second(rig):
    rig.machine.tick(rig.now, b'{"a":1}')
    rig.machine.tick(rig.now + PING_EVERY - 1)
    assert {name: len(sent) for name, sent in rig.sent.items()} == {"shard1": 1, "shard2": 1, "shard3": 1}
    assert control.unpack_hello(memoryview(rig.sent["shard1"][0])).report == b'{"a":1}'
    rig.away = {"shard1"}
    rig.machine.tick(rig.now + PING_EVERY)
    assert {name: len(sent) for name, sent in rig.sent.items()} == {"shard1": 1, "shard2": 2, "shard3": 2}


# Configurations


def test_what_waits_is_sent_before_another_configuration(rig, hashes):
    rig.hear("shard1", "shard2", "shard3")
    link = rig.shards.by_name["shard3"]
    while link.has_room():
        link.note_sent()
    rig.ask(hashes[2])
    rig.put(hashes[0])
    rig.machine.configure(topology_of(3, 1, 2, 4), rig.now)
    assert rig.asked() == {"shard1": ([hashes[0]], []), "shard3": ([hashes[2]], [])}
    assert list(rig.machine.remote) == ["shard3", "shard1", "shard2", "shard4"]
    assert rig.machine.count == rig.bench.records.links == 5
    link.note_replies()
    link.note_replies()
    rig.ask(*hashes)
    assert rig.asked() == {f"shard{at}": ([info_hash], []) for at, info_hash in enumerate(hashes, 1)}


def test_counts_of_a_shard_outlive_configurations(rig, hashes):
    rig.hear("shard1", "shard2", "shard3")
    rig.ask(*hashes)
    before = rig.machine.remote["shard2"]
    rig.machine.configure(topology_of(2, 3), rig.now)
    assert rig.machine.remote["shard2"] is before
    assert before.frames == 1


def test_an_added_shard_gets_copies_while_it_is_filled_and_is_asked_then(rig, hashes):
    rig.hear("shard1", "shard2", "shard3")
    rig.machine.configure(topology_of(1, 2, 3, 4), rig.now)
    moved = hash_of(rig.shards.me.topology, "shard4")
    rig.ask(moved)
    ((before, (own, _)),) = rig.asked().items()
    assert own == [moved]
    rig.hear("shard4", state=frames.STATE_PART)
    rig.ask(moved)
    assert rig.asked() == {before: ([moved], []), "shard4": ([], [moved])}
    rig.hear("shard4")
    rig.ask(moved)
    assert rig.asked() == {before: ([], [moved]), "shard4": ([moved], [])}


def test_a_shard_that_the_file_lacks_is_linked_until_it_holds_nothing(rig, hashes):
    rig.hear("shard1", "shard2", "shard3")
    rig.machine.configure(topology_of(1, 2), rig.now)
    rig.machine.tick(rig.now)
    assert list(rig.machine.remote) == ["shard1", "shard2", "shard3"]
    rig.sent = {}
    rig.ask(hashes[2])
    assert rig.asked() == {"shard3": ([hashes[2]], [])}
    rig.hear("shard3", states=bytes(SLICES // 4))
    rig.machine.tick(rig.now)
    assert list(rig.machine.remote) == ["shard1", "shard2"]
    assert rig.machine.count == rig.bench.records.links == 3
    rig.sent = {}
    rig.ask(hashes[2])
    assert rig.asked().keys() < {"shard1", "shard2"}


def test_with_other_shards_and_none_of_them_heard_announces_are_answered_here(rig, hashes):
    rig.machine.configure(topology_of(7), rig.now)
    rig.ask(*hashes)
    assert rig.machine.nobody.answered == 3
    rig.hear("shard7")
    rig.ask(*hashes)
    assert rig.asked() == {"shard7": (hashes, [])}
