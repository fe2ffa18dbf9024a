"""Hostile input in bulk."""

import os
import random

import pytest
from trackers import action_of, announce_request, connect_request, is_answer, pack_name, scrape_request

from common import counters
from gateway import udp_codec

DEPTH = 1024
TURNS = 1000 if udp_codec.__file__.endswith(".so") else 10  # uncompiled, a million would take an hour
UNLIMITED = {"rate": 100_000, "burst": 10_000_000}
NO_LIMITS = {"connects": UNLIMITED, "requests": UNLIMITED, "errors": 100_000, "new_swarms": 65_535}


class Forger:
    """Makes datagrams as a stranger at `HOST` might: noise, and real requests with something changed."""

    HOST = "8.8.8.8"

    def __init__(self, seed, connection_id):
        self.random = random.Random(seed)
        self.id = connection_id
        self.hashes = [self.random.randbytes(20) for _ in range(50)]

    def noise(self):
        """Random bytes, often with an action in its place."""
        length = int(self.random.random() ** 3 * 2048)
        data = self.random.randbytes(length)
        if length >= 12 and self.random.random() < 0.5:
            data = data[:8] + bytes([0, 0, 0, int(self.random.random() * 5)]) + data[12:]
        return data

    def mutant(self, connection_id):
        """A request with a few bytes changed after its id, maybe cut or made longer."""
        kind = int(self.random.random() * 4)
        hashes = self.random.sample(self.hashes, 3)
        if kind == 0:
            data = connect_request()
        elif kind == 1:
            data = scrape_request(connection_id, *hashes[: 1 + int(self.random.random() * 3)])
        else:
            tail = self.random.randbytes(int(self.random.random() * 40))
            data = announce_request(connection_id, hashes[0], event=int(self.random.random() * 5), tail=tail)
        data = bytearray(data)
        for _ in range(int(self.random.random() * 4)):
            data[8 + int(self.random.random() * (len(data) - 8))] = int(self.random.random() * 256)
        if self.random.random() < 0.2:
            data = data[: int(self.random.random() * len(data))] + self.random.randbytes(20 * (kind == 3))
        return bytes(data)

    def forged_id(self):
        """The id with at least one bit changed."""
        number = int.from_bytes(self.id, "big") ^ (1 + int(self.random.random() * ((1 << 64) - 1)))
        return number.to_bytes(8, "big")

    def batch(self, proven):
        """A batch of datagrams; each comes from a port of its own."""
        for port in range(1, DEPTH + 1):
            name = pack_name(self.HOST, port)
            if self.random.random() < 0.6:
                yield name, self.noise()
            else:
                yield name, self.mutant(self.id if proven else self.forged_id())


def state_of(tracker):
    """All that a shard's records could have changed."""
    store = tracker.store
    return tracker.call(lambda: (store.counters(), store.swarm_count(), store.peers_by_kind(), store.bytes_taken()))


def test_c67_a_million_datagrams(local):
    """C67 1 M random datagrams: no exception, no reply longer than the input. [R]"""
    tracker = local(limits=NO_LIMITS)
    connection_id = tracker.id_of(Forger.HOST)
    forger = Forger(67, connection_id)
    answers = 0
    for turn in range(TURNS):
        proven = turn % 4 == 3
        batch = list(forger.batch(proven))
        asked = dict(batch)
        before = state_of(tracker)
        for name, reply in tracker.feed(batch, now=turn * 1_000_000):
            request = asked[name]
            answers += 1
            if request[:8] == connection_id and is_answer(reply, request):
                continue
            assert len(reply) <= len(request)
            assert len(reply) == 16 or action_of(reply) == 3
        if not proven:
            assert state_of(tracker) == before
    counted = tracker.counters()
    assert answers == sum(counted[place] for place in counters.ANSWER_KINDS.values()) > 100 * TURNS
    for reason in ("too_short", "no_connect", "bad_connection_id", "unknown_action", "malformed_announce", "no_hashes"):
        assert counted[counters.REFUSALS[reason]] > TURNS
    assert state_of(tracker)[0][counters.STORED] > TURNS


def test_c67_over_a_socket(local, client_of):
    """Twenty thousand of them that the system brings."""
    tracker = local(limits=NO_LIMITS)
    client = client_of(tracker.addresses[0])
    forger = Forger(20_000, client.id)
    before = state_of(tracker)
    datagrams = [data for _ in range(20) for _, data in forger.batch(proven=False)]
    for at in range(0, len(datagrams), 64):
        for reply in client.exchange(*datagrams[at : at + 64]):
            assert len(reply) == 16 or (len(reply) == 30 and action_of(reply) == 3)
    assert state_of(tracker) == before
    assert client.announce(forger.hashes[0]).leechers == 1


def test_c145_a_source_adds_few_torrents(local, client_of, swarm):
    """C145 Random-hash flood: memory bounded, existing swarms unaffected. (P) [iss:trackerslist#680]"""
    tracker = local(listen=["0.0.0.0:0"], limits=NO_LIMITS | {"exempt": [], "new_swarms": 60, "entries": 100})
    port = tracker.addresses[0][1]
    good, bad = client_of(("127.0.0.1", port)), client_of(("127.0.0.2", port))
    good.announce(swarm, port=2000, left=0)
    for _ in range(1000):
        bad.announce(os.urandom(20))  # it gets an answer
    assert tracker.call(tracker.store.swarm_count) == 61
    for peer in range(3000, 3200):  # nor many peers
        bad.announce(swarm, port=peer)
    assert bad.scrape(swarm) == [(1, 0, 40)]
    fates = tracker.call(tracker.store.counters)
    assert fates[counters.SWARM_LIMIT] == 940
    assert fates[counters.ENTRY_LIMIT] == 160
    assert bad.announce(swarm, port=9999, left=0).leechers == 40  # who is not stored is served
    assert good.announce(swarm, port=2001, want=200).leechers == 41
    tracker.advance(60)
    bad.announce(os.urandom(20), port=3000)
    assert tracker.call(tracker.store.counters)[counters.ENTRY_LIMIT] == 162


def test_c145_beyond_its_tokens_a_source_hears_nothing(local, client_of, swarm):
    """Others do."""
    tracker = local(listen=["0.0.0.0:0"], limits={"exempt": ["127.0.0.1"], "requests": {"rate": 1, "burst": 300}})
    port = tracker.addresses[0][1]
    good, bad = client_of(("127.0.0.1", port)), client_of(("127.0.0.2", port))
    bad_id = bad.id
    for _ in range(50):
        for _ in range(20):
            bad.send(announce_request(bad_id, os.urandom(20)))
        assert good.announce(swarm).leechers == 1
    counted = tracker.counters()
    assert counted[counters.REQUEST_LIMIT] > 0
    assert counted[counters.ANNOUNCES] == 1050


@pytest.mark.timeout(200)
def test_c145_memory_is_bounded(local, client_of, swarm):
    """The memory ceiling holds against a flood from many sources, and who is stored stays."""
    ceiling = 16 << 20
    tracker = local(memory="16 MiB", limits=NO_LIMITS | {"exempt": [], "entries": 10_000_000})
    client = client_of(tracker.addresses[0])
    for port in range(2000, 2020):
        client.announce(swarm, port=port, left=0)
    hosts = [f"8.8.{n}.8" for n in range(256)]
    sources = [(pack_name(host, 5000), announce_request(tracker.id_of(host), bytes(20), want=0)) for host in hosts]
    for turn in range(400):
        batch = [(name, request[:16] + os.urandom(20) + request[36:]) for name, request in sources * 4]
        assert len(tracker.feed(batch, now=turn * 1_000_000)) == DEPTH
    fates, swarms, _, taken = state_of(tracker)
    assert taken <= ceiling
    assert fates[counters.MEMORY] > 0
    assert swarms > ceiling // 128
    assert client.scrape(swarm) == [(20, 0, 0)]
    assert len(client.announce(swarm, port=2000).peers) == 19
    client.announce(os.urandom(20))
    assert state_of(tracker)[3] <= ceiling
