"""The embedded tracker on real sockets, whose HTTP clock is told the time, and of which nothing may be left over."""

import os
import time
from contextlib import contextmanager, suppress
from pathlib import Path

from http_client import HttpClient
from trackers import PATIENCE, Local

from common import counters

FAULTS = {name: counters.HTTP_FAILURES + place for place, name in enumerate(counters.HTTP_FAULTS)}


class Tracker(Local):
    """The embedded tracker, whose HTTP clock goes on when it is told to."""

    def __init__(self, directory, **more):
        super().__init__(directory, **more)
        gateway = self.tracker.gateway
        self.http, self.web, self.connections = gateway.http, gateway.web, gateway.connections
        self.address = self.addresses[0]
        self.time = 1000
        self.http.clock = lambda: self.time

    def tick(self, seconds=1):
        """Let time pass, second by second."""
        for _ in range(seconds):
            self.time += 1
            self.call(self._tick)

    def _tick(self):
        self.http.tick()
        self.web.tick()

    def wait_until(self, holds):
        """Wait until something holds in the tracker's thread."""
        deadline = time.monotonic() + PATIENCE
        while not self.call(holds):
            assert time.monotonic() < deadline

    def wait_for_bytes(self, many):
        """Wait until so many bytes of requests are kept."""
        self.wait_until(lambda: sum(map(len, self.http.kept.values())) == many)

    def wait_for_places(self, many):
        self.wait_until(lambda: self.connections.open_places() == many)

    def counted(self):
        return self.call(self.http.codec.counters)

    def refused(self, name):
        return self.counted()[FAULTS[name]]

    def state(self):
        """What is kept of connections: nothing, once all of them are gone."""
        http = self.http
        return http.kept, http.backlog, http.inner, http.again, http.paused, self.web.tasks, self.web.heard

    def is_clean(self):
        self._tick()
        return self.connections.open_places() == 0 and not any(self.state())


def open_sockets():
    """How many sockets this process has open."""
    many = 0
    for path in Path("/proc/self/fd").iterdir():
        with suppress(OSError):  # that of the listing itself
            many += os.readlink(path).startswith("socket:")
    return many


@contextmanager
def clean(tracker):
    """The tracker, of which nothing is left of its connections in the end: no place, no byte, no socket."""
    before = open_sockets()
    yield tracker
    tracker.wait_until(tracker.is_clean)
    tracker.wait_until(lambda: open_sockets() == before)
    with HttpClient(tracker.address) as client:  # it serves the next one
        client.announce(os.urandom(20))
    tracker.wait_for_places(0)
    assert tracker.tracker.periodic.healthy()
