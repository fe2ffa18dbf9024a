"""A TCP relay between machines of a test: what goes through it is delayed, stalled or cut as the test wants it.

    with Relay([Line("vps1", "shard2", vps1.pid, ("10.77.0.2", 7102), ("198.51.100.1", 7102)), ...]) as relay:
        relay.delay(0.005)
        with relay.apart({"vps1"}, {"shard1": "vps1", "shard2": "vps2"}):
            ...  # nothing goes between vps1 and the other nodes

A *line* goes from a node to a shard elsewhere: on that node the relay listens where processes are told to reach the
shard, and it connects to where the shard is. A line has two *ways*, `there` and `back`, each of which is in a mode:

    flow   carries bytes, after a delay
    stall  takes bytes, and carries them when it flows again: as TCP does while a network loses all packets
    drop   takes bytes and forgets them, so the other way may flow alone; when that ends so do the connections
    cut    of the whole line: connections are closed, and others refused

One process serves all lines: it enters a machine's network to make a socket, and leaves it again. It is told what to
do by lines of JSON, and answers each when it is done.
"""

import contextlib
import ctypes
import json
import select
import socket
import subprocess
import sys
import time
from collections import deque
from typing import NamedTuple

CLONE_NEWNET = 0x40000000
WAYS = ("there", "back")
PIECE = 1 << 16  # bytes that are taken at once
MOST = 4 << 20  # bytes that wait in a way of a connection: beyond, the sender has to wait
PATIENCE = 10.0


class Line(NamedTuple):
    """Connections of a node's processes to a shard. `pid`: of a process whose network is the node's."""

    node: str
    shard: str
    pid: int
    listen: tuple[str, int]
    connect: tuple[str, int]


class Relay:
    """The process, from outside."""

    def __init__(self, lines):
        self.lines = lines
        command = [sys.executable, "-P", __file__, json.dumps(lines)]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def __enter__(self):
        self._order([])  # it listens by then
        return self

    def __exit__(self, *_):
        self.process.stdin.close()
        self.process.wait(PATIENCE)
        self.process.stdout.close()

    def delay(self, seconds, node=None, shard=None):
        """Let bytes take so long each way: on the lines of a node, or to a shard, or on all."""
        self._order(self._between(node, shard), delay=seconds)

    @contextlib.contextmanager
    def mode(self, mode, node=None, shard=None, ways=WAYS):
        """Let some lines be stalled, dropped or cut meanwhile."""
        with self._changed(self._between(node, shard), mode, ways):
            yield

    @contextlib.contextmanager
    def apart(self, nodes, node_of, mode="stall"):
        """Let nothing go between some nodes and the others meanwhile. node_of: of each shard."""
        lines = [line for line in self.lines if (line.node in nodes) != (node_of[line.shard] in nodes)]
        with self._changed(lines, mode, WAYS):
            yield

    def carried(self):
        """Bytes so far, by (node, shard): there and back."""
        carried = self._order([])
        return {(line.node, line.shard): tuple(both) for line, both in zip(self.lines, carried, strict=True)}

    @contextlib.contextmanager
    def _changed(self, lines, mode, ways):
        self._order(lines, ways, mode=mode)
        try:
            yield
        finally:
            self._order(lines, ways, mode="flow")

    def _between(self, node, shard):
        chosen = [line for line in self.lines if node in (None, line.node) and shard in (None, line.shard)]
        assert chosen, f"no line from {node} to {shard}"
        return chosen

    def _order(self, lines, ways=WAYS, **changes):
        order = {"lines": [self.lines.index(line) for line in lines], "ways": ways, "changes": changes}
        self.process.stdin.write(json.dumps(order) + "\n")
        self.process.stdin.flush()
        return json.loads(self.process.stdout.readline())


# The process


class Rule:
    """How a way of a line behaves, and what it has carried."""

    def __init__(self):
        self.mode = "flow"
        self.delay = 0.0
        self.carried = 0
        self.dropped = 0


class Way:
    """One way of a connection, from a socket to the other."""

    def __init__(self, rule, source, target):
        self.rule = rule
        self.source = source
        self.target = target
        self.waiting = deque()  # (when it is due, bytes)
        self.held = 0  # bytes that wait
        self.ended = False  # nothing more will come
        self.full = False  # the target takes nothing at present

    @property
    def wants(self):
        """Whether it would take bytes."""
        return not self.ended and self.held < MOST

    def take(self, now):
        """Bytes are there, or their end."""
        try:
            piece = self.source.recv(PIECE)
        except BlockingIOError:
            return
        except OSError:
            piece = b""
        if not piece:
            self.ended = True
        elif self.rule.mode == "drop":
            self.rule.dropped += len(piece)
        else:
            self.held += len(piece)
            self.waiting.append((now + self.rule.delay, memoryview(piece)))

    def push(self, now):
        """Carry what is due; whether there may be more to carry, ever."""
        while self.waiting and not self.full and self.rule.mode != "stall" and self.waiting[0][0] <= now:
            due, piece = self.waiting.popleft()
            try:
                sent = self.target.send(piece)
            except BlockingIOError:
                sent = 0
            except OSError:
                return False
            self.held -= sent
            self.rule.carried += sent
            if sent < len(piece):
                self.waiting.appendleft((due, piece[sent:]))
                self.full = True
        return bool(self.waiting) or not self.ended

    def due(self):
        """When there will be something to do."""
        is_held_up = self.full or self.rule.mode == "stall" or not self.waiting
        return float("inf") if is_held_up else self.waiting[0][0]


class Served:
    """A line, its listening socket and its connections."""

    def __init__(self, line):
        self.line = line
        self.rules = {way: Rule() for way in WAYS}
        self.connections = []
        self.listener = None

    def listen(self):
        with network_of(self.line.pid):
            self.listener = socket.create_server(self.line.listen)
        self.listener.setblocking(False)

    def accept(self):
        """Another connection, whose other half is being made; None if it is gone."""
        try:
            near, _ = self.listener.accept()
        except OSError:
            return None
        with network_of(self.line.pid):
            far = socket.socket()
        for sock in (near, far):
            sock.setblocking(False)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        with contextlib.suppress(BlockingIOError):
            far.connect(self.line.connect)
        self.connections.append(Connection(self, near, far))
        return self.connections[-1]


class Connection:
    """Two sockets, and the ways between them."""

    def __init__(self, served, near, far):
        self.served = served
        self.sockets = (near, far)
        self.awaited = [0, 0]  # events of each
        there, back = (served.rules[way] for way in WAYS)
        self.ways = (Way(there, near, far), Way(back, far, near))


class Loop:
    """All lines, on one epoll."""

    def __init__(self, lines):
        self.served = [Served(line) for line in lines]
        self.epoll = select.epoll()
        self.listeners = {}  # by descriptor
        self.ends = {}  # a connection, and which of its sockets, by descriptor
        self.busy = set()  # connections in which bytes wait
        for served in self.served:
            self._listen(served)
        self.epoll.register(sys.stdin, select.EPOLLIN)

    def run(self):
        """Until nobody gives orders any longer."""
        while True:
            now = time.monotonic()
            due = min((way.due() for connection in self.busy for way in connection.ways), default=now + 1)
            for fd, events in self.epoll.poll(min(max(due - now, 0.0), 1.0)):
                if fd == sys.stdin.fileno():
                    if not (line := sys.stdin.readline()):
                        return
                    self._obey(json.loads(line))
                elif fd in self.listeners:
                    self._accept(self.listeners[fd])
                elif fd in self.ends:
                    self._serve(*self.ends[fd], events)
            now = time.monotonic()
            for connection in [each for each in self.busy if min(way.due() for way in each.ways) <= now]:
                self._go_on(connection, now)

    def _listen(self, served):
        served.listen()
        self.listeners[served.listener.fileno()] = served
        self.epoll.register(served.listener, select.EPOLLIN)

    def _accept(self, served):
        connection = served.accept()
        if connection is not None:
            for end, sock in enumerate(connection.sockets):
                self.ends[sock.fileno()] = (connection, end)
            self._await(connection)

    def _serve(self, connection, end, events):
        """A socket has bytes, or takes some again."""
        now = time.monotonic()
        if events & select.EPOLLOUT:
            connection.ways[1 - end].full = False
        if events & ~select.EPOLLOUT and connection.ways[end].wants:
            connection.ways[end].take(now)
        self._go_on(connection, now)

    def _go_on(self, connection, now):
        """Carry what is due, and see what comes next."""
        there, back = connection.ways
        if not (there.push(now) and back.push(now)):
            self._close(connection)
            return
        if there.held or back.held:
            self.busy.add(connection)
        else:
            self.busy.discard(connection)
        self._await(connection)

    def _await(self, connection):
        """Wait for what matters; a socket of which nothing is awaited would tell its end again and again."""
        for end, sock in enumerate(connection.sockets):
            out, into = connection.ways[end], connection.ways[1 - end]
            wanted = (select.EPOLLIN if out.wants else 0) | (select.EPOLLOUT if into.full else 0)
            before, connection.awaited[end] = connection.awaited[end], wanted
            if before and not wanted:
                self.epoll.unregister(sock)
            elif wanted and not before:
                self.epoll.register(sock, wanted)
            elif wanted != before:
                self.epoll.modify(sock, wanted)

    def _close(self, connection):
        connection.served.connections.remove(connection)
        self.busy.discard(connection)
        for sock in connection.sockets:
            del self.ends[sock.fileno()]
            sock.close()

    def _obey(self, order):
        for at in order["lines"]:
            self._change(self.served[at], order["ways"], order["changes"])
        carried = [[served.rules[way].carried for way in WAYS] for served in self.served]
        print(json.dumps(carried), flush=True)

    def _change(self, served, ways, changes):
        rules = served.rules.values()
        for way in ways:
            vars(served.rules[way]).update(changes)
        is_cut = any(rule.mode == "cut" for rule in rules)
        if is_cut or any(rule.dropped and rule.mode != "drop" for rule in rules):
            for rule in rules:
                rule.dropped = 0
            for connection in list(served.connections):
                self._close(connection)
        if is_cut and served.listener is not None:
            del self.listeners[served.listener.fileno()]
            served.listener.close()
            served.listener = None
        elif not is_cut and served.listener is None:
            self._listen(served)


@contextlib.contextmanager
def network_of(pid):
    """Be in the network of a process meanwhile."""
    with open("/proc/self/ns/net") as before, open(f"/proc/{pid}/ns/net") as there:
        enter(there)
        try:
            yield
        finally:
            enter(before)


def enter(namespace):
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.setns(namespace.fileno(), CLONE_NEWNET) != 0:
        raise OSError(ctypes.get_errno(), "setns")


if __name__ == "__main__":
    told = [Line(*rest, tuple(listen), tuple(connect)) for *rest, listen, connect in json.loads(sys.argv[1])]
    Loop(told).run()
