"""A process's links to shards, on the event loop: what is sent and what comes back, new sockets to who is silent."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import zmq

from common import links
from common.batch_io import address_of, allocate
from common.life import milliseconds

if TYPE_CHECKING:
    from asyncio import AbstractEventLoop
    from collections.abc import Callable, Iterable

    from common.link_state import LinkState
    from common.links import Context, KeyPair, Socket

log = logging.getLogger(__name__)

TICK = 0.1  # seconds between two looks at what is due


class LinkSockets:
    """DEALER sockets to shards, by their names.

    take: is given each frame that came and from which shard; the frame is valid until it returns.
    """

    def __init__(
        self,
        context: Context,
        mine: KeyPair | None,
        take: Callable[[str, memoryview, int], None],
    ) -> None:
        self.context = context
        self.mine = mine
        self.take = take
        self.addresses: dict[str, tuple[str, bytes]] = {}
        self.states: dict[str, LinkState] = {}
        self.buffer = allocate(links.LONGEST_REPLIES)
        self.address = address_of(self.buffer)  # where frames lie that are given to `take`
        self.watched: dict[str, links.Watched] = {}
        self.loop: AbstractEventLoop | None = None
        self.reconnections = 0

    def set_shards(self, addresses: dict[str, tuple[str, bytes]], states: dict[str, LinkState]) -> None:
        """Have links to these shards and no others: where each is, its public key, and what is known of it."""
        before, self.addresses, self.states = self.addresses, addresses, states
        if self.loop is None:
            return
        for name in [name for name in self.watched if addresses.get(name) != before.get(name)]:
            self.watched.pop(name).close()
        self._connect_all(self.loop)

    def start(self, loop: AbstractEventLoop) -> None:
        """Connect to all."""
        self.loop = loop
        self._connect_all(loop)

    def tick(self, now: int) -> None:
        """A new socket to who is silent for long; to be called every TICK."""
        for name, state in self.states.items():
            if state.connection_due(now):
                self._reconnect(name)

    def send(self, name: str, frame: bytes | memoryview) -> bool:
        """Send a frame to a shard; whether there was somebody to take it."""
        watched = self.watched.get(name)
        if watched is None:
            return False
        try:
            watched.sock.send(frame, links.NOBLOCK)
        except zmq.Again:
            return False
        finally:
            watched.check()
        return True

    def send_all(self, out: Iterable[tuple[str, bytes]]) -> None:
        """Send frames to shards. Nobody there is no news: what answers them will not come."""
        for name, frame in out:
            self.send(name, frame)

    def close(self) -> None:
        """Close all links."""
        for watched in self.watched.values():
            watched.close()
        self.watched = {}

    def _connect_all(self, loop: AbstractEventLoop) -> None:
        for name in self.addresses:
            if name not in self.watched:
                self._connect(loop, name)

    def _reconnect(self, name: str) -> None:
        """A new socket to a shard; the old one stays if there is no room for another."""
        old = self.watched.get(name)
        if self.loop is not None and self._connect(self.loop, name):
            self.reconnections += 1
            if old is not None:
                old.close()

    def _connect(self, loop: AbstractEventLoop, name: str) -> bool:
        """Make a link; False if that cannot be: it is tried again as one to a silent shard."""
        address, theirs = self.addresses[name]
        try:
            sock = links.connect(self.context, address, self.mine, theirs)
        except zmq.ZMQError as error:
            log.warning("no link to %s at %s: %s", name, address, zmq.strerror(error.errno or 0))
            return False
        self.watched[name] = links.Watched(loop, sock, lambda: self._receive(name, sock))
        return True

    def _receive(self, name: str, sock: Socket) -> bool:
        if sock.closed or not links.is_readable(sock):
            return False
        length = links.receive_into(sock, self.buffer)
        self.take(name, self.buffer[:length], milliseconds())
        return True
