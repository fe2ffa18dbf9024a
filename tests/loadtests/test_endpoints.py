import socket
from itertools import pairwise
from math import gcd

import pytest

from loadtests.load import endpoints
from loadtests.load.plan import Part, Target

HERE = Target(host="127.0.0.1", port=6969, seed=1)


def part(**more):
    return Part(kind="udp", rate=1, **{"torrents": 5, "sources": 4, "ports": 10, **more})


def test_swarms_shrink_by_a_power_law_and_have_a_peer_at_least():
    sizes = endpoints.sizes_of(100, 10_000, 0.5)
    assert sum(sizes) == 10_000
    assert all(one >= other for one, other in pairwise(sizes))
    assert sizes[0] / sizes[24] == pytest.approx(5, rel=0.1)
    assert list(endpoints.sizes_of(7, 7, 1)) == [1] * 7
    assert list(endpoints.sizes_of(3, 10, 0)) == [4, 3, 3]


@pytest.mark.parametrize(("torrents", "peers"), [(0, 5), (6, 5)])
def test_torrents_without_peers_are_refused(torrents, peers):
    with pytest.raises(ValueError, match="a peer for each"):
        endpoints.sizes_of(torrents, peers, 0.5)


def test_strides_are_coprime_to_the_count_of_peers():
    assert all(gcd(endpoints.stride_of(peers), peers) == 1 for peers in range(1, 2000))


def test_on_loopback_each_user_has_addresses_of_its_own_and_ipv6_has_one():
    first, second = (endpoints.find_routes(HERE, part(ipv6=0.5), number) for number in (0, 1))
    assert [route.family for route in first] == [socket.AF_INET] * 3 + [socket.AF_INET6]
    addresses = [route.address for route in (*first, *second) if route.family == socket.AF_INET]
    assert len(set(addresses)) == 6
    assert all(address.startswith("127.") for address in addresses)
    assert first[-1] == (socket.AF_INET6, "::1", "::1", 6969)
    assert first[0][2:] == ("127.0.0.1", 6969)
    assert [route.family for route in endpoints.find_routes(HERE, part(ipv6=0), 0)] == [socket.AF_INET] * 4


def test_without_ipv6_all_come_by_ipv4(monkeypatch):
    assert endpoints.has_ipv6()
    monkeypatch.setattr(endpoints, "LOOPBACK6", "192.0.2.1")
    assert not endpoints.has_ipv6()
    assert [route.family for route in endpoints.find_routes(HERE, part(ipv6=0.5), 0)] == [socket.AF_INET] * 4


def test_only_ipv6_can_be_asked_for_and_names_of_loopback_are_known():
    (route,) = endpoints.find_routes(Target(host="localhost", port=6969, seed=1), part(sources=1, ipv6=1), 0)
    assert route == (socket.AF_INET6, "::1", "::1", 6969)
    routes = endpoints.find_routes(Target(host="::1", port=6969, seed=1), part(ipv6=0.25), 0)
    assert [route.host for route in routes] == ["127.0.0.1"] * 3 + ["::1"]


def test_addresses_that_are_given_are_used_in_the_share_of_their_family():
    given = ("192.0.2.1", "2001:db8::1", "192.0.2.2", "2001:db8::2", "192.0.2.3")
    target = Target(host="localhost", port=6969, seed=1, sources=given)
    routes = endpoints.find_routes(target, part(ipv6=0.5, sources=4), 0)
    assert [route.address for route in routes] == ["192.0.2.1", "192.0.2.2", "2001:db8::1", "2001:db8::2"]
    routes = endpoints.find_routes(target, part(ipv6=0.5, sources=2), 0)
    assert [route.address for route in routes] == ["192.0.2.1", "2001:db8::1"]


def test_another_host_is_asked_from_the_address_that_leads_there():
    target = Target(host="127.0.0.1", port=6969, seed=1)
    assert endpoints.own_addresses(target, "::1", 3, 0) == ["::1"]


def test_no_source_at_all_is_refused():
    target = Target(host="192.0.2.1", port=6969, seed=1, sources=("::1",))
    with pytest.raises(ValueError, match="no source"):
        endpoints.find_routes(target, part(), 0)


@pytest.mark.parametrize(("sources", "number"), [(129, 0), (0, 0), (1, 60_000), (1, -1)])
def test_users_without_addresses_of_their_own_are_refused(sources, number):
    with pytest.raises(ValueError, match="sources"):
        endpoints.find_routes(HERE, part(sources=sources, ipv6=0), number)


def test_a_name_without_an_address_is_refused():
    with pytest.raises(OSError):
        endpoints.find_routes(Target(host="fe80::1%nowhere", port=6969, seed=1), part(), 0)


def test_a_population_has_the_peers_of_the_plan_and_torrents_of_the_run():
    one, routes = endpoints.make(HERE, part(), 0)
    assert (one.peers, one.sources, one.ports) == (40, len(routes), 10) == (40, 4, 10)
    assert {one.torrent_of(peer) for peer in range(40)} == set(range(5))
    others = [endpoints.make(HERE, part(), 1)[0], endpoints.make(Target(host="::1", port=1, seed=2), part(), 0)[0]]
    hashes = {population.info_hash(n) for population in (one, *others) for n in range(5)}
    assert len(hashes) == 15
