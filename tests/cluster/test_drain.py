"""`shoal drain`: what a shard still has, what it waits for, and when it may be removed.

That a shard is drained for real, which takes a minute, is in test_plan.py.
"""

import json
import re

import pytest
from processes import Cluster, shoal, shoal_json, shoal_refuses, until
from terminal import Terminal
from told_shards import FULL, LEAVING, PART, cluster, owned, told
from trackers import Client

from cluster import drain
from cluster.drain import Left, Picture
from common.config import ConfigError
from common.ring import ring_of

IDLE = {"shard3": 0}


@pytest.fixture
def wanted():
    """Three shards, of which the third has weight 0."""
    return cluster(3, weights=IDLE, version=5)


def rows_at_owners(wanted, slices, state=FULL):
    """By shard, rows of slices at their owners."""
    ring = ring_of(wanted)
    found = {name: [] for name in ring.names}
    for slice_id in slices:
        found[ring.names[ring.owner(slice_id)]].append((slice_id, state, 1, 2, 3))
    return found


# What is left


def test_a_shard_that_holds_nothing_may_be_removed(wanted):
    left = drain.look(wanted, told(wanted, shard1=owned(wanted, "shard1"), shard2=[], shard3=[]), "shard3")
    assert left == Left({}, [])
    assert left.is_done


def test_what_others_have_all_of_is_told_apart(wanted):
    mine = [(slice_id, LEAVING, 1, 2, 3) for slice_id in range(10)]
    at = rows_at_owners(wanted, range(8))
    left = drain.look(wanted, told(wanted, shard1=at["shard1"], shard2=at["shard2"], shard3=mine), "shard3")
    assert len(left.copies) == 10
    owners = {ring_of(wanted).names[ring_of(wanted).owner(slice_id)] for slice_id in (8, 9)}
    assert left.reasons[0] == "8 slices: others have all of it; it is dropped a minute after its last change"
    assert len(left.reasons) == 1 + len(owners)
    assert all(re.fullmatch(r"\d slices?: shard\d has not all of it yet", line) for line in left.reasons[1:])
    assert not left.is_done


def test_a_part_at_an_owner_is_not_all(wanted):
    at = rows_at_owners(wanted, [7], PART)
    left = drain.look(wanted, told(wanted, **at | {"shard3": [(7, LEAVING, 1, 1, 1)]}), "shard3")
    assert re.fullmatch(r"1 slice: shard\d has not all of it yet", left.reasons[0])


def test_a_part_is_filled_before_it_leaves(wanted):
    at = rows_at_owners(wanted, [7])
    left = drain.look(wanted, told(wanted, **at | {"shard3": [(7, PART, 1, 1, 1)]}), "shard3")
    assert left.reasons == ["1 slice: it is only a part here, which is filled before it leaves"]


def test_all_replicas_must_have_it():
    wanted = cluster(3, weights=IDLE, replicas=1)
    at = rows_at_owners(wanted, [7])
    owner = ring_of(wanted).names[ring_of(wanted).owner(7)]
    other = {"shard1": "shard2", "shard2": "shard1"}[owner]
    left = drain.look(wanted, told(wanted, **at | {"shard3": [(7, LEAVING, 1, 1, 1)]}), "shard3")
    assert left.reasons == [f"1 slice: {other} has not all of it yet"]


def test_who_is_silent_is_waited_for(wanted):
    slices = ring_of(wanted).slices_of(0)[:4]
    mine = [(slice_id, LEAVING, 1, 2, 3) for slice_id in slices]
    left = drain.look(wanted, told(wanted, shard2=[], shard3=mine), "shard3")
    assert left.reasons == ["4 slices: shard1, which is to hold it, is silent"]


@pytest.mark.parametrize(
    ("says", "line"),
    [
        ({"config_version": 4}, "shard1 has version 4 of the configuration; the file here is version 5"),
        ({"table": "0" * 16}, "shard1 has other shards or weights in its configuration of the same version"),
        ({"config_version": 4, "config_refused": "no"}, "shard1 does not take up the file: no"),
    ],
)
def test_who_has_another_configuration_is_waited_for(wanted, says, line):
    slices = ring_of(wanted).slices_of(0)[:4]
    at = rows_at_owners(wanted, slices)
    mine = [(slice_id, LEAVING, 1, 2, 3) for slice_id in slices]
    shards = told(wanted, shard1={"rows": at["shard1"], **says}, shard2=[], shard3=mine)
    assert drain.look(wanted, shards, "shard3").reasons == [f"4 slices: {line}"]


def test_a_shard_that_has_not_taken_up_the_file_is_not_done(wanted):
    """It holds nothing, but will as soon as somebody asks it."""
    left = drain.look(wanted, told(wanted, cluster(3), shard1=[], shard2=[], shard3=[]), "shard3")
    assert left.reasons == ["shard3 has version 1 of the configuration; the file here is version 5"]
    assert not left.is_done


def test_of_a_silent_shard_nothing_is_known(wanted):
    left = drain.look(wanted, told(wanted, shard1=[], shard2=[]), "shard3")
    assert left == Left(None, ["shard3 is silent: no answer"])
    assert not left.is_done


# What is shown


class Lines:
    """Elsewhere than on a terminal."""

    is_live = False

    def __init__(self):
        self.told = []

    def say(self, parts):
        self.told += [str(part) for part in parts]


def test_in_a_pipe_a_line_is_told_when_something_changes(wanted):
    lines = Lines()
    picture = Picture("shard3", lines)
    silent = Left(None, ["shard3 is silent: no answer"])
    copies = {slice_id: drain.Copy(LEAVING, 1, 2, 3) for slice_id in range(3)}
    for left in (silent, silent, Left(copies, ["why"]), Left(copies, ["why"]), Left(copies, ["other"]), Left({}, [])):
        picture.show(left)
    assert lines.told == [
        "shard3 is silent: no answer",
        "shard3: 3 slices, 3 torrents, 15 peers left; why",
        "shard3: 3 slices, 3 torrents, 15 peers left; other",
        "shard3: 0 slices, 0 torrents, 0 peers left",
    ]


def test_of_many_reasons_some_are_told():
    assert drain.some(["a"] * 6) == ["a"] * 6
    assert drain.some(["a"] * 9) == [*["a"] * 6, "and 3 more"]


# Mistakes


def test_a_shard_that_is_not_there_or_has_a_weight_is_refused(wanted):
    drain.check(wanted, "shard3")
    with pytest.raises(ConfigError, match="shards: expected one of shard1, shard2, shard3, found 'shard9'"):
        drain.check(wanted, "shard9")
    with pytest.raises(ConfigError) as refused:
        drain.check(cluster(2, weights={"shard2": 2.5}), "shard2")
    assert str(refused.value) == (
        "shards[1].weight: expected 0, for shard2 to hand over what it has: set it and raise `version`, found 2.5"
    )


def test_mistakes_are_one_line(tmp_path):
    file = tmp_path / "cluster.yaml"
    file.write_text(f"data: {tmp_path}\n")
    assert "expected a cluster, whose shards have others" in shoal_refuses("drain", "shard1", "--config", file)
    file.write_text(f"data: {tmp_path}\nshards: [{{name: shard1}}, {{name: shard2}}]\n")
    assert f"{file}: shards[1].weight: expected 0" in shoal_refuses("drain", "shard2", "--config", file)
    assert f"{file}: shards: expected one of" in shoal_refuses("drain", "shard9", "--config", file)
    assert shoal("drain", "shard2").returncode == 2
    assert "is not a duration" in shoal("drain", "shard2", "--config", file, "--timeout", "soon").stderr


# With real shards


def test_a_shard_that_never_held_anything_is_drained_at_once(tmp_path):
    running = Cluster(tmp_path, gateways=1, shards=3, absent=["gateway1"])
    shards = running.document["shards"]
    running.rewrite(shards=[*shards[:2], shards[2] | {"weight": 0}])
    with running:
        ended = shoal("drain", "shard3", "--config", running.file)
        assert (ended.returncode, ended.stderr) == (0, "")
        assert ended.stdout == (
            f"shard3: 0 slices, 0 torrents, 0 peers left\nshard3 holds nothing: it may be removed from {running.file}\n"
        )
        with Terminal("drain", "shard3", "--config", running.file) as terminal:
            assert terminal.ended() == 0
            assert "shard3 hands over" in terminal.shown
            assert terminal.shown.rstrip().endswith("shard3 holds nothing: it may be removed from " + str(running.file))


def test_the_time_may_be_over_before(tmp_path):
    """Also with encrypted links, on a terminal, and when somebody gives up or changes their mind."""
    with Cluster(tmp_path, gateways=1, shards=2, transport="curve", nodes=2) as running:
        with Client(running.gateway_address("gateway1")) as client:
            for torrent in range(20):
                client.announce(bytes([torrent]) * 20)
        until(lambda: shoal_json("status", "--config", running.file)[1]["ok"])
        shards = running.document["shards"]
        for node in running.nodes:
            running.rewrite(node, version=2, shards=[shards[0], shards[1] | {"weight": 0}])
        ended = shoal("drain", "shard2", "--config", running.file, "--timeout", "4s")
        assert ended.returncode == 1
        assert re.fullmatch(r"shoal: it may not be removed yet: shard2: \d+ slices, \d+ torrents?, .*\n", ended.stderr)
        assert "shard2: " in ended.stdout
        with Terminal("drain", "shard2", "--config", running.file) as terminal:
            terminal.until("shard2 hands over .* of .* slices .* torrents?, .* peers?")
            terminal.until("others have all of it; it is dropped a minute after its last change")
            terminal.interrupt()
            assert terminal.ended() == 130
        with Terminal("drain", "shard2", "--config", running.file) as terminal:
            terminal.until("shard2 hands over")
            document = json.loads(running.file.read_text())
            running.file.write_text(json.dumps(document | {"version": 3, "shards": shards}))
            assert terminal.ended() == 2
            assert "shards[1].weight: expected 0" in terminal.shown
