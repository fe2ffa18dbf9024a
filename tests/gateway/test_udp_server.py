"""When UDP sockets are read: at once, or later while every shard has enough to do."""

import pytest
from trackers import Client, Local, connect_request, is_answer

from gateway import udp_server


@pytest.fixture
def tracker(tmp_path):
    with Local(tmp_path, listen=["127.0.0.1:0", "127.0.0.2:0"]) as tracker:
        yield tracker


def be_busy(tracker, busy):
    udp = tracker.tracker.gateway.udp

    def set_busy():
        udp.busy = lambda _: busy

    tracker.call(set_busy)
    return udp


def test_sockets_rest_while_all_shards_are_busy_and_are_read_when_one_answers(tracker, monkeypatch):
    monkeypatch.setattr(udp_server, "LONGEST_REST", 3600.0)
    udp = be_busy(tracker, True)
    with Client(tracker.addresses[0]) as first, Client(tracker.addresses[1]) as second:
        for client in (first, second):
            client.connect()  # read, and then the socket rests
        read = tracker.call(lambda: udp.batch_sizes.total)
        requests = [connect_request(), connect_request()]
        first.send(requests[0])
        second.send(requests[1])
        assert list(tracker.call(lambda: udp.resting)) == [0, 1]
        tracker.call(udp.send_answers)
        assert tracker.call(lambda: udp.batch_sizes.total) == read
        be_busy(tracker, False)
        tracker.call(udp.send_answers)
        assert is_answer(first.receive(), requests[0])
        assert is_answer(second.receive(), requests[1])
        assert tracker.call(lambda: udp.resting) == {}
        assert is_answer(first.ask(again := connect_request()), again)  # it is watched again


def test_who_rested_longest_is_read_first(tracker, monkeypatch):
    monkeypatch.setattr(udp_server, "LONGEST_REST", 3600.0)
    udp = be_busy(tracker, True)
    with Client(tracker.addresses[0]) as first, Client(tracker.addresses[1]) as second:
        for client in (second, first):
            client.connect()
        second.send(request := connect_request())
        tracker.call(udp.wake)
        assert is_answer(second.receive(), request)
        assert list(tracker.call(lambda: udp.resting)) == [0, 1]


def test_sockets_do_not_rest_for_long_if_no_shard_answers(tracker):
    udp = be_busy(tracker, True)
    with Client(tracker.addresses[0]) as client:
        for _ in range(3):
            client.connect()
        assert tracker.call(lambda: udp.wakes) >= 2


def test_a_socket_that_rests_is_left_alone_after_the_stop(tracker):
    udp = be_busy(tracker, True)
    with Client(tracker.addresses[0]) as client:
        client.connect()
        tracker.call(udp.stop, tracker.loop)
        assert tracker.call(lambda: (udp.resting, udp.watches)) == ({}, [])
