import socket
from contextlib import closing, contextmanager

import pytest
from http_client import announce_target
from plain_tracker import PlainTracker
from ports import free_port

from loadtests.load.endpoints import Route
from loadtests.load.http_connections import Connections, Request
from loadtests.load.pacing import Pacer


class Owner:
    """Notes what it is told."""

    def __init__(self):
        self.told = {}  # by request: what became of it
        self.sent = []

    def left(self, request):
        self.sent.append(request)

    def answered(self, request, status, body, size):
        self.told[request] = "answered"

    def malformed(self, request):
        self.told[request] = "malformed"

    def broken(self, request):
        self.told[request] = "broken"


class Rig:
    """Connections from some sources to a tracker."""

    def __init__(self, pacer, address, sources, **options):
        self.pacer = pacer
        self.owner = Owner()
        routes = [Route(socket.AF_INET, f"127.17.0.{n}", *address) for n in range(1, sources + 1)]
        self.connections = Connections(pacer, self.owner, routes, **options)

    def send(self, source=0):
        close = "Connection: close\r\n" if self.connections.keep == 1 else ""
        target = announce_target(bytes(20), numwant=9)
        request = Request(source, f"GET {target} HTTP/1.1\r\nHost: here\r\n{close}\r\n".encode(), 0)
        self.connections.send(request)
        return request

    def until(self, holds):
        while not holds():
            self.connections.take(self.pacer.wait(paced=False))

    def all_told(self, *requests):
        self.until(lambda: all(request in self.owner.told for request in requests))
        return {self.owner.told[request] for request in requests}


@contextmanager
def connected(address, sources=1, keep=100, **options):
    with closing(Pacer(1)) as pacer:
        rig = Rig(pacer, address, sources, keep=keep, **options)
        with closing(rig.connections):
            yield rig


def test_a_kept_connection_serves_requests_that_follow_each_other():
    with PlainTracker() as tracker, connected(tracker.address) as rig:
        for _ in range(5):
            assert rig.all_told(rig.send()) == {"answered"}
        assert tracker.connections == 1


def test_more_connections_are_made_when_all_are_busy():
    with PlainTracker() as tracker, connected(tracker.address) as rig:
        assert rig.all_told(*[rig.send() for _ in range(5)]) == {"answered"}
        assert tracker.connections == 5


@pytest.mark.parametrize("keep", [1, 2, 100])
def test_requests_wait_when_no_more_connections_may_be_made(keep):
    with PlainTracker() as tracker, connected(tracker.address, keep=keep, most=3) as rig:
        requests = [rig.send() for _ in range(10)]
        assert sum(map(len, rig.connections.waiting)) == 7
        assert len(rig.connections.connections) == 3
        assert rig.all_told(*requests) == {"answered"}
        assert tracker.connections in {1: {10}, 2: {5, 6}, 100: {3}}[keep]
        assert set(rig.owner.sent) == set(requests)


def test_each_source_has_its_share_of_connections():
    with PlainTracker() as tracker, connected(tracker.address, sources=2, most=4) as rig:
        requests = [rig.send(n % 2) for n in range(10)]
        assert rig.connections.opened == [2, 2]
        assert rig.all_told(*requests) == {"answered"}
        assert {asked.source for asked in tracker.asked} == {"127.17.0.1", "127.17.0.2"}


def test_a_source_has_no_more_connections_than_trackers_allow():
    with PlainTracker() as tracker, connected(tracker.address) as rig:
        requests = [rig.send() for _ in range(140)]
        assert rig.connections.opened == [100]
        assert rig.all_told(*requests) == {"answered"}


def test_who_waits_or_is_under_way_can_be_given_up():
    def spoil(told, asked):
        return None if asked.number == 0 else told

    with PlainTracker(spoil) as tracker, connected(tracker.address, most=1) as rig:
        first, second, third = rig.send(), rig.send(), rig.send()
        rig.connections.drop(second)
        rig.until(lambda: tracker.asked)
        rig.connections.drop(first)
        assert rig.all_told(third) == {"answered"}
        assert set(rig.owner.told) == {third}
        assert len(tracker.asked) == 2


def test_those_who_wait_are_told_too_when_nobody_listens():
    with connected(("127.0.0.1", free_port()), most=2) as rig:
        assert rig.all_told(*[rig.send() for _ in range(10)]) == {"broken"}
        assert rig.connections.opened == [0]
        assert rig.owner.sent == []


def test_an_address_that_this_machine_does_not_have_breaks_requests():
    with PlainTracker() as tracker, connected(tracker.address) as rig:
        rig.connections.routes[0] = rig.connections.routes[0]._replace(address="192.0.2.1")
        assert rig.all_told(rig.send()) == {"broken"}


def test_an_idle_connection_that_the_tracker_closes_is_forgotten():
    with PlainTracker(keeps=False) as tracker, connected(tracker.address) as rig:
        assert rig.all_told(rig.send()) == {"answered"}
        rig.until(lambda: not rig.connections.connections)
        assert rig.connections.idle == [[]]
        assert rig.connections.stray == 0
        assert rig.all_told(rig.send()) == {"answered"}


def test_what_comes_unasked_is_counted_and_ends_the_connection():
    with socket.create_server(("127.0.0.1", 0)) as listener, connected(listener.getsockname()) as rig:
        request = rig.send()
        sock, _ = listener.accept()
        with sock:
            sock.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
            assert rig.all_told(request) == {"answered"}
            sock.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
            rig.until(lambda: not rig.connections.connections)
        assert rig.connections.stray == 1


def test_a_connection_that_the_tracker_says_it_will_close_is_used_no_more():
    with socket.create_server(("127.0.0.1", 0)) as listener, connected(listener.getsockname()) as rig:
        request = rig.send()
        sock, _ = listener.accept()
        with sock:
            sock.sendall(b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok")
            assert rig.all_told(request) == {"answered"}
            assert rig.connections.connections == {}


def test_an_answer_may_come_in_pieces():
    with socket.create_server(("127.0.0.1", 0)) as listener, connected(listener.getsockname()) as rig:
        request = rig.send()
        sock, _ = listener.accept()
        with sock:
            for piece in (b"HTTP/1.1 200 OK\r\nContent-Le", b"ngth: 2\r\n\r", b"\no", b"k"):
                assert request not in rig.owner.told
                sock.sendall(piece)
                rig.connections.take(rig.pacer.wait(paced=False))
        assert rig.all_told(request) == {"answered"}


def test_a_request_leaves_in_pieces_if_there_is_no_room():
    with socket.create_server(("127.0.0.1", 0)) as listener, connected(listener.getsockname()) as rig:
        request = Request(0, b"x" * (32 << 20), 0)
        rig.connections.send(request)
        sock, _ = listener.accept()
        with sock:
            assert rig.owner.sent == []
            sock.setblocking(False)
            got = 0
            while got < len(request.data):
                try:
                    got += len(sock.recv(1 << 20))
                except BlockingIOError:
                    rig.connections.take(rig.pacer.wait(paced=False))
            assert rig.owner.sent == [request]
            sock.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
            assert rig.all_told(request) == {"answered"}
