"""Ports for whoever is to listen at a port that is known before.

They are below those that the system gives to connections, which others might get meanwhile; and pytest's workers, if
it has several, choose from ranges of their own.
"""

import contextlib
import os
import random
import socket
import threading

LOOPBACK = ("127.0.0.1", "::1")
WORKERS = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
WORKER = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
FIRST, LAST = 10_000, 32_767
MANY = (LAST + 1 - FIRST) // WORKERS
OURS = range(FIRST + WORKER * MANY, FIRST + (WORKER + 1) * MANY)

given: set[int] = set()  # who was given one may not listen yet
given_lock = threading.Lock()


def free_port(*hosts: str) -> int:
    """A port that is free for TCP and UDP, by default on both loopback addresses, and nobody else's."""
    return free_ports(1, *hosts)[0]


def free_ports(count: int, *hosts: str) -> list[int]:
    """Such ports that follow each other."""
    while True:
        first = random.choice(OURS[: 1 - count or None])
        ports = list(range(first, first + count))
        with given_lock:
            if given.isdisjoint(ports) and all(is_free(port, host) for port in ports for host in hosts or LOOPBACK):
                given.update(ports)
                return ports


def is_free(port: int, host: str) -> bool:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with contextlib.ExitStack() as stack:
        try:
            for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
                stack.enter_context(socket.socket(family, kind)).bind((host, port))
        except OSError:
            return False
    return True
