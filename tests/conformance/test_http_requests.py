"""What an HTTP request may look like, and what it means."""

import itertools
import json
import os
import random
import socket
import string
from pathlib import Path

import pytest
from http_client import (
    PEER_ID,
    announce_target,
    escape,
    peers_of,
    query,
    request,
    scrape_target,
)

ENCODINGS = json.loads((Path(__file__).parents[1] / "vectors.json").read_text())["http_info_hash_encodings"]
VECTORS = [(bytes.fromhex(forms["hex"]), form) for forms in ENCODINGS.values() for form in list(forms.values())[1:]]
ALL_BYTES = [bytes(range(first, first + 20)) for first in range(0, 220, 20)] + [bytes(range(236, 256))]
LIBTORRENT = string.ascii_letters + string.digits + "-_!.~*()"
MOST_INT = (1 << 31) - 1


def with_case(text, upper):
    """Escapes in upper or lower case; what is not escaped stays."""
    pieces = text.split("%")
    fold = str.upper if upper else str.lower
    return pieces[0] + "".join("%" + fold(piece[:2]) + piece[2:] for piece in pieces[1:])


def bare(value, safe, upper=True):
    """A value where the characters of `safe`, and no others, stand for themselves."""
    return with_case("".join(chr(byte) if chr(byte) in safe else f"%{byte:02x}" for byte in value), upper)


ENCODERS = {
    "upper": lambda value: bare(value, ""),
    "lower": lambda value: bare(value, "", upper=False),
    "rfc3986": lambda value: bare(value, string.ascii_letters + string.digits + "-._~"),
    "libtorrent": lambda value: bare(value, LIBTORRENT, upper=False),
    "rtorrent": lambda value: bare(value, string.ascii_letters + string.digits + "-"),
    "azureus": lambda value: bare(value, string.ascii_letters + string.digits + "-_.*"),
    "form": lambda value: bare(value, string.ascii_letters + string.digits + "-._~ ").replace(" ", "+"),
    "mixed": lambda value: "".join(f"%{byte:02X}" if byte % 2 else f"%{byte:02x}" for byte in value),
}


def target_of(*pieces):
    """An announce's target of pieces that are sent as they are."""
    return "/announce?" + "&".join(pieces)


def rest(port=6881):
    """All that an announce needs besides its info-hash."""
    return f"peer_id={escape(PEER_ID)}&port={port}"


def leechers_of(http, target):
    """How many leechers an announce found, itself included."""
    response = http.get(target)
    assert response.status == 200
    return response.answer[b"incomplete"]


@pytest.mark.parametrize("encoder", ENCODERS)
def test_c68_escapes_of_all_clients_mean_the_same(tracker, http, encoder):
    """C68 info_hash decoded identically from upper hex, lower hex, all-escaped, RFC3986-bare, lt-bare, rt-bare and
    `+`-for-space encodings (section 8.5). [lt, tr, a2, rt, ana, ntk]
    """
    turn = list(ENCODERS).index(encoder)
    for info_hash in ALL_BYTES:
        http.get(target_of("info_hash=" + ENCODERS[encoder](info_hash), rest(2000 + turn)))
        assert ("127.0.0.1", 2000 + turn) in peers_of(http.announce(info_hash, port=1999))
    files = http.get("/scrape?" + "&".join("info_hash=" + ENCODERS[encoder](info_hash) for info_hash in ALL_BYTES))
    assert set(files.answer[b"files"]) == set(ALL_BYTES)


def test_c68_vectors_of_section_8_5(local, http_of, client_of):
    """Each form of a hash finds the peers that the others stored, and so does UDP."""
    tracker = local()
    http, udp = http_of(tracker.addresses[0]), client_of(tracker.addresses[0])
    stored = dict.fromkeys((info_hash for info_hash, _ in VECTORS), 0)
    for info_hash, form in VECTORS:
        stored[info_hash] += 1
        assert leechers_of(http, target_of("info_hash=" + form, rest(2000 + stored[info_hash]))) == stored[info_hash]
        assert http.get("/scrape?info_hash=" + form).answer[b"files"].keys() == {info_hash}
    assert len(VECTORS) == 8
    assert udp.scrape(*stored) == [(0, 0, many) for many in stored.values()]


def test_c69_raw_bytes(http):
    """C69 Raw unescaped bytes >= 0x80 in info_hash accepted. (S) [BEP3]"""
    for first in (0x80, 0x94, 0xA8, 0xBC, 0xD0, 0xE4, 0xEC):
        info_hash = bytes(range(first, first + 20))
        target = b"/announce?info_hash=" + info_hash + b"&" + rest(2000 + first).encode()
        assert http.get(target).status == 200
        assert ("127.0.0.1", 2000 + first) in peers_of(http.announce(info_hash, port=1999, numwant=200))


def test_c70_plus_is_a_space(http):
    """C70 `%2B` and `%2b` decode to 0x2B; `+` to 0x20. [ana, ntk; chi, btt]"""
    tail = os.urandom(17)
    expected = {b"+++" + tail: ("%2B%2b%2B", 2000), b"   " + tail: ("+%20+", 2001), b"+ +" + tail: ("%2b+%2B", 2002)}
    for start, port in expected.values():
        assert leechers_of(http, target_of(f"info_hash={start}{escape(tail)}", rest(port))) == 1
    assert http.scrape(*expected) == dict.fromkeys(expected, (0, 0, 1))
    for info_hash, (_, port) in expected.items():
        assert peers_of(http.announce(info_hash, port=1999)) == [("127.0.0.1", port)]


def test_c70_values_are_decoded_once(http):
    """Section 8.5: `%252b` is three bytes."""
    http.get(target_of("info_hash=%252b" + "A" * 17, rest(2000)))
    assert http.scrape(b"%2b" + b"A" * 17)[b"%2b" + b"A" * 17][2] == 1
    assert b"info_hash" in http.refused(target_of("info_hash=%252b" + "A" * 18, rest()))[b"failure reason"]


BAD_HASHES = (
    "",
    "%12%34",
    "A" * 19,
    "A" * 21,
    "%00" * 19,
    "%00" * 21,
    "123456789abcdef123456789abcdef123456789a",
    "%ab" * 32,
    "A" * 513,
    "%ab" * 1000,
    "%124Vx%9A%BC%DE%F1%23Eg%89%AB%CD%EF%124Vx%9",
    "%124Vx%9A%BC%DE%F1%23Eg%89%AB%CD%EF%124Vx%",
    "A" * 19 + "%",
    "A" * 18 + "%4",
    "A" * 17 + "%zz",
    "A" * 17 + "%4g",
    "A" * 17 + "%g4",
    "A" * 17 + "%+4",
    "%zz" + "%12" * 19,
    "%%12" + "%12" * 19,
)


@pytest.mark.parametrize("value", BAD_HASHES)
def test_c71_bad_hashes_are_refused(http, value):
    """C71 info_hash of 19 or 21 bytes, 40 hex chars, 32 bytes, missing, or bad escape -> failure reason, HTTP 200.
    [BEP3, BEP52]
    """
    for target in (
        target_of("info_hash=" + value, rest()),
        target_of(rest(), "info_hash=" + value),
        "/scrape?info_hash=" + value,
        "/scrape?info_hash=" + value + "&info_hash=" + value,
    ):
        assert http.refused(target)[b"failure reason"] == b"invalid info_hash"


def test_c71_a_missing_hash_is_refused(http):
    """C71, of announces; that of scrapes is C110."""
    for target in (
        "/announce",
        "/announce?",
        target_of(rest()),
        target_of(rest(), "info_hash"),
        target_of("info_hash="),
    ):
        assert http.refused(target)[b"failure reason"] == b"invalid info_hash"


def test_c71_bad_requests_store_nothing(local, http_of, swarm):
    """A refused announce leaves no trace."""
    tracker = local()
    http = http_of(tracker.addresses[0])
    for value in BAD_HASHES:
        http.refused(target_of("info_hash=" + value, rest()))
    for fields in ({"peer_id": None}, {"peer_id": b"short"}, {"port": None}, {"port": "x"}):
        http.refused(announce_target(swarm, **fields))
    assert tracker.call(tracker.store.swarm_count) == 0


@pytest.mark.parametrize(
    "value", ["", "A" * 19, "A" * 21, "%00" * 19, "A" * 19 + "%", "A" * 17 + "%zz", "%4" + "A" * 18]
)
def test_bad_peer_ids_are_refused(http, swarm, value):
    """Section 2.3: wrong or missing -> failure."""
    hashed = "info_hash=" + escape(swarm)
    for target in (target_of(hashed, "port=6881", "peer_id=" + value), target_of(hashed, "port=6881")):
        assert b"peer_id" in http.refused(target)[b"failure reason"]


def test_c72_two_hashes_are_refused(http, swarm):
    """C72 Two info_hash in announce -> failure. [ot, chi]"""
    one, two = "info_hash=" + escape(swarm), "info_hash=" + escape(os.urandom(20))
    for pieces in (
        (one, two, rest()),
        (one, one, rest()),
        (one, rest(), two),
        (one, rest(), "info_hash="),
        (one,) * 99,
    ):
        assert http.refused(target_of(*pieces))[b"failure reason"] == b"invalid info_hash"
    assert http.scrape(swarm) == {swarm: (0, 0, 0)}


def test_c73_the_last_of_two_counts(http, swarm, crowd):
    """C73 Duplicate other parameters: last wins; duplicate `ip` never an error. [R; ana sends two ip]"""
    good, bad = "peer_id=" + escape(PEER_ID), "peer_id=short"
    hashed = "info_hash=" + escape(swarm)
    http.get(target_of("port=2000", hashed, good, "port=2001", "left=0", "left=5", "event=stopped", "event=started"))
    answer = http.announce(swarm, port=1999)
    assert peers_of(answer) == [("127.0.0.1", 2001)]
    assert (answer[b"complete"], answer[b"incomplete"]) == (0, 2)
    assert leechers_of(http, target_of(hashed, bad, good, "port=2002")) == 3
    assert b"peer_id" in http.refused(target_of(hashed, good, bad, "port=2003"))[b"failure reason"]
    assert b"port" in http.refused(target_of(hashed, good, "port=2003", "port=x"))[b"failure reason"]
    wanted = target_of("info_hash=" + escape(crowd), rest(999), "compact=0", "numwant=3", "compact=1", "numwant=7")
    assert len(http.get(wanted).answer[b"peers"]) == 6 * 7
    wanted = target_of("info_hash=" + escape(crowd), rest(999), "compact=1", "numwant=3", "compact=0", "numwant=7")
    assert len(http.get(wanted).answer[b"peers"]) == 7
    for ips in itertools.permutations(("ip=8.8.4.4", "ip=2001:db8::7", "ip=None", "ip=")):
        assert leechers_of(http, target_of(hashed, rest(2004), *ips)) >= 4


def test_c74_order_and_empty_pieces(http, swarm):
    """C74 Parameters in any order, tracker-URL parameters before them, empty pieces `&&`, pieces without `=`. [tr,
    lt, ana URL building]
    """
    hashed, numbers = "info_hash=" + escape(swarm), itertools.count(1)
    pieces = ["peer_id=" + escape(PEER_ID), "left=5", "event=started", "compact=1", hashed]
    shuffle = random.Random(74).shuffle
    for extra in (
        [],
        ["passkey=0123"],
        ["", ""],
        ["auth"],
        ["=", "=x"],
        ["left"],
        ["a;port=1;b=2"],
        ["?port=1"],
        ["a=b=c"],
    ):
        for _ in range(5):
            many = next(numbers)
            mine = [*pieces, f"port={2000 + many}"]
            shuffle(mine)
            between = [piece for pair in zip(mine, extra * 6, strict=False) for piece in pair] if extra else mine
            between += mine[len(between) // 2 if extra else len(mine) :]
            assert leechers_of(http, target_of(*extra, *mine)) == many
            assert leechers_of(http, target_of(*mine, *[piece for piece in extra if piece != "left"])) == many
            assert leechers_of(http, target_of(*between)) == many
    listed = peers_of(http.announce(swarm, port=1999, numwant=200))
    assert set(listed) == {("127.0.0.1", 2000 + number) for number in range(1, next(numbers))}


def test_c74_a_second_question_mark_is_data(http, swarm):
    """Section 2.2, steps 1 and 3: a query begins once, and a value ends with `&` alone."""
    assert (
        leechers_of(http, "/announce?a=?" + target_of("info_hash=" + escape(swarm), rest(2000))[9:].replace("?", "&"))
        == 1
    )
    assert b"port" in http.refused(announce_target(swarm, port=None) + "&port=1;2")[b"failure reason"]
    assert b"port" in http.refused(announce_target(swarm, port=None) + "&port=1=2")[b"failure reason"]


UNKNOWN = (
    "azver=3", "azsf=1", "azup=5", "azas=x", "aznp=9", "azq=1", "supportcrypto=1", "requirecrypto=1", "cryptoport=1",
    "redundant=0", "corrupt=%zz", "trackerid=a b", "key=%ff%00%", "num_want=1", "hide=1", "no_peer_id=1", "\x01\x7f=1",
    "Port=1", "PORT=x", "LEFT=0", "EVENT=stopped", "Info_Hash=x", "port2=x", "por=x", "portx=x", "xport=x", "lefty=0",
    "event_=stopped", "compact2=0", "peer_idx=short", "peer_i=short", "info_has=x", "info_hashx=x", "info_hash%00=x",
    "ipx=1.2.3.4", "p%6frt%00=x", "port%00=x", "left%00=0", "event%00=stopped", "peer_id%00=x", "peer_id%00%00=x",
    "port%00%00%00%00%00=x", "%00=1", "%zz=1", "port%=x", "port+=x",
)  # fmt: skip


@pytest.mark.parametrize("piece", UNKNOWN)
def test_c75_unknown_parameters_are_ignored(http, swarm, piece):
    """C75 Unknown parameters ignored. [big az*, lt redundant]"""
    for number, target in enumerate(
        (announce_target(swarm, port=2000) + "&" + piece, target_of(piece, announce_target(swarm, port=2001)[10:]))
    ):
        answer = http.get(target).answer
        assert (answer[b"complete"], answer[b"incomplete"]) == (0, number + 1)
    assert sorted(peers_of(http.announce(swarm, port=1999))) == [("127.0.0.1", 2000), ("127.0.0.1", 2001)]


def test_c75_names_may_be_escaped(http, swarm):
    """Section 2.2, step 4: names are decoded as values are."""
    names = ("%69nfo_hash", "peer%5fid", "p%6Frt", "num%77ant", "%6c%65%66%74")
    assert leechers_of(http, "/announce?" + query(*zip(names, (swarm, PEER_ID, 2000, 0, 5), strict=True))) == 1
    assert peers_of(http.announce(swarm, port=1999)) == [("127.0.0.1", 2000)]


def test_c75_a_query_has_its_limits(http, swarm):
    """Section 2.2, step 9: 100 pairs besides info-hashes, 512 bytes a value."""
    for value, good in (("x" * 512, True), ("x" * 513, False)):
        answer = http.get(announce_target(swarm) + "&key=" + value).answer
        assert (b"failure reason" in answer) != good
    for many, good in ((98, True), (99, False)):
        answer = http.get(target_of("info_hash=" + escape(swarm), rest(), *["a=b"] * many)).answer
        assert (b"failure reason" in answer) != good


def test_c76_what_an_announce_needs(http, swarm):
    """C76 Missing uploaded/downloaded/left/numwant/event/compact/key still succeeds. [ntk; BEP3 event]"""
    http.announce(swarm, port=2000)
    least = {"uploaded": None, "downloaded": None, "left": None, "compact": None}
    answer = http.announce(swarm, **least)
    assert peers_of(answer) == [("127.0.0.1", 2000)]
    assert (answer[b"complete"], answer[b"incomplete"]) == (0, 2)
    for amount in ("", "x", "-1", "%zz", "9" * 100):
        assert http.announce(swarm, uploaded=amount, downloaded=amount, key=amount)[b"incomplete"] == 2


@pytest.mark.parametrize(
    "left", [None, "", "-1", "-0", "x", "0x", "x0", "0.0", "None", "NaN", "0 ", " 0", "1e3", "\0", "0\0"]
)
def test_c77_unknown_left_is_a_leecher(http, swarm, left):
    """C77 left missing, empty, negative, garbage -> leecher. [R; ana -1]"""
    answer = http.announce(swarm, left=left)
    assert (answer[b"complete"], answer[b"incomplete"]) == (0, 1)


def test_c77_left_with_a_bad_escape_is_garbage(http, swarm):
    """C77, of escapes; one that is good is decoded."""
    for number, (left, seeder) in enumerate((("%", 0), ("0%", 0), ("%zz", 0), ("%3", 0), ("+", 0), ("%30", 1)), 1):
        answer = http.get(announce_target(swarm, left=None, port=2000 + number) + "&left=" + left).answer
        assert (answer[b"complete"], answer[b"incomplete"]) == (seeder, number - seeder)


@pytest.mark.parametrize(
    "left",
    [(1 << 63) - 1, (1 << 64) - 1, 1 << 63, 1 << 64, 1 << 32, 1 << 40, 1 << 41, 1 << 128, 10**19, 10**300, 16384],
)
def test_c78_large_left(http, swarm, left):
    """C78 left values 2^63-1 and 2^64-1 accepted. [tr INT64_MAX, ana]"""
    answer = http.announce(swarm, left=left)
    assert (answer[b"complete"], answer[b"incomplete"]) == (0, 1)


def test_c79_events(http, swarm):
    """C79 event = started|completed|stopped|paused|empty|"" accepted; unknown treated as none. [BEP3, BEP21,
    iss:bittorrent-tracker#411]
    """
    http.announce(swarm, port=2000, event="started")
    http.announce(swarm, port=2001, event="started")
    for event in ("", "empty", "paused", None):
        http.announce(swarm, port=2001, event=event)
        assert http.scrape(swarm) == {swarm: (0, 0, 2)}
    http.announce(swarm, port=2001, event="completed", left=0)
    assert http.scrape(swarm) == {swarm: (1, 1, 1)}
    assert peers_of(http.announce(swarm, port=2000, event="stopped")) == []
    assert http.scrape(swarm) == {swarm: (1, 1, 0)}
    http.announce(swarm, port=2003, event="started", left=0)
    assert http.scrape(swarm) == {swarm: (2, 1, 0)}


UNKNOWN_EVENTS = (
    "Completed", "complete", "completed ", "completedx", "completeX", "completed\0", "completedstopped", "STOPPED",
    "stop", "stoppedx", "stopped\0", "stoppe", "2", "3", "none", "update", "x" * 500, "pausedx", "\xff",
)  # fmt: skip


@pytest.mark.parametrize("event", UNKNOWN_EVENTS)
def test_c79_unknown_events_are_none(http, swarm, event):
    """C79, of what is no event."""
    http.announce(swarm, port=2000, left=0)
    answer = http.announce(swarm, port=2000, event=event, left=0)
    assert (answer[b"complete"], answer[b"downloaded"], answer[b"incomplete"]) == (1, 0, 0)
    assert http.scrape(swarm) == {swarm: (1, 0, 0)}


@pytest.mark.parametrize(
    "port",
    [None, "", "x", "65536", "-1", "6881x", "x6881", "0x50", "1.5", " 80", "80 ", "+80", "9" * 30, str((1 << 64) + 80)],
)
def test_c80_ports_that_are_none_are_refused(http, swarm, port):
    """C80 port missing, non-numeric, > 65535 -> failure; 0/1 as C37. [BEP3]"""
    assert b"port" in http.refused(announce_target(swarm, port=port))[b"failure reason"]
    assert http.scrape(swarm) == {swarm: (0, 0, 0)}


@pytest.mark.parametrize("port", ["0", "1", "00", "00001"])
def test_c80_ports_0_and_1_are_served_and_not_listed(http, swarm, port):
    """C80, of ports that nobody can connect to, as C37."""
    http.announce(swarm, port=2000)
    answer = http.announce(swarm, port=port)
    assert peers_of(answer) == [("127.0.0.1", 2000)]
    assert answer[b"incomplete"] == 2
    assert peers_of(http.announce(swarm, port=2001)) == [("127.0.0.1", 2000)]


def test_c80_all_other_ports_are_listed(http, swarm):
    """C80, of the least and the largest."""
    for number, port in enumerate(("2", "255", "256", "65535", "00080"), 1):
        assert http.announce(swarm, port=port)[b"incomplete"] == number
    assert {port for _, port in peers_of(http.announce(swarm, port=1999))} == {2, 255, 256, 65535, 80}


@pytest.mark.parametrize(
    ("want", "many"),
    [
        (None, 50), ("", 50), ("-1", 50), ("-200", 50), ("x", 50), ("5x", 50), ("x5", 50), ("5x3", 50), ("5.5", 50),
        ("%2", 50), ("0", 0), ("00", 0), ("1", 1), ("7", 7), ("49", 49), ("50", 50), ("51", 51), ("199", 199),
        ("200", 200), ("201", 200), ("255", 200), ("256", 200), ("257", 200), (MOST_INT, 200), (1 << 32, 200),
        (1 << 64, 200), ((1 << 64) - 1, 200), (10**300, 200),
    ],
)  # fmt: skip
def test_c81_numwant_is_clamped(http, http6, crowd, want, many):
    """C81 numwant absent/negative/garbage -> default, 0 -> none, huge -> cap. [a2, big numwant=0]"""
    for asker in (http, http6):
        for compact in (0, 1):
            answer = asker.announce(crowd, port=999, numwant=want, compact=compact)
            assert len(set(peers_of(answer))) == many


NO_ADDRESSES = (
    "8.8.8.8", "2001:db8::1", "None", "", "tracker.i2p", "example.com", "[2001:db8::1]:80", "8.8.8.8:80", "::",
    "\0", "x" * 512, "256.256.256.256", "127.0.0.1", "%", "::ffff:8.8.8.8",
)  # fmt: skip


@pytest.mark.parametrize("value", NO_ADDRESSES)
def test_c82_addresses_in_the_query_mean_nothing(local, http_of, swarm, value):
    """C82 ip/ipv4/ipv6 ignored from untrusted sources, whatever their content (`None`, .i2p names, other family).
    [BEP7; ntk, rt, lt]
    """
    tracker = local(trust_ip_field=["127.0.0.2"])
    for address, host in zip(tracker.addresses[:2], ("127.0.0.1", "::1"), strict=True):
        http = http_of(address)
        answer = http.announce(swarm, port=2000, ip=value, ipv4=value, ipv6=value)
        assert answer[b"external ip"] in (b"\x7f\0\0\1", bytes(15) + b"\1")
        assert (host, 2000) in peers_of(http.announce(swarm, port=2001))
    assert tracker.call(tracker.store.peers_by_kind)[0] == 0  # nobody public


@pytest.mark.parametrize(
    ("value", "host"),
    [
        ("8.8.8.8", "8.8.8.8"), ("2001:db8::1", "2001:db8::1"), ("[2001:db8::1]:80", "2001:db8::1"),
        ("8.8.8.8:80", "8.8.8.8"), ("::ffff:8.8.4.4", "8.8.4.4"), ("2001:DB8:0:0:1::", "2001:db8:0:0:1::"),
        ("None", "127.0.0.1"), ("tracker.i2p", "127.0.0.1"), ("8.8.8", "127.0.0.1"), ("8.8.8.8.8", "127.0.0.1"),
        ("8.8.8.256", "127.0.0.1"), ("2001:db8:::1", "127.0.0.1"), ("2001:db8::1::", "127.0.0.1"), ("", "127.0.0.1"),
        ("1:2:3:4:5:6:7", "127.0.0.1"), ("1:2:3:4:5:6:7:8:9", "127.0.0.1"), ("[2001:db8::1", "127.0.0.1"),
    ],
)  # fmt: skip
def test_c82_the_trusted_speak_for_others(http, swarm, value, host):
    """C82, of a source that is trusted: an address is taken, anything else ignored."""
    http.announce(swarm, port=2000, ip=value)
    assert peers_of(http.announce(swarm, port=2001)) == [(host, 2000)]


@pytest.fixture
def proxied(local):
    """A tracker behind the proxies 127.0.0.2, 127.0.0.3 and those of 10.0.0.0/8."""
    return local(
        listen=["0.0.0.0:0", "[::1]:0"], trusted_proxies=["127.0.0.2", "127.0.0.3", "10.0.0.0/8", "2001:db8:1::/48"]
    )


FORWARDED = (
    (["8.8.8.8"], "8.8.8.8"),
    (["1.1.1.1, 8.8.8.8"], "8.8.8.8"),
    (["1.1.1.1,8.8.8.8"], "8.8.8.8"),
    (["1.1.1.1 ,\t8.8.8.8 "], "8.8.8.8"),
    (["1.1.1.1", "8.8.8.8"], "8.8.8.8"),
    (["1.1.1.1, 8.8.8.8, 10.1.2.3"], "8.8.8.8"),
    (["1.1.1.1, 8.8.8.8", "10.1.2.3, 127.0.0.3"], "8.8.8.8"),
    (["8.8.8.8", "10.1.2.3", "127.0.0.3"], "8.8.8.8"),
    (["1.1.1.1, 8.8.8.8, 2001:db8:1::5"], "8.8.8.8"),
    (["unknown, 8.8.8.8"], "8.8.8.8"),
    (["8.8.8.8:1234"], "8.8.8.8"),
    (["::ffff:8.8.8.8"], "8.8.8.8"),
    (["2001:4860::8888"], "2001:4860::8888"),
    (["[2001:4860::8888]"], "2001:4860::8888"),
    (["[2001:4860::8888]:1234"], "2001:4860::8888"),
    ([f"{n}.{n}.{n}.{n}" for n in range(20, 50)], "49.49.49.49"),
    ([", ".join(f"{n}.{n}.{n}.{n}" for n in range(20, 50))], "49.49.49.49"),
    ([], "127.0.0.2"),
)


@pytest.mark.parametrize("line", ["8.8.8.8, unknown", "unknown", "", "8.8.8.8, unknown, 10.0.0.1"])
def test_c83_what_a_proxy_writes_must_be_an_address(proxied, http_of, swarm, line):
    """C83, of what cannot be read: nobody knows who asks, nor who wrote what stands to its left."""
    http = http_of(("127.0.0.1", proxied.addresses[0][1]), "127.0.0.2")
    hard_failure(http, request(announce_target(swarm), f"X-Forwarded-For: {line}"), 400)


@pytest.mark.parametrize(("lines", "host"), FORWARDED)
@pytest.mark.parametrize("name", ["X-Forwarded-For", "x-forwarded-for", "X-FORWARDED-FOR"])
def test_c83_proxies_tell_who_asks(proxied, http_of, swarm, lines, host, name):
    """C83 X-Forwarded-For ignored unless the TCP peer is a trusted proxy; then right-most untrusted address. [aq,
    u3d]
    """
    headers = [f"{name}: {line}" for line in lines]
    port = proxied.addresses[0][1]
    for source, seen in (("127.0.0.2", host), ("127.0.0.4", "127.0.0.4")):
        http = http_of(("127.0.0.1", port), source)
        assert packed(http.announce(swarm, *headers, port=2000)) == seen
        other = http_of(("127.0.0.1", port), "127.0.0.5")
        listed = peers_of(other.announce(swarm, port=2001))
        assert (seen, 2000) in listed
        other.announce(swarm, port=2001, event="stopped")
        http.announce(swarm, *headers, port=2000, event="stopped")


def packed(answer):
    """The external address of an answer, as text."""
    address = answer[b"external ip"]
    return socket.inet_ntop(socket.AF_INET if len(address) == 4 else socket.AF_INET6, address)


def test_c83_clients_behind_one_proxy_are_apart(proxied, http_of, swarm):
    """C83, on one connection: each request has a client of its own."""
    http = http_of(("127.0.0.1", proxied.addresses[0][1]), "127.0.0.2")
    for number in range(1, 20):
        answer = http.announce(swarm, f"X-Forwarded-For: 8.8.8.{number}", port=2000)
        assert (packed(answer), answer[b"incomplete"]) == (f"8.8.8.{number}", number)
    assert packed(http.announce(swarm, port=2000)) == "127.0.0.2"


def test_c83_on_a_connection_that_asked_for_another_path(proxied, http_of, swarm):
    """C83, in the other part of the tracker, too: proxies use their connections for all paths."""
    port = proxied.addresses[0][1]
    for source, seen in (("127.0.0.2", "8.8.8.8"), ("127.0.0.4", "127.0.0.4")):
        http = http_of(("127.0.0.1", port), source)
        assert http.get("/nowhere").status == 404
        for lines in (["1.1.1.1, 8.8.8.8"], ["1.1.1.1", "8.8.8.8"], ["8.8.8.8, 10.1.2.3"], ["8.8.8.8", "127.0.0.3"]):
            assert packed(http.announce(swarm, *(f"X-Forwarded-For: {line}" for line in lines))) == seen


def test_c84_a_scrape_of_60(http):
    """C84 Head up to 8 KiB accepted incl. 60-hash scrape line of 4.3 KB; over limit -> 414/431. [tr
    TrMultiscrapeMax]
    """
    hashes = [bytes(19) + bytes([n]) for n in range(60)]
    target = "/scrape?" + "&".join("info_hash=" + ENCODERS["upper"](info_hash) for info_hash in hashes)
    assert len(target) > 4200
    assert set(http.get(target).answer[b"files"]) == set(hashes)


def padded(target, length):
    """A request whose head has this length, with a header to fill it."""
    head = request(target, "X-Fill: ")
    return request(target, "X-Fill: " + "x" * (length - len(head)))


@pytest.mark.parametrize("part", [None, 1000, 4096, 8191])
def test_c84_heads_of_8_kib(http_of, tracker, swarm, part):
    """C84, of heads that come at once or in parts."""
    http = http_of(tracker.addresses[0])
    for number, length in enumerate((1000, 4096, 8191, 8192), 1):
        head = padded(announce_target(swarm, port=2000 + number), length)
        assert len(head) == length
        for at in range(0, length, part or length):
            http.send(head[at : at + (part or length)])
        assert http.receive().answer[b"incomplete"] == number


def hard_failure(http, data, status):
    """An answer that ends the connection."""
    response = http.ask(data)
    assert response.status == status
    assert response.headers["connection"] == "close"
    assert response.headers["content-type"] == "text/plain"
    assert set(response.answer) == {b"failure reason", b"interval", b"min interval", b"retry in"}
    assert http.ended()


@pytest.mark.parametrize("length", [8193, 8600, 8704, 8705, 9000, 20_000, 60_000])
def test_c84_longer_heads_are_refused(http_of, tracker, swarm, length):
    """C84, of what is too long: a target, or headers."""
    target = announce_target(swarm)
    hard_failure(http_of(tracker.addresses[0]), padded(target, length), 431)
    hard_failure(http_of(tracker.addresses[0]), request(target + "&a=" + "x" * length), 414)
    assert http_of(tracker.addresses[0]).scrape(swarm) == {swarm: (0, 0, 0)}


def test_c84_a_head_that_never_ends_is_refused(http_of, tracker, swarm):
    """C84, of what is too long before it is complete."""
    hard_failure(http_of(tracker.addresses[0]), b"GET /announce?" + b"a" * 9000, 414)
    hard_failure(http_of(tracker.addresses[0]), request(announce_target(swarm))[:-2] + b"A: " + b"a" * 9000, 431)


def test_c84_64_lines_of_headers(http_of, tracker, swarm):
    """C84, of the number of lines; one is Host."""
    target = announce_target(swarm)
    assert http_of(tracker.addresses[0]).get(target, *["A: b"] * 63).status == 200
    hard_failure(http_of(tracker.addresses[0]), request(target, *["A: b"] * 64), 431)


def test_c85_absolute_targets(http, swarm):
    """C85 Absolute-form request target accepted. [lt via HTTP proxy]"""
    for number, host in enumerate(
        ("tracker.example", "tracker.example:6969", "127.0.0.1", "[::1]:80", "announce.example"), 1
    ):
        assert leechers_of(http, f"http://{host}" + announce_target(swarm, port=2000 + number)) == number
        assert http.get(f"http://{host}" + scrape_target(swarm)).answer[b"files"][swarm][b"incomplete"] == number


def test_c86_newtrackon(http, http6):
    """C86 ntk's exact request (no event/key/numwant, `ipv6=None&ipv4=None`) succeeds with `peers` present. [ntk
    scraper.py]
    """
    target = (
        "/announce?info_hash=%2B+%25%2F~%2A%21%28%29%1F%00%7F%FFAa_-.%3D%26&peer_id=-qB4390-abcdefghijkl"
        "&port=6881&uploaded=0&downloaded=0&left=0&compact=1&ipv6=None&ipv4=None"
    )
    for asker in (http, http6):
        answer = asker.get(target, "User-Agent: qBittorrent/4.3.9", "Accept-Encoding: gzip", "Connection: close").answer
        assert isinstance(answer[b"peers"], bytes)
        assert answer[b"complete"] >= 1


def test_c86_qbittorrent(http_of, tracker):
    """Section 8.5's other sample."""
    target = (
        "/announce?info_hash=%124Vx%9a%bc%de%f1%23Eg%89%ab%cd%ef%124Vx%9a&peer_id=-qB4670-!I_EUqrSvcsd&port=51413"
        "&uploaded=0&downloaded=0&left=1048576&corrupt=0&key=3FA9C1D2&event=started&numwant=200&compact=1"
        "&no_peer_id=1&supportcrypto=1&redundant=0"
    )
    answer = http_of(tracker.addresses[0]).get(target, "Accept-Encoding: gzip", "Connection: close").answer
    assert answer[b"incomplete"] >= 1
