"""Many datagrams a system call: recvmmsg and sendmmsg on arrays that are made once.

Layouts are those of 64-bit Linux, as words of 8 bytes, so that a kernel can read and write them in place:

mmsghdr (8 words)   0 name  1 length of the name  2 iovec  3 count of iovecs  4 control  5 its length  6 flags  7 bytes
iovec (2 words)     0 address  1 length
name (4 words)      a sockaddr_in or sockaddr_in6
control (6 words)   0 length  1 level, type  2.. in_pktinfo or in6_pktinfo: the local address (ip(7), RFC 3542)

Where the system calls do not exist the same arrays are filled and emptied one datagram at a time.
"""

import contextlib
import ctypes
import errno
import mmap
import socket
import struct
import sys
from array import array
from collections.abc import Sequence

DEPTH = 1024
STRIDE = 2112  # bytes from one received datagram to the next; of each at most 2,048 are kept
LONGEST = 2048
DIRECT = 64  # bytes of an answer that no shard is asked for
IP_PKTINFO = getattr(socket, "IP_PKTINFO", 8)
MSG_DONTWAIT = getattr(socket, "MSG_DONTWAIT", 0x40)

_libc = ctypes.CDLL(None, use_errno=True)


def _system_call(name: str, arguments: list[type]) -> "ctypes._NamedFuncPointer | None":
    call = getattr(_libc, name, None)
    if call is not None:
        call.argtypes = arguments
        call.restype = ctypes.c_int
    return call


_recvmmsg = _system_call("recvmmsg", [ctypes.c_int, ctypes.c_void_p, ctypes.c_uint, ctypes.c_int, ctypes.c_void_p])
_sendmmsg = _system_call("sendmmsg", [ctypes.c_int, ctypes.c_void_p, ctypes.c_uint, ctypes.c_int])


def allocate(size: int, huge: int = 0) -> memoryview:
    """Memory that costs nothing until it is touched; the first `huge` bytes in large pages. Raises MemoryError."""
    try:
        region = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | getattr(mmap, "MAP_NORESERVE", 0))
    except (OSError, ValueError, OverflowError) as error:
        raise MemoryError(f"the system does not give {size:,} bytes of memory: {error}") from error
    if huge > 0 and hasattr(mmap, "MADV_HUGEPAGE"):
        with contextlib.suppress(OSError):  # a kernel without large pages
            region.madvise(mmap.MADV_HUGEPAGE, 0, huge)
    return memoryview(region)


def address_of(view: memoryview) -> int:
    """The address at which a writable view begins."""
    return ctypes.addressof(ctypes.c_char.from_buffer(view))


def is_fixed(sock: socket.socket) -> bool:
    """Whether a socket is bound to one address: then all its answers come from there, and nobody need ask or say."""
    host, port = sock.getsockname()[:2]
    return port != 0 and host not in ("0.0.0.0", "::")


def prepare(sock: socket.socket) -> None:
    """Let a socket tell the local address of each datagram, unless it has but one, and never wait."""
    tell = not is_fixed(sock)
    if sock.family == socket.AF_INET6:
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_RECVPKTINFO, tell)
    else:
        sock.setsockopt(socket.IPPROTO_IP, IP_PKTINFO, tell)
    sock.setblocking(False)


class Arrays:
    """The arrays of one direction: `count` datagrams of up to `room` bytes, `stride` bytes apart."""

    def __init__(self, count: int, stride: int, room: int) -> None:
        self.headers = allocate(count * 64).cast("Q")
        self.iovecs = allocate(count * 16).cast("Q")
        self.names = allocate(count * 32).cast("Q")
        self.controls = allocate(count * 48).cast("Q")
        self.data = allocate(count * stride, huge=count * stride).cast("Q")
        self.headers_address = address_of(self.headers)
        self.data_address = address_of(self.data)
        self.stride = stride
        self.room = room

    def fill(self, first: int, count: int, ipv6: bool, fixed: bool) -> None:
        """Fill in a run of headers for a family, and the controls' heads.

        The controls of a socket that is bound to one address are left out.
        """
        level, kind = (socket.IPPROTO_IPV6, socket.IPV6_PKTINFO) if ipv6 else (socket.IPPROTO_IP, IP_PKTINFO)
        iovecs, names, controls = (address_of(view) for view in (self.iovecs, self.names, self.controls))
        for column, begin, step in (
            (0, names, 32),
            (1, 28 if ipv6 else 16, 0),
            (2, iovecs, 16),
            (3, 1, 0),
            (4, controls, 48),
            (5, 0 if fixed else 40 if ipv6 else 32, 0),
        ):
            fill_column(self.headers[8 * first + column : 8 * (first + count) : 8], begin + step * first, step)
        if self.room:  # otherwise the codec says what is sent
            base = self.data_address + self.stride * first
            fill_column(self.iovecs[2 * first : 2 * (first + count) : 2], base, self.stride)
            fill_column(self.iovecs[2 * first + 1 : 2 * (first + count) : 2], self.room, 0)
        fill_column(self.controls[6 * first : 6 * (first + count) : 6], 36 if ipv6 else 28, 0)
        fill_column(self.controls[6 * first + 1 : 6 * (first + count) : 6], level | (kind << 32), 0)


def fill_column(column: memoryview, begin: int, step: int) -> None:
    """Words that rise by `step`."""
    many = len(column)
    column[:] = memoryview(array("Q", range(begin, begin + step * many, step) if step else [begin] * many))


class Batch:
    """Arrays for listening sockets of these families: received[i] holds `depth` datagrams, sent[i] twice as many.

    `fixed`: which of them are bound to one address, none if empty. `single`: one system call a datagram.
    """

    allocate = staticmethod(allocate)
    address_of = staticmethod(address_of)

    def __init__(
        self, families: list[socket.AddressFamily], depth: int = DEPTH, single: bool = False, fixed: Sequence[bool] = ()
    ) -> None:
        if sys.byteorder != "little":
            raise OSError("this machine is not little-endian")
        self.sockets = len(families)
        self.ipv6 = bytes(family == socket.AF_INET6 for family in families)  # for each socket: 1, or 0 for IPv4
        self.depth = depth
        self.single = single or _recvmmsg is None or _sendmmsg is None
        self.received = Arrays(self.sockets * depth, STRIDE, LONGEST)
        self.sent = Arrays(2 * self.sockets * depth, DIRECT, 0)
        self.fixed = tuple(fixed) or (False,) * len(families)
        self.ready = [False] * self.sockets

    def _make_ready(self, index: int) -> None:
        """Fill in the headers of a socket: not before it is used, as many addresses never are."""
        depth, ipv6, fixed = self.depth, self.ipv6[index] != 0, self.fixed[index]
        self.received.fill(index * depth, depth, ipv6, fixed)
        self.sent.fill(2 * index * depth, 2 * depth, ipv6, fixed)
        self.ready[index] = True

    def receive(self, index: int, sock: socket.socket) -> int:
        """Take what waits at socket `index`, at most `depth` datagrams; returns how many."""
        if not self.ready[index]:
            self._make_ready(index)
        if self.single:
            return self._receive_singly(index, sock)
        headers = self.received.headers_address + 64 * self.depth * index
        got = _recvmmsg(sock.fileno(), headers, self.depth, MSG_DONTWAIT, None)  # type: ignore[misc]  # not None
        if got >= 0:
            return int(got)
        _raise_unless_passing(ctypes.get_errno())
        return 0

    def send(self, index: int, sock: socket.socket, many: int) -> int:
        """Send the first `many` queued datagrams of socket `index`; returns how many could not be sent."""
        if not self.ready[index]:
            self._make_ready(index)
        if self.single:
            return self._send_singly(index, sock, many)
        headers = self.sent.headers_address + 128 * self.depth * index
        done = lost = 0
        while done < many:
            sent = _sendmmsg(sock.fileno(), headers + 64 * done, many - done, MSG_DONTWAIT)  # type: ignore[misc]
            if sent > 0:
                done += sent
                continue
            if ctypes.get_errno() in (errno.EAGAIN, errno.ENOBUFS):
                return lost + many - done
            lost += 1  # this one cannot be sent (no route, refused by a filter): go on with the next
            done += 1
        return lost

    def _receive_singly(self, index: int, sock: socket.socket) -> int:
        for n in range(self.depth):
            at = index * self.depth + n
            room = memoryview(self.received.data).cast("B")[STRIDE * at : STRIDE * at + LONGEST]
            try:
                got, controls, _, name = sock.recvmsg_into([room], 64)
            except BlockingIOError:
                return n
            except OSError as error:
                _raise_unless_passing(error.errno or 0)
                return n
            self.received.headers[8 * at + 7] = got
            _put(self.received.names, 4 * at, _pack_name(sock.family, name))
            _put(self.received.controls, 6 * at + 2, controls[0][2] if controls else bytes(20))
        return self.depth

    def _send_singly(self, index: int, sock: socket.socket, many: int) -> int:
        lost = 0
        for n in range(many):
            at = 2 * index * self.depth + n
            data = ctypes.string_at(self.sent.iovecs[2 * at], self.sent.iovecs[2 * at + 1])
            name = struct.pack("<4Q", *self.sent.names[4 * at : 4 * at + 4])
            local = struct.pack("<4Q", *self.sent.controls[6 * at + 2 : 6 * at + 6])
            head = self.sent.controls[6 * at + 1]
            control = (head & 0xFFFF_FFFF, head >> 32, local[: 20 if sock.family == socket.AF_INET6 else 12])
            try:
                sock.sendmsg([data], [] if self.fixed[index] else [control], 0, _unpack_name(sock.family, name))
            except OSError:
                lost += 1
        return lost


def _raise_unless_passing(number: int) -> None:
    """Errors that say something of an earlier datagram, or of now, are no reason to stop."""
    if number not in (errno.EAGAIN, errno.EINTR, errno.ECONNREFUSED, errno.ENOBUFS, errno.ENOMEM, errno.EHOSTUNREACH):
        raise OSError(number, "receiving datagrams failed")


def _put(words: memoryview, at: int, data: bytes) -> None:
    data += bytes(-len(data) % 8)
    words[at : at + len(data) // 8] = memoryview(data).cast("Q")


def _pack_name(family: int, name: tuple[str, int, int, int]) -> bytes:
    if family == socket.AF_INET6:
        address = socket.inet_pton(socket.AF_INET6, name[0].partition("%")[0])
        return struct.pack("<H", family) + struct.pack(">HI", name[1], 0) + address + struct.pack("<I", name[3])
    return struct.pack("<H", family) + struct.pack(">H", name[1]) + socket.inet_pton(socket.AF_INET, name[0])


def _unpack_name(family: int, name: bytes) -> tuple[str, int] | tuple[str, int, int, int]:
    (port,) = struct.unpack_from(">H", name, 2)
    if family == socket.AF_INET6:
        return socket.inet_ntop(socket.AF_INET6, name[8:24]), port, 0, struct.unpack_from("<I", name, 24)[0]
    return socket.inet_ntop(socket.AF_INET, name[4:8]), port
