"""Shards come and go by edits of the file, node by node, under load, on machines whose links are slow, stall and break.

What is promised is asserted: no announce fails, no answer is wrong or empty, nobody is lost, nothing but the slices
that a shard gains is copied to it. Times are told.
"""

import time

import pytest
from growth.announcing import Announcing, fill
from growth.conditions import PAUSE, RATE
from growth.rig import NODES, Rig, held
from processes import until

LATE = 16.0  # seconds from a new shard's start until it has pulled twice, and does not again of itself for minutes
FULL = 60.0  # until all slices are full
GONE = 150.0  # until a shard that leaves has handed over all: a minute without changes is part of it
FOUND = 30.0  # until everybody is found, once nobody announces


@pytest.fixture(scope="module")
def rig(tmp_path_factory):
    """Two shards; each test leaves what the next one begins with."""
    with Rig(tmp_path_factory.mktemp("moves"), shards=2) as rig:
        fill(rig, RATE)
        yield rig


def test_a_shard_is_added(rig):
    """While it fills from the others, a link of it stalls, another breaks; then one to it stalls."""
    old = rig.file
    before = held_by(rig)
    rig.edit(shards=3)
    gained = rig.slices_of("shard3")
    moved = {f"from{number}": gained & rig.slices_of(f"shard{number}", old) for number in (1, 2)}
    with Announcing(rig, RATE, **moved, others=rig.slices_of("shard1")) as seen:
        rig.write("vps3")
        began = time.monotonic()
        time.sleep(1.5)
        with rig.relay.mode("stall", node="vps3", shard="shard1"):
            time.sleep(1.0)
            with rig.relay.mode("cut", node="vps3", shard="shard2"):
                time.sleep(1.0)
        seen.arrive()
        time.sleep(max(0.0, began + PAUSE - time.monotonic()))
        rig.write("vps1")
        time.sleep(PAUSE - 2)
        with rig.relay.mode("stall", node="vps1", shard="shard3"):
            time.sleep(1.2)
        time.sleep(0.8)
        rig.write("vps2")
        seen.expect()
        took = rig.until_settled(FULL, may_have_more=True)
        time.sleep(2)
    pulled = rig.ask()["shard3"]["copies"]["counts"]
    seen.tell(
        "2 shards become 3",
        f"all full {took:.1f} s after the last edit",
        f"{len(gained)} slices gained",
        f"{pulled['bytes'] / 1e6:.1f} MB in {pulled['pulls']} pulls",
    )
    is_as_promised(seen)
    after = held_by(rig)
    assert after["shard3"] == gained
    assert all(after[name] <= before[name] for name in ("shard1", "shard2"))


def test_a_shard_is_taken_out(rig):
    """Its process ends by itself once the others have all that it held."""
    ours = rig.slices_of("shard3")
    with Announcing(rig, RATE, moved=ours) as seen:
        rig.edit(shards=2)
        edit_in_turn(rig, *NODES)
        full = rig.until_settled(FULL, may_have_more=True)
        gone = rig.until_settled(GONE)
    seen.tell(
        "3 shards become 2",
        f"all full {full:.1f} s after the last edit",
        f"nothing left at the third {full + gone:.1f} s after it",
    )
    is_as_promised(seen)
    assert {name: len(slices) for name, slices in held_by(rig).items() if name != "shard3"} == {
        name: len(rig.slices_of(name)) for name in ("shard1", "shard2")
    }
    until(lambda: rig.pid("shard3") == 0)


def test_an_edit_is_taken_back_halfway_by_a_third_version_with_the_old_content(rig):
    """The last node never sees the second, the one before it late: the new shard is full long before it is asked."""
    before = held_by(rig)
    moved = rig.slices_of("shard3", rig.document(3))
    with Announcing(rig, RATE, moved=moved) as seen:
        rig.edit(shards=3)
        rig.write("vps3")
        time.sleep(LATE)
        seen.arrive()
        seen.expect()
        rig.write("vps1")
        time.sleep(PAUSE)
        rig.edit(shards=2)
        edit_in_turn(rig, *NODES)
        took = rig.until_settled(FULL, may_have_more=True)
    seen.tell("a third shard, taken back halfway", f"all full {took:.1f} s after the last edit")
    is_as_promised(seen)
    after = held_by(rig)
    assert {name: after[name] for name in before} == before


def edit_in_turn(rig, *nodes):
    """Give nodes the file, one after the other."""
    for node in nodes:
        if node != nodes[0]:
            time.sleep(PAUSE)
        rig.write(node)


def held_by(rig):
    """The slices of which each shard has something."""
    return {name: set(held(said, "state")) for name, said in rig.ask().items() if said is not None}


def is_as_promised(seen):
    """Assert that nothing failed, and that nobody is lost."""
    assert (seen.failed, seen.empty, seen.wrong) == (0, 0, {})
    seen.find_all(FOUND)
