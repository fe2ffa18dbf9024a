"""What a client sees when it asks several gateways of one cluster."""

import os

import pytest
from http_client import HttpClient, peers_of
from processes import Cluster
from trackers import STARTED, STOPPED, Client


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    """Two nodes, each with a gateway and a shard."""
    with Cluster(tmp_path_factory.mktemp("cluster"), gateways=2, shards=2, transport="curve", nodes=2) as running:
        yield running


@pytest.fixture
def nodes(cluster):
    """The addresses of the gateways of node A and node B."""
    return [cluster.gateway_address(name) for name in cluster.gateways]


# Each test asks for several torrents, so that some are kept by either shard.
MANY = 16


def test_c11_ids_are_good_at_every_gateway(nodes):
    """C11 Id issued by node 1 is accepted by node 2. [ana conn-client, btt udp-tracker, iss:node-torrent#21]"""
    for one, other in (nodes, nodes[::-1]):
        with Client(one) as first, Client(other) as second:
            second._id = first.connect()
            for _ in range(MANY):
                assert second.announce(os.urandom(20)).leechers == 1


def test_c141_what_is_announced_at_one_gateway_is_listed_at_another(nodes):
    """C141 An announce via UDP on node A is visible via HTTP on node B within the replication bound. [R]"""
    for one, other in (nodes, nodes[::-1]):
        with Client(one) as udp, HttpClient(other) as http:
            for _ in range(MANY):
                swarm = os.urandom(20)
                udp.announce(swarm, port=7001, left=0, event=STARTED)
                answer = http.announce(swarm, port=7002)
                assert peers_of(answer) == [(one[0], 7001)]
                assert (answer[b"complete"], answer[b"incomplete"]) == (1, 1)
                assert http.scrape(swarm) == {swarm: (1, 0, 1)}


def test_c142_who_stops_at_one_gateway_is_gone_from_all(nodes):
    """C142 stopped on node B removes a peer announced on node A. [R]"""
    for one, other in (nodes, nodes[::-1]):
        with Client(one) as first, Client(other) as second:
            for _ in range(MANY):
                swarm = os.urandom(20)
                first.announce(swarm, port=7001, left=0, event=STARTED)
                second.announce(swarm, port=7001, left=0, event=STOPPED)
                for client in (first, second):
                    assert client.scrape(swarm) == [(0, 0, 0)]
                    answer = client.announce(swarm, port=7002)
                    assert (answer.seeders, answer.peers) == (0, [])
                    client.announce(swarm, port=7002, event=STOPPED)
