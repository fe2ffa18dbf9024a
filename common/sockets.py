"""Sockets that can be opened again: buffers, and a note of each that is enough to open another like it.

Standard library only: the supervisor, which is to stay small, does that too.
"""

import contextlib
import socket
from collections.abc import Sequence
from typing import Any, NamedTuple

RECEIVE_BUFFER = 8 << 20  # bytes: what arrives while the loop is elsewhere, or a worker is started again
SEND_BUFFER = 8 << 20  # bytes: the answers of a batch, which are given to the system at once
BACKLOG = 4096  # connections that wait to be accepted; the system may allow fewer
SO_SNDBUFFORCE, SO_RCVBUFFORCE = 32, 33  # of asm-generic/socket.h: root may exceed net.core.wmem_max and rmem_max

_IP = ((socket.IPPROTO_IP, getattr(socket, "IP_PKTINFO", 8)),)
_IPV6 = ((socket.IPPROTO_IPV6, socket.IPV6_V6ONLY), (socket.IPPROTO_IPV6, socket.IPV6_RECVPKTINFO))
_TCP = (
    (socket.SOL_SOCKET, socket.SO_REUSEADDR),
    (socket.IPPROTO_TCP, socket.TCP_DEFER_ACCEPT),
    (socket.IPPROTO_TCP, socket.TCP_NODELAY),
)


class Note(NamedTuple):
    """What a listening socket is like."""

    family: int
    kind: int
    address: Any
    shared: bool  # by several processes, each with a socket of its own
    options: list[tuple[int, int, int]]  # level, option, value


def note(sock: socket.socket) -> Note:
    """What is needed to open another socket like this one."""
    names = [*(_IPV6 if sock.family == socket.AF_INET6 else _IP)]
    names += _TCP if sock.type == socket.SOCK_STREAM else ()
    options = [(level, option, sock.getsockopt(level, option)) for level, option in names]
    return Note(sock.family, sock.type, sock.getsockname(), is_shared(sock), options)


def open_again(notes: Sequence[Note]) -> list[socket.socket]:
    """Sockets like those that were noted, which must be closed. Raises OSError; then none is open."""
    with contextlib.ExitStack() as failed:
        opened: list[socket.socket] = []
        ports: dict[int, set[int]] = {socket.AF_INET: set(), socket.AF_INET6: set()}
        for one in notes:
            sock = failed.enter_context(socket.socket(one.family, one.kind))
            for level, option, value in one.options:
                sock.setsockopt(level, option, value)
            datagrams = one.kind == socket.SOCK_DGRAM
            if datagrams:
                enlarge_buffers(sock)
            # One of a single address is bound beside our own of all addresses: meanwhile both share the port.
            beside = datagrams and one.address[1] in ports[one.family]
            share(sock, one.shared or beside)
            sock.bind(one.address)
            sock.setblocking(False)
            if datagrams:
                share(sock, True)
                ports[one.family].add(one.address[1])
            else:
                sock.listen(BACKLOG)
            opened.append(sock)
        for one, sock in zip(notes, opened, strict=True):
            share(sock, one.shared)
        failed.pop_all()
    return opened


def share(sock: socket.socket, shared: bool) -> None:
    """Let other sockets of the same user be bound where this one is, if they allow it too; or not."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, shared)


def is_shared(sock: socket.socket) -> bool:
    """Whether other sockets of the same user may be bound where this one is."""
    return bool(sock.getsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT))


def enlarge_buffers(sock: socket.socket) -> None:
    """As large buffers as this user may have."""
    for forced, option, size in (
        (SO_RCVBUFFORCE, socket.SO_RCVBUF, RECEIVE_BUFFER),
        (SO_SNDBUFFORCE, socket.SO_SNDBUF, SEND_BUFFER),
    ):
        try:
            sock.setsockopt(socket.SOL_SOCKET, forced, size)
        except OSError:
            sock.setsockopt(socket.SOL_SOCKET, option, size)
