"""Batches on real sockets, by recvmmsg and sendmmsg and one datagram at a time."""

import ctypes
import errno
import os
import socket
import sys
from contextlib import ExitStack

import pytest

from common import batch_io
from common.batch_io import DIRECT, LONGEST, STRIDE, Batch, allocate, is_fixed, prepare

IP_RECVERR, IPV6_RECVERR = 11, 25


@pytest.fixture(params=[False, True], ids=["batched", "single"])
def single(request):
    return request.param


@pytest.fixture(params=["127.0.0.1", "::1"])
def host(request):
    return request.param


@pytest.fixture
def bound():
    """Makes sockets, bound to an address and a free port."""
    with ExitStack() as stack:

        def make(host):
            family = socket.AF_INET6 if ":" in host else socket.AF_INET
            sock = stack.enter_context(socket.socket(family, socket.SOCK_DGRAM))
            sock.bind((host, 0))
            sock.settimeout(10)
            return sock

        yield make


@pytest.fixture
def server(bound, host):
    """A listening socket that is ready for a batch."""
    sock = bound(host)
    prepare(sock)
    return sock


@pytest.fixture
def client(bound, host):
    return bound(host)


def data_at(batch, place):
    return bytes(batch.received.data.cast("B")[STRIDE * place :][: batch.received.headers[8 * place + 7]])


def name_at(batch, place):
    """Port and address of a received datagram."""
    name = bytes(batch.received.names.cast("B")[32 * place :][:28])
    ipv6 = name[0] == socket.AF_INET6
    return int.from_bytes(name[2:4], "big"), socket.inet_ntop(name[0], name[8:24] if ipv6 else name[4:8])


def local_at(batch, place):
    """The address that a received datagram was sent to."""
    control = bytes(batch.received.controls.cast("B")[48 * place :][:48])
    if batch.received.headers[8 * place + 1] == 28:
        return socket.inet_ntop(socket.AF_INET6, control[16:32])
    return socket.inet_ntop(socket.AF_INET, control[20:24])


def queue(batch, place, data, to, local):
    """Let a datagram lie at a place of those to send."""
    sent = batch.sent
    sent.data.cast("B")[DIRECT * place : DIRECT * place + len(data)] = data
    sent.iovecs[2 * place] = sent.data_address + DIRECT * place
    sent.iovecs[2 * place + 1] = len(data)
    names, controls = sent.names.cast("B"), sent.controls.cast("B")
    port = to[1].to_bytes(2, "big")
    if ":" in to[0]:
        names[32 * place : 32 * place + 28] = (
            b"\x0a\0" + port + bytes(4) + socket.inet_pton(socket.AF_INET6, to[0]) + bytes(4)
        )
        controls[48 * place + 16 : 48 * place + 32] = socket.inet_pton(socket.AF_INET6, local)
    else:
        names[32 * place : 32 * place + 8] = b"\x02\0" + port + socket.inet_aton(to[0])
        controls[48 * place + 20 : 48 * place + 24] = socket.inet_aton(local)


def test_receives_what_was_sent(server, client, single):
    batch = Batch([server.family], depth=8, single=single)
    datagrams = [b"", b"x", bytes(16), os.urandom(98), os.urandom(LONGEST)]
    for datagram in datagrams:
        client.sendto(datagram, server.getsockname())
    assert batch.receive(0, server) == len(datagrams)
    for place, datagram in enumerate(datagrams):
        assert data_at(batch, place) == datagram
        assert name_at(batch, place) == (client.getsockname()[1], client.getsockname()[0])


def test_keeps_the_first_2048_bytes(server, client, single):
    batch = Batch([server.family], depth=2, single=single)
    long = os.urandom(5000)
    for datagram in (long, b"next"):
        client.sendto(datagram, server.getsockname())
    assert batch.receive(0, server) == 2
    assert data_at(batch, 0) == long[:LONGEST]
    assert data_at(batch, 1) == b"next"


def test_takes_as_many_as_it_has_room_for(server, client, single):
    batch = Batch([server.family], depth=3, single=single)
    for number in range(7):
        client.sendto(bytes([number]), server.getsockname())
    seen = []
    while many := batch.receive(0, server):
        assert many <= 3
        seen += [data_at(batch, place) for place in range(many)]
    assert seen == [bytes([number]) for number in range(7)]


def test_sockets_have_places_of_their_own(bound, single):
    servers = [bound(host) for host in ("0.0.0.0", "::", "0.0.0.0")]
    asked = ("127.0.0.1", "::1", "127.0.0.2")
    batch = Batch([server.family for server in servers], depth=2, single=single)
    assert batch.ipv6 == b"\0\1\0"
    for number, server in enumerate(servers):
        prepare(server)
        bound(asked[number]).sendto(bytes([number]), (asked[number], server.getsockname()[1]))
        assert batch.receive(number, server) == 1
    for number in range(3):
        assert data_at(batch, 2 * number) == bytes([number])
        assert name_at(batch, 2 * number)[1] == local_at(batch, 2 * number) == asked[number]


def test_a_socket_with_one_address_neither_tells_nor_is_told_it(bound, host, single):
    server, client = bound(host), bound(host)
    prepare(server)
    batch = Batch([server.family], depth=2, single=single, fixed=[is_fixed(server)])
    client.sendto(b"?", server.getsockname())
    assert batch.receive(0, server) == 1
    assert not any(batch.received.controls[2:6])
    queue(batch, 0, b"!", client.getsockname(), "192.0.2.9" if host == "127.0.0.1" else "2001:db8::9")
    assert batch.send(0, server, 1) == 0
    assert client.recvfrom(100)[0] == b"!"


@pytest.mark.parametrize(("address", "fixed"), [("0.0.0.0", False), ("::", False), ("127.0.0.1", True), ("::1", True)])
def test_which_sockets_have_one_address(bound, address, fixed):
    assert is_fixed(bound(address)) == fixed


def test_an_error_of_an_earlier_datagram_does_no_harm(server, client, host, single):
    batch = Batch([server.family], depth=2, single=single)
    nowhere = client.getsockname()
    level, option = (socket.IPPROTO_IPV6, IPV6_RECVERR) if ":" in host else (socket.IPPROTO_IP, IP_RECVERR)
    server.setsockopt(level, option, 1)
    client.close()
    server.sendto(b"refused", nowhere)
    assert batch.receive(0, server) == 0


def test_an_error_of_the_socket_is_raised(server, single):
    batch = Batch([server.family], depth=2, single=single)
    server.close()
    with pytest.raises(OSError) as raised:
        batch.receive(0, server)
    assert raised.value.errno == errno.EBADF


def test_sends_to_each_his_own(server, bound, host, single):
    batch = Batch([server.family], depth=2, single=single)
    clients = [bound(host) for _ in range(4)]
    for place, client in enumerate(clients):
        queue(batch, place, b"to %d" % place, client.getsockname(), host)
    assert batch.send(0, server, 4) == 0
    for place, client in enumerate(clients):
        assert client.recvfrom(100) == (b"to %d" % place, server.getsockname())


def test_answers_from_the_address_that_was_asked(bound, single):
    server = bound("0.0.0.0")
    prepare(server)
    batch = Batch([server.family], depth=4, single=single)
    client = bound("127.0.0.1")
    for host in ("127.0.0.1", "127.0.0.2", "127.0.0.3"):
        client.sendto(b"?", (host, server.getsockname()[1]))
        assert batch.receive(0, server) == 1
        assert local_at(batch, 0) == host
        queue(batch, 0, b"!", client.getsockname(), host)
        assert batch.send(0, server, 1) == 0
        assert client.recvfrom(100) == (b"!", (host, server.getsockname()[1]))


def test_who_cannot_be_sent_to_delays_nobody(server, client, host, single):
    batch = Batch([server.family], depth=3, single=single)
    for place, port in enumerate((client.getsockname()[1], 0, client.getsockname()[1], 0, 0, client.getsockname()[1])):
        queue(batch, place, b"%d" % place, (host, port), host)  # the system refuses port 0
    assert batch.send(0, server, 6) == 3
    assert [client.recv(100) for _ in range(3)] == [b"0", b"2", b"5"]


@pytest.mark.parametrize("number", [errno.EAGAIN, errno.ENOBUFS])
def test_a_full_buffer_ends_a_batch(server, client, host, monkeypatch, number):
    real = batch_io._sendmmsg

    def two_at_most(fd, headers, many, flags, sent=[]):  # noqa: B006  # it remembers
        if sent:
            ctypes.set_errno(number)
            return -1
        sent.append(real(fd, headers, min(many, 2), flags))
        return sent[0]

    monkeypatch.setattr(batch_io, "_sendmmsg", two_at_most)
    batch = Batch([server.family], depth=3)
    for place in range(5):
        queue(batch, place, b"%d" % place, client.getsockname(), host)
    assert batch.send(0, server, 5) == 3
    assert [client.recv(100) for _ in range(2)] == [b"0", b"1"]


@pytest.mark.parametrize("missing", ["_recvmmsg", "_sendmmsg"])
def test_systems_without_batches_do_it_singly(monkeypatch, missing):
    monkeypatch.setattr(batch_io, missing, None)
    assert Batch([socket.AF_INET], depth=1).single


def test_a_system_call_that_is_not_there():
    assert batch_io._system_call("no_such_system_call", []) is None


def test_big_endian_machines_are_refused(monkeypatch):
    monkeypatch.setattr(sys, "byteorder", "big")
    with pytest.raises(OSError, match="not little-endian"):
        Batch([socket.AF_INET], depth=1)


@pytest.mark.parametrize("huge", [0, 2 << 20])
def test_memory_is_zeros(huge):
    memory = allocate(4 << 20, huge)
    assert len(memory) == 4 << 20
    assert bytes(memory[-4096:]) == bytes(4096)
    memory[0] = 1


def test_memory_that_nobody_has():
    with pytest.raises(MemoryError, match="does not give 4,611,686,018,427,387,904 bytes"):
        allocate(1 << 62)
