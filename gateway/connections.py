"""TCP connections by the batch: accepted, read, answered and closed a few hundred at a time.

Not a kernel: it makes system calls. But it is compiled as they are, as one connection wants four of them and a
call by way of Python costs as much as a small one itself. What is known of a connection lies in columns by its
place. States: FREE; READING a request; WAITING for a shard; ANSWERED, but the answer is not sent yet; WRITING, the
client does not take its answer; DRAINING, answered and shut, until the client's own end. A place may be without a
socket: its answers go to whoever opened it.

A client may end its side while it waits: nothing more is read then, and the connection is closed once all that it
asked is answered. A life is the time that a connection has a place: an answer of an earlier one is not sent.

A row is what was read from a connection at once; an answer is what is to be sent to one.
"""

import contextlib
import errno as errors
import socket

import cython

from gateway import http_places

if cython.compiled:
    from cython.cimports.gateway.sources import Sources
    from cython.cimports.gateway.system import accept4, close, recv, send, shutdown, sockaddr
    from cython.cimports.libc.errno import errno
else:
    from gateway.sources import Sources

u32 = cython.typedef(cython.uint)
u64 = cython.typedef(cython.ulonglong)
size = cython.typedef(cython.Py_ssize_t)
View = cython.typedef(cython.const[cython.uchar][::1])

IS_FREE = cython.declare(u32, http_places.FREE)
IS_READING = cython.declare(u32, http_places.READING)
IS_WAITING = cython.declare(u32, http_places.WAITING)
IS_ANSWERED = cython.declare(u32, http_places.ANSWERED)
IS_WRITING = cython.declare(u32, http_places.WRITING)
IS_DRAINING = cython.declare(u32, http_places.DRAINING)
TO_CLOSE = cython.declare(u32, http_places.CLOSE)
TO_DRAIN = cython.declare(u32, http_places.DRAIN)
LONGEST = cython.declare(size, http_places.ROW)
ROWS = cython.declare(size, http_places.ROWS)
INPUT = cython.declare(size, http_places.INPUT)
ANSWERS = cython.declare(size, http_places.ANSWERS)
OUTPUT = cython.declare(size, http_places.OUTPUT)
HEAD_SECONDS = cython.declare(u32, http_places.HEAD_TIME)
WRITE_SECONDS = cython.declare(u32, http_places.WRITE_TIME)
DRAIN_SECONDS = cython.declare(u32, http_places.DRAIN_TIME)
MAPPED = cython.declare(u64, 0xFFFF_0000)

MSG_DONTWAIT = cython.declare(cython.int, socket.MSG_DONTWAIT)
MSG_NOSIGNAL = cython.declare(cython.int, socket.MSG_NOSIGNAL)
OF_ACCEPTED = cython.declare(cython.int, socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK)
SHUT_WR = cython.declare(cython.int, socket.SHUT_WR)
EAGAIN = cython.declare(cython.int, errors.EAGAIN)
EINTR = cython.declare(cython.int, errors.EINTR)
NO_ROOM = (errors.EMFILE, errors.ENFILE, errors.ENOBUFS, errors.ENOMEM)


@cython.cclass
class Connections:
    """Places for `most` connections, of which a source may have `per_source`; idle ones are closed after `idle` s.

    allocate: gives memory, see common/batch_io.py. listeners: listening sockets.
    """

    def __init__(self, allocate, listeners, sources: Sources, most: size, per_source: u32, idle: u32):
        self.listeners = list(listeners)
        self.sources = sources
        self.most = most
        self.per_source = per_source
        self.idle = idle
        self.fds = memoryview(bytearray(4 * most)).cast("i")
        self.high = memoryview(bytearray(8 * most)).cast("Q")
        self.low = memoryview(bytearray(8 * most)).cast("Q")
        self.number = memoryview(bytearray(8 * most)).cast("Q")
        self.life = memoryview(bytearray(8 * most)).cast("Q")
        self.lives = 0
        self.due = memoryview(bytearray(4 * most)).cast("I")
        self.state = memoryview(bytearray(most))
        self.held = memoryview(bytearray(most))
        self.watched = memoryview(bytearray(most))
        self.ended = memoryview(bytearray(most))
        self.free = memoryview(bytearray(4 * most)).cast("I")
        for i in range(most):
            self.free[i] = most - 1 - i
        self.free_places = most
        self.place_of = memoryview(bytearray(4 * 1024)).cast("i")
        self.input = allocate(INPUT)
        self.row_place = memoryview(bytearray(4 * ROWS)).cast("I")
        self.row_at = memoryview(bytearray(4 * ROWS)).cast("I")
        self.row_length = memoryview(bytearray(4 * ROWS)).cast("I")
        self.rows = 0
        self.taken = 0
        self.knocks = 0
        self.output = allocate(OUTPUT)
        self.answer_place = memoryview(bytearray(4 * ANSWERS)).cast("I")
        self.answer_at = memoryview(bytearray(4 * ANSWERS)).cast("I")
        self.answer_length = memoryview(bytearray(4 * ANSWERS)).cast("I")
        self.answer_after = memoryview(bytearray(ANSWERS))
        self.answer_life = memoryview(bytearray(8 * ANSWERS)).cast("Q")
        self.answers = 0
        self.written = 0
        self.name = memoryview(bytearray(32))
        self.error = 0
        self.crowd = b""
        self.sockets = {}
        self.gone = []
        self.lost = 0
        self.over_all = 0
        self.over_source = 0
        self.accepted = 0

    # Doors

    def set_crowd_answer(self, answer: bytes) -> None:
        """What is told to those for whom there is no place."""
        self.crowd = answer

    def take_gone(self) -> list[int]:
        """Places that were freed while the server kept something for them; to be asked before the next `accept`."""
        gone = self.gone
        if gone:
            self.gone = []
        return gone

    def clear(self) -> None:
        """Forget the rows; they must have been dealt with."""
        self.rows = 0
        self.taken = 0

    def room(self) -> bool:
        """Whether another row can be taken."""
        return self.rows < ROWS and self.taken + LONGEST <= INPUT

    def accept(self, index: int, many: int, now: u32) -> int:
        """Accept up to `many` connections of a listener and read what they sent; returns how many came.

        Raises OSError if the system has no room for another.
        """
        came: size = 0
        place: size
        fd: cython.int
        while came < many and self.room():
            fd = self._accept(index)
            if fd < 0:
                if self.error in NO_ROOM:
                    raise OSError(self.error, "no connection can be accepted")
                break
            came += 1
            self.accepted += 1
            place = self._admit(fd, now)
            if place < 0:
                self._turn_away(fd)
            else:
                self._read(place)
        return came

    def read(self, events: list, first: int) -> int:
        """Read what came on connections that epoll named, from the `first` on; returns where to go on.

        `knocks` then says how many of them are none of ours: listeners.
        """
        i: size
        fd: cython.int
        if first == 0:
            self.knocks = 0
        for i in range(first, len(events)):
            if self.rows >= ROWS or self.taken + LONGEST > INPUT:
                return i
            fd = events[i][0]
            if fd >= len(self.place_of) or self.place_of[fd] == 0:
                self.knocks += 1
            else:
                self._read(self.place_of[fd] - 1)
        return len(events)

    def put_row(self, place: int, data: View) -> None:
        """Let bytes that were kept be a row, as if they had been read now. Raises ValueError without room."""
        if not self.room() or len(data) > LONGEST or not 0 <= place < self.most:
            raise ValueError("no room for a row, or no such place")
        at: size = self.taken
        i: size
        for i in range(len(data)):
            self.input[at + i] = data[i]
        self._add_row(place, at, len(data))

    def row(self, index: int) -> tuple[int, bytes]:
        """The place and the bytes of a row."""
        if not 0 <= index < self.rows:
            raise ValueError("no such row")
        at: size = self.row_at[index]
        return self.row_place[index], bytes(self.input[at : at + self.row_length[index]])

    def put_answer(self, place: int, data: View, after: int) -> None:
        """Let what is left of an answer be one that is to be sent. Raises ValueError without room."""
        at: size = self.written
        i: size
        if self.answers >= ANSWERS or at + len(data) > OUTPUT or not 0 <= place < self.most:
            raise ValueError("no room for an answer, or no such place")
        for i in range(len(data)):
            self.output[at + i] = data[i]
        self.queue(place, at, len(data), after, at + len(data))

    def send(self, now: u32) -> list[tuple[int, int]]:
        """Send the answers; (place, n) of those that the server must deal with.

        n: the answer's number for one that was not taken whole, or has no socket; -1 if the connection is to be
        watched, for it is not yet or was for writing; -2 if kept bytes are to be looked at now, or it has ended.
        """
        rest: list = []
        i: size
        place: size
        wrote: cython.bint
        for i in range(self.answers):
            place = self.answer_place[i]
            if self.life[place] != self.answer_life[i]:
                continue  # closed meanwhile, and maybe another's
            if self.fds[place] < 0:
                self.state[place] = IS_READING
                rest.append((place, i))
                continue
            wrote = self.state[place] == IS_WRITING
            if not self._send(i, now):
                rest.append((place, i))
                continue
            if self.state[place] == IS_FREE:
                continue
            if self.watched[place] == 0 or wrote:
                rest.append((place, -1))
            if self.held[place] != 0 or self.ended[place] != 0:
                rest.append((place, -2))
        return rest

    def forget_answers(self) -> None:
        """The answers have been sent or kept: their memory is used again."""
        self.answers = 0
        self.written = 0

    def answer(self, index: int) -> tuple[bytes, int]:
        """An answer that could not be sent, from where it was cut, and what is to follow it."""
        if not 0 <= index < self.answers:
            raise ValueError("no such answer")
        at: size = self.answer_at[index]
        return bytes(self.output[at : at + self.answer_length[index]]), self.answer_after[index]

    def wait_to_write(self, place: int, now: u32) -> None:
        """The client does not take its answer; it has some seconds for all of it."""
        if self.state[place] != IS_WRITING:
            self.state[place] = IS_WRITING
            self.due[place] = now + WRITE_SECONDS

    def end(self, place: int) -> None:
        """Read nothing more from a connection: it is closed once all that it asked is answered."""
        self.ended[place] = 1

    def has_ended(self, place: int) -> bool:
        """Whether nothing more is read from a connection."""
        return self.ended[place] != 0

    def hold(self, place: int, held: bool, due: u32 = 0) -> None:
        """Whether bytes of a place's next request are kept; due: until when the rest must come, if it is its turn."""
        self.held[place] = held
        if due and self.state[place] == IS_READING:
            self.due[place] = due

    def watch(self, place: int) -> int:
        """Note that the connection is watched; returns its file descriptor."""
        self.watched[place] = 1
        return self.fds[place]

    def look(self, place: int) -> tuple[int, int, bool, bool]:
        """State, file descriptor, whether bytes are held and whether it is watched."""
        return self.state[place], self.fds[place], self.held[place] != 0, self.watched[place] != 0

    def open_inner(self, high: u64, low: u64) -> int:
        """A place without a socket, for a request from this address; -1 if none is free."""
        if self.free_places == 0:
            self.over_all += 1
            return -1
        return self._open(-1, high, low)

    def close_inner(self, place: int) -> None:
        """Give a place without a socket back."""
        self._free(place)

    def close(self, place: int) -> None:
        """Close a connection."""
        if self.state[place] != IS_FREE and self.fds[place] >= 0:
            self._close(place)

    def detach(self, place: int) -> int:
        """Give a connection's file descriptor to somebody else, and its place back; its source goes on to have it."""
        fd: cython.int = self.fds[place]
        self._forget(place)
        self.sources.count_connection(self.high[place], self.low[place], 1)
        if not cython.compiled:
            self.sockets.pop(fd).detach()
        return fd

    def release(self, high: u64, low: u64) -> None:
        """A connection that was given away has ended: its source may have another."""
        self.sources.count_connection(high, low, -1)

    def everywhere(self) -> list[int]:
        """All places with an open connection."""
        return [place for place in range(self.most) if self.state[place] != IS_FREE and self.fds[place] >= 0]

    def overdue(self, now: u32) -> list[int]:
        """Places whose time is up."""
        return [
            place
            for place in range(self.most)
            if self.state[place] != IS_FREE and self.due[place] < now and self.fds[place] >= 0
        ]

    def address(self, place: int) -> tuple[int, int]:
        """The client's address, two words."""
        return self.high[place], self.low[place]

    def under_way(self) -> int:
        """Connections whose requests are not answered yet, or that have not taken their answers."""
        many: size = 0
        place: size
        for place in range(self.most):
            if IS_WAITING <= self.state[place] <= IS_WRITING:
                many += 1
        return many

    def open_places(self) -> int:
        """Connections at present."""
        return self.most - self.free_places

    def counters(self) -> tuple[int, int, int, int]:
        """Connections accepted, turned away for there were too many in all, or of their source; lost while answered."""
        return self.accepted, self.over_all, self.over_source, self.lost

    # Leaves

    def _admit(self, fd: cython.int, now: u32) -> size:
        """A place for a connection whose address is in `name`; -1 if there are too many, in all or of its source."""
        high: u64 = 0
        low: u64 = 0
        i: size
        place: size
        byte: u64
        if self.name[0] == 2:
            low = MAPPED
            for i in range(4):
                byte = self.name[4 + i]
                low |= byte << (32 + 8 * i)
        else:
            for i in range(8):
                byte = self.name[8 + i]
                high |= byte << (8 * i)
                byte = self.name[16 + i]
                low |= byte << (8 * i)
        if self.free_places == 0:
            self.over_all += 1
            return -1
        if (
            self.sources.count_connection(high, low, 1) > self.per_source
            and not self.sources.is_exempt(high, low)
            and not self.sources.is_proxy(high, low)
        ):
            self.sources.count_connection(high, low, -1)
            self.over_source += 1
            return -1
        place = self._open(fd, high, low)
        self.due[place] = now + HEAD_SECONDS
        if fd >= len(self.place_of):
            self._widen(fd)
        self.place_of[fd] = place + 1
        return place

    def _open(self, fd: cython.int, high: u64, low: u64) -> size:
        """Take a free place, of which there must be one."""
        self.free_places -= 1
        place: size = self.free[self.free_places]
        self.lives += 1
        self.life[place] = self.lives
        self.fds[place] = fd
        self.high[place] = high
        self.low[place] = low
        self.number[place] = 0
        self.held[place] = 0
        self.watched[place] = 0
        self.ended[place] = 0
        self.state[place] = IS_READING
        return place

    def _widen(self, fd: cython.int) -> cython.void:
        """Room for this file descriptor."""
        wider = memoryview(bytearray(8 * (fd + 1))).cast("i")
        wider[: len(self.place_of)] = self.place_of
        self.place_of = wider

    def _accept(self, index: size) -> cython.int:
        """Accept a connection, its address into `name`; -1 if there is none, then `error` says why."""
        fd: cython.int
        length: u32 = 28
        if cython.compiled:
            name = cython.cast(cython.pointer(sockaddr), cython.address(self.name[0]))
            fd = accept4(self.listeners[index].fileno(), name, cython.address(length), OF_ACCEPTED)
            self.error = errno if fd < 0 else 0
            return fd
        else:
            self.error = 0
            try:
                sock, peer = self.listeners[index].accept()
            except OSError as error:
                self.error = error.errno
                return -1
            sock.setblocking(False)
            self.sockets[sock.fileno()] = sock
            self.name[0] = 2 if sock.family == socket.AF_INET else 10
            if sock.family == socket.AF_INET:
                self.name[4:8] = socket.inet_aton(peer[0])
            else:
                self.name[8:24] = socket.inet_pton(socket.AF_INET6, peer[0].partition("%")[0])
            return sock.fileno()

    def _turn_away(self, fd: cython.int) -> cython.void:
        """Tell one for whom there is no place to come later."""
        at: size = self.taken
        crowd: View = self.crowd
        if cython.compiled:
            recv(fd, cython.address(self.input[at]), LONGEST, MSG_DONTWAIT)  # or closing would take the answer back
            if len(crowd) > 0:
                send(fd, cython.address(crowd[0]), len(crowd), MSG_DONTWAIT | MSG_NOSIGNAL)
            close(fd)
        else:
            sock = self.sockets.pop(fd)
            with contextlib.suppress(OSError):
                sock.recv(LONGEST)
            with contextlib.suppress(OSError):
                sock.send(crowd, MSG_NOSIGNAL)
            sock.close()

    def _read(self, place: size) -> cython.void:
        """Read from a connection: a row, or its end."""
        at: size = self.taken
        got: size
        if self.ended[place] != 0:
            if self.state[place] == IS_WRITING:
                self._add_row(place, at, 0)
            else:
                self.lost += 1
                self._close(place)  # only what breaks is told of it
            return
        if cython.compiled:
            got = recv(self.fds[place], cython.address(self.input[at]), LONGEST, MSG_DONTWAIT)
            if got < 0 and (errno == EAGAIN or errno == EINTR):
                self._row_of_nothing(place)
                return
        else:
            try:
                got = self.sockets[self.fds[place]].recv_into(self.input[at : at + LONGEST])
            except (BlockingIOError, InterruptedError):
                self._row_of_nothing(place)
                return
            except OSError:
                got = -1
        if got == 0 and self._is_under_way(place):
            self.ended[place] = 1
            self._add_row(place, at, 0)
        elif got <= 0:
            if self._is_under_way(place):
                self.lost += 1
            self._close(place)
        elif self.state[place] != IS_DRAINING:
            self._add_row(place, at, got)

    def _is_under_way(self, place: size) -> cython.bint:
        """Whether something is still to be sent to a connection."""
        return IS_WAITING <= self.state[place] <= IS_WRITING

    def _row_of_nothing(self, place: size) -> cython.void:
        """An empty row: a new connection that sent nothing yet is to be watched, or one can be written to again."""
        if self.watched[place] == 0 or self.state[place] == IS_WRITING:
            self._add_row(place, self.taken, 0)

    def _add_row(self, place: size, at: size, length: size) -> cython.void:
        self.row_place[self.rows] = cython.cast(u32, place)
        self.row_at[self.rows] = cython.cast(u32, at)
        self.row_length[self.rows] = cython.cast(u32, length)
        self.rows += 1
        self.taken = at + length

    def queue(self, place: size, at: size, length: size, after: u32, end: size) -> cython.void:
        """Note an answer that lies in the output, which is taken up to `end`; there must be room for it."""
        i: size = self.answers
        self.answer_place[i] = cython.cast(u32, place)
        self.answer_at[i] = cython.cast(u32, at)
        self.answer_length[i] = cython.cast(u32, length)
        self.answer_after[i] = after
        self.answer_life[i] = self.life[place]
        self.answers += 1
        self.written = end + (-end & 7)

    def _send(self, i: size, now: u32) -> cython.bint:
        """Send an answer; False if the client did not take it whole: then what is left of it is the answer."""
        place: size = self.answer_place[i]
        at: size = self.answer_at[i]
        length: size = self.answer_length[i]
        sent: size
        if at + length > len(self.output) or length <= 0:
            return True
        if cython.compiled:
            sent = send(self.fds[place], cython.address(self.output[at]), length, MSG_DONTWAIT | MSG_NOSIGNAL)
            if sent < 0:
                sent = 0 if errno == EAGAIN or errno == EINTR else -1
        else:
            try:
                sent = self.sockets[self.fds[place]].send(self.output[at : at + length], MSG_NOSIGNAL)
            except (BlockingIOError, InterruptedError):
                sent = 0
            except OSError:
                sent = -1
        if sent < 0:
            self.lost += 1
            self._close(place)
            return True
        if sent < length:
            self.answer_at[i] = cython.cast(u32, at + sent)
            self.answer_length[i] = cython.cast(u32, length - sent)
            return False
        self._after(place, self.answer_after[i], now)
        return True

    def _after(self, place: size, after: u32, now: u32) -> cython.void:
        """Go on after an answer."""
        if after == 0:
            self.state[place] = IS_READING
            self.due[place] = now + self.idle
        elif after & TO_DRAIN and self.ended[place] == 0:
            # To close now would take back the answer, as there may be bytes that nobody read.
            if cython.compiled:
                shutdown(self.fds[place], SHUT_WR)
            else:
                with contextlib.suppress(OSError):
                    self.sockets[self.fds[place]].shutdown(SHUT_WR)
            self.state[place] = IS_DRAINING
            self.due[place] = now + DRAIN_SECONDS
        else:
            self._close(place)

    def _close(self, place: size) -> cython.void:
        fd: cython.int = self.fds[place]
        self._forget(place)
        if cython.compiled:
            close(fd)
        else:
            self.sockets.pop(fd).close()

    def _forget(self, place: size) -> cython.void:
        """Free a place; a late reply's number is that of no place any longer."""
        if self.held[place] != 0 or self.state[place] == IS_WRITING:
            self.gone.append(place)
        self.sources.count_connection(self.high[place], self.low[place], -1)
        self.place_of[self.fds[place]] = 0
        self._free(place)

    def _free(self, place: size) -> cython.void:
        self.state[place] = IS_FREE
        self.number[place] = 0
        self.life[place] = 0
        self.free[self.free_places] = cython.cast(u32, place)
        self.free_places += 1
