"""The bencoded vectors of section 8.6: which of them the tracker says, byte for byte, and that all are canonical.

An interval is drawn, so an answer is compared once its two intervals are the vector's; and every answer of
the tracker's has the keys `downloaded`, `external ip` and `min interval`, which some vectors lack.
"""

import json
import re
from pathlib import Path

import pytest
from http_client import announce_target, decode, encode, query, scrape_target

DOCUMENT = json.loads((Path(__file__).parents[1] / "vectors.json").read_text())
VECTORS = {name: bytes.fromhex(vector["hex"]) for name, vector in DOCUMENT["bencode"].items()}
H1 = bytes.fromhex("123456789abcdef123456789abcdef123456789a")
H2 = bytes(range(0xE0, 0xF4))
INTERVALS = re.compile(rb"8:intervali(\d+)e12:min intervali(\d+)e")
SIX_ADDRESS = "2001:db8::10"


@pytest.fixture
def tracker(local):
    """A tracker of its own, where the client may speak for others and is a proxy for 192.0.2.1."""
    return local(trust_ip_field=["127.0.0.1", "192.0.2.1"], trusted_proxies=["127.0.0.1"])


def completed(http, many):
    """Let many peers of H1 complete, and go."""
    for port in range(2000, 2000 + many):
        http.announce(H1, port=port, left=0, event="completed", ip="198.51.100.1")
        http.announce(H1, port=port, event="stopped", ip="198.51.100.1")


def seeders(http, many):
    for port in range(3000, 3000 + many):
        http.announce(H1, port=port, left=0, ip="198.51.100.1")


def hidden(http, many):
    """Leechers that are not listed."""
    for number in range(many):
        http.announce(H1, port=1, ip=f"198.51.100.{number}")


def asked(http, **fields):
    """The answer to a seeder at 192.0.2.1, with the intervals of the vectors."""
    response = http.get(announce_target(H1, left=0, ip="192.0.2.1", **fields), "X-Forwarded-For: 192.0.2.1")
    assert response.status == 200
    found = INTERVALS.search(response.body)
    assert int(found[2]) == int(found[1]) // 2
    assert 1620 <= int(found[1]) <= 1980
    return INTERVALS.sub(b"8:intervali1800e12:min intervali900e", response.body)


def without(body, *keys):
    """A body without some keys."""
    answer = decode(body)
    for key in keys:
        del answer[key]
    return encode(answer)


@pytest.mark.parametrize("name", VECTORS)
def test_vectors_are_canonical(name):
    assert len(VECTORS[name]) == DOCUMENT["bencode"][name]["len"]
    assert encode(decode(VECTORS[name])) == VECTORS[name]


def test_all_vectors_are_tried():
    source = Path(__file__).read_text()
    assert [name for name in VECTORS if f'"{name}"' not in source] == []


def test_announce_compact_v4(http):
    completed(http, 42)
    seeders(http, 4)
    hidden(http, 2)
    http.announce(H1, ip="192.0.2.10")
    assert asked(http) == VECTORS["announce_compact_v4"]


def test_announce_compact_v4_v6(http):
    completed(http, 42)
    seeders(http, 4)
    hidden(http, 1)
    http.announce(H1, ip="192.0.2.10")
    http.announce(H1, ip=SIX_ADDRESS)
    body = asked(http)
    assert decode(body)[b"external ip"] == b"\xc0\0\2\1"
    assert without(body, b"external ip") == VECTORS["announce_compact_v4_v6"]


def test_announce_empty(http):
    response = http.get(announce_target(H1)).body
    body = INTERVALS.sub(b"8:intervali1800e12:min intervali900e", response)
    assert without(body, b"external ip") == VECTORS["announce_empty"]


def test_announce_dict_no_peer_id(http):
    seeders(http, 4)
    hidden(http, 2)
    http.announce(H1, ip="192.0.2.10")
    body = asked(http, compact=0, no_peer_id=1)
    assert without(body, b"downloaded", b"external ip", b"min interval") == VECTORS["announce_dict_no_peer_id"]


def test_announce_dict_peers(http):
    seeders(http, 4)
    hidden(http, 1)
    http.announce(H1, ip="192.0.2.10")
    http.announce(H1, ip=SIX_ADDRESS)
    wanted = decode(VECTORS["announce_dict_peers"])
    for peer in wanted[b"peers"]:
        assert list(peer) == [b"ip", b"peer id", b"port"]
        del peer[b"peer id"]  # nobody keeps them
    body = asked(http, compact=0)
    assert without(body, b"downloaded", b"external ip", b"min interval") == encode(wanted)


def test_warning(http):
    wanted = decode(VECTORS["warning"])
    assert wanted.pop(b"warning message") == b"numwant too high"  # which is no reason to warn anybody
    body = asked(http, numwant=1000)
    assert without(body, b"downloaded", b"external ip", b"min interval") == encode(wanted)


def test_failure(http):
    """Nothing is unregistered with this tracker: its other refusals have the same keys, and one more."""
    wanted = decode(VECTORS["failure"])
    refused = http.refused("/announce")
    assert list(refused) == [*wanted, b"retry in"]
    assert {key: type(value) for key, value in wanted.items()}.items() <= {
        key: type(value) for key, value in refused.items()
    }.items()


def test_failure_never(http):
    for target in ("/announce", "/scrape", announce_target(H1, port=None)):
        refused = http.get(target).body
        reason = decode(refused)[b"failure reason"]
        wanted = VECTORS["failure_never"].replace(b"13:Not a tracker", encode(reason))
        assert without(refused, b"interval", b"min interval") == wanted


def test_failure_retry(local, http_of):
    tracker = local(limits={"requests": {"rate": 1, "burst": 1}, "exempt": []})
    http = http_of(tracker.addresses[0])
    body = b""
    while b"failure" not in body:
        body = http.get(announce_target(H1)).body
    assert without(body, b"min interval") == VECTORS["failure_retry"].replace(b"10:Overloaded", b"17:too many requests")


def test_scrape_two(http):
    completed(http, 42)
    seeders(http, 5)
    for port in (4000, 4001):
        http.announce(H1, port=port)
    http.announce(H1, port=4002, event="paused")
    for hashes in ((H1, H2), (H2, H1), (H2, H1, H2)):
        assert http.get(scrape_target(*hashes)).body == VECTORS["scrape_two"]
    assert http.get("/scrape?" + query(("info_hash", H2), ("info_hash", H1))).body == VECTORS["scrape_two"]
