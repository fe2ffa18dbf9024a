"""The ring: shares near the mean, weights that count, and little that moves when shards come and go."""

import pytest

from common import config
from common.ring import Ring, ring_of

SLICES = 1024
FAMILIES = [
    "shard{}",
    "s{}",
    "shard-{}",
    "vps{}",
    "node{}",
    "eu-{}",
    "{}",
    "store{}",
    "a{}.example",
    "tokyo-{}",
    "S{}",
    "swarm{}",
    "shard0{}",
    "db{}",
    "k{}x",
    "gamma{}",
]


def owners(shards, slices=SLICES):
    """The name of each slice's owner."""
    ring = Ring(shards, slices)
    return [shards[ring.owner(slice_id)][0] for slice_id in range(slices)]


def equal(*names):
    return [(name, 1.0) for name in names]


@pytest.mark.parametrize("start", [0, 1])
@pytest.mark.parametrize("family", FAMILIES)
def test_equal_shards_are_near_the_mean(family, start):
    for count in range(2, 9):
        names = [family.format(start + at) for at in range(count)]
        found = owners(equal(*names))
        assert max(found.count(name) for name in names) <= 1.25 * SLICES / count, count


@pytest.mark.parametrize("family", FAMILIES)
def test_a_weight_of_two_is_about_twice_the_share(family):
    light, heavy = family.format(1), family.format(2)
    found = owners([(light, 1.0), (heavy, 2.0)])
    assert 1.6 < found.count(heavy) / found.count(light) < 2.4


@pytest.mark.parametrize("family", FAMILIES)
def test_weights_count_among_several(family):
    heavy, *light = [family.format(at) for at in range(1, 5)]
    found = owners([(heavy, 2.0), *equal(*light)])
    mean = sum(found.count(name) for name in light) / len(light)
    assert 1.6 < found.count(heavy) / mean < 2.4


def test_a_shard_of_little_weight_has_few_slices():
    small = owners([("a", 0.01), ("b", 100.0)])
    assert small.count("b") > 0.99 * SLICES
    assert {"a"} < set(owners([("a", 50.0), ("b", 100.0)]))


@pytest.mark.parametrize("count", range(1, 9))
def test_an_added_shard_only_takes(count):
    names = [f"shard{at}" for at in range(count)]
    before, after = owners(equal(*names)), owners(equal(*names, "new"))
    moved = [new for old, new in zip(before, after, strict=True) if old != new]
    assert set(moved) == {"new"}
    assert SLICES / (count + 1) / 1.25 < len(moved) < 1.25 * SLICES / (count + 1)


def test_a_lighter_shard_only_gives():
    before, after = owners([("a", 1.0), ("b", 2.0), ("c", 1.0)]), owners([("a", 1.0), ("b", 1.0), ("c", 1.0)])
    assert {old for old, new in zip(before, after, strict=True) if old != new} == {"b"}


def test_who_comes_after_the_owner_takes_over_from_it():
    names = [f"shard{at}" for at in range(5)]
    ring = Ring(equal(*names), SLICES)
    without = owners(equal(*names[1:]))
    for slice_id in ring.slices_of(0):
        assert names[ring.order[slice_id * 5 + 1]] == without[slice_id]


@pytest.mark.parametrize("weights", [[1.0], [1.0, 1.0], [0.01, 100.0], [1.0] * 9, [0.01, 1.0, 2.5, 100.0]])
@pytest.mark.parametrize("slices", [1, 64, SLICES])
def test_every_slice_has_every_shard_once(weights, slices):
    ring = Ring([(f"shard{at}", weight) for at, weight in enumerate(weights)], slices)
    count = len(weights)
    assert len(ring.order) == slices * count
    for slice_id in range(slices):
        assert sorted(ring.order[slice_id * count : (slice_id + 1) * count]) == list(range(count))


def test_the_slices_of_all_shards_are_all_slices():
    ring = Ring(equal("a", "b", "c"), SLICES)
    assert sorted(ring.slices_of(0) + ring.slices_of(1) + ring.slices_of(2)) == list(range(SLICES))
    assert all(ring.owner(slice_id) == 1 for slice_id in ring.slices_of(1))


def test_the_order_of_the_file_changes_nothing():
    shards = [("a", 1.0), ("b", 2.0), ("c", 0.5), ("d", 1.0)]
    turned = shards[2:] + shards[:2]
    one, other = Ring(shards, SLICES), Ring(turned, SLICES)
    assert [one.names[at] for at in one.order] == [other.names[at] for at in other.order]
    assert one.digest() == other.digest()


def test_digests_tell_tables_apart():
    tables = [
        ("ab", [1.0, 1.0], SLICES),
        ("ac", [1.0, 1.0], SLICES),
        ("abc", [1.0, 1.0, 1.0], SLICES),
        ("ab", [1.0, 2.0], SLICES),
        ("ab", [1.0, 1.0], SLICES // 2),
    ]
    digests = {Ring(list(zip(names, weights, strict=True)), slices).digest() for names, weights, slices in tables}
    assert len(digests) == len(tables)
    assert all(0 <= digest < 1 << 64 for digest in digests)


def test_the_table_is_the_same_in_every_version():
    """Processes of a cluster each make it, and those of an older version must come to the same."""
    ring = Ring([("shard1", 1.0), ("shard2", 2.0), ("shard3", 0.5)], 64)
    assert f"{ring.digest():016x}" == "59a9b13bf230723c"
    assert list(ring.order[:6]) == [1, 2, 0, 0, 1, 2]


# Replicas, machines, and shards that are to hold nothing


def named(ring, indexes):
    return [ring.names[at] for at in indexes]


@pytest.mark.parametrize("replicas", range(4))
def test_the_first_of_each_row_should_hold_the_slice(replicas):
    ring = Ring(equal("a", "b", "c"), SLICES, replicas=replicas)
    assert ring.members == min(1 + replicas, 3)
    for slice_id in range(SLICES):
        members = list(ring.members_of(slice_id))
        assert members == list(ring.row(slice_id))[: ring.members]
        assert members[0] == ring.owner(slice_id)
        assert len(set(members)) == ring.members


def test_replicas_change_no_owner_and_no_order():
    names = [f"shard{at}" for at in range(5)]
    bare = Ring(equal(*names), SLICES)
    for replicas in range(1, 5):
        assert Ring(equal(*names), SLICES, replicas=replicas).order == bare.order


def test_what_a_shard_holds_is_what_it_owns_and_its_replicas():
    ring = Ring(equal("a", "b", "c", "d"), SLICES, replicas=1)
    held = [set(ring.held_by(shard)) for shard in range(4)]
    for shard in range(4):
        assert set(ring.slices_of(shard)) <= held[shard]
    for slice_id in range(SLICES):
        assert [shard for shard in range(4) if slice_id in held[shard]] == sorted(ring.members_of(slice_id))
    assert sum(map(len, held)) == 2 * SLICES


@pytest.mark.parametrize("family", FAMILIES)
def test_replicas_are_spread_as_slices_are(family):
    for count in range(2, 9):
        ring = Ring(equal(*[family.format(at) for at in range(count)]), SLICES, replicas=1)
        assert max(len(ring.held_by(shard)) for shard in range(count)) <= 1.25 * 2 * SLICES / count, count


def test_a_shard_that_dies_leaves_each_slice_to_a_replica():
    names = [f"shard{at}" for at in range(5)]
    before = Ring(equal(*names), SLICES, replicas=1)
    after = Ring(equal(*names[1:]), SLICES, replicas=1)
    for slice_id in before.slices_of(0):
        assert named(after, [after.owner(slice_id)]) == named(before, before.members_of(slice_id))[1:]


MACHINES = [
    ("aabb", 1),  # two shards a machine
    ("aaab", 1),
    ("abcd", 2),
    ("aabbcc", 2),
    ("aaaaab", 1),
    ("abcabc", 3),  # more replicas than machines
]


@pytest.mark.parametrize(("machines", "replicas"), MACHINES)
def test_replicas_are_on_as_many_machines_as_there_are(machines, replicas):
    names = [f"shard{at}" for at in range(len(machines))]
    ring = Ring(equal(*names), SLICES, list(machines), replicas)
    for slice_id in range(SLICES):
        members = ring.members_of(slice_id)
        assert len(set(members)) == 1 + replicas
        assert len({machines[at] for at in members}) == min(1 + replicas, len(set(machines)))


@pytest.mark.parametrize(("machines", "replicas"), MACHINES)
def test_machines_change_no_owner_and_leave_out_no_shard(machines, replicas):
    names = [f"shard{at}" for at in range(len(machines))]
    ring, bare = Ring(equal(*names), SLICES, list(machines), replicas), Ring(equal(*names), SLICES)
    for slice_id in range(SLICES):
        assert ring.owner(slice_id) == bare.owner(slice_id)
        assert sorted(ring.row(slice_id)) == list(range(len(names)))


def test_without_replicas_machines_do_not_matter():
    names = [f"shard{at}" for at in range(4)]
    assert Ring(equal(*names), SLICES, list("aabb")).order == Ring(equal(*names), SLICES).order


def test_a_shard_of_weight_zero_holds_nothing_and_comes_last():
    ring = Ring([("a", 1.0), ("idle", 0.0), ("b", 1.0), ("also", 0.0)], SLICES, replicas=1)
    for slice_id in range(SLICES):
        row = named(ring, ring.row(slice_id))
        assert row[2:] == ["also", "idle"]
        assert sorted(named(ring, ring.members_of(slice_id))) == ["a", "b"]
    assert ring.held_by(1) == ring.held_by(3) == ring.slices_of(1) == []


def test_a_shard_of_weight_zero_is_a_removed_one_for_all_others():
    names = [f"shard{at}" for at in range(4)]
    without = Ring(equal(*names[:3]), SLICES, replicas=1)
    idle = Ring([*equal(*names[:3]), (names[3], 0.0)], SLICES, replicas=1)
    for slice_id in range(SLICES):
        assert named(idle, idle.row(slice_id))[:3] == named(without, without.row(slice_id))
    assert idle.digest() == without.digest()  # who holds what is the same


@pytest.mark.parametrize("replicas", [1, 2, 7])
def test_no_more_replicas_than_shards_that_hold_something(replicas):
    ring = Ring([("a", 1.0), ("b", 1.0), ("idle", 0.0)], SLICES, replicas=replicas)
    assert ring.members == 2
    assert ring.held_by(0) == ring.held_by(1) == list(range(SLICES))


def test_digests_tell_replicas_and_machines_apart():
    names = [f"shard{at}" for at in range(4)]
    rings = [
        Ring(equal(*names), SLICES),
        Ring(equal(*names), SLICES, replicas=1),
        Ring(equal(*names), SLICES, replicas=2),
        Ring(equal(*names), SLICES, list("aabb"), 1),
        Ring(equal(*names), SLICES, list("abab"), 1),
    ]
    assert len({ring.digest() for ring in rings}) == len(rings)


def test_an_added_replica_is_the_only_thing_that_moves():
    """A cluster that gets its first replicas copies each slice once."""
    names = [f"shard{at}" for at in range(4)]
    before, after = Ring(equal(*names), SLICES, list("abcd"), 0), Ring(equal(*names), SLICES, list("abcd"), 1)
    for slice_id in range(SLICES):
        assert after.members_of(slice_id)[0] == before.members_of(slice_id)[0]


def test_a_configuration_means_a_ring():
    shards = [
        {"name": "s1", "node": "one", "link": "tcp://127.0.0.1:7101"},
        {"name": "s2", "node": "one", "link": "tcp://127.0.0.1:7102", "weight": 2},
        {"name": "s3", "node": "two", "link": "tcp://127.0.0.1:7103"},
        {"name": "s4", "node": "two", "link": "tcp://127.0.0.1:7104", "weight": 0},
    ]
    nodes = [{"name": "one"}, {"name": "two"}]
    gateways = [{"name": "g", "node": "one"}]
    meant = config.read(
        {"nodes": nodes, "gateways": gateways, "shards": shards, "replicas": 1, "slices": 64, "insecure": True}
    )
    ring = ring_of(meant)
    weights = [("s1", 1.0), ("s2", 2.0), ("s3", 1.0), ("s4", 0.0)]
    assert ring.digest() == Ring(weights, 64, ["one", "one", "two", "two"], 1).digest()
    assert all(2 in ring.members_of(slice_id) for slice_id in range(64))  # the other machine's only one


def test_shards_that_own_nothing_may_be_put_behind_a_ring():
    ring = Ring([("a", 1.0), ("b", 2.0), ("c", 0.0)], 64, ["x", "y", "z"], 1)
    more = ring.with_idle(["e", "d"])
    assert more.digest() == ring.digest()
    assert more.names == ["a", "b", "c", "e", "d"]
    for slice_id in range(64):
        assert list(more.row(slice_id)) == [*ring.row(slice_id), 3, 4]
        assert more.members_of(slice_id) == ring.members_of(slice_id)
    assert ring.names == ["a", "b", "c"]
