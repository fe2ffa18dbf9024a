"""A reverse proxy in front: whom the tracker lists, whom it believes, and that connections are kept."""

import os
import socket

import pytest
from clients.nginx import Nginx
from http_client import HttpClient, announce_target, peers_of, scrape_target
from trackers import Process

IGNORED = "shoal_http_forwarded_ignored_total"
BAD_REQUESTS = 'shoal_http_refusals_total{reason="bad_request"}'
CONNECTIONS = "shoal_http_connections_total"


@pytest.fixture(scope="module")
def tracker(tmp_path_factory):
    """A tracker that trusts proxies at IPv4's loopback addresses; ::1 is a stranger."""
    with Process(tmp_path_factory.mktemp("tracker"), trusted_proxies=["127.0.0.0/8"]) as tracker:
        yield tracker


@pytest.fixture(scope="module")
def nginx(tracker, tmp_path_factory):
    with Nginx(tmp_path_factory.mktemp("nginx"), tracker.addresses[0]) as nginx:
        yield nginx


@pytest.fixture
def swarm():
    """The info-hash of a torrent that nobody knows."""
    return os.urandom(20)


def announce(address, swarm, *headers, source=None, port=6881, **fields):
    """Announce on a connection of its own; the answer."""
    with HttpClient(address, source) as client:
        return client.announce(swarm, *headers, port=port, numwant=50, **fields)


def seen(answer):
    """The address that the tracker saw."""
    packed = answer[b"external ip"]
    return socket.inet_ntop(socket.AF_INET if len(packed) == 4 else socket.AF_INET6, packed)


def listed(tracker, swarm):
    """All who are listed in a swarm."""
    answer = announce(tracker.addresses[0], swarm, source="127.9.9.9", port=1)
    return sorted(peers_of(answer))


def forwarded(chain):
    return f"X-Forwarded-For: {chain}"


def test_clients_are_listed_and_not_the_proxy(tracker, nginx, swarm):
    assert seen(announce(nginx.addresses[1], swarm, port=7001)) == "::1"
    assert seen(announce(nginx.addresses[0], swarm, source="127.0.0.2", port=7002)) == "127.0.0.2"
    assert seen(announce(nginx.addresses[0], swarm, source="127.0.0.3", port=7003)) == "127.0.0.3"
    assert listed(tracker, swarm) == [("127.0.0.2", 7002), ("127.0.0.3", 7003), ("::1", 7001)]


@pytest.mark.parametrize(
    ("chain", "client"),
    [
        ("198.51.100.7", "198.51.100.7"),
        ("203.0.113.9, 198.51.100.7", "198.51.100.7"),
        ("203.0.113.9,198.51.100.7 , 127.0.0.8", "198.51.100.7"),
        ("2001:db8::7", "2001:db8::7"),
        ("::ffff:198.51.100.7", "198.51.100.7"),
        ("unknown, 198.51.100.7, 127.0.0.8", "198.51.100.7"),
    ],
)
def test_behind_more_proxies_it_is_the_last_who_is_none(tracker, nginx, swarm, chain, client):
    answer = announce(nginx.addresses[0], swarm, forwarded(chain), source="127.0.0.2", port=7001)
    assert seen(answer) == client
    assert listed(tracker, swarm) == [(client, 7001)]


def test_what_a_client_says_of_itself_through_the_proxy_is_not_believed(tracker, nginx, swarm):
    answer = announce(nginx.addresses[1], swarm, forwarded("198.51.100.7"), port=7001)
    assert seen(answer) == "::1"
    assert listed(tracker, swarm) == [("::1", 7001)]


def test_a_stranger_without_proxy_is_not_believed_and_counted(tracker, swarm):
    before = tracker.metrics()[IGNORED]
    answer = announce(tracker.addresses[1], swarm, forwarded("198.51.100.7"), port=7001)
    assert seen(answer) == "::1"
    assert listed(tracker, swarm) == [("::1", 7001)]
    assert tracker.metrics()[IGNORED] == before + 1


@pytest.mark.parametrize("chain", ["198.51.100", "198.51.100.7, unknown, 127.0.0.8"])
def test_what_a_proxy_passes_on_must_be_an_address(tracker, nginx, swarm, chain):
    before = tracker.metrics()[BAD_REQUESTS]
    with HttpClient(nginx.addresses[0], "127.0.0.2") as client:
        assert client.get(announce_target(swarm), forwarded(chain)).status == 400
    assert tracker.metrics()[BAD_REQUESTS] == before + 1
    assert listed(tracker, swarm) == []


def test_many_clients_share_a_kept_connection_to_the_tracker(tracker, nginx, swarm):
    announce(nginx.addresses[0], swarm, source="127.0.1.0", port=7000)  # now nginx has one, if it had none
    before = tracker.metrics()[CONNECTIONS]
    for last in range(1, 20):
        answer = announce(nginx.addresses[0], swarm, source=f"127.0.1.{last}", port=7000)
        assert seen(answer) == f"127.0.1.{last}"
    assert tracker.metrics()[CONNECTIONS] == before
    assert listed(tracker, swarm) == sorted((f"127.0.1.{last}", 7000) for last in range(20))


def test_announces_scrapes_and_pages_may_mix_on_a_kept_connection(tracker, nginx, swarm):
    with HttpClient(nginx.addresses[0], "127.0.0.2") as client:
        for port in (7001, 7002, 7003):
            assert seen(client.announce(swarm, port=port)) == "127.0.0.2"
            assert client.scrape(swarm) == {swarm: (0, 0, port - 7000)}
            page = client.get("/")
            assert (page.status, page.headers["content-type"]) == (200, "text/html; charset=utf-8")
            assert client.get("/health").status == 200
            assert client.get("/nowhere").status == 404
    assert listed(tracker, swarm) == [("127.0.0.2", port) for port in (7001, 7002, 7003)]


def test_many_ask_at_once(tracker, nginx, swarm):
    clients = []
    try:
        for last in range(1, 101):
            clients.append(HttpClient(nginx.addresses[0], f"127.0.2.{last}"))
            target = announce_target(swarm, port=7000, numwant=0)
            clients[-1].send(f"GET {target} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        assert [seen(client.receive().answer) for client in clients] == [f"127.0.2.{last}" for last in range(1, 101)]
        clients[0].send(f"GET {scrape_target(swarm)} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        assert clients[0].receive().answer[b"files"][swarm][b"incomplete"] == 100
    finally:
        for client in clients:
            client.close()
