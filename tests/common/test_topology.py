"""What processes of a cluster agree on, who departs, and what links there are."""

import pytest

from common import config, control, frames
from common.control import Hello
from common.life import Life
from common.link_state import PING_EVERY, LinkState
from common.topology import LINGERS, Self, Topology, lingers, links_of, pings

KEY = bytes(range(16))
START = 10_000


def equal(*numbers):
    return [{"name": f"shard{number}"} for number in numbers]


def a_config(shards, **words):
    return config.read({"version": 5, "slices": 64, "shards": shards, **words})


def a_topology(*numbers, **words):
    return Topology(a_config(equal(*numbers), **words), KEY)


@pytest.fixture
def topology():
    return a_topology(1, 2, 3)


def test_processes_of_the_same_configuration_agree(topology):
    other = a_topology(1, 2, 3)
    assert (other.table, other.cluster, other.version) == (topology.table, topology.cluster, 5)


def test_processes_see_that_they_disagree(topology):
    assert a_topology(1, 2, 3, 4).table != topology.table
    assert Topology(a_config(equal(1, 2, 3)), bytes(16)).cluster != topology.cluster
    heavy = [{"name": "shard1", "weight": 3}, {"name": "shard2"}, {"name": "shard3"}]
    assert Topology(a_config(shards=heavy), KEY).table != topology.table
    assert a_topology(1, 2, 3, replicas=1).table != topology.table


def test_every_shard_owns_something_and_replicas_are_elsewhere():
    topology = a_topology(1, 2, 3, replicas=1)
    held = [topology.ring.held_by(shard) for shard in range(3)]
    assert all(topology.ring.slices_of(shard) for shard in range(3))
    assert sorted(slice_id for slices in held for slice_id in slices) == sorted([*range(64)] * 2)


def test_a_hello_says_all_that_must_agree(topology):
    me = Self(topology, Life(0, lambda: 42), frames.ROLE_GATEWAY, "gateway1")
    assert me.hello(1234, b"{}") == Hello(
        42, 1234, 5, topology.table, topology.cluster, 64, frames.ROLE_GATEWAY, False, "gateway1", report=b"{}"
    )
    assert me.hello(1).report == b""
    me.topology = a_topology(1, 2, version=6)
    assert (me.hello(1).version, me.hello(1).table) == (6, me.topology.table)


# Shards that the file lacks


def test_who_departs_owns_nothing_and_comes_last(topology):
    departing = topology.with_departing(["shard9", "shard0", "shard2"])
    assert departing.shards == ["shard1", "shard2", "shard3", "shard0", "shard9"]
    assert departing.departing == ("shard0", "shard9")
    assert departing.in_file == {"shard1", "shard2", "shard3"}
    assert departing.ring.members == topology.ring.members
    for slice_id in range(64):
        assert list(departing.ring.row(slice_id)[:3]) == list(topology.ring.row(slice_id))
        assert list(departing.ring.row(slice_id)[3:]) == [3, 4]


def test_who_departs_is_no_disagreement(topology):
    departing = topology.with_departing(["shard9"])
    assert (departing.version, departing.table, departing.cluster) == (5, topology.table, topology.cluster)


def test_who_departed_is_in_no_table_any_longer(topology):
    departing = topology.with_departing(["shard9"])
    assert departing.with_departing(["shard9", "shard1"]) is departing
    assert departing.with_departing([]).shards == topology.shards
    assert topology.with_departing(["shard3"]) is topology


def heard(states, now=START):
    """A link whose shard showed these states."""
    link = LinkState("shard9", 64, 7)
    hello = Hello(1, 2, 5, 0, 7, 64, frames.ROLE_SHARD, False, "shard9", states=states)
    assert link.take_pong(link.ping_due(now), hello, now)
    return link


def test_a_shard_lingers_while_it_shows_something_and_was_heard_lately():
    link = heard(bytes(15) + b"\x40")
    assert lingers(link, START)
    assert lingers(link, START + LINGERS - 1)
    assert not lingers(link, START + LINGERS)
    link.note_broken()
    assert lingers(link, START)
    assert not lingers(heard(bytes(16)), START)
    assert not lingers(LinkState("shard9", 64, 7), START)


# Links


def test_links_are_those_of_the_configuration_and_known_ones_stay(topology):
    links = links_of(topology, {})
    assert list(links) == [link.name for link in links.values()] == ["shard1", "shard2", "shard3"]
    assert {(link.slices, link.cluster) for link in links.values()} == {(64, topology.cluster)}
    other = links_of(a_topology(4, 3, 1), links)
    assert list(other) == ["shard4", "shard3", "shard1"]
    assert (other["shard1"], other["shard3"]) == (links["shard1"], links["shard3"])
    assert list(links_of(topology, links, "shard2")) == ["shard1", "shard3"]


def test_pings_are_sent_when_they_are_due(topology):
    me = Self(topology, Life(0, lambda: 42), frames.ROLE_SHARD, "shard1")
    links = links_of(topology, {}, "shard1")
    links["shard3"].ping_due(START - 100)
    sent = pings(me, links.values(), START, b'{"a":1}')
    assert [name for name, _ in sent] == ["shard2"]
    frame = memoryview(sent[0][1])
    assert control.header(frame) == control.Header(frames.VERSION, frames.PING, 0, 1, 0, 0)
    assert control.unpack_hello(frame) == me.hello(START, b'{"a":1}')
    assert [name for name, _ in pings(me, links.values(), START + PING_EVERY - 100)] == ["shard3"]
    assert [name for name, _ in pings(me, links.values(), START + PING_EVERY)] == ["shard2"]
