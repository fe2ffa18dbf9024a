"""`shoal status`: a cluster that is well, and all that can be wrong with it. Real processes, real links."""

import json
import re
import shutil
import socket

import pytest
from click.testing import CliRunner
from ports import free_port
from processes import Cluster, shoal, shoal_json, shoal_refuses, until
from told_shards import hear, held
from trackers import Client, Process

from cluster import status, status_tables
from cluster.__main__ import main
from common import config, keys
from common.ring import ring_of

TRANSPORTS = {"ipc": 1, "tcp": 2, "curve": 2}  # and how many nodes


@pytest.fixture(scope="module", params=TRANSPORTS)
def cluster(request, tmp_path_factory):
    """Two gateways and two shards that nobody harms."""
    nodes = TRANSPORTS[request.param]
    directory = tmp_path_factory.mktemp(request.param)
    with Cluster(directory, shards=2, transport=request.param, nodes=nodes) as running:
        with Client(running.gateway_address("gateway1")) as client:
            client.announce(b"s" * 20, left=0, port=7001)
            client.announce(b"s" * 20, left=9, port=7002)
        until(lambda: status_of(running)["ok"])
        yield running


@pytest.fixture
def small(tmp_path):
    """A gateway and two shards, linked by CURVE, for a test to harm; the shards are on different nodes."""
    with Cluster(tmp_path, gateways=1, shards=2, transport="curve", nodes=2) as running:
        yield running


def status_of(cluster, node="vps1"):
    return shoal_json("status", "--config", cluster.file_of(node))[1]


def problems_of(cluster, node="vps1"):
    return status_of(cluster, node)["problems"]


# A cluster that is well


def test_all_are_heard_and_well(cluster):
    ended = shoal("status", "--config", cluster.file, "--json")
    found = json.loads(ended.stdout)
    assert (ended.returncode, ended.stderr, found["problems"]) == (0, "", [])
    assert [one["name"] for one in found["gateways"]] == cluster.gateways
    assert [one["name"] for one in found["shards"]] == cluster.shards
    assert {one["state"] for one in found["gateways"] + found["shards"]} == {"up"}
    assert [node["name"] for node in found["nodes"]] == cluster.nodes


def test_what_shards_hold_is_added_up(cluster):
    found = status_of(cluster)
    assert sum(shard["slices"]["full"] for shard in found["shards"]) == found["config"]["slices"] == 1024
    assert {name: found["totals"][name] for name in ("torrents", "seeders", "leechers")} == {
        "torrents": 1,
        "seeders": 1,
        "leechers": 1,
    }


def test_gateways_are_known_by_what_they_told_shards(cluster):
    gateway = status_of(cluster)["gateways"][0]
    assert gateway["heard_by"] == cluster.shards
    assert gateway["node"] == "vps1"
    assert [link["shard"] for link in gateway["links"]] == cluster.shards
    assert not any(link["silent"] or link["refused"] for link in gateway["links"])


def test_everybody_has_the_configuration_of_the_file(cluster):
    found = status_of(cluster)
    for one in found["gateways"] + found["shards"]:
        assert (one["config_version"], one["table"]) == (found["config"]["version"], found["config"]["table"])


def test_any_node_may_ask(cluster):
    for node in cluster.nodes:
        ended = shoal("status", "--config", cluster.file_of(node), "--node", node)
        assert (ended.returncode, ended.stderr) == (0, "")


def test_a_person_reads_it_in_80_columns(cluster):
    ended = shoal("status", "--config", cluster.file, cwd=cluster.directory)
    head, *lines = ended.stdout.splitlines()
    assert head.endswith("1024 slices")
    assert max(map(len, lines)) <= 80
    assert "1 torrent, 1 seeder, 1 leecher" in lines[0]
    for name in cluster.names:
        assert any(line.split()[1:3] == [name, "up"] for line in lines), name
    assert lines[-1] == "all is well"


# What can be wrong


def test_a_killed_shard_is_silent(small):
    small.kill("shard2")
    ended = shoal("status", "--config", small.file)
    assert ended.returncode == 1
    assert re.search(r"shard2 +silent", ended.stdout)
    assert "\nshard2: silent: no connection to tcp://127.0.0.1:" in ended.stdout
    assert "vps2: nothing of this node is heard" in ended.stdout
    assert "does not hear shard2" not in ended.stdout  # once is enough


def test_a_shard_that_stands_still_is_silent(small):
    small.pause("shard1")
    assert any(line.startswith("shard1: silent: no ") for line in problems_of(small))
    small.resume("shard1")
    until(lambda: status_of(small)["ok"])
    assert status_of(small)["shards"][0]["stalls"] >= 1


def test_a_killed_gateway_is_silent(small):
    until(lambda: status_of(small)["ok"])
    small.kill("gateway1")
    (line,) = until(lambda: [line for line in problems_of(small) if line.startswith("gateway1: silent")])
    assert re.fullmatch(r"gateway1: silent: heard last \d+ s ago", line)
    small.start("gateway1")
    until(lambda: status_of(small)["ok"])


def test_a_gateway_nobody_has_heard_of_is_silent(tmp_path):
    with Cluster(tmp_path, gateways=2, shards=1, absent=["gateway2"]) as cluster:
        code, found = shoal_json("status", "--config", cluster.file)
        assert code == 1
        assert found["gateways"][1]["state"] == "silent"
        assert "gateway2: silent: no shard has heard of it in the last minute" in found["problems"]


def test_without_shards_gateways_are_not_known(tmp_path):
    with Cluster(tmp_path, gateways=1, shards=2, absent=["gateway1", "shard1", "shard2"]) as cluster:
        ended = shoal("status", "--config", cluster.file, "--timeout", "0.3")
        assert ended.returncode == 1
        assert "\ngateway1: not known, as no shard is heard\n" in ended.stdout
        assert re.search(r"\nshard1: silent: no connection to ipc:///\S+/shard1\n", ended.stdout)


def test_configurations_that_differ_are_json(small):
    until(lambda: status_of(small)["ok"])
    shards = small.document["shards"]
    small.rewrite(shards=[shards[0] | {"weight": 2}, shards[1]])
    lines = problems_of(small)
    for name in small.names:
        assert f"{name}: other shards or weights in its configuration of the same version 1" in lines
    small.rewrite(version=2)
    small.kill("shard1")
    small.start("shard1")
    lines = problems_of(small)
    assert "shard2: has version 1 of the configuration; the file here is version 2" in lines
    assert not any(line.startswith("shard1: has version") for line in lines)


def test_a_gateway_that_the_file_does_not_name_is_json(small):
    gateway = small.document["gateways"][0] | {"name": "renamed"}
    small.rewrite(gateways=[gateway])
    assert until(lambda: [line for line in problems_of(small) if line.startswith("gateway1: ")]) == [
        "gateway1: not in the file, but pings shard1, shard2"
    ]


def test_another_cluster_key_is_json(small):
    small.kill("shard2")
    (small.keys_of("vps2") / keys.CLUSTER).unlink()
    keys.make(small.keys_of("vps2"))
    small.start("shard2")
    lines = until(lambda: [line for line in problems_of(small) if line.startswith("gateway1 refuses")])
    assert lines == ["gateway1 refuses what shard2 says: another cluster's key"]
    shown = shoal("status", "--config", small.file).stdout
    assert re.search(r"\nshard2: frames dropped: other_cluster [1-9]", shown)


def test_strangers_and_their_number_are_json(small):
    host, port = status_of(small)["shards"][0]["link"].removeprefix("tcp://").split(":")
    with socket.create_connection((host, int(port))) as stranger:
        stranger.sendall(b"GET / HTTP/1.1\r\n\r\n" * 100)
    until(lambda: any(status_of(small)["shards"][0]["refused"].values()))
    assert "\nshard1: strangers refused: " in shoal("status", "--config", small.file).stdout


@pytest.mark.parametrize(
    ("said", "state", "line"),
    [
        ({"stopping": True}, "stopping", "shard2: stopping"),
        ({"ok": False, "failed_tasks": ["expiry"]}, "unwell", "shard2: tasks that fail: expiry"),
        ({"ok": False, "kernel_faults": 2}, "unwell", "shard2: kernel faults: 2"),
    ],
)
def test_a_shard_that_stops_or_is_not_well_is_told(cluster, said, state, line):
    """What the shard says is real but for one thing, which would be hard to bring about just now."""
    wanted = config.load(cluster.file)
    first, second = status_of(cluster)["shards"]
    found = status.describe(wanted, [first, status.shard_of(wanted, 1, {**second, **said}, "", 1)])
    assert found["shards"][1]["state"] == state
    assert found["problems"] == [line]
    assert not found["ok"]


# Keys


def test_a_node_whose_key_is_not_known_is_refuses(small):
    own = small.directory / "own"
    shutil.copytree(small.keys_of("vps1"), own)
    (own / "vps1.key").unlink()
    public = keys.make_node_key(own, "vps1").public
    nodes = [{"name": "vps1", "key": public}, small.document["nodes"][1]]
    small.rewrite(keys=str(own), nodes=nodes)
    lines = problems_of(small)
    assert any(re.fullmatch(r"shard2: silent: tcp://\S+ refuses this node's key", line) for line in lines)
    assert any(re.fullmatch(r"shard1: silent: tcp://\S+ has another key than .*", line) for line in lines)


def test_the_key_of_a_node_is_needed(small):
    (small.keys_of("vps1") / "vps1.key").unlink()
    line = shoal_refuses("status", "--config", small.file)
    assert line.endswith("no secret of a node can be seen here, expected one of vps1.key, vps2.key")
    assert "vps2.key: there is no such file" in shoal_refuses("status", "--config", small.file, "--node", "vps2")
    assert "--node: expected one of vps1, vps2, found 'vps3'" in shoal_refuses(
        "status", "--config", small.file, "--node", "vps3"
    )


def test_a_node_of_shards_needs_no_key_of_connection_ids(small):
    (small.keys_of("vps2") / keys.CONNECTION_ID).unlink()
    small.kill("shard2")
    small.start("shard2")
    until(lambda: status_of(small, "vps2")["ok"])
    assert shoal("find", "ab" * 20, "--config", small.file_of("vps2")).returncode == 0


# The embedded tracker


def test_the_embedded_tracker_is_asked_at_its_admin_address(tmp_path):
    with Process(tmp_path) as tracker:
        with Client(tracker.addresses[0]) as client:
            client.announce(b"s" * 20, left=0)
        code, found = shoal_json("status", "--config", tracker.file)
        assert (code, found["ok"], found["state"]) == (0, True, "up")
        assert (found["torrents"], found["seeders"], found["leechers"], found["announces"]) == (1, 1, 0, 1)
        shown = shoal("status", "--config", tracker.file).stdout
        assert re.search(r"\ntorrents +1 *\n", shown)
        assert shown.endswith("\nall is well\n")


def test_an_embedded_tracker_that_is_silent_is_json(tmp_path):
    file = tmp_path / "cluster.yaml"
    admin = f"127.0.0.1:{free_port()}"
    file.write_text(f"data: {tmp_path}\nadmin: {admin}\n")
    ended = shoal("status", "--config", file)
    assert ended.returncode == 1
    assert f"\ngateway1: no health at {admin}: Connection refused\n" in ended.stdout


def test_mistakes_are_one_line(tmp_path):
    file = tmp_path / "cluster.yaml"
    assert "expected a readable file, found no such file" in shoal_refuses("status", "--config", file)
    file.write_text(f"data: {tmp_path}\nadmin: null\n")
    assert "admin: expected an address with port for every process, found null" in shoal_refuses(
        "status", "--config", file
    )


# What others say is not believed blindly


def document_of(wanted, said):
    """The document, if the first of two shards says this, as JSON, and the other nothing."""
    question = status.Question()
    question.hear(memoryview(question.begin() + json.dumps(said).encode()))
    silent = status.shard_of(wanted, 1, None, "no answer", 0)
    return status.describe(wanted, [status.shard_of(wanted, 0, question.said, "", 1), silent])


PING = {"name": "gateway1", "role": "gateway", "heard_ms": 1, "boot": "1", "config_version": 1, "table": "2"}
LINK = {"shard": "shard2", "silent": False, "refused": "", "unanswered": 0, "round_trip_ms": 1}
SAID = {
    "ok": True,
    "failed_tasks": [],
    "kernel_faults": 0,
    "version": "1",
    "torrents": 1,
    "seeders": 1,
    "leechers": 1,
    "ipv6": 0,
    "announces_per_s": 1,
    "uptime_s": 1,
    "boot": "1",
    "stalls": 0,
    "stopping": False,
    "config_version": 1,
    "table": "2",
    "config_refused": "",
    "slices": {"full": 1, "part": 0, "leaving": 0, "wanted": 1},
    "copies": {"fill": {"of": 0, "left": 0, "since_ms": 1}, "counts": {"bytes": 1}, "sources": []},
    "held": {"slice": [5], "state": [3], "torrents": [1], "leechers": [1], "seeders": [1]},
    "memory": {"taken": 1, "ceiling": 2},
    "dropped": {"malformed": 1},
    "refused": {"handshake": 1},
    "unlisted": 0,
    "peers": [PING | {"report": {"ok": True, "connections": 1, "shed": 1, "links": [LINK]}}],
    "links": [LINK],
}
TRASH = [
    None,
    [],
    {},
    "",
    "no",
    1.5,
    -1,
    1e300,
    1 << 70,
    True,
    [1],
    [[]],
    [{}],
    {"\x1b[2J": 1},
    {"\ud800": 1},
    "\ud800",
]


@pytest.fixture(scope="module")
def wanted():
    shards = [{"name": f"shard{number}", "link": f"tcp://127.0.0.1:{number}"} for number in (1, 2)]
    return config.read({"gateways": [{"name": "gateway1", "listen": ["127.0.0.1:6969"]}], "shards": shards})


def printed(document, capsys):
    status_tables.print_status("cluster.yaml", document)
    return capsys.readouterr().out


def test_what_fits_is_taken(wanted, capsys):
    document = document_of(wanted, SAID)
    (shard, _), (gateway,) = document["shards"], document["gateways"]
    others = ("peers", "links", "held")
    assert {name: shard[name] for name in SAID if name not in others} == {
        name: value for name, value in SAID.items() if name not in others
    }
    assert {name: document["totals"][name] for name in ("torrents", "leechers", "seeders")} == {
        "torrents": 1,
        "leechers": 1,
        "seeders": 1,
    }
    assert (gateway["shed"], gateway["links"][0]["shard"]) == (1, "shard2")
    assert "no sense" not in printed(document, capsys)


def test_a_row_is_one_line_when_no_terminal_reads_it(wanted, capsys):
    document = document_of(wanted, SAID | {"version": "9" * 120})
    assert re.search(rf"^- +shard1 .* {'9' * 120} .* 1 *$", printed(document, capsys), re.MULTILINE)


def test_who_is_left_out_of_a_shards_answer_is_counted(wanted, capsys):
    assert "not listed" not in printed(document_of(wanted, SAID), capsys)
    assert "\nshard1: 4,000 that ping it are not listed" in printed(
        document_of(wanted, SAID | {"unlisted": 4000}), capsys
    )


@pytest.mark.parametrize("trash", TRASH, ids=repr)
def test_what_does_not_fit_is_left_out_and_said(wanted, capsys, trash):
    for field, good in SAID.items():
        document = document_of(wanted, SAID | {field: trash})
        shown = printed(document, capsys)
        if field in ("slices", "copies", "held", "memory") and isinstance(trash, dict):
            continue  # nothing in it is known
        fits = type(trash) is type(good) and document["shards"][0].get(field) == trash
        assert (f"what it says of {field} makes no sense here" in shown) is not fits, field


@pytest.mark.parametrize("trash", TRASH, ids=repr)
def test_nothing_that_a_gateway_tells_ends_it(wanted, capsys, trash):
    report = SAID["peers"][0]["report"]
    pings = [PING | {field: trash} for field in PING]
    pings += [PING | {"report": report | {field: trash}} for field in report]
    pings += [PING | {"report": {"links": [LINK | {field: trash}]}} for field in LINK]
    for ping in [trash, PING | {"report": trash}, *pings]:
        document = document_of(wanted, SAID | {"peers": [ping]})
        assert "gateway1" in printed(document, capsys)
        json.dumps(document).encode()


def test_what_is_in_a_part_must_fit_too(wanted):
    held = {"slice": [1, 2], "state": [3, 3], "torrents": [1, 1], "leechers": [1, 1], "seeders": [1]}
    wrong = {"slices": {"full": "x"}, "copies": {"fill": 7}, "held": held, "memory": {"taken": -1}}
    document = document_of(wanted, SAID | wrong)
    assert "shard1: what it says of slices, copies, held, memory makes no sense here" in document["problems"]


def test_what_others_say_cannot_pose_as_what_is_known(wanted):
    (shard, _) = document_of(wanted, SAID | {"name": "x", "node": 1, "state": [], "why": {}, "nonsense": 7})["shards"]
    assert (shard["name"], shard["state"]) == ("shard1", "up")
    assert not {"why", "nonsense"} & shard.keys()


def test_a_part_that_does_not_fit_leaves_the_others(wanted):
    document = document_of(wanted, SAID | {"peers": [7, SAID["peers"][0], {}]})
    assert document["gateways"][0]["state"] == "up"
    assert "shard1: what it says of peers makes no sense here" in document["problems"]


@pytest.mark.parametrize("body", [b"", b"[]", b"{", b"\xff", b"[" * 60_000])
def test_a_status_that_makes_no_sense_is_refuses(body):
    question = status.Question()
    with pytest.raises(status.FrameError):
        question.hear(memoryview(question.begin() + body))
    assert not question.done


def test_a_frame_of_another_kind_is_refuses():
    question = status.Question()
    with pytest.raises(status.FrameError):
        question.hear(memoryview(bytearray(question.begin()[:2]) + b"\3" + bytes(29)))


# Copies of slices


def ring_of_two(wanted):
    """A slice that each of the two shards owns."""
    ring = ring_of(wanted)
    return ring.slices_of(0)[0], ring.slices_of(1)[0]


def documents(wanted, *said):
    """The document, if both shards say something."""
    shards = [status.shard_of(wanted, at, hear(one), "", 1) for at, one in enumerate(said)]
    return status.describe(wanted, shards)


def totals(document):
    return [document["totals"][name] for name in ("torrents", "leechers", "seeders", "elsewhere")]


def test_of_copies_the_largest_counts(wanted):
    mine, theirs = ring_of_two(wanted)
    one = held((mine, 3, 5, 40, 2), (theirs, 1, 1, 1, 0))
    other = held((mine, 2, 5, 39, 2), (theirs, 3, 7, 10, 20))
    document = documents(wanted, SAID | {"held": one}, SAID | {"held": other})
    assert totals(document) == [12, 50, 22, 1 + 5]
    assert all("held" not in shard for shard in document["shards"])


def test_copies_in_their_places_are_not_elsewhere(wanted, capsys):
    mine, theirs = ring_of_two(wanted)
    document = documents(wanted, *(SAID | {"held": held((at, 3, 2, 1, 1))} for at in (mine, theirs)))
    assert totals(document) == [4, 2, 2, 0]
    assert "should not keep" not in printed(document, capsys)


@pytest.mark.parametrize(
    ("many", "line"),
    [
        (1, "1 torrent at shards that should not keep it"),
        (2000, "2,000 torrents at shards that should not keep them"),
    ],
)
def test_copies_that_are_elsewhere_are_told(wanted, capsys, many, line):
    _, theirs = ring_of_two(wanted)
    document = documents(wanted, SAID | {"held": held((theirs, 2, many, 0, 0))}, SAID | {"held": held((0, 0, 0, 0, 0))})
    assert f"\n{line}\n" in printed(document, capsys)


def test_a_shard_that_tells_nothing_of_slices_counts_with_all_it_has(wanted):
    without = {name: value for name, value in SAID.items() if name != "held"}
    document = documents(wanted, SAID, without | {"torrents": 10, "leechers": 20, "seeders": 30})
    assert totals(document)[:3] == [11, 21, 31]


def test_slices_that_there_are_not_do_not_count(wanted):
    document = documents(
        wanted, SAID | {"held": held((1024, 3, 1, 1, 1))}, SAID | {"held": held((1 << 60, 3, 1, 1, 1))}
    )
    assert totals(document) == [0, 0, 0, 0]


def well(wanted, **more):
    """What a shard says that agrees with the file."""
    return SAID | {"table": f"{ring_of(wanted).digest():016x}", "peers": [], "links": []} | more


@pytest.mark.parametrize(("left", "words", "wanted_status"), [(0, ["--full"], 0), (3, ["--full"], 1), (3, [], 0)])
def test_a_script_may_wait_until_all_is_full(monkeypatch, left, words, wanted_status):
    fill = {"of": 5, "left": left, "since_ms": 5}
    look = {"ok": True, "shards": [{"copies": {"fill": fill}}, {"state": "silent"}]}
    monkeypatch.setattr("cluster.status.look_at", lambda *_: look)
    assert CliRunner().invoke(main, ["status", "--json", *words]).exit_code == wanted_status


def test_to_fill_is_no_fault(wanted, capsys):
    filling = {
        "slices": {"full": 20, "part": 31, "leaving": 0, "wanted": 50},
        "copies": {"fill": {"of": 50, "left": 30, "since_ms": 5}, "counts": {}, "sources": []},
    }
    leaving = {"slices": {"full": 7, "part": 0, "leaving": 2, "wanted": 7}}
    document = documents(wanted, well(wanted, **filling), well(wanted, **leaving))
    assert document["moving"] == [
        "shard1 fills its slices from other shards: 20 of 50 so far",
        "shard1 has a slice that leaves it a minute after others have all of it",
        "shard2 has 2 slices that leave it a minute after others have all of it",
    ]
    assert [line for line in document["problems"] if line.startswith("shard")] == []
    shown = printed(document, capsys)
    assert "\nshard1 fills its slices" in shown
    assert re.search(r"\nshard1 +20 full, 31 part +1 ", shown)
    assert re.search(r"\nshard2 +7 full, 2 leaving +1 ", shown)


def test_a_process_that_does_not_take_up_the_file_is_told(wanted):
    said = well(wanted, config_refused="cluster.yaml: version: expected at least 4,\x1b[2J found 3")
    told = PING | {"table": said["table"], "report": {"ok": True, "config_refused": "no"}}
    document = documents(wanted, said | {"peers": [told]}, well(wanted, peers=[told]))
    assert document["problems"] == [
        "gateway1: does not take up the file: no",
        "shard1: does not take up the file: cluster.yaml: version: expected at least 4,?[2J found 3",
    ]


def test_a_shard_that_the_file_lacks_is_told_and_no_fault(wanted):
    away = well(wanted, links=[LINK | {"shard": "shard9", "silent": True}])
    here = well(wanted, links=[LINK | {"shard": "shard9"}])
    lines = ("it is silent, and had something", "it hands over what it has, or the file is old")
    for said, line in zip((away, here), lines, strict=True):
        document = documents(wanted, away, said)
        assert f"shard9 is not in the file here: {line}" in document["moving"]
        assert not any("shard9" in problem for problem in document["problems"])


def test_who_has_another_version_need_not_know_all_shards(wanted):
    of_old = PING | {"config_version": 7, "report": {"ok": True}}
    document = documents(wanted, well(wanted, peers=[of_old]), well(wanted))
    assert document["problems"] == ["gateway1: has version 7 of the configuration; the file here is version 1"]
