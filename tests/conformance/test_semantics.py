"""What is stored, counted and listed."""

import hashlib
import json
import struct
from pathlib import Path

import pytest
from trackers import COMPLETED, PAUSED, STARTED, STOPPED, Local

from common import frames
from common.keys import CLUSTER, load_cluster_key
from gateway.siphash import siphash

VECTORS = json.loads((Path(__file__).parents[1] / "vectors.json").read_text())
LIFETIME = 1800 * 165 // 100 + 300


@pytest.mark.parametrize("fields", [{}, {"event": PAUSED}, {"left": 0}, {"event": COMPLETED, "left": 0}])
def test_c131_started_need_not_come_first(client, swarm, fields):
    """C131 First announce without started creates the peer. [lt paused-first]"""
    answer = client.announce(swarm, port=2000, **fields)
    assert answer.leechers + answer.seeders == 1
    assert client.announce(swarm, port=2001).peers == [("127.0.0.1", 2000)]


def partial_seeds(tracker, tmp_path, info_hash):
    """What the shard's reply to a scrape says; HTTP shows incomplete less these as downloaders."""
    hashed = siphash(load_cluster_key(tmp_path / CLUSTER), info_hash)
    record = bytes(48) + struct.pack("<Q", hashed) + info_hash + bytes(18) + bytes([frames.EVENT_SCRAPE, 0])
    frame = struct.pack("<HHIQQQ", frames.VERSION, frames.RECORDS, 1, 0, 0, 0) + record
    reply = tracker.call(lambda: bytes(tracker.tracker.shard.answer(frame)))
    return struct.unpack_from("<I", reply, frames.HEADER + frames.AT_PARTIAL_SEEDS)[0]


def test_c132_partial_seeds(local, client_of, swarm, tmp_path):
    """C132 paused with left>0 counts in incomplete, not in downloaders; next plain announce clears it. [BEP21]"""
    tracker = local()
    client = client_of(tracker.addresses[0])
    client.announce(swarm, port=2000)
    for fields, partial in (
        ({"event": PAUSED}, 1),
        ({"event": PAUSED}, 1),
        ({}, 0),
        ({"event": PAUSED}, 1),
        ({"event": STARTED}, 0),
        ({"event": PAUSED}, 1),
    ):
        client.announce(swarm, port=2001, left=5, **fields)
        assert client.scrape(swarm) == [(0, 0, 2)]
        assert partial_seeds(tracker, tmp_path, swarm) == partial
    client.announce(swarm, port=2001, left=0, event=PAUSED)
    assert client.scrape(swarm) == [(1, 1, 1)]
    assert partial_seeds(tracker, tmp_path, swarm) == 0
    client.announce(swarm, port=2000, event=PAUSED)
    client.announce(swarm, port=2000, event=STOPPED)
    assert partial_seeds(tracker, tmp_path, swarm) == 0


@pytest.mark.parametrize(
    ("story", "completed"),
    [
        ([{"event": COMPLETED, "left": 0}], 1),  # unknown before
        ([{"left": 5}, {"event": COMPLETED, "left": 0}], 1),
        ([{"left": 5}, {"event": COMPLETED, "left": 0}, {"event": COMPLETED, "left": 0}], 1),
        ([{"left": 5}, {"left": 0}], 1),  # without the event
        ([{"left": 5}, {"left": 0}, {"event": COMPLETED, "left": 0}], 1),
        ([{"left": 5}, {"event": COMPLETED, "left": 0}, {"left": 5}, {"left": 0}], 1),  # once an entry
        ([{"left": 0}, {"left": 0}], 0),  # a seeder that was one before
        ([{"left": 0}, {"event": COMPLETED, "left": 0}], 1),
        ([{"left": 5}, {"event": COMPLETED, "left": 5}], 0),
        ([{"event": COMPLETED, "left": 5}], 0),
        ([{"left": 5}, {"event": STOPPED, "left": 0}], 0),
        ([{"left": 5}, {"event": COMPLETED, "left": 0}, {"event": STOPPED}], 1),  # it outlives the peer
    ],
)
def test_c133_completed(client, swarm, story, completed):
    """C133 Completed counter rules of 5.4, including leecher->seeder without event, duplicate completed, completed
    with left>0. [lt m_complete_sent, wt, ot, u3d]
    """
    client.announce(swarm, port=2000)
    for fields in story:
        client.announce(swarm, port=2001, **fields)
    assert client.scrape(swarm)[0].completed == completed


def test_c134_silent_peers_are_forgotten(local, client_of, swarm):
    """C134 Peer silent for TTL disappears from lists and counts; at TTL-1 it is present. (P) [5.3]"""
    tracker = local()
    client = client_of(tracker.addresses[0])
    client.announce(swarm, port=2000)
    tracker.advance(LIFETIME - 1)
    assert client.announce(swarm, port=2001).peers == [("127.0.0.1", 2000)]
    tracker.advance(1 + 5)
    answer = client.announce(swarm, port=2001)
    assert answer.peers == []
    assert answer.leechers == 1
    tracker.advance(LIFETIME + 5)
    assert client.scrape(swarm) == [(0, 0, 0)]
    assert tracker.call(tracker.store.swarm_count) == 0


def test_c134_a_change_of_the_wall_clock_forgets_nobody(local, client_of, swarm):
    """Peers age by a clock of their own."""
    tracker = local()
    client = client_of(tracker.addresses[0])
    client.announce(swarm)
    for wall in (0, 4_000_000_000):
        tracker.wall = wall
        tracker.advance(10)
        assert client_of(tracker.addresses[0]).scrape(swarm) == [(0, 0, 1)]


def test_c135_a_new_peer_id_is_no_new_peer(client, swarm):
    """C135 Same IP+port, new peer_id: one entry. [aq, chi key]"""
    for peer_id in (b"-TR4060-0123456789ab", b"-qB4670-!I_EUqrSvcsd"):
        assert client.announce(swarm, peer_id=peer_id).leechers == 1


def test_c137_nobody_stops_another(tracker, client_of, swarm):
    """C137 stopped from IP B cannot remove the entry of IP A with the same peer_id. [R]"""
    port = tracker.addresses[3][1]
    mine, other = (client_of((host, port)) for host in ("127.0.0.1", "127.0.0.2"))
    mine.announce(swarm, port=2000)
    other.announce(swarm, port=2000, event=STOPPED)
    mine.announce(swarm, port=2001, event=STOPPED)
    assert mine.scrape(swarm) == [(0, 0, 1)]


def test_c139_v2_hashes_are_torrents_of_their_own(client):
    """C139 v2 truncated hash is an ordinary swarm key, separate from the v1 swarm. [BEP52, lt all_versions]"""
    info = VECTORS["bep52"]["info"].encode()
    v1, v2 = hashlib.sha1(info).digest(), hashlib.sha256(info).digest()[:20]
    assert v2.hex() == VECTORS["bep52"]["announced_info_hash"]
    client.announce(v1, left=0)
    client.announce(v2)
    assert client.scrape(v1, v2) == [(1, 0, 0), (0, 0, 1)]


PRIVATE = ("10.1.2.3", "172.16.0.1", "172.31.255.255", "192.168.1.1", "100.64.0.1", "169.254.1.1", "127.0.0.1")
NOWHERE = ("0.1.2.3", "224.0.0.1", "239.255.255.255", "240.0.0.1", "255.255.255.255")


def test_c140_private_peers_are_not_listed_to_the_public(client, swarm):
    """C140 Private, loopback, multicast endpoints not listed to public requesters. (P)"""
    client.announce(swarm, port=1000, ip="8.8.8.8")
    for port, ip in enumerate(PRIVATE + NOWHERE, 2000):
        client.announce(swarm, port=port, ip=ip)
    assert client.announce(swarm, port=3000, ip="9.9.9.9").peers == [("8.8.8.8", 1000)]


def test_c140_private_sources(local, client_of, swarm):
    """Peers that really are at private addresses; they list each other, and the public peers."""
    tracker = local()
    everybody = ("8.8.8.8", *PRIVATE, *NOWHERE)
    for port, host in enumerate(everybody, 2000):
        tracker.announce_from(host, swarm, port=port)
    assert tracker.announce_from("9.9.9.9", swarm).peers == [("8.8.8.8", 2000)]
    seen = dict(tracker.announce_from("10.0.0.1", swarm, port=3000).peers)
    assert seen == {"9.9.9.9": 6881} | {host: port for port, host in enumerate(("8.8.8.8", *PRIVATE), 2000)}


def test_c143_intervals_differ_by_a_tenth(client, swarm):
    """C143 Interval jitter within +-10 %. (S) [ot]"""
    intervals = [client.announce(swarm).interval for _ in range(300)]
    assert 1620 <= min(intervals) < 1680
    assert 1920 < max(intervals) <= 1980


def test_c144_nobody_is_too_early(client, swarm):
    """C144 Early re-announce gets a success reply. (P) [5.3]"""
    client.announce(swarm, port=2000)
    for _ in range(5):
        assert client.announce(swarm, port=2001).peers == [("127.0.0.1", 2000)]


def slices_of(tracker, hashes):
    """The slice that each torrent is kept in, as the shard dumps them."""
    store = tracker.store

    def read():
        out = bytearray(frames.CHUNK)
        found = {}
        for slice_id in range(1024):
            cursor = bytearray(frames.CURSOR)
            length = store.dump(slice_id, cursor, out, 0)
            assert cursor[23] == 2
            found |= {info_hash: slice_id for info_hash in hashes if info_hash in out[:length]}
        return found

    return tracker.call(read)


def test_c146_slices_depend_on_the_cluster_key(tmp_path, client_of):
    """C146 Partition choice not predictable from info_hash without the cluster key. (P)"""
    hashes = [bytes(16) + number.to_bytes(4, "big") for number in range(200)]
    places = []
    for name in ("one", "two"):
        with Local(tmp_path / name) as tracker:
            client = client_of(tracker.addresses[0])
            for info_hash in hashes:
                client.announce(info_hash)
            places.append(slices_of(tracker, hashes))
    one, two = places
    assert set(one) == set(two) == set(hashes)
    assert sum(one[info_hash] == two[info_hash] for info_hash in hashes) < 10
    for place in places:  # the hashes share their first 16 bytes, and lie all over
        assert len(set(place.values())) > 150
