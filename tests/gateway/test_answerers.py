"""Who is asked for each slice, and who gets copies: the kernel against a plain model."""

from array import array
from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common import frames
from common.control import pack_states

NOBODY = 9
NONE, PART, LEAVING, FULL = frames.STATE_NONE, frames.STATE_PART, frames.STATE_LEAVING, frames.STATE_FULL


@dataclass
class Cluster:
    """order: by slice; states: by shard, then slice; usable: by shard."""

    order: list
    states: list
    usable: list
    members: int = 1
    before: list = field(default_factory=list)

    def answerer(self, slice_id, nobody):
        """By the words of the design: of those heard the best state, of equals the first in the ring's order."""
        heard = [shard for shard in self.order[slice_id] if self.usable[shard]]
        return max(heard, key=lambda shard: self.states[shard][slice_id]) if heard else nobody

    def copies(self, slice_id, nobody):
        """Every other full or part shard, and leaving ones while a member is not full."""
        states = [states[slice_id] for states in self.states]
        members = self.order[slice_id][: self.members]
        wanted = {PART, FULL}
        if not all(self.usable[shard] and states[shard] == FULL for shard in members):
            wanted.add(LEAVING)
        asked = self.answerer(slice_id, nobody)
        return [
            shard for shard in self.order[slice_id] if self.usable[shard] and shard != asked and states[shard] in wanted
        ]

    @property
    def slices(self):
        return len(self.order)

    @property
    def shards(self):
        return len(self.usable)


class Chosen:
    """The tables that the kernel writes, with what lay there before."""

    def __init__(self, choose, cluster, nobody=NOBODY):
        many = cluster.slices * cluster.shards
        self.table = array("H", cluster.before or [5] * cluster.slices)
        self.first = array("I", [77] * (cluster.slices + 1))
        self.flat = array("H", [66] * (many + 3))
        self.changes = choose(
            memoryview(array("H", [shard for row in cluster.order for shard in row])),
            b"".join(pack_states(row) for row in cluster.states),
            bytes(cluster.usable),
            cluster.members,
            nobody,
            *map(memoryview, (self.table, self.first, self.flat)),
        )

    @property
    def answerers(self):
        return self.table.tolist()

    @property
    def copies(self):
        return [self.flat[start:end].tolist() for start, end in zip(self.first, self.first[1:], strict=False)]


@pytest.fixture(scope="module")
def choose(kernel):
    return kernel("gateway.answerers").choose


@st.composite
def clusters(draw):
    shards, slices = draw(st.integers(1, 6)), draw(st.integers(1, 20))
    order = [draw(st.permutations(range(shards))) for _ in range(slices)]
    states = [draw(st.lists(st.integers(0, 3), min_size=slices, max_size=slices)) for _ in range(shards)]
    usable = draw(st.lists(st.sampled_from([0, 1, 255]), min_size=shards, max_size=shards))
    before = draw(st.lists(st.integers(0, shards), min_size=slices, max_size=slices))
    return Cluster(order, states, usable, draw(st.integers(0, shards)), before)


@given(clusters())
def test_the_tables_are_those_of_the_model(choose, cluster):
    nobody = cluster.shards
    found = Chosen(choose, cluster, nobody)
    wanted = [cluster.answerer(slice_id, nobody) for slice_id in range(cluster.slices)]
    assert found.answerers == wanted
    assert found.changes == sum(old != new for old, new in zip(cluster.before, wanted, strict=True))
    assert found.copies == [cluster.copies(slice_id, nobody) for slice_id in range(cluster.slices)]
    assert found.flat[found.first[-1] :].tolist() == [66] * (len(found.flat) - found.first[-1])
    cluster.before = wanted
    assert Chosen(choose, cluster, nobody).changes == 0


@pytest.mark.parametrize(
    ("states", "usable", "wanted"),
    [
        ((FULL, FULL, FULL), (1, 1, 1), 2),  # equals: the first in the ring's order
        ((FULL, FULL, PART), (1, 1, 1), 0),  # full before part, whatever the order
        ((NONE, PART, NONE), (1, 1, 1), 1),
        ((PART, LEAVING, NONE), (1, 1, 1), 1),  # leaving before part
        ((FULL, LEAVING, NONE), (1, 1, 1), 0),  # full before leaving
        ((NONE, NONE, NONE), (1, 1, 1), 2),  # none anywhere: the first in order keeps what it hears
        ((FULL, PART, FULL), (0, 1, 0), 1),  # only those that are heard
        ((FULL, FULL, FULL), (0, 0, 0), NOBODY),
    ],
)
def test_who_is_asked_for_a_slice(choose, states, usable, wanted):
    assert Chosen(choose, Cluster([(2, 0, 1)], [[state] for state in states], usable)).answerers == [wanted]


@pytest.mark.parametrize(
    ("members", "states", "usable", "wanted"),
    [
        (1, (NONE, NONE, FULL), (1, 1, 1), []),
        (2, (FULL, NONE, FULL), (1, 1, 1), [0]),  # a replica
        (2, (PART, NONE, FULL), (1, 1, 1), [0]),  # that is being filled
        (2, (NONE, NONE, FULL), (1, 1, 1), []),  # that does not know of it yet
        (1, (FULL, NONE, PART), (1, 1, 1), [2]),  # a new owner is filled from an old one
        (1, (PART, NONE, FULL), (1, 1, 1), [0]),  # who is none of the members, and heard something
        (1, (LEAVING, NONE, PART), (1, 1, 1), [2]),
        (1, (LEAVING, LEAVING, PART), (1, 1, 1), [2, 1]),  # leaving ones, as the owner is not full
        (1, (LEAVING, LEAVING, FULL), (1, 1, 1), []),  # and none of them once it is
        (2, (LEAVING, LEAVING, FULL), (1, 1, 1), [0, 1]),  # of two members one is not full
        (2, (FULL, LEAVING, FULL), (1, 1, 1), [0]),
        (2, (FULL, LEAVING, FULL), (0, 1, 1), [1]),  # one of them is not heard
        (1, (FULL, LEAVING, FULL), (1, 1, 0), [1]),
        (0, (FULL, LEAVING, LEAVING), (1, 1, 1), []),
        (3, (FULL, FULL, FULL), (1, 0, 1), [0]),  # not to who is not heard
        (3, (FULL, FULL, FULL), (0, 0, 0), []),
    ],
)
def test_who_gets_copies_of_a_slice(choose, members, states, usable, wanted):
    cluster = Cluster([(2, 0, 1)], [[state] for state in states], usable, members)
    assert Chosen(choose, cluster).copies == [wanted]


def tables(slices, shards, first=None, copies=None):
    """Where the kernel writes, of the right lengths but for what is given."""
    lengths = ("H", slices), ("I", slices + 1 if first is None else first), ("H", copies or slices * shards)
    return [memoryview(array(form, [7] * length)) for form, length in lengths]


@pytest.mark.parametrize("order", [[], [0], [0, 1, 0], [0, 1, 0, 1, 0]])
def test_an_order_of_another_length_is_refused(choose, order):
    with pytest.raises(ValueError, match="each shard and slice"):
        choose(memoryview(array("H", order)), bytes(2), bytes(2), 1, 2, *tables(2, 2))


@pytest.mark.parametrize("length", [0, 1, 3])
def test_states_of_another_length_are_refused(choose, length):
    with pytest.raises(ValueError, match="each shard and slice"):
        choose(memoryview(array("H", [0, 1] * 2)), bytes(length), bytes(2), 1, 2, *tables(2, 2))


@pytest.mark.parametrize("lengths", [{"first": 0}, {"first": 2}, {"first": 4}, {"copies": 1}, {"copies": 3}])
def test_no_room_for_copies_is_refused(choose, lengths):
    with pytest.raises(ValueError, match="no room for copies"):
        choose(memoryview(array("H", [0, 1] * 2)), bytes(2), bytes(2), 1, 2, *tables(2, 2, **lengths))


@pytest.mark.parametrize("members", [-1, 3, 1 << 40])
def test_more_members_than_shards_are_refused(choose, members):
    with pytest.raises(ValueError, match="more members than shards"):
        choose(memoryview(array("H", [0, 1] * 2)), bytes(2), bytes(2), members, 2, *tables(2, 2))


def test_an_order_may_name_no_shard_that_does_not_exist(choose):
    written = tables(1, 2)
    for order in ([0, 2], [0xFFFF, 0]):
        with pytest.raises(ValueError, match="no such shard"):
            choose(memoryview(array("H", order)), bytes(2), bytes(2), 1, 2, *written)
    assert all(set(table) == {7} for table in written)
