"""Heads and queries: what the codec makes of a request, compiled and uncompiled, and by a model of the protocol."""

import re
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network

import pytest
from http_bench import (
    CLOSE,
    HEAD,
    HOST,
    HOST6,
    LIST,
    PEER_ID,
    Bench,
    announce_head,
    announce_query,
    announced,
    answer_of,
    escape,
    failure_body,
    head_of,
    kernels_of,
    scraped,
    ticket_of,
)
from hypothesis import example, given, settings
from hypothesis import strategies as st

from common import counters, frames
from common.values import Network
from gateway import http_codec
from gateway.service import pack_networks

FAILED = counters.HTTP_FAILURES
FAULTS = {name: FAILED + place for place, name in enumerate(counters.HTTP_FAULTS)}
REASONS = {
    "bad_request": "malformed request",
    "long_target": "request target too long",
    "long_head": "request head too large",
    "bad_hash": "invalid info_hash",
    "bad_peer_id": "invalid peer_id",
    "bad_port": "invalid port",
    "too_many_parameters": "too many parameters",
    "full_scrape": "full scrape not allowed",
}
STATUS = {
    "bad_request": b"400 Bad Request",
    "long_target": b"414 Request-URI Too Long",
    "long_head": b"431 Request Header Fields Too Large",
}
HASH = bytes(range(20))
TRUSTED = "192.0.2.7"
EVENTS = {
    b"completed": frames.EVENT_COMPLETED,
    b"started": frames.EVENT_STARTED,
    b"stopped": frames.EVENT_STOPPED,
    b"paused": frames.EVENT_PAUSED,
}


@pytest.fixture(scope="module")
def module(kernel):
    return kernels_of(kernel)


@pytest.fixture(scope="module")
def shared(module):
    """A bench for tests that leave nothing behind."""
    bench = Bench(module, most=4)
    bench.sources.set_networks(b"", pack_networks([Network(f"{TRUSTED}/32")]))
    return bench


@pytest.fixture
def bench(module):
    return Bench(module, most=4)


def number_of(record):
    """The number of the request that a record came of."""
    return int.from_bytes(record[16:24], "little")


def refused(bench, head, fault, options=0, source=HOST):
    """A head is answered with a failure and counted as such, once."""
    before = bench.counted(FAULTS[fault])
    hard = fault in STATUS
    status = STATUS.get(fault, b"200 OK")
    after = 2 if hard else 1 if options & CLOSE else 0
    wanted = answer_of(failure_body(REASONS[fault]), CLOSE if hard else options, status)
    if options & 8:
        after = 2
    assert bench.ask(head, source) == ([], [], [(wanted, after)])
    assert bench.counted(FAULTS[fault]) == before + 1


def asked(bench, head, options=0, source=HOST, host=None, **fields):
    """A head becomes the record of an announce."""
    (record,), specials, answers = bench.ask(head, source)
    assert (specials, answers) == ([], [])
    ticket = ticket_of(int.from_bytes(record[4:8], "little"), number_of(record), host or source, options)
    wanted = {"address": host or source, "info_hash": bytes(20)} | fields
    assert record == announced(ticket, **wanted)


# Heads


@pytest.mark.parametrize(
    ("head", "options"),
    [
        (announce_head(), 0),
        (b"\r\n\n\r\n" + announce_head(), 0),
        (announce_head().replace(b"\r\n", b"\n"), 0),
        (announce_head().replace(b"HTTP/1.1", b"HTTP/1.0"), CLOSE),
        (announce_head().replace(b"GET", b"HEAD"), HEAD),
        (announce_head().replace(b"GET /", b"GET http://tracker.example:6969/"), 0),
        (announce_head().replace(b"GET /", b"GET http:///"), 0),
        (announce_head(lines=[b"Connection: close"]), CLOSE),
        (announce_head(lines=[b"CONNECTION:CLOSE"]), CLOSE),
        (announce_head(lines=[b"Connection: keep-alive,  Close"]), CLOSE),
        (announce_head(lines=[b"Connection: keep-alive"]), 0),
        (announce_head(lines=[b"Connection: clos"]), 0),
        (announce_head(lines=[b"X-Connection: close"]), 0),
        (announce_head(lines=[b"Proxy-Connection: close"]), 0),
        (announce_head(lines=[b"Content-Length: 0"]), CLOSE | 8),
        (announce_head(lines=[b"transfer-encoding: chunked"]), CLOSE | 8),
        (announce_head(lines=[b"Content-Type: text/plain"]), 0),
        (announce_head(lines=[b"a" * 11, b":", b"", b"never read"][:2]), 0),
        (announce_head(lines=[b"X-Line: %d" % n for n in range(64)]), 0),
        (announce_head(lines=[b"X: " + b"a" * 7900]), 0),
    ],
)
def test_heads_that_are_understood(shared, head, options):
    asked(shared, head, options)


@pytest.mark.parametrize(
    "head",
    [
        b"get /announce HTTP/1.1\r\n\r\n",
        b"GE",
        b"GET  HTTP/1.1\r\n\r\n",
        b"GET HTTP/1.1\r\n\r\n",
        b"GET /announce\r\n\r\n",
        b"GET /announce HTTP/2.0\r\n\r\n",
        b"GET /announce HTTP/1.2\r\n\r\n",
        b"GET /announce http/1.1\r\n\r\n",
        b"GET /announce XHTTP/1.1\r\n\r\n",
        b"GET /announce HTTP/1.1 \r\n\r\n",
        b" GET /announce HTTP/1.1\r\n\r\n",
        b"A" * 17 + b" /announce HTTP/1.1\r\n\r\n",
        b"A" * 17,
        b"G\0T /announce HTTP/1.1\r\n\r\n",
        b"\x16\x03\x01\x02\0\x01\0\x01\xfc\x03\x03",  # TLS
        b"\x13BitTorrent protocol",
    ],
)
def test_what_is_no_http_is_refused_at_once(shared, head):
    if head == b"GE":  # it can become a request
        assert shared.ask(head) == ([], [(0, http_codec.MORE, 0)], [])
    else:
        refused(shared, head, "bad_request")


def test_a_head_is_awaited_at_every_cut(shared):
    head = announce_head(lines=[b"Connection: close", b"X-Forwarded-For: 192.0.2.1"])
    for cut in range(1, len(head)):
        assert shared.ask(head[:cut]) == ([], [(0, http_codec.MORE, 0)], [])


def test_too_long_a_head(shared):
    refused(shared, b"GET /announce?" + b"a" * 8192, "long_target")
    refused(shared, b"GET /announce HTTP/1.1\r\n" + b"a" * 8192, "long_head")
    refused(shared, b"\n" * 8193, "long_target")
    refused(shared, announce_head(lines=[b"X-Line: %d" % n for n in range(65)]), "long_head")
    waits = b"GET /announce?" + b"a" * (8192 - 14)
    assert shared.ask(waits) == ([], [(0, http_codec.MORE, 0)], [])


@pytest.mark.parametrize(
    "line",
    [b"GET /", b"GET /announce/", b"GET /announcement", b"GET /announc", b"GET /scrapes?", b"GET /a/announce?x"]
    + [b"GET announce", b"GET *", b"GET https://a/announce", b"GET http://a", b"GET http://a?/announce"]
    + [b"GET /Announce", b"GET /%61nnounce", b"POST /announce", b"PUT /scrape", b"G /announce", b"OPTIONS *"],
)
def test_other_paths_and_methods_are_for_others(shared, line):
    head = line + b" HTTP/1.1\r\n\r\n"
    before = shared.codec.counters()
    assert shared.ask(head) == ([], [(0, http_codec.OTHER, 0)], [])
    assert shared.ask(head + b"behind") == ([], [(0, http_codec.OTHER, 0)], [])
    assert shared.codec.counters() == before


def test_what_follows_a_request_is_told(shared):
    head = announce_head()
    (record,), specials, answers = shared.ask(head + b"GET")
    assert (specials, answers) == ([(0, http_codec.REST, len(head))], [])
    assert record[2:4] == b"\0\0"
    asked(shared, announce_head(lines=[b"Connection: close"]) + b"GET", CLOSE | 8)


def test_an_empty_row_and_a_held_place_ask_for_more(bench):
    (place,) = bench.put(b"")
    assert bench.decode() == ([], [(0, http_codec.MORE, 0)])
    bench.connections.hold(place, True)
    bench.connections.put_row(place, announce_head())
    assert bench.decode() == ([], [(0, http_codec.MORE, 0)])
    bench.connections.hold(place, False)
    for many in (1, 0):  # then it waits for its answer
        bench.connections.put_row(place, announce_head())
        records, specials = bench.decode()
        assert (len(records), len(specials)) == (many, 1 - many)


# Queries

PAIRS = re.compile(rb"[^&]+")


def unescape(raw):
    """The bytes that are meant, and whether an escape is bad (protocol.md, 2.2)."""
    value, bad, at = bytearray(), False, 0
    while at < len(raw):
        if raw[at] == 0x25 and re.fullmatch(rb"[0-9A-Fa-f]{2}", raw[at + 1 : at + 3]):
            value.append(int(raw[at + 1 : at + 3], 16))
            at += 3
            continue
        bad |= raw[at] == 0x25
        value.append(0x20 if raw[at] == 0x2B else raw[at])
        at += 1
    return bytes(value), bad


def number(value, most=1 << 64):
    """A decimal number; None if it is none."""
    return min(int(value), most) if re.fullmatch(rb"[0-9]+", value) else None


def read_four(text):
    if re.fullmatch(r"[0-9]{1,3}(\.[0-9]{1,3}){3}", text, re.ASCII) and all(int(n) < 256 for n in text.split(".")):
        return IPv4Address(bytes(map(int, text.split("."))))
    return None


def read_six(text):
    head, colon, tail = text.rpartition(":")
    if "." in tail:
        four = read_four(tail)
        if four is None:
            return None
        text = f"{head}{colon}{four.packed[:2].hex()}:{four.packed[2:].hex()}"
    if not re.fullmatch(r"[0-9A-Fa-f:]+", text, re.ASCII):
        return None
    try:
        address = IPv6Address(text)
    except ValueError:
        return None
    return address.ipv4_mapped or address


def read_address(text):
    """An address in text, with or without a port; None if it is none."""
    text = text.strip(" \t")
    if text.startswith("["):
        inner, bracket, _ = text[1:].partition("]")
        return read_six(inner) if bracket else None
    if text.count(":") > 1:
        return read_six(text)
    return read_four(text.partition(":")[0])


NOT_PUBLIC = [
    ip_network(text)
    for text in ("0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12")
    + ("192.168.0.0/16", "224.0.0.0/3", "fc00::/7", "fe00::/8", "ff00::/8", "::/64")
]


def is_public(address):
    return not any(address in network for network in NOT_PUBLIC if network.version == address.version)


def model(kind, query, source):
    """What a query means: a fault, the sorted hashes of a scrape, or the fields of an announce."""
    pairs = [piece.partition(b"=")[::2] for piece in PAIRS.findall(query)]
    named = [(unescape(name)[0], raw) for name, raw in pairs]
    hashes = [unescape(raw) for name, raw in named if name == b"info_hash"]
    others = [(name, raw) for name, raw in named if name != b"info_hash"]
    if len(others) > 100 or any(len(raw) > 512 for _, raw in others):
        return "too_many_parameters"
    return scrape_model(hashes) if kind == "scrape" else announce_model(hashes, others, source)


def scrape_model(hashes):
    """Each hash once, in order, 100 at most; bad ones are passed over."""
    good = list(dict.fromkeys(value for value, bad in hashes if len(value) == 20 and not bad))
    if good:
        return sorted(good[:100])
    return "bad_hash" if hashes else "full_scrape"


def announce_model(hashes, others, source):
    """The fields of the record, and the request's options."""
    last = {name: unescape(raw) for name, raw in others}
    value = {name: value for name, (value, _) in last.items()}
    peer_id, bad_peer_id = last.get(b"peer_id", (b"", True))
    port = number(value.get(b"port", b""))
    want = number(value.get(b"numwant", b""), 200)
    if len(hashes) != 1 or hashes[0][1] or len(hashes[0][0]) != 20:
        return "bad_hash"
    if bad_peer_id or len(peer_id) != 20:
        return "bad_peer_id"
    if port is None or port > 65535:
        return "bad_port"
    spoken_for = [read_address(unescape(raw)[0].decode("latin-1")) for name, raw in others if name == b"ip"]
    public = [str(address) for address in spoken_for if address is not None and is_public(address)]
    return {
        "info_hash": hashes[0][0],
        "address": public[-1] if public and source == TRUSTED else source,
        "port": port,
        "event": EVENTS.get(value.get(b"event"), 0),
        "seeder": number(value.get(b"left", b"")) == 0,
        "want": 50 if want is None else want,
        "options": LIST * (number(value.get(b"compact", b"")) == 0),
    }


def check_query(bench, kind, query, source=HOST):
    """A query does what the model says, and only that is counted."""
    bench.now += 1_000_000
    before = bench.codec.counters()
    wanted = model(kind, query, source)
    head = head_of(b"/%b?%b" % (kind.encode(), query))
    if isinstance(wanted, str):
        refused(bench, head, wanted, source=source)
    elif kind == "announce":
        options = wanted.pop("options")
        ip = wanted.pop("address")
        (record,), specials, answers = bench.ask(head, source)
        assert (specials, answers) == ([], [])
        ticket = ticket_of(int.from_bytes(record[4:8], "little"), number_of(record), source, options)
        assert record == announced(ticket, address=ip, **wanted)
    else:
        records, specials, answers = bench.ask(head, source)
        assert (specials, answers) == ([], [])
        assert records == [scraped(record[:48], value) for record, value in zip(records, wanted, strict=True)]
        assert [record[:4] for record in records] == [b"\xfd\xff" + bytes([n, 0]) for n in range(len(records))]
        bench.seconds += 10
        bench.codec.expire(bench.seconds, 1)  # its place in the gather table is free again
    after = bench.codec.counters()
    kinds = counters.HTTP_ANNOUNCES, counters.HTTP_SCRAPES
    assert sum(after[place] - before[place] for place in kinds) == 1
    assert after[kinds[kind == "scrape"]] == before[kinds[kind == "scrape"]] + 1


CASES = [
    announce_query(HASH, b"numwant=7", b"event=started"),
    announce_query(HASH, b"numwant=0"),
    announce_query(HASH, b"numwant=199", b"numwant=201"),
    announce_query(HASH, b"numwant=99999999999999999999999999"),
    announce_query(HASH, b"numwant="),
    announce_query(HASH, b"numwant"),
    announce_query(HASH, b"numwant=-1"),
    announce_query(HASH, b"numwant=%35%30"),
    announce_query(HASH, b"numwant=5&numwant=x"),
    announce_query(HASH, left=0),
    announce_query(HASH, b"left=", left=0),
    announce_query(HASH, b"left=00"),
    announce_query(HASH, b"left=18446744073709551615"),
    announce_query(HASH, b"left=18446744073709551616"),
    announce_query(HASH, b"left=+0"),
    announce_query(HASH, b"compact=0"),
    announce_query(HASH, b"compact=%30"),
    announce_query(HASH, b"compact=0&compact=1"),
    announce_query(HASH, b"compact=1&compact=0"),
    announce_query(HASH, b"compact="),
    announce_query(HASH, *(b"event=" + event for event in EVENTS)),
    *(announce_query(HASH, b"event=" + event) for event in EVENTS),
    *(announce_query(HASH, b"event=" + event + b"x") for event in EVENTS),
    *(announce_query(HASH, b"event=" + event[:-1]) for event in EVENTS),
    *(announce_query(HASH, b"event=" + event.upper()) for event in EVENTS),
    announce_query(HASH, b"event=complete%64"),
    announce_query(HASH, b"event=completee"),
    announce_query(HASH, b"event=started%00"),
    announce_query(HASH, b"event=", b"event"),
    announce_query(HASH, port=0),
    announce_query(HASH, port=65535),
    announce_query(HASH, port=65536),
    announce_query(HASH, port=1 << 64),
    announce_query(HASH, b"port="),
    announce_query(HASH, b"port=1x"),
    announce_query(HASH, b"port=x&port=80"),
    announce_query(HASH, b"Port=80"),
    announce_query(HASH, b"port%00=80"),
    announce_query(HASH, b"port%00%00%00%00%00=80"),
    announce_query(HASH, b"%70or%74=80"),
    announce_query(HASH, b"portport=80", b"numwants=1", b"numwan=2", b"eventevent=stopped"),
    announce_query(HASH, b"peer_id=short"),
    announce_query(HASH, b"peer_id=" + b"a" * 18 + b"%2"),
    announce_query(HASH, b"peer_id=" + b"a" * 17 + b"%2g"),
    announce_query(HASH, b"peer_id=" + b"%61" * 20),
    announce_query(HASH, b"peer_id", b"peer_id=" + PEER_ID),
    announce_query(HASH, b"&&&", b"=", b"=&=", b"x=y=z", b"==="),
    announce_query(HASH, b"%", b"%4", b"%zz=%zz", b"left%=0", b"+left=0"),
    announce_query(HASH, b"info_hash=" + bytes(20)),
    announce_query(HASH, b"info%5fhash=" + bytes(20)),
    announce_query(HASH, b"info_hash"),
    announce_query(HASH, b"info_hashx=" + bytes(20), b"info_has=" + bytes(20), b"info_has%00=1"),
    announce_query(HASH, *[b"a=1"] * 97),
    announce_query(HASH, *[b"a=1"] * 98),
    announce_query(HASH, b"a=" + b"%61" * 170 + b"aa"),
    announce_query(HASH, b"a=" + b"%61" * 171),
    announce_query(HASH, b"a" * 600),
    announce_query(HASH, b"a" * 600 + b"="),
    announce_query(HASH, b"\xff\xfe=\x80"),
    announce_query(HASH, b"a b=c d"),
    announce_query(HASH, b"a?b=?", b"#"),
    announce_query(HASH, b"ip=8.8.8.8"),
    announce_query(HASH, b"ip=2001%3Adb8%3a%3a5"),
    announce_query(HASH, b"ip=2001:db8::5"),
    announce_query(HASH, b"ip=8.8.8.8&ip=None"),
    announce_query(HASH, b"ip=10.0.0.1", b"ip=9.9.9.9", b"ip=172.16.0.1"),
    announce_query(HASH, b"ip=%5b2001:db8::5%5d:6881"),
    announce_query(HASH, b"ip=::ffff:8.8.4.4"),
    announce_query(HASH, b"ip=tracker.i2p"),
    b"info_hash=" + b"%31" * 19 + b"1&peer_id=" + PEER_ID + b"&port=1",
    b"info_hash=" + b"\xff" * 20 + b"&peer_id=" + PEER_ID + b"&port=1",
    b"info_hash=" + b"+" * 20 + b"&peer_id=" + b"%2B" * 20 + b"&port=1",
    b"info_hash=%252b" + b"A" * 17 + b"&peer_id=" + PEER_ID + b"&port=1",
    b"info_hash=" + HASH.hex().encode() + b"&peer_id=" + PEER_ID + b"&port=1",
    b"info_hash=" + b"A" * 19 + b"&peer_id=" + PEER_ID + b"&port=1",
    b"info_hash=" + b"A" * 19 + b"%&peer_id=" + PEER_ID + b"&port=1",
    b"info_hash=" + b"A" * 19 + b"%4&peer_id=" + PEER_ID + b"&port=1",
    b"",
    b"&",
    b"info_hash",
    b"info_hash=",
]


@pytest.mark.parametrize("kind", ["announce", "scrape"])
@pytest.mark.parametrize("query", CASES)
def test_queries_that_are_known(shared, kind, query):
    for source in (HOST, TRUSTED):
        check_query(shared, kind, query, source)


@pytest.mark.parametrize("network", NOT_PUBLIC)
def test_nobody_speaks_for_an_address_that_is_not_public(shared, network):
    for address in (network[0], network[1], network[-1]):
        check_query(shared, "announce", announce_query(HASH, f"ip={address}".encode()), TRUSTED)
    with_port = announce_query(HASH, f"ip={network[1]}".encode())
    assert model("announce", with_port, TRUSTED)["address"] == TRUSTED


def test_a_query_may_be_missing(shared):
    refused(shared, head_of(b"/announce"), "bad_hash")
    refused(shared, head_of(b"/scrape"), "full_scrape")
    refused(shared, head_of(b"/scrape?"), "full_scrape")
    refused(shared, head_of(b"http://host/scrape", b"Connection: close"), "full_scrape", CLOSE)


NAMES = [
    b"info_hash",
    b"peer_id",
    b"port",
    b"left",
    b"event",
    b"numwant",
    b"compact",
    b"ip",
    b"key",
    b"",
    b"no_peer_id",
]
ADDRESSES = [b"8.8.8.8", b"10.1.2.3", b"2001:db8::7", b"2001%3Adb8::1.2.3.4", b"None", b"[::1]:80", b"::ffff:9.9.9.9"]
VALUES = st.one_of(
    st.sampled_from([b"", b"0", b"1", b"50", b"201", b"65535", b"65536", b"-1", PEER_ID, b"a" * 19, b"%zz", b"%2"]),
    st.sampled_from([*EVENTS, b"empty", *ADDRESSES]),
    st.binary(min_size=20, max_size=20).map(escape),
    st.lists(st.sampled_from([HASH, bytes(20), b"\xff" * 20]), min_size=1, max_size=1).map(lambda one: escape(one[0])),
    st.integers(0, 1 << 70).map(lambda value: b"%d" % value),
    st.binary(max_size=40),
)


@st.composite
def written(draw, name):
    """A name, maybe escaped in part."""
    at = draw(st.integers(-3, len(name) - 1)) if name else -1
    return name if at < 0 else name[:at] + b"%%%02X" % name[at] + name[at + 1 :]


@st.composite
def queries(draw):
    """Pieces that are right, wrong and doubled; then bytes that are changed, cut or put in."""
    name = st.sampled_from(NAMES).flatmap(written) | st.binary(max_size=12)
    piece = st.builds(lambda left, right: left + b"=" + right, name, VALUES) | st.binary(max_size=20)
    pieces = draw(st.lists(piece, max_size=12)) * draw(st.sampled_from([1, 1, 1, 12]))
    if draw(st.booleans()):
        pieces.insert(draw(st.integers(0, len(pieces))), announce_query(draw(st.binary(min_size=20, max_size=20))))
    query = bytearray(b"&".join(pieces)[:8000])
    for _ in range(draw(st.integers(0, 3))):
        at = draw(st.integers(0, len(query)))
        query[at : at + draw(st.integers(0, 2))] = draw(st.sampled_from([b"", b"%", b"&", b"=", b"+", b"%0", b"\0"]))
    return bytes(query).replace(b"\n", b"\r")


@pytest.mark.parametrize("kind", ["announce", "scrape"])
@pytest.mark.parametrize("source", [HOST, HOST6, TRUSTED])
def test_any_query_means_what_the_model_says(shared, kind, source):
    @settings(max_examples=150, deadline=None, database=None)
    @given(queries())
    def check(query):
        check_query(shared, kind, query, source)

    check()


def test_any_bytes_after_a_method_do_no_harm(shared):
    @settings(max_examples=150, deadline=None, database=None)
    @given(st.sampled_from([b"", b"GET ", b"GET /announce?", b"GET /scrape?info_hash="]), st.binary(max_size=300))
    @example(b"GET /announce?", b"\n\n")
    def check(start, data):
        records, specials, answers = shared.ask(start + data)
        assert len(records) <= 1
        assert len(specials) + len(answers) >= (not records)
        shared.seconds += 10
        shared.codec.expire(shared.seconds, 1)

    check()


# X-Forwarded-For

PROXIES = ["192.0.2.0/28", "2001:db8:5::/48", "10.0.0.0/8"]


@pytest.fixture(scope="module")
def behind(module):
    """A bench that trusts some proxies."""
    bench = Bench(module, most=4)
    bench.sources.set_networks(b"", b"", pack_networks(map(Network, PROXIES)))
    return bench


def is_proxy(address):
    networks = map(ip_network, PROXIES)
    return any(address in network for network in networks if network.version == address.version)


def client_of(lines, source):
    """Whose request it is, None if a proxy does not say; and whether headers were ignored."""
    address = ip_address(source)
    if not lines or not is_proxy(address):
        return address, len(lines) > 0
    for element in reversed(",".join(lines[-8:]).split(",")):
        said = read_address(element)
        if said is None:
            return None, False
        address = said
        if not is_proxy(address):
            break
    return address, False


def turned_down(bench, head, source):
    """The request is answered with 400, and counted."""
    place = counters.HTTP_FAILURES + counters.HTTP_FAULTS.index("bad_request")
    before = bench.counted(place)
    records, _, ((answer, _),) = bench.ask(head, source)
    assert records == []
    assert answer.startswith(b"HTTP/1.1 400 ")
    assert bench.counted(place) == before + 1


def check_forwarded(bench, lines, source):
    wanted, ignored = client_of(lines, source)
    before = bench.counted(counters.HTTP_FORWARDED_IGNORED)
    head = announce_head(lines=[b"x-ForWarded-for: " + line.encode("latin-1") for line in lines])
    if wanted is None:
        turned_down(bench, head, source)
    else:
        asked(bench, head, source=source, host=str(wanted))
    assert bench.counted(counters.HTTP_FORWARDED_IGNORED) == before + ignored


@pytest.mark.parametrize("source", ["192.0.2.1", "2001:db8:5::1", "203.0.113.1"])
@pytest.mark.parametrize(
    "lines",
    [
        [],
        ["8.8.8.8"],
        ["8.8.8.8, 9.9.9.9"],
        ["8.8.8.8", "9.9.9.9"],
        ["8.8.8.8,10.0.0.1,\t10.0.0.2 "],
        ["8.8.8.8", "10.0.0.1", "10.0.0.2"],
        ["10.0.0.1,10.0.0.2"],
        ["unknown"],
        ["8.8.8.8, unknown, 10.0.0.1"],
        ["8.8.8.8,"],
        [" "],
        ["8.8.8.8", " ", "10.0.0.1"],
        ["[2001:db8::1]:443"],
        ["2001:db8::1"],
        ["[2001:db8::1"],
        ["8.8.8.8:1234"],
        ["::ffff:8.8.8.8"],
        ["::ffff:10.0.0.1"],
        [f"8.8.8.{n}" for n in range(20)],
        ["8.8.8.8"] + ["10.0.0.1"] * 7,
        ["8.8.8.8"] + ["10.0.0.1"] * 8,
        ["8.8.8.8, " + ", ".join(["10.0.0.1"] * 500)],
    ],
)
def test_who_is_believed(behind, lines, source):
    check_forwarded(behind, lines, source)


def test_other_headers_tell_nothing(behind):
    for line in (
        b"X-Forwarded-Fox: 8.8.8.8",
        b"X-Forwarded-For 8.8.8.8",
        b"Forwarded: for=8.8.8.8",
    ):
        asked(behind, announce_head(lines=[line]), source="192.0.2.1")
    turned_down(behind, announce_head(lines=[b"X-Forwarded-For:"]), "192.0.2.1")


ELEMENTS = st.one_of(
    st.sampled_from(["10.0.0.1", "192.0.2.15", "2001:db8:5::9", "[2001:db8:5::9]:80", "8.8.8.8", "", "unknown"]),
    st.ip_addresses().map(str),
    st.text("0123456789abcdefF:.[] \t%", max_size=24),
)
LINES = st.lists(ELEMENTS, min_size=1, max_size=4).map(", ".join)


@pytest.mark.parametrize("source", ["192.0.2.1", "203.0.113.1"])
def test_whatever_proxies_write_is_read_as_the_model_says(behind, source):
    @settings(max_examples=250, deadline=None, database=None)
    @given(st.lists(LINES, max_size=10))
    def check(lines):
        check_forwarded(behind, lines, source)

    check()
