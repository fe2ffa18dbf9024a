"""ZeroMQ sockets between processes: addresses, CURVE, who is admitted, and how they sit on the event loop.

Shards bind a ROUTER, all others connect a DEALER to it. `ipc://` is in clear: the socket's directory lets nobody
else in. `tcp://` is encrypted by CURVE if the configuration has keys: each side knows the other's public key, and a
shard admits only keys of the configuration (ZAP, ZeroMQ RFC 27). A stranger gets nothing, and is counted.
"""

from __future__ import annotations

import contextlib
import logging
import struct
from typing import TYPE_CHECKING, NamedTuple, TypeAlias

import zmq
from zmq.auth.base import Authenticator
from zmq.utils import z85

from common.link_state import WINDOW
from common.values import LinkAddress, PublicKey, UnfitError

if TYPE_CHECKING:
    from asyncio import AbstractEventLoop, Handle
    from collections.abc import Callable, Iterable

    from common.config import Config
    from common.keys import NodeKey

Socket: TypeAlias = "zmq.Socket[bytes]"
Context: TypeAlias = "zmq.Context[zmq.Socket[bytes]]"

HANDSHAKE = 5000  # ms that one may take
LONGEST_RECORDS = 1 << 20  # bytes of a message to a shard
LONGEST_REPLIES = 8 << 20  # and from it
QUEUED = 2 * WINDOW + 16  # messages of a link: more than the window lets be unanswered, pings included
MOST = 16  # messages taken in a turn of the loop: each may have a thousand records
MOST_EVENTS = 256  # the same of what strangers cause, which is small
EVENT = struct.Struct("<HI")  # kind and value
# Plain numbers: the flags of pyzmq are enums, whose sums and tests cost as much as a small message.
NOBLOCK = int(zmq.NOBLOCK)
MORE_NOBLOCK = int(zmq.SNDMORE | zmq.NOBLOCK)
MORE_PARTS = int(zmq.RCVMORE)
STATE = int(zmq.EVENTS)
READABLE = int(zmq.POLLIN)
EVENTS = int(
    zmq.Event.ACCEPTED
    | zmq.Event.DISCONNECTED
    | zmq.Event.HANDSHAKE_SUCCEEDED
    | zmq.Event.HANDSHAKE_FAILED_NO_DETAIL
    | zmq.Event.HANDSHAKE_FAILED_PROTOCOL
    | zmq.Event.HANDSHAKE_FAILED_AUTH
)


class LinkError(Exception):
    """A link's address cannot be listened on; the text names it and says why."""


class KeyPair(NamedTuple):
    """A CURVE key pair in Z85."""

    public: bytes
    secret: bytes


def key_pair(key: NodeKey | None) -> KeyPair | None:
    """A node's key, as libzmq takes it."""
    return KeyPair(key.public.encode(), key.secret.encode()) if key else None


def addresses(config: Config) -> dict[str, tuple[str, bytes]]:
    """By name, where each shard is, and its node's public key."""
    public = {str(node.name): (node.key or "").encode() for node in config.nodes}
    return {str(shard.name): (config.link_of(shard), public.get(config.node_of(shard), b"")) for shard in config.shards}


def known_keys(config: Config) -> list[bytes]:
    """The public keys that are let in."""
    return [node.key.encode() for node in config.nodes if node.key]


def is_encrypted(address: str) -> bool:
    """Whether keys are used on a link, if there are keys."""
    return address.startswith("tcp://")


def read_address(place: dict[str, object], *, keyed: bool) -> tuple[str, bytes] | None:
    """Where a shard is and its public key, as it says in its pings; None if nobody could be there. keyed: whether links
    between machines have keys."""
    link, key = place.get("link"), place.get("key")
    try:
        address = LinkAddress.read(link)
        public = PublicKey.read(key).encode() if key else b""
        z85.decode(public)
    except (UnfitError, ValueError, struct.error):
        return None
    return None if keyed and is_encrypted(address) and not public else (address, public)


def connect(context: Context, address: str, mine: KeyPair | None, theirs: bytes) -> Socket:
    """A link to the shard at an address, whose public key is `theirs`."""
    sock = _socket(context, zmq.DEALER, LONGEST_REPLIES)
    sock.immediate = 1  # nothing is queued for who is not there
    sock.reconnect_ivl_max = 1000
    if mine is not None and is_encrypted(address):
        sock.curve_publickey, sock.curve_secretkey = mine
        sock.curve_serverkey = theirs
    sock.connect(address)
    return sock


def prepare(context: Context, mine: KeyPair | None) -> Socket:
    """The socket on which a shard will hear others; with keys it is encrypted."""
    sock = _socket(context, zmq.ROUTER, LONGEST_RECORDS)
    sock.backlog = 1024
    sock.router_mandatory = True  # who sends to one that is gone is told so
    if mine is not None:
        sock.curve_publickey, sock.curve_secretkey = mine
        sock.curve_server = True
    return sock


def bind(sock: Socket, address: str) -> None:
    """Begin to listen. Raises LinkError."""
    try:
        sock.bind(address)
    except zmq.ZMQError as error:
        raise LinkError(f"cannot listen on {address}: {zmq.strerror(error.errno or 0)}") from None


def _socket(context: Context, kind: int, longest: int) -> Socket:
    sock = context.socket(kind)
    sock.linger = 0
    sock.ipv6 = True
    sock.handshake_ivl = HANDSHAKE
    sock.maxmsgsize = longest
    sock.sndhwm = sock.rcvhwm = QUEUED
    sock.tcp_keepalive = 1  # a machine that vanished is noticed even if nothing is sent to it
    sock.tcp_keepalive_idle, sock.tcp_keepalive_intvl, sock.tcp_keepalive_cnt = 30, 10, 3
    return sock


class Watched:
    """A socket on the event loop. `take` takes one message, and returns False when there is none.

    ZeroMQ's file descriptor tells only that something changed; so all that is there is taken, and who sends must
    `check` afterwards, as sending may have eaten the change.
    """

    def __init__(self, loop: AbstractEventLoop, sock: Socket, take: Callable[[], bool], most: int = MOST) -> None:
        self.loop = loop
        self.most = most
        self.sock = sock
        self.take = take
        self.fd = int(sock.getsockopt(zmq.FD))
        self.scheduled: Handle | None = None
        loop.add_reader(self.fd, self.on_ready)
        self.check()

    def on_ready(self) -> None:
        """Take what is there; the rest in the next turn."""
        try:
            for _ in range(self.most):
                if not self.take():
                    return
        except Exception:
            self.check()  # nothing else would tell of what waits behind it
            raise
        self.check()

    def check(self) -> None:
        """See to it that what waits is taken."""
        if self.scheduled is None and is_readable(self.sock):
            self.scheduled = self.loop.call_soon(self._on_turn)

    def _on_turn(self) -> None:
        self.scheduled = None
        self.on_ready()

    def close(self) -> None:
        """Close the socket."""
        self.loop.remove_reader(self.fd)
        if self.scheduled is not None:
            self.scheduled.cancel()
        self.sock.close()


class Doorman:
    """Lets in those whose key is in the configuration, and counts all others that knock at `sock`.

    refused, by reason. unknown_key: who has a key, but none that we know. handshake: who has none, or has ours wrong,
    or says nothing for 5 s. not_zeromq: whose first bytes are of no protocol that we know.
    """

    def __init__(self, loop: AbstractEventLoop, sock: Socket, known: Iterable[bytes]) -> None:
        self.known = frozenset(known)
        self.refused = dict.fromkeys(("unknown_key", "handshake", "not_zeromq"), 0)
        self.waiting: dict[int, None] = {}  # accepted connections whose handshake is not done, the oldest first
        self.has_failed = False  # the connection that is closed next
        self.door = sock
        self.monitor = Watched(loop, _monitor(sock), self._take_event, MOST_EVENTS)
        self.auth = Authenticator(sock.context, log=logging.getLogger("shoal.zap"))
        self.auth.configure_curve_callback("*", self)
        self.auth.start()
        assert self.auth.zap_socket is not None
        self.zap = Watched(loop, self.auth.zap_socket, self._take_request)

    def callback(self, _domain: str, key: bytes) -> bool:
        """Whether a client with this key is let in."""
        return key in self.known

    def _take_request(self) -> bool:
        request = receive_parts(self.zap.sock)
        if request is None:
            return False
        with contextlib.suppress(StopIteration):
            self.auth.handle_zap_message(request).send(None)  # it never waits, as `callback` does not
        return True

    def _take_event(self) -> bool:
        parts = receive_parts(self.monitor.sock)
        if parts is None:
            return False
        kind, value = EVENT.unpack(parts[0])
        if kind == zmq.Event.ACCEPTED:
            self.waiting[value] = None
        elif kind == zmq.Event.HANDSHAKE_SUCCEEDED:
            # It does not say whose: most likely of the one that came last, as who says nothing stays for long.
            if self.waiting:
                self.waiting.popitem()
        elif kind == zmq.Event.DISCONNECTED:
            if value in self.waiting:
                del self.waiting[value]
                self.refused["not_zeromq"] += not self.has_failed
            elif self.has_failed and self.waiting:
                self.waiting.popitem()  # it was another's that was done
            self.has_failed = False
        else:
            self.has_failed = True
            self.refused["unknown_key" if kind == zmq.Event.HANDSHAKE_FAILED_AUTH else "handshake"] += 1
        return True

    def close(self) -> None:
        """Let nobody in any longer."""
        self.door.disable_monitor()
        self.monitor.close()
        self.zap.close()


def _monitor(sock: Socket) -> Socket:
    """What happens to a socket's connections, as messages.

    Their number has no limit: libzmq's one I/O thread would wait for us otherwise, and with it all links.
    """
    address = f"inproc://monitor-{id(sock)}"
    sock.monitor(address, EVENTS)
    monitor: Socket = sock.context.socket(zmq.PAIR)
    monitor.linger = 0
    monitor.rcvhwm = 0
    monitor.connect(address)
    return monitor


def receive_parts(sock: Socket) -> list[bytes] | None:
    """A message of several parts, if one is there."""
    try:
        return sock.recv_multipart(NOBLOCK)
    except zmq.Again:
        return None


def is_readable(sock: Socket) -> bool:
    """Whether a message waits."""
    return sock.get(STATE) & READABLE != 0  # type: ignore[operator]  # this option is a number


def receive_into(sock: Socket, buffer: memoryview) -> int:
    """Take the next part of a message that waits; its length. One that is too long counts as empty."""
    length = sock.recv_into(buffer, flags=NOBLOCK)
    return length if length <= len(buffer) else 0
