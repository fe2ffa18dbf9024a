"""A small HTTP tracker for IPv4, right by default, whose answers a test spoils: what a load must find out.

    with PlainTracker(spoil) as tracker: ...

`spoil(told, asked)` gets the dictionary that would be right and what was asked, and returns what is sent: a dictionary,
the bytes of a whole response, CLOSE, or None for no answer.
"""

import selectors
import socket
import threading
from contextlib import suppress
from typing import NamedTuple
from urllib.parse import parse_qsl, urlsplit

import bencode2

CLOSE = object()


class Asked(NamedTuple):
    """A request. `connection`: its number, `place`: which of its requests this is."""

    path: str
    pairs: list[tuple[str, bytes]]
    headers: dict[str, str]
    source: str
    connection: int
    place: int
    number: int

    def __getitem__(self, name):
        """The one value of a parameter."""
        (value,) = [value for key, value in self.pairs if key == name]
        return value


class Connection:
    """Of a client. `deaf`: it waits for an answer that never comes."""

    def __init__(self, sock, source, number):
        self.sock = sock
        self.source = source
        self.number = number
        self.place = 0
        self.got = b""
        self.deaf = False


class PlainTracker:
    """Listens on loopback, in a thread. `keeps`: whether it closes a connection only when it is asked to."""

    def __init__(self, spoil=lambda told, asked: told, keeps=True):
        self.spoil = spoil
        self.keeps = keeps
        self.swarms = {}  # by info-hash: left by endpoint
        self.asked = []
        self.connections = 0
        self.failures = []
        self.thread = threading.Thread(target=self._run)

    def __enter__(self):
        self.listener = socket.create_server(("127.0.0.1", 0), backlog=1024)
        self.listener.setblocking(False)
        self.address = self.listener.getsockname()
        self.end, self.other_end = socket.socketpair()
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.end.close()
        self.thread.join()
        assert self.failures == []

    def _run(self):
        with selectors.DefaultSelector() as self.selector, self.listener, self.other_end:
            self.selector.register(self.listener, selectors.EVENT_READ)
            self.selector.register(self.other_end, selectors.EVENT_READ)
            ended = False
            while not ended:
                for key, _ in self.selector.select():
                    ended |= not self._go_on(key)
            for key in list(self.selector.get_map().values()):
                key.fileobj.close()

    def _go_on(self, key):
        """Serve what is ready; False when all is to end."""
        if key.fileobj is self.listener:
            with suppress(BlockingIOError, ConnectionAbortedError):
                self._accept()
        elif key.data is not None and key.fileobj.fileno() >= 0:
            try:
                open_still = self._read(key.data)
            except OSError:  # the client is gone
                open_still = False
            except Exception as failure:  # it is the test that fails
                self.failures.append(failure)
                open_still = False
            if not open_still:
                self.selector.unregister(key.fileobj)
                key.fileobj.close()
        return key.fileobj is not self.other_end

    def _accept(self):
        sock, (source, _) = self.listener.accept()
        sock.setblocking(False)
        self.connections += 1
        self.selector.register(sock, selectors.EVENT_READ, Connection(sock, source, self.connections))

    def _read(self, connection):
        """Answer what came; whether the connection stays."""
        data = connection.sock.recv(65536)
        connection.got += data
        while not connection.deaf and b"\r\n\r\n" in connection.got:
            head, _, connection.got = connection.got.partition(b"\r\n\r\n")
            if not self._answer(connection, head.decode().split("\r\n")):
                return False
        return data != b""

    def _answer(self, connection, head):
        """Answer a request; whether the connection stays."""
        connection.place += 1
        method, target, version = head[0].split(" ")
        assert (method, version) == ("GET", "HTTP/1.1")
        query = parse_qsl(urlsplit(target).query, strict_parsing=True, encoding="latin-1")
        asked = Asked(
            urlsplit(target).path,
            [(name, value.encode("latin-1")) for name, value in query],
            dict(line.split(": ") for line in head[1:]),
            connection.source,
            connection.number,
            connection.place,
            len(self.asked),
        )
        self.asked.append(asked)
        answer = self.spoil(self._announced(asked) if asked.path == "/announce" else self._scraped(asked), asked)
        if answer is CLOSE:
            return False
        if answer is None:
            connection.deaf = True
            return True
        connection.sock.send(answer if isinstance(answer, bytes) else response(bencode2.bencode(answer)))
        return self.keeps and asked.headers.get("Connection") != "close"

    def _announced(self, asked):
        swarm = self.swarms.setdefault(asked["info_hash"], {})
        endpoint = (asked.source, int(asked["port"]))
        seeds = int(asked["left"]) == 0
        swarm[endpoint] = int(asked["left"])
        if ("event", b"stopped") in asked.pairs:
            del swarm[endpoint]
        listed = [other for other, left in swarm.items() if other != endpoint and not (seeds and left == 0)]
        return {
            b"complete": sum(left == 0 for left in swarm.values()),
            b"incomplete": sum(left > 0 for left in swarm.values()),
            b"interval": 1800,
            b"peers": b"".join(map(pack, listed[: int(asked["numwant"])])),
        }

    def _scraped(self, asked):
        files = {}
        for _, info_hash in asked.pairs:
            left = list(self.swarms.get(info_hash, {}).values())
            seeders = sum(each == 0 for each in left)
            files[info_hash] = {b"complete": seeders, b"downloaded": 0, b"incomplete": len(left) - seeders}
        return {b"files": files}


def pack(endpoint):
    """A compact peer."""
    host, port = endpoint
    return socket.inet_aton(host) + port.to_bytes(2, "big")


def response(body, status="200 OK", *headers):
    """A whole response."""
    lines = [f"HTTP/1.1 {status}", "Content-Type: text/plain", f"Content-Length: {len(body)}", *headers]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body
