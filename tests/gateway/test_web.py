"""The web application on the tracker's port: the page, health, methods, connections that are idle."""

import json
import os
import socket
import struct
from contextlib import ExitStack

import pytest
from http_client import HttpClient, announce_target, request
from http_tracker import Tracker, clean

from gateway.web import IDLE


@pytest.fixture
def tracker(tmp_path):
    with Tracker(tmp_path, listen=("127.0.0.1:0", "[::1]:0")) as tracker, clean(tracker):
        yield tracker


@pytest.fixture
def client(tracker):
    with HttpClient(tracker.address) as client:
        yield client


def test_the_page_shows_totals(client):
    client.announce(os.urandom(20), left=0)
    page = client.get("/")
    assert page.status == 200
    assert page.headers["content-type"].startswith("text/html")
    assert b"<td>seeders</td><td>1</td>" in page.body


def test_health(tracker, client):
    response = client.get("/health")
    assert (response.status, json.loads(response.body)) == (200, {"ok": True})
    tracker.tracker.periodic.failed.add("a task")
    response = client.get("/health")
    assert (response.status, json.loads(response.body)) == (503, {"ok": False})
    tracker.tracker.periodic.failed.clear()


@pytest.mark.parametrize(
    ("method", "target", "status"),
    [("POST", "/announce", 405), ("PUT", "/scrape", 405), ("GET", "/x", 404), ("HEAD", "/", 200), ("HEAD", "/x", 404)]
    + [("DELETE", "/", 405), ("OPTIONS", "/announce", 405), ("GET", "/announce/x", 404), ("GET", "/announced", 404)],
)
def test_status_of_other_requests(client, method, target, status):
    response = client.get(target, method=method)
    assert response.status == status
    assert response.body == b"" or method != "HEAD"
    assert client.get("/health").status == 200  # the connection goes on


def test_malformed_requests_are_counted_and_not_logged(tracker, client, caplog):
    client.get("/x")
    client.socket.sendall(b"gar\0bage\r\n\r\n")
    assert client.receive().status == 400
    assert tracker.tracker.gateway.web.malformed == 1
    assert caplog.records == []


def test_an_announce_on_its_connections_is_like_any_other(tracker):
    info_hash = os.urandom(20)
    for address, packed in zip(tracker.addresses, (bytes([127, 0, 0, 1]), bytes(15) + b"\1"), strict=False):
        with HttpClient(address) as client:
            fast = client.get(announce_target(info_hash, port=1000))
            client.get("/")
            slow = client.get(announce_target(info_hash, port=1000))
            assert fast.answer[b"external ip"] == slow.answer[b"external ip"] == packed
            assert {**fast.answer, b"interval": 0, b"min interval": 0} == {
                **slow.answer,
                b"interval": 0,
                b"min interval": 0,
            }
            assert client.get("/announce?info_hash=%zz").answer[b"failure reason"] == b"invalid info_hash"
            head = client.get(announce_target(info_hash), method="HEAD")
            assert (head.status, head.body) == (200, b"")


def test_an_idle_connection_is_closed(tracker, client):
    client.get("/")

    def grow_old():
        for handler in tracker.web.heard:
            tracker.web.heard[handler] -= IDLE

    tracker.tick()
    client.get("/health")
    tracker.call(grow_old)
    tracker.tick()
    assert client.ended()


def test_an_idle_connection_that_is_not_read_is_closed_too(tracker):
    with HttpClient(tracker.address) as client:
        client.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
        client.socket.sendall(request("/nowhere") * 500)
        tracker.wait_until(lambda: tracker.web.requests == 500)
        for handler in tracker.web.heard:
            tracker.web.heard[handler] -= IDLE
        tracker.call(tracker.web.tick)
        tracker.wait_until(lambda: all(handler.transport is None for handler in tracker.web.heard))
    tracker.call(tracker.web.tick)
    assert not tracker.web.heard


def test_a_source_goes_on_to_have_a_connection_that_was_given_away(tmp_path):
    limits = {"exempt": []}
    with Tracker(tmp_path, limits=limits, http={"per_source": 3}) as tracker, clean(tracker), ExitStack() as stack:
        for _ in range(3):
            assert stack.enter_context(HttpClient(tracker.address)).get("/nowhere").status == 404
        with HttpClient(tracker.address) as client:
            assert b"too many connections" in client.get("/nowhere").body
        stack.close()
        tracker.wait_until(lambda: all(handler.transport is None for handler in tracker.web.heard))
        tracker.call(tracker.web.tick)
        with HttpClient(tracker.address) as client:
            assert client.get("/nowhere").status == 404


def test_who_is_gone_announces_with_its_own_address(tracker):
    info_hash = os.urandom(20)
    for _ in range(20):
        with socket.create_connection(tracker.address) as sock:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            sock.sendall(request(announce_target(info_hash, left=1).replace("/announce", "/%61nnounce")))
    tracker.wait_until(lambda: not tracker.web.coming)
    with HttpClient(tracker.address) as client:
        assert b"\0\0\0\0" not in client.announce(info_hash)[b"peers"]


def test_requests_are_counted(tracker, client):
    before = tracker.web.requests
    for _ in range(3):
        client.get("/")
    assert tracker.web.requests == before + 3


def test_a_pipeline_goes_on_with_the_web_application(tracker, client):
    client.send(
        request(announce_target(os.urandom(20))) + request("/health") + request(announce_target(os.urandom(20)))
    )
    assert [client.receive().status for _ in range(3)] == [200, 200, 200]
