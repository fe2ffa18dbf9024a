"""The ring: shares near the mean, weights that count, and little that moves when shards come and go."""

import pytest

from common.ring import Ring

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
