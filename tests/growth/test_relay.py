"""The relay carries what it is given, and does what it is told."""

import contextlib
import os
import socket
import threading
import time

import pytest
from growth.relay import Line, Relay
from ports import free_port

HOST = "127.0.0.1"


@pytest.fixture
def echo():
    """An address where all that comes is sent back."""
    with socket.create_server((HOST, 0)) as server:
        threading.Thread(target=serve, args=(server,), daemon=True).start()
        yield server.getsockname()
        server.shutdown(socket.SHUT_RDWR)


def serve(server):
    with contextlib.suppress(OSError):  # it is closed
        while True:
            sock, _ = server.accept()
            threading.Thread(target=send_back, args=(sock,), daemon=True).start()


def send_back(sock):
    with sock, contextlib.suppress(OSError):
        while piece := sock.recv(1 << 16):
            sock.sendall(piece)


@pytest.fixture
def near():
    """Where the relay listens."""
    return HOST, free_port()


@pytest.fixture
def relay(echo, near):
    with Relay([Line("here", "there", os.getpid(), near, echo)]) as relay:
        yield relay


def connected(address, first=b""):
    """A connection, over which something was sent to and fro."""
    sock = socket.create_connection(address)
    sock.settimeout(10)
    sock.sendall(first)
    assert receive(sock, len(first)) == first
    return sock


def receive(sock, many):
    got = b""
    while len(got) < many and (piece := sock.recv(1 << 16)):
        got += piece
    return got


def is_silent(sock):
    """Whether nothing comes for a while."""
    sock.settimeout(0.3)
    try:
        return sock.recv(1) is None
    except TimeoutError:
        return True
    finally:
        sock.settimeout(10)


def test_it_carries_all_in_order_and_counts(relay, near):
    data = os.urandom(10 << 20)  # more than it holds
    with connected(near) as sock:
        sender = threading.Thread(target=sock.sendall, args=(data,))
        sender.start()
        assert receive(sock, len(data)) == data
        sender.join()
    assert relay.carried() == {("here", "there"): (len(data), len(data))}


def test_what_is_delayed_takes_so_long_each_way(relay, near):
    relay.delay(0.2)
    with connected(near) as sock:
        began = time.monotonic()
        sock.sendall(b"slow")
        assert receive(sock, 4) == b"slow"
        assert time.monotonic() - began >= 0.4


@pytest.mark.parametrize("way", ["there", "back"])
def test_what_is_stalled_comes_later(relay, near, way):
    with connected(near) as sock:
        with relay.mode("stall", ways=[way]):
            sock.sendall(b"later")
            assert is_silent(sock)
        assert receive(sock, 5) == b"later"


def test_what_is_dropped_ends_with_the_connection(relay, near):
    with connected(near, b"one") as sock:
        with relay.mode("drop", ways=["there"]):
            sock.sendall(b"two")
            assert is_silent(sock)
        assert sock.recv(1) == b""
    connected(near, b"three").close()


def test_what_is_cut_is_closed_and_refused(relay, near):
    with connected(near, b"one") as sock, relay.mode("cut"):
        assert sock.recv(1) == b""
        with pytest.raises(ConnectionRefusedError):
            connected(near)
    connected(near, b"two").close()


def test_lines_between_others_go_on(echo):
    lines = [Line("vps1", "shard2", os.getpid(), (HOST, free_port()), echo)]
    lines += [Line(node, "shard3", os.getpid(), (HOST, free_port()), echo) for node in ("vps1", "vps2")]
    homes = {"shard2": "vps2", "shard3": "vps3"}
    with Relay(lines) as relay, contextlib.ExitStack() as stack:
        socks = [stack.enter_context(connected(line.listen)) for line in lines]
        with relay.apart({"vps2", "vps3"}, homes):
            for sock in socks:
                sock.sendall(b"who")
            assert [is_silent(sock) for sock in socks[:2]] == [True, True]
            assert receive(socks[2], 3) == b"who"
        assert [receive(sock, 3) for sock in socks[:2]] == [b"who", b"who"]


def test_the_end_of_one_side_is_that_of_the_other_once_all_is_carried(near, echo):
    """And where nobody listens there is an end at once."""
    port = free_port()
    with Relay([Line("here", "nobody", os.getpid(), near, (HOST, port))]), connected(near) as sock:
        assert sock.recv(1) == b""
    with (
        socket.create_server((HOST, port)) as server,
        Relay([Line("here", "there", os.getpid(), near, (HOST, port))]) as relay,
    ):
        relay.delay(0.1)
        with connected(near) as sock:
            far, _ = server.accept()
            with far:
                sock.sendall(b"last words")
                sock.shutdown(socket.SHUT_WR)
                far.settimeout(10)
                assert receive(far, 100) == b"last words"
