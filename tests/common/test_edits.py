"""Which edits of a configuration may follow what was taken up before."""

import pytest

from common import config, edits
from common.config_errors import ConfigError

KEYS = {name: letter * 40 for name, letter in (("one", "a"), ("two", "b"), ("new", "c"))}
SHARDS = (
    {"name": "s1", "node": "one", "link": "tcp://127.0.0.1:7101"},
    {"name": "s2", "node": "two", "link": "tcp://127.0.0.1:7102"},
)
DOCUMENT = {
    "version": 3,
    "slices": 64,
    "data": "/srv",
    "nodes": [{"name": name, "key": KEYS[name]} for name in ("one", "two")],
    "gateways": [{"name": "g", "node": "one", "listen": ["127.0.0.1:6969"]}],
    "shards": list(SHARDS),
}
OLD = config.read(DOCUMENT)


def edited(**settings):
    return config.read(DOCUMENT | settings)


def shards(*changes):
    """The shards with some changes, a mapping each; one that has a name is added."""
    known = [{**shard, **change} for shard, change in zip(SHARDS, (*changes, {}, {}), strict=False)]
    return known + [change for change in changes if "name" in change]


def refusal(new, old=OLD):
    with pytest.raises(ConfigError) as caught:
        edits.check(old, new)
    line = str(caught.value)
    assert line.isprintable()
    return line


THIRD = {"name": "s3", "node": "one", "link": "tcp://127.0.0.1:7103"}
OTHER_TOPOLOGIES = {
    "a shard more": {"shards": [*SHARDS, THIRD]},
    "a shard less": {"shards": [SHARDS[0]]},
    "a shard in another's place": {"shards": [SHARDS[0], THIRD]},
    "another weight": {"shards": shards({"weight": 2})},
    "no weight": {"shards": shards({}, {"weight": 0})},
    "replicas": {"replicas": 1},
    "a node more": {"nodes": [*DOCUMENT["nodes"], {"name": "new", "key": KEYS["new"]}]},
    "another key": {"nodes": [DOCUMENT["nodes"][0], {"name": "two", "key": KEYS["new"]}]},
}
SAME_TOPOLOGY = {
    "nothing": {},
    "gateways": {"gateways": [{"name": name, "node": "two", "listen": ["127.0.0.1:6969"]} for name in ("g", "h")]},
    "where a shard listens": {"shards": shards({"bind": "tcp://0.0.0.0:7101"})},
    "memory": {"shards": shards({"memory": "16 MiB"})},
    "limits and times": {"interval": 60, "peers": {"default": 10}, "limits": {"errors": 5}},
    "the weight in other words": {"shards": shards({"weight": 1.0})},
    "the order": {"shards": SHARDS[::-1], "nodes": DOCUMENT["nodes"][::-1]},
    "addresses and logs of operators": {"admin": None, "log": {"level": "debug"}},
}


@pytest.mark.parametrize("change", SAME_TOPOLOGY)
def test_what_is_no_topology_may_change_under_any_version(change):
    edits.check(OLD, edited(**SAME_TOPOLOGY[change]))
    edits.check(OLD, edited(version=4, **SAME_TOPOLOGY[change]))


@pytest.mark.parametrize("change", OTHER_TOPOLOGIES)
def test_a_version_means_one_topology(change):
    line = refusal(edited(**OTHER_TOPOLOGIES[change]))
    assert line.startswith(
        "version: expected more than 3, as nodes, shards, weights or replicas are not those taken up"
    )
    assert line.endswith("found 3")
    edits.check(OLD, edited(version=4, **OTHER_TOPOLOGIES[change]))
    edits.check(OLD, edited(version=1 << 60, **OTHER_TOPOLOGIES[change]))


@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize("change", [*SAME_TOPOLOGY, *OTHER_TOPOLOGIES])
def test_no_version_goes_down(change, version):
    line = refusal(edited(version=version, **(SAME_TOPOLOGY | OTHER_TOPOLOGIES)[change]))
    assert line.startswith("version: expected at least 3, which was taken up before; to go back, give the old content")
    assert line.endswith(f"found {version}")


def test_the_old_content_may_come_back_under_a_higher_version():
    changed = edited(version=4, shards=[SHARDS[0]])
    edits.check(OLD, changed)
    edits.check(changed, edited(version=5))
    refusal(OLD, changed)


@pytest.mark.parametrize("version", [3, 4])
def test_the_number_of_slices_is_fixed(version):
    line = refusal(edited(slices=128, version=version))
    assert line == "slices: expected 64, as before: the number is fixed when a cluster is created, found 128"


@pytest.mark.parametrize("version", [3, 4])
def test_a_shard_of_the_same_name_stays_on_its_node(version):
    line = refusal(edited(version=version, shards=shards({}, {"node": "one"})))
    assert line == "shards[1].node: expected 'two', as before: a shard in another place needs another name, found 'one'"


@pytest.mark.parametrize("version", [3, 4])
def test_a_shard_of_the_same_name_keeps_its_address(version):
    line = refusal(edited(version=version, shards=shards({"link": "tcp://127.0.0.1:7999"})))
    assert line == (
        "shards[0].link: expected 'tcp://127.0.0.1:7101', as before: a shard in another place needs another name, "
        "found 'tcp://127.0.0.1:7999'"
    )


def test_a_shard_elsewhere_under_another_name_is_another_shard():
    edits.check(OLD, edited(version=4, shards=[SHARDS[0], SHARDS[1] | {"name": "s9", "link": "tcp://127.0.0.1:7999"}]))


def test_a_path_that_follows_from_the_directory_is_an_address_too():
    paths = {"version": 1, "data": "/srv", "shards": [{"name": "s1"}, {"name": "s2"}]}
    old = config.read(paths)
    edits.check(old, config.read(paths | {"shards": [{"name": "s1", "link": "ipc:///srv/run/s1"}, {"name": "s2"}]}))
    line = refusal(config.read(paths | {"data": "/other", "version": 2}), old)
    assert line.startswith("shards[0].link: expected 'ipc:///srv/run/s1', as before")


def test_one_process_becomes_no_cluster_and_a_cluster_no_one_process():
    embedded, cluster = config.read({}), config.read({"version": 2, "shards": [{"name": "s1"}, {"name": "s2"}]})
    line = refusal(cluster, embedded)
    assert line.startswith("shards: expected one gateway and one shard without a `link`, as before: stop the tracker")
    assert line.endswith("found more than one of each, or a `link`")
    line = refusal(config.read({"version": 3}), cluster)
    assert line.startswith("shards: expected a cluster, with links, as before: stop the tracker")
    assert line.endswith("found one of each")


def test_a_shard_that_still_hands_over_may_come_back_to_its_place_alone():
    new = edited(version=4)
    places = {"s1": ("tcp://127.0.0.1:7101", b""), "s2": ("tcp://127.0.0.9:7102", b"")}
    edits.check_departing(new, ("s1", "s9"), places)
    edits.check_departing(new, (), places)
    with pytest.raises(
        ConfigError, match=r"^shards\[1\].name: expected another name, as the s2 at tcp://127.0.0.9:7102"
    ):
        edits.check_departing(new, ("s2",), places)
