"""The web application on the tracker's port: the page, health, methods, connections that are idle."""

import json
import os
import socket

import pytest
from http_client import HttpClient, announce_target, request
from http_tracker import Tracker, clean

from gateway.web import IDLE, words_of


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
    tracker.tracker.failed.add("a task")
    response = client.get("/health")
    assert (response.status, json.loads(response.body)) == (503, {"ok": False})
    tracker.tracker.failed.clear()


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


@pytest.mark.parametrize(
    ("text", "packed"),
    [
        ("192.0.2.1", bytes(10) + b"\xff\xff\xc0\0\2\1"),
        ("2001:db8::1", socket.inet_pton(socket.AF_INET6, "2001:db8::1")),
        ("fe80::1%eth0", socket.inet_pton(socket.AF_INET6, "fe80::1")),
    ],
)
def test_addresses_as_words(text, packed):
    assert b"".join(word.to_bytes(8, "little") for word in words_of(text)) == packed
