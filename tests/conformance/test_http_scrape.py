"""Scraping over HTTP."""

import os

import pytest
from http_client import PEER_ID, announce_target, escape, query, scrape_target

ZEROS = {b"complete": 0, b"downloaded": 0, b"downloaders": 0, b"incomplete": 0}
FLAGS = {b"min_request_interval": 1800}


def files_of(http, *info_hashes):
    """The files of a scrape's answer."""
    response = http.get(scrape_target(*info_hashes))
    assert response.status == 200
    assert list(response.answer) == [b"files", b"flags"]
    return response.answer[b"files"]


def test_c107_one_torrent(http, swarm):
    """C107 One and many info_hash; result keys ascending; duplicates once. [BEP48]"""
    http.announce(swarm, port=2000)
    http.announce(swarm, port=2001, left=0, event="completed")
    counts = {b"complete": 1, b"downloaded": 1, b"downloaders": 1, b"incomplete": 1}
    assert http.get(scrape_target(swarm)).answer == {b"files": {swarm: counts}, b"flags": FLAGS}
    assert list(files_of(http, swarm)[swarm]) == sorted(counts)


@pytest.mark.parametrize("many", [2, 3, 10, 63, 64, 65, 74, 99, 100])
def test_c107_many_torrents(http, many):
    """C107, of many, in any order: each has its own counts."""
    first, last = bytes(4) + os.urandom(16), b"\xff" * 4 + os.urandom(16)
    hashes = [first, *[os.urandom(20) for _ in range(many - 2)], last]
    counts = {}
    for number, info_hash in enumerate(hashes):
        for port in range(2000, 2000 + number % 5):
            http.announce(info_hash, port=port, left=number % 2)
        counts[info_hash] = (0, number % 5) if number % 2 else (number % 5, 0)
    for order in (hashes, sorted(hashes), sorted(hashes, reverse=True)):
        files = files_of(http, *order)
        assert list(files) == sorted(hashes)
        assert {key: (found[b"complete"], found[b"incomplete"]) for key, found in files.items()} == counts


def test_c107_hashes_that_come_twice(http, swarm):
    """C107, of the same hash: once, however it is escaped."""
    other = os.urandom(20)
    http.announce(swarm)
    files = files_of(http, swarm, other, swarm, other, other, swarm)
    assert list(files) == sorted((swarm, other))
    assert files[swarm] == ZEROS | {b"incomplete": 1, b"downloaders": 1}
    lower = "".join(f"%{byte:02x}" for byte in swarm)
    answer = http.get(scrape_target(swarm) + "&info_hash=" + lower + "&info_hash=" + lower.upper()).answer
    assert list(answer[b"files"]) == [swarm]
    assert len(files_of(http, *[swarm] * 120)) == 1  # and they take nobody's place
    assert set(files_of(http, *[swarm] * 60, other)) == {swarm, other}


@pytest.mark.parametrize("many", [101, 110, 130])
def test_c107_the_first_100_are_answered(http, many):
    """Section 3.1: above the cap the first 100."""
    hashes = [number.to_bytes(2, "big") + b"A" * 18 for number in range(many, 0, -1)]
    assert set(files_of(http, *hashes)) == set(hashes[:100])


def test_c107_bad_hashes_among_good_ones_are_skipped(http, swarm):
    """Section 3.1: wherever they stand; what else is in the query says nothing."""
    http.announce(swarm)
    good, bads = (
        "info_hash=" + escape(swarm),
        ["info_hash=", "info_hash=short", "info_hash=" + "A" * 21, "info_hash=%zz"],
    )
    for pieces in (
        [good, *bads],
        [*bads, good],
        ["passkey=x", *bads[:2], good, *bads[2:], "port=x", "left=0", "compact=0"],
    ):
        assert http.get("/scrape?" + "&".join(pieces)).answer[b"files"] == {
            swarm: ZEROS | {b"incomplete": 1, b"downloaders": 1}
        }


def test_c107_an_announce_url_may_have_a_query(http, swarm):
    """Section 3.1: clients keep the query of the announce URL; other parameters are no matter."""
    http.announce(swarm)
    for before in ("passkey=0123456789abcdef&", "peer_id=" + escape(PEER_ID) + "&", "&&", "event=stopped&port=6881&"):
        answer = http.get("/scrape?" + before + query(("info_hash", swarm))).answer
        assert answer[b"files"][swarm][b"incomplete"] == 1


def test_c108_unknown_torrents_have_zeros(local, http_of, swarm):
    """C108 Unknown hash present with zeros. (P) [lt, rt error if missing; big]"""
    tracker = local()
    http = http_of(tracker.addresses[0])
    unknown = [os.urandom(20) for _ in range(99)]
    http.announce(swarm)
    files = files_of(http, *unknown, swarm)
    assert files[swarm] == ZEROS | {b"incomplete": 1, b"downloaders": 1}
    assert {info_hash: files[info_hash] for info_hash in unknown} == dict.fromkeys(unknown, ZEROS)
    assert tracker.call(tracker.store.swarm_count) == 1  # and a scrape creates nothing
    assert sum(tracker.call(tracker.store.peers_by_kind)) == 1


def test_c109_downloaders_are_those_who_want_more(http, http6, swarm):
    """C109 `downloaders` present and = incomplete - partial seeds. [BEP21]"""
    for fields, counts in (
        ({"port": 2000}, (0, 1, 1)),
        ({"port": 2001, "event": "paused"}, (0, 1, 2)),
        ({"port": 2002, "event": "paused"}, (0, 1, 3)),
        ({"port": 2000, "event": "paused"}, (0, 0, 3)),
        ({"port": 2001}, (0, 1, 3)),
        ({"port": 2002, "event": "paused", "left": 0}, (1, 1, 2)),
        ({"port": 2000, "event": "stopped"}, (1, 1, 1)),
    ):
        http.announce(swarm, **fields)
        for asker in (http, http6):
            found = files_of(asker, swarm)[swarm]
            assert (found[b"complete"], found[b"downloaders"], found[b"incomplete"]) == counts
    http6.announce(swarm, port=2000, event="paused")
    found = files_of(http, swarm)[swarm]
    assert (found[b"complete"], found[b"downloaders"], found[b"incomplete"]) == (1, 1, 2)


def test_c110_nobody_gets_everything(http, swarm):
    """C110 No info_hash -> failure unless full scrape enabled. (P)"""
    http.announce(swarm)
    for target in ("/scrape", "/scrape?", "/scrape?&", "/scrape?passkey=x", "/scrape?Info_Hash=" + escape(swarm)):
        assert http.refused(target)[b"failure reason"] == b"full scrape not allowed"


@pytest.mark.parametrize(("interval", "seconds"), [("1800 s", 1800), ("120 s", 120), ("2h30m", 9000)])
def test_c111_scrapes_tell_when_to_come_again(local, http_of, swarm, interval, seconds):
    """C111 flags.min_request_interval integer. (S) [tr, big]"""
    http = http_of(local(interval=interval).addresses[0])
    assert http.get(scrape_target(swarm)).answer[b"flags"] == {b"min_request_interval": seconds}


def test_scrapes_and_announces_of_both_protocols_agree(tracker, http, http6, client, swarm):
    """One set of swarms for UDP and HTTP."""
    client.announce(swarm, port=2000)
    http.announce(swarm, port=2001, left=0, event="completed")
    http6.announce(swarm, port=2002)
    assert client.scrape(swarm) == [(1, 1, 2)]
    assert http.scrape(swarm) == http6.scrape(swarm) == {swarm: (1, 1, 2)}
    assert set(client.announce(swarm, port=2003).peers) == {("127.0.0.1", 2000), ("127.0.0.1", 2001)}
    http.get(announce_target(swarm, port=2000, event="stopped"))
    assert client.scrape(swarm) == [(1, 1, 2)]
    assert ("127.0.0.1", 2000) not in client.announce(swarm, port=2003).peers
