import contextlib
import logging
import socket

import pytest
from ports import free_port

from common import config
from common.sockets import is_shared, share
from common.values import Endpoint
from gateway import listening
from gateway.listening import ListenError

LINK = "tcp://127.0.0.1:7001"


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


def gateways(*listens, **more):
    """A configuration with a gateway for each list of endpoints."""
    named = [{"name": f"g{at}", "listen": list(listen)} for at, listen in enumerate(listens)]
    return config.read({"gateways": named, "admin": None, **more})


def open_all(wanted):
    """The sockets of each gateway."""
    return [listening.open_sockets(wanted, gateway) for gateway in wanted.gateways]


@pytest.mark.parametrize("listen", ["127.0.0.1", "[::1]", "0.0.0.0", "[::]"])
def test_gateways_that_share_a_port_all_get_some_of_what_comes(opened, listen):
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(listen.strip("[]"), listen.strip("[]"))
    port = free_port()
    both = open_all(gateways([f"{listen}:{port}"], [f"{listen}:{port}"]))
    opened += [sock for sockets in both for sock in sockets]
    all_get_some(both, (host, port))


def all_get_some(both, address):
    """Fail unless two gateways together get all that comes, over UDP and TCP, and each some of it."""
    family = both[0][0].family
    for number in range(64):
        with socket.socket(family, socket.SOCK_DGRAM) as client:
            client.sendto(b"%d" % number, address)
        with socket.socket(family, socket.SOCK_STREAM) as client:
            client.connect(address)
            client.send(b"x")  # an accept is deferred until then
    taken = [[], []]
    connections = [0, 0]
    for mine, sockets in enumerate(both):
        for sock in sockets:
            with contextlib.suppress(BlockingIOError):
                while True:
                    if sock.type == socket.SOCK_DGRAM:
                        taken[mine].append(int(sock.recv(100)))
                    else:
                        sock.accept()[0].close()
                        connections[mine] += 1
    assert sorted(taken[0] + taken[1]) == list(range(64))
    assert sum(connections) == 64
    assert all(taken)
    assert all(connections)


def test_who_closes_its_sockets_leaves_all_to_the_other(opened):
    endpoint = f"0.0.0.0:{free_port()}"
    both = open_all(gateways([endpoint], [endpoint]))
    opened += both[1]
    for sock in both[0]:
        sock.close()
    for number in range(64):
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
            client.sendto(b"%d" % number, ("127.0.0.1", opened[0].getsockname()[1]))
    beside = next(sock for sock in opened if sock.getsockname()[0] == "127.0.0.1")
    assert [int(beside.recv(100)) for _ in range(64)] == list(range(64))


def test_only_what_is_shared_may_be_bound_by_others(opened):
    shared, alone = f"127.0.0.1:{free_port()}", f"127.0.0.1:{free_port()}"
    first, second = open_all(gateways([shared, alone], [shared]))
    opened += first + second
    assert [is_shared(sock) for sock in first] == [True, False, True, False]
    assert [is_shared(sock) for sock in second] == [True, True]


def test_gateways_of_several_nodes_share_no_port():
    nodes = {"nodes": [{"name": "one"}, {"name": "two"}], "shards": [{"name": "s", "node": "one", "link": LINK}]}
    both = [{"name": f"g{node}", "node": node, "listen": ["127.0.0.1:7000"]} for node in ("one", "two")]
    wanted = config.read({"gateways": both, "admin": None, **nodes})
    assert not any(listening.is_common(wanted, one, one.listen[0]) for one in wanted.gateways)


@pytest.mark.parametrize("listen", ["127.0.0.1", "0.0.0.0", "[::]"])
def test_who_had_a_port_alone_may_share_it_later(opened, listen):
    host = "::1" if listen == "[::]" else "127.0.0.1"
    endpoint, other = f"{listen}:{free_port()}", f"{listen}:{free_port()}"
    before = gateways([endpoint, other])
    (first,) = open_all(before)
    opened += first
    assert not any(is_shared(sock) for sock in first)
    for sock in first:
        share(sock, True)
    after = gateways([endpoint, other], [endpoint])
    second = listening.open_sockets(after, after.gateways[1], beside=True)
    opened += second
    for gateway, sockets in zip(after.gateways, (first, second), strict=True):
        listening.set_shared(after, gateway, sockets)
    port = opened[0].getsockname()[1]
    assert all(is_shared(sock) is (sock.getsockname()[1] == port) for sock in opened)
    all_get_some([[sock for sock in first if sock.getsockname()[1] == port], second], (host, port))
    listening.set_shared(before, before.gateways[0], first)  # the other is about to leave
    assert not any(is_shared(sock) for sock in first)


def test_of_port_0_each_gateway_has_its_own(opened):
    first, second = open_all(gateways(["127.0.0.1:0"], ["127.0.0.1:0"]))
    opened += first + second
    assert first[0].getsockname() != second[0].getsockname()
    assert not any(is_shared(sock) for sock in opened)


def test_the_path_of_a_port_in_use_is_the_gateways(opened):
    opened += open_sockets(listen_on("127.0.0.1:0"))
    taken = f"127.0.0.1:{opened[0].getsockname()[1]}"
    wanted = gateways(["127.0.0.1:0"], ["127.0.0.2:0", taken])
    with pytest.raises(ListenError, match=rf"gateways\[1\]\.listen\[1\]: cannot listen on {taken} "):
        listening.open_sockets(wanted, wanted.gateways[1])
