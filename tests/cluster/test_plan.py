"""`shoal plan`: what an edit would move, by made-up shards, and that it is what then happens, with real ones."""

import json
import random

import pytest
from packing import Request, pack_frame
from processes import Cluster, shoal, shoal_json, shoal_refuses, until
from told_shards import FULL, LEAVING, PART, cluster, owned, told
from trackers import Client, announce_request

from cluster import plan, plan_tables
from cluster.held import Copy
from common import frames
from common.clock import SteadyClock
from common.config import ConfigError
from common.ring import ring_of
from shard.service import ShardWorker


def planned(old, new, shards, waiting=()):
    """The plan, if the shards of both say this."""
    return plan.Plan(old, new, shards).document(list(waiting))


def flows(document):
    return {(flow["from"], flow["to"]): (flow["slices"], flow["torrents"], flow["peers"]) for flow in document["flows"]}


def row(document, name):
    return next(shard for shard in document["shards"] if shard["name"] == name)


def printed(document, capsys):
    plan_tables.print_plan("new.yaml", "cluster.yaml", document)
    return capsys.readouterr().out


def members(config, slice_id):
    ring = ring_of(config)
    return [ring.names[at] for at in ring.members_of(slice_id)]


# What moves


def grown(**settings):
    """Two shards that hold all of theirs, and an edit that adds a third one."""
    old, new = cluster(2, **settings), cluster(3, version=2, **settings)
    rows = {name: owned(old, name, torrents=2, leechers=5, seeders=1) for name in ("shard1", "shard2")}
    return old, new, told(plan.asked(old, new), old, **rows)


def test_a_new_shard_fills_from_who_has_its_slices(capsys):
    old, new, shards = grown()
    document = planned(old, new, shards)
    ring = ring_of(new)
    expected = {}
    for slice_id in ring.held_by(2):
        (giver,) = members(old, slice_id)
        expected[giver] = expected.get(giver, 0) + 1
    assert flows(document) == {(giver, "shard3"): (many, 2 * many, 6 * many) for giver, many in expected.items()}
    total = sum(expected.values())
    assert total == len(ring.held_by(2))
    size = total * (2 * 28 + 6 * 9 + 88)
    assert document["total"] == {"slices": total, "torrents": 2 * total, "peers": 6 * total, "bytes": size}
    drops = {each["shard"]: (each["slices"], each["torrents"], each["peers"]) for each in document["drops"]}
    assert drops == {giver: (many, 2 * many, 6 * many) for giver, many in expected.items()}
    assert (document["ok"], document["problems"], document["lost"], document["silent"]) == (True, [], [], [])
    shown = printed(document, capsys)
    assert "version 2, after version 1 (cluster.yaml); each slice is kept by 1 shard" in shown
    assert f"in all {total} slices, {2 * total} torrents, {6 * total:,} peers, about {size / 1024:.0f} KiB" in shown
    assert "shard3 does not answer yet: it fills its slices once it runs" in shown


def test_shares_are_told_before_and_afterwards(capsys):
    old, new, shards = grown()
    document = planned(old, new, shards)
    for at, name in enumerate(("shard1", "shard2")):
        before, after = len(ring_of(old).slices_of(at)), len(ring_of(new).slices_of(at))
        assert row(document, name)["before"] == {"weight": 1, "owns": before, "keeps": before}
        assert row(document, name)["after"] == {"weight": 1, "owns": after, "keeps": after}
        assert (row(document, name)["fills"], row(document, name)["drops"]) == (0, before - after)
    third = row(document, "shard3")
    assert (third["change"], third["before"], third["fills"]) == ("added", None, len(ring_of(new).slices_of(2)))
    owns, share = third["after"]["owns"], third["after"]["keeps"] / 1024
    assert f"0 -> {owns}   0.0% -> {share:.1%}" in printed(document, capsys)


def test_nothing_is_copied_if_nothing_changes(capsys):
    old, new = cluster(2), cluster(2, version=2)
    document = planned(old, new, told(old, shard1=owned(old, "shard1"), shard2=owned(old, "shard2")))
    assert (document["ok"], document["flows"], document["drops"]) == (True, [], [])
    assert "nothing is copied from shard to shard" in printed(document, capsys)


def test_a_replica_fills_from_every_shard_that_has_the_slice(capsys):
    """With three copies instead of two, each of two holders is asked for all of it."""
    old, new = cluster(3, replicas=1), cluster(3, replicas=2, version=2)
    shards = told(old, **{name: owned(old, name) for name in ("shard1", "shard2", "shard3")})
    document = planned(old, new, shards)
    assert document["total"]["slices"] == 2 * 1024
    for name in ("shard1", "shard2", "shard3"):
        lacking = [slice_id for slice_id in range(1024) if name not in members(old, slice_id)]
        assert row(document, name)["fills"] == len(lacking)
        for giver in {"shard1", "shard2", "shard3"} - {name}:
            assert flows(document)[giver, name] == (len(lacking), len(lacking), 5 * len(lacking))
    assert document["mutual"]["slices"] == 0
    shown = printed(document, capsys)
    assert "each slice is kept by 2 shards, then by 3" in shown
    replicas = row(document, "shard1")["before"]["keeps"] - row(document, "shard1")["before"]["owns"]
    assert f"{replicas} -> {1024 - row(document, 'shard1')['after']['owns']}" in shown


def test_replicas_that_are_too_many_are_dropped():
    old, new = cluster(3, replicas=2), cluster(3, replicas=0, version=2)
    document = planned(old, new, told(old, **{name: owned(old, name) for name in ("shard1", "shard2", "shard3")}))
    assert (document["ok"], document["flows"]) == (True, [])
    assert sum(each["slices"] for each in document["drops"]) == 2 * 1024


def test_shards_that_fill_a_slice_at_once_ask_each_other(capsys):
    old, new = cluster(1), cluster(3, replicas=1, version=2)
    document = planned(old, new, told(plan.asked(old, new), old, shard1=owned(old, "shard1")))
    both = [slice_id for slice_id in range(1024) if "shard1" not in members(new, slice_id)]
    each = plan.bytes_of(Copy(FULL, 1, 2, 3), 0.0)
    assert document["mutual"] == {"slices": len(both), "bytes": 2 * len(both) * each}
    assert f"{len(both)} slices fill at several shards at once, which also ask each other: up to " in printed(
        document, capsys
    )


def test_what_a_shard_has_in_part_or_leaves_is_copied_too():
    """A stray has a part; a shard gets back what it was about to leave."""
    old, new = cluster(2, weights={"shard2": 0}), cluster(2, version=2)
    back = ring_of(new).slices_of(1)[0]
    mine = owned(old, "shard1")
    shards = told(old, shard1=mine, shard2=[(back, LEAVING, 1, 2, 3), (back + 1, PART, 1, 0, 1)])
    document = planned(old, new, shards)
    assert row(document, "shard2")["fills"] == len(ring_of(new).slices_of(1))
    document = planned(
        new, cluster(2, weights={"shard2": 0}, version=3), told(new, shard1=mine, shard2=[(5, PART, 1, 0, 1)])
    )
    assert ("shard2", "shard1") not in flows(document)  # it is full there: no fill
    slices = [each for each in mine if each[0] != 5]
    document = planned(
        new, cluster(2, weights={"shard2": 0}, version=3), told(new, shard1=slices, shard2=[(5, PART, 1, 0, 1)])
    )
    assert flows(document) == {("shard2", "shard1"): (1, 1, 1)}


# What may be lost


def test_a_shard_that_is_taken_out_at_once_may_lose_what_only_it_has(capsys):
    old, new = cluster(3), cluster(2, version=2)
    document = planned(old, new, told(old, **{name: owned(old, name) for name in ("shard1", "shard2", "shard3")}))
    many = len(ring_of(old).slices_of(2))
    assert document["lost"] == [{"shard": "shard3", "known": True, "slices": many, "torrents": many, "peers": 5 * many}]
    assert not document["ok"]
    shown = printed(document, capsys)
    assert (
        f"\nshard3: is taken out and has {many} slices that nobody else has: {many} torrents, {5 * many:,} peers; "
        in shown
    )
    assert "; lost if it ends before others have them: better drain it first\n" in shown
    assert row(document, "shard3")["after"] is None
    assert sum(flow["slices"] for flow in document["flows"] if flow["from"] == "shard3") == many  # as long as it runs


def test_a_shard_of_which_others_have_all_may_be_taken_out():
    old, new = cluster(3, replicas=1), cluster(2, replicas=1, version=2)
    document = planned(old, new, told(old, **{name: owned(old, name) for name in ("shard1", "shard2", "shard3")}))
    assert (document["ok"], document["lost"]) == (True, [])


def test_a_part_is_no_copy_that_saves_what_is_lost():
    old, new = cluster(2), cluster(1, version=2)
    mine, theirs = owned(old, "shard1"), owned(old, "shard2")
    parts = [(slice_id, PART, 1, 1, 1) for slice_id, *_ in theirs]
    document = planned(old, new, told(old, shard1=mine + parts, shard2=theirs))
    assert document["lost"][0]["slices"] == len(theirs)


def test_a_shard_that_holds_nothing_may_be_taken_out():
    old, new = cluster(3, weights={"shard3": 0}), cluster(2, version=2)
    document = planned(old, new, told(old, shard1=owned(old, "shard1"), shard2=owned(old, "shard2"), shard3=[]))
    assert (document["ok"], document["flows"]) == (True, [])
    empty = told(cluster(3), **{name: owned(cluster(3), name, 0, 0, 0) for name in ("shard1", "shard2", "shard3")})
    assert planned(cluster(3), new, empty)["ok"]


def test_of_a_dead_shard_that_is_taken_out_the_slices_are_told():
    for replicas, lost in ((0, True), (1, False)):
        old, new = cluster(3, replicas=replicas), cluster(2, more=["shard4"], replicas=replicas, version=2)
        shards = told(plan.asked(old, new), old, shard1=owned(old, "shard1"), shard2=owned(old, "shard2"))
        document = planned(old, new, shards)
        many = len(ring_of(old).slices_of(2))
        alone = [{"shard": "shard3", "known": False, "slices": many, "torrents": 0, "peers": 0}]
        assert document["lost"] == (alone if lost else [])
        line = f"shard3: is taken out while it is silent: {many} slices that nobody else has begin empty, "
        assert any(problem.startswith(line) for problem in document["problems"]) is lost


# Who is not heard


def test_figures_lack_what_a_silent_shard_has():
    old, new = cluster(2), cluster(3, version=2)
    document = planned(old, new, told(plan.asked(old, new), old, shard1=owned(old, "shard1")))
    assert (document["silent"], document["ok"]) == (["shard2"], False)
    assert document["problems"] == ["shard2: silent, so the figures lack what it has: no answer"]
    assert {pair[0] for pair in flows(document)} == {"shard1"}
    assert row(document, "shard2")["fills"] == 0  # it keeps what it had


def test_a_silent_shard_fills_what_it_gains():
    old, new = cluster(2), cluster(2, weights={"shard2": 3}, version=2)
    document = planned(old, new, told(old, shard1=owned(old, "shard1")))
    gained = set(ring_of(new).slices_of(1)) - set(ring_of(old).slices_of(1))
    assert flows(document) == {("shard1", "shard2"): (len(gained), len(gained), 5 * len(gained))}


def test_all_may_be_silent():
    old, new = cluster(2), cluster(3, version=2)
    document = planned(old, new, told(plan.asked(old, new), old))
    assert (document["flows"], document["silent"]) == ([], ["shard1", "shard2"])


def test_without_the_file_before_it_goes_by_what_runs(capsys):
    old, new, _ = grown()
    rows = {name: owned(old, name) for name in ("shard1", "shard2")}
    with_links = {name: {"rows": each, "slices": {"wanted": len(each)}} for name, each in rows.items()}
    document = planned(None, new, told(new, old, **with_links))
    assert flows(document) == flows(planned(old, new, told(new, old, **rows)))
    assert (document["ok"], document["before"]) == (True, None)
    assert row(document, "shard1")["before"] == {"weight": None, "owns": None, "keeps": len(rows["shard1"])}
    assert row(document, "shard3")["change"] == "added"
    shown = printed(document, capsys)
    assert "version 2, after what runs now; each slice is kept by 1 shard" in shown


def test_without_the_file_before_others_say_who_is_there():
    """shard2 is silent, and shard9 is in no file at hand; shard1 is linked to both."""
    new = cluster(2, version=2)
    old = cluster(2, more=["shard9"])
    links = [{"shard": name} for name in ("shard2", "shard9")]
    document = planned(None, new, told(new, old, shard1={"rows": owned(old, "shard1"), "links": links}))
    assert document["silent"] == ["shard2"]
    assert row(document, "shard2")["change"] == "stays"
    line = "shard9: others link to it, and it was not asked: only the file by which it runs says where (--config)"
    assert any(problem.startswith(line) for problem in document["problems"])
    document = planned(None, new, told(new, old, **{name: owned(old, name) for name in ("shard1", "shard2")}))
    many = len(ring_of(old).slices_of(2))
    assert document["problems"] == [f"{many} of 1,024 slices are at none of these shards"]


# What else is said


def test_memory_that_may_not_suffice_is_told(capsys):
    old, new, _ = grown()
    shards = told(
        plan.asked(old, new),
        old,
        shard1={"rows": owned(old, "shard1"), "memory": {"taken": 9 << 30, "ceiling": 10 << 30}},
        shard2={"rows": owned(old, "shard2"), "memory": {"taken": 9 << 30, "ceiling": 10 << 30}},
    )
    document = planned(old, new, shards)
    assert document["problems"] == ["shard3: may not have enough memory for what it is to hold"]
    memory = row(document, "shard3")["memory"]
    share = row(document, "shard3")["after"]["keeps"] / 1024
    assert memory["then"] == pytest.approx(2 * (9 << 30) * share, rel=0.1)
    assert memory["ceiling"] == 1 << 30
    assert row(document, "shard1")["memory"]["then"] == 9 << 30
    assert "\nmemory of " in printed(document, capsys)


def test_settings_that_wait_and_fills_under_way_are_told():
    old, new, _ = grown()
    filling = {"fill": {"of": 9, "left": 4, "since_ms": 1}, "counts": {}, "sources": []}
    shards = told(
        plan.asked(old, new),
        old,
        shard1={"rows": owned(old, "shard1"), "copies": filling},
        shard2={"rows": owned(old, "shard2"), "config_version": 0},
    )
    assert planned(old, new, shards, ["interval"])["notes"] == [
        "shard3 does not answer yet: it fills its slices once it runs",
        "shard2 runs with version 0, which is not that of the file before",
        "slices are being filled at present, so the figures change",
        "takes effect at the next start of `shoal up` only: interval",
    ]


def test_ipv6_addresses_take_more():
    old, new, _ = grown()
    rows = owned(old, "shard1", torrents=0, leechers=10, seeders=0)
    sizes = []
    for ipv6 in (0, 5 * len(rows), 10 * len(rows), 1000 * len(rows)):
        shards = told(plan.asked(old, new), old, shard1={"rows": rows, "ipv6": ipv6}, shard2=[])
        (flow,) = planned(old, new, shards)["flows"]
        sizes.append(flow["bytes"] / flow["slices"])
    assert sizes == [88 + 90, 88 + 150, 88 + 210, 88 + 210]


@pytest.mark.parametrize(("torrents", "most"), [(1, 1), (3000, 1), (400, 30), (40, 900)])
def test_the_estimate_of_bytes_is_near_what_a_shard_writes(torrents, most):
    """All in one slice, as a shard gives it."""
    wanted = cluster(2, slices=1)
    worker = ShardWorker(wanted, wanted.shards[0], SteadyClock())
    chance = random.Random(torrents)
    peers = 0
    for _ in range(torrents):
        torrent, many = chance.randbytes(20), chance.randint(1, most)
        peers += many
        ports = range(1000, 1000 + many)
        requests = [Request(torrent, port=port, seeder=port % 3 == 0, exempt=True) for port in ports]
        for at in range(0, many, 500):
            worker.answer(memoryview(pack_frame(requests[at : at + 500])))
    cursor, size = bytearray(frames.CURSOR), 0
    while cursor[23] != 2:
        size += plan.FRAME + worker.store.dump(0, cursor, worker.chunk, worker.clock.seconds())
    swarms, leechers, seeders = worker.store.held(0)
    assert (swarms, leechers + seeders) == (torrents, peers)
    assert plan.bytes_of(Copy(FULL, swarms, leechers, seeders), 0.0) == pytest.approx(size, rel=0.1)


# Edits that would be refused


@pytest.mark.parametrize(
    ("new", "why"),
    [
        (lambda: cluster(2, version=2), "version: expected at least 3"),
        (lambda: cluster(3, version=3), "version: expected more than 3"),
        (lambda: cluster(2, version=4, slices=512), "slices: expected 1024, as before"),
    ],
)
def test_an_edit_that_processes_would_refuse_is_refused(new, why):
    with pytest.raises(ConfigError) as refused:
        plan.plan(cluster(2, version=3), new(), None, 0.1)
    assert str(refused.value).startswith(why)


def test_an_edit_older_than_what_runs_is_refused():
    old, new = cluster(2), cluster(3, version=2)
    ahead = told(plan.asked(old, new), cluster(2, version=7), shard2=[])
    with pytest.raises(ConfigError, match="version: expected at least 7, which shard2 has taken up, found 2"):
        plan.Plan(old, new, ahead)
    other = told(plan.asked(old, new), cluster(2, version=2), shard2=[])
    with pytest.raises(ConfigError, match="version: expected more than 2, which shard2 has taken up with other"):
        plan.Plan(old, new, other)
    same = told(plan.asked(old, new), new, shard1=owned(new, "shard1"))
    assert plan.Plan(old, new, same).document([])["after"]["version"] == 2


def test_mistakes_are_one_line(tmp_path):
    file, new = tmp_path / "cluster.yaml", tmp_path / "new.yaml"
    assert "expected a readable file, found no such file" in shoal_refuses("plan", new)
    new.write_text(f"data: {tmp_path}\n")
    line = shoal_refuses("plan", new)
    assert line.startswith(f"shoal: {new}: shards: expected a configuration whose shards have links")
    shards = "shards: [{name: shard1}, {name: shard2}]"
    file.write_text(f"version: 2\ndata: {tmp_path}\n{shards}\n")
    new.write_text(f"version: 1\ndata: {tmp_path}\n{shards}\n")
    line = shoal_refuses("plan", new, "--config", file)
    assert line == f"shoal: {new}: version: expected at least 2, {line.partition('at least 2, ')[2]}"
    new.write_text("version: 3\nshards: [{name: shard1}, {name: shard2, weight: x}]\n")
    assert f"{new}: shards[1].weight: expected a number, found 'x'" in shoal_refuses("plan", new, "--config", file)
    assert "--node: expected none" in shoal_refuses("plan", file, "--node", "vps1")


# With real shards


def announce_some(cluster, torrents, most):
    """Fill a cluster; how many peers it has then."""
    chance = random.Random(7)
    requests = []
    with Client(cluster.gateway_address("gateway1")) as client:
        for _ in range(torrents):
            torrent = chance.randbytes(20)
            ports = range(2000, 2000 + chance.randint(1, most))
            requests += [announce_request(client.id, torrent, port=port, left=port % 3) for port in ports]
        client.announce_all(requests)
    return len(requests)


def shards_of(cluster):
    """Each shard as status tells it."""
    return {shard["name"]: shard for shard in shoal_json("status", "--config", cluster.file)[1]["shards"]}


def is_filled(cluster):
    code, document = shoal_json("status", "--config", cluster.file)
    return code == 0 and not any(shard["slices"]["part"] for shard in document["shards"])


def copied(shard, source):
    """Bytes that a shard has got from another one."""
    return next(one["bytes"] for one in shard["copies"]["sources"] if one["shard"] == source)


def test_a_plan_and_what_then_happens_agree(tmp_path):
    """A third shard is added, and drained: the only test that waits until copies are dropped, a minute and a half."""
    running = Cluster(tmp_path, gateways=1, shards=3, absent=["shard3"], slices=16)
    shards = running.document["shards"]
    running.rewrite(shards=shards[:2])
    new = tmp_path / "new.yaml"
    with running:
        until(lambda: is_filled(running))
        peers = announce_some(running, 600, 40)
        new.write_text(json.dumps(json.loads(running.file.read_text()) | {"version": 2, "shards": shards}))
        code, document = shoal_json("plan", new, "--config", running.file)
        assert (code, document["problems"]) == (0, [])
        assert flows(document) == flows(shoal_json("plan", new)[1])
        running.rewrite(version=2, shards=shards)
        running.start("shard3")
        until(lambda: is_filled(running))
        third = shards_of(running)["shard3"]
        assert third["slices"]["full"] == third["copies"]["fill"]["of"] == document["total"]["slices"]
        assert row(document, "shard3")["fills"] == document["total"]["slices"]
        assert third["torrents"] == document["total"]["torrents"]
        assert third["seeders"] + third["leechers"] == document["total"]["peers"]
        counts = third["copies"]["counts"]
        assert counts["merged"] == document["total"]["peers"]
        again = plan.FRAME * counts["empty"]  # bytes of answers that there is no more
        assert document["total"]["bytes"] == pytest.approx(counts["bytes"] - again, rel=0.15)
        for flow in document["flows"]:
            assert flow["bytes"] == pytest.approx(copied(third, flow["from"]), rel=0.15, abs=again)
        whole = shoal_json("status", "--config", running.file)[1]["totals"]
        assert (whole["torrents"], whole["seeders"] + whole["leechers"]) == (600, peers)
        assert whole["elsewhere"] == document["total"]["torrents"]

        running.rewrite(version=3, shards=[*shards[:2], shards[2] | {"weight": 0}])
        ended = shoal("drain", "shard3", "--config", running.file)
        assert (ended.returncode, ended.stderr) == (0, "")
        assert ended.stdout.endswith(f"shard3 holds nothing: it may be removed from {running.file}\n")
        assert "others have all of it; it is dropped a minute after its last change" in ended.stdout
        code, status = shoal_json("status", "--config", running.file)
        third = shards_of(running)["shard3"]
        assert [third[name] for name in ("torrents", "seeders", "leechers")] == [0, 0, 0]
        assert (code, status["totals"]["torrents"], status["totals"]["elsewhere"]) == (0, 600, 0)
        new.write_text(json.dumps(json.loads(running.file.read_text()) | {"version": 4, "shards": shards[:2]}))
        code, document = shoal_json("plan", new, "--config", running.file)
        assert (code, document["flows"], document["lost"]) == (0, [], [])


def test_a_plan_with_a_dead_shard_and_encrypted_links(tmp_path):
    with Cluster(tmp_path, gateways=1, shards=3, transport="curve", nodes=2, replicas=1) as running:
        until(lambda: is_filled(running))
        peers = announce_some(running, 50, 10)
        running.kill("shard3")
        document = json.loads(running.file.read_text())
        new = tmp_path / "new.yaml"
        new.write_text(json.dumps(document | {"version": 2, "shards": document["shards"][:2]}))
        ended = shoal("plan", new, "--config", running.file, "--node", "vps1")
        assert (ended.returncode, ended.stderr) == (1, "")
        assert "\nshard3: silent, so the figures lack what it has: no connection to tcp://127.0.0.1:" in ended.stdout
        _, planned = shoal_json("plan", new, "--config", running.file)
        assert planned["lost"] == []  # there is a replica of all
        assert planned["after"]["members"] == 2
        assert row(planned, "shard1")["after"]["keeps"] == row(planned, "shard2")["after"]["keeps"] == 1024
        held = {each["name"]: each for each in shards_of(running).values() if each["state"] == "up"}
        there = sum(shard["seeders"] + shard["leechers"] for shard in held.values())
        assert planned["total"]["peers"] == 2 * peers - there  # each of the two lacks what the other has alone
