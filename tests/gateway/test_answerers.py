"""Who is asked for each slice: the kernel against a plain model."""

from array import array

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.control import pack_states

NOBODY = 9


def pack(order, states, usable):
    """What the kernel takes: order by slice, states by shard and slice, whether each shard may be asked."""
    flat = memoryview(array("H", [shard for row in order for shard in row]))
    return flat, b"".join(pack_states(row) for row in states), bytes(usable)


def model(order, states, usable, nobody):
    """The answerer of each slice, by the words of the design."""
    table = []
    for slice_id, row in enumerate(order):
        heard = [shard for shard in row if usable[shard]]
        table.append(max(heard, key=lambda shard: states[shard][slice_id]) if heard else nobody)  # the first of equals
    return table


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
    return order, states, usable, before


@given(clusters())
def test_answerers_are_those_of_the_model(choose, cluster):
    order, states, usable, before = cluster
    table = array("H", before)
    nobody = len(usable)
    wanted = model(order, states, usable, nobody)
    changes = choose(*pack(order, states, usable), nobody, memoryview(table))
    assert table.tolist() == wanted
    assert changes == sum(old != new for old, new in zip(before, wanted, strict=True))
    assert choose(*pack(order, states, usable), nobody, memoryview(table)) == 0


@pytest.mark.parametrize(
    ("states", "usable", "wanted"),
    [
        ((3, 3, 3), (1, 1, 1), 2),  # equals: the first in the ring's order
        ((3, 3, 1), (1, 1, 1), 0),  # full before part, whatever the order
        ((0, 1, 0), (1, 1, 1), 1),
        ((1, 2, 0), (1, 1, 1), 1),  # leaving before part
        ((3, 2, 0), (1, 1, 1), 0),  # full before leaving
        ((0, 0, 0), (1, 1, 1), 2),  # none anywhere: the first in order keeps what it hears
        ((3, 1, 3), (0, 1, 0), 1),  # only those that are heard
        ((3, 3, 3), (0, 0, 0), NOBODY),
    ],
)
def test_one_slice(choose, states, usable, wanted):
    table = array("H", [5])
    choose(*pack([(2, 0, 1)], [[state] for state in states], usable), NOBODY, memoryview(table))
    assert table.tolist() == [wanted]


@pytest.mark.parametrize("order", [[], [0], [0, 1, 0], [0, 1, 0, 1, 0]])
def test_an_order_of_another_length_is_refused(choose, order):
    with pytest.raises(ValueError, match="each shard and slice"):
        choose(memoryview(array("H", order)), bytes(2), bytes(2), 2, memoryview(array("H", [0, 0])))


@pytest.mark.parametrize("length", [0, 1, 3])
def test_states_of_another_length_are_refused(choose, length):
    with pytest.raises(ValueError, match="each shard and slice"):
        choose(memoryview(array("H", [0, 1] * 2)), bytes(length), bytes(2), 2, memoryview(array("H", [0, 0])))


def test_an_order_may_name_no_shard_that_does_not_exist(choose):
    with pytest.raises(ValueError, match="no such shard"):
        choose(memoryview(array("H", [0, 2])), bytes(2), bytes(2), 2, memoryview(array("H", [0])))
