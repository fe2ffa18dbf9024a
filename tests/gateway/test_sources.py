"""Limits and networks of sources through the doors and HTTP's codec; how buckets work is tested with UDP's too."""

import pytest
from http_bench import Bench, announce_head, kernels_of
from trackers import as_ipv6

from common.values import Network
from gateway.service import pack_networks


@pytest.fixture(scope="module")
def module(kernel):
    return kernels_of(kernel)


@pytest.fixture
def bench(module):
    return Bench(module)


def passed(bench, many, source):
    """How many of so many announces of a source were not refused."""
    return sum(len(bench.ask(announce_head(), source)[0]) for _ in range(many))


@pytest.mark.parametrize("lengths", [(31, 0, 0), (0, 33, 0), (0, 0, 1), (32, 32, 16)])
def test_networks_have_their_lengths(bench, lengths):
    with pytest.raises(ValueError, match="a network has 16 bytes and a mask of 16"):
        bench.sources.set_networks(*map(bytes, lengths))


def test_the_last_one_refused_is_remembered(bench):
    assert bench.sources.last_refused() == b""
    bench.sources.set_limits(1, 1, 1, 1)
    for source in ("198.51.100.1", "2001:db8::1"):
        assert passed(bench, 2, source) == 1
        assert bench.sources.last_refused() == as_ipv6(source)


def test_a_source_is_an_address_or_a_64(bench):
    bench.sources.set_limits(1, 1, 5, 20)
    bench.sources.set_secret(0x0123_4567_89AB_CDEF)
    for source, left in (("2001:db8::1", 20), ("2001:db8::2", 0), ("2001:db8:0:1::", 20), ("198.51.100.1", 20)):
        assert passed(bench, 30, source) == left


def test_who_is_exempt_trusted_or_a_proxy_is_told_apart(bench):
    bench.sources.set_limits(1, 1, 5, 20)
    bench.sources.set_networks(*(pack_networks([Network(f"10.{n}.0.0/16")]) for n in (1, 2, 3)))
    for source, left in (("10.1.0.0", 30), ("10.1.255.255", 30), ("10.2.0.1", 20), ("10.3.0.1", 20), ("10.0.0.1", 20)):
        assert passed(bench, 30, source) == left
    head = announce_head(bytes(20), b"ip=8.8.8.8", lines=[b"X-Forwarded-For: 9.9.9.9"])
    bench.now += 100_000_000
    seen = {}
    for source in ("10.1.0.1", "10.2.0.1", "10.3.0.1"):
        ((record,), _, _) = bench.ask(head, source)
        seen[source] = record[76:92]
    assert seen == {"10.1.0.1": as_ipv6("10.1.0.1"), "10.2.0.1": as_ipv6("8.8.8.8"), "10.3.0.1": as_ipv6("9.9.9.9")}


def test_masks_of_any_length(bench):
    bench.sources.set_limits(1, 1, 1, 1)
    for network, inside, outside in (
        ("192.0.2.128/25", "192.0.2.129", "192.0.2.127"),
        ("192.0.2.1/32", "192.0.2.1", "192.0.2.0"),
        ("2001:db8:0:0:8000::/65", "2001:db8::8000:0:0:1", "2001:db8::7fff:0:0:1"),
        ("2001:db8::/33", "2001:db8:7fff::1", "2001:db8:8000::1"),
        ("::/0", "2001:db8::1", None),
        ("0.0.0.0/0", "203.0.113.1", "2001:db8::1"),
    ):
        bench.sources.set_networks(pack_networks([Network(network)]), b"")
        assert passed(bench, 3, inside) == 3
        bench.now += 100_000_000
        if outside:
            assert passed(bench, 3, outside) == 1
