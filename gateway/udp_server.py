"""The UDP sockets of a gateway: a batch in, one kernel call, frames to the shards, a batch out."""

from __future__ import annotations

import os
import select
from time import monotonic_ns, time
from typing import TYPE_CHECKING

from common.histogram import Histogram

if TYPE_CHECKING:
    import socket
    from asyncio import AbstractEventLoop
    from collections.abc import Callable

    from common.batch_io import Batch
    from gateway.router import Router
    from gateway.udp_codec import UdpCodec


RECEIVES = 4  # batches that a socket may have in a turn of the loop
BUSY = 32  # datagrams of a batch after which more are likely to wait


class UdpServer:
    """Answers datagrams on `sockets`; the codec and the batch are made for them, in this order.

    window: seconds of a connection ids' window. wall: the wall clock, which all gateways share.
    """

    def __init__(
        self,
        sockets: list[socket.socket],
        batch: Batch,
        codec: UdpCodec,
        router: Router,
        window: int,
        wall: Callable[[], float] = time,
    ) -> None:
        self.sockets = sockets
        self.batch = batch
        self.codec = codec
        self.router = router
        self.window = window
        self.wall = wall
        self.batch_sizes = Histogram()
        self.turns = Histogram()  # microseconds
        self.unsent = 0
        self.watches: list[select.epoll] = []
        self.inodes = {os.fstat(sock.fileno()).st_ino for sock in sockets}

    def start(self, loop: AbstractEventLoop) -> None:
        """Begin to read."""
        for index, sock in enumerate(self.sockets):
            # The loop watches a set of one, which the socket can leave at the cost of a system call.
            watch = select.epoll()
            watch.register(sock.fileno(), select.EPOLLIN)
            self.watches.append(watch)
            loop.add_reader(watch.fileno(), self.on_ready, index)

    def stop(self, loop: AbstractEventLoop) -> None:
        """Stop reading; what is queued in the sockets stays there for who has them next."""
        for watch in self.watches:
            loop.remove_reader(watch.fileno())
            watch.close()
        self.watches.clear()

    def on_ready(self, index: int) -> None:
        """Answer what waits at a socket, unwatched meanwhile: the kernel would wake a watcher for each answer sent."""
        watch = self.watches[index]
        watch.unregister(self.sockets[index].fileno())
        try:
            self.on_readable(index)
        finally:
            watch.register(self.sockets[index].fileno(), select.EPOLLIN)

    def on_readable(self, index: int) -> None:
        """Answer what waits at a socket, and under load what came meanwhile: that saves turns of the loop."""
        began = monotonic_ns()
        for _ in range(RECEIVES):
            many = self.batch.receive(index, self.sockets[index])
            if many == 0:
                break
            self.answer(index, many)
            if many < BUSY:
                break
        self.turns.add((monotonic_ns() - began) // 1000 + 1)

    def answer(self, index: int, many: int) -> None:
        """Answer the datagrams that were received."""
        self.batch_sizes.add(many)
        now = monotonic_ns() // 1000
        window = int(self.wall()) // self.window
        done = 0
        while done < many:
            try:
                done = self.codec.decode(index, done, many, now, window)
                self.router.dispatch()
            finally:
                self.flush()  # also what was queued before a failure: the next batch takes its memory

    def flush(self) -> None:
        """Send the answers that are queued."""
        for index, sock in enumerate(self.sockets):
            if many := self.codec.take_pending(index):
                self.unsent += self.batch.send(index, sock, many)

    def send_answers(self) -> None:
        """Send answers to replies that came by themselves; sockets are unwatched meanwhile, see `on_ready`."""
        for index, sock in enumerate(self.sockets):
            if many := self.codec.take_pending(index):
                watch = self.watches[index] if self.watches else None
                if watch is not None:
                    watch.unregister(sock.fileno())
                try:
                    self.unsent += self.batch.send(index, sock, many)
                finally:
                    if watch is not None:
                        watch.register(sock.fileno(), select.EPOLLIN)

    def tick(self) -> None:
        """Give up scrapes whose parts do not come; to be called every second."""
        self.codec.expire_gathers(monotonic_ns() // 1000)
