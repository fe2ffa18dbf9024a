"""HTTP clients whose shard answers later: real sockets, a real shard, replies that are held back; both variants."""

import asyncio
import contextlib
import os
import select
import socket
import struct
from contextlib import suppress

import pytest
from http_bench import BOOT, CLUSTER, kernels_of, words
from http_client import PATIENCE, HttpClient, announce_target, decode, request, scrape_target
from kernels import VARIANTS
from trackers import settings

from common import config, counters
from common.batch_io import Batch, address_of, allocate
from common.clock import SteadyClock
from gateway.http_places import ANSWERED, ENOUGH, HEAD_TIME, REPLY_TIME, ROW
from gateway.http_server import HttpServer
from gateway.router import Router
from shard.service import ShardWorker

DEPTH = 64
RESET = struct.pack("ii", 1, 0)  # for SO_LINGER: close at once, without a goodbye


class HeldLink:
    """The link to a shard that answers when it is told to."""

    def __init__(self, router, shard):
        self.router = router
        self.shard = shard
        self.frames = []

    def hand_over(self, index):
        self.frames.append(bytes(self.router.close(index)))

    def takes_copies(self):
        return False

    def reply(self, at=0):
        """Let the oldest frame be answered, or another."""
        replies = self.shard.answer(memoryview(self.frames.pop(at)))
        self.router.take_replies(replies, address_of(self.shard.replies))


class Gateway:
    """An HTTP server, turned by hand; its loop runs only what it was given."""

    def __init__(self, kernel, directory, most=600):
        module = kernels_of(kernel)
        wanted = config.read(settings(directory))
        self.loop = asyncio.new_event_loop()
        self.listener = socket.create_server(("127.0.0.1", 0), backlog=4096)
        self.listener.setblocking(False)
        self.address = self.listener.getsockname()
        sources = module.Sources(allocate)
        sources.set_limits(1, 1, 100_000, 1_000_000)
        self.connections = module.Connections(allocate, [self.listener], sources, most, most, 30)
        records = module.Records(allocate, 1, wanted.slices, DEPTH)
        records.set_key(CLUSTER)
        self.codec = module.HttpCodec(allocate, self.connections, records, sources, 50, 200, BOOT)
        udp = kernel("gateway.udp_codec").UdpCodec(Batch([socket.AF_INET], DEPTH), records, sources, 50, 200, 6, False)
        router = Router(records, udp, self.codec)
        self.link = HeldLink(router, ShardWorker(wanted, wanted.shards[0], SteadyClock()))
        router.set_links([self.link])
        self.given_away = []
        self.time = 1000
        self.http = HttpServer(
            [self.listener], self.connections, self.codec, router, self.take_away, clock=lambda: self.time
        )
        self.http.start(self.loop)
        self.clients = []

    def take_away(self, fd, data, address):
        self.given_away.append((socket.socket(fileno=fd), data, address))

    def connect(self, *heads):
        client = HttpClient(self.address)
        self.clients.append(client)
        client.send(b"".join(heads))
        return client

    def is_named(self, seconds=0.0):
        """Whether epoll names something."""
        return bool(select.select([self.http.epoll], [], [], seconds)[0])

    def turn(self):
        """Wait until something comes, and deal with it."""
        assert self.is_named(PATIENCE)
        self.http.on_ready()

    def turn_until(self, holds):
        while not holds():
            self.turn()

    def ask(self, *heads, many=1):
        """A client whose requests came, the first of which waits for the shard."""
        before = len(self.link.frames)
        client = self.connect(*heads)
        self.turn_until(lambda: len(self.link.frames) == before + many)
        return client

    def kept_client(self, *heads):
        """A client that has been answered once, and so is watched; then it asks."""
        before = len(self.link.frames)
        client = self.ask(announce())
        self.answer(-1)
        assert client.receive().status == 200
        client.send(b"".join(heads))
        self.turn_until(lambda: len(self.link.frames) > before)
        return client

    def answer(self, at=0):
        """Let the shard's reply to its oldest frame come, or to another, as the loop does."""
        self.link.reply(at)
        self.http.send_answers()

    def pass_time(self, seconds):
        self.time += seconds
        self.http.tick()

    def run_once(self):
        """Let the loop run what waits in it now; returns whether there was something."""
        before = self.codec.counters()
        self.loop.call_soon(self.loop.stop)
        self.loop.run_forever()
        return self.codec.counters() != before

    def place(self):
        """The place of the only connection."""
        (place,) = self.connections.everywhere()
        return place

    def kept_bytes(self):
        return sum(map(len, self.http.kept.values()))

    def counted(self, place):
        return self.codec.counters()[place]

    def close(self):
        if not self.http.epoll.closed:
            self.http.stop(self.loop)
        for client in self.clients:
            client.close()
        for sock, _, _ in self.given_away:
            sock.close()
        self.listener.close()
        self.loop.close()
        assert self.connections.open_places() == 0
        assert self.connections.answers == 0


@pytest.fixture
def gateway(kernel, tmp_path):
    gateway = Gateway(kernel, tmp_path)
    yield gateway
    gateway.close()


def announce(info_hash=bytes(20), *lines, **fields):
    return request(announce_target(info_hash, **fields), *lines)


CLOSING = "Connection: close"


def half_close(client):
    client.socket.shutdown(socket.SHUT_WR)


def reset(client):
    client.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
    client.close()


def is_answered(client, seen=1):
    """Whether the next answer is that of an announce with so many leechers."""
    return client.receive().answer[b"incomplete"] == seen


# Answers that come later


@pytest.mark.parametrize("lines", [(), (CLOSING,)])
def test_a_first_request_is_answered_later(gateway, lines):
    client = gateway.ask(announce(bytes(20), *lines))
    assert not gateway.is_named()
    gateway.answer()
    assert is_answered(client)
    if lines:
        assert client.ended()
    else:
        client.send(announce())
        gateway.turn()
        gateway.answer()
        assert is_answered(client)


def test_a_kept_connection_is_answered_later(gateway):
    client = gateway.kept_client(announce())
    gateway.answer()
    assert is_answered(client)


@pytest.mark.parametrize("is_kept", [False, True])
def test_what_is_asked_while_an_answer_is_awaited_is_answered_next(gateway, is_kept):
    client = (gateway.kept_client if is_kept else gateway.ask)(announce())
    head = announce(bytes(20), CLOSING)
    client.send(head[:50])
    if is_kept:
        gateway.turn_until(lambda: gateway.kept_bytes() == 50)
    client.send(head[50:])
    if is_kept:
        gateway.turn_until(lambda: gateway.kept_bytes() == len(head))
    gateway.answer()
    assert is_answered(client)
    gateway.turn_until(lambda: gateway.link.frames)
    gateway.answer()
    assert is_answered(client)
    assert client.ended()


def test_a_pipeline_is_answered_in_its_order(gateway):
    hashes = [os.urandom(20) for _ in range(300)]
    heads = [request(scrape_target(info_hash)) for info_hash in hashes]
    client = gateway.ask(*heads)
    for info_hash in hashes:
        gateway.turn_until(lambda: gateway.link.frames)
        gateway.answer()
        assert list(client.receive().answer[b"files"]) == [info_hash]
    assert not gateway.link.frames


def filling(target):
    """A request, and behind it empty lines: as many bytes as are read at once."""
    head = request(target, "X: " + "a" * 7000)
    return head + b"\n" * (ROW - len(head))


def test_what_is_kept_does_not_put_off_the_empty_answer(gateway):
    client = gateway.kept_client(announce())
    more = filling(announce_target(bytes(20))) + announce()
    client.send(more)
    gateway.turn_until(lambda: gateway.kept_bytes() == len(more))
    gateway.answer()
    assert is_answered(client)
    assert gateway.kept_bytes() == len(announce())
    gateway.pass_time(REPLY_TIME + 1)
    assert client.receive().answer[b"peers"] == b""
    assert client.ended()


def test_many_wait_and_are_answered_in_another_order(gateway):
    clients = []
    for number in range(60):
        clients.append(gateway.ask(announce(bytes([number]) * 20, numwant=number)))
        if number % 2:
            half_close(clients[-1])
    gateway.link.frames.reverse()
    while gateway.link.frames:
        gateway.answer()
    for client in clients:
        assert is_answered(client)


# Clients that end their side, or all


@pytest.mark.parametrize("lines", [(), (CLOSING,)])
@pytest.mark.parametrize("is_kept", [False, True])
def test_who_has_half_closed_gets_its_answer(gateway, is_kept, lines):
    client = (gateway.kept_client if is_kept else gateway.ask)(announce(bytes(20), *lines))
    half_close(client)
    if is_kept:
        gateway.turn_until(lambda: gateway.connections.has_ended(gateway.place()))
    assert not gateway.is_named()  # epoll does not tell of it again and again
    gateway.answer()
    assert is_answered(client)
    gateway.turn_until(lambda: gateway.connections.open_places() == 0)
    assert client.ended()
    assert gateway.connections.counters()[3] == 0


@pytest.mark.parametrize("rest", [b"", b"GET /announce?info"])
def test_who_has_half_closed_gets_the_answers_to_all_that_it_asked(gateway, rest):
    client = gateway.kept_client(*[announce()] * 200, rest)
    half_close(client)
    gateway.turn_until(lambda: gateway.connections.has_ended(gateway.place()))
    for _ in range(200):
        assert not gateway.is_named()
        gateway.answer()
        assert is_answered(client)
    assert client.ended()
    assert gateway.connections.open_places() == 0
    assert not gateway.http.kept


@pytest.mark.parametrize("target", ["/announce", announce_target(bytes(20))])
def test_who_has_half_closed_gets_all_however_its_bytes_are_cut(gateway, target):
    """One is refused without the shard. What is looked at at once may end where a request ends."""
    client = gateway.kept_client(announce(), filling(target) * 3, announce(b"\1" * 20))
    half_close(client)
    gateway.turn_until(lambda: gateway.connections.has_ended(gateway.place()))
    while gateway.link.frames:
        gateway.answer()
    found = [client.receive().answer for _ in range(5)]
    assert [b"failure reason" in answer for answer in found] == [False, *[target == "/announce"] * 3, False]
    assert client.ended()


def test_who_has_the_place_of_one_that_half_closed_is_kept(gateway):
    first = gateway.kept_client(announce())
    place = gateway.place()
    half_close(first)
    gateway.turn_until(lambda: gateway.connections.has_ended(place))
    gateway.answer()
    assert gateway.connections.open_places() == 0
    client = gateway.kept_client(announce())
    assert gateway.place() == place
    gateway.answer()
    assert is_answered(client)
    assert gateway.place() == place


@pytest.mark.parametrize("is_kept", [False, True])
def test_who_closes_while_it_waits_leaves_nothing_behind(gateway, is_kept):
    client = (gateway.kept_client if is_kept else gateway.ask)(announce())
    client.close()
    if is_kept:
        gateway.turn_until(lambda: gateway.connections.has_ended(gateway.place()))
    assert not gateway.is_named()
    gateway.answer()
    gateway.turn_until(lambda: gateway.connections.open_places() == 0)


@pytest.mark.parametrize("is_half_closed", [False, True])
def test_who_is_reset_while_it_waits_is_closed_at_once(gateway, is_half_closed):
    client = gateway.kept_client(announce())
    if is_half_closed:
        half_close(client)
        gateway.turn_until(lambda: gateway.connections.has_ended(gateway.place()))
    reset(client)
    gateway.turn_until(lambda: gateway.connections.open_places() == 0)
    assert gateway.connections.counters()[3] == 1
    gateway.answer()
    assert gateway.counted(counters.HTTP_LATE_REPLY) == 1


def test_who_is_reset_before_it_is_watched_is_closed_when_it_is_answered(gateway):
    reset(gateway.ask(announce()))
    assert not gateway.is_named()
    gateway.answer()
    assert gateway.connections.open_places() == 0
    assert gateway.connections.counters()[3] == 1


def test_who_has_the_place_next_is_not_told_the_answer_before(gateway):
    first = gateway.kept_client(announce(b"\1" * 20))
    place = gateway.place()
    reset(first)
    gateway.turn_until(lambda: gateway.connections.open_places() == 0)
    client = gateway.ask(request(scrape_target(b"\2" * 20)))
    assert gateway.place() == place
    gateway.answer()  # to the announce
    assert gateway.counted(counters.HTTP_LATE_REPLY) == 1
    gateway.answer()
    assert list(client.receive().answer[b"files"]) == [b"\2" * 20]


def told_to_the_next(gateway):
    """What the client is told who has the place of one that left, when the answer to that one comes."""
    first = gateway.kept_client(announce(b"\1" * 20))
    place = gateway.place()
    reset(first)
    gateway.turn_until(lambda: gateway.connections.open_places() == 0)
    client = gateway.ask(announce(b"\2" * 20))
    assert gateway.place() == place
    gateway.answer()
    return select.select([client.socket], [], [], 0.2)[0]


def test_a_ticket_without_generation_would_be_caught(tmp_path, monkeypatch):
    """The fault that the number of the request in tickets keeps away, planted: another's answer is told."""
    with contextlib.closing(Gateway(VARIANTS["pure"], tmp_path)) as gateway:
        assert not told_to_the_next(gateway)

    def is_waiting(self, place, number):
        return original(self, place, self.connections.number[place])

    codec = VARIANTS["pure"]("gateway.http_codec").HttpCodec
    original = codec._is_waiting
    monkeypatch.setattr(codec, "_is_waiting", is_waiting)
    with contextlib.closing(Gateway(VARIANTS["pure"], tmp_path)) as gateway:
        assert told_to_the_next(gateway)


def test_who_leaves_between_its_reply_and_its_answer(gateway):
    """Then another has its place, and asks: nothing is told to the wrong one, and the other is answered."""
    first = gateway.kept_client(announce(b"\1" * 20))
    place = gateway.place()
    gateway.link.reply()
    reset(first)
    gateway.turn_until(lambda: gateway.connections.open_places() == 0)
    client = gateway.connect(request("/scrape"))
    gateway.turn_until(lambda: gateway.connections.open_places() == 1)
    assert gateway.place() == place
    assert client.receive().answer[b"failure reason"] == b"full scrape not allowed"
    gateway.http.send_answers()
    client.send(request("/scrape"))
    gateway.turn()
    assert client.receive().answer[b"failure reason"] == b"full scrape not allowed"


def test_what_comes_between_a_reply_and_its_answer_waits(gateway):
    client = gateway.kept_client(announce())
    gateway.link.reply()
    client.send(announce()[:30])
    gateway.turn_until(lambda: gateway.kept_bytes() == 30)  # that turn sends the answer
    assert is_answered(client)
    client.send(announce()[30:])
    gateway.turn()
    gateway.link.reply()
    half_close(client)
    gateway.turn()
    assert is_answered(client)
    assert client.ended()


# Clients that do not take their answers


def lazy_client(gateway):
    """A client with more answers than its socket holds, which it does not read; the hashes that it asked."""
    gateway.listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
    client = HttpClient(gateway.address)
    gateway.clients.append(client)
    client.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    hashes = sorted(os.urandom(20) for _ in range(60))
    many, before = 0, len(gateway.link.frames)
    while not gateway.http.backlog:
        client.send(request(scrape_target(*hashes)))
        gateway.turn_until(lambda: len(gateway.link.frames) > before)
        gateway.answer(-1)
        many += 1
    return client, hashes, many


@pytest.mark.parametrize("ends", [False, True])
def test_who_reads_slowly_gets_all(gateway, ends):
    client, hashes, many = lazy_client(gateway)
    if ends:
        half_close(client)
        gateway.turn_until(lambda: gateway.connections.has_ended(gateway.place()))
    assert not gateway.is_named()
    client.socket.settimeout(0)
    data = b""
    while len(responses := data.split(b"HTTP/1.1 200 OK\r\n")) <= many or len(set(map(len, responses[1:]))) > 1:
        with suppress(BlockingIOError):
            data += client.socket.recv(1 << 16)
        if gateway.is_named(0.01):
            gateway.http.on_ready()
    for response in responses[1:]:
        assert list(decode(response.partition(b"\r\n\r\n")[2])[b"files"]) == hashes
    client.socket.settimeout(PATIENCE)
    if ends:
        assert client.ended()
        assert gateway.connections.open_places() == 0
    else:
        assert gateway.connections.under_way() == 0
        client.send(announce())
        gateway.turn_until(lambda: gateway.link.frames)
        gateway.answer()
        assert is_answered(client)


def test_who_resets_instead_of_reading_is_closed(gateway):
    client, _, _ = lazy_client(gateway)
    half_close(client)
    gateway.turn_until(lambda: gateway.connections.has_ended(gateway.place()))
    reset(client)
    gateway.turn_until(lambda: gateway.connections.open_places() == 0)
    gateway.pass_time(1)
    assert not gateway.http.backlog


# Replies that never come


@pytest.mark.parametrize("is_kept", [False, True])
def test_without_a_reply_there_is_the_empty_answer(gateway, is_kept):
    client = (gateway.kept_client if is_kept else gateway.ask)(announce(compact=0))
    gateway.pass_time(REPLY_TIME)
    assert gateway.connections.under_way() == 1
    gateway.pass_time(1)
    response = client.receive()
    assert response.headers["connection"] == "close"
    assert response.answer[b"peers"] == []
    assert client.ended()
    gateway.answer()
    assert gateway.counted(counters.HTTP_LATE_REPLY) == 1


def test_a_late_answer_survives_what_nobody_reads(gateway):
    """A client that goes on asking is not reset before it has read."""
    client = gateway.ask(announce())
    client.send(announce() * 3)
    gateway.pass_time(REPLY_TIME + 1)
    client.send(announce())
    assert client.receive().answer[b"peers"] == b""
    assert client.ended()
    client.close()
    gateway.turn_until(lambda: gateway.connections.open_places() == 0)
    assert not gateway.http.kept


def test_a_late_answer_to_head_has_no_body(gateway):
    client = gateway.ask(request(announce_target(bytes(20)), method="HEAD"))
    gateway.pass_time(REPLY_TIME + 1)
    client.receive("HEAD")
    assert client.ended()


def test_a_half_closed_client_gets_the_empty_answer_too(gateway):
    client = gateway.kept_client(announce(), announce())
    half_close(client)
    gateway.turn_until(lambda: gateway.connections.has_ended(gateway.place()))
    gateway.pass_time(REPLY_TIME + 1)
    assert client.receive().answer[b"peers"] == b""
    assert client.ended()
    assert gateway.connections.open_places() == 0


def test_all_that_are_late_are_given_up_within_the_second(kernel, tmp_path):
    """So many that others are heard in between."""
    gateway = Gateway(kernel, tmp_path, 2 * ENOUGH + 100)
    many = 2 * ENOUGH + 10
    loop_turns = 0

    async def ask():
        futures = [gateway.loop.create_future() for _ in range(many)]
        for future in futures:
            gateway.http.ask(announce(), words("198.51.100.1"), future)
        return futures

    futures = gateway.loop.run_until_complete(ask())
    gateway.pass_time(REPLY_TIME + 1)
    while gateway.run_once():
        loop_turns += 1
    assert loop_turns == 2
    assert all(b"5:peers0:" in future.result() for future in futures)
    assert gateway.counted(counters.HTTP_EMPTY_ANSWERS) == many
    gateway.loop.run_until_complete(asyncio.sleep(0))
    gateway.close()


# Requests of the web application


def test_a_request_of_the_web_application_waits_too(gateway):
    async def ask():
        future = gateway.loop.create_future()
        gateway.http.ask(announce(), words("198.51.100.1"), future)
        return future

    first = gateway.loop.run_until_complete(ask())
    first.cancel()
    gateway.loop.run_until_complete(asyncio.sleep(0))
    second = gateway.loop.run_until_complete(ask())
    gateway.answer()
    assert not second.done()
    gateway.answer()
    assert b"10:incompletei1e" in gateway.loop.run_until_complete(second)
    gateway.loop.run_until_complete(asyncio.sleep(0))


# The end


def test_a_pause_leaves_what_is_queued_and_answers_what_is_under_way(gateway):
    idle = gateway.kept_client(announce())
    gateway.answer()
    assert is_answered(idle)
    begun = gateway.connect(b"GET /announce?")
    gateway.turn_until(lambda: gateway.kept_bytes())
    kept = gateway.kept_client(announce(), announce())
    new = gateway.ask(announce())
    eager = gateway.kept_client(announce())
    slow, _, _ = lazy_client(gateway)
    late = gateway.kept_client(announce())
    gateway.answer(-1)
    assert is_answered(late)
    late.send(announce(b"\3" * 20))  # it is there, but not read yet
    assert gateway.is_named(PATIENCE)

    gateway.http.pause()
    assert idle.ended()
    assert begun.ended()
    assert gateway.http.under_way() == 5
    queued = gateway.connect(announce())
    eager.send(announce())
    assert not gateway.is_named()
    gateway.pass_time(1)
    assert not gateway.is_named()
    while gateway.link.frames:
        gateway.answer()
    assert is_answered(kept)
    assert is_answered(kept)
    assert is_answered(new)
    assert new.ended()
    assert is_answered(late)
    assert late.ended()
    assert gateway.http.under_way() == 1
    reset(slow)
    gateway.turn_until(lambda: gateway.http.under_way() == 0)
    gateway.http.stop(gateway.loop)
    sock, _ = gateway.listener.accept()  # for the next to have it
    with sock:
        assert sock.recv(4) == b"GET "
    queued.close()


def read_all(client):
    """What a client has not read yet, up to the end."""
    return b"".join(iter(lambda: client.socket.recv(1 << 16), b""))


def test_at_the_end_clients_have_time_to_take_their_answers(gateway):
    client, _, many = lazy_client(gateway)
    gateway.http.pause()

    async def end():
        finish = gateway.http.finish(asyncio.get_running_loop().time() + PATIENCE)
        return await asyncio.gather(asyncio.to_thread(read_all, client), finish)

    said, _ = gateway.loop.run_until_complete(end())
    assert said.count(b"HTTP/1.1 200 OK") == many
    assert gateway.http.under_way() == 0


def test_at_the_end_nobody_waits_for_long(gateway):
    lazy_client(gateway)
    gateway.http.pause()
    gateway.loop.run_until_complete(gateway.http.finish(gateway.loop.time()))
    assert gateway.http.under_way() == 1


def test_an_answer_that_a_failure_kept_back_keeps_no_place(gateway, monkeypatch):
    def fail():
        monkeypatch.undo()
        raise RuntimeError("no luck")

    monkeypatch.setattr(gateway.http.router, "dispatch", fail)
    client = gateway.connect(request("/announce"))  # has its answer, a failure, before that
    with pytest.raises(RuntimeError):
        gateway.turn_until(lambda: False)
    assert gateway.connections.look(gateway.place())[0] == ANSWERED
    gateway.pass_time(REPLY_TIME)
    gateway.pass_time(HEAD_TIME)
    assert gateway.connections.open_places() == 0
    assert client.ended()


def test_a_request_of_the_web_application_whose_answer_a_failure_kept_back_does_not_wait(gateway, monkeypatch):
    def fail():
        monkeypatch.undo()
        gateway.link.reply()  # its answer, and before that is sent:
        raise RuntimeError("no luck")

    future = gateway.loop.create_future()
    gateway.http.ask(announce(), words("127.0.0.1"), future)
    gateway.pass_time(1)
    assert len(gateway.http.inner) == 1  # it has its time
    monkeypatch.setattr(gateway.http.router, "dispatch", fail)
    gateway.connect(announce())
    with pytest.raises(RuntimeError):
        gateway.turn_until(lambda: False)
    assert not future.done()
    gateway.pass_time(1)
    gateway.run_once()
    assert future.cancelled()
    assert gateway.http.inner == {}
    assert gateway.http.under_way() == 1  # the other one's


def test_a_stop_without_a_pause_closes_all(gateway):
    clients = [gateway.ask(announce()), gateway.kept_client(announce())]
    gateway.http.stop(gateway.loop)
    for client in clients:
        with suppress(ConnectionResetError):
            assert client.ended()
    while gateway.link.frames:
        gateway.answer()  # to nobody
    assert gateway.counted(counters.HTTP_LATE_REPLY) == 2
