"""A process's links to shards, on the event loop: pings, new sockets to those that are silent, what comes back."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import zmq

from common import frames, links
from common.batch_io import address_of, allocate
from common.control import pack_hello
from common.life import milliseconds

if TYPE_CHECKING:
    from asyncio import AbstractEventLoop
    from collections.abc import Callable, Sequence

    from common.control import Hello
    from common.link_state import LinkState
    from common.links import Context, KeyPair, Socket

log = logging.getLogger(__name__)

TICK = 0.1  # seconds between two looks at what is due


class LinkSockets:
    """DEALER sockets to shards.

    addresses: where each shard is, and its public key. states: what is known of each. hello: what a ping says.
    take: is given each frame that came and from which shard; the frame is valid until it returns.
    """

    def __init__(
        self,
        context: Context,
        addresses: Sequence[tuple[str, bytes]],
        mine: KeyPair | None,
        states: Sequence[LinkState],
        hello: Callable[[int], Hello],
        take: Callable[[int, memoryview, int], None],
    ) -> None:
        self.context = context
        self.addresses = addresses
        self.mine = mine
        self.states = states
        self.hello = hello
        self.take = take
        self.buffer = allocate(links.LONGEST_REPLIES)
        self.address = address_of(self.buffer)  # where frames lie that are given to `take`
        self.watched: list[links.Watched] = []
        self.reconnections = 0

    def start(self, loop: AbstractEventLoop) -> None:
        """Connect to all."""
        self.watched = [self._connect(loop, index) for index in range(len(self.addresses))]

    def tick(self) -> None:
        """Send the pings that are due; to be called every TICK."""
        now = milliseconds()
        for index, state in enumerate(self.states):
            if state.connection_due(now):
                self._reconnect(index)
            if (number := state.ping_due(now)) is not None:
                # Nobody there is no news: the pong will not come.
                self.send(index, pack_hello(frames.PING, number, self.hello(now)))

    def send(self, index: int, frame: bytes | memoryview) -> bool:
        """Send a frame to a shard; whether there was somebody to take it."""
        watched = self.watched[index]
        try:
            watched.sock.send(frame, links.NOBLOCK)
        except zmq.Again:
            return False
        finally:
            watched.check()
        return True

    def close(self) -> None:
        """Close all links."""
        for watched in self.watched:
            watched.close()
        self.watched = []

    def _reconnect(self, index: int) -> None:
        """A new socket to a shard; the old one stays if there is no room for another."""
        old = self.watched[index]
        try:
            self.watched[index] = self._connect(old.loop, index)
        except zmq.ZMQError as error:
            log.warning("no new link to %s: %s", self.states[index].name, zmq.strerror(error.errno or 0))
            return
        self.reconnections += 1
        old.close()

    def _connect(self, loop: AbstractEventLoop, index: int) -> links.Watched:
        address, theirs = self.addresses[index]
        sock = links.connect(self.context, address, self.mine, theirs)
        return links.Watched(loop, sock, lambda: self._receive(index, sock))

    def _receive(self, index: int, sock: Socket) -> bool:
        if not links.is_readable(sock):
            return False
        length = links.receive_into(sock, self.buffer)
        self.take(index, self.buffer[:length], milliseconds())
        return True
