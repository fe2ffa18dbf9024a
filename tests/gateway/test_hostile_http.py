"""Strangers who mean harm, on real sockets: nothing fails, nothing is left behind, what is refused is counted."""

import os
import random
import resource
import selectors
import socket
import struct
from contextlib import contextmanager, suppress

import pytest
from http_client import HttpClient, announce_target, decode, request, scrape_target
from http_tracker import FAULTS, Tracker, clean
from trackers import PATIENCE

from common import counters
from gateway import http_codec
from gateway.http_places import HEAD_TIME

MANY = 100_000 if http_codec.__file__.endswith(".so") else 2_000  # uncompiled it would take an hour
ANSWERS = counters.HTTP_ANNOUNCE_ANSWERS, counters.HTTP_SCRAPE_ANSWERS
CROWD = b"too many connections"
RESET = struct.pack("ii", 1, 0)  # for SO_LINGER: close at once, without a goodbye


@pytest.fixture
def tracker(tmp_path):
    with Tracker(tmp_path) as tracker, clean(tracker):
        yield tracker


@pytest.fixture
def make(tmp_path):
    """Makes a tracker with other settings: make(**settings)."""

    @contextmanager
    def make(**more):
        with Tracker(tmp_path, **more) as tracker, clean(tracker):
            yield tracker

    return make


def responses(data):
    """The bodies of the responses that follow each other; all of them must be whole."""
    found = []
    while data:
        head, end, rest = data.partition(b"\r\n\r\n")
        assert end
        length = int(head.lower().partition(b"content-length: ")[2].partition(b"\r")[0])
        assert len(rest) >= length
        found.append((int(head[9:12]), rest[:length]))
        data = rest[length:]
    return found


def read_all(client):
    """All that comes until the tracker closes the connection."""
    data = client.buffer
    with suppress(ConnectionError):
        while more := client.socket.recv(1 << 16):
            data += more
    return data


# In bulk


class Forger:
    """Makes requests: good ones, and with something changed."""

    PIECES = [b"info_hash=" + b"%61" * 20, b"port=0", b"port=", b"left=0", b"event=stopped", b"compact=0", b"numwant=0"]
    PIECES += [b"ip=::1", b"&", b"=", b"%", b"a" * 513, b"peer_id=x", b"\xff\0", b"&".join([b"a=1"] * 99)]

    def __init__(self, seed):
        self.random = random.Random(seed)
        hashes = [self.random.randbytes(20) for _ in range(50)]
        self.targets = [announce_target(info_hash, port=1000 + n) for n in range(4) for info_hash in hashes]
        self.targets += [scrape_target(*hashes[n : n + n % 3]) for n in range(50)]

    def target(self):
        """Path and query of a request, good or with a changed query."""
        path, _, query = self.targets[int(self.random.random() * len(self.targets))].encode().partition(b"?")
        query = bytearray(query)
        for _ in range(int(self.random.random() * 4)):
            at = int(self.random.random() * (len(query) + 1))
            if self.random.random() < 0.5:
                query[at : at + 3] = self.random.randbytes(1).replace(b"\n", b"\r")
            else:
                query[at:at] = b"&" + self.random.choice(self.PIECES) + b"&"
        return path + b"?" + query

    def noise(self):
        """Random bytes, or a request that is changed anywhere."""
        if self.random.random() < 0.1:
            return self.random.randbytes(int(self.random.random() ** 3 * 10_000))
        lines = [
            f"X-Line-{n}: {n}" for n in range(70 if self.random.random() < 0.05 else int(self.random.random() * 4))
        ]
        data = bytearray(request(self.target(), *lines))
        if self.random.random() < 0.03:
            data[6:6] = b"a" * 9000
        for _ in range(int(self.random.random() * 3)):
            at = int(self.random.random() * len(data))
            data[at : at + int(self.random.random() * 3)] = self.random.randbytes(int(self.random.random() * 3))
        return bytes(data)


def exchange(tracker, inputs, half_close):
    """Send each input on a connection of its own, all at the same time; what came back, in their order.

    The tracker ends the connections; half_close: so do we, when all is sent.
    """
    replies = [bytearray() for _ in inputs]
    with selectors.DefaultSelector() as selector:
        for index, data in enumerate(inputs):
            sock = socket.create_connection(tracker.address)
            sock.setblocking(False)
            selector.register(sock, selectors.EVENT_READ | selectors.EVENT_WRITE, [index, memoryview(data)])
        while selector.get_map():
            named = selector.select(PATIENCE)
            assert named
            for key, events in named:
                advance(selector, key, events, replies, half_close)
    return [bytes(reply) for reply in replies]


def advance(selector, key, events, replies, half_close):
    """Send some of an input, or read some of what comes back."""
    sock, (index, data) = key.fileobj, key.data
    with suppress(BlockingIOError):
        try:
            if events & selectors.EVENT_READ:
                more = sock.recv(1 << 16)
                replies[index] += more
                if not more:
                    raise ConnectionResetError
            if events & selectors.EVENT_WRITE:
                sent = sock.send(data) if data else 0
                key.data[1] = data[sent:]
                if not key.data[1]:
                    selector.modify(sock, selectors.EVENT_READ, key.data)
                    if half_close:
                        sock.shutdown(socket.SHUT_WR)
        except ConnectionError:
            selector.unregister(sock)
            sock.close()


def test_requests_with_any_query_are_answered_each(tracker):
    """Sixty thousand of them, pipelined on many connections: as many answers, every refusal counted."""
    forger = Forger(1)
    before = tracker.counted()
    answered, refusals = 0, 0
    for _ in range(MANY * 6 // 10 // 2000):
        inputs = []
        for _ in range(40):
            heads = [request(forger.target()) for _ in range(49)]
            inputs.append(b"".join([*heads, request(forger.target(), "Connection: close")]))
        for reply in exchange(tracker, inputs, half_close=False):
            found = responses(reply)
            assert len(found) == 50
            for status, body in found:
                assert status == 200
                refusals += b"failure reason" in decode(body)
            answered += len(found)
    after = tracker.counted()
    grown = [new - old for new, old in zip(after, before, strict=True)]
    assert grown[counters.HTTP_ANNOUNCES] + grown[counters.HTTP_SCRAPES] == answered
    assert sum(grown[place] for place in ANSWERS) == answered - refusals > answered // 10
    assert sum(grown[counters.HTTP_FAILURES :]) == refusals
    for name in ("bad_hash", "bad_peer_id", "bad_port", "too_many_parameters", "full_scrape"):
        assert grown[FAULTS[name]] > 0
    assert grown[counters.HTTP_BAD_REPLY] == grown[counters.HTTP_LATE_REPLY] == 0


def test_noise_does_no_harm(tracker):
    """Forty thousand requests that are changed anywhere, and random bytes: some answer to each connection."""
    forger = Forger(2)
    answered = 0
    for _ in range(MANY * 4 // 10 // 1000):
        inputs = [b"".join(forger.noise() for _ in range(int(1 + 40 * forger.random.random()))) for _ in range(50)]
        for reply in exchange(tracker, inputs, half_close=True):
            answered += len(responses(reply)) if b"Transfer-Encoding" not in reply else 0
        tracker.tick()
    counted = tracker.counted()
    assert answered > MANY // 50
    for name in ("bad_request", "long_target", "long_head"):
        assert counted[FAULTS[name]] > 0
    assert counted[counters.HTTP_BAD_REPLY] == 0


# Slow ones


def test_a_request_split_at_every_byte(tracker):
    info_hash = os.urandom(20)
    head = request(announce_target(info_hash), "Connection: keep-alive")
    with HttpClient(tracker.address) as client:
        for cut in range(1, len(head)):
            client.send(head[:cut])
            tracker.wait_for_bytes(cut)
            client.send(head[cut:])
            assert client.receive().answer[b"incomplete"] == 1


def test_a_request_byte_by_byte(tracker):
    head = request(announce_target(os.urandom(20)), "Connection: close")
    with HttpClient(tracker.address) as client:
        for at in range(len(head)):
            client.send(head[at : at + 1])
        assert client.receive().status == 200
        assert client.ended()


@pytest.mark.parametrize(
    ("start", "more"),
    [
        (b"G", b""),
        (b"GET /announce?", b"a"),
        (b"GET /announce HTTP/1.1\r\n", b"X: y\r\n"),
        (b"\n", b"\r\n"),
        (b"GET / HTTP/1.1\r\n", b"X"),
    ],
)
def test_a_head_has_ten_seconds(tracker, start, more):
    """Whatever comes meanwhile."""
    with HttpClient(tracker.address) as client:
        client.send(start)
        sent = len(start)
        tracker.wait_for_bytes(sent)
        for _ in range(HEAD_TIME):
            tracker.tick()
            client.send(more)
            sent += len(more)
            tracker.wait_for_bytes(sent)
        assert tracker.connections.open_places() == 1
        tracker.tick(2)
        assert read_all(client) == b""
    assert tracker.http.slow == 1


def test_the_next_head_has_ten_seconds_too(tracker):
    """It began while the answer before it was on its way."""
    head = request(announce_target(os.urandom(20)))
    with HttpClient(tracker.address) as client:
        client.send(head + head[:50])
        client.receive()
        tracker.wait_for_bytes(50)
        for sent in range(51, 51 + HEAD_TIME):
            tracker.tick()
            client.send(b"a")
            tracker.wait_for_bytes(sent)
        assert tracker.connections.open_places() == 1
        tracker.tick(2)
        assert read_all(client) == b""
    assert tracker.http.slow == 1


def test_many_slow_ones_do_not_stop_others(tracker):
    slow = [HttpClient(tracker.address) for _ in range(300)]
    for number, client in enumerate(slow):
        client.send(b"GET /announce?info_hash="[: 1 + number % 24])
    tracker.wait_for_places(300)
    with HttpClient(tracker.address) as client:
        client.announce(os.urandom(20))
    tracker.tick(HEAD_TIME + 2)
    for client in slow:
        assert read_all(client) == b""
        client.close()
    assert tracker.http.slow == 300


def test_a_connection_may_be_idle_for_a_while(make):
    with make(http={"idle": "20 s"}) as tracker, HttpClient(tracker.address) as client:
        for _ in range(3):
            client.announce(os.urandom(20))
            tracker.tick(19)
        client.announce(os.urandom(20))
        tracker.tick(22)
        assert client.ended()
        assert tracker.http.slow == 0  # who asks nothing is not slow


def test_who_never_sends_anything_is_in_nobodys_way(tracker):
    idle = [HttpClient(tracker.address) for _ in range(50)]
    with HttpClient(tracker.address) as client:
        client.announce(os.urandom(20))
    for client in idle:
        client.close()


# Pipelines


def padded(target, length):
    """A request of exactly so many bytes."""
    return request(target, "X: " + "a" * (length - len(request(target, "X: "))))


@pytest.mark.parametrize("length", [256, 272, 512, 211])
def test_hundreds_of_requests_at_once(tracker, length):
    """Answered in their order; 8704 bytes, which are read at once, may end where a request ends."""
    hashes = [os.urandom(20) for _ in range(60_000 // length)]
    with HttpClient(tracker.address) as client:
        client.send(b"".join(padded(scrape_target(info_hash), length) for info_hash in hashes))
        for info_hash in hashes:
            assert list(client.receive().answer[b"files"]) == [info_hash]
        client.announce(hashes[0])


def test_a_pipeline_that_is_cut_anywhere(tracker):
    head = request(scrape_target(bytes(20)))
    with HttpClient(tracker.address) as client:
        for cut in range(1, len(head), 7):
            client.send(head * 3 + head[:cut])
            for _ in range(3):
                assert client.receive().status == 200
            client.send(head[cut:])
            assert client.receive().status == 200


def test_what_follows_a_last_request_is_not_read(tracker):
    head = request(announce_target(os.urandom(20)))
    last = request(announce_target(os.urandom(20)), "Connection: close")
    with HttpClient(tracker.address) as client:
        client.send(head + last + head * 50)
        assert [status for status, _ in responses(read_all(client))] == [200, 200]
    assert tracker.counted()[counters.HTTP_ANNOUNCES] == 2


def test_after_nonsense_nothing_is_read(tracker):
    head = request(announce_target(os.urandom(20)))
    with HttpClient(tracker.address) as client:
        client.send(head + b"nonsense\r\n\r\n" + head * 300)
        assert [status for status, _ in responses(read_all(client))] == [200, 400]
    assert tracker.refused("bad_request") == 1


@pytest.mark.parametrize("many", [1, 5, 20])
def test_a_drained_connection_ends_in_time(tracker, many):
    """Even if its client goes on sending and never closes."""
    with HttpClient(tracker.address) as client:
        client.send(b"nonsense\r\n" * many)
        assert client.receive().status == 400
        assert client.ended()
        client.send(b"more")
        tracker.tick(4)
        tracker.wait_for_places(0)


# Clients that do not read


def small_buffers(tracker):
    """Let connections hold few bytes, so that an answer does not fit."""
    for sock in tracker.sockets:
        if sock.type == socket.SOCK_STREAM:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)


def lazy_client(tracker, many):
    """A client that has asked for more than its socket holds, and does not read; the hashes of each request."""
    small_buffers(tracker)
    client = HttpClient(tracker.address)
    client.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    hashes = [[os.urandom(20) for _ in range(60)] for _ in range(many)]
    client.send(b"".join(request(scrape_target(*some)) for some in hashes))
    tracker.wait_until(lambda: tracker.http.backlog)
    return client, hashes


def test_a_slow_reader_gets_all(tracker):
    client, hashes = lazy_client(tracker, 12)
    with client:
        tracker.tick(8)
        for some in hashes:
            assert list(client.receive().answer[b"files"]) == sorted(some)
        client.announce(hashes[0][0])


def test_who_never_reads_is_dropped(tracker):
    client, _ = lazy_client(tracker, 12)
    with client:
        tracker.tick(12)
        tracker.wait_for_places(0)
    assert tracker.http.slow == 1


def test_who_never_reads_and_goes_away(tracker):
    client, _ = lazy_client(tracker, 12)
    client.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
    client.close()
    tracker.wait_for_places(0)


def test_who_never_reads_and_goes_on_asking_is_dropped(tracker):
    client, _ = lazy_client(tracker, 12)
    with client, suppress(ConnectionError):
        client.send(request(announce_target(bytes(20))) * 5000)
        tracker.wait_for_places(0)
    tracker.wait_until(lambda: tracker.http.flooded == 1)


# Bodies


@pytest.mark.parametrize("header", ["Content-Length: {}", "content-length:{}", "Transfer-Encoding: chunked"])
def test_a_body_is_no_request(tracker, header):
    inner = request(announce_target(os.urandom(20)))
    with HttpClient(tracker.address) as client:
        client.send(request(announce_target(os.urandom(20)), header.format(len(inner))))
        client.send(inner * 20)
        ((status, body),) = responses(read_all(client))
    assert (status, decode(body)[b"incomplete"]) == (200, 1)
    assert tracker.counted()[counters.HTTP_ANNOUNCES] == 1


def test_a_body_to_the_web_application(tracker):
    with HttpClient(tracker.address) as client:
        client.send(request("/announce", "Content-Length: 100000", method="POST") + bytes(100_000))
        assert client.receive().status == 405
    with HttpClient(tracker.address) as client:
        client.send(request("/", "Content-Length: 100000", method="POST"))  # and it never comes
        assert client.receive().status == 405


# Ends


@pytest.mark.parametrize("reset", [False, True])
def test_connections_that_end_in_the_middle(tracker, reset):
    head = request(announce_target(os.urandom(20)))
    for data in (
        head[:1],
        head[:-1],
        head,
        head + head[:20],
        head * 100,
        head * 100 + b"x",
        b"POST / HTTP/1.1\r\n\r\n",
    ):
        for _ in range(20):
            client = HttpClient(tracker.address)
            client.send(data)
            if reset:
                client.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
            client.close()


def test_a_request_is_never_joined_to_anothers(tracker):
    """What a client left unfinished is not before what the next one sends, who has its place."""
    for _ in range(5):
        with HttpClient(tracker.address) as client:
            client.send(b"GET /scrape?info_hash=")
            tracker.wait_for_places(1)
            tracker.wait_for_bytes(22)
        tracker.wait_for_places(0)
        with HttpClient(tracker.address) as client:
            client.send(b"GET /announce")
            tracker.wait_for_bytes(13)
            client.send(b" HTTP/1.1\r\n\r\n")
            assert client.receive().answer[b"failure reason"] == b"invalid info_hash"
        tracker.wait_for_places(0)


# Crowds


def half_open(tracker, source=None):
    client = HttpClient(tracker.address, source)
    client.send(b"GET /announce?")
    return client


def told_of_crowd(tracker, source=None):
    """Whether who connects now is told that there are too many; it is not answered else."""
    with HttpClient(tracker.address, source) as client:
        client.send(request(announce_target(os.urandom(20))))
        response = client.receive()
        assert response.status == 200
        if response.answer.get(b"failure reason") != CROWD:
            return False
        assert response.headers["connection"] == "close"
        assert response.answer[b"interval"] == 300
        assert client.ended()
        return True


def test_too_many_connections_of_a_source(make):
    with make(http={"per_source": 4}, limits={"exempt": []}) as tracker:
        clients = [half_open(tracker, "127.0.0.1") for _ in range(4)]
        tracker.wait_for_places(4)
        for _ in range(3):
            assert told_of_crowd(tracker, "127.0.0.1")
        assert not told_of_crowd(tracker, "127.0.0.2")
        tracker.wait_for_places(4)
        clients.pop().close()
        tracker.wait_for_places(3)
        assert not told_of_crowd(tracker, "127.0.0.1")
        for client in clients:
            client.close()
        assert tracker.call(tracker.connections.counters)[1:] == (0, 3, 0)


def test_too_many_connections_in_all(make):
    with make(http={"connections": 16}) as tracker:
        clients = [half_open(tracker) for _ in range(16)]
        tracker.wait_for_places(16)
        for _ in range(3):
            assert told_of_crowd(tracker)
        clients.pop().close()
        tracker.wait_for_places(15)
        assert not told_of_crowd(tracker)
        for client in clients:
            client.close()
        assert tracker.call(tracker.connections.counters)[1:] == (3, 0, 0)


def test_a_flood_of_connections(make):
    """Ten times as many as there is room for: each is answered or told."""
    with make(http={"connections": 16}) as tracker:
        before = tracker.call(tracker.connections.counters)[0]
        for _ in range(10):
            clients = [HttpClient(tracker.address) for _ in range(160)]
            for client in clients:
                client.send(request(announce_target(os.urandom(20)), "Connection: close"))
            for client in clients:
                assert client.receive().status == 200
                assert client.ended()
                client.close()
        accepted, over_all, *_ = tracker.call(tracker.connections.counters)
        assert accepted - before == 1600
        assert over_all + tracker.counted()[counters.HTTP_ANNOUNCES] == 1600


def test_when_no_file_can_be_opened(tracker):
    """Who comes then waits until one can be."""
    limit, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    with HttpClient(tracker.address) as client, socket.socket() as late:
        client.announce(os.urandom(20))
        late.settimeout(PATIENCE)
        free = os.dup(0)
        os.close(free)
        resource.setrlimit(resource.RLIMIT_NOFILE, (free, most))
        try:
            late.connect(tracker.address)
            late.sendall(request(announce_target(os.urandom(20)), "Connection: close"))
            tracker.wait_until(lambda: tracker.http.no_room == 1)
            client.announce(os.urandom(20))  # who is there is served
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (limit, most))
        tracker.tick()
        assert late.recv(17) == b"HTTP/1.1 200 OK\r\n"


# The web application's connections


@pytest.mark.parametrize(
    "target",
    ["/%61nnounce?x", "/announce#x", "/scrap%65?info_hash=", "//announce", "/announce/", "/a/../announce", "/?announce"]
    + ["http://other.example/%61nnounce", "/announce%00", "/%2e/announce", "/announce%3Fx"],
)
def test_other_ways_to_write_a_path(tracker, target):
    """The web application may take them for an announce that the fast lane did not see in them."""
    for _ in range(5):
        with HttpClient(tracker.address) as client:
            client.send(request("/") + request(target, "Connection: close"))
            assert len(responses(read_all(client))) == 2
            assert tracker.call(tracker.connections.open_places) == 0


def test_announces_on_a_connection_of_the_web_application(tracker):
    info_hash = os.urandom(20)
    with HttpClient(tracker.address) as client:
        assert client.get("/").status == 200
        for port in range(1000, 1050):
            assert client.announce(info_hash, port=port)[b"incomplete"] == port - 999
        assert list(client.scrape(info_hash)) == [info_hash]
        long = client.get("/announce?" + "a=b&" * 1500)
        assert long.answer[b"failure reason"] == b"too many parameters"
        assert client.get("/nowhere").status == 404
    assert tracker.call(tracker.connections.open_places) == 0


def test_the_web_application_turns_a_crowd_away(tracker):
    """It has 512 connections at most; the fast lane goes on meanwhile."""
    clients = [HttpClient(tracker.address) for _ in range(520)]
    for client in clients[:512]:
        client.send(request("/health"))
    for client in clients[:512]:
        assert client.receive().status == 200
    for client in clients[512:]:
        client.send(request("/health"))
        assert client.receive().answer[b"failure reason"] == CROWD
        assert client.ended()
    assert tracker.web.turned_away == 8
    with HttpClient(tracker.address) as client:
        client.announce(os.urandom(20))
    for client in clients:
        client.close()
