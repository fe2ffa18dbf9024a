"""Connections to a tracker, each of one source and with one request under way: kept ones, or one a request.

Sockets are the system's, as locust replaces those of the standard library by ones that wait in gevent.
"""

from __future__ import annotations

import _socket
import contextlib
import errno
from collections import deque
from typing import Protocol

from loadtests.load import http_answer
from loadtests.load.endpoints import Route
from loadtests.load.http_answer import MalformedError
from loadtests.load.pacing import Pacer

MOST = 1024  # open at once
OF_SOURCE = 100  # open at once from one address: trackers refuse those who have many, Shoal from the 129th on
CHUNK = 16384  # bytes
_READ, _WRITE = 1, 4  # EPOLLIN, EPOLLOUT
_NO_PORT = 24  # IP_BIND_ADDRESS_NO_PORT: connect chooses the port, which knows that more of them are free
_STREAM = _socket.SOCK_STREAM | _socket.SOCK_NONBLOCK | _socket.SOCK_CLOEXEC
_BEGUN = (0, errno.EINPROGRESS)


class Request:
    """What is sent, and what becomes of it."""

    __slots__ = ("connection", "data", "due", "end", "hashes", "left", "number", "peer", "source", "stamps", "tries")

    def __init__(self, source: int, data: bytes, due: int) -> None:
        self.source = source
        self.data = data
        self.due = due
        self.end = 0  # when its answer is lost
        self.number = 0
        self.tries = 0  # so far
        self.left = False  # whether it was sent
        self.connection: Connection | None = None
        self.peer = -1
        self.hashes: list[bytes] = []  # of a scrape
        self.stamps: list[tuple[int, int]] = []  # its torrents, and what must be kept of each


class Connection:
    """A socket. `rest` is still to be sent; `got` came; `length` of the whole response is 0 while its head has not."""

    __slots__ = ("closes", "fd", "got", "head", "length", "request", "rest", "served", "sock", "source", "status")

    def __init__(self, sock: _socket.socket, source: int) -> None:
        self.sock = sock
        self.fd = sock.fileno()
        self.source = source
        self.request: Request | None = None
        self.rest = b""
        self.served = 0
        self.clear()

    def clear(self) -> None:
        """Expect a response."""
        self.got = b""
        self.head = self.length = self.status = 0
        self.closes = False

    def is_whole(self) -> bool:
        """Whether all of a response is there."""
        if not self.length:
            end = self.got.find(b"\r\n\r\n")
            if end < 0:
                if len(self.got) > http_answer.LONGEST_HEAD:
                    raise MalformedError("endless head")
                return False
            self.status, length, self.closes = http_answer.read_head(self.got[:end])
            self.head = end + 4
            self.length = self.head + length
        if len(self.got) > self.length:
            raise MalformedError("more than its length")
        return len(self.got) == self.length


class Owner(Protocol):
    """Who is told what becomes of requests."""

    def left(self, request: Request) -> None:
        """It was sent for the first time."""

    def answered(self, request: Request, status: int, body: bytes, size: int) -> None:
        """A response came."""

    def malformed(self, request: Request) -> None:
        """Something else came."""

    def broken(self, request: Request) -> None:
        """The connection was refused, or ended before a response."""


class Connections:
    """Carries requests. keep: how many a connection serves; with 1, the tracker is to close it."""

    def __init__(self, pacer: Pacer, owner: Owner, routes: list[Route], keep: int, most: int = MOST) -> None:
        self.pacer = pacer
        self.owner = owner
        self.routes = routes
        self.keep = keep
        self.most = min(max(most // len(routes), 1), OF_SOURCE)  # of a source
        self.stray = 0  # what came unasked
        self.opened = [0] * len(routes)
        self.idle: list[list[Connection]] = [[] for _ in routes]
        self.waiting: list[deque[Request]] = [deque() for _ in routes]
        self.connections: dict[int, Connection] = {}

    def send(self, request: Request) -> None:
        """Send a request, as soon as a connection is free for it."""
        source = request.source
        if self.idle[source]:
            self._put(self.idle[source].pop(), request)
        elif self.opened[source] < self.most:
            self._open(request)
        else:
            self.waiting[source].append(request)

    def take(self, ready: list[int]) -> None:
        """Go on with sockets that are ready."""
        for fd in ready:
            connection = self.connections.get(fd)
            if connection is not None:
                self._go_on(connection)

    def drop(self, request: Request) -> None:
        """Wait no more for an answer."""
        if request.connection is not None:
            self._end(request.connection)
        elif request in self.waiting[request.source]:
            self.waiting[request.source].remove(request)

    def close(self) -> None:
        """Close all. Whoever waited is told nothing."""
        for waiting in self.waiting:
            waiting.clear()
        for connection in list(self.connections.values()):
            self._end(connection)

    def _open(self, request: Request) -> None:
        """Make a connection for a request."""
        family, address, host, port = self.routes[request.source]
        try:
            sock = _socket.socket(family, _STREAM)
        except OSError:
            self.owner.broken(request)
            return
        try:
            sock.setsockopt(_socket.IPPROTO_IP, _NO_PORT, 1)
            sock.bind((address, 0))
            begun = sock.connect_ex((host, port))
        except OSError:
            begun = errno.EADDRNOTAVAIL
        if begun not in _BEGUN:
            sock.close()
            self.owner.broken(request)
            return
        connection = Connection(sock, request.source)
        self.connections[connection.fd] = connection
        self.opened[request.source] += 1
        connection.request = request
        request.connection = connection
        connection.rest = request.data
        with contextlib.suppress(OSError):  # on loopback it is connected by now; what is wrong comes again, in its turn
            connection.rest = connection.rest[sock.send(connection.rest) :]
        self.pacer.register(connection.fd, _WRITE if connection.rest else _READ)
        self._leave(connection)

    def _put(self, connection: Connection, request: Request) -> None:
        """Send a request over a kept connection."""
        connection.request = request
        request.connection = connection
        connection.rest = request.data
        connection.clear()
        with contextlib.suppress(OSError):
            connection.rest = connection.rest[connection.sock.send(connection.rest) :]
        if connection.rest:
            self.pacer.modify(connection.fd, _WRITE)
        self._leave(connection)

    def _leave(self, connection: Connection) -> None:
        """Tell once that a request was sent."""
        request = connection.request
        if request is not None and not request.left and not connection.rest:
            request.left = True
            self.owner.left(request)

    def _write(self, connection: Connection) -> None:
        """Send what is left."""
        try:
            connection.rest = connection.rest[connection.sock.send(connection.rest) :]
        except BlockingIOError:
            return
        except OSError:
            self._break(connection)
            return
        if not connection.rest:
            self.pacer.modify(connection.fd, _READ)
            self._leave(connection)

    def _go_on(self, connection: Connection) -> None:
        """Send what is left, or read what came."""
        if connection.rest:
            self._write(connection)
            return
        try:
            data = connection.sock.recv(CHUNK)
            if connection.request is None:  # closed while idle, we hope
                self.stray += bool(data)
                self._end(connection)
                return
            connection.got += data
            if data and connection.is_whole() and self.keep == 1:
                data = connection.sock.recv(CHUNK)  # its end, or nothing yet
                if data:
                    raise MalformedError("more than its length")
        except BlockingIOError:
            return
        except MalformedError:
            assert connection.request is not None
            self._end(connection)
            self.owner.malformed(connection.request)
            return
        except OSError:
            self._break(connection)
            return
        self._read(connection, not data)

    def _read(self, connection: Connection, ended: bool) -> None:
        """Hand over a response that is whole."""
        request = connection.request
        assert request is not None
        if connection.length and len(connection.got) == connection.length:
            got, head, status = connection.got, connection.head, connection.status
            self._free(connection, ended)
            self.owner.answered(request, status, got[head:], len(got))
        elif ended:
            self._break(connection)

    def _free(self, connection: Connection, ended: bool) -> None:
        """A connection can serve the next request."""
        connection.served += 1
        if ended or connection.closes or connection.served >= self.keep:
            self._end(connection)
            return
        assert connection.request is not None
        connection.request.connection = None
        connection.request = None
        if self.waiting[connection.source]:
            self._put(connection, self.waiting[connection.source].popleft())
        else:
            self.idle[connection.source].append(connection)

    def _break(self, connection: Connection) -> None:
        """A connection ended too early; a kept one perhaps while it was idle, which is no fault (RFC 9112, 9.3.1)."""
        request = connection.request
        self._end(connection)
        if request is None:
            return
        if connection.served and not connection.got:
            self._open(request)
        else:
            self.owner.broken(request)

    def _end(self, connection: Connection) -> None:
        """Close a connection, and give its place to whoever waits."""
        source = connection.source
        del self.connections[connection.fd]
        connection.sock.close()
        self.opened[source] -= 1
        if connection.request is None:
            self.idle[source].remove(connection)
        else:
            connection.request.connection = None
        while self.waiting[source] and self.opened[source] < self.most:
            self._open(self.waiting[source].popleft())
