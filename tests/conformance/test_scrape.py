"""Scraping over UDP, errors, and what gets no answer at all."""

import os
import struct

from trackers import (
    COMPLETED,
    SCRAPE,
    action_of,
    announce_request,
    connect_request,
    is_answer,
    is_error,
    parse_counts,
    scrape_request,
)

BAD_ID = b"\xff" * 8


def request(connection_id, action, length):
    """A request of any action, cut or filled to a length."""
    return (connection_id + struct.pack(">I", action) + os.urandom(max(4, length - 12)))[:length]


def test_c56_counts_come_in_the_order_asked(client):
    """C56 N hashes -> 8+12N bytes, order preserved, order within entry seeders, completed, leechers. [BEP15]"""
    one, two, three = hashes = [os.urandom(20) for _ in range(3)]
    client.announce(one, port=2000, event=COMPLETED, left=0)
    for port in (2000, 2001):
        client.announce(two, port=port)
    client.announce(three, port=2000, left=0)
    counts = {one: (1, 1, 0), two: (0, 0, 2), three: (1, 0, 0)}
    for order in (hashes, hashes[::-1], [two, one, three]):
        reply = client.ask(scrape_request(client.id, *order))
        assert len(reply) == 8 + 12 * 3
        assert parse_counts(reply) == [counts[info_hash] for info_hash in order]


def test_c57_unknown_torrents_are_zeros_in_their_place(client, swarm):
    """C57 Unknown hash -> 12 zero bytes in place. [xbt, ot]"""
    client.announce(swarm)
    assert client.scrape(os.urandom(20), swarm, os.urandom(20)) == [(0, 0, 0), (0, 0, 1), (0, 0, 0)]
    assert client.ask(scrape_request(client.id, os.urandom(20)))[8:] == bytes(12)


def test_c58_a_hash_may_be_asked_twice(client, swarm):
    """C58 Duplicate hashes -> duplicate entries. [BEP15 positional; ana count check]"""
    client.announce(swarm)
    assert client.scrape(swarm, swarm, os.urandom(20), swarm) == [(0, 0, 1), (0, 0, 1), (0, 0, 0), (0, 0, 1)]


def scrape_many(client, many):
    """Scrape many torrents, each with one more leecher than the one before, in turn up to 4."""
    hashes = [os.urandom(20) for _ in range(many)]
    for number, info_hash in enumerate(hashes):
        for port in range(2000, 2000 + number % 5):
            client.announce(info_hash, port=port)
    return client.scrape(*hashes)


def test_c59_74_hashes(client):
    """C59 74 hashes (1496-byte datagram) answered fully. [BEP15]"""
    assert scrape_many(client, 74) == [(0, 0, number % 5) for number in range(74)]


def test_c60_more_than_74_hashes(client):
    """C60 More than 74 -> at most 74 entries, no error. (P) [aq, chi truncation; tr tolerant]"""
    for many in (75, 100, 200):
        assert scrape_many(client, many) == [(0, 0, number % 5) for number in range(74)]


def test_c61_part_of_a_hash_is_ignored(client, swarm):
    """C61 Trailing partial hash ignored. (P)"""
    client.announce(swarm)
    for rest in (1, 4, 19):
        assert client.scrape(swarm, bytes(rest)) == [(0, 0, 1)]
        assert client.scrape(swarm, swarm, bytes(rest)) == [(0, 0, 1)] * 2


def test_c62_a_scrape_needs_hashes(client):
    """C62 Zero hashes with valid id -> error; with invalid id -> nothing. (P) [aq]"""
    for rest in (b"", bytes(1), bytes(19)):
        empty = scrape_request(client.id, rest)
        (reply,) = client.exchange(empty)
        assert is_error(reply, empty)
        assert client.exchange(BAD_ID + empty[8:]) == []


def test_c63_a_scrape_changes_nothing(local, client_of, swarm):
    """C63 Scrape never alters swarms or creates them. [BEP48]"""
    tracker = local()
    client = client_of(tracker.addresses[0])
    client.announce(swarm)
    for _ in range(3):
        client.scrape(swarm)
        client.scrape(swarm, os.urandom(20), os.urandom(20))
    assert tracker.call(tracker.store.swarm_count) == 1
    assert sum(tracker.call(tracker.store.peers_by_kind)) == 1


def test_c64_an_error_is_no_longer_than_its_request(client, swarm):
    """C64 Error packet: action 3, tid, text; no reply to a packet may exceed the request length unless its id
    verified. [R, section 6]
    """
    bad = announce_request(BAD_ID, swarm)
    (reply,) = client.exchange(bad)
    assert is_error(reply, bad)
    assert reply[8:] == b"Connection ID mismatch"
    for length in (*range(16, 120), 500, 2000):
        for action in (1, 2, 3):
            for connection_id in (BAD_ID, client.id):
                asked = request(connection_id, action, length)
                for reply in client.exchange(asked):
                    assert is_answer(reply, asked) or is_error(reply, asked)
                    assert len(reply) <= length or (connection_id == client.id and is_answer(reply, asked))


def test_c64_only_plausible_requests_get_an_error(client):
    """Section 1.7: with a bad id, an announce of at least 98 bytes or a scrape of at least 36."""
    for action, least in ((1, 98), (2, 36)):
        assert client.exchange(*(request(BAD_ID, action, length) for length in range(least))) == []
        assert len(client.exchange(*(request(BAD_ID, action, least + more) for more in range(10)))) == 10


def test_c65_unknown_actions_with_a_bad_id_are_ignored(client):
    """C65 Unknown actions 3, 4, 99, 0xffffffff with invalid id -> silence. [R loop hazard]"""
    for action in (3, 4, 99, 1 << 8, 1 << 16, 1 << 24, 0xFFFFFFFF):
        for length in (16, 36, 98, 200):
            assert client.exchange(request(BAD_ID, action, length)) == []


def test_c65_unknown_actions_with_a_good_id(client):
    """Section 1.7: an error, unless it would be longer than the request."""
    for action in (3, 4, 99, 0xFFFFFFFF):
        assert client.exchange(request(client.id, action, 16)) == []
        (reply,) = client.exchange(asked := request(client.id, action, 98))
        assert is_error(reply, asked)


def test_c66_our_own_replies_are_ignored(client, client6, crowd):
    """C66 Feeding our own error, connect and announce replies back as requests yields silence. [R loop hazard]"""
    for asker in (client, client6):
        requests = [
            connect_request(),
            scrape_request(asker.id, crowd),
            scrape_request(asker.id, *[crowd] * 74),
            scrape_request(asker.id),
            announce_request(BAD_ID, crowd),
            announce_request(asker.id, crowd)[:97],
            request(asker.id, 99, 98),
            *(announce_request(asker.id, crowd, want=want) for want in (0, 1, 13, 50, 200)),
        ]
        replies = [asker.ask(asked) for asked in requests]
        assert {action_of(reply) for reply in replies} == {0, 1, SCRAPE, 3}
        assert asker.exchange(*replies) == []


def test_strict_trackers_answer_no_bad_id(local, client_of, swarm):
    """Section 1.7's strict mode."""
    client = client_of(local(connection_ids={"answer_invalid": False}).addresses[0])
    assert client.exchange(announce_request(BAD_ID, swarm), scrape_request(BAD_ID, swarm)) == []
