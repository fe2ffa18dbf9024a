"""Gateways and shards joined by real sockets, all on one loop in one process; clients ask from threads."""

import asyncio
import contextlib
import socket
import struct

import pytest
import uvloop
import zmq
from trackers import Client, announce_request, is_answer, parse_answer, parse_counts, scrape_request

from common import config, frames, keys, link_state, links
from common.clock import SteadyClock
from common.control import Hello, pack_header, pack_hello
from common.life import Life, milliseconds
from common.link_sockets import LinkSockets
from common.link_state import WINDOW
from common.links import KeyPair
from common.topology import Self, Topology
from gateway.service import GatewayService, Told
from gateway.shard_links import ShardLinks
from gateway.shards import Shards
from gateway.siphash import siphash
from shard import server as server_module
from shard.copies import Timing
from shard.machine import ShardMachine
from shard.server import LinkServer
from shard.service import ShardWorker

SLICES = 64
PATIENCE = 20
MINE, STRANGE = (KeyPair(*zmq.curve_keypair()) for _ in range(2))


async def until(condition):
    """Let the loop run until something is so."""
    async with asyncio.timeout(PATIENCE):
        while not condition():
            await asyncio.sleep(0.002)


class AShard:
    def __init__(self, cluster, name, address):
        self.cluster = cluster
        self.address = address
        self.worker = ShardWorker(cluster.config, cluster.config.shards[0], SteadyClock())
        now = milliseconds()
        me = Self(cluster.topology, Life(now), frames.ROLE_SHARD, name)
        self.machine = ShardMachine(me, self.worker, lambda: b"{}", lambda _: b"{}", now, Timing(settle=0))
        self.is_open = False

    def open(self):
        """Listen; from the second time on where it listened before."""
        self.machine.beat(milliseconds())
        self.context = zmq.Context()
        self.server = LinkServer(self.context, self.address, self.cluster.keys, self.cluster.known, self.machine)
        self.server.start(asyncio.get_running_loop())
        self.address = self.server.sock.getsockopt_string(zmq.LAST_ENDPOINT).rstrip("\0")
        self.others = LinkSockets(self.context, self.cluster.keys, self.hear)
        self.others.start(asyncio.get_running_loop())
        self.is_open = True
        self.look()
        return self

    def link(self):
        """Have links to the other shards, whose addresses are known by now."""
        addresses = {name: at for name, at in self.cluster.addresses.items() if name in self.machine.links}
        self.others.set_shards(addresses, self.machine.links)

    def hear(self, name, frame, now):
        self.machine.beat(now)
        self.others.send_all(self.machine.hear(name, frame, now))

    def look(self):
        """As a shard's process does some times a second."""
        self.timer = asyncio.get_running_loop().call_later(0.02, self.look)
        now = milliseconds()
        self.machine.beat(now)
        self.others.send_all(self.machine.tick(now))

    def close(self):
        if self.is_open:
            self.timer.cancel()
            self.others.close()
            self.server.close()
            self.context.destroy(0)
        self.is_open = False

    @property
    def is_full(self):
        """Of all that it should hold."""
        topology = self.machine.me.topology
        held = topology.ring.held_by(topology.shards.index(self.machine.me.name))
        return all(self.worker.store.state_of(slice_id) == frames.STATE_FULL for slice_id in held)

    @property
    def stored(self):
        totals = self.worker.totals()
        return totals["seeders"] + totals["leechers"]

    @property
    def dropped(self):
        return {reason: count for reason, count in self.machine.dropped.items() if count}


class Cluster:
    """One gateway and `many` shards. `kind`: of their links."""

    def __init__(self, directory, many=3, kind="ipc"):
        self.directory = directory
        self.key = keys.load_or_create(directory).cluster
        self.keys = MINE if kind == "curve" else None
        self.known = [MINE.public]
        self.address = "tcp://127.0.0.1:*" if kind != "ipc" else f"ipc://{directory}/{{}}"
        self.shards = []
        self.configure(many)
        self.reports = lambda: b"{}"

    def configure(self, many):
        """A configuration with so many shards; those that are new do not listen yet."""
        names = [{"name": f"shard{number}", "memory": "16MiB"} for number in range(1, many + 1)]
        wanted = {"slices": SLICES, "data": str(self.directory), "version": many, "shards": names}
        self.config = config.read(wanted)
        self.topology = Topology(self.config, self.key)
        for name in self.topology.shards[len(self.shards) :]:
            self.shards.append(AShard(self, name, self.address.format(name)))

    def add_shard(self):
        """An edit that all processes take up at once."""
        self.configure(len(self.shards) + 1)
        self.shards[-1].open()
        for shard in self.shards:
            shard.machine.configure(self.topology, milliseconds())
            shard.link()
        self.links.reconfigure(self.topology, self.addresses)

    async def __aenter__(self):
        for shard in self.shards:
            shard.open()
        for shard in self.shards:
            shard.link()
        self.context = zmq.Context()
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.socket.bind(("127.0.0.1", 0))
        me = Self(self.topology, Life(milliseconds()), frames.ROLE_GATEWAY, "gateway1")
        self.view = Shards(me)
        self.links = ShardLinks(self.context, self.view, self.addresses, self.keys, lambda: self.reports())
        self.machine = self.links.machine
        told = Told(dict, lambda: True)
        self.gateway = GatewayService(self.config, [self.socket], self.machine.connect, self.machine.count, told)
        self.links.answer = self.gateway.send_answers
        self.client = Client(self.socket.getsockname())
        return self

    async def start(self):
        """Let the shards be filled, and the gateway hear them, then read."""
        loop = asyncio.get_running_loop()
        await self.settle()
        await self.links.start(loop)
        await self.gateway.start(loop)
        return self

    async def __aexit__(self, *_):
        await self.gateway.stop(asyncio.get_running_loop())
        self.links.close()
        self.context.destroy(0)
        for shard in self.shards:
            shard.close()
        self.client.socket.close()
        self.socket.close()

    @property
    def addresses(self):
        return {shard.machine.me.name: (shard.address, MINE.public) for shard in self.shards}

    def owner(self, info_hash):
        """The index of the shard that should have a torrent."""
        return self.topology.ring.owner(siphash(self.key, info_hash) & (SLICES - 1))

    def is_moving(self, slice_id):
        """Whether the gateway asks another shard than the owner of a slice."""
        return self.view.table[slice_id] != self.topology.ring.owner(slice_id)

    @property
    def remote(self):
        """The links of the gateway, in the order of the table."""
        return list(self.machine.remote.values())

    async def settle(self):
        """Wait until all shards that can be are full of what they should hold."""
        if all(shard.is_open for shard in self.shards):
            await until(lambda: all(shard.is_full for shard in self.shards))

    def hashes(self, shard, many=1):
        """Info-hashes that a shard owns."""
        found = []
        for number in range(100_000):
            info_hash = number.to_bytes(20, "big")
            if self.owner(info_hash) == shard:
                found.append(info_hash)
            if len(found) == many:
                return found
        raise AssertionError

    async def ask(self, request_of):
        """The reply to a request that is made with a connection id."""

        def ask():
            request = request_of(self.client.id)
            reply = self.client.ask(request)
            assert is_answer(reply, request)
            return reply

        return await asyncio.to_thread(ask)

    async def announce(self, info_hash, **words):
        return parse_answer(await self.ask(lambda id_: announce_request(id_, info_hash, **words)))

    async def scrape(self, *info_hashes):
        return parse_counts(await self.ask(lambda id_: scrape_request(id_, *info_hashes)))

    @property
    def table(self):
        return set(self.view.table.tolist())


def on_loop(test):
    """A test that runs on the loop of the product."""

    def run(*wanted, **words):
        uvloop.run(test(*wanted, **words))

    run.__name__ = test.__name__
    run.__wrapped__ = test
    return run


async def raw_link(stack, cluster, shard):
    """A bare link to a shard, and what it hears."""
    context = zmq.Context()
    sock = links.connect(context, shard.address, cluster.keys, MINE.public)
    heard = []

    def take():
        parts = links.receive_parts(sock)
        if parts is not None:
            heard.append(parts)
        return parts is not None

    watched = links.Watched(asyncio.get_running_loop(), sock, take)
    stack.callback(context.destroy, 0)
    stack.callback(watched.close)

    def say(*parts):
        with contextlib.suppress(zmq.Again):
            sock.send_multipart(parts, zmq.NOBLOCK)
            watched.check()
            return True
        return False

    await until(lambda: say(pack_header(frames.STATUS, 1)))
    await until(lambda: heard)
    heard.clear()
    return say, heard


@pytest.mark.parametrize("kind", ["ipc", "tcp", "curve"])
@on_loop
async def test_announces_reach_the_owners_of_their_slices_and_are_answered(tmp_path, kind):
    async with Cluster(tmp_path, kind=kind) as cluster:
        await cluster.start()
        assert cluster.table == {0, 1, 2}
        wanted = [cluster.hashes(shard)[0] for shard in range(3)]
        for info_hash in wanted:
            assert (await cluster.announce(info_hash, port=1001)).peers == []
            answer = await cluster.announce(info_hash, port=1002, left=0)
            assert (answer.peers, answer.leechers, answer.seeders) == ([("127.0.0.1", 1001)], 1, 1)
            assert 1620 <= answer.interval <= 1980
        assert [shard.stored for shard in cluster.shards] == [2, 2, 2]
        assert [(counts.seeders, counts.leechers) for counts in await cluster.scrape(*wanted)] == [(1, 1)] * 3
        await until(lambda: cluster.view.unanswered() == 0)
        assert [shard.dropped for shard in cluster.shards] == [{}, {}, {}]


@pytest.mark.parametrize("kind", ["ipc", "curve"])
@on_loop
async def test_a_shard_that_is_added_takes_over_and_nobody_is_lost(tmp_path, kind):
    async with Cluster(tmp_path, 1, kind) as cluster:
        await cluster.start()
        wanted = [bytes([number]) * 20 for number in range(30)]
        for info_hash in wanted:
            assert (await cluster.announce(info_hash, port=1001)).interval >= 1620
        cluster.add_shard()
        for info_hash in wanted:
            assert (await cluster.announce(info_hash, port=1002)).leechers == 2
        await until(lambda: cluster.table == {0, 1})
        await cluster.settle()
        await until(lambda: not any(map(cluster.is_moving, range(SLICES))))
        moved = [info_hash for info_hash in wanted if cluster.owner(info_hash) == 1]
        for info_hash in wanted:
            answer = await cluster.announce(info_hash, port=1003)
            assert (answer.leechers, sorted(answer.peers)) == (3, [("127.0.0.1", 1001), ("127.0.0.1", 1002)])
        assert cluster.shards[1].stored == 3 * len(moved) > 0
        assert [shard.dropped for shard in cluster.shards] == [{}, {}]
        assert [link.shed for link in cluster.remote] == [0, 0]


@on_loop
async def test_with_nobody_heard_announces_get_the_empty_answer_and_scrapes_none(tmp_path, caplog):
    async with Cluster(tmp_path) as cluster:
        for shard in cluster.shards:
            shard.close()
        await cluster.start()
        assert "not heard of yet: shard1, shard2, shard3" in caplog.text
        intervals = set()
        for number in range(20):
            answer = await cluster.announce(bytes([number]) * 20)
            assert (answer.peers, answer.leechers, answer.seeders) == ([], 0, 0)
            assert 120 <= answer.interval <= 300
            intervals.add(answer.interval)
        assert len(intervals) > 5
        cluster.client.send(scrape_request(cluster.client.id, bytes(20), b"\1" * 20))
        await cluster.announce(bytes(20))  # whose answer is the next that comes
        assert (cluster.machine.nobody.answered, cluster.machine.nobody.unasked) == (21, 2)
        first = cluster.shards[0].open()
        assert {peer.hello.role for peer in first.machine.peers.values()} <= {frames.ROLE_SHARD}
        await until(lambda: cluster.table == {0})
        assert (await cluster.announce(bytes(20))).leechers == 1


@on_loop
async def test_a_shard_whose_socket_is_closed_is_followed_by_the_next_in_the_ring(tmp_path):
    async with Cluster(tmp_path) as cluster:
        await cluster.start()
        lost, kept = cluster.hashes(1)[0], cluster.hashes(2)[0]
        await cluster.announce(kept, port=1001)
        cluster.shards[1].close()
        await until(lambda: cluster.table == {0, 2})
        assert 120 <= (await cluster.announce(lost, port=1001)).interval <= 300
        answer = await cluster.announce(lost, port=1002)
        assert answer.peers == [("127.0.0.1", 1001)]  # the next keeps what it hears
        assert 120 <= answer.interval <= 300
        answer = await cluster.announce(kept, port=1002)
        assert answer.peers == [("127.0.0.1", 1001)]  # others do not notice
        assert answer.interval >= 1620
        cluster.shards[1].open().link()
        await until(lambda: cluster.table == {0, 1, 2})
        await cluster.settle()
        await until(lambda: cluster.shards[1].stored == 2)  # it asks the other for what that heard
        answer = await cluster.announce(lost, port=1003)
        assert (answer.leechers, sorted(answer.peers)) == (3, [("127.0.0.1", 1001), ("127.0.0.1", 1002)])
        assert answer.interval >= 1620


@on_loop
async def test_records_that_find_no_connection_are_shed_and_the_link_is_broken(tmp_path):
    async with Cluster(tmp_path, 1) as cluster:
        await cluster.start()
        await cluster.announce(bytes(20))
        cluster.links.timer.cancel()  # no ping finds it out
        cluster.shards[0].close()
        request = announce_request(cluster.client.id, bytes(20))

        def send():
            cluster.client.send(request)
            return cluster.remote[0].shed

        await until(send)
        assert cluster.view.links[0].is_silent(milliseconds())
        cluster.links._tick()
        assert cluster.table == {1}
        assert cluster.machine.nobody.answered == 0


@on_loop
async def test_a_shard_that_stops_is_not_asked_any_longer(tmp_path):
    async with Cluster(tmp_path) as cluster:
        await cluster.start()
        cluster.shards[0].machine.stopping = True
        await until(lambda: cluster.table == {1, 2})
        assert cluster.shards[0].is_open


@on_loop
async def test_a_full_window_lets_records_gather_until_there_is_room(tmp_path):
    async with Cluster(tmp_path, 1) as cluster:
        await cluster.start()
        await cluster.announce(bytes(20), port=999)
        cluster.links.timer.cancel()  # pings would tell that the frames are answered
        link = cluster.view.links[0]
        while link.has_room():
            link.note_sent()
        assert link.unanswered == WINDOW
        requests = [announce_request(cluster.client.id, bytes(20), port=1000 + at) for at in range(30)]
        for request in requests:
            cluster.client.send(request)
        await until(lambda: cluster.gateway.records.waiting(0) == 30)
        assert cluster.shards[0].stored == 1
        frames_before = cluster.remote[0].frames
        cluster.links._tick()
        await until(lambda: cluster.shards[0].stored == 31)
        answered = await asyncio.to_thread(lambda: {cluster.client.receive()[4:8] for _ in requests})
        assert answered == {request[12:16] for request in requests}
        assert cluster.remote[0].shed == 0
        assert cluster.remote[0].frames == frames_before + 1
        await until(lambda: link.unanswered == 0)


@on_loop
async def test_what_finds_no_room_in_the_frame_is_shed_and_counted(tmp_path):
    async with Cluster(tmp_path, 1) as cluster:
        await cluster.start()
        await cluster.announce(bytes(20), port=999)
        cluster.links.timer.cancel()
        link, remote, records = cluster.view.links[0], cluster.remote[0], cluster.gateway.records
        while link.has_room():
            link.note_sent()
        request = announce_request(cluster.client.id, bytes(20), port=1000)
        sent = 0
        while remote.shed == 0:
            for _ in range(50):
                cluster.client.send(request)
            sent += 50
            await until(lambda: remote.shed + records.waiting(0) == sent)  # noqa: B023
        assert remote.shed > 50
        assert records.has_room(0)
        cluster.links._tick()
        await until(lambda: link.unanswered == 0)
        await until(lambda: cluster.table == {0})
        await until(lambda: cluster.shards[0].machine.me.life.boot == link.boot)
        assert cluster.shards[0].stored <= 2


@on_loop
async def test_after_a_stall_of_the_shard_what_waited_is_not_applied(tmp_path, monkeypatch):
    async with Cluster(tmp_path, 1) as cluster:
        await cluster.start()
        shard = cluster.shards[0]
        await cluster.announce(bytes(20), port=1001)
        boot = shard.machine.me.life.boot
        monkeypatch.setattr(server_module, "milliseconds", lambda: milliseconds() + 60_000)
        cluster.client.send(announce_request(cluster.client.id, bytes(20), port=1002))
        await until(lambda: shard.dropped)
        assert shard.dropped == {"other_boot": 1}
        assert shard.stored == 1
        assert shard.machine.me.life.boot != boot
        await until(lambda: cluster.view.links[0].boot == shard.machine.me.life.boot)
        await cluster.announce(bytes(20), port=1003)
        assert shard.stored == 2


@on_loop
async def test_after_a_stall_of_the_gateway_replies_that_waited_are_not_taken(tmp_path):
    async with Cluster(tmp_path, 1) as cluster:
        await cluster.start()
        await cluster.announce(bytes(20), port=1001)
        life, shard = cluster.view.me.life, cluster.shards[0]
        before = life.boot
        cluster.client.send(announce_request(cluster.client.id, bytes(20), port=1002))
        cluster.gateway.udp.on_readable(0)
        assert cluster.view.unanswered() == 1
        life.last -= 2000
        await until(lambda: cluster.view.dropped["other_boot"])
        assert life.boot != before
        assert shard.stored == 2
        await until(lambda: [peer.hello.boot for peer in shard.machine.peers.values()] == [life.boot])
        assert (await cluster.announce(bytes(20), port=1003)).leechers == 3  # the next answer that comes


@on_loop
async def test_a_failed_report_does_not_end_the_pings(tmp_path):
    async with Cluster(tmp_path, 1) as cluster:
        await cluster.start()
        told = []
        asyncio.get_running_loop().set_exception_handler(lambda _, what: told.append(str(what["exception"])))

        def fail():
            raise RuntimeError("no report")

        cluster.reports = fail
        await until(lambda: told)
        assert set(told) == {"no report"}
        cluster.reports = lambda: b'{"well":1}'
        await until(lambda: b'{"well":1}' in [peer.hello.report for peer in cluster.shards[0].machine.peers.values()])


@on_loop
async def test_the_last_replies_are_waited_for(tmp_path):
    async with Cluster(tmp_path, 1) as cluster:
        await cluster.start()
        cluster.view.links[0].note_sent()  # the next pong tells that it is not under way
        await cluster.links.finish()
        cluster.gateway.pause(asyncio.get_running_loop())
        await cluster.links.finish()
        assert cluster.view.unanswered() == 0


@on_loop
async def test_a_refused_key_is_tried_again_by_a_new_connection(tmp_path, monkeypatch):
    monkeypatch.setattr(link_state, "RECONNECT_EVERY", 300)
    async with Cluster(tmp_path, 1, "curve") as cluster:
        doorman = cluster.shards[0].server.doorman
        doorman.known = frozenset([STRANGE.public])
        await cluster.start()
        assert cluster.table == {1}
        await until(lambda: cluster.links.sockets.reconnections >= 2)
        assert doorman.refused["unknown_key"] >= 2
        assert not cluster.shards[0].machine.peers
        doorman.known = frozenset([MINE.public])
        await until(lambda: cluster.table == {0})
        assert (await cluster.announce(bytes(20))).interval >= 1620


# What a friend may send, and no gateway does


@pytest.mark.parametrize("kind", ["ipc", "curve"])
@pytest.mark.parametrize(
    "parts",
    [
        pytest.param([b""], id="empty"),
        pytest.param([b"garbage"], id="garbage"),
        pytest.param([struct.pack("<HH", 9, frames.RECORDS) + bytes(28)], id="another version"),
        pytest.param([pack_header(frames.STATUS, 1), b""], id="two parts"),
        pytest.param([b"", pack_header(frames.STATUS, 1)], id="an empty part first"),
        pytest.param([pack_header(frames.STATUS, 1)] * 5, id="five parts"),
        pytest.param([pack_header(frames.PING, 1)], id="a ping that says nothing"),
        pytest.param([b"\xff" * (links.LONGEST_RECORDS - 64)], id="long"),
    ],
)
@on_loop
async def test_a_malformed_message_of_a_friend_is_dropped_and_counted(tmp_path, kind, parts):
    async with Cluster(tmp_path, 1, kind) as cluster:
        shard = cluster.shards[0]
        with contextlib.ExitStack() as stack:
            say, heard = await raw_link(stack, cluster, shard)
            assert say(*parts)
            assert say(pack_header(frames.STATUS, 2))
            await until(lambda: heard)
            assert heard == [[pack_header(frames.STATUS, 2) + b"{}"]]
        assert shard.dropped == {"malformed": 1}
        assert shard.stored == 0


@on_loop
async def test_records_that_come_before_a_ping_are_not_taken(tmp_path):
    async with Cluster(tmp_path, 1) as cluster:
        shard = cluster.shards[0]
        with contextlib.ExitStack() as stack:
            say, heard = await raw_link(stack, cluster, shard)
            life = shard.machine.me.life
            header = struct.pack("<HHIQQQ", frames.VERSION, frames.RECORDS, 1, 1, life.boot, milliseconds())
            assert say(header + bytes(frames.RECORD))
            hello = Hello(1, 2, 1, 0, cluster.topology.cluster, SLICES, frames.ROLE_GATEWAY, False, "gateway9")
            assert say(pack_hello(frames.PING, 5, hello))
            assert say(header + bytes(frames.RECORD))
            await until(lambda: len(heard) == 2)
            assert [struct.unpack_from("<HHIQ", parts[0])[1::2] for parts in heard] == [
                (frames.PONG, 5),
                (frames.REPLIES, 1),
            ]
        assert shard.dropped == {"unknown_sender": 1}


@on_loop
async def test_answers_to_who_is_gone_are_counted(tmp_path):
    async with Cluster(tmp_path, 1) as cluster:
        server = cluster.shards[0].server
        server._send(b"gone", b"answer")
        assert server.unsent == 1
        await cluster.start()
        assert cluster.table == {0}


@on_loop
async def test_an_address_that_is_taken_is_refused(tmp_path):
    async with Cluster(tmp_path, 1, "tcp") as cluster:
        other = AShard(cluster, "shard1", cluster.shards[0].address)
        with pytest.raises(links.LinkError, match="Address already in use"):
            other.open()
        other.server.close()
        other.context.destroy(0)
