"""What HTTP answers look like, and what becomes of the connection."""

import ipaddress
import os
import socket
from http import HTTPStatus

import pytest
from http_client import (
    BencodeError,
    HttpClient,
    announce_target,
    decode,
    peers_of,
    request,
    scrape_target,
)

from common.frames import MAX_WANT

ORDER = [b"complete", b"downloaded", b"external ip", b"incomplete", b"interval", b"min interval", b"peers"]
SIX = ["2001:db8::1", "2001:db8:0:1:1:1:1:1", "2001:0:0:1::1", "2001:db8:1:0:0:1:0:0", "2a00:1:2:3:4:5:6:7", "2a00::"]


def refusals(info_hash):
    """Targets that are well-formed HTTP, and refused."""
    return [
        "/announce",
        "/scrape",
        "/scrape?info_hash=short",
        announce_target(info_hash, peer_id=b"short"),
        announce_target(info_hash, port=None),
        announce_target(b"short"),
        announce_target(info_hash) + "&a=b" * 101,
        announce_target(info_hash) + "&key=" + "k" * 513,
    ]


def answers(info_hash):
    """Targets that get an answer, of all forms."""
    found = [
        announce_target(info_hash, compact=compact, event=event, left=left, numwant=want)
        for compact in (None, 0, 1)
        for event in (None, "started", "completed", "paused", "stopped")
        for left in (0, 1)
        for want in (0, 7, 200)
    ]
    return [*found, scrape_target(info_hash), scrape_target(info_hash, *[os.urandom(20) for _ in range(99)])]


def test_c87_answers_and_refusals_have_status_200(http, http6, crowd):
    """C87 Success and refusal are both HTTP 200 bencoded dictionaries. [lt, tr, btt, ana, ntk reject non-200]"""
    for asker in (http, http6):
        for targets, refused in ((answers(crowd), False), (refusals(crowd), True)):
            for target in targets:
                response = asker.get(target)
                assert response.status == HTTPStatus.OK
                assert response.headers["content-type"] == "text/plain"
                assert isinstance(response.answer, dict)
                assert (b"failure reason" in response.answer) == refused


def test_c88_bencode_is_canonical(http, http6, crowd):
    """C88 Keys sorted as raw bytes at every level, no duplicates, canonical integers, single dictionary, no trailing
    bytes. [BEP3]
    """
    for asker in (http, http6):
        for target in answers(crowd) + refusals(crowd):
            decode(asker.get(target).body)
    assert list(http.announce(crowd)) == ORDER
    assert list(http6.announce(crowd)) == [*ORDER, b"peers6"]


@pytest.mark.parametrize(
    "wrong",
    [
        b"", b"i1", b"i1ee", b"i01e", b"i-0e", b"i+1e", b"i 1e", b"i1_0e", b"ie", b"01:a", b"2:a", b"-1:a", b"1:ab",
        b"le1:a", b"d1:b0:1:a0:e", b"d1:a0:1:a0:e", b"di1e0:e", b"d1:ae", b"d1:a0:", b"l", b"d", b"de\r\n", b"x",
    ],
)  # fmt: skip
def test_c88_the_decoder_forgives_nothing(wrong):
    """C88 would pass with a decoder that forgives."""
    with pytest.raises(BencodeError):
        decode(wrong)


def test_c89_peers_are_always_there(http, http6, swarm, crowd):
    """C89 `peers` key always present on success, `5:peers0:` when empty. [rt process_success, ntk]"""
    for asker, tail in ((http, b"5:peers0:e"), (http6, b"5:peers0:6:peers60:e")):
        for info_hash, fields in (
            (swarm, {}),
            (swarm, {"numwant": 0}),
            (crowd, {"numwant": 0}),
            (crowd, {"event": "stopped"}),
        ):
            body = asker.get(announce_target(info_hash, **fields)).body
            assert body.endswith(tail)
        asker.announce(swarm, event="stopped")
        assert asker.get(announce_target(swarm, compact=0)).body.endswith(b"5:peerslee")
        asker.announce(swarm, event="stopped")


@pytest.mark.parametrize("compact", [None, 1, "", "2", "true", "x" * 100])
def test_c90_compact_peers(http, swarm, compact):
    """C90 compact absent or 1 -> string of 6k bytes; port big-endian. [BEP23]"""
    http.announce(swarm, port=0x1234, ip="8.8.4.4")
    peers = http.announce(swarm, port=2000, compact=compact)[b"peers"]
    assert peers == b"\x08\x08\x04\x04\x12\x34"
    http.announce(swarm, port=0x00FF, ip="8.8.4.5")
    peers = http.announce(swarm, port=2000, compact=compact)[b"peers"]
    assert {peers[:6], peers[6:]} == {b"\x08\x08\x04\x04\x12\x34", b"\x08\x08\x04\x05\x00\xff"}


@pytest.mark.parametrize("extra", [{}, {"no_peer_id": 1}, {"no_peer_id": 0}])
def test_c91_peers_as_dictionaries(http, swarm, crowd, extra):
    """C91 compact=0 -> list of dictionaries (or compact), never an error; with no_peer_id=1 no `peer id`. [BEP23]"""
    http.announce(swarm, port=0x1234, ip="8.8.4.4")
    answer = http.announce(swarm, port=2000, compact=0, **extra)
    assert answer[b"peers"] == [{b"ip": b"8.8.4.4", b"port": 0x1234}]
    assert list(answer) == ORDER
    for want in (1, 50, 200):
        answer = http.announce(crowd, port=999, compact=0, numwant=want, **extra)
        assert len(answer[b"peers"]) == want
        assert {tuple(peer) for peer in answer[b"peers"]} == {(b"ip", b"port")}
        assert len(set(peers_of(answer))) == want


def test_c91_the_forms_list_the_same_peers(http, swarm):
    """C91, of every digit of an address and a port."""
    stored = set()
    ports = (2, 9, 10, 99, 100, 999, 1000, 9999, 10000, 65535)
    for number, byte in enumerate((1, 9, 11, 19, 99, 101, 109, 199, 200, 223)):
        for host in (f"{byte}.{255 - byte}.1.{byte}", f"8.{byte}.{byte}.8"):
            http.announce(swarm, port=ports[number], ip=host)
            stored.add((host, ports[number]))
    for compact in (0, 1):
        assert set(peers_of(http.announce(swarm, port=1999, numwant=200, compact=compact))) == stored


def test_c92_ipv6_peers_have_a_key_of_their_own(http, http6, swarm):
    """C92 v6 peers in `peers6`, 18k bytes; never in compact `peers`. [BEP7]"""
    http.announce(swarm, port=2004)
    http6.announce(swarm, port=2006)
    mine = http.announce(swarm, port=2000)
    assert mine[b"peers"] == b"\x7f\0\0\1" + (2004).to_bytes(2, "big")
    assert mine[b"peers6"] == bytes(15) + b"\1" + (2006).to_bytes(2, "big")
    other = http6.announce(swarm, port=2000)
    assert other[b"peers6"] == mine[b"peers6"]
    assert {other[b"peers"][:6], other[b"peers"][6:]} == {mine[b"peers"], b"\x7f\0\0\1" + (2000).to_bytes(2, "big")}


def test_c92_ones_own_family_comes_first(http, http6, crowd):
    """Section 2.4: the other family gets what is left of numwant."""
    for want, many, many6 in ((50, 50, 0), (200, 200, 0)):
        answer = http.announce(crowd, port=999, numwant=want)
        assert (len(answer[b"peers"]), len(answer.get(b"peers6", b""))) == (6 * many, 18 * many6)
    for want, many, many6 in ((50, 0, 50), (100, 0, 100), (150, 50, 100), (200, 100, 100)):
        answer = http6.announce(crowd, port=999, numwant=want)
        assert (len(answer[b"peers"]), len(answer[b"peers6"])) == (6 * many, 18 * many6)


def test_c93_ipv6_peers_as_dictionaries(http, http6, swarm):
    """C93 Dictionary list may hold v6 text addresses. [BEP7]"""
    for host in SIX:
        http6.announce(swarm, port=2006, ip=host)
    http.announce(swarm, port=2004, ip="8.8.4.4")
    written = {ipaddress.ip_address(host).compressed for host in SIX} | {"8.8.4.4"}
    for asker in (http, http6):
        answer = asker.announce(swarm, port=2000, compact=0, numwant=200)
        assert {host for host, _ in peers_of(answer)} - {"127.0.0.1", "::1"} == written
        asker.announce(swarm, port=2000, event="stopped")


def random_addresses(many):
    """IPv6 addresses with zeros in many places."""
    for _ in range(many):
        zeros, filling = os.urandom(1)[0], os.urandom(16)
        groups = [b"\0\0" if zeros >> i & 1 else filling[2 * i : 2 * i + 2] for i in range(8)]
        groups[0] = b"\x20\x01"
        yield ipaddress.ip_address(b"".join(groups))


def test_c93_addresses_are_written_as_rfc_5952_has_it(http6, swarm):
    """C93, of many addresses."""
    stored = {str(address) for address in random_addresses(190)}
    for host in stored:
        http6.announce(swarm, port=2006, ip=host)
    assert {host for host, _ in peers_of(http6.announce(swarm, port=2000, compact=0, numwant=200))} == stored


@pytest.mark.parametrize("interval", ["120 s", "1800 s", "2h30m"])
def test_c94_interval(local, http_of, swarm, interval):
    """C94 interval integer present, 60 <= x <= 2147483. [big "interval missing"; btt setInterval overflow]"""
    http = http_of(local(interval=interval).addresses[0])
    seen = {http.announce(swarm)[b"interval"] for _ in range(100)}
    nominal = {"120 s": 120, "1800 s": 1800, "2h30m": 9000}[interval]
    assert {type(value) for value in seen} == {int}
    assert 60 <= nominal * 0.9 <= min(seen) < max(seen) <= nominal * 1.1 <= 2147483


def test_c95_min_interval_is_half_of_the_interval(http, swarm):
    """C95 min interval <= interval. [a2, big]"""
    for _ in range(50):
        answer = http.announce(swarm)
        assert 0 < answer[b"min interval"] == answer[b"interval"] // 2
    for target in refusals(swarm):
        answer = http.refused(target)
        assert 0 < answer[b"min interval"] <= answer[b"interval"]


def test_c96_external_ip(tracker, http_of, swarm):
    """C96 `external ip` is 4 raw bytes for v4, 16 for v6, equal to the observed address. (S) [BEP24]"""
    any4, any6 = tracker.addresses[3][1], tracker.addresses[4][1]
    for source in ("127.0.0.1", "127.0.0.2", "127.1.2.3"):
        answer = http_of(("127.0.0.1", any4), source).announce(swarm)
        assert answer[b"external ip"] == socket.inet_aton(source)
    assert http_of(("::1", any6)).announce(swarm)[b"external ip"] == bytes(15) + b"\1"
    for ip in ("8.8.8.8", "2001:db8::1"):  # of who asks, whomever he speaks for
        assert http_of(tracker.addresses[0]).announce(swarm, ip=ip)[b"external ip"] == b"\x7f\0\0\1"
        assert http_of(tracker.addresses[2]).announce(swarm, ip=ip)[b"external ip"] == bytes(15) + b"\1"


def test_c97_counts_are_always_there(http, http6, crowd):
    """C97 complete, incomplete, downloaded present on every success. (S) [tr scrape skip]"""
    for asker in (http, http6):
        for target in answers(crowd)[:-2]:
            answer = asker.get(target).answer
            assert {type(answer[name]) for name in (b"complete", b"incomplete", b"downloaded")} == {int}
            assert answer[b"complete"] >= 150 + 50


def test_c97_counts_include_who_asks(http, swarm):
    """C97, of the numbers: after this announce."""
    for fields, counts in (
        ({"port": 2000}, (0, 0, 1)),
        ({"port": 2001, "left": 0}, (1, 0, 1)),
        ({"port": 2000, "left": 0, "event": "completed"}, (2, 1, 0)),
        ({"port": 2001, "event": "stopped"}, (1, 1, 0)),
    ):
        answer = http.announce(swarm, **fields)
        assert (answer[b"complete"], answer[b"downloaded"], answer[b"incomplete"]) == counts


def test_c98_refusals_say_when_to_come_again(http, swarm):
    """C98 Refusal carries `failure reason` plus integer `interval` and `min interval`. (S) [lt, tr, rt honour]"""
    for target in refusals(swarm):
        answer = http.refused(target)
        assert list(answer) == [b"failure reason", b"interval", b"min interval", b"retry in"]
        assert (answer[b"interval"], answer[b"min interval"], answer[b"retry in"]) == (1800, 900, b"never")
        assert b"nregistered" not in answer[b"failure reason"]  # which would stop Transmission for good


def test_c98_who_asks_too_much_is_told_to_wait(local, http_of, swarm):
    """C98, of a limit: in minutes for BEP 31, and in seconds for those who read these."""
    tracker = local(limits={"requests": {"rate": 1, "burst": 3}, "exempt": []})
    http = http_of(tracker.addresses[0])
    told = [http.get(announce_target(swarm)) for _ in range(6)]
    assert [b"failure reason" in response.answer for response in told[:3]] == [False] * 3
    answer = told[-1].answer
    assert (answer[b"interval"], answer[b"min interval"], answer[b"retry in"]) == (300, 300, b"5")
    assert {response.status for response in told} == {HTTPStatus.OK}


STRANGE = (
    b"GET / HTTP/1.1\r\nHost: a\r\n\r\n",
    b"GET /stats HTTP/1.1\r\nHost: a\r\n\r\n",
    b"GET /announce/ HTTP/1.1\r\nHost: a\r\n\r\n",
    b"GET /scrapes HTTP/1.1\r\nHost: a\r\n\r\n",
    b"POST /announce HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n",
    b"DELETE /scrape HTTP/1.1\r\nHost: a\r\n\r\n",
    b"GET /announce HTTP/1.0\r\n\r\n",
    b"GET /announce\r\n\r\n",
    b"GET /announce HTTP/3.0\r\n\r\n",
    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n",
    b"GET /announce?" + b"a" * 9000,
    b"GET /announce HTTP/1.1\r\nA: " + b"a" * 9000,
)


def test_c100_gone_is_never_said(tracker, http_of, swarm):
    """C100 410 never emitted on announce/scrape paths. [lt tracker_request_error, BitTorrent blog]"""
    allowed = {HTTPStatus.OK, 400, 404, 405, 414, 431}
    requests = [request(target) for target in (*answers(swarm), *refusals(swarm))]
    for data in (*STRANGE, *requests):
        assert http_of(tracker.addresses[0]).ask(data).status in allowed


def test_c101_connections_are_kept_or_closed(tracker, http_of, swarm):
    """C101 `Connection: close` request -> response then close; HTTP/1.1 without it -> reusable; HTTP/1.0 -> close.
    [lt, big vs tr, a2]
    """
    for target in (announce_target(swarm), scrape_target(swarm), "/announce", "/scrape"):
        kept = http_of(tracker.addresses[0])
        for headers in ([], ["Connection: keep-alive"], ["Connection: Keep-Alive, TE"], ["X-Connection: close"]) * 2:
            assert "close" not in kept.get(target, *headers).headers.get("connection", "")
        for version, headers in (
            ("HTTP/1.1", ["Connection: close"]),
            ("HTTP/1.1", ["connection:close"]),
            ("HTTP/1.1", ["CONNECTION:   Close "]),
            ("HTTP/1.1", ["Connection: TE, close"]),
            ("HTTP/1.1", ["Connection: close, TE"]),
            ("HTTP/1.1", ["Connection: TE", "Connection: close"]),
            ("HTTP/1.0", []),
            ("HTTP/1.0", ["Connection: keep-alive"]),
            ("HTTP/1.0", ["Connection: close"]),
        ):
            http = http_of(tracker.addresses[0])
            response = http.get(target, *headers, version=version)
            assert response.status == HTTPStatus.OK
            assert response.headers["connection"] == "close"
            assert http.ended()


def test_c101_connections_that_asked_for_another_path(tracker, http_of, swarm):
    """C101, of connections that went to another part of the tracker: they are closed, or kept, in the same way."""
    for version, headers in (("HTTP/1.1", ["Connection: close"]), ("HTTP/1.0", [])):
        http = http_of(tracker.addresses[0])
        assert http.get("/nowhere").status == HTTPStatus.NOT_FOUND
        for _ in range(2):
            assert http.announce(swarm)[b"incomplete"] == 1
        assert http.get(announce_target(swarm), *headers, version=version).answer[b"incomplete"] == 1
        assert http.ended()


def test_c102_pipelined_requests_are_answered_in_order(http, http6, swarm):
    """C102 Two pipelined requests answered in order. [RFC 9112]"""
    for asker in (http, http6):
        wants = [(n, request(announce_target(swarm, port=2000 + n, numwant=0, event="started"))) for n in range(1, 60)]
        for many in (2, 3, 10, 44):
            mine, wants = wants[:many], wants[many:]
            asker.send(b"".join(data for _, data in mine))
            for number, _ in mine:
                assert asker.receive().answer[b"incomplete"] == number
        assert asker.buffer == b""
        for port in range(2001, 2060):
            asker.announce(swarm, port=port, event="stopped")


def test_c102_announces_scrapes_and_failures_in_one_pipeline(tracker, http_of, swarm):
    """C102, of different requests, the last of which closes; cut at every place that a packet may end."""
    data = (
        request(announce_target(swarm, port=2000))
        + request("/announce")
        + request(scrape_target(swarm))
        + request(announce_target(swarm, port=2000), method="HEAD")
        + b"\r\n"
        + request(announce_target(swarm, port=2000), "Connection: close")
    )
    for cut in range(0, len(data), 7):
        http = http_of(tracker.addresses[0])
        http.send(data[:cut])
        http.send(data[cut:])
        assert http.receive().answer[b"incomplete"] == 1
        assert b"failure reason" in http.receive().answer
        assert http.receive().answer[b"files"][swarm][b"incomplete"] == 1
        assert http.receive("HEAD").body == b""
        assert http.receive().answer[b"incomplete"] == 1
        assert http.ended()
        http.close()


def test_c102_whatever_the_paths_are(tracker, http_of, swarm):
    """C102, of announces before and behind paths that another part of the tracker answers."""
    paths = ("/nowhere", "announce", "announce", "/health", "announce", "/", "scrape", "/nowhere", "scrape", "announce")
    ours = {"announce": announce_target(swarm), "scrape": scrape_target(swarm)}
    for first in range(len(paths)):
        http = http_of(tracker.addresses[0])
        http.send(b"".join(request(ours.get(path, path)) for path in paths[first:]))
        for path in paths[first:]:
            response = http.receive()
            assert response.status == (HTTPStatus.NOT_FOUND if path == "/nowhere" else HTTPStatus.OK)
            if path == "announce":
                assert response.answer[b"incomplete"] == 1
            elif path == "scrape":
                assert list(response.answer[b"files"]) == [swarm]
        http.close()


def test_c102_what_follows_the_last_request_is_not_answered(tracker, http_of, swarm):
    """C102, after a request that closes: its answer arrives whole, and is the last."""
    for _ in range(20):
        http = http_of(tracker.addresses[0])
        last = request(announce_target(swarm, port=2000), "Connection: close")
        http.send(last + request(announce_target(swarm, port=2001)) * 5)
        assert http.receive().answer[b"incomplete"] == 1
        assert http.ended()
        http.close()


def test_c102_requests_in_parts(tracker, http_of, swarm):
    """C102, byte by byte."""
    http = http_of(tracker.addresses[0])
    for number in range(1, 4):
        for byte in request(announce_target(swarm, port=2000 + number)):
            http.send(bytes([byte]))
        assert http.receive().answer[b"incomplete"] == number


def test_c103_nothing_is_compressed(http_of, tracker, crowd):
    """C103 No Content-Encoding unless the request asked for it. [a2 sends no Accept-Encoding]"""
    hashes = [os.urandom(20) for _ in range(60)]
    for headers in (
        [],
        ["Accept-Encoding: identity"],
        ["Accept-Encoding: gzip;q=0"],
        ["Accept-Encoding: gzip, deflate, br"],
    ):
        http = http_of(tracker.addresses[0])
        for target in (announce_target(crowd, compact=0, numwant=200), scrape_target(*hashes), "/announce"):
            response = http.get(target, *headers)
            assert "content-encoding" not in response.headers
            assert response.answer
            assert len(response.body) > 1024 or target == "/announce"  # which would be worth it
        for target in ("/", "/health", "/nowhere", scrape_target(*hashes)):
            assert "content-encoding" not in http.get(target, *headers).headers


def whole(address, data):
    """All bytes that come until the connection ends."""
    with HttpClient(address) as http:
        http.send(data)
        received = b""
        while part := http.socket.recv(1 << 16):
            received += part
    return received


def test_c104_content_length_is_right(tracker, crowd):
    """C104 Content-Length correct on every response. [R]"""
    targets = (*answers(crowd), *refusals(crowd), "/", "/health", "/nowhere", "/announce/x")
    requests = [request(target, "Connection: close") for target in targets]
    for data in (*requests, *STRANGE[6:]):
        head, _, body = whole(tracker.addresses[0], data).partition(b"\r\n\r\n")
        lengths = [line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")]
        assert lengths == [b"content-length: %d" % len(body)]
        assert body


def test_c105_the_largest_answer(http, http6):
    """C105 Announce body < 128 KiB always. [big]"""
    info_hash = os.urandom(20)
    for number in range(MAX_WANT + 10):
        http6.announce(
            info_hash, port=60000 + number, ip=f"2a00:1111:2222:3333:4444:5555:6666:{0x1000 + number:x}", numwant=0
        )
        http.announce(info_hash, port=60000 + number, ip=f"211.211.211.{100 + number % 100}", numwant=0)
    longest = len("d2:ip38:2a00:1111:2222:3333:4444:5555:6666:10004:porti60000ee")
    for asker in (http, http6):
        for compact in (0, 1):
            response = asker.get(announce_target(info_hash, port=2000, compact=compact, numwant=1 << 30))
            assert len(peers_of(response.answer)) == MAX_WANT
            assert len(response.body) <= MAX_WANT * longest + 160
    longest_list = http6.get(announce_target(info_hash, port=2000, compact=0, numwant=200))
    assert len(longest_list.body) > MAX_WANT * longest
    assert MAX_WANT * longest + 160 < 128 << 10


def still_serves(tracker, http_of, swarm):
    """Whether the worker lives, and another connection is served."""
    assert http_of(tracker.addresses[0]).announce(swarm)[b"incomplete"] == 1


@pytest.fixture
def worker(tracker):
    """Holds that no worker was lost."""
    before = tracker.worker()
    yield
    assert tracker.worker() == before


def test_c106_head_is_answered_without_a_body(worker, tracker, http_of, swarm):
    """C106 HEAD, POST, bad path, garbage bytes handled per 2.6 without killing the worker. [R]"""
    http = http_of(tracker.addresses[0])
    for target in (announce_target(swarm), scrape_target(swarm), "/announce", "/", "/health", announce_target(swarm)):
        head = http.get(target, method="HEAD")
        assert head.status == HTTPStatus.OK
        assert int(head.headers["content-length"]) > 0
    assert http.scrape(swarm) == {swarm: (0, 0, 1)}
    still_serves(tracker, http_of, swarm)


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS", "PATCH", "TRACE"])
def test_c106_other_methods(worker, tracker, http_of, swarm, method):
    """C106, of methods that are not allowed."""
    for target in (announce_target(swarm, port=2000), scrape_target(swarm), "/", "/health"):
        for headers, body in (([], b""), (["Content-Length: 5"], b"hello"), (["Content-Length: 0"], b"")):
            http = http_of(tracker.addresses[0])
            assert http.ask(request(target, *headers, method=method) + body).status == HTTPStatus.METHOD_NOT_ALLOWED
    still_serves(tracker, http_of, swarm)


@pytest.mark.parametrize(
    "target",
    [
        "/nowhere",
        "/announce/",
        "/announces",
        "/Announce",
        "/scrape/",
        "/scraped",
        "/announc",
        "/announce/../x",
        "/%61nnounc",
    ],
)
def test_c106_unknown_paths(worker, tracker, http_of, swarm, target):
    """C106, of paths; the connection may go on to ask for what there is."""
    http = http_of(tracker.addresses[0])
    response = http.get(target)
    assert response.status == HTTPStatus.NOT_FOUND
    assert len(response.body) < 200
    assert http.announce(swarm)[b"incomplete"] == 1
    assert http.scrape(swarm) == {swarm: (0, 0, 1)}
    assert http.get(target + "?info_hash=x").status == HTTPStatus.NOT_FOUND
    still_serves(tracker, http_of, swarm)


MALFORMED = (
    b"GET\r\n\r\n",
    b"GET \r\n\r\n",
    b"GET  HTTP/1.1\r\n\r\n",
    b"GET /announce\r\n\r\n",
    b"GET /announce HTTP\r\n\r\n",
    b"GET /announce HTTP/1\r\n\r\n",
    b"GET /announce HTTP/1.2\r\n\r\n",
    b"GET /announce HTTP/2.0\r\n\r\n",
    b"GET /announce http/1.1\r\n\r\n",
    b"GET /announce HTTP/1.1 \r\n\r\n",
    b"GET\t/announce\tHTTP/1.1\r\n\r\n",
    b"get /announce HTTP/1.1\r\n\r\n",
    b" GET /announce HTTP/1.1\r\n\r\n",
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n",
    b"\x13BitTorrent protocol" + bytes(48),
    b"\0" * 100,
    b"\xff" * 100,
    b"d1:ad2:id20:abcdefghij0123456789e1:q4:ping1:t2:aa1:y1:qe",
    b"AAAAAAAAAAAAAAAAAAAAAAAA",
    b"hello\r\n\r\n",
    b":\r\n\r\n",
)


@pytest.mark.parametrize("data", MALFORMED)
def test_c106_malformed_requests(worker, tracker, http_of, swarm, data):
    """C106, of what is no HTTP: status 400 with a body that rTorrent understands, then the end."""
    for sent in (data, data + b"GET /announce HTTP/1.1\r\n\r\n" * 3):
        http = http_of(tracker.addresses[0])
        response = http.ask(sent)
        assert response.status == HTTPStatus.BAD_REQUEST
        assert response.headers["connection"] == "close"
        assert response.answer[b"failure reason"] == b"malformed request"
        assert http.ended()
    still_serves(tracker, http_of, swarm)


def test_c106_garbage(worker, tracker, http_of, swarm):
    """C106, of random bytes, alone and behind good requests."""
    good = request(announce_target(swarm))
    for number in range(200):
        garbage = b"\xff" + os.urandom(number * 7)
        assert b"\r\n\r\n" in whole(tracker.addresses[0], garbage)
        first, _, second = whole(tracker.addresses[0], good + garbage).partition(b"HTTP/1.1 400")
        assert first.startswith(b"HTTP/1.1 200")
        assert second
    still_serves(tracker, http_of, swarm)


def test_c106_who_leaves_does_no_harm(worker, tracker, http_of, swarm):
    """C106, of clients that go away in the middle."""
    data = request(announce_target(swarm))
    for many in range(0, len(data) + 1, 3):
        http = http_of(tracker.addresses[0])
        http.send(data[:many])
        http.close()
    still_serves(tracker, http_of, swarm)
