"""docs/deploy.md, followed to the letter: three machines, and one more that looks at them from outside.

A block ```sh vps1 vps2 vps3 is run on these machines in turn; ```sh outside on the fourth. ```sh prepare fetches
packages or sets values of the whole system, and ```sh image needs Docker: these are not run.
"""

import json
import os
import re
import subprocess
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from types import SimpleNamespace

import pytest
from announcers import Load, random_torrents
from clients.running import Aria2, Libtorrent
from clients.torrents import make_torrent
from http_client import HttpClient
from namespaces import Machine, Switch, demand, with_names, with_ssh, with_systemctl
from processes import until
from trackers import Client, announce_request, is_answer, parse_answer

from common import config

DOCUMENT = (Path(__file__).parents[2] / "docs/deploy.md").read_text()
EXAMPLE = Path(__file__).parents[2] / "examples/three-vps.yaml"
NODES = {"vps1": "192.0.2.1", "vps2": "198.51.100.1", "vps3": "203.0.113.1"}
OUTSIDE = [f"45.83.20.{number}" for number in range(1, 7)]  # public addresses: others are not listed
STATUS = "shoal status --config /etc/shoal/cluster.yaml"
PORT = 6969
TORRENT = "123456789abcdef123456789abcdef123456789a"


def blocks():
    """Each block of commands: the words beside its fence, its commands."""
    return [(words.split(), text) for words, text in re.findall(r"^```sh ([^\n]*)\n(.*?)^```$", DOCUMENT, re.M | re.S)]


@pytest.fixture(scope="module")
def deployed(tmp_path_factory):
    """The machines after all that the document says; `printed` is what each block printed on each machine."""
    demand()
    directory = tmp_path_factory.mktemp("deploy")
    with ExitStack() as stack:
        switch = stack.enter_context(Switch())
        machines = {
            name: stack.enter_context(Machine(name, addresses, directory, switch))
            for name, addresses in {**{name: [address] for name, address in NODES.items()}, "outside": OUTSIDE}.items()
        }
        nodes = [machines[name] for name in NODES]
        with_names(nodes)
        with_ssh(nodes)
        for node in nodes:
            with_systemctl(node)
        printed = {}
        for words, text in blocks():
            if words[0] not in ("prepare", "image"):
                printed[text] = follow([machines[name] for name in words], text)
        yield SimpleNamespace(**machines, switch=switch, printed=printed)


def follow(machines, text):
    """Run a block on machines, at once as it is the same for each; what it printed, by machine."""
    with ThreadPoolExecutor(len(machines)) as pool:
        told = pool.map(lambda machine: machine.run(text), machines)
        return {machine.name: lines for machine, lines in zip(machines, told, strict=True)}


def printed(deployed, part):
    """What the one block printed that has this in it."""
    (found,) = [told for text, told in deployed.printed.items() if part in text]
    return found


def test_every_block_says_where_it_is_run():
    assert "```sh\n" not in DOCUMENT
    assert {word for words, _ in blocks() for word in words} == {*NODES, "outside", "prepare", "image"}


def test_only_what_fetches_or_is_for_the_whole_system_is_left_out():
    left_out = [text for words, text in blocks() if words[0] == "prepare"]
    assert [re.findall(r"apt-get|git clone|make -C|sysctl", text) for text in left_out] == [
        ["apt-get", "apt-get", "git clone", "make -C"],
        ["sysctl", "sysctl", "sysctl"],
    ]
    for words, text in blocks():
        assert ("docker" in text) == (words[0] == "image")


def test_every_block_is_good_shell():
    for _, text in blocks():
        subprocess.run(["bash", "-n"], input=text, text=True, check=True)


def test_the_addresses_are_those_of_the_example():
    shards = config.load(EXAMPLE).shards
    assert [shard.link for shard in shards] == [f"tcp://{address}:7101" for address in NODES.values()]


def test_the_checked_file_has_new_keys_that_agree_with_the_files(deployed):
    text = deployed.vps1.run("cat /etc/shoal/cluster.yaml")
    assert not any(node.key in text for node in config.load(EXAMPLE).nodes)
    told = printed(deployed, "shoal check")["vps1"]
    assert "cluster.yaml: fine (version 1)" in told
    for node in NODES:
        assert getattr(deployed, node).run("cat /etc/shoal/cluster.yaml") == text


def test_each_node_has_the_shared_keys_and_its_own_alone(deployed):
    for node in NODES:
        names = getattr(deployed, node).run("cd /etc/shoal/keys; stat -c '%n %a %U' *").split("\n")
        assert names == [*(f"{name}.key 600 shoal" for name in ("cluster", "connection-id", node)), ""]


def test_all_is_well_as_each_node_sees_it(deployed):
    for node in NODES:
        told = getattr(deployed, node).run(STATUS)
        assert "all is well" in told
        assert "3 of 3" in told


def test_no_worker_is_root(deployed):
    for node in NODES:
        users = getattr(deployed, node).run("ps -C python3,python,shoal -o user= | sort -u").split()
        assert users == ["shoal"]


def test_from_outside_each_gateway_lists_who_announced_at_another(deployed):
    told = printed(deployed, "--port 7001\n")["outside"]
    counts = re.findall(r"seeders: (\d+), leechers: (\d+), peers in this answer: (\d+)", told)
    assert counts == [("1", "0", "0"), ("1", "1", "1"), ("1", "2", "2")]
    last = told.rpartition("next announce")[2]
    assert set(re.findall(r"^(\S+) +(700\d)$", last, re.M)) == {(OUTSIDE[0], "7001"), (OUTSIDE[0], "7002")}
    assert re.search(r"^123456789abcdef\S+ +1 +2 +0$", told, re.M)


def test_what_was_announced_is_found_at_its_owner_and_gone_after_the_farewell(deployed):
    (owner,) = re.findall(r"^ *1 +.* owner +full +(\d+) +(\d+) +\d+$", printed(deployed, "shoal find")["vps2"], re.M)
    assert owner == ("1", "2")
    told = deployed.vps1.run(f"shoal find {TORRENT} --config /etc/shoal/cluster.yaml --json")
    assert [shard["holds"] for shard in json.loads(told)["shards"]] == [False, False, False]


def test_the_firewall_lets_links_in_from_the_nodes_alone(deployed):
    knock = "timeout 1 bash -c 'exec 3<>/dev/tcp/{}/{}' && echo open || echo closed"
    for address in (NODES["vps1"], NODES["vps3"]):
        assert deployed.outside.run(knock.format(address, PORT)).split()[-1] == "open"
        assert deployed.outside.run(knock.format(address, 7101)).split()[-1] == "closed"
        assert deployed.vps2.run(knock.format(address, 7101)).split()[-1] == "open"


def test_a_connection_id_of_one_node_is_good_at_all_after_the_key_was_rotated(deployed):
    wanted = os.urandom(20)
    with deployed.outside.network(), Client((NODES["vps1"], PORT), OUTSIDE[0]) as first:
        for address in NODES.values():
            with Client((address, PORT), OUTSIDE[0]) as other:
                request = announce_request(first.id, wanted)
                reply = until(lambda other=other, request=request: answer(other, request))
                assert parse_answer(reply).leechers == 1


def answer(client, request):
    reply = client.ask(request)
    return reply if is_answer(reply, request) else None


@pytest.mark.parametrize("scheme", ["udp", "http"])
@pytest.mark.parametrize("seeding", [Aria2, Libtorrent])
def test_real_clients_find_each_other_at_different_gateways(deployed, tmp_path, seeding, scheme):
    """The seeder asks vps1 over one protocol, the leecher vps3 over the other; then the file is carried."""
    data = os.urandom((1 << 20) + 12_345)
    urls = [f"{name}://{address}:{PORT}/announce" for name, address in SIDES[scheme]]
    torrents = [make_torrent(url, "file.bin", data) for url in urls]
    with deployed.outside.network(), ExitStack() as running:
        seeder = running.enter_context(seeding(torrents[0], tmp_path / "seeder", OUTSIDE[1]))
        leecher = running.enter_context(Libtorrent(torrents[1], tmp_path / "leecher", OUTSIDE[2]))
        http = running.enter_context(HttpClient((NODES["vps2"], PORT), OUTSIDE[3]))
        info_hash = torrents[0].info_hash
        assert torrents[1].info_hash == info_hash
        seeder.start(complete=True)
        until(lambda: http.scrape(info_hash).get(info_hash) == (1, 0, 0))
        leecher.start(complete=False)
        until(leecher.has_file)
        until(lambda: http.scrape(info_hash).get(info_hash) == (2, 1, 0))


def test_a_node_that_is_cut_off_is_replaced_by_others_until_it_is_back(deployed):
    asked = [(NODES[name], PORT) for name in ("vps1", "vps2")]
    # Slow and from several sources, for the limits of each.
    with deployed.outside.network(), Load(asked, random_torrents(24), rate=40, sources=OUTSIDE) as load:
        load.wait(40)
        with deployed.switch.cut_off(deployed.vps3):
            load.wait(160)
            assert "vps3: nothing of this node is heard" in deployed.vps1.run(STATUS, check=False)
        load.wait(20)
    assert (load.wrong, load.failed()) == ([], [])
    load.tell("vps3 was cut off")
    for node in NODES:
        until(lambda node=node: "all is well" in getattr(deployed, node).run(STATUS, check=False))


SIDES = {
    "udp": (("udp", NODES["vps1"]), ("http", NODES["vps3"])),
    "http": (("http", NODES["vps1"]), ("udp", NODES["vps3"])),
}
