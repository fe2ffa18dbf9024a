"""`shoal find`: the slice of a torrent, who keeps it, and how many peers each shard has. Real processes, real links."""

import json
import re

import pytest
from processes import Cluster, shoal, shoal_json, shoal_refuses, until
from trackers import COMPLETED, Client

from cluster import asking, find
from common import config, control, frames, keys
from common.control import FrameError
from common.life import Life
from common.topology import Self, Topology

TRANSPORTS = {"ipc": 1, "tcp": 2, "curve": 2}  # and how many nodes
TORRENTS = [bytes([number]) * 20 for number in range(1, 9)]


@pytest.fixture(scope="module", params=TRANSPORTS)
def cluster(request, tmp_path_factory):
    """A gateway and three shards with eight torrents: a seeder that was a leecher, two leechers."""
    directory = tmp_path_factory.mktemp(request.param)
    with Cluster(directory, gateways=1, transport=request.param, nodes=TRANSPORTS[request.param]) as running:
        with Client(running.gateway_address("gateway1")) as client:
            for torrent in TORRENTS:
                for port in (7001, 7002, 7003):
                    client.announce(torrent, left=5, port=port)
                client.announce(torrent, left=0, port=7001, event=COMPLETED)
        until(lambda: is_filled(running))
        yield running


def is_filled(cluster):
    """Whether all shards have all that they should."""
    _, document = shoal_json("status", "--config", cluster.file)
    return document["ok"] and not document["moving"]


def found(cluster, torrent, *more):
    code, document = shoal_json("find", torrent.hex(), "--config", cluster.file, *more)
    assert code == 0
    return document


# Where a torrent is


def test_the_owner_has_the_peers_and_nobody_else_does(cluster):
    owners = set()
    for torrent in TORRENTS:
        document = found(cluster, torrent)
        owner, *others = document["shards"]
        assert (owner["name"], owner["role"], owner["state"]) == (document["owner"], "owner", "full")
        assert (owner["seeders"], owner["leechers"], owner["completed"]) == (1, 2, 1)
        assert [(other["role"], other["state"], other["holds"]) for other in others] == [("next", "none", False)] * 2
        assert sorted(shard["name"] for shard in document["shards"]) == cluster.shards
        owners.add(document["owner"])
    assert len(owners) > 1  # else eight torrents tell nothing


def test_the_slice_and_the_order_are_those_of_the_ring(cluster):
    wanted = config.load(cluster.file)
    ring = Topology(wanted, bytes(16)).ring
    document = found(cluster, TORRENTS[0])
    slice_id, many = document["slice"], len(ring.names)
    order = ring.order[slice_id * many : (slice_id + 1) * many]
    assert [shard["name"] for shard in document["shards"]] == [ring.names[at] for at in order]
    assert 0 <= slice_id < document["slices"] == 1024


def test_to_look_changes_nothing(cluster):
    before = {name: cluster.metrics(name) for name in cluster.shards}
    found(cluster, b"never seen before...")
    for name, was in before.items():
        now = cluster.metrics(name)
        for metric in (
            "shoal_torrents",
            *(key for key in was if key.startswith(("shoal_link_dropped", "shoal_peers"))),
        ):
            assert now[metric] == was[metric], metric
        assert not any(value for key, value in now.items() if key.startswith("shoal_link_dropped"))


def test_a_torrent_of_version_2_is_known_by_its_first_20_bytes(cluster):
    document = found(cluster, TORRENTS[0] + bytes(12))
    assert document == found(cluster, TORRENTS[0])
    assert document["info_hash"] == TORRENTS[0].hex()


def test_any_node_may_ask(cluster):
    node = cluster.nodes[-1]
    ended = shoal("find", TORRENTS[0].hex(), "--config", cluster.file_of(node), "--node", node, "--json")
    assert (ended.returncode, ended.stderr) == (0, "")
    assert json.loads(ended.stdout) == found(cluster, TORRENTS[0])


def test_a_person_reads_it_in_80_columns(cluster):
    document = found(cluster, TORRENTS[0])
    ended = shoal("find", TORRENTS[0].hex().upper(), "--config", cluster.file)
    assert (ended.returncode, ended.stderr) == (0, "")
    assert ended.stdout.startswith(
        f"{TORRENTS[0].hex()}: slice {document['slice']} of 1024, owner {document['owner']}\n"
    )
    assert re.search(rf"\n +1  {document['owner']} +vps\d +owner +full +1 +2 +1\n", ended.stdout)
    assert max(map(len, ended.stdout.splitlines())) <= 80


# Shards that are gone


def test_who_kept_it_while_the_owner_was_away_is_a_stray(tmp_path):
    with Cluster(tmp_path, gateways=1, transport="tcp") as cluster:
        until(lambda: is_filled(cluster))
        document = found(cluster, TORRENTS[0])
        owner, second, _ = (shard["name"] for shard in document["shards"])

        def owner_is_heard():
            return cluster.metrics("gateway1")[f'shoal_link_heard{{shard="{owner}"}}']

        cluster.kill(owner)
        until(lambda: not owner_is_heard())
        with Client(cluster.gateway_address("gateway1")) as client:
            client.announce(TORRENTS[0], left=1)
        ended = shoal("find", TORRENTS[0].hex(), "--config", cluster.file)
        assert ended.returncode == 1
        assert re.search(rf"\n +1  {owner} +vps1 +owner +silent +- +- +-\n", ended.stdout)
        assert re.search(rf"\n +2  {second} +vps1 +stray +part +0 +1 +0\n", ended.stdout)
        assert f"\n{owner}: no connection to tcp://127.0.0.1:" in ended.stdout
        cluster.start(owner)
        until(owner_is_heard)
        first, stray, _ = until(lambda: (shards := found(cluster, TORRENTS[0])["shards"])[0]["holds"] and shards)
        assert (first["name"], first["role"], first["leechers"]) == (owner, "owner", 1)  # it has asked the other
        assert (stray["name"], stray["role"], stray["leechers"]) == (second, "stray", 1)
        _, document = shoal_json("status", "--config", cluster.file)
        totals = {name: document["totals"][name] for name in ("torrents", "leechers", "elsewhere")}
        assert totals == {"torrents": 1, "leechers": 1, "elsewhere": 1}


def test_replicas_are_told_from_strays(tmp_path):
    with Cluster(tmp_path, gateways=1, shards=3, replicas=1) as cluster:
        until(lambda: is_filled(cluster))
        with Client(cluster.gateway_address("gateway1")) as client:
            client.announce(TORRENTS[0], left=1)
        first, second, third = until(lambda: (shards := found(cluster, TORRENTS[0])["shards"])[1]["holds"] and shards)
        assert [one["role"] for one in (first, second, third)] == ["owner", "replica", "next"]
        assert [one["state"] for one in (first, second, third)] == ["full", "full", "none"]


@pytest.mark.parametrize(
    ("place", "members", "holds", "role"),
    [
        (0, 1, False, "owner"),
        (1, 1, False, "next"),
        (1, 1, True, "stray"),
        (1, 2, False, "replica"),
        (1, 2, True, "replica"),
        (2, 2, True, "stray"),
    ],
)
def test_a_role_is_of_the_place_and_of_what_is_there(place, members, holds, role):
    assert find.role_of(place, members, holds) == role


def test_a_shard_of_another_cluster_is_not_asked(tmp_path):
    with Cluster(tmp_path, gateways=1, shards=2, transport="curve", nodes=2, absent=["gateway1", "shard2"]) as cluster:
        (cluster.keys_of("vps2") / keys.CLUSTER).unlink()
        keys.make(cluster.keys_of("vps2"))
        cluster.start("shard2")
        code, document = shoal_json("find", TORRENTS[0].hex(), "--config", cluster.file)
        assert code == 1
        heard = {shard["name"]: (shard["heard"], shard.get("why")) for shard in document["shards"]}
        assert heard == {"shard1": (True, None), "shard2": (False, "it has another cluster key")}


# An operator's mistakes


@pytest.mark.parametrize("text", ["", "ab" * 19, "ab" * 21, "xy" * 20, "ab" * 32 + "c", "\u0661" * 40])
def test_what_is_no_info_hash_is_refused(text):
    assert "expected an info-hash, 40 hex digits" in shoal_refuses("find", text)


def test_the_embedded_tracker_is_asked_otherwise(tmp_path):
    file = tmp_path / "cluster.yaml"
    file.write_text(f"data: {tmp_path}\n")
    assert "`shoal scrape`" in shoal_refuses("find", "ab" * 20, "--config", file)
    assert list(tmp_path.iterdir()) == [file]


def test_keys_are_not_made_by_asking(tmp_path):
    file = tmp_path / "cluster.yaml"
    file.write_text(f"data: {tmp_path}/data\nshards: [{{name: s1}}, {{name: s2}}]\n")
    assert "cluster.key: there is no such file" in shoal_refuses("find", "ab" * 20, "--config", file)
    assert list(tmp_path.iterdir()) == [file]


# Answers that do not fit


@pytest.fixture
def question():
    wanted = config.read({"shards": [{"name": "s1"}, {"name": "s2"}], "data": "/nowhere"})
    me = Self(Topology(wanted, bytes(16)), Life(0), frames.ROLE_OPERATOR, "shoal-find")
    return find.Question(me, "s1", TORRENTS[0], 12345)


def pong_to(question, **changes):
    known = question.me.topology
    states = bytes(control.states_length(known.slices))
    hello = question.me.hello(0)._replace(name="s1", role=frames.ROLE_SHARD, boot=7, states=states)
    return memoryview(control.pack_hello(frames.PONG, 1, hello._replace(**changes)))


def reply_to(question, ticket=None, boot=None, records=1, tail=b""):
    head = control.HEADER.pack(
        frames.VERSION, frames.REPLIES, records, 2, question.me.life.boot if boot is None else boot, 0
    )
    body = find.REPLY.pack(frames.REPLY, 0, 0, 0, 1, 4, ticket or question.ticket) + find.COUNTS.pack(2, 4, 3)
    return memoryview(head + body + tail)


def test_counts_are_read(question):
    assert len(question.hear(pong_to(question))) == frames.HEADER + frames.RECORD
    assert question.hear(reply_to(question)) is None
    assert question.done
    assert question.counts == {"seeders": 2, "leechers": 3, "partial_seeds": 1, "completed": 4}


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"cluster": 1}, "another cluster key"),
        ({"slices": 512}, "it has 512 slices"),
        ({"name": "s2"}, "there is s2"),
    ],
)
def test_a_shard_that_is_another_is_not_asked(question, changes, why):
    assert question.hear(pong_to(question, **changes)) is None
    assert question.done
    assert why in question.refused


def test_replies_that_do_not_fit_are_refused(question):
    with pytest.raises(FrameError, match="states of all slices"):
        question.hear(pong_to(question, states=b"\0"))
    for wrong in ({"ticket": bytes(48)}, {"records": 2}, {"tail": b"x"}):
        with pytest.raises(FrameError):
            question.hear(reply_to(question, **wrong))
    assert question.hear(reply_to(question, boot=1)) is None  # of an earlier question
    assert not question.done


def test_nonsense_is_told_with_its_address(tmp_path):
    """A shard that answers something else: here one that takes a status for a pong."""
    with Cluster(tmp_path, gateways=1, shards=2, absent=["gateway1"]) as cluster:

        class Confused(find.Question):
            def begin(self):
                return control.pack_header(frames.STATUS, 1)

            def hear(self, frame):
                control.unpack_hello(frame)

        wanted = config.load(cluster.file)
        me = Self(Topology(wanted, bytes(16)), Life(0), frames.ROLE_OPERATOR, "shoal-find")
        talks = [Confused(me, name, TORRENTS[0], 1) for name in cluster.shards]
        for why in asking.talk_to_shards(wanted, None, talks, 20.0):
            assert re.fullmatch(r"what ipc://\S+ answers makes no sense: a ping's length is not that of its parts", why)
