"""What of an edit takes effect at once, and what waits for the next start."""

import pytest

from common import config, uptake
from common.config_errors import ConfigError

NODES = [{"name": "one", "key": "a" * 40}, {"name": "two", "key": "b" * 40}]
SHARDS = [
    {"name": "s1", "node": "one", "link": "tcp://127.0.0.1:7101", "memory": "16 MiB"},
    {"name": "s2", "node": "two", "link": "tcp://127.0.0.1:7102", "memory": "16 MiB"},
]
GATEWAYS = [{"name": f"g{at}", "node": node, "listen": ["127.0.0.1:6969"]} for at, node in ((1, "one"), (2, "two"))]
DOCUMENT = {"version": 3, "data": "/srv", "nodes": NODES, "gateways": GATEWAYS, "shards": SHARDS}
OLD = config.read(DOCUMENT)


def edited(**settings):
    return config.read(DOCUMENT | settings)


def changed(items, at, **settings):
    """A list of processes, one of them with other settings."""
    return [{**each, **settings} if place == at else each for place, each in enumerate(items)]


def refusal(new, old=OLD, node="one"):
    with pytest.raises(ConfigError) as caught:
        uptake.taken_up(old, new, node)
    return str(caught.value)


AT_ONCE = {
    "version": {"version": 4},
    "a shard more": {"version": 4, "shards": [*SHARDS, {**SHARDS[0], "name": "s3", "link": "tcp://127.0.0.1:7103"}]},
    "a shard less": {"version": 4, "shards": SHARDS[:1]},
    "weight": {"version": 4, "shards": changed(SHARDS, 0, weight=0)},
    "replicas": {"version": 4, "replicas": 1},
    "a node more": {"version": 4, "nodes": [*NODES, {"name": "three", "key": "c" * 40}]},
    "the key of another node": {"version": 4, "nodes": [NODES[0], {"name": "two", "key": "c" * 40}]},
    "a gateway more": {"gateways": [*GATEWAYS, {**GATEWAYS[0], "name": "g3", "listen": ["127.0.0.1:7001"]}]},
    "a gateway less": {"gateways": GATEWAYS[:1]},
    "a gateway elsewhere": {"gateways": changed(GATEWAYS, 0, node="two", listen=["127.0.0.1:7001"])},
    "admin": {"admin": None},
    "insecure": {"insecure": True},
    "what another node listens on": {"gateways": changed(GATEWAYS, 1, listen=["127.0.0.1:7001"])},
    "what another node may use": {"shards": changed(SHARDS, 1, memory="32 MiB", bind="tcp://0.0.0.0:7102")},
}
LATER = {
    "interval": ({"interval": 60}, ["interval"]),
    "data": ({"data": "/other"}, ["data"]),
    "keys": ({"keys": "/keys"}, ["keys"]),
    "user": ({"user": "root"}, ["user"]),
    "a part of limits": ({"limits": {"requests": {"burst": 7}}}, ["limits.requests.burst"]),
    "networks": ({"trusted_proxies": ["127.0.0.1"]}, ["trusted_proxies"]),
    "log": ({"log": {"level": "debug", "addresses": True}}, ["log.level", "log.addresses"]),
    "listen": ({"gateways": changed(GATEWAYS, 0, listen=["127.0.0.1:7001"])}, ["gateways[0].listen"]),
    "memory": ({"shards": changed(SHARDS, 0, memory="32 MiB")}, ["shards[0].memory"]),
    "bind": ({"shards": changed(SHARDS, 0, bind="tcp://0.0.0.0:7101")}, ["shards[0].bind"]),
}


@pytest.mark.parametrize("edit", AT_ONCE)
def test_who_is_there_is_taken_up_at_once(edit):
    new = edited(**AT_ONCE[edit])
    assert uptake.taken_up(OLD, new, "one") == new
    assert uptake.later(new, new) == []


@pytest.mark.parametrize("edit", LATER)
def test_what_a_start_has_used_waits_for_the_next(edit):
    settings, paths = LATER[edit]
    new = edited(**settings)
    taken = uptake.taken_up(OLD, new, "one")
    assert taken == OLD
    assert uptake.later(taken, new) == paths


def test_both_in_one_edit_are_told_apart():
    new = edited(version=4, replicas=1, interval=60, gateways=changed(GATEWAYS, 0, listen=["127.0.0.1:7001"]))
    taken = uptake.taken_up(OLD, new, "one")
    assert (taken.version, taken.replicas, taken.interval) == (4, 1, OLD.interval)
    assert uptake.later(taken, new) == ["interval", "gateways[0].listen"]
    assert uptake.later(uptake.taken_up(taken, new, "one"), new) == ["interval", "gateways[0].listen"]


def test_a_process_that_comes_has_all_of_the_file():
    shard = {"name": "s3", "node": "one", "link": "tcp://127.0.0.1:7103", "bind": "tcp://0.0.0.0:7103"}
    new = edited(version=4, shards=[{**shard, "memory": "64 MiB"}, *SHARDS])
    assert uptake.taken_up(OLD, new, "one").shards == new.shards


def test_rules_of_edits_hold():
    assert refusal(edited(version=2)).startswith("version: expected at least 3")
    assert refusal(edited(replicas=1)).startswith("version: expected more than 3")


def test_an_address_that_is_free_in_the_file_only_is_refused():
    moved = changed(GATEWAYS, 0, listen=["127.0.0.1:7001"])
    new = edited(gateways=[*moved, {"name": "g3", "node": "one", "listen": ["0.0.0.0:6969"]}])
    assert refusal(new) == (
        "gateways[2].listen[0]: expected a port that is not taken, as by gateways[0].listen[0] (127.0.0.1:6969); "
        "to share it, write the same, for as long as the tracker runs as it was started, found 0.0.0.0:6969"
    )
    assert uptake.taken_up(OLD, new, "two").gateways[0].listen == ("127.0.0.1:7001",)  # node two does not care


@pytest.mark.parametrize("key", ["c" * 40, None])
def test_a_node_keeps_the_key_by_which_it_runs(key):
    nodes = [{"name": "one", "key": key}, NODES[1]] if key else [{"name": name} for name in ("one", "two")]
    line = refusal(edited(version=4, nodes=nodes, insecure=True))
    assert line.startswith("nodes[0].key: expected the key by which this node runs: stop it, then start it with")


def test_a_node_that_was_gone_may_come_back_with_any_key():
    without = edited(version=4, nodes=NODES[1:], gateways=GATEWAYS[1:], shards=SHARDS[1:])
    again = edited(version=5, nodes=[{"name": "one", "key": "c" * 40}, NODES[1]])
    taken = uptake.taken_up(OLD, without, "one")
    assert taken.on_node("one") == []
    assert uptake.taken_up(taken, again, "one") == again


def test_nodes_get_no_names_while_they_run():
    old = config.read({"shards": [{"name": "s1"}, {"name": "s2"}]})
    new = {"version": 2, "nodes": [{"name": "n"}], "shards": [{"name": "s3"}, {"name": "s4"}]}
    assert refusal(config.read(new), old, "").startswith("nodes: expected none, as before: stop the tracker")
    back = config.read({"version": 3, "shards": [{"name": "s5"}, {"name": "s6"}]})
    assert refusal(back, config.read(new), "n").startswith("nodes: expected nodes, as before: stop the tracker")


def test_the_embedded_tracker_takes_up_nothing_but_the_version():
    old = config.read({"version": 3})
    new = config.read({"version": 2, "interval": 60, "admin": None, "shards": [{"name": "other", "memory": "16 MiB"}]})
    taken = uptake.taken_up(old, new, "")
    assert taken == config.read({"version": 2})
    assert uptake.later(taken, new) == ["interval", "shards[0].name", "shards[0].memory", "admin"]
    cluster = config.read({"version": 4, "shards": [{"name": "s1"}, {"name": "s2"}]})
    assert refusal(cluster, old, "").startswith("shards: expected one gateway and one shard without a `link`")
