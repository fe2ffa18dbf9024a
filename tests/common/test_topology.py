import pytest

from common import config, control, frames
from common.control import Hello
from common.life import Life
from common.topology import Self, Topology

KEY = bytes(range(16))


def equal(many):
    return [{"name": f"shard{number}"} for number in range(1, many + 1)]


def a_config(shards):
    return config.read({"version": 5, "slices": 64, "shards": shards})


@pytest.fixture
def topology():
    return Topology(a_config(equal(3)), KEY)


def test_each_slice_is_full_at_its_owner_and_nowhere_else(topology):
    shown = [topology.states_of(name) for name in topology.shards]
    for slice_id in range(64):
        states = [control.state_of(states, slice_id) for states in shown]
        wanted = [frames.STATE_NONE] * 3
        wanted[topology.ring.owner(slice_id)] = frames.STATE_FULL
        assert states == wanted


def test_every_shard_owns_something(topology):
    for name in topology.shards:
        assert any(topology.states_of(name))


def test_a_shard_alone_is_full_of_everything():
    topology = Topology(a_config(equal(1)), KEY)
    assert topology.states_of("shard1") == control.pack_states([frames.STATE_FULL] * 64)


def test_a_shard_that_the_configuration_lacks_has_no_states(topology):
    with pytest.raises(ValueError, match="shard9"):
        topology.states_of("shard9")


def test_processes_of_the_same_configuration_agree(topology):
    other = Topology(a_config(equal(3)), KEY)
    assert (other.table, other.cluster, other.version) == (topology.table, topology.cluster, 5)


def test_processes_see_that_they_disagree(topology):
    assert Topology(a_config(equal(4)), KEY).table != topology.table
    assert Topology(a_config(equal(3)), bytes(16)).cluster != topology.cluster
    heavy = [{"name": "shard1", "weight": 3}, {"name": "shard2"}, {"name": "shard3"}]
    assert Topology(a_config(shards=heavy), KEY).table != topology.table


def test_a_hello_says_all_that_must_agree(topology):
    me = Self(topology, Life(0, lambda: 42), frames.ROLE_GATEWAY, "gateway1")
    assert me.hello(1234, b"{}") == Hello(
        42, 1234, 5, topology.table, topology.cluster, 64, frames.ROLE_GATEWAY, False, "gateway1", report=b"{}"
    )
    assert me.hello(1).report == b""
