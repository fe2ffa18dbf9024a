"""Sockets that are opened again: the same addresses and options."""

import socket

import pytest
from ports import free_port

from common import config, sockets
from gateway import listening

OPTIONS = [
    (socket.SOL_SOCKET, socket.SO_REUSEPORT),
    (socket.SOL_SOCKET, socket.SO_REUSEADDR),
    (socket.SOL_SOCKET, socket.SO_RCVBUF),
    (socket.SOL_SOCKET, socket.SO_SNDBUF),
    (socket.SOL_SOCKET, socket.SO_ACCEPTCONN),
    (socket.IPPROTO_TCP, socket.TCP_NODELAY),
    (socket.IPPROTO_TCP, socket.TCP_DEFER_ACCEPT),
    (socket.IPPROTO_IP, 8),
    (socket.IPPROTO_IPV6, socket.IPV6_V6ONLY),
    (socket.IPPROTO_IPV6, socket.IPV6_RECVPKTINFO),
]


def look(sock):
    """All that matters of a socket."""
    found = [sock.family, sock.type, sock.getsockname(), sock.getblocking()]
    for level, option in OPTIONS:
        try:
            found.append(sock.getsockopt(level, option))
        except OSError as error:
            found.append(error.errno)
    return found


@pytest.mark.parametrize("many", [1, 2])
@pytest.mark.parametrize("hosts", [["127.0.0.1", "[::1]"], ["0.0.0.0", "[::]"]])
def test_they_are_as_they_were(hosts, many):
    port = free_port()
    listen = [f"{host}:{port}" for host in hosts]
    wanted = config.read({"gateways": [{"name": f"g{at}", "listen": listen} for at in range(many)], "admin": None})
    kept = [sock for gateway in wanted.gateways[1:] for sock in listening.open_sockets(wanted, gateway)]
    opened = listening.open_sockets(wanted, wanted.gateways[0])
    before = [look(sock) for sock in opened]
    notes = [sockets.note(sock) for sock in opened]
    for sock in opened:
        sock.close()
    again = sockets.open_again(notes)
    assert [look(sock) for sock in again] == before
    for sock in again + kept:
        sock.close()


def test_if_one_address_is_taken_none_is_open():
    wanted = config.read({"gateways": [{"name": "g", "listen": ["127.0.0.1:0", "127.0.0.2:0"]}], "admin": None})
    opened = listening.open_sockets(wanted, wanted.gateways[0])
    notes = [sockets.note(sock) for sock in opened]
    for sock in opened:
        sock.close()
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as other:
        other.bind(notes[3].address)
        with pytest.raises(OSError, match="in use"):
            sockets.open_again(notes)
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as free:
            free.bind(notes[0].address)
