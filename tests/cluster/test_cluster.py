"""Gateways and shards as processes, encrypted links, under a load: what clients see when parts fail.

All tests share a cluster; each finds it whole.
"""

import contextlib
import json
import os
import random
import signal
import socket
import subprocess
import threading
import time
from pathlib import Path

import pytest
import zmq
from announcers import Load, random_torrents
from http_client import HttpClient, announce_target, peers_of, scrape_target
from http_client import request as http_request
from ports import free_port, free_ports
from processes import COMMAND, Cluster, shoal_json, until
from trackers import PATIENCE, Client, announce_request, is_answer, scrape_request

from common import config, control, frames, keys
from common.control import pack_header
from common.topology import Topology
from gateway.siphash import siphash

SHORT = range(120, 301)  # seconds: the interval when the owner of a torrent is not heard


@pytest.fixture(scope="module")
def running(tmp_path_factory):
    with Cluster(tmp_path_factory.mktemp("cluster"), gateways=2, shards=3, transport="curve", nodes=2) as cluster:
        yield cluster


@pytest.fixture
def cluster(running):
    """All processes run and hear each other."""
    for name in running.names:
        if name not in running.processes:
            running.start(name)
    until(lambda: all(heard(running, name) == set(running.shards) for name in running.gateways))
    return running


@pytest.fixture
def addresses(cluster):
    return [cluster.gateway_address(name) for name in cluster.gateways]


@pytest.fixture
def udp(addresses):
    """A client at each gateway."""
    with Client(addresses[0]) as one, Client(addresses[1]) as other:
        yield one, other


@pytest.fixture
def owners(cluster):
    """Torrents by the name of the shard that owns them."""
    wanted = config.load(cluster.file)
    key = keys.load(wanted.key_directory).cluster
    topology = Topology(wanted, key)
    found = {name: [] for name in cluster.shards}
    while min(map(len, found.values())) < 12:
        torrent = os.urandom(20)
        owner = topology.ring.owner(siphash(key, torrent) & (topology.slices - 1))
        found[topology.shards[owner]].append(torrent)
    return {name: torrents[:12] for name, torrents in found.items()}


def heard(cluster, gateway):
    """The shards that a gateway hears."""
    prefix = 'shoal_link_heard{shard="'
    metrics = cluster.metrics(gateway).items()
    return {name.removeprefix(prefix)[:-2] for name, value in metrics if name.startswith(prefix) and value == 1}


def wait_until_heard(cluster, shard, is_heard=True):
    until(lambda: all((shard in heard(cluster, name)) is is_heard for name in cluster.gateways))


def stored(cluster, shard):
    """How many announces a shard has taken."""
    metrics = cluster.metrics(shard).items()
    return sum(value for name, value in metrics if name.startswith("shoal_announces_total"))


def dropped(cluster, name, *reasons):
    """Frames that a process did not take, for these reasons."""
    metrics = cluster.metrics(name)
    return sum(metrics[f'shoal_link_dropped_total{{reason="{reason}"}}'] for reason in reasons)


def refused(cluster, shard):
    """Strangers that a shard turned away, by reason."""
    prefix = 'shoal_link_refused_total{reason="'
    metrics = cluster.metrics(shard).items()
    return {name.removeprefix(prefix)[:-2]: value for name, value in metrics if name.startswith(prefix)}


def held(cluster, torrent):
    """The shards that have a peer of a torrent."""
    code, found = shoal_json("find", torrent.hex(), "--config", cluster.file)
    assert code == 0
    return {shard["name"] for shard in found["shards"] if shard.get("holds")}


def everything(owners):
    torrents = sum(owners.values(), [])
    random.shuffle(torrents)
    return torrents


# A shard ends


def test_a_killed_shard_is_replaced_by_the_next_one_and_others_do_not_notice(cluster, addresses, owners, udp):
    mine, others = owners["shard2"], owners["shard1"] + owners["shard3"]
    with Load(addresses, everything(owners)) as load:
        load.wait(200)
        cluster.kill("shard2")
        load.wait(100)
        wait_until_heard(cluster, "shard2", is_heard=False)
        load.wait(200)
    assert (load.wrong, load.failed(), load.lost(others)) == ([], [], [])
    load.tell("shard2 was killed, its torrents", mine)
    load.tell("shard2 was killed, other torrents", others)
    udp[0].announce(mine[0], port=7001, left=0)
    answer = udp[1].announce(mine[0], port=7002, want=200)
    assert ("127.0.0.1", 7001) in answer.peers
    assert answer.interval in SHORT


def test_a_killed_shard_that_is_started_again_is_asked_again(cluster, addresses, owners, udp):
    mine = owners["shard2"][0]
    cluster.kill("shard2")
    wait_until_heard(cluster, "shard2", is_heard=False)
    with Load(addresses, everything(owners)) as load:
        load.wait(50)  # so that gateways have looked after they heard no more of it
        before = len(load.all)
        cluster.start("shard2")
        wait_until_heard(cluster, "shard2")
        load.wait(100)
    assert (load.wrong, load.failed(), load.lost(since=before)) == ([], [], [])
    before = stored(cluster, "shard2")
    for client in udp:
        client.announce(mine, port=7003)
    assert stored(cluster, "shard2") == before + 2
    assert "shard2" in held(cluster, mine)


def test_a_shard_that_stops_in_order_loses_no_answer(cluster, addresses, owners):
    with Load(addresses, everything(owners)) as load:
        load.wait(100)
        assert cluster.stop("shard1") == 0
        load.wait(100)
    assert (load.wrong, load.failed(), load.lost()) == ([], [], [])
    load.tell("shard1 stopped in order")


def test_without_any_shard_announces_are_answered_empty_and_scrapes_are_not(cluster, addresses, udp):
    swarm = os.urandom(20)
    udp[0].announce(swarm)
    for name in cluster.shards:
        cluster.kill(name)
    for name in cluster.gateways:
        until(lambda name=name: heard(cluster, name) == set())
    with HttpClient(addresses[0]) as one, HttpClient(addresses[1]) as other:
        for client, http in ((udp[0], one), (udp[1], other)):
            until(
                lambda client=client: client.exchange(announce_request(client.id, swarm))
            )  # at its next look it knows
            answer = client.announce(swarm, port=7002)
            assert answer[1:] == (0, 0, [])
            assert answer.interval in SHORT
            assert client.exchange(scrape_request(client.id, swarm)) == []
            answer = http.announce(swarm, port=7002)
            assert peers_of(answer) == []
            assert (answer[b"complete"], answer[b"incomplete"]) == (0, 0)
            assert answer[b"interval"] in SHORT
            for _ in range(2):  # at once: one that was given up as late would end the connection
                http.send(http_request(scrape_target(swarm)))
                assert b"failure reason" in http.receive().answer


# A process stands still


def test_a_shard_that_stood_still_applies_nothing_stale(cluster, addresses, owners, udp):
    stale, fresh = owners["shard3"][:2]
    boot = boot_of(cluster, "shard3")
    late = ("other_boot", "too_old")
    before = dropped(cluster, "shard3", *late), stored(cluster, "shard3")
    cluster.pause("shard3")
    paused = time.monotonic()
    for client in udp:
        client.send(announce_request(client.id, stale))
    with Load(addresses, owners["shard1"] + owners["shard3"][2:]) as load:
        wait_until_heard(cluster, "shard3", is_heard=False)
        until(lambda: time.monotonic() - paused > 5)
        cluster.resume("shard3")
        wait_until_heard(cluster, "shard3")
        load.wait(100)
    assert (load.wrong, load.failed(), load.lost(owners["shard1"])) == ([], [], [])
    load.tell("shard3 stood still, its torrents", owners["shard3"])
    assert dropped(cluster, "shard3", *late) >= before[0] + 2
    assert boot_of(cluster, "shard3") != boot
    assert cluster.metrics("shard3")["shoal_stalls_total"] == 1
    assert held(cluster, stale) == set()
    taken = stored(cluster, "shard3")
    assert taken > before[1]
    for client in udp:
        assert client.announce(fresh).leechers == 1  # and no answer to the stale one comes first
    assert stored(cluster, "shard3") == taken + 2
    assert held(cluster, fresh) == {"shard3"}


def test_a_gateway_that_stood_still_sends_no_answers_to_its_former_life(cluster, owners, udp):
    client, _ = udp
    swarm = owners["shard1"][0]
    request = announce_request(client.id, swarm)
    before = cluster.metrics("gateway1")
    taken = stored(cluster, "shard1")
    sent = 'shoal_link_frames_total{shard="shard1"}'
    cluster.pause("shard1")
    client.send(request)
    until(lambda: cluster.metrics("gateway1")[sent] > before[sent])
    cluster.pause("gateway1")
    paused = time.monotonic()
    cluster.resume("shard1")  # its reply waits in the link of the gateway
    until(lambda: stored(cluster, "shard1") > taken)
    until(lambda: time.monotonic() - paused > 5)
    cluster.resume("gateway1")
    until(lambda: heard(cluster, "gateway1") == set(cluster.shards))
    assert client.exchange() == []
    assert dropped(cluster, "gateway1", "other_boot", "too_old") >= 1
    assert cluster.metrics("gateway1")["shoal_stalls_total"] == 1
    assert client.announce(swarm).leechers == 1  # asked again it is answered


def test_a_gateway_that_stops_in_order_waits_for_the_answers_of_shards(cluster, owners, udp):
    client, _ = udp
    request = announce_request(client.id, owners["shard1"][1])
    sent = 'shoal_link_frames_total{shard="shard1"}'
    before = cluster.metrics("gateway1")[sent]
    cluster.pause("shard1")
    client.send(request)
    until(lambda: cluster.metrics("gateway1")[sent] > before)
    gateway = cluster.processes["gateway1"]
    gateway.send_signal(signal.SIGTERM)
    with pytest.raises(subprocess.TimeoutExpired):
        gateway.wait(0.1)  # it has half a second
    cluster.resume("shard1")
    assert is_answer(client.receive(), request)
    assert cluster.stop("gateway1") == 0


def boot_of(cluster, shard):
    _, told = shoal_json("status", "--config", cluster.file)
    (boot,) = (each["boot"] for each in told["shards"] if each["name"] == shard)
    return boot


# Scrapes of several shards


def test_scrapes_over_all_shards_are_answered_in_order(cluster, addresses, udp):
    torrents = random_torrents(100)
    for place, torrent in enumerate(torrents):
        for number in range(place % 5):
            udp[number % 2].announce(torrent, port=7000 + number, left=number % 3)
    counts = [expected(place) for place in range(100)]
    for client in udp:
        assert client.scrape(*torrents[:74]) == counts[:74]
        assert client.scrape(*torrents[:73:-1]) == counts[:73:-1]
    for address in addresses:
        with HttpClient(address) as http:
            assert http.scrape(*torrents) == dict(zip(torrents, counts, strict=True))


def expected(place):
    """What is counted of a torrent: seeders, completed, leechers."""
    seeders = sum(number % 3 == 0 for number in range(place % 5))
    return seeders, 0, place % 5 - seeders


# Strangers at the port of links


def test_strangers_on_the_link_port_are_refused_and_nothing_else_happens(cluster, addresses, owners):
    with Load(addresses, everything(owners)) as load:
        for name in cluster.shards:
            before = refused(cluster, name), cluster.metrics(name)
            for knock in (wrong_key, no_key, garbage, greeting_then_garbage, replayed):
                count = sum(refused(cluster, name).values())
                with contextlib.ExitStack() as knocking:
                    knock(knocking, cluster, name)
                    until(lambda name=name, count=count: sum(refused(cluster, name).values()) > count)
            assert refused(cluster, name)["unknown_key"] > before[0]["unknown_key"]
            after = cluster.metrics(name)
            quiet = [
                key for key in after if key.startswith(("shoal_link_dropped", "shoal_stalls", "shoal_link_unsent"))
            ]
            assert {key: after[key] for key in quiet} == {key: before[1][key] for key in quiet}
        load.wait(100)
    assert (load.wrong, load.failed(), load.lost()) == ([], [], [])


def test_malformed_frames_of_a_friend_are_dropped_and_counted_and_its_link_stays(cluster):
    before = dropped(cluster, "shard1", "malformed"), dropped(cluster, "shard1", "unknown_sender")
    with contextlib.ExitStack() as talking:
        friend = talk_as(talking, cluster, "shard1", link_of(cluster, "shard1"), key_of(cluster, "shard1"))
        friend.recv()
        for frame in (b"", b"x", os.urandom(1000)):
            friend.send(frame)
        friend.send_multipart([pack_header(frames.STATUS, 2)] * 2)
        friend.send(pack_header(frames.RECORDS, 3))  # of one that never pinged
        friend.send(pack_header(frames.STATUS, 4))
        assert control.header(memoryview(friend.recv())).kind == frames.STATUS
    assert dropped(cluster, "shard1", "malformed") == before[0] + 4
    assert dropped(cluster, "shard1", "unknown_sender") == before[1] + 1


def key_of(cluster, shard):
    """The key pair of a shard's node."""
    node = cluster.node_of(shard)
    key = keys.load_node_key(cluster.keys_of(node), node)
    return key.public.encode(), key.secret.encode()


def link_of(cluster, shard):
    """Where a shard is linked to: host and port."""
    link = cluster.document["shards"][cluster.shards.index(shard)]["link"]
    host, port = link.removeprefix("tcp://").rsplit(":", 1)
    return host, int(port)


def wrong_key(knocking, cluster, shard):
    talk_as(knocking, cluster, shard, link_of(cluster, shard), zmq.curve_keypair())


def no_key(knocking, cluster, shard):
    talk_as(knocking, cluster, shard, link_of(cluster, shard), None)


def talk_as(knocking, cluster, shard, address, pair):
    """Ask a shard how it is, with a key pair or without."""
    context = zmq.Context()
    knocking.callback(context.destroy, 0)
    sock = knocking.enter_context(contextlib.closing(context.socket(zmq.DEALER)))
    sock.linger = 0
    sock.rcvtimeo = int(1000 * PATIENCE)
    if pair is not None:
        sock.curve_publickey, sock.curve_secretkey = pair
        sock.curve_serverkey = cluster.public[cluster.node_of(shard)].encode()
    sock.connect("tcp://{}:{}".format(*address))
    sock.send(pack_header(frames.STATUS, 1))
    return sock


def garbage(knocking, cluster, shard):
    stranger(knocking, cluster, shard, os.urandom(4096))


def greeting_then_garbage(knocking, cluster, shard):
    """The beginning of ZMTP 3.1 with CURVE, then nonsense."""
    stranger(knocking, cluster, shard, GREETING + os.urandom(300))


GREETING = b"\xff" + bytes(8) + b"\x7f\x03\x01" + b"CURVE".ljust(20, b"\0") + bytes(32)


def replayed(knocking, cluster, shard):
    """All that a friend said to the shard, once more."""
    with Recorder(link_of(cluster, shard)) as recorder:
        friend = talk_as(knocking, cluster, shard, recorder.address, key_of(cluster, shard))
        assert control.header(memoryview(friend.recv())).kind == frames.STATUS
        friend.close()
    stranger(knocking, cluster, shard, bytes(recorder.heard))


def stranger(knocking, cluster, shard, said):
    """Say something over TCP; the shard ends the connection."""
    sock = knocking.enter_context(socket.create_connection(link_of(cluster, shard), PATIENCE))
    sock.sendall(said)


class Recorder:
    """Passes on one connection, and keeps what the client said."""

    def __init__(self, target):
        self.target = target
        self.heard = bytearray()
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.address = self.listener.getsockname()
        self.threads = []

    def __enter__(self):
        self.threads.append(threading.Thread(target=self._accept))
        self.threads[0].start()
        return self

    def __exit__(self, *_):
        for thread in self.threads:
            thread.join()
        self.listener.close()

    def _accept(self):
        client, _ = self.listener.accept()
        with client, socket.create_connection(self.target) as server:
            back = threading.Thread(target=self._pump, args=(server, client, None))
            back.start()
            self._pump(client, server, self.heard)
            back.join()

    def _pump(self, source, sink, kept):
        with contextlib.suppress(OSError):
            while data := source.recv(4096):
                if kept is not None:
                    kept += data
                sink.sendall(data)
        with contextlib.suppress(OSError):
            sink.shutdown(socket.SHUT_WR)


# Two gateways at one port, under `shoal up`


class Node:
    """`shoal up` with two gateways at one port and two shards."""

    def __init__(self, directory):
        admin = free_ports(4)
        self.address = ("127.0.0.1", free_port())
        self.names = ["gateway1", "gateway2", "shard1", "shard2"]
        self.admin = {name: f"127.0.0.1:{port}" for name, port in zip(self.names, admin, strict=True)}
        self.file = directory / "cluster.yaml"
        listen = ["{}:{}".format(*self.address)]
        document = {
            "data": str(directory / "data"),
            "admin": self.admin["gateway1"],
            "gateways": [{"name": name, "listen": listen} for name in self.names[:2]],
            "shards": [{"name": name, "memory": "16 MiB"} for name in self.names[2:]],
            "log": {"level": "error", "figures": 0},
        }
        self.file.write_text(json.dumps(document))

    def __enter__(self):
        self.process = subprocess.Popen(
            [*COMMAND, "cluster", "up", "--config", str(self.file)], stdout=subprocess.DEVNULL
        )
        try:
            until(lambda: shoal_json("status", "--config", self.file)[0] == 0)
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_):
        self.process.terminate()
        try:
            self.process.wait(PATIENCE)
        finally:
            self.process.kill()
            self.process.wait()

    def pid(self, name):
        """Of a worker; 0 while there is none."""
        pid = self.process.pid
        for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
            with contextlib.suppress(OSError):
                words = Path(f"/proc/{child}/cmdline").read_bytes().split(b"\0")
                if name.encode() in words:
                    return int(child)
        return 0


@pytest.fixture(scope="module")
def node(tmp_path_factory):
    with Node(tmp_path_factory.mktemp("node")) as node:
        yield node


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_gateway_that_ends_is_started_again_and_no_announce_fails(node, number):
    with Load([node.address], random_torrents(40)) as load:
        load.wait(100)
        was = node.pid("gateway1")
        os.kill(was, number)
        until(lambda: node.pid("gateway1") != was)
        assert ask_by_http(node.address, 16) == [1] * 16
        until(lambda: node.pid("gateway1") != 0)
        load.wait(250)
    assert (load.wrong, load.failed()) == ([], [])
    if number == signal.SIGTERM:  # it answers what it took; what it did not take is answered by the next one
        assert load.lost() == []
    load.tell(f"gateway1 ended by {signal.Signals(number).name}")


def ask_by_http(address, many):
    """How many leechers each of some announces counts, over connections of their own that wait side by side."""
    with contextlib.ExitStack() as stack:
        clients = [stack.enter_context(HttpClient(address)) for _ in range(many)]
        for client in clients:
            client.send(http_request(announce_target(os.urandom(20))))
        return [client.receive().answer[b"incomplete"] for client in clients]
