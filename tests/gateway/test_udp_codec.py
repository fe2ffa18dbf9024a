"""The codec through its doors, compiled and uncompiled, on batches that are filled by hand."""

import itertools
import os
import socket
import struct
from ipaddress import ip_network
from types import SimpleNamespace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from packing import HEADER, Request, pack_links
from trackers import (
    COMPLETED,
    MAGIC,
    PAUSED,
    announce_request,
    as_ipv6,
    connect_request,
    pack_name,
    put,
    queued,
    scrape_request,
)

from common import counters, frames
from common.batch_io import Batch, allocate
from common.values import Network
from gateway.service import pack_networks
from gateway.siphash import siphash

CLUSTER, CURRENT, PREVIOUS = (bytes([n]) * 16 for n in (1, 2, 3))
WINDOW = 2_833_334
SECOND = 1_000_000
START = 1000 * SECOND
HOST, HOST6 = "198.51.100.1", "2001:db8::1"
LOCAL, LOCAL6 = "203.0.113.9", "2001:db8::9"
BAD_ID = b"\xff" * 8
NOT_PUBLIC = [
    ip_network(text)
    for text in ("0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12")
    + ("192.168.0.0/16", "224.0.0.0/3")
]


class Bench:
    """A codec, and its batch."""

    def __init__(self, module, families=(socket.AF_INET,), depth=8, links=1, slices=1, answer_invalid=True):
        self.batch = Batch(list(families), depth)
        self.depth = depth
        self.out = module.Records(allocate, links, slices, depth)
        self.out.set_key(CLUSTER)
        self.sources = module.Sources(allocate)
        self.sources.set_limits(1000, 100, 1000, 100)
        self.codec = module.UdpCodec(self.batch, self.out, self.sources, 50, 200, 6, answer_invalid)
        self.codec.set_keys(CURRENT, PREVIOUS, WINDOW)
        self.now = START

    def limit(self, *limits):
        """Rates and bursts of connects and of requests, and errors a second."""
        self.sources.set_limits(*limits[:4])
        self.codec.set_error_limit(limits[4])

    def fill(self, *datagrams, source=HOST, door=0):
        """Let datagrams lie in a socket's batch, all from port 5000 of a source or each from an own (host, port)."""
        for place, datagram in enumerate(datagrams, door * self.depth):
            sender, datagram = datagram if isinstance(datagram, tuple) else ((source, 5000), datagram)
            mapped = self.batch.ipv6[door] and ":" not in sender[0]
            put(self.batch, place, datagram, pack_name(f"::ffff:{sender[0]}" if mapped else sender[0], sender[1]))
            control = self.batch.received.controls.cast("B")[48 * place + 16 : 48 * place + 48]
            if self.batch.ipv6[door]:
                control[:16] = as_ipv6(LOCAL if mapped else LOCAL6)
            else:
                control[4:8] = socket.inet_aton(LOCAL)

    def decode(self, *datagrams, source=HOST, door=0):
        """Take datagrams; all of them must fit."""
        self.fill(*datagrams, source=source, door=door)
        assert self.codec.decode(door, 0, len(datagrams), self.now, WINDOW) == len(datagrams)

    def records(self, link=0):
        """The records for a link, each 96 bytes."""
        length = self.out.close(link, 7, 8, 9)
        if length == 0:
            return []
        start = link * self.out.frame_size
        frame = bytes(self.out.view[start : start + length])
        count = (length - frames.HEADER) // frames.RECORD
        assert frame[: frames.HEADER] == HEADER.pack(frames.VERSION, frames.RECORDS, count, 7, 8, 9)
        return [frame[frames.HEADER + at * frames.RECORD :][: frames.RECORD] for at in range(count)]

    def answers(self, door=0):
        """What is queued for a socket: (name, datagram)."""
        return queued(self.batch, door, self.codec.take_pending(door))

    def ask(self, *datagrams, source=HOST, door=0):
        """The answers to datagrams that no shard is asked for."""
        self.decode(*datagrams, source=source, door=door)
        return [answer for _, answer in self.answers(door)]

    def id_of(self, host=HOST, window=WINDOW):
        return self.codec.connection_id(as_ipv6(host), window)

    def encode(self, frame):
        """Let a frame of replies come; what is queued for the first socket."""
        self.frame = memoryview(bytearray(frame))  # it must stay until the answers are sent
        address = self.batch.address_of(self.frame) if frame else 0
        many = self.codec.encode(self.frame, address)
        return many, self.answers()

    def counted(self, *places):
        values = self.codec.counters()
        return [values[place] for place in places] if len(places) > 1 else values[places[0]]


@pytest.fixture(scope="module")
def module(kernel):
    """The codec and what it is made of, all compiled or none."""
    codec = kernel("gateway.udp_codec")
    return SimpleNamespace(
        UdpCodec=codec.UdpCodec,
        url_data=codec.url_data,
        siphash=kernel("gateway.siphash").siphash,
        Records=kernel("gateway.records").Records,
        Sources=kernel("gateway.sources").Sources,
    )


@pytest.fixture
def bench(module):
    return Bench(module)


def ticket_of(request, host=HOST, port=5000, door=0, local=LOCAL, scope=0):
    """The ticket that the table of common/frames.py has for a request."""
    where = struct.pack("<H", door) + struct.pack(">H", port) + struct.pack("<I", scope)
    return where + as_ipv6(host) + as_ipv6(local) + request[8:16]


def record_of(request, info_hash, **fields):
    """The record that an announce with these words means."""
    known = {"address": HOST, "port": 6881, "sip_hash": siphash(CLUSTER, info_hash), "want": 50}
    return Request(info_hash, **known | {"ticket": ticket_of(request)} | fields).pack()


# Doors


def test_siphash_takes_short_messages_only(module):
    for key, message in ((bytes(15), b""), (bytes(16), bytes(40))):
        with pytest.raises(ValueError, match="16 bytes and a message of at most 39"):
            module.siphash(key, message)
    assert module.siphash(bytes(range(16)), bytes(range(39))) == siphash(bytes(range(16)), bytes(range(39)))


@pytest.mark.parametrize(
    ("settings", "line"),
    [
        ((1, 3, 50, 200, 6), "power of two"),
        ((1, 0, 50, 200, 6), "power of two"),
        ((1, 1 << 17, 50, 200, 6), "power of two"),
        ((0, 1, 50, 200, 6), "links"),
        ((4097, 1, 50, 200, 6), "links"),
        ((1, 1, 201, 200, 6), "out of range"),
        ((1, 1, 50, 201, 6), "out of range"),
        ((1, 1, 50, 200, 0), "out of range"),
        ((1, 1, 50, 200, 201), "out of range"),
    ],
)
def test_settings_out_of_range_are_refused(module, settings, line):
    with pytest.raises(ValueError, match=line):
        records = module.Records(allocate, *settings[:2], 1)
        module.UdpCodec(Batch([socket.AF_INET], depth=1), records, module.Sources(allocate), *settings[2:], True)


def test_keys_and_networks_have_their_lengths(bench):
    for keys in ((bytes(17), b""), (bytes(16), bytes(1))):
        with pytest.raises(ValueError, match="keys have 16 bytes"):
            bench.codec.set_keys(*keys, 0)
    with pytest.raises(ValueError, match="keys have 16 bytes"):
        bench.out.set_key(bytes(15))
    for networks in ((bytes(31), b""), (b"", bytes(33))):
        with pytest.raises(ValueError, match="a network has"):
            bench.sources.set_networks(*networks)


def test_links_are_a_table_of_slices(module):
    bench = Bench(module, links=2, slices=4)
    for table, line in (([0, 1, 0], "each slice"), ([0, 1, 2, 0], "no such link")):
        with pytest.raises(ValueError, match=line):
            bench.out.set_links(*pack_links(table))


def test_doors_refuse_what_does_not_exist(bench):
    for door, start, many in ((1, 0, 0), (-1, 0, 0), (0, 2, 1), (0, -1, 1), (0, 0, 9)):
        with pytest.raises(ValueError, match="no such socket"):
            bench.codec.decode(door, start, many, START, WINDOW)
    for link in (1, -1):
        with pytest.raises(ValueError, match="no such link"):
            bench.out.close(link, 0, 0, 0)


# Decoding


def test_an_announce_becomes_a_record(bench):
    info_hash = os.urandom(20)
    request = announce_request(bench.id_of(), info_hash, event=COMPLETED, left=0, port=51413, want=7)
    bench.decode(request)
    wanted = record_of(request, info_hash, event=frames.EVENT_COMPLETED, seeder=True, port=51413, want=7)
    assert bench.records() == [wanted]
    assert bench.records() == []


@pytest.mark.parametrize(
    ("field", "stored"),
    [("8.8.8.8", "8.8.8.8"), ("0.0.0.0", HOST), *((str(network[1]), HOST) for network in NOT_PUBLIC)],
)
def test_who_is_trusted_may_speak_for_public_addresses(bench, field, stored):
    bench.sources.set_networks(b"", pack_networks([Network("198.51.100.0/24")]))
    request = announce_request(bench.id_of(), bytes(20), ip=field)
    bench.decode(request)
    assert bench.records() == [record_of(request, bytes(20), address=stored)]


def test_an_announce_from_ipv6(module):
    bench = Bench(module, families=[socket.AF_INET, socket.AF_INET6])
    info_hash = os.urandom(20)
    request = announce_request(bench.id_of(HOST6), info_hash, event=PAUSED, want=200, ip="8.8.8.8")
    bench.decode(request, source=HOST6, door=1)
    ticket = ticket_of(request, HOST6, door=1, local=LOCAL6)
    assert bench.records() == [
        record_of(request, info_hash, address=HOST6, ticket=ticket, event=frames.EVENT_PAUSED, want=67)
    ]


def test_an_ipv4_client_of_an_ipv6_socket_is_an_ipv4_peer(module):
    bench = Bench(module, families=[socket.AF_INET6])
    request = announce_request(bench.id_of(), bytes(20), want=200)
    bench.decode(request)
    assert bench.records() == [record_of(request, bytes(20), want=200)]


def test_a_scope_goes_into_the_ticket(module):
    bench = Bench(module, families=[socket.AF_INET6])
    request = announce_request(bench.id_of("fe80::1"), bytes(20))
    name = pack_name("fe80::1", 5000)[:24] + struct.pack("<I", 3)
    put(bench.batch, 0, request, name)
    bench.codec.decode(0, 0, 1, bench.now, WINDOW)
    (record,) = bench.records()
    assert record[:48] == ticket_of(request, "fe80::1", local="::", scope=3)
    reply = pack_reply(record[:48])
    assert bench.encode(frame_of(reply)) == (1, [(name, reply[frames.AT_ANSWER :])])


def test_records_go_to_the_link_of_their_slice(module):
    links = [2, 0, 1, 2, 0, 1, 2, 0]
    bench = Bench(module, depth=200, links=3, slices=8)
    bench.limit(1000, 1000, 1000, 1000, 1000)
    bench.out.set_links(*pack_links(links))
    hashes = [os.urandom(20) for _ in range(100)]
    requests = [announce_request(bench.id_of(), info_hash) for info_hash in hashes]
    bench.decode(*requests, scrape_request(bench.id_of(), *hashes[:20]))
    for link in range(3):
        own = [info_hash for info_hash in hashes if links[siphash(CLUSTER, info_hash) & 7] == link]
        again = [info_hash for info_hash in hashes[:20] if info_hash in own]
        assert own
        assert [record[56:76] for record in bench.records(link)] == own + again


def test_a_full_frame_is_sent_before_more_is_taken(module):
    bench = Bench(module, depth=4)
    hashes = [os.urandom(20) for _ in range(74)]
    scrape = scrape_request(bench.id_of(), *hashes)
    announce = announce_request(bench.id_of(), hashes[0])
    bench.fill(announce, scrape, scrape, announce)
    seen = []
    done = 0
    while done < 4:
        before, done = done, bench.codec.decode(0, done, 4, bench.now, WINDOW)
        assert done > before
        seen.append(len(bench.records()))
    assert seen == [75, 74, 1]


def test_only_the_first_2048_bytes_count(module):
    bench = Bench(module, depth=1)
    hashes = [os.urandom(20) for _ in range(74)]
    bench.fill(scrape_request(bench.id_of(), *hashes, bytes(600))[:2048])
    bench.batch.received.headers[7] = 5000
    bench.codec.decode(0, 0, 1, bench.now, WINDOW)
    assert [record[56:76] for record in bench.records()] == hashes


@pytest.mark.parametrize(
    ("family", "host", "port", "good"),
    [
        (socket.AF_INET, HOST, 0, False),
        (socket.AF_INET, "0.0.0.0", 5000, False),
        (socket.AF_INET, "0.1.2.3", 5000, False),
        (socket.AF_INET, "223.255.255.255", 5000, True),
        (socket.AF_INET, "224.0.0.1", 5000, False),
        (socket.AF_INET, "255.255.255.255", 5000, False),
        (socket.AF_INET6, HOST6, 0, False),
        (socket.AF_INET6, "::", 5000, False),
        (socket.AF_INET6, "::1", 5000, True),
        (socket.AF_INET6, "fe80::1", 5000, True),
        (socket.AF_INET6, "ff02::1", 5000, False),
        (socket.AF_INET6, "224.0.0.1", 5000, False),
        (socket.AF_INET6, "0.0.0.0", 5000, False),
        (socket.AF_INET6, HOST, 5000, True),
    ],
)
def test_sources_where_nobody_is(module, family, host, port, good):
    bench = Bench(module, families=[family])
    assert len(bench.ask(((host, port), connect_request()))) == good
    assert bench.counted(counters.BAD_SOURCE) == (not good)


# A model of the protocol's section 1.7, by which any datagram is judged

TRUSTED = Network("127.0.0.0/8")


def model(data, host, connection_id):
    """What becomes of a datagram: (answer without a shard, records), the records without their tickets."""
    data = data[:2048]
    if len(data) < 16:
        return None, []
    action = int.from_bytes(data[8:12], "big")
    if action == 0:
        is_connect = data[:8] == MAGIC.to_bytes(8, "big")
        return (data[8:16] + connection_id if is_connect else None), []
    if data[:8] != connection_id:
        plausible = (action == 1 and len(data) >= 98) or (action == 2 and len(data) >= 36)
        return (error(data, b"Connection ID mismatch") if plausible else None), []
    if action == 1:
        return (None, [announced(data, host)]) if len(data) >= 98 else (error(data, b"malformed announce"), [])
    if action == 2:
        hashes = [data[at : at + 20] for at in range(16, len(data) - 19, 20)][:74]
        return (None, [scraped(info_hash) for info_hash in hashes]) if hashes else (error(data, b"no hash"), [])
    return error(data, b"unknown action"), []


def error(data, text):
    reply = b"\0\0\0\3" + data[12:16] + text
    return reply if len(reply) <= len(data) else None


def announced(data, host):
    ipv6 = ":" in host
    left, _, event, ip, _, want, port = struct.unpack_from(">QQI4sIiH", data, 64)
    address = host
    spoken_for = socket.inet_ntoa(ip)
    if host.startswith("127.") and not any(Network(spoken_for).network.subnet_of(network) for network in NOT_PUBLIC):
        address = spoken_for
    return Request(
        info_hash=data[16:36],
        address=address,
        port=port,
        event=event if event <= 4 else 0,
        seeder=left == 0,
        want=min(50 if want < 0 else want, 67 if ipv6 else 200),
        exempt=host.startswith("127."),
        sip_hash=siphash(CLUSTER, data[16:36]),
    ).pack()[48:]


def scraped(info_hash):
    hashed = siphash(CLUSTER, info_hash)
    return struct.pack("<Q", hashed) + info_hash + bytes(18) + bytes([frames.EVENT_SCRAPE, 0])


EDGES = st.sampled_from([0, 1, 2, 3, 4, 5, 49, 50, 67, 68, 200, 201, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF])
WORDS = EDGES | st.integers(0, 0xFFFFFFFF)
ADDRESSES = st.sampled_from(["0.0.0.0", "8.8.8.8", "10.1.1.1", "172.31.0.1", "192.168.0.1", "169.254.0.1"]) | st.builds(
    socket.inet_ntoa, st.binary(min_size=4, max_size=4)
)


@st.composite
def datagrams(draw, connection_id):
    """Noise, and requests with something changed."""
    given_id = draw(st.sampled_from([connection_id, connection_id, BAD_ID, MAGIC.to_bytes(8, "big")]))
    tail = draw(st.binary(max_size=60))
    announce = announce_request(given_id, draw(st.binary(min_size=20, max_size=20)), ip=draw(ADDRESSES), tail=tail)
    announce = bytearray(announce)
    announce[64:72] = draw(st.sampled_from([bytes(8), b"\xff" * 8]) | st.binary(min_size=8, max_size=8))
    announce[80:84], announce[92:96] = (draw(WORDS).to_bytes(4, "big") for _ in range(2))
    hashes = draw(st.lists(st.binary(min_size=20, max_size=20), max_size=5)) * draw(st.sampled_from([1, 1, 1, 20]))
    other = given_id + draw(WORDS).to_bytes(4, "big") + draw(st.binary(min_size=4, max_size=100))
    noise = draw(st.binary(max_size=200))
    data = bytearray(draw(st.sampled_from([announce, connect_request() + tail, other, noise])))
    data = draw(st.sampled_from([data, bytearray(scrape_request(given_id, *hashes, tail))]))
    for place in draw(st.lists(st.integers(0, max(0, len(data) - 1)), max_size=3)):
        data[place : place + 1] = draw(st.binary(min_size=1, max_size=1))
    return bytes(data[: draw(st.none() | st.integers(0, len(data)))])


@pytest.mark.parametrize("host", [HOST, "127.0.0.1", HOST6])
def test_any_datagram_is_treated_as_the_model_says(module, host):
    bench = Bench(module, families=[socket.AF_INET6], depth=1)
    bench.sources.set_networks(pack_networks([TRUSTED]), pack_networks([TRUSTED]))

    @settings(max_examples=200, deadline=None, database=None)
    @given(datagrams(bench.id_of(host)))
    def check(data):
        bench.now += 10 * SECOND  # limits are another matter
        answer, records = model(data, host, bench.id_of(host))
        bench.decode(data, source=host)
        assert [reply for _, reply in bench.answers()] == ([] if answer is None else [answer])
        assert [record[48:] for record in bench.records()] == records
        bench.codec.expire_gathers(bench.now + 4 * SECOND)

    check()


# Connection ids


def test_ids_of_the_last_windows_and_the_next_are_good(bench):
    for issued, good in ((WINDOW - 7, 0), (WINDOW - 6, 1), (WINDOW, 1), (WINDOW + 1, 1), (WINDOW + 2, 0)):
        bench.decode(announce_request(bench.id_of(window=issued), bytes(20)))
        assert len(bench.records()) == good


def test_ids_of_the_previous_key_are_good_until_it_was_replaced(bench):
    for rotated, good in ((WINDOW - 1, 0), (WINDOW, 1)):
        bench.codec.set_keys(PREVIOUS, b"", 0)
        old = bench.id_of()
        bench.codec.set_keys(CURRENT, PREVIOUS, rotated)
        bench.decode(announce_request(old, bytes(20)))
        assert len(bench.records()) == good
    bench.codec.set_keys(CURRENT, b"", WINDOW)
    bench.decode(announce_request(old, bytes(20)))
    assert bench.records() == []


# Limits


def many_of(bench, request, many, source=HOST):
    """How many of so many requests, one by one, were answered or became records."""
    taken = 0
    for _ in range(many):
        bench.decode(request, source=source)
        taken += len(bench.records()) + len(bench.answers())
    return taken


@pytest.mark.parametrize(
    ("request_of", "refused"),
    [
        (lambda _: connect_request(), counters.CONNECT_LIMIT),
        (lambda good: announce_request(good, bytes(20)), counters.REQUEST_LIMIT),
        (lambda good: scrape_request(good, bytes(20)), counters.REQUEST_LIMIT),
        (lambda _: announce_request(BAD_ID, bytes(20)), counters.ERRORS_HELD_BACK),
    ],
)
def test_a_burst_then_a_rate(bench, request_of, refused):
    bench.limit(5, 20, 5, 20, 1000)
    request = request_of(bench.id_of())
    assert many_of(bench, request, 30) == 20
    bench.now += SECOND // 5 - 1
    assert many_of(bench, request, 1) == 0
    bench.now += 1
    assert many_of(bench, request, 5) == 1
    bench.now += SECOND
    assert many_of(bench, request, 10) == 5
    bench.now += 100 * SECOND
    assert many_of(bench, request, 30) == 20
    assert bench.counted(refused) == 10 + 1 + 4 + 5 + 10


def test_connects_and_requests_are_limited_apart(bench):
    bench.limit(5, 20, 5, 30, 1000)
    assert many_of(bench, connect_request(), 50) == 20
    assert many_of(bench, announce_request(bench.id_of(), bytes(20)), 50) == 30


def test_a_source_is_an_address_or_a_64(module):
    bench = Bench(module, families=[socket.AF_INET6])
    bench.limit(5, 20, 5, 20, 1000)
    for host, left in ((HOST6, 20), ("2001:db8::2", 0), ("2001:db8:0:1::1", 20), (HOST, 20), ("198.51.100.2", 20)):
        assert many_of(bench, connect_request(), 30, host) == left


def test_the_exempt_are_not_refused(bench):
    bench.limit(5, 20, 5, 20, 1000)
    bench.sources.set_networks(pack_networks([Network("198.51.100.0/31"), Network("2001:db8::/32")]), b"")
    request = announce_request(bench.id_of(), bytes(20))
    assert many_of(bench, connect_request(), 50) == 50
    assert many_of(bench, request, 50) == 50
    assert many_of(bench, connect_request(), 50, "198.51.100.2") == 20
    bench.decode(request)
    assert bench.records()[0][frames.AT_EVENT] & frames.FLAG_EXEMPT


def sources_of_a_set(many):
    """Addresses whose buckets lie in the same set of the table, when its secret is 0."""
    spread, all64 = 0x9E37_79B9_7F4A_7C15, (1 << 64) - 1
    sets = {}
    for number in itertools.count(11 << 24):
        host = socket.inet_ntoa(number.to_bytes(4, "big"))
        key = int.from_bytes(as_ipv6(host)[8:], "little") * spread & all64
        key = (key ^ key >> 32) * spread & all64
        hosts = sets.setdefault(key >> 40 & 0x3FFF, [])
        hosts.append(host)
        if len(hosts) == many:
            return hosts
    return []


def test_a_newcomer_takes_the_place_of_who_asked_least(bench):
    bench.limit(1, 20, 1, 20, 1000)
    hosts = sources_of_a_set(8)
    for host, asked in zip(hosts, (20, 5, 15, 10), strict=False):
        assert many_of(bench, connect_request(), asked, host) == asked
    for host in hosts[4:]:  # each takes the place of another
        assert many_of(bench, connect_request(), 6, host) == 6
    # Of the first four, the one who asked least was forgotten, and then the newcomers took each other's place.
    for host, left in zip(hosts, (0, None, 5, 10), strict=False):
        if left is not None:
            assert many_of(bench, connect_request(), 20, host) == left
    assert many_of(bench, connect_request(), 30, hosts[1]) == 20


def test_errors_are_limited_for_all_sources_together(module):
    bench = Bench(module, depth=64)
    bench.limit(1000, 1000, 1000, 1000, 10)
    hosts = [f"198.51.100.{number}" for number in range(1, 33)]
    bad = [((host, 5000), announce_request(BAD_ID, bytes(20))) for host in hosts]
    assert len(bench.ask(*bad)) == 11  # a second's worth, and the one that is being paid for
    assert bench.counted(counters.ERRORS_HELD_BACK) == 32 - 11
    good = [((host, 5000), bench.id_of(host) + b"\0\0\0\x63" + bytes(50)) for host in hosts]
    assert len(bench.ask(*good)) == 0  # errors to who proved himself too
    bench.now += SECOND // 10
    assert len(bench.ask(*bad)) == 1
    bench.now += 100 * SECOND
    assert len(bench.ask(*bad)) == 11


def test_a_strict_codec_answers_no_bad_id(module):
    bench = Bench(module, answer_invalid=False)
    assert bench.ask(announce_request(BAD_ID, bytes(20)), scrape_request(BAD_ID, bytes(20))) == []
    assert bench.counted(counters.BAD_ID) == 2


# Options


@pytest.mark.parametrize(
    ("tail", "url", "seen", "wrong"),
    [
        (b"", b"", 0, 0),
        (b"\2\1/", b"/", 1, 0),
        (b"\1\1\2\1/\1", b"/", 1, 0),
        (b"\0\2\1/", b"", 0, 0),
        (b"\2\0", b"", 1, 0),
        (b"\x7f\3abc\2\1/", b"/", 1, 0),
        (b"\2\1/\2\1a", b"/a", 1, 0),
        (b"\2\2/", b"", 0, 1),
        (b"\2\1/\2", b"/", 1, 1),
        ((b"\2\xff" + b"u" * 255) * 4 + b"\2\4uuuu", b"u" * 1024, 1, 0),
        ((b"\2\xff" + b"u" * 255) * 4 + b"\2\5uuuuu", b"", 1, 0),
    ],
)
def test_options(module, bench, tail, url, seen, wrong):
    request = announce_request(bench.id_of(), bytes(20), tail=tail)
    bench.decode(request)
    assert bench.records() == [record_of(request, bytes(20))]
    assert bench.counted(counters.URL_DATA, counters.BAD_OPTIONS) == [seen, wrong]
    assert module.url_data(request) == url


# Encoding


def pack_reply(ticket, peers=b"", numbers=(1800, 2, 3), ipv6=False, own=None, other=b""):
    """A reply as a shard writes it: `peers` and `other` are endpoints as on the wire."""
    stride, others = (18, 6) if ipv6 else (6, 18)
    many = len(peers) // stride if own is None else own
    head = struct.pack("<IBBHHHI", 76 + len(peers + other), 0, 2 if ipv6 else 0, many, len(other) // others, 0, 42)
    return head + ticket + struct.pack(">III", *numbers) + peers + other


def frame_of(*replies):
    return HEADER.pack(frames.VERSION, frames.REPLIES, len(replies), 1, 2, 3) + b"".join(replies)


def ticket(action=1, host=HOST, port=5000, door=0, local=LOCAL):
    request = bytes(8) + struct.pack(">I", action) + b"tran"
    return ticket_of(request, host, port, door, local)


def test_a_reply_becomes_an_answer(bench):
    peers = bytes(range(12))
    many, answers = bench.encode(frame_of(pack_reply(ticket(), peers), pack_reply(ticket(2, port=5001))))
    assert many == 2
    assert answers == [
        (pack_name(HOST, 5000), struct.pack(">I4sIII", 1, b"tran", 1800, 2, 3) + peers),
        (pack_name(HOST, 5001), struct.pack(">I4sIII", 2, b"tran", 1800, 2, 3)),
    ]
    assert bench.counted(counters.ANNOUNCE_ANSWERS, counters.SCRAPE_ANSWERS) == [1, 1]
    control = bytes(bench.batch.sent.controls.cast("B")[16:32])
    assert control == bytes(4) + socket.inet_aton(LOCAL) + bytes(8)


def test_peers_of_the_other_family_are_left_out(bench):
    peers, other = bytes(range(6)), bytes(range(18))
    _, answers = bench.encode(frame_of(pack_reply(ticket(), peers, other=other)))
    assert answers[0][1][20:] == peers


def test_a_reply_to_ipv6_goes_to_its_socket(module):
    bench = Bench(module, families=[socket.AF_INET, socket.AF_INET6])
    there = ticket(host=HOST6, door=1, local=LOCAL6)
    many, answers = bench.encode(frame_of(pack_reply(there, bytes(range(36)), ipv6=True)))
    assert (many, answers) == (1, [])
    ((name, answer),) = bench.answers(1)
    assert name == pack_name(HOST6, 5000)
    assert answer[20:] == bytes(range(36))
    place = 2 * bench.depth
    assert bytes(bench.batch.sent.controls.cast("B")[48 * place + 16 :][:16]) == as_ipv6(LOCAL6)


def test_a_frame_that_was_cut_off_is_answered_up_to_there(bench):
    replies = [pack_reply(ticket(port=5000 + n), bytes(6 * n)) for n in range(3)]
    frame = frame_of(*replies)
    ends = [frames.HEADER + sum(map(len, replies[:n])) for n in range(4)]
    for length in range(len(frame)):
        before = bench.counted(counters.BAD_REPLY)
        many, answers = bench.encode(frame[:length])
        assert many == len(answers) == max(n for n in range(4) if ends[n] <= max(length, ends[0]))
        assert bench.counted(counters.BAD_REPLY) - before == (length not in ends)


@pytest.mark.parametrize(
    "frame",
    [
        struct.pack("<H", frames.VERSION + 1) + frame_of()[2:] + pack_reply(ticket()),
        frame_of()[:2] + struct.pack("<H", frames.RECORDS) + frame_of()[4:] + pack_reply(ticket()),
        frame_of(bytes(76)),
        frame_of(struct.pack("<I", 75) + pack_reply(ticket())[4:]),
        frame_of(struct.pack("<I", 77) + pack_reply(ticket())[4:]),
        frame_of(struct.pack("<I", 0xFFFFFFFF) + pack_reply(ticket())[4:]),
        frame_of(pack_reply(ticket(), own=1)),
        frame_of(pack_reply(ticket(), bytes(12), own=3)),
        frame_of(pack_reply(ticket(), bytes(12), own=0xFFFF)),
        frame_of(pack_reply(ticket(), bytes(30), own=2, ipv6=True)),
        frame_of(pack_reply(ticket(door=1))),
        frame_of(pack_reply(b"\xfc\xff" + bytes(46))),
        frame_of(pack_reply(b"\xff\xff\0\0" + struct.pack("<I", 1024) + bytes(40))),
    ],
)
def test_what_does_not_add_up_is_counted_and_dropped(bench, frame):
    assert bench.encode(frame) == (0, [])
    assert bench.counted(counters.BAD_REPLY) == 1
    assert bench.counted(counters.ANNOUNCE_ANSWERS) == 0


def test_no_more_is_queued_than_there_is_room_for(bench):
    bench.encode(frame_of(*[pack_reply(ticket())] * 20))
    assert bench.counted(counters.BAD_REPLY) == 4
    assert len(bench.encode(frame_of(*[pack_reply(ticket())] * 16))[1]) == 16


def test_any_frame_is_taken_without_harm(bench):
    @settings(max_examples=200, deadline=None, database=None)
    @given(st.data())
    def check(data):
        bench.decode(scrape_request(bench.id_of(), bytes(20), bytes(20)))
        tickets = [ticket(), *(record[:48] for record in bench.records())]
        replies = [pack_reply(data.draw(st.sampled_from(tickets)), bytes(6 * n)) for n in range(3)]
        frame = bytearray(frame_of(*replies))
        for _ in range(data.draw(st.integers(0, 4))):
            frame[data.draw(st.integers(0, len(frame) - 1))] = data.draw(st.integers(0, 255))
        frame = bytes(frame[: data.draw(st.none() | st.integers(0, len(frame)))])
        many, answers = bench.encode(frame)
        assert len(answers) <= many <= 3
        for _, answer in answers:
            assert answer in frame or len(answer) == 8 + 2 * 12
        bench.now += 10 * SECOND
        bench.codec.expire_gathers(bench.now)

    check()


# Gathering


def part(record, index):
    """The reply to a hash of a scrape, whose counts tell its index."""
    return pack_reply(record[:48], numbers=(index, index + 1, index + 2))


def parts_of(bench, many, port=5000):
    """Scrape so many hashes; the replies that a shard would give."""
    request = scrape_request(bench.id_of(), *(os.urandom(20) for _ in range(many)))
    bench.decode(((HOST, port), request))
    records = bench.records()
    assert len(records) == many
    answer = request[8:16] + b"".join(struct.pack(">III", n, n + 1, n + 2) for n in range(many))
    return [part(record, index) for index, record in enumerate(records)], answer


def test_parts_may_come_in_any_order(bench):
    for order in itertools.permutations(range(3)):
        parts, answer = parts_of(bench, 3)
        for index in order[:2]:
            assert bench.encode(frame_of(parts[index])) == (1, [])
        assert bench.encode(frame_of(parts[order[2]])) == (1, [(pack_name(HOST, 5000), answer)])
    assert bench.counted(counters.SCRAPE_ANSWERS) == 6
    assert bench.codec.expire_gathers(START + 100 * SECOND) == 0


def test_74_parts(bench):
    parts, answer = parts_of(bench, 74)
    assert bench.encode(frame_of(*parts[::-1])) == (74, [(pack_name(HOST, 5000), answer)])


def test_a_part_counts_once(bench):
    parts, answer = parts_of(bench, 2)
    for _ in range(3):
        assert bench.encode(frame_of(parts[0])) == (1, [])
    assert bench.encode(frame_of(parts[1])) == (1, [(pack_name(HOST, 5000), answer)])
    assert bench.encode(frame_of(*parts)) == (2, [])
    assert bench.counted(counters.BAD_REPLY) == 0


def test_a_part_that_was_not_asked_for_is_dropped(bench):
    parts, answer = parts_of(bench, 2)
    for index in (2, 63, 64, 127, 128, 0xFFFF):
        frame = bytearray(frame_of(parts[0]))
        frame[frames.HEADER + frames.AT_TICKET + 2 : frames.HEADER + frames.AT_TICKET + 4] = struct.pack("<H", index)
        assert bench.encode(frame) == (0, [])
    assert bench.counted(counters.BAD_REPLY) == 6
    assert bench.encode(frame_of(*parts))[1] == [(pack_name(HOST, 5000), answer)]


def test_parts_that_are_3_s_late_are_given_up(bench):
    parts, _ = parts_of(bench, 2)
    bench.encode(frame_of(parts[0]))
    assert bench.codec.expire_gathers(START + 3 * SECOND) == 0
    assert bench.codec.expire_gathers(START + 3 * SECOND + 1) == 1
    assert bench.codec.expire_gathers(START + 9 * SECOND) == 0
    assert bench.encode(frame_of(parts[1])) == (1, [])
    assert bench.counted(counters.GATHER_LATE, counters.BAD_REPLY, counters.SCRAPE_ANSWERS) == [1, 0, 0]


def test_a_late_part_is_not_taken_for_another_scrape(bench):
    late, _ = parts_of(bench, 2)
    bench.codec.expire_gathers(START + 4 * SECOND)
    parts, answer = parts_of(bench, 2, port=6000)
    assert late[0][20:24] == parts[0][20:24]  # the same place
    assert bench.encode(frame_of(parts[0], *late)) == (3, [])
    assert bench.encode(frame_of(parts[1])) == (1, [(pack_name(HOST, 6000), answer)])


def test_a_full_table_drops_scrapes_of_several_hashes(module):
    bench = Bench(module)
    bench.limit(1000, 1000, 10_000, 10_000, 1000)
    waiting = [parts_of(bench, 2) for _ in range(1024)]
    bench.decode(scrape_request(bench.id_of(), bytes(20), bytes(20)))
    assert bench.records() == []
    assert bench.counted(counters.GATHER_FULL) == 1
    bench.decode(scrape_request(bench.id_of(), bytes(20)))  # one hash needs no place
    assert len(bench.records()) == 1
    parts, answer = waiting[500]
    assert bench.encode(frame_of(*parts))[1] == [(pack_name(HOST, 5000), answer)]
    parts_of(bench, 2)
    assert bench.codec.expire_gathers(START + 4 * SECOND) == 1024
