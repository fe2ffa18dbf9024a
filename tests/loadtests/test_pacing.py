import socket
import time
from contextlib import closing

import gevent
import pytest

from loadtests.load.pacing import NANOSECONDS, Pacer


@pytest.fixture
def pair():
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.setblocking(False)
        yield ours, theirs


def test_request_k_is_due_k_over_rate_after_the_start():
    with closing(Pacer(4000)) as pacer:
        assert [pacer.due_at(k) - pacer.start for k in (0, 1, 2, 8000)] == [0, 250_000, 500_000, 2 * NANOSECONDS]
        assert pacer.due(pacer.start) == 1
        assert pacer.due(pacer.start + 249_999) == 1
        assert pacer.due(pacer.start + 250_000) == 2
        assert pacer.due(pacer.start + NANOSECONDS) == 4001


def test_what_was_taken_is_no_longer_due():
    with closing(Pacer(1000)) as pacer:
        assert pacer.take(3) == 0
        assert pacer.due(pacer.start) == 0
        assert pacer.due(pacer.start + 10_000_000) == 8
        assert pacer.take(8) == 3
        assert pacer.due(pacer.start + 10_000_000) == 0


def test_a_wait_ends_when_a_request_is_due_and_not_before():
    with closing(Pacer(100)) as pacer:
        pacer.take(1)
        assert pacer.wait() == []
        assert pacer.due(time.monotonic_ns()) >= 1


def test_a_wait_ends_when_a_socket_is_ready_and_names_it(pair):
    ours, theirs = pair
    with closing(Pacer(1)) as pacer:
        pacer.register(ours)
        theirs.send(b"x")
        assert pacer.wait(paced=False) == [ours.fileno()]
        assert ours.recv(9) == b"x"


def test_a_socket_is_waited_for_no_more_once_it_is_closed():
    ours, theirs = socket.socketpair()
    with closing(Pacer(1)) as pacer, theirs:
        pacer.register(ours)
        theirs.send(b"x")
        ours.close()
        assert pacer.wait() == []


def test_events_of_a_socket_can_be_changed(pair):
    ours, theirs = pair
    with closing(Pacer(1)) as pacer:
        pacer.register(ours)
        assert pacer.wait() == []
        pacer.modify(ours, 4)  # EPOLLOUT
        assert pacer.wait() == [ours.fileno()]


def test_a_wait_without_pace_is_bounded_though_requests_are_due():
    with closing(Pacer(1000)) as pacer:
        began = time.monotonic_ns()
        assert pacer.wait(paced=False) == []
        assert time.monotonic_ns() - began >= 50_000_000


def test_other_greenlets_run_while_one_waits_though_it_is_always_late():
    turns = []

    def drive():
        with closing(Pacer(1_000_000_000)) as pacer:
            while len(turns) < 3:
                pacer.wait()

    driver = gevent.spawn(drive)
    for turn in range(3):
        turns.append(turn)
        gevent.sleep(0)
        assert not driver.dead or turn == 2
    driver.get(timeout=10)


def test_a_killed_driver_leaves_its_wait_and_closes():
    def drive():
        with closing(Pacer(1)) as pacer:
            while True:
                pacer.wait()

    driver = gevent.spawn(drive)
    gevent.sleep(0)
    driver.kill(timeout=10)
    assert driver.dead
    driver.get()  # raises what it ended with, if not the kill


def test_two_drivers_wait_each_for_its_own_sockets(pair):
    ours, theirs = pair
    other, its_peer = socket.socketpair()
    found = {}

    def drive(name, sock):
        with closing(Pacer(1)) as pacer:
            pacer.register(sock)
            while not (ready := pacer.wait(paced=False)):
                pass
            found[name] = ready

    with other, its_peer:
        drivers = [gevent.spawn(drive, "first", ours), gevent.spawn(drive, "second", other)]
        gevent.sleep(0)
        theirs.send(b"x")
        its_peer.send(b"x")
        gevent.joinall(drivers, timeout=10, raise_error=True)
        assert found == {"first": [ours.fileno()], "second": [other.fileno()]}


def test_a_restart_begins_again_with_request_0_at_another_rate():
    with closing(Pacer(1000)) as pacer:
        pacer.take(500)
        pacer.restart(10)
        assert pacer.due(pacer.start) == 1
        assert pacer.due_at(1) == pacer.start + NANOSECONDS // 10


@pytest.mark.parametrize("rate", [0, -1, float("nan")])
def test_a_rate_that_is_not_above_0_is_refused(rate):
    with pytest.raises(ValueError, match="above 0"):
        Pacer(rate)
    with closing(Pacer(1)) as pacer, pytest.raises(ValueError, match="above 0"):
        pacer.restart(rate)
