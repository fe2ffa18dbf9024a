"""Batches of datagrams on connected sockets: recvmmsg(2) and sendmmsg(2) on arrays that are made once."""

from __future__ import annotations

import ctypes
import errno
import os

from loadtests.load.udp_load import ROWS, STRIDE

DONT_WAIT = 0x40
PASSING = (errno.EAGAIN, errno.EINTR, errno.ECONNREFUSED, errno.ENOBUFS, errno.EHOSTUNREACH, errno.ENETUNREACH)

_libc = ctypes.CDLL(None, use_errno=True)


class Datagrams:
    """Room for ROWS datagrams. headers: 8 words each, of which the last is a length; iovecs: address and length."""

    def __init__(self) -> None:
        self.data = bytearray(ROWS * STRIDE)
        self.headers = memoryview(bytearray(ROWS * 64)).cast("Q")
        self.iovecs = memoryview(bytearray(ROWS * 16)).cast("Q")
        self._address = _address_of(self.headers)
        data, iovecs = _address_of(self.data), _address_of(self.iovecs)
        for row in range(ROWS):
            self.iovecs[2 * row], self.iovecs[2 * row + 1] = data + row * STRIDE, STRIDE
            self.headers[8 * row + 2], self.headers[8 * row + 3] = iovecs + row * 16, 1

    def receive(self, fd: int) -> int:
        """Take what waits, at most ROWS datagrams; how many. Raises OSError."""
        while True:
            got: int = _libc.recvmmsg(fd, ctypes.c_void_p(self._address), ROWS, DONT_WAIT, None)
            if got >= 0:
                return got
            if not _is_refused():
                return 0

    def send(self, fd: int, many: int) -> int:
        """Send the first `many`; how many could not be sent. Raises OSError."""
        done = 0
        while done < many:
            sent = _libc.sendmmsg(fd, ctypes.c_void_p(self._address + 64 * done), many - done, DONT_WAIT)
            if sent > 0:
                done += sent
            elif not _is_refused():
                return many - done
        return 0


def _is_refused() -> bool:
    """Whether a call failed for what became of an earlier datagram, and not for a lack of room or of datagrams."""
    number = ctypes.get_errno()
    if number not in PASSING:
        raise OSError(number, os.strerror(number))
    return number in (errno.ECONNREFUSED, errno.EINTR)


def _address_of(view: memoryview | bytearray) -> int:
    return ctypes.addressof(ctypes.c_char.from_buffer(view))
