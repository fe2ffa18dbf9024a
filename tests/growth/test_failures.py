"""What fails while a slice has two copies: a shard is killed, a network falls apart, every process is restarted.

Under load, on machines whose links are slow. Asserted is that nobody is lost and that copies agree afterwards, and
that no announce fails where that is promised. Times are told: other work on a machine makes them longer.
"""

import signal
import time

import pytest
from growth.announcing import Announcing, fill
from growth.conditions import RATE
from growth.rig import GATEWAYS, SHARDS, Rig
from processes import until

PARTITION = 10.0  # seconds
UNEVEN = 4.0  # of which only one side is heard by the other
NOTICED = 10.0  # until answers have peers again; 2.5 s on a machine that has time
HEALED = 60.0  # until all slices are full
AGREED = 30.0  # until copies do, once nobody announces


@pytest.fixture(scope="module")
def rig(tmp_path_factory):
    """Three shards, two copies of each slice; each test leaves all as it was."""
    with Rig(tmp_path_factory.mktemp("failures"), shards=3, replicas=1) as rig:
        fill(rig, RATE)
        yield rig


def test_of_a_shard_that_is_killed_nobody_is_lost(rig):
    with Announcing(rig, RATE, killed=rig.slices_of("shard2")) as seen:
        time.sleep(2)
        rig.signal("shard2", signal.SIGKILL)
        took = back(rig, "shard2")
        time.sleep(2)
    seen.tell("kill -9 of a shard", f"it was full again after {took:.1f} s")
    assert (seen.failed, seen.wrong) == (0, {})
    assert seen.without_peers("killed") < NOTICED
    is_whole(rig, seen)


def test_of_a_machine_that_vanishes_nobody_is_lost(rig):
    """Nobody is told that its connections are gone, as when the power fails; it is there again 5 s later."""
    with Announcing(rig, RATE, killed=rig.slices_of("shard3")) as seen:
        time.sleep(2)
        with rig.relay.apart({"vps3"}, SHARDS):
            rig.signal("shard3", signal.SIGKILL)
            time.sleep(5)
        took = back(rig, "shard3")
        time.sleep(2)
    seen.tell("a machine vanishes", f"its shard was full again {took:.1f} s after its return")
    assert (seen.failed, seen.wrong) == (0, {})
    assert seen.without_peers("killed") < NOTICED
    is_whole(rig, seen)


def test_what_either_side_of_a_partition_heard_is_everywhere_afterwards(rig):
    """Each side is asked on, though both copies of some slices are on the other. Links heal one after the other: for a
    while what vps1 says is heard on the other side, but nothing is heard on vps1."""
    rig.load.strict(steady=False)
    with Announcing(rig, RATE) as seen:
        time.sleep(2)
        with rig.relay.mode("stall", node="vps1"):
            with rig.relay.mode("stall", shard="shard1"):
                time.sleep(PARTITION - UNEVEN)
            time.sleep(UNEVEN)
        rig.until_settled(HEALED, may_have_more=True)
        time.sleep(2)
    rig.load.strict(steady=True)
    seen.tell(f"a partition of {PARTITION:.0f} s")
    assert seen.wrong == {}
    is_whole(rig, seen)


def test_no_announce_fails_while_every_process_is_restarted(rig):
    """The next one stops once every shard is full."""
    took = []
    with Announcing(rig, RATE) as seen:
        for name in (*SHARDS, *GATEWAYS):
            rig.signal(name, signal.SIGTERM)
            took.append(back(rig, name))
        time.sleep(2)
    seen.tell("every process restarted", f"each took {min(took):.1f} to {max(took):.1f} s")
    assert (seen.failed, seen.empty, seen.wrong) == (0, 0, {})
    is_whole(rig, seen)


def back(rig, name):
    """Wait until a process that was told to end is there again, and every shard is full; the seconds that it took."""
    began = time.monotonic()
    rig.until_replaced(name)
    rig.until_settled(HEALED, may_have_more=True)
    return time.monotonic() - began


def is_whole(rig, seen):
    """Assert that nobody is lost, and that copies agree before long; full ones pull again 10 s after they are."""
    began = time.monotonic()
    seen.find_all(AGREED)
    until(lambda: rig.disagreements() == [], AGREED)
    seen.add(f"copies agree {time.monotonic() - began:.1f} s after the last announce")
