"""HTTP's fast lane: announces and scrapes by the batch; whatever else comes is handed to the web application.

A turn: what epoll names is accepted and read (connections.py), the rows become records (http_codec.py), the
router's replies become answers, the answers are sent. Replies of a shard on another machine come later, in a turn
of their own. Python sees a connection only when something is left over: half a head, bytes of a next request, an
answer that the client does not take, a client that has ended its side, another path.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
import select
from time import monotonic, monotonic_ns
from typing import TYPE_CHECKING

from common.histogram import Histogram
from gateway import http_codec, http_texts
from gateway import http_places as places

if TYPE_CHECKING:
    import socket
    from asyncio import AbstractEventLoop, Future
    from collections.abc import Callable

    from gateway.connections import Connections
    from gateway.http_codec import HttpCodec
    from gateway.router import Router

log = logging.getLogger(__name__)

ROUNDS = 4  # batches in a turn of the loop
BUSY = 8  # connections of a batch after which more are likely to wait
EVENTS = 512
ACCEPTS = 128  # connections accepted before those that are open are heard again
KEPT = 64 << 10  # bytes of requests behind the one that waits
READ, WRITE = select.EPOLLIN | select.EPOLLRDHUP, select.EPOLLOUT


class HttpServer:
    """Serves `listeners`. `hand_over` is given a connection that asks for another path, what it has sent and
    its client's address."""

    def __init__(
        self,
        listeners: list[socket.socket],
        connections: Connections,
        codec: HttpCodec,
        router: Router,
        hand_over: Callable[[int, bytes, tuple[int, int]], None],
        clock: Callable[[], float] = monotonic,
    ) -> None:
        self.connections = connections
        self.codec = codec
        self.router = router
        self.hand_over = hand_over
        self.clock = clock
        self.listening = {sock.fileno(): index for index, sock in enumerate(listeners)}
        self.epoll = select.epoll()
        self.kept: dict[int, bytes] = {}  # by place: half a head, or what came behind a request
        self.again: list[int] = []  # places whose kept bytes may be a request now
        self.backlog: dict[int, tuple[bytes, int]] = {}  # by place: what the client has not taken yet
        self.inner: dict[int, Future[bytes]] = {}  # by place: requests of the web application
        self.paused: set[int] = set()  # listeners, while the system has no room for connections
        self.batch_sizes = Histogram()
        self.turns = Histogram()  # microseconds
        self.slow = 0
        self.flooded = 0
        self.no_room = 0
        self.loop: AbstractEventLoop | None = None  # while it serves

    def start(self, loop: AbstractEventLoop) -> None:
        """Begin to accept."""
        self.loop = loop
        for fd in self.listening:
            self.epoll.register(fd, select.EPOLLIN)
        loop.add_reader(self.epoll.fileno(), self.on_ready)

    def pause(self) -> None:
        """Accept and read nothing more, close connections that wait for nothing: from now on there are answers only.

        What was sent to us before is read; what is queued in the listening sockets stays there for who has them next.
        """
        for fd in self.listening.keys() - self.paused:
            self.epoll.unregister(fd)
        self.listening.clear()
        self.paused.clear()
        self.on_ready()
        for place in self.connections.everywhere():
            state, _, _, watched = self.connections.look(place)
            if state == places.READING:
                self.drop(place)
            elif state != places.DRAINING:
                self.connections.end(place)
                if watched:
                    self.watch(place)

    def under_way(self) -> int:
        """How many requests are not answered yet, or their answers not taken."""
        return self.connections.under_way()

    async def finish(self, deadline: float) -> None:
        """After a pause: let clients have their answers, until that time of the loop."""
        while self.under_way() and asyncio.get_running_loop().time() < deadline:
            await asyncio.sleep(0.01)

    def stop(self, loop: AbstractEventLoop) -> None:
        """Close all connections."""
        self.loop = None
        loop.remove_reader(self.epoll.fileno())
        for place in self.connections.everywhere():
            self.connections.close(place)
        for future in self.inner.values():
            future.cancel()
        self.epoll.close()

    def seconds(self) -> int:
        """The connections' clock."""
        return int(self.clock()) + 1

    # A turn

    def on_ready(self) -> None:
        """Serve those that epoll names, and under load those that came meanwhile."""
        began = monotonic_ns()
        for _ in range(ROUNDS):
            events = self.epoll.poll(0, EVENTS)
            if not events:
                break
            self.batch_sizes.add(len(events))
            self.hear(events)
            if len(events) < BUSY and not self.connections.knocks:
                break
        self.turns.add((monotonic_ns() - began) // 1000 + 1)

    def hear(self, events: list[tuple[int, int]]) -> None:
        """Accept, read and answer."""
        seconds = self.seconds()
        done = 0
        while done < len(events):
            done = self.connections.read(events, done)
            self.serve(seconds)
        if self.connections.knocks:
            for fd, _ in events:
                if fd in self.listening:
                    self.accept(fd, seconds)

    def accept(self, fd: int, seconds: int) -> None:
        """Accept some connections, and answer what they ask."""
        try:
            self.connections.accept(self.listening[fd], ACCEPTS, seconds)
        except OSError as error:
            self.no_room += 1
            log.warning("no connection can be accepted: %s", error.strerror)
            self.paused.add(fd)  # or the loop would spin
            self.epoll.unregister(fd)
        self.serve(seconds)

    def serve(self, seconds: int) -> None:
        """Deal with the rows, and with requests that were kept until their turn came."""
        for place in self.connections.take_gone():
            self.kept.pop(place, None)
            self.backlog.pop(place, None)
        while self.connections.rows or self.again:
            tails: dict[int, bytes] = {}  # by place: what was kept behind the row that is tried again
            while self.again and self.connections.room():
                place = self.again.pop()
                if self.connections.look(place)[0] == places.READING:
                    if place in self.kept:
                        tails[place] = self.resubmit(place)
                    elif place not in tails and self.connections.has_ended(place):
                        self.drop(place)
            try:
                others = self.serve_rows(seconds, tails)
            finally:
                self.connections.clear()  # also what a failure left: it must not be asked twice
                self.connections.forget_answers()
            for place, data in others:
                self.give_away(place, data)
            for place, tail in tails.items():
                if tail and place not in self.kept and self.connections.look(place)[0] != places.FREE:
                    self.keep(place, tail, seconds + places.HEAD_TIME)
                    self.again.append(place)

    def resubmit(self, place: int) -> bytes:
        """Let the first kept bytes be a row; returns the others."""
        kept = self.kept.pop(place)
        self.connections.hold(place, False)
        self.connections.put_row(place, kept[: places.ROW])
        return kept[places.ROW :]

    def serve_rows(self, seconds: int, tails: dict[int, bytes]) -> list[tuple[int, bytes]]:
        """From rows to answers; returns the connections that ask for other paths, and what they sent."""
        now = monotonic_ns() // 1000
        done = 0
        others: list[tuple[int, bytes]] = []
        while done < self.connections.rows:
            done = self.codec.decode(done, now, seconds)
            for row, kind, start in self.codec.take_specials() if self.codec.specials else ():
                place, data = self.connections.row(row)
                if place in self.inner:
                    self.inner.pop(place).set_result(http_texts.failure(http_texts.BAD_REQUEST, self.codec.interval))
                elif kind == http_codec.OTHER:
                    others.append((place, data + tails.pop(place, b"")))
                elif kind == http_codec.REST:
                    self.keep(place, data[start:] + tails.pop(place, b""))
                elif self.connections.has_ended(place) and data:
                    self.drop(place)  # the rest of this request will not come
                elif place in tails:
                    self.keep(place, data + tails.pop(place))
                else:
                    self.take_more(place, data, seconds)
            self.router.dispatch()
            self.flush(seconds)
        return others

    def flush(self, seconds: int) -> None:
        """Send the answers."""
        if not self.connections.answers:
            return
        try:
            for place, answer in self.connections.send(seconds):
                if answer == -1:
                    self.watch(place)
                elif answer == -2:
                    self.go_on(place, seconds)
                elif self.connections.look(place)[1] >= 0:
                    self.backlog[place] = self.connections.answer(answer)
                    self.connections.wait_to_write(place, seconds)
                    self.watch(place)
                elif (future := self.inner.pop(place, None)) is not None and not future.done():
                    future.set_result(self.connections.answer(answer)[0])
        finally:
            self.connections.forget_answers()  # also what a failure left

    def send_answers(self) -> None:
        """Send answers to replies that came by themselves, and serve what those clients asked next.

        To be called after each frame of replies: there is room for the answers of one.
        """
        if self.connections.answers:
            seconds = self.seconds()
            self.flush(seconds)
            self.serve(seconds)

    # What is left over

    def take_more(self, place: int, data: bytes, seconds: int) -> None:
        """More of a head, or of what comes behind a request; or nothing: the connection is to be watched."""
        state, _, held, watched = self.connections.look(place)
        if not data and state == places.WRITING:
            self.connections.put_answer(place, *self.backlog.pop(place))
        elif data:
            is_first = state == places.READING and not held
            self.keep(place, self.kept.pop(place, b"") + data, seconds + places.HEAD_TIME if is_first else 0)
            if state == places.READING and (b"\n" in data or len(self.kept.get(place, b"")) > places.HEAD):
                self.again.append(place)
        elif self.connections.has_ended(place):
            self.watch(place)  # no longer for its end, which epoll would name again and again
        if not watched and self.connections.look(place)[0] != places.FREE:
            self.watch(place)

    def keep(self, place: int, data: bytes, due: int = 0) -> None:
        """Keep bytes until the connection's next request is complete, and its turn has come.

        due: until when it must be, if that is not known yet: what comes later must not put it off.
        """
        if len(data) > KEPT:
            self.flooded += 1
            self.drop(place)
            return
        self.kept[place] = data
        self.connections.hold(place, True, due)

    def watch(self, place: int) -> None:
        """Have epoll name a connection when it can be read, unless it has ended, or if bytes are left, written to."""
        wanted = 0 if self.connections.has_ended(place) else READ
        if place in self.backlog:
            wanted |= WRITE
        known = self.connections.look(place)[3]
        fd = self.connections.watch(place)
        if known:
            self.epoll.modify(fd, wanted)
        else:
            self.epoll.register(fd, wanted)

    def go_on(self, place: int, seconds: int) -> None:
        """An answer was sent: what is kept may be the next request, unless that was the last one."""
        if self.connections.look(place)[0] == places.READING:
            if place in self.kept:
                self.connections.hold(place, True, seconds + places.HEAD_TIME)
            self.again.append(place)
        else:
            self.kept.pop(place, None)
            self.connections.hold(place, False)

    def drop(self, place: int) -> None:
        """Close a connection and forget what was kept of it."""
        self.kept.pop(place, None)
        self.backlog.pop(place, None)
        self.connections.close(place)

    def give_away(self, place: int, data: bytes) -> None:
        """Another path: the connection is the web application's from now on."""
        if self.connections.look(place)[3]:
            self.epoll.unregister(self.connections.look(place)[1])
        address = self.connections.address(place)
        self.hand_over(self.connections.detach(place), data, address)

    # Requests of the web application's connections

    def ask(self, head: bytes, address: tuple[int, int], future: Future[bytes]) -> None:
        """Answer a request as if it had come by a connection of ours: `future` gets the whole HTTP answer."""
        place = self.connections.open_inner(*address)
        if place < 0:
            future.set_result(http_texts.failure(http_texts.CROWD, 0))
            return
        self.inner[place] = future
        future.add_done_callback(lambda _: self.leave(place, future))
        try:
            self.connections.put_row(place, head[: places.ROW])  # what is longer is refused anyway
            self.serve(self.seconds())
        except BaseException:
            future.cancel()  # or its place would never be free again
            raise

    def leave(self, place: int, future: Future[bytes]) -> None:
        """The request of the web application was answered, or is not wanted any longer."""
        if self.inner.get(place, future) is future:
            self.inner.pop(place, None)
        self.connections.close_inner(place)

    def tick(self) -> None:
        """Give up what is late, close what is idle; to be called every second."""
        self.give_up_late()
        for place in self.connections.overdue(self.seconds()):
            state, _, held, _ = self.connections.look(place)
            if state != places.WAITING:  # one with an answer, too: a failure kept that from being sent
                self.slow += held or state == places.WRITING
                self.drop(place)
        for place, future in self.inner.items():
            if self.connections.look(place)[0] != places.WAITING:
                future.cancel()  # a failure kept its answer back; its connection ends, as others do then
        while self.paused:
            self.epoll.register(self.paused.pop(), select.EPOLLIN)

    def give_up_late(self) -> None:
        """Give up late requests; if there are many, the rest in later turns of the loop, so that others are heard."""
        seconds = self.seconds()
        many = self.codec.expire(seconds, secrets.randbits(64))
        self.flush(seconds)
        self.serve(seconds)
        if many and self.loop is not None:
            self.loop.call_soon(self.give_up_late)
