"""A shard's side of all links: one ROUTER socket on the event loop, frames in, frames out."""

from __future__ import annotations

import logging
from time import thread_time_ns
from typing import TYPE_CHECKING

import zmq

from common import frames, links
from common.batch_io import allocate
from common.histogram import Histogram
from common.life import milliseconds

if TYPE_CHECKING:
    from asyncio import AbstractEventLoop
    from collections.abc import Iterable

    from common.links import Context, KeyPair
    from shard.machine import ShardMachine

log = logging.getLogger(__name__)


class LinkServer:
    """Hears all links at `address`. `known`: public keys that are let in. Raises links.LinkError."""

    def __init__(
        self, context: Context, address: str, mine: KeyPair | None, known: Iterable[bytes], machine: ShardMachine
    ) -> None:
        self.machine = machine
        self.sock = links.prepare(context, mine if links.is_encrypted(address) else None)
        self.address = address
        self.known = known
        self.buffer = allocate(links.LONGEST_RECORDS)
        self.frame_sizes = Histogram()  # bytes
        self.unsent = 0
        self.longest_pull = 0  # nanoseconds of processor time of the longest answer to a PULL
        self.watched: links.Watched | None = None
        self.doorman: links.Doorman | None = None

    def start(self, loop: AbstractEventLoop) -> None:
        """Begin to listen. Raises links.LinkError."""
        self.doorman = links.Doorman(loop, self.sock, self.known)
        links.bind(self.sock, self.address)
        self.watched = links.Watched(loop, self.sock, self._receive)

    def admit(self, known: Iterable[bytes]) -> None:
        """Let these public keys in from now on, and no others."""
        self.known = known
        if self.doorman is not None:
            self.doorman.known = frozenset(known)

    def close(self) -> None:
        """Close all links."""
        if self.doorman is not None:
            self.doorman.close()
        if self.watched is not None:
            self.watched.close()

    def _receive(self) -> bool:
        sock = self.sock
        if not links.is_readable(sock):
            return False
        sender = sock.recv(links.NOBLOCK)
        length = links.receive_into(sock, self.buffer)  # all parts of a message come at once
        while sock.get(links.MORE_PARTS):  # no frame has more than one
            sock.recv(links.NOBLOCK)
            length = 0
        now = milliseconds()
        if self.machine.beat(now):
            log.warning("the process had stood still: what was sent to it meanwhile is not taken")
        self.frame_sizes.add(length or 1)
        answer = self._take(sender, self.buffer[:length], now)
        if answer is not None:
            self._send(sender, answer)
        return True

    def _take(self, sender: bytes, frame: memoryview, now: int) -> bytes | memoryview | None:
        if len(frame) < frames.HEADER or frame[frames.AT_KIND] != frames.PULL:
            return self.machine.take(sender, frame, now)
        began = thread_time_ns()
        answer = self.machine.take(sender, frame, now)
        self.longest_pull = max(self.longest_pull, thread_time_ns() - began)
        return answer

    def _send(self, sender: bytes, answer: bytes | memoryview) -> None:
        try:
            self.sock.send(sender, links.MORE_NOBLOCK)
            self.sock.send(answer, links.NOBLOCK)
        except zmq.ZMQError:  # it is gone, or takes nothing
            self.unsent += 1
