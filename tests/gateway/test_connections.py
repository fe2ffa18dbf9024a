"""Connections by the batch on real sockets: rows, answers, places; compiled and uncompiled."""

import os
import select
import socket
import struct
from contextlib import ExitStack

import pytest
from http_bench import kernels_of, words

from common.batch_io import allocate
from gateway.http_places import ANSWERS, CLOSE, DRAIN, DRAINING, FREE, READING, ROW, ROWS, WRITING

CROWD = b"too many"


def wait_for(fd):
    """Wait until something can be read."""
    poll = select.poll()
    poll.register(fd, select.POLLIN)
    assert poll.poll(20_000)


def reset(client):
    """Close at once, without a goodbye."""
    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    client.close()


class Lobby:
    """Connections to a listener of ours, and their clients."""

    def __init__(self, module, most=16, per_source=8, exempt=b""):
        self.listener = socket.create_server(("127.0.0.1", 0), backlog=1024)
        self.listener.setblocking(False)
        self.sources = module.Sources(allocate)
        self.sources.set_networks(exempt, b"")
        self.connections = module.Connections(allocate, [self.listener], self.sources, most, per_source, 30)
        self.connections.set_crowd_answer(CROWD)
        self.clients = []

    def connect(self, data=b"", source="127.0.0.1"):
        client = socket.create_connection(self.listener.getsockname(), source_address=(source, 0))
        client.settimeout(20)
        client.sendall(data)
        self.clients.append(client)
        return client

    def accept(self, many=1):
        """Accept so many, each of which is there by now; what they sent, by place."""
        came = 0
        while came < many:
            wait_for(self.listener.fileno())
            came += self.connections.accept(0, many - came, 100)
        return self.rows()

    def rows(self):
        found = [self.connections.row(index) for index in range(self.connections.rows)]
        self.connections.clear()
        return found

    def read(self, *places):
        """Read from connections that have something for us."""
        fds = [self.connections.look(place)[1] for place in places]
        for fd in fds:
            wait_for(fd)
        assert self.connections.read([(fd, 1) for fd in fds], 0) == len(fds)
        return self.rows()

    def close(self):
        for place in self.connections.everywhere():
            self.connections.close(place)
        for sock in [self.listener, *self.clients]:
            sock.close()


@pytest.fixture(scope="module")
def module(kernel):
    return kernels_of(kernel)


@pytest.fixture
def lobby(module):
    lobby = Lobby(module)
    yield lobby
    lobby.close()


def test_what_a_connection_sent_is_a_row(lobby):
    lobby.connect(b"hello")
    ((place, data),) = lobby.accept()
    assert data == b"hello"
    assert lobby.connections.look(place)[0] == READING
    assert lobby.connections.look(place)[2:] == (False, False)
    assert lobby.connections.address(place) == words("127.0.0.1")
    lobby.clients[0].sendall(b"again")
    assert lobby.read(place) == [(place, b"again")]


def test_who_sent_nothing_yet_is_an_empty_row(lobby):
    lobby.connect()
    ((place, data),) = lobby.accept()
    assert data == b""
    lobby.connections.watch(place)
    assert lobby.connections.read([(lobby.connections.look(place)[1], 1)], 0) == 1
    assert lobby.rows() == []  # it is watched: nothing is to be done


def test_an_end_frees_the_place_and_the_file(lobby):
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(40):  # more than there are places
        client = lobby.connect(b"x")
        ((place, _),) = lobby.accept()
        client.close()
        assert lobby.read(place) == []
        assert lobby.connections.look(place)[0] == FREE
    assert lobby.connections.open_places() == 0
    assert len(os.listdir("/proc/self/fd")) == before
    assert lobby.connections.counters() == (40, 0, 0, 0)
    assert lobby.connections.take_gone() == []


@pytest.mark.parametrize("keep", ["hold", "wait_to_write"])
def test_what_was_kept_for_a_place_is_told_of_once(lobby, keep):
    client = lobby.connect(b"x")
    ((place, _),) = lobby.accept()
    if keep == "hold":
        lobby.connections.hold(place, True, 110)
    else:
        lobby.connections.wait_to_write(place, 100)
        assert lobby.connections.look(place)[0] == WRITING
    reset(client)
    lobby.read(place)
    assert lobby.connections.take_gone() == [place]
    assert lobby.connections.take_gone() == []


def test_too_many_of_a_source_and_in_all(lobby):
    for _ in range(8):
        lobby.connect(b"x")
    assert len(lobby.accept(8)) == 8
    client = lobby.connect(b"x")
    assert lobby.accept() == []
    assert client.recv(100) == CROWD
    assert client.recv(1) == b""
    for number in range(8):
        lobby.connect(b"x", f"127.0.0.{number + 2}")
    assert len(lobby.accept(8)) == 8
    client = lobby.connect(b"x", "127.0.0.99")
    assert lobby.accept() == []
    assert client.recv(100) == CROWD
    assert lobby.connections.counters() == (18, 1, 1, 0)
    lobby.connections.close(0)
    assert lobby.connections.open_places() == 15


def test_the_exempt_have_no_limit_of_their_own(module):
    lobby = Lobby(module, exempt=bytes(10) + b"\xff\xff\x7f\0\0\0" + b"\xff" * 13 + bytes(3))
    for _ in range(17):
        lobby.connect(b"x")
    assert len(lobby.accept(17)) == 16
    assert lobby.connections.counters() == (17, 1, 0, 0)
    lobby.close()


def test_rows_have_room_for_so_many_bytes(module):
    lobby = Lobby(module, most=80, per_source=80)
    for _ in range(70):
        lobby.connect(b"a" * ROW)
    rows = lobby.connections.accept(0, 70, 100)
    assert not lobby.connections.room()
    assert rows < 70
    with pytest.raises(ValueError, match="no room"):
        lobby.connections.put_row(0, b"x")
    taken = lobby.rows()
    assert all(data == b"a" * 8704 for _, data in taken[:60])
    assert lobby.connections.room()
    assert rows + len(lobby.accept(70 - rows)) == 70
    lobby.close()


def test_rows_are_512_at_most(lobby):
    connections = lobby.connections
    for _ in range(ROWS):
        connections.put_row(0, b"")
    with pytest.raises(ValueError, match="no room"):
        connections.put_row(0, b"")
    for index in (-1, ROWS):
        with pytest.raises(ValueError, match="no such row"):
            connections.row(index)
    connections.clear()
    for place, data in ((-1, b""), (16, b""), (0, bytes(ROW + 1))):
        with pytest.raises(ValueError, match="no such place"):
            connections.put_row(place, data)
    with pytest.raises(ValueError, match="no such answer"):
        connections.answer(0)
    with pytest.raises(ValueError, match="no such place"):
        connections.put_answer(16, b"x", 0)


def test_a_reading_that_has_no_room_goes_on_later(lobby):
    lobby.connect(b"x")
    ((place, _),) = lobby.accept()
    lobby.clients[0].sendall(b"y")
    fd = lobby.connections.look(place)[1]
    wait_for(fd)
    for _ in range(ROWS):
        lobby.connections.put_row(place, b"")
    assert lobby.connections.read([(fd, 1)], 0) == 0
    lobby.connections.clear()
    assert lobby.connections.read([(fd, 1)], 0) == 1
    assert lobby.rows() == [(place, b"y")]


def answer(lobby, place, data, after=0, now=100):
    """Send an answer; what `send` has to say, and what is left of those that were not taken whole."""
    lobby.connections.put_answer(place, data, after)
    told = lobby.connections.send(now)
    rest = [lobby.connections.answer(index) for _, index in told if index >= 0]
    lobby.connections.forget_answers()
    return told, rest


def test_what_follows_an_answer(lobby):
    client = lobby.connect(b"x")
    ((place, _),) = lobby.accept()
    assert answer(lobby, place, b"bye", DRAIN) == ([(place, -1)], [])  # it is not watched yet
    assert lobby.connections.look(place)[0] == DRAINING
    assert client.recv(4) == b"bye"
    assert client.recv(1) == b""  # our side is shut
    client.sendall(b"more")
    assert lobby.read(place) == []  # it is not read any longer
    assert lobby.connections.overdue(102) == []
    assert lobby.connections.overdue(103) == [place]
    client.close()
    lobby.read(place)
    assert lobby.connections.look(place)[0] == FREE
    lobby.connect(b"x")
    ((place, _),) = lobby.accept()
    lobby.connections.watch(place)
    assert answer(lobby, place, b"hello") == ([], [])
    assert lobby.connections.look(place)[0] == READING
    assert (lobby.connections.overdue(130), lobby.connections.overdue(131)) == ([], [place])
    lobby.connections.hold(place, True)
    assert answer(lobby, place, b"hello") == ([(place, -2)], [])
    assert answer(lobby, place, b"hello", CLOSE) == ([], [])
    assert lobby.connections.look(place)[0] == FREE


def test_the_rest_of_an_answer_is_sent_as_it_is_taken(lobby):
    lobby.listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 14)
    client = lobby.connect(b"x")
    client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 14)
    ((place, _),) = lobby.accept()
    lobby.connections.watch(place)
    data = os.urandom(1 << 18)
    got, now = b"", 100
    told, rest = answer(lobby, place, data)
    while rest:
        assert told == [(place, 0)]
        lobby.connections.wait_to_write(place, now)
        assert lobby.connections.look(place)[0] == WRITING
        assert lobby.connections.overdue(111) == [place]  # to take a little does not put it off
        now += 1
        while len(got) < len(data) - len(rest[0][0]):
            got += client.recv(1 << 20)
        told, rest = answer(lobby, place, *rest[0], now=now)
    assert told == [(place, -1)]  # to be watched for requests again
    assert lobby.connections.look(place)[0] == READING
    while len(got) < len(data):
        got += client.recv(1 << 20)
    assert got == data
    assert now > 101


def test_who_breaks_while_he_is_answered_is_counted(lobby):
    client = lobby.connect(b"x")
    ((place, _),) = lobby.accept()
    reset(client)
    wait_for(lobby.connections.look(place)[1])
    assert answer(lobby, place, b"x") == ([], [])
    assert lobby.connections.look(place)[0] == FREE
    assert lobby.connections.counters()[3] == 1


def test_there_is_room_for_so_many_answers(lobby):
    lobby.connect(b"x")
    ((place, _),) = lobby.accept()
    for _ in range(ANSWERS):
        lobby.connections.put_answer(place, b"x", 0)
    with pytest.raises(ValueError, match="no room"):
        lobby.connections.put_answer(place, b"x", 0)
    lobby.connections.forget_answers()
    lobby.connections.put_answer(place, b"x", 0)


@pytest.mark.parametrize("by", ["close", "detach"])
def test_an_answer_is_not_sent_to_who_has_the_place_next(lobby, by):
    """Not even if the next one is answered in the same turn."""
    lobby.connect(b"x")
    ((place, _),) = lobby.accept()
    lobby.connections.put_answer(place, b"to the first", 0)
    fd = getattr(lobby.connections, by)(place)
    assert lobby.connections.send(100) == []
    client = lobby.connect(b"y")
    assert lobby.accept() == [(place, b"y")]
    assert lobby.connections.send(100) == []
    lobby.connections.put_answer(place, b"to the second", CLOSE)
    lobby.connections.send(100)
    assert client.recv(100) == b"to the second"
    assert client.recv(1) == b""
    if fd is not None:
        os.close(fd)


def test_nor_is_one_sent_to_a_place_without_a_socket_that_another_has(lobby):
    place = lobby.connections.open_inner(1, 2)
    lobby.connections.put_answer(place, b"x", 0)
    lobby.connections.close_inner(place)
    assert lobby.connections.open_inner(1, 2) == place
    assert lobby.connections.send(100) == []
    lobby.connections.forget_answers()
    assert answer(lobby, place, b"y") == ([(place, 0)], [(b"y", 0)])


def test_who_has_ended_while_it_writes_is_told_the_rest(lobby):
    """Its end is seen once; what comes of epoll then is that it can be written to, or that it broke."""
    client = lobby.connect(b"x")
    ((place, _),) = lobby.accept()
    lobby.connections.watch(place)
    lobby.connections.wait_to_write(place, 100)
    assert lobby.connections.under_way() == 1
    client.shutdown(socket.SHUT_WR)
    for _ in range(2):
        assert lobby.read(place) == [(place, b"")]
        assert lobby.connections.has_ended(place)
    assert answer(lobby, place, b"hello", DRAIN) == ([], [])
    assert client.recv(100) == b"hello"
    assert client.recv(1) == b""
    assert lobby.connections.open_places() == lobby.connections.under_way() == 0
    assert lobby.connections.counters()[3] == 0


def test_the_next_request_has_no_deadline_before_its_turn(lobby):
    lobby.connect(b"x")
    ((place, _),) = lobby.accept()
    lobby.connections.wait_to_write(place, 100)
    lobby.connections.hold(place, True, 200)
    assert lobby.connections.overdue(111) == [place]


def test_a_connection_can_be_given_away(lobby):
    client = lobby.connect(b"x")
    ((place, _),) = lobby.accept()
    with socket.socket(fileno=lobby.connections.detach(place)) as mine:
        assert lobby.connections.open_places() == 0
        mine.sendall(b"hello")
        assert client.recv(5) == b"hello"


def test_places_without_a_socket(lobby):
    places = [lobby.connections.open_inner(1, 2) for _ in range(16)]
    assert sorted(places) == list(range(16))
    assert lobby.connections.open_inner(1, 2) == -1
    assert lobby.connections.everywhere() == lobby.connections.overdue(1 << 31) == []
    client = lobby.connect(b"x")
    assert lobby.accept() == []
    assert client.recv(100) == CROWD
    for place in places:
        lobby.connections.close_inner(place)
    assert lobby.connections.open_places() == 0


def test_files_with_high_numbers(lobby):
    """Beyond what there was room for."""
    with ExitStack() as stack:
        for _ in range(2100):
            stack.callback(os.close, os.dup(0))
        lobby.connect(b"x")
        ((place, _),) = lobby.accept()
    assert lobby.connections.look(place)[1] > 2100
    lobby.clients[0].sendall(b"y")
    assert lobby.read(place) == [(place, b"y")]


def test_events_of_others_are_counted(lobby):
    assert lobby.connections.read([(lobby.listener.fileno(), 1), (1 << 20, 1)], 0) == 2
    assert lobby.connections.knocks == 2
