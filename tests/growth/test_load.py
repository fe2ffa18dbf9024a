"""The load knows a tracker that is right from others, and counts what it must."""

import contextlib
import socket
import struct
import threading
import time

import pytest
from growth.load import Load
from model_tracker import ModelTracker

HOST = "127.0.0.1"
SOURCES = ["127.20.0.1", "127.20.0.2", "127.20.0.3"]


class Gateways:
    """Two sockets of one tracker. `lost`: requests that get no answer; `empty`: announces that get an empty one."""

    def __init__(self, fault=""):
        self.tracker = ModelTracker(fault)
        self.lock = threading.Lock()
        self.lost = self.empty = lambda number: False
        self.number = 0
        self.sockets = [socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in range(2)]
        for sock in self.sockets:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
            sock.bind((HOST, 0))
        self.addresses = [sock.getsockname() for sock in self.sockets]

    def __enter__(self):
        for sock in self.sockets:
            threading.Thread(target=self._serve, args=(sock,), daemon=True).start()
        return self

    def __exit__(self, *_):
        for sock in self.sockets:
            sock.close()

    def _serve(self, sock):
        with contextlib.suppress(OSError):  # it is closed
            while True:
                request, address = sock.recvfrom(2048)
                with self.lock:
                    answer = self._answer(request, address[0])
                if answer:
                    sock.sendto(answer, address)

    def _answer(self, request, host):
        self.number += 1
        if len(request) == 98 and self.lost(self.number):
            return b""
        if len(request) == 98 and self.empty(self.number):
            return struct.pack(">I4sIII", 1, request[12:16], 180, 0, 0)
        return self.tracker.answer(request, host)


@pytest.fixture
def load():
    with Load() as load:
        yield load


def begin(load, gateways, **more):
    """A part of 150 peers that are known."""
    sources = [[address, gateways.addresses[at % 2]] for at, address in enumerate(SOURCES)]
    load.make([{"name": "all", "torrents": 10, "ports": 50, "sources": sources, "most": 1000, **more}])
    assert load.fill(["all"]) == {"all": 150}
    load.look()


def announce(load, seconds=0.5, rate=400):
    load.pace(all=rate)
    time.sleep(seconds)
    load.settle()
    return load.look()["all"]


def test_of_a_tracker_that_is_right_nothing_is_found(load):
    with Gateways() as gateways:
        begin(load, gateways)
        found = announce(load)
        whole = load.verify(gateways.addresses, SOURCES[0])
    assert found["answers"] == found["sent"] > 100
    assert (found["wrong"], found["failed"], found["lost at first"], found["empty"]) == ({}, 0, 0, 0)
    assert (whole["asked"], whole["present"], whole["wrong"], whole["lacking"]) == (20, 150, [], 0)


def test_an_answer_that_lacks_who_was_acknowledged_is_wrong(load):
    with Gateways() as gateways:
        begin(load, gateways)
        for swarm in gateways.tracker.swarms.values():
            for endpoint in list(swarm)[: len(swarm) // 2]:
                del swarm[endpoint]
        whole = load.verify(gateways.addresses, SOURCES[0])
        assert len(whole["wrong"]) == 20
        assert whole["lacking"] > 100  # at both
        assert announce(load, 0.1)["wrong"].keys() & {"few", "leechers"}


def test_who_is_not_strict_takes_that_but_no_strangers(load):
    with Gateways("strangers") as gateways:
        begin(load, gateways, strict=False)
        assert announce(load)["wrong"].keys() == {"stranger"}


def test_what_is_lost_is_sent_again_and_may_be_answered(load):
    with Gateways() as gateways:
        begin(load, gateways)
        gateways.lost = lambda number: number % 10 == 0
        found = announce(load)
    assert found["lost at first"] > 0
    assert (found["failed"], found["wrong"]) == (0, {})
    assert found["most"] > 1000


def test_what_is_never_answered_has_failed_after_four_tries(load):
    with Gateways() as gateways:
        begin(load, gateways)
        gateways.lost = lambda number: True
        found = announce(load, 0.1, 200)
    assert found["failed"] == found["sent"] > 0
    assert found["sent again"] == 3 * found["sent"]
    assert found["without peers"] > 0.05


def test_empty_answers_are_counted_apart(load):
    """They are none of those that must have all."""
    with Gateways() as gateways:
        begin(load, gateways)
        gateways.empty = lambda number: number % 3 == 0
        found = announce(load)
    assert found["empty"] > 0
    assert found["wrong"] == {}
