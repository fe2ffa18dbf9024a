"""Every byte of the answers to announces: families, lists of dictionaries, numbers, and addresses in text."""

from ipaddress import IPv6Address

import pytest
from http_bench import (
    CLOSE,
    HEAD,
    HOST,
    HOST6,
    Bench,
    announce_body,
    announce_head,
    announce_reply,
    answer_of,
    kernels_of,
    pack_peers,
)
from http_client import decode
from hypothesis import example, given, settings
from hypothesis import strategies as st

from gateway import http_texts

FOURS = [("192.0.2.1", 6881), ("8.8.8.8", 2), ("255.255.255.255", 65535)]
SIXES = [("2001:db8::1", 6881), ("::", 80), ("1:2:3:4:5:6:7:8", 443)]


@pytest.fixture(scope="module")
def bench(kernel):
    return Bench(kernels_of(kernel), most=4)


def ask(bench, head, source=HOST, **reply):
    """The answer to an announce that a shard replies to so."""
    (place,) = bench.put(head, source=source)
    (record,), _ = bench.decode()
    ((answered, answer, _),) = bench.reply(announce_reply(record[:48], **reply))
    assert answered == place
    bench.connections.close_inner(place)
    return answer


@pytest.mark.parametrize("fours", [FOURS, []])
@pytest.mark.parametrize("sixes", [SIXES, []])
@pytest.mark.parametrize("source", [HOST, HOST6])
def test_peers_of_both_families(bench, source, fours, sixes):
    ipv6 = source == HOST6
    peers = {"peers": pack_peers(fours)}
    if sixes or ipv6:
        peers["peers6"] = pack_peers(sixes)
    wanted = answer_of(announce_body(source, **peers))
    assert ask(bench, announce_head(), source, fours=fours, sixes=sixes, ipv6=ipv6) == wanted


@pytest.mark.parametrize("source", [HOST, HOST6])
def test_peers_as_dictionaries(bench, source):
    listed = [{b"ip": host.encode(), b"port": port} for host, port in FOURS + SIXES]
    head = announce_head(bytes(20), b"compact=0", b"no_peer_id=1")
    answer = ask(bench, head, source, fours=FOURS, sixes=SIXES, ipv6=source == HOST6)
    assert answer == answer_of(announce_body(source, peers=listed))
    assert ask(bench, head, source) == answer_of(announce_body(source, peers=[]))


def test_the_largest_answers(bench):
    sixes = [(f"2001:db8:ffff:ffff:ffff:ffff:ffff:{0xF000 + n:x}", 65535) for n in range(200)]
    listed = [{b"ip": host.encode(), b"port": port} for host, port in sixes]
    answer = ask(bench, announce_head(bytes(20), b"compact=0"), sixes=sixes)
    assert answer == answer_of(announce_body(peers=listed))
    answer = ask(bench, announce_head(), sixes=sixes, fours=[])
    assert answer == answer_of(announce_body(peers=b"", peers6=pack_peers(sixes)))
    fours = [("255.255.255.255", n) for n in range(200)]
    assert ask(bench, announce_head(), fours=fours) == answer_of(announce_body(peers=pack_peers(fours)))


@pytest.mark.parametrize("counts", [(0, 0, 0), (9, 10, 11), (4294967295, 4294967295, 4294967295)])
@pytest.mark.parametrize("interval", [60, 1801, 4294967295])
def test_numbers(bench, counts, interval):
    wanted = answer_of(announce_body(counts=counts, interval=interval, peers=b""))
    assert ask(bench, announce_head(), counts=counts, interval=interval) == wanted


def test_what_a_request_asks_of_its_answer(bench):
    body = announce_body(peers=pack_peers(FOURS))
    closing = announce_head(lines=[b"Connection: close"])
    assert ask(bench, closing, fours=FOURS) == answer_of(body, CLOSE)
    assert ask(bench, closing.replace(b"GET", b"HEAD"), fours=FOURS) == answer_of(body, CLOSE | HEAD)
    assert ask(bench, announce_head().replace(b"GET", b"HEAD"), fours=FOURS) == answer_of(body, HEAD)


def test_answers_lie_side_by_side(bench):
    """Their lengths are told apart, one by one."""
    places = bench.put(*[announce_head()] * 4)
    records, _ = bench.decode()
    replies = [announce_reply(record[:48], FOURS[:n]) for n, record in enumerate(records)]
    wanted = [(place, answer_of(announce_body(peers=pack_peers(FOURS[:n]))), 0) for n, place in enumerate(places)]
    assert bench.reply(*replies) == wanted
    for place in places:
        bench.connections.close_inner(place)


def text_of(bench, packed):
    """How an IPv6 address of 16 bytes is written."""
    head = announce_head(bytes(20), b"compact=0")
    body = ask(bench, head, sixes=[(str(IPv6Address(packed)), 1)]).partition(b"\r\n\r\n")[2]
    (peer,) = decode(body)[b"peers"]
    assert list(peer) == [b"ip", b"port"]
    return peer[b"ip"].decode()


def test_ipv6_is_written_as_rfc_5952_has_it(bench):
    groups = st.one_of(st.just(0), st.integers(0, 0xFFFF), st.sampled_from([1, 0xF, 0x10, 0xFF, 0x100, 0xFFF, 0x1000]))

    @settings(max_examples=300, deadline=None, database=None)
    @given(st.lists(groups, min_size=8, max_size=8))
    @example([0] * 8)
    @example([0, 0, 1, 0, 0, 1, 0, 0])
    @example([1, 0, 0, 1, 0, 0, 0, 1])
    @example([1, 0, 1, 0, 1, 0, 1, 0])
    @example([0, 0, 0, 0, 0, 0, 0, 1])
    @example([1, 0, 0, 0, 0, 0, 0, 0])
    @example([0, 1, 1, 1, 1, 1, 1, 0])
    @example([0xFFFF] * 8)
    def check(groups):
        address = IPv6Address(b"".join(group.to_bytes(2, "big") for group in groups))
        if address.ipv4_mapped is None:  # such a peer is one of IPv4
            assert text_of(bench, address.packed) == address.compressed

    check()


def test_failures_of_http_itself_are_whole_answers():
    for fault in range(http_texts.CROWD + 1):
        head, _, body = http_texts.failure(fault, 1800).partition(b"\r\n\r\n")
        if fault in http_texts.STATUS or fault == http_texts.CROWD:
            assert head.startswith(b"HTTP/1.1 " + http_texts.STATUS.get(fault, "200 OK").encode() + b"\r\n")
            assert b"Connection: close" in head
            assert head.endswith(b"Content-Length: %d" % len(body))
        else:
            head, body = b"", http_texts.failure(fault, 1800)
        reason, retry = http_texts.REASONS[fault]
        soon = retry != "never"
        assert decode(body) == {
            b"failure reason": reason.encode(),
            b"interval": 300 if soon else 1800,
            b"min interval": 300 if soon else 900,
            b"retry in": str(retry).encode(),
        }
