"""The vectors of section 8."""

import json
import socket
from pathlib import Path

import pytest
from trackers import (
    COMPLETED,
    STOPPED,
    Answer,
    Counts,
    action_of,
    announce_request,
    as_ipv6,
    parse_answer,
    parse_counts,
)

from common.batch_io import Batch, allocate
from gateway.records import Records
from gateway.siphash import siphash
from gateway.sources import Sources
from gateway.udp_codec import UdpCodec, url_data

VECTORS = json.loads((Path(__file__).parents[1] / "vectors.json").read_text())
PACKETS = {name: bytes.fromhex(packet["hex"]) for name, packet in VECTORS["udp_packets"].items()}
HASH = bytes.fromhex("123456789abcdef123456789abcdef123456789a")
TRANSACTION = b"\x1a\x2b\x3c\x4d"


def proven(client, name):
    """A request of the vectors with an id that is good here."""
    return client.id + PACKETS[name][8:]


def with_id(client, request):
    """A request with an id that is good here and the vectors' transaction id."""
    return client.id + request[8:12] + TRANSACTION + request[16:]


def without_interval(reply):
    return reply[:8] + reply[12:]


@pytest.fixture
def trusting(local, client_of):
    """A client that may speak for others, of a tracker of its own."""
    return client_of(local(trust_ip_field=["127.0.0.1"]).addresses[0])


@pytest.mark.parametrize("vector", VECTORS["siphash_2_4"], ids=lambda vector: str(vector["len"]))
def test_siphash(vector):
    value = siphash(bytes(range(16)), bytes(range(vector["len"])))
    assert f"{value:016x}" == vector["u64"]
    assert value.to_bytes(8, "little").hex() == vector["le_bytes"]


@pytest.mark.parametrize("vector", VECTORS["connection_id"], ids=lambda vector: f"{vector['ip']} {vector['unix_time']}")
def test_connection_ids(vector):
    records, sources = Records(allocate, 1, 1, 1), Sources(allocate)
    codec = UdpCodec(Batch([socket.AF_INET], depth=1), records, sources, 50, 200, 6, True)
    codec.set_keys(bytes(range(16)), b"", 0)
    window = vector["unix_time"] // vector["window_s"]
    assert window == vector["window_index"]
    assert codec.connection_id(as_ipv6(vector["ip"]), window).hex() == vector["siphash24_cid"]


def test_all_packets_are_tried():
    source = Path(__file__).read_text()
    assert [name for name in PACKETS if f'"{name}"' not in source] == []


def test_connect(client):
    reply = client.ask(PACKETS["connect_request"])
    assert len(reply) == len(PACKETS["connect_response"])
    assert reply[:8] == PACKETS["connect_response"][:8]


@pytest.mark.parametrize(
    ("name", "url"),
    [
        ("announce_started_98", b""),
        ("announce_aria2_style_100", b""),
        ("announce_bep41_urldata", b"/dir?a=b&c=d"),
        ("announce_bep41_nop_end", b"/dir?a=b&c=d"),
        ("announce_bep41_empty_urldata", b""),
        ("announce_bep41_unknown_option_then_url", b"/announce"),
        ("announce_bep41_truncated_option", b""),
        ("announce_event4_paused", b""),
        ("announce_left_unknown", b""),
    ],
)
def test_announces_that_store_a_leecher(trusting, name, url):
    assert len(PACKETS[name]) == VECTORS["udp_packets"][name]["len"]
    assert parse_answer(trusting.ask(proven(trusting, name)))[1:] == (1, 0, [])
    assert url_data(PACKETS[name]) == url
    assert trusting.announce(HASH, port=2000).peers == [("127.0.0.1", 6881)]


def test_announce_stopped(trusting):
    trusting.ask(proven(trusting, "announce_started_98"))
    assert parse_answer(trusting.ask(proven(trusting, "announce_stopped")))[1:] == (0, 0, [])


def test_announce_short(trusting):
    (reply,) = trusting.exchange(proven(trusting, "announce_short_97"))
    assert action_of(reply) == 3
    assert trusting.scrape(HASH) == [(0, 0, 0)]


def test_announce_response_with_two_peers(trusting):
    trusting.announce(HASH, ip="192.0.2.10", port=6881)
    trusting.announce(HASH, ip="198.51.100.7", port=51413)
    trusting.announce(HASH, port=1)
    for port in range(2000, 2004):
        trusting.announce(HASH, left=0, port=port)
    reply = trusting.ask(with_id(trusting, announce_request(bytes(8), HASH, left=0, ip="8.8.8.8")))
    wanted = PACKETS["announce_response_v4_2peers"]
    assert parse_answer(wanted) == Answer(1800, 3, 5, [("192.0.2.10", 6881), ("198.51.100.7", 51413)])
    assert without_interval(reply)[:16] == without_interval(wanted)[:16]
    assert sorted((reply[20:26], reply[26:])) == sorted((wanted[20:26], wanted[26:]))


def test_announce_response_on_ipv6(local, client_of):
    tracker = local(listen=["[::1]:0"])
    tracker.announce_from("2001:db8::10", HASH)
    for number in (1, 2):
        tracker.announce_from(f"2001:db8::{number}", HASH, port=1)
    for number in range(3, 7):
        tracker.announce_from(f"2001:db8::{number}", HASH, left=0)
    client = client_of(tracker.addresses[0])
    reply = client.ask(with_id(client, announce_request(bytes(8), HASH, left=0)))
    wanted = PACKETS["announce_response_v6_1peer"]
    assert parse_answer(wanted, ipv6=True) == Answer(1800, 3, 5, [("2001:db8::10", 6881)])
    assert without_interval(reply) == without_interval(wanted)


def test_announce_response_without_peers(trusting):
    reply = trusting.ask(with_id(trusting, announce_request(bytes(8), HASH, left=0)))
    assert without_interval(reply) == without_interval(PACKETS["announce_response_empty"])


def test_scrape(trusting):
    for port in range(2000, 2042):
        trusting.announce(HASH, event=COMPLETED, left=0, port=port)
    for port in range(2005, 2042):
        trusting.announce(HASH, event=STOPPED, left=0, port=port)
    for port in range(3000, 3003):
        trusting.announce(HASH, port=port)
    reply = trusting.ask(proven(trusting, "scrape_request_2"))
    assert parse_counts(reply) == [Counts(5, 42, 3), Counts(0, 0, 0)]
    assert reply == PACKETS["scrape_response_2"]


def test_error(client):
    assert client.ask(PACKETS["announce_started_98"]) == PACKETS["error_response"]


def test_long_url(trusting):
    vector = VECTORS["bep41_long"]
    url = b"/announce?auth=" + b"k" * 285
    options = b"\x02\xff" + url[:255] + b"\x02" + bytes([len(url) - 255]) + url[255:]
    assert len(url) == vector["url_len"]
    assert len(options) == vector["encoded_len"]
    assert options.startswith(bytes.fromhex(vector["first_bytes"]))
    assert options[vector["second_option_offset"] + 1] == vector["second_len_byte"]
    request = announce_request(trusting.id, HASH, tail=options)
    assert url_data(request) == url
    assert parse_answer(trusting.ask(request)).leechers == 1
