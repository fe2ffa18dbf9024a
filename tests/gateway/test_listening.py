import contextlib
import logging
import socket

import pytest

from common import config
from common.values import Endpoint
from gateway import listening
from gateway.listening import ListenError


def listen_on(*endpoints):
    return config.read({"gateways": [{"name": "g", "listen": list(endpoints)}], "admin": None})


def open_sockets(wanted):
    return listening.open_sockets(wanted, wanted.gateways[0])


@pytest.fixture
def opened():
    kept = []
    yield kept
    for sock in kept:
        sock.close()


def test_sockets_come_in_the_order_of_the_file(opened):
    opened += open_sockets(listen_on("127.0.0.1:0", "[::1]:0", "127.0.0.2:0"))
    assert [sock.getsockname()[0] for sock in opened] == 2 * ["127.0.0.1", "::1", "127.0.0.2"]
    assert [sock.type for sock in opened] == 3 * [socket.SOCK_DGRAM] + 3 * [socket.SOCK_STREAM]
    assert [sock.getsockname()[1] for sock in opened[:3]] == [sock.getsockname()[1] for sock in opened[3:]]
    assert not any(sock.getblocking() for sock in opened)


def take_for_tcp(monkeypatch, opened, times):
    """Let the port of the next UDP sockets be taken for TCP by somebody else."""
    open_udp = listening.open_udp
    left = [None] * times

    def take(endpoint, **options):
        sock = open_udp(endpoint, **options)
        if left:
            left.pop()
            with contextlib.suppress(OSError):  # it is taken
                opened.append(socket.create_server(sock.getsockname()))
        return sock

    monkeypatch.setattr(listening, "open_udp", take)


def test_the_systems_choice_of_a_port_is_free_for_udp_and_tcp(monkeypatch, opened):
    take_for_tcp(monkeypatch, opened, 2)
    udp, tcp = open_sockets(listen_on("127.0.0.1:0"))
    opened += [udp, tcp]
    assert udp.getsockname() == tcp.getsockname()


def test_a_system_without_such_a_port_is_an_error(monkeypatch, opened):
    take_for_tcp(monkeypatch, opened, 100)
    with pytest.raises(ListenError, match=r"listen\[0\]: cannot listen on 127.0.0.1:0 \(TCP\): Address already in use"):
        open_sockets(listen_on("127.0.0.1:0"))


def test_both_families_may_have_the_same_port(opened):
    opened += open_sockets(listen_on("0.0.0.0:0"))
    port = opened[0].getsockname()[1]
    opened.append(listening.open_udp(Endpoint(f"[::]:{port}")))
    assert opened[-1].getsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY) == 1


def test_who_listens_on_all_addresses_has_a_socket_for_each(opened):
    opened += open_sockets(listen_on("0.0.0.0:0", "[::]:0"))
    ports = [sock.getsockname()[1] for sock in opened[:2]]
    beside = [sock.getsockname()[:2] for sock in opened[4:]]
    assert ("127.0.0.1", ports[0]) in beside
    assert ("::1", ports[1]) in beside
    assert len(set(beside)) == len(beside)
    assert not any(sock.getblocking() for sock in opened)
    for sock in opened:
        sock.settimeout(5)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.sendto(b"known", ("127.0.0.1", ports[0]))
        client.sendto(b"another", ("127.0.0.9", ports[0]))
    place = beside.index(("127.0.0.1", ports[0]))
    assert opened[4 + place].recv(100) == b"known"
    assert opened[0].recv(100) == b"another"


def test_nobody_can_listen_beside(opened):
    opened += open_sockets(listen_on("0.0.0.0:0"))
    for address in ("0.0.0.0", "127.0.0.1", "127.0.0.9"):
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as other:
            other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            with pytest.raises(OSError, match="in use"):
                other.bind((address, opened[0].getsockname()[1]))


def test_an_address_that_is_taken_is_left_out(opened):
    opened.append(listening.open_udp(Endpoint("127.0.0.1:0")))
    port = opened[0].getsockname()[1]
    assert listening.open_beside(socket.AF_INET, "127.0.0.1", port) is None


@pytest.mark.parametrize("option", [socket.SO_RCVBUF, socket.SO_SNDBUF])
def test_buffers_are_as_large_as_may_be(opened, option):
    opened.append(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
    opened[0].setsockopt(socket.SOL_SOCKET, option, 8 << 20)  # what this user may have
    opened.append(listening.open_udp(Endpoint("127.0.0.1:0")))
    allowed, taken = (sock.getsockopt(socket.SOL_SOCKET, option) for sock in opened)
    assert taken >= allowed


def test_who_has_a_small_buffer_is_told_how_to_change_it(opened, caplog):
    caplog.set_level(logging.INFO)
    opened.append(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
    listening.report_buffer(opened[0])
    assert "to have 8 MiB: sysctl net.core.rmem_max=8388608" in caplog.text


def test_a_port_in_use_is_one_line_with_its_path(opened):
    opened += open_sockets(listen_on("127.0.0.1:0"))
    port = opened[0].getsockname()[1]
    line = rf"gateways\[0\]\.listen\[1\]: cannot listen on 127\.0\.0\.1:{port} \(UDP\): Address already in use"
    with pytest.raises(ListenError, match=line):
        open_sockets(listen_on("127.0.0.2:0", f"127.0.0.1:{port}"))


def test_an_address_of_another_machine_is_one_line():
    with pytest.raises(ListenError, match=r"listen\[0\]: cannot listen on 192\.0\.2\.1:6969"):
        open_sockets(listen_on("192.0.2.1:6969"))
    with pytest.raises(ListenError, match=r"listen\[0\]: cannot listen on \[fe80::1%nowhere\]:6969"):
        open_sockets(listen_on("[fe80::1%nowhere]:6969"))


def test_the_default_does_without_ipv6_where_there_is_none():
    assert listening.without_ipv6(config.Config()).gateways[0].listen == ("0.0.0.0:6969",)
