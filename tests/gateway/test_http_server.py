"""The server's side of a turn that clients cannot reach from outside."""

import asyncio
import os

import pytest
from http_bench import PEER_ID, announce_head, escape, head_of, scrape_head, words
from http_client import HttpClient, announce_target, decode, request
from http_tracker import Tracker, clean
from ports import free_port

from gateway.http_places import WAITING
from gateway.http_server import KEPT


@pytest.fixture
def tracker(tmp_path):
    with Tracker(tmp_path) as tracker, clean(tracker):
        yield tracker


def ask(tracker, head, host="198.51.100.1"):
    """The answer to a request of the web application."""

    async def run():
        future = asyncio.get_running_loop().create_future()
        tracker.http.ask(head, words(host), future)
        return await future

    return tracker.wait_for(run())


def failure_in(answer):
    return decode(answer.partition(b"\r\n\r\n")[2]).get(b"failure reason")


def test_requests_of_the_web_application_are_answered(tracker):
    answer = decode(ask(tracker, announce_head(), "8.8.8.8").partition(b"\r\n\r\n")[2])
    assert answer[b"external ip"] == bytes([8, 8, 8, 8])
    answer = decode(ask(tracker, scrape_head(bytes(20))).partition(b"\r\n\r\n")[2])
    assert answer[b"files"][bytes(20)][b"incomplete"] == 1
    assert failure_in(ask(tracker, head_of(b"/scrape"))) == b"full scrape not allowed"


@pytest.mark.parametrize(
    "head",
    [head_of(b"/"), head_of(b"/%61nnounce?"), head_of(b"/scrape", method=b"PUT"), b"GET", b"", b"nonsense\n"],
)
def test_what_the_codec_leaves_to_others_is_refused(tracker, head):
    """There is no connection that could be given away or read on."""
    for _ in range(3):
        assert failure_in(ask(tracker, head)) == b"malformed request"


@pytest.mark.parametrize("many", [8193, 9000, 20_000])
def test_too_long_a_head_is_refused(tracker, many):
    before = tracker.refused("long_target")
    assert failure_in(ask(tracker, b"GET /announce?" + b"a" * many)) == b"request target too long"
    assert tracker.refused("long_target") == before + 1


def test_who_finds_no_place_is_told(tracker):
    places = []
    while (place := tracker.call(tracker.connections.open_inner, 1, 2)) >= 0:
        places.append(place)
    assert failure_in(ask(tracker, announce_head())) == b"too many connections"
    for place in places:
        tracker.call(tracker.connections.close_inner, place)


def test_its_metrics_are_shown(tmp_path):
    with Tracker(tmp_path, admin=f"127.0.0.1:{free_port()}") as tracker, clean(tracker):
        with HttpClient(tracker.address) as client:
            client.announce(os.urandom(20))
            client.refused("/announce?info_hash=x")
            client.get("/")
        text = tracker.call(tracker.tracker.metrics.text).decode()
        for line in (
            'shoal_http_requests_total{kind="announce"} 2.0',
            'shoal_http_answers_total{kind="announce"} 1.0',
            'shoal_http_refusals_total{reason="bad_hash"} 1.0',
            'shoal_http_refusals_total{reason="connections_of_source"} 0.0',
            'shoal_http_dropped_total{reason="slow"} 0.0',
            "shoal_http_open 0.0",
        ):
            assert line in text.splitlines()


def test_all_connections_end_with_the_tracker(tmp_path):
    with Tracker(tmp_path) as tracker:
        clients = [HttpClient(tracker.address) for _ in range(3)]
        clients[0].announce(os.urandom(20))
        clients[1].send(b"GET /announce?")
        clients[2].get("/")
    for client in clients:
        assert client.ended()
        client.close()


def place_of(tracker):
    """The place of the only connection."""
    (place,) = tracker.connections.everywhere()
    return place


def test_no_more_is_kept_than_is_said(tracker):
    """While an answer is awaited, that is: the shard is not asked here."""
    with HttpClient(tracker.address) as client:
        client.announce(os.urandom(20))  # from then on it is watched
        links, tracker.tracker.gateway.router.links = tracker.tracker.gateway.router.links, []
        client.send(request(announce_target(os.urandom(20))))
        tracker.wait_until(lambda: tracker.connections.look(place_of(tracker))[0] == WAITING)
        client.send(bytes(KEPT))
        tracker.wait_for_bytes(KEPT)
        client.send(b"x")
        tracker.wait_for_places(0)
    assert tracker.http.flooded == 1
    tracker.tracker.gateway.router.links = links
    tracker.call(tracker.http.router.dispatch)  # a reply to nobody


def test_a_late_answer(tracker):
    """No shard answers: the client is told to come back soon, and what it asked behind is dropped."""
    links, tracker.tracker.gateway.router.links = tracker.tracker.gateway.router.links, []
    head = head_of(b"/announce?info_hash=" + escape(bytes(20)) + b"&port=1&peer_id=" + PEER_ID)
    with HttpClient(tracker.address) as client:
        client.send(head + b"GET")
        tracker.wait_for_bytes(3)
        tracker.tick(3)
        assert tracker.connections.open_places() == 1
        tracker.tick(2)
        answer = client.receive()
        assert answer.headers["connection"] == "close"
        assert answer.answer[b"peers"] == b""
        assert 120 <= answer.answer[b"interval"] <= 300
        assert client.ended()
    tracker.tracker.gateway.router.links = links
    tracker.call(tracker.http.router.dispatch)
