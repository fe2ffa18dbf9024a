"""Announcing over UDP."""

import os
from collections import Counter

import pytest
from trackers import (
    COMPLETED,
    NONE,
    PAUSED,
    STARTED,
    STOPPED,
    action_of,
    announce_request,
    dual_stack,
    is_answer,
    is_error,
)

MOST_INT = (1 << 31) - 1
WANTS = (-(1 << 31), -2, -1, 0, 1, 2, 49, 50, 51, 66, 67, 68, 100, 199, 200, 201, 242, 243, 1000, MOST_INT)


def test_c21_announce_has_98_bytes(client, swarm):
    """C21 98-byte announce accepted; 97-byte not treated as an announce. [BEP15]"""
    request = announce_request(client.id, swarm, left=0)
    (reply,) = client.exchange(request[:97])
    assert is_error(reply, request)
    assert client.scrape(swarm) == [(0, 0, 0)]
    assert is_answer(client.ask(request), request)
    assert client.scrape(swarm) == [(1, 0, 0)]


def test_c22_aria2_sends_100_bytes(client, swarm):
    """C22 100-byte announce ending 00 00 accepted. [a2 createUDPTrackerAnnounce]"""
    assert client.announce(swarm, tail=b"\0\0").leechers == 1


def test_c23_what_follows_an_announce_does_no_harm(client, swarm):
    """C23 Announce with 1000 trailing garbage bytes is accepted as if 98. [BEP15]"""
    for port, garbage in enumerate((bytes(1000), b"\xff" * 1000, b"\x02" * 1000, os.urandom(1000)), 2000):
        assert client.announce(swarm, port=port, tail=garbage).leechers == port - 1999


def test_c24_left_is_the_second_amount(client, swarm):
    """C24 Field order downloaded, left, uploaded honoured (left at 64). [BEP15]"""
    answer = client.announce(swarm, port=2000, downloaded=7, left=0, uploaded=9)
    assert (answer.leechers, answer.seeders) == (0, 1)
    answer = client.announce(swarm, port=2001, downloaded=0, left=5, uploaded=0)
    assert (answer.leechers, answer.seeders) == (1, 1)


def test_c25_events(client, swarm):
    """C25 Events 0,1,2,3 map none, completed, started, stopped. [BEP15]"""
    client.announce(swarm, port=2000, event=NONE)
    client.announce(swarm, port=2001, event=STARTED)
    assert client.scrape(swarm) == [(0, 0, 2)]
    client.announce(swarm, port=2001, event=COMPLETED, left=0)
    assert client.scrape(swarm) == [(1, 1, 1)]
    client.announce(swarm, port=2000, event=STOPPED)
    assert client.scrape(swarm) == [(1, 1, 0)]


def test_c26_paused_is_accepted(client, swarm):
    """C26 Event 4 is accepted as paused. [lt event_t::paused, btt EVENT_IDS]"""
    assert client.announce(swarm, event=PAUSED, left=5).leechers == 1


def test_c27_unknown_events_are_none(client, swarm):
    """C27 Event 5, 255, 0xffffffff treated as none. (P) [ot default branch]"""
    for event in (5, 6, 7, 8, 255, 1 << 8, 3 << 8, 3 << 24, 0xFFFFFFFF):
        client.announce(swarm, event=event, left=0)
        assert client.scrape(swarm) == [(1, 0, 0)]


def test_c28_unknown_left_is_a_leecher(client, swarm):
    """C28 left = 0xffffffffffffffff is a leecher. [ana, btt, xbt left >= -1]"""
    for left in ((1 << 64) - 1, 1 << 63, 1 << 32, 1 << 8):
        answer = client.announce(swarm, left=left)
        assert (answer.leechers, answer.seeders) == (1, 0)


def test_c29_num_want_is_clamped(client, client6, crowd):
    """C29 num_want -1 -> default; 0 -> zero peers; 1 -> one; 2^31-1 -> cap; other negatives -> default. [BEP15; a2,
    ana use 0]
    """
    for want, many, many6 in (
        (-1, 50, 50), (-2, 50, 50), (-(1 << 31), 50, 50), (0, 0, 0), (1, 1, 1), (50, 50, 50), (200, 200, 67),
        (201, 200, 67), (MOST_INT, 200, 67),
    ):  # fmt: skip
        assert len(client.announce(crowd, want=want, ip="9.9.9.9").peers) == many
        assert len(client6.announce(crowd, want=want, port=999).peers) == many6


@pytest.mark.parametrize("want", WANTS)
def test_c30_reply_is_a_whole_number_of_peers(client, client6, crowd, want):
    """C30 Reply length = 20 + 6k for v4 source, 20 + 18k for v6 source, never other. [lt on_announce_response]"""
    for asker, stride in ((client, 6), (client6, 18)):
        reply = asker.ask(announce_request(asker.id, crowd, want=want, ip="9.9.9.9"))
        many = len(reply[20:]) // stride
        assert len(reply) == 20 + stride * many
        assert many == 0 or 0 < many <= want or want < 0


def test_c31_order_of_the_reply(client, swarm):
    """C31 Reply order interval, leechers, seeders. [BEP15]"""
    for port in (2000, 2001):
        client.announce(swarm, port=port, left=5)
    answer = client.announce(swarm, port=2002, left=0)
    assert 1620 <= answer.interval <= 1980
    assert answer.leechers == 2
    assert answer.seeders == 1


def test_c32_families_are_kept_apart(client, client6, swarm):
    """C32 v4 requester never receives v6 entries over UDP and vice versa. [BEP15]"""
    client.announce(swarm, port=2004)
    client6.announce(swarm, port=2006)
    assert client.announce(swarm, port=2000).peers == [("127.0.0.1", 2004)]
    assert client6.announce(swarm, port=2000).peers == [("::1", 2006)]
    assert client.announce(swarm, port=2000).leechers == 4


def test_c33_mapped_requester_gets_ipv4_peers(local, client_of, swarm):
    """C33 v4-mapped requester receives 6-byte entries. [R, aq]"""
    tracker = local(listen=["127.0.0.1:0"], sockets=[dual_stack()])
    port = tracker.addresses[0][1]
    for number, mapped in enumerate([client_of(("127.0.0.1", port)), client_of(("127.0.0.2", port))]):
        answer = mapped.announce(swarm, port=2000 + number)
        assert answer.peers == [("127.0.0.1", 2000)][:number]
    assert client_of(("::1", port)).announce(swarm).peers == []


def test_c34_the_source_is_the_peer(local, client_of, swarm):
    """C34 Peer address stored is the packet source even when the IP field is non-zero. [BEP15, BEP7; chi
    allow_ip_spoofing=false]
    """
    client = client_of(local().addresses[0])
    client.announce(swarm, port=2000, ip="8.8.8.8")
    assert client.announce(swarm, port=2001).peers == [("127.0.0.1", 2000)]


def test_c35_ip_field_of_the_trusted(local, client_of, swarm):
    """C35 IP field honoured only from a configured trusted network. (P) [BEP3 ip, BEP15]"""
    tracker = local(trust_ip_field=["127.0.0.2", "127.1.0.0/16"], listen=["0.0.0.0:0"])
    port = tracker.addresses[0][1]
    for number, source in enumerate(("127.0.0.1", "127.0.0.2", "127.0.0.3", "127.1.2.3", "127.2.2.3")):
        client_of((source, port)).announce(swarm, port=2000 + number, ip="8.8.8.8")
    asker = client_of(("127.0.0.1", port))
    assert set(asker.announce(swarm, port=3000).peers) == {
        ("127.0.0.1", 2000), ("8.8.8.8", 2001), ("127.0.0.3", 2002), ("8.8.8.8", 2003), ("127.2.2.3", 2004),
    }  # fmt: skip


def test_c36_ip_field_means_nothing_on_ipv6(client6, swarm):
    """C36 Non-zero IP field on v6 is ignored. [BEP15]"""
    client6.announce(swarm, port=2000, ip="8.8.8.8")
    assert client6.announce(swarm, port=2001).peers == [("::1", 2000)]


@pytest.mark.parametrize("port", [0, 1])
def test_c37_ports_0_and_1_are_served_and_not_listed(client, client6, swarm, port):
    """C37 Port 0 and port 1: reply is a normal announce reply; the endpoint is never listed to others. (P)
    [iss:libtorrent#4396, #5315]
    """
    for asker, host in ((client, "127.0.0.1"), (client6, "::1")):
        before = asker.announce(swarm, port=2000).leechers
        assert asker.announce(swarm, port=port).peers == [(host, 2000)]
        answer = asker.announce(swarm, port=2001)
        assert answer.peers == [(host, 2000)]
        assert answer.leechers == before + 2


def test_c38_keys_mean_nothing(client, swarm):
    """C38 Any key value accepted; changing key between announces is not an error. [a2 random key]"""
    for key in (0, 1, 0x80000000, 0xFFFFFFFF):
        assert client.announce(swarm, key=key).leechers == 1


def test_c39_peer_id_may_be_the_info_hash(client, swarm):
    """C39 peer_id equal to info_hash accepted. [ntk]"""
    assert client.announce(swarm, peer_id=swarm).leechers == 1


def test_c40_bad_ids_change_nothing(client, swarm):
    """C40 Announce with a bad id never changes swarm state. [BEP15]"""
    client.announce(swarm, port=2000, left=5)
    known = bytes([client.id[0] ^ 1]) + client.id[1:]
    for event in (NONE, COMPLETED, STARTED, STOPPED, PAUSED):
        for port in (2000, 2001):
            request = announce_request(known, swarm, event=event, left=0, port=port)
            assert all(action_of(reply) == 3 for reply in client.exchange(request))
            assert client.scrape(swarm) == [(0, 0, 1)]


def test_c41_a_datagram_may_come_twice(client, swarm):
    """C41 Identical announce delivered twice leaves counts and completed unchanged. [BEP15 retransmit]"""
    client.announce(swarm, left=5)
    for event, counts in ((STARTED, (1, 1, 0)), (COMPLETED, (1, 1, 0)), (STOPPED, (0, 1, 0))):
        request = announce_request(client.id, swarm, event=event, left=0)
        for _ in range(2):
            assert is_answer(client.ask(request), request)
            assert client.scrape(swarm) == [counts]


@pytest.mark.parametrize("want", WANTS)
def test_c42_no_reply_is_fragmented(client, client6, crowd, want):
    """C42 Announce reply never larger than 1472 (v4) / 1232 (v6) bytes for any num_want. [lt 1500-byte buffer]"""
    assert len(client.ask(announce_request(client.id, crowd, want=want, ip="9.9.9.9"))) <= 1472
    assert len(client6.ask(announce_request(client6.id, crowd, want=want))) <= 1232


def test_c43_nobody_is_listed_to_himself(client, client6, swarm, crowd):
    """C43 Requester's own endpoint absent from the reply. (S) [aq, chi]"""
    for asker in (client, client6):
        for left in (0, 1):
            assert asker.announce(swarm, left=left).peers == []
    seen = Counter()
    for _ in range(20):
        peers = client.announce(crowd, want=200, ip="8.8.0.7").peers
        assert len(set(peers)) == len(peers)
        seen.update(peers)
    assert ("8.8.0.7", 6881) not in seen
    assert ("8.8.0.8", 6881) in seen


def test_c44_who_stops_gets_no_peers(client, crowd):
    """C44 stopped reply: valid announce reply with zero peers. [ot, u3d; lt sends num_want 0]"""
    before = client.announce(crowd, ip="9.9.9.9")
    answer = client.announce(crowd, ip="9.9.9.9", event=STOPPED, want=50)
    assert answer.peers == []
    assert (answer.leechers, answer.seeders) == (before.leechers - 1, before.seeders)


def test_c45_an_unknown_peer_may_stop(local, client_of, swarm):
    """C45 stopped for an unknown peer is success, creates nothing. [btt, xbt]"""
    tracker = local()
    client = client_of(tracker.addresses[0])
    assert client.announce(swarm, event=STOPPED)[1:] == (0, 0, [])
    assert tracker.call(tracker.store.swarm_count) == 0
    client.announce(swarm, port=2000)
    assert client.announce(swarm, port=2001, event=STOPPED)[1:] == (1, 0, [])
