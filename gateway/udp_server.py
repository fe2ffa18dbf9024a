"""The UDP sockets of a gateway: a batch in, one kernel call, frames to the shards, a batch out."""

from __future__ import annotations

import os
import select
from time import monotonic_ns, time
from typing import TYPE_CHECKING

from common.histogram import Histogram

if TYPE_CHECKING:
    import socket
    from asyncio import AbstractEventLoop, TimerHandle
    from collections.abc import Callable

    from common.batch_io import Batch
    from gateway.router import Router
    from gateway.udp_codec import UdpCodec


RECEIVES = 4  # batches that a socket may have in a turn of the loop
LONGEST_REST = 0.005  # seconds, if no shard answers
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
        # Whether all shards have enough to do, if so many datagrams came last.
        self.busy: Callable[[int], bool] = lambda _: False
        self.many = 0  # datagrams of the last batch
        self.wakes = 0  # how often sockets that rested were read
        self.resting: dict[int, None] = {}  # sockets that are not read until a shard has less to do
        self.loop: AbstractEventLoop | None = None
        self.alarm: TimerHandle | None = None
        self.watches: list[select.epoll] = []
        self.inodes = {os.fstat(sock.fileno()).st_ino for sock in sockets}

    def start(self, loop: AbstractEventLoop) -> None:
        """Begin to read."""
        self.loop = loop
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
        self.resting.clear()
        if self.alarm is not None:
            self.alarm.cancel()

    def on_ready(self, index: int) -> None:
        """Answer what waits at a socket, unwatched meanwhile: the kernel would wake a watcher for each answer sent."""
        self.watches[index].unregister(self.sockets[index].fileno())
        self.read(index)

    def read(self, index: int) -> None:
        """Answer what waits at an unwatched socket; then it is watched, or rests."""
        try:
            self.on_readable(index)
        finally:
            if self.busy(self.many):
                self.rest(index)
            else:
                self.watches[index].register(self.sockets[index].fileno(), select.EPOLLIN)

    def rest(self, index: int) -> None:
        """Let datagrams gather in a socket: a larger batch a little later costs less than two now."""
        self.resting[index] = None
        if self.alarm is None and self.loop is not None:
            self.alarm = self.loop.call_later(LONGEST_REST, self.on_alarm, self.wakes)

    def on_alarm(self, wakes: int) -> None:
        """See whether sockets have rested since the alarm was set, without an answer of any shard."""
        self.alarm = None
        if self.resting and wakes == self.wakes:
            self.wake()
        elif self.resting and self.loop is not None:
            self.alarm = self.loop.call_later(LONGEST_REST, self.on_alarm, self.wakes)

    def wake(self) -> None:
        """Read sockets that rest, the longest first, until shards are busy again."""
        self.wakes += 1
        for index in list(self.resting):
            del self.resting[index]
            self.read(index)
            if self.busy(self.many):
                break

    def on_readable(self, index: int) -> None:
        """Answer what waits at a socket, and under load what came meanwhile: that saves turns of the loop."""
        began = monotonic_ns()
        for _ in range(RECEIVES):
            many = self.batch.receive(index, self.sockets[index])
            if many == 0:
                break
            self.many = many
            self.answer(index, many)
            if many < BUSY or self.busy(self.many):
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
        """Send answers to replies that came by themselves; then a shard may have less to do."""
        for index, sock in enumerate(self.sockets):
            if many := self.codec.take_pending(index):
                self.send_unwatched(index, sock, many)
        if self.resting and not self.busy(self.many):
            self.wake()

    def send_unwatched(self, index: int, sock: socket.socket, many: int) -> None:
        """Send answers by a socket, unwatched meanwhile as in `on_ready`."""
        watched = bool(self.watches) and index not in self.resting
        if watched:
            self.watches[index].unregister(sock.fileno())
        try:
            self.unsent += self.batch.send(index, sock, many)
        finally:
            if watched:
                self.watches[index].register(sock.fileno(), select.EPOLLIN)

    def tick(self) -> None:
        """Give up scrapes whose parts do not come; to be called every second."""
        self.codec.expire_gathers(monotonic_ns() // 1000)
