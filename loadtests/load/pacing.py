"""When requests are due, and one wait for all sockets of a driver: the hub of gevent sees a single descriptor.

A wait of gevent costs microseconds and its timers whole milliseconds. So a driver keeps its sockets in an epoll of its
own, with a timerfd beside them, and the hub watches that epoll: one wait a tick, however many requests are under way.
locust replaces much of the standard library by what gevent has; what is used here is the original.
"""

from __future__ import annotations

import ctypes
import os
import struct
import time
from typing import Protocol

import gevent
from gevent import monkey

TICK = 0.0005  # seconds
LONGEST = 0.05  # seconds that a driver waits at most, as it has more to do than to send
READABLE = 1  # EPOLLIN, and what a watcher of the hub is told
NANOSECONDS = 1_000_000_000
_MONOTONIC, _ABSOLUTE = 1, 1
_FLAGS = os.O_NONBLOCK | os.O_CLOEXEC  # TFD_NONBLOCK, TFD_CLOEXEC

_libc = ctypes.CDLL(None, use_errno=True)
_epoll = monkey.get_original("select", "epoll")  # gevent removes it
_close = monkey.get_original("os", "close")  # gevent's does it later


class HasFileno(Protocol):
    """A socket, or whatever has a descriptor."""

    def fileno(self) -> int: ...


class Pacer:
    """Request k is due k / rate seconds after the start; `wait` returns when one is due or a socket is ready.

    All times are in ns of time.monotonic_ns. Use it in one greenlet.
    """

    def __init__(self, rate: float, tick: float = TICK) -> None:
        """Raises ValueError if the rate is not above 0, and OSError if there are no descriptors left."""
        if not rate > 0:
            raise ValueError(f"a rate must be above 0, not {rate}")
        self.rate = rate
        self.taken = 0
        self.start = time.monotonic_ns()
        self._tick = int(tick * NANOSECONDS)
        self._timer = _open_timer()
        self._epoll = _epoll()
        self._epoll.register(self._timer, READABLE)
        self._watcher = gevent.get_hub().loop.io(self._epoll.fileno(), READABLE)

    def register(self, sock: HasFileno | int, events: int = READABLE) -> None:
        """Wait for a socket too. Closing it ends that."""
        self._epoll.register(sock, events)

    def modify(self, sock: HasFileno | int, events: int) -> None:
        """Wait for other events of a socket."""
        self._epoll.modify(sock, events)

    def restart(self, rate: float | None = None) -> None:
        """Request 0 is due now. A new rate takes effect. Raises ValueError if it is not above 0."""
        if rate is not None:
            if not rate > 0:
                raise ValueError(f"a rate must be above 0, not {rate}")
            self.rate = rate
        self.start = time.monotonic_ns()
        self.taken = 0

    def wait(self, paced: bool = True) -> list[int]:
        """Let others run until a request is due or a socket is ready; the descriptors that are.

        No request ends a wait sooner than a tick after it began. `paced` False: none does.
        """
        now = time.monotonic_ns()
        end = now + int(LONGEST * NANOSECONDS)
        if paced:
            end = min(end, max(self.due_at(self.taken), now + self._tick))
        _set_timer(self._timer, end)
        gevent.get_hub().wait(self._watcher)
        return [fd for fd, _ in self._epoll.poll(0) if fd != self._timer]

    def due(self, now: int) -> int:
        """How many requests are due and not yet taken."""
        return max(int((now - self.start) * self.rate / NANOSECONDS) + 1 - self.taken, 0)

    def take(self, many: int) -> int:
        """Take requests, which are no longer due; the number of the first."""
        first = self.taken
        self.taken += many
        return first

    def due_at(self, number: int) -> int:
        """When a request is due."""
        return self.start + int(number * NANOSECONDS / self.rate)

    def close(self) -> None:
        """Wait no more. What was registered stays open."""
        self._watcher.close()
        self._epoll.close()
        _close(self._timer)


def _open_timer() -> int:
    """A timer's descriptor; Python has none before 3.13."""
    fd: int = _libc.timerfd_create(_MONOTONIC, _FLAGS)
    if fd < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return fd


_setting = ctypes.create_string_buffer(32)  # struct itimerspec


def _set_timer(fd: int, when: int) -> None:
    """Let a timer be ready at a time, in ns, and not before; it is ready once."""
    struct.pack_into("4q", _setting, 0, 0, 0, *divmod(max(when, 1), NANOSECONDS))
    if _libc.timerfd_settime(fd, _ABSOLUTE, _setting, None) < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
