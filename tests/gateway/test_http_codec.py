"""From rows to records, from replies to answers, compiled and uncompiled; time, limits and places."""

import os
import struct

import pytest
from http_bench import (
    BOOT,
    CLOSE,
    CLUSTER,
    HOST,
    HOST6,
    LIST,
    Bench,
    announce_body,
    announce_head,
    announce_reply,
    announced,
    answer_of,
    failure_body,
    frame_of,
    gather_ticket_of,
    head_of,
    kernels_of,
    scrape_head,
    scrape_reply,
    scraped,
    ticket_of,
)
from http_client import decode, encode
from hypothesis import given, settings
from hypothesis import strategies as st
from packing import HEADER, pack_links

from common import counters, frames
from common.batch_io import allocate
from common.values import Network
from gateway import http_codec, http_places
from gateway.service import pack_networks
from gateway.siphash import siphash

FAULTS = {name: counters.HTTP_FAILURES + place for place, name in enumerate(counters.HTTP_FAULTS)}


@pytest.fixture(scope="module")
def module(kernel):
    return kernels_of(kernel)


@pytest.fixture
def bench(module):
    return Bench(module)


# Doors


@pytest.mark.parametrize(("want", "most"), [(201, 200), (50, 201)])
def test_settings_out_of_range_are_refused(module, want, most):
    bench = Bench(module, most=1)
    with pytest.raises(ValueError, match="out of range"):
        module.HttpCodec(allocate, bench.connections, bench.records, bench.sources, want, most, BOOT)


def test_an_interval_has_its_range(bench):
    for interval in (59, 2_147_484):
        with pytest.raises(ValueError, match="60 to 2147483"):
            bench.codec.set_interval(interval)
    bench.codec.set_interval(60)
    _, _, ((answer, _),) = bench.ask(head_of(b"/announce"))
    assert answer == answer_of(failure_body("invalid info_hash", interval=60))


def test_rows_that_do_not_exist_are_refused(bench):
    for start in (-1, 1):
        with pytest.raises(ValueError, match="no such row"):
            bench.codec.decode(start, 0, 0)


# Records


def test_announces_become_records(bench):
    hashes = [os.urandom(20) for _ in range(3)]
    places = bench.put(*(announce_head(info_hash, port=1000) for info_hash in hashes))
    bench.connections.put_row(places[0], announce_head())  # it waits by then
    records, specials = bench.decode()
    wanted = [
        announced(ticket_of(place, number), info_hash, port=1000)
        for number, (place, info_hash) in enumerate(zip(places, hashes, strict=True), 1)
    ]
    assert records == wanted
    assert specials == [(3, http_codec.MORE, 0)]
    assert bench.counted(counters.HTTP_ANNOUNCES) == 3


def test_who_asks_over_ipv6_or_is_exempt(bench):
    bench.sources.set_networks(pack_networks([Network("2001:db8::/32")]), b"")
    (place,) = bench.put(announce_head(), source=HOST6)
    ticket = ticket_of(place, 1, HOST6)
    assert bench.decode() == ([announced(ticket, address=HOST6, exempt=True)], [])


def test_records_go_to_the_link_of_their_slice(module):
    links = [2, 0, 1, 2, 0, 1, 2, 0]
    bench = Bench(module, links=3, slices=8)
    bench.records.set_links(*pack_links(links))
    hashes = sorted({os.urandom(20) for _ in range(50)})
    bench.put(*map(announce_head, hashes), scrape_head(*hashes))
    done, seen = 0, [[], [], []]
    while done < 51:
        done = bench.codec.decode(done, bench.now, bench.seconds)
        for link in range(3):
            seen[link] += [record[56:76] for record in bench.take(link)]
    for link in range(3):
        own = [info_hash for info_hash in hashes if links[siphash(CLUSTER, info_hash) & 7] == link]
        assert own
        assert seen[link] == own + own


def test_a_scrape_becomes_a_record_for_each_hash_in_order(bench):
    hashes = [os.urandom(20) for _ in range(30)]
    bench.put(scrape_head(*hashes, *hashes[::-1], bytes(19)), scrape_head(HOST.encode() + bytes(8)))
    records, _ = bench.decode()
    one = HOST.encode() + bytes(8)
    assert records == [scraped(gather_ticket_of(0, n, 1), value) for n, value in enumerate(sorted(hashes))] + [
        scraped(gather_ticket_of(1, 0, 2), one)
    ]
    assert bench.counted(counters.HTTP_SCRAPES) == 2


def test_no_more_than_100_hashes_are_asked_for(bench):
    hashes = [os.urandom(20) for _ in range(110)]
    bench.put(scrape_head(*hashes))
    records, _ = bench.decode()
    assert [record[56:76] for record in records] == sorted(hashes[:100])


def test_full_frames_are_closed_in_between(module):
    bench = Bench(module, depth=2)
    bench.put(*[scrape_head(*(os.urandom(20) for _ in range(60)))] * 4)
    taken = []
    done = 0
    while done < 4:
        done = bench.codec.decode(done, bench.now, bench.seconds)
        taken.append(len(bench.take()))
    assert taken == [60, 60, 60, 60]


# Answers


def waiting(bench, *heads, source=HOST):
    """Places that wait for the replies to these heads, and the records."""
    places = bench.put(*heads, source=source)
    records, specials = bench.decode()
    assert specials == []
    return places, records


def test_a_reply_becomes_an_answer(bench):
    places, records = waiting(bench, announce_head(), announce_head(lines=[b"Connection: close"]))
    peers = [("192.0.2.1", 6881), ("198.51.100.2", 51413)]
    replies = [announce_reply(record[:48], peers) for record in records]
    packed_peers = bytes.fromhex("c0000201 1ae1 c6336402 c8d5")
    body = announce_body(peers=packed_peers)
    assert bench.reply(*replies[::-1]) == [(places[1], answer_of(body, CLOSE), 1), (places[0], answer_of(body), 0)]
    assert bench.counted(counters.HTTP_ANNOUNCE_ANSWERS, counters.HTTP_LATE_REPLY, counters.HTTP_BAD_REPLY) == [2, 0, 0]
    assert bench.reply(*replies) == []  # they are answered
    assert bench.counted(counters.HTTP_LATE_REPLY) == 2


def test_an_answered_place_may_ask_again(bench):
    (place,), (record,) = waiting(bench, announce_head())
    bench.reply(announce_reply(record[:48]))
    bench.connections.put_row(place, announce_head())
    (again,), _ = bench.decode()
    assert again[:48] == ticket_of(place, 2)
    assert bench.reply(announce_reply(record[:48])) == []  # of the request before
    assert len(bench.reply(announce_reply(again[:48]))) == 1


def test_a_reply_reaches_nobody_else(bench):
    (place,), (record,) = waiting(bench, announce_head())
    good = ticket_of(place, 1)
    assert record[:48] == good
    for ticket in (
        ticket_of(place + 1, 1),
        ticket_of(place, 2),
        ticket_of(place, 0),
        ticket_of(600, 1),
        ticket_of(0xFFFF_FFFF, 1),
        good[:8] + b"\1" + good[9:],
    ):
        assert bench.reply(announce_reply(ticket)) == []
    assert bench.counted(counters.HTTP_LATE_REPLY) == 6
    assert bench.reply(announce_reply(b"\0\0" + good[2:])) == []  # UDP's
    assert bench.counted(counters.HTTP_LATE_REPLY, counters.HTTP_BAD_REPLY) == [6, 0]
    bench.connections.close_inner(place)
    assert bench.reply(announce_reply(good)) == []
    assert bench.connections.open_inner(1, 2) == place
    assert bench.reply(announce_reply(good)) == []
    assert bench.counted(counters.HTTP_LATE_REPLY) == 8


@pytest.mark.parametrize(
    "spoil",
    [
        lambda frame: b"",
        lambda frame: frame[:31],
        lambda frame: b"\2" + frame[1:],
        lambda frame: frame[:2] + b"\1" + frame[3:],
        lambda frame: frame[:-1],
        lambda frame: frame + b"\0",
        lambda frame: frame[:32] + struct.pack("<I", 75) + frame[36:],
        lambda frame: frame[:32] + struct.pack("<I", 1 << 31) + frame[36:],
        lambda frame: frame[:32] + b"\xff\xff\xff\xff" + frame[36:],
        lambda frame: frame[:38] + b"\2" + frame[39:],
        lambda frame: frame[:40] + b"\1" + frame[41:],
    ],
)
def test_what_does_not_add_up_is_counted_and_dropped(bench, spoil):
    _, (record,) = waiting(bench, announce_head())
    frame = spoil(frame_of(announce_reply(record[:48], [("192.0.2.1", 1)])))
    before = bench.counted(counters.HTTP_ANNOUNCE_ANSWERS)
    many = bench.codec.encode(frame)
    assert bench.counted(counters.HTTP_BAD_REPLY) == 1
    assert len(bench.answers()) == many == bench.counted(counters.HTTP_ANNOUNCE_ANSWERS) - before
    assert many == (frame[32:36] == b"\x52\0\0\0" and len(frame) == 115)


def test_more_peers_than_can_be_wanted_are_a_bad_reply(bench):
    _, (record,) = waiting(bench, announce_head())
    many = [("2001:db8::ffff:1234", 65535)] * 201
    assert bench.reply(announce_reply(record[:48], sixes=many)) == []
    assert bench.counted(counters.HTTP_BAD_REPLY) == 1
    assert len(bench.reply(announce_reply(record[:48], sixes=many[:200]))) == 1


# Gathering


def test_parts_may_come_in_any_order(bench):
    hashes = sorted(os.urandom(20) for _ in range(100))
    (place,), records = waiting(bench, scrape_head(*hashes, lines=[b"Connection: close"]))
    replies = [scrape_reply(record[:48], n, 2 * n, 3 * n, n) for n, record in enumerate(records)]
    assert bench.reply(*replies[:50][::-1]) == []
    files = {
        value: {b"complete": n, b"downloaded": 2 * n, b"downloaders": 2 * n, b"incomplete": 3 * n}
        for n, value in enumerate(hashes)
    }
    body = encode({b"files": files, b"flags": {b"min_request_interval": 1800}})
    assert bench.reply(*replies[50:]) == [(place, answer_of(body, CLOSE), 1)]
    assert bench.counted(counters.HTTP_SCRAPE_ANSWERS, counters.HTTP_LATE_REPLY) == [1, 0]
    assert bench.reply(*replies) == []
    assert bench.counted(counters.HTTP_LATE_REPLY) == 100


def test_the_largest_numbers_of_a_scrape(bench):
    (place,), (record,) = waiting(bench, scrape_head(bytes(20)))
    most = 0xFFFF_FFFF
    counts = {b"complete": most, b"downloaded": most, b"downloaders": 0, b"incomplete": most}
    body = encode({b"files": {bytes(20): counts}, b"flags": {b"min_request_interval": 1800}})
    assert bench.reply(scrape_reply(record[:48], most, most, most, most)) == [(place, answer_of(body), 0)]


def test_a_part_counts_once_and_only_if_asked_for(bench):
    _, records = waiting(bench, scrape_head(bytes(20), b"\1" * 20))
    first = scrape_reply(records[0][:48], 1, 2, 3)
    assert bench.reply(first, first, first) == []
    assert bench.counted(counters.HTTP_BAD_REPLY) == 2
    for index in (2, 63, 64, 127, 128, 0xFFFF):
        assert bench.reply(scrape_reply(gather_ticket_of(0, index, 1), 1, 2, 3)) == []
    assert bench.counted(counters.HTTP_BAD_REPLY) == 8
    for place, number in ((1, 1), (0, 2), (0, 0), (256, 1), (0xFFFF_FFFF, 1)):
        assert bench.reply(scrape_reply(gather_ticket_of(place, 1, number), 1, 2, 3)) == []
    ((_, answer, _),) = bench.reply(scrape_reply(records[1][:48], 4, 5, 6))
    assert decode(answer.partition(b"\r\n\r\n")[2])[b"files"][bytes(20)][b"complete"] == 1


def test_a_scrape_whose_client_left_frees_its_place(bench):
    places, records = waiting(bench, scrape_head(bytes(20)), scrape_head(bytes(20)))
    bench.connections.close_inner(places[0])
    assert bench.reply(scrape_reply(records[0][:48], 1, 2, 3)) == []
    assert bench.counted(counters.HTTP_LATE_REPLY) == 1
    _, records = waiting(bench, scrape_head(bytes(20)))
    assert records[0][4:8] == bytes(4)  # the first place again


def test_a_scrape_whose_client_and_shard_are_gone_frees_its_place_too(bench):
    for _ in range(2):
        places, _ = waiting(bench, *[scrape_head(bytes(20))] * 256)
        for place in places:
            bench.connections.close_inner(place)
        assert bench.ask(scrape_head(bytes(20)))[2] == [(answer_of(failure_body("overloaded", "5")), 0)]
        bench.seconds += 3
        bench.codec.expire(bench.seconds, 1)
        assert bench.ask(scrape_head(bytes(20)))[2] != []
        bench.seconds += 1
        assert bench.codec.expire(bench.seconds, 1) == 0  # nobody is there to be told
    assert bench.counted(FAULTS["overloaded"]) == 4


def test_a_full_table_refuses_scrapes_only(bench):
    _, records = waiting(bench, *[scrape_head(bytes(20))] * 256)
    wanted = answer_of(failure_body("overloaded", "5"), CLOSE)
    assert bench.ask(scrape_head(bytes(20), lines=[b"Connection: close"])) == ([], [], [(wanted, 1)])
    assert bench.counted(FAULTS["overloaded"]) == 1
    assert len(bench.ask(announce_head())[0]) == 1
    assert len(bench.reply(scrape_reply(records[100][:48], 1, 2, 3))) == 1
    assert len(bench.ask(scrape_head(bytes(20)))[0]) == 1


# No shard


def test_scrapes_that_nobody_can_be_asked_for_fail_at_once(bench):
    heads = [scrape_head(bytes(20), b"\1" * 20), announce_head(), scrape_head(bytes(20), lines=[b"Connection: close"])]
    places = bench.put(*heads)
    bench.codec.decode(0, bench.now, bench.seconds)
    assert bench.codec.fail_scrapes(0) == 2
    body = failure_body("no answer in time", "5")
    wanted = [(places[0], answer_of(body), 0), (places[2], answer_of(body, CLOSE), http_places.CLOSE)]
    assert bench.answers() == wanted
    assert bench.counted(FAULTS["late_scrape"]) == 2
    assert bench.codec.fail_scrapes(0) == 0  # not twice
    records = bench.take()
    assert len(records) == 4  # they stay: the link's own affair
    assert bench.reply(*(scrape_reply(record[:48], 1, 2, 3) for record in (*records[:2], records[3]))) == []
    assert bench.connections.look(places[1])[0] == http_places.WAITING


def test_a_scrape_that_failed_leaves_its_place_to_another(bench):
    for _ in range(257):  # there is room for 256 that wait
        (place,) = bench.put(scrape_head(bytes(20)))
        bench.codec.decode(0, bench.now, bench.seconds)
        bench.connections.clear()
        assert bench.codec.fail_scrapes(0) == 1
        bench.take()
        assert bench.answers() == [(place, answer_of(failure_body("no answer in time", "5")), 0)]
        bench.connections.close_inner(place)


def test_a_scrape_whose_client_left_has_no_failure_but_its_place_is_free(bench):
    (place,) = bench.put(scrape_head(bytes(20)))
    bench.codec.decode(0, bench.now, bench.seconds)
    bench.connections.clear()
    bench.connections.close_inner(place)
    assert bench.codec.fail_scrapes(0) == 0
    assert bench.answers() == []
    bench.take()
    _, records = waiting(bench, scrape_head(bytes(20)))
    assert records[0][4:8] == bytes(4)  # the first place again


@pytest.mark.parametrize("link", [-1, 1, 1 << 40])
def test_scrapes_of_a_link_that_does_not_exist_cannot_fail(bench, link):
    with pytest.raises(ValueError, match="no such link"):
        bench.codec.fail_scrapes(link)


# Time


def test_late_replies_are_given_up(bench):
    places, records = waiting(bench, announce_head(b"\1" * 20, b"compact=0"), scrape_head(bytes(20)))
    bench.seconds += 3
    assert bench.codec.expire(bench.seconds, 7) == 0
    bench.seconds += 1
    assert bench.codec.expire(bench.seconds, 7) == 2
    first, second = bench.answers()
    head, _, body = first[1].partition(b"\r\n\r\n")
    interval = decode(body)[b"interval"]
    assert 120 <= interval <= 300
    assert (first[0], first[2]) == (places[0], http_places.DRAIN)
    assert body == announce_body(counts=(0, 0, 0), interval=interval, peers=[])
    assert b"Connection: close" in head
    assert second == (places[1], answer_of(failure_body("no answer in time", "5"), CLOSE), http_places.DRAIN)
    assert bench.counted(counters.HTTP_EMPTY_ANSWERS, FAULTS["late_scrape"]) == [1, 1]
    assert bench.reply(announce_reply(records[0][:48]), scrape_reply(records[1][:48], 1, 2, 3)) == []
    assert bench.counted(counters.HTTP_LATE_REPLY) == 2
    assert bench.codec.expire(bench.seconds + 100, 7) == 0


def test_short_intervals_are_spread(bench):
    waiting(bench, *[announce_head()] * 500)
    bench.seconds += 10
    assert bench.codec.expire(bench.seconds, 12345) == 500
    intervals = [decode(answer.partition(b"\r\n\r\n")[2])[b"interval"] for _, answer, _ in bench.answers()]
    assert min(intervals) < 125
    assert max(intervals) > 295
    assert len(set(intervals)) > 120


def test_a_late_answer_to_ipv6(bench):
    waiting(bench, announce_head(), source=HOST6)
    bench.seconds += 4
    bench.codec.expire(bench.seconds, 1)
    ((_, answer, _),) = bench.answers()
    body = answer.partition(b"\r\n\r\n")[2]
    assert body == announce_body(HOST6, (0, 0, 0), decode(body)[b"interval"], peers=b"")


# Limits


def test_a_burst_then_a_rate(bench):
    bench.sources.set_limits(1, 1, 5, 20)
    wanted = answer_of(failure_body("too many requests", "5"))
    for wait, passed in ((0, 20), (200_000, 1), (1_000_000, 5), (100_000_000, 20)):
        bench.now += wait
        results = [bench.ask(announce_head()) for _ in range(30)]
        assert [len(records) for records, _, _ in results] == [1] * passed + [0] * (30 - passed)
        assert all(result == ([], [], [(wanted, 0)]) for result in results[passed:])
    assert bench.counted(FAULTS["request_limit"]) == 10 + 29 + 25 + 10
    assert bench.counted(counters.HTTP_ANNOUNCES) == 120
    assert bench.sources.last_refused() == bytes(10) + b"\xff\xff" + bytes([198, 51, 100, 1])
    assert len(bench.ask(announce_head(), source="198.51.100.2")[0]) == 1


def test_the_limit_is_of_the_client_behind_a_proxy(bench):
    bench.sources.set_limits(1, 1, 5, 20)
    bench.sources.set_networks(b"", b"", pack_networks([Network(f"{HOST}/32")]))
    for client in ("8.8.8.8", "8.8.4.4"):
        head = announce_head(lines=[b"X-Forwarded-For: " + client.encode()])
        assert sum(len(bench.ask(head)[0]) for _ in range(30)) == 20


# Anything


def test_any_frame_is_taken_without_harm(bench):
    @settings(max_examples=200, deadline=None, database=None)
    @given(st.lists(st.tuples(st.integers(0, 700), st.integers(0, 255)), max_size=4), st.none() | st.integers(0, 700))
    def check(changes, length):
        hashes = [bytes(20), b"\1" * 20]
        places, records = waiting(bench, announce_head(), announce_head(b"\2" * 20, b"compact=0"), scrape_head(*hashes))
        replies = [
            announce_reply(records[0][:48], [("192.0.2.1", 1)], [("2001:db8::1", 2)]),
            announce_reply(records[1][:48], [("192.0.2.1", 1)] * 5, [("2001:db8::1", 2)], ipv6=True),
            *(scrape_reply(record[:48], 1, 2, 3) for record in records[2:]),
        ]
        frame = bytearray(frame_of(*replies))
        for at, byte in changes:
            frame[at % len(frame)] = byte
        many = bench.codec.encode(bytes(frame[:length]))
        answers = bench.answers()
        bench.seconds += 10
        late = bench.codec.expire(bench.seconds, 1)
        answers += bench.answers()
        assert sorted(place for place, _, _ in answers) == sorted(places)
        assert many + late == 3
        for _, answer, _ in answers:
            head, _, body = answer.partition(b"\r\n\r\n")
            if body:  # a ticket that was changed may say that HEAD was asked
                assert head.endswith(b"Content-Length: %d" % len(body))
                decode(body)
        for place in places:
            bench.connections.close_inner(place)

    check()


def test_a_frame_of_others_replies_is_passed_over(bench):
    (_,), (record,) = waiting(bench, announce_head())
    header = HEADER.pack(frames.VERSION, frames.REPLIES, 0, 0, 0, 0)
    assert bench.codec.encode(header) == 0
    udp = announce_reply(bytes(48), [("192.0.2.1", 1)] * 3)
    gather = announce_reply(b"\xff\xff" + bytes(46))
    assert len(bench.reply(udp, gather, announce_reply(record[:48]), udp)) == 1
    assert bench.counted(counters.HTTP_BAD_REPLY, counters.HTTP_LATE_REPLY) == [0, 0]


def test_options_of_a_request_shape_its_answer(bench):
    (place,), (record,) = waiting(bench, announce_head(bytes(20), b"compact=0"))
    assert record[2:4] == bytes([LIST, 0])
    assert bench.reply(announce_reply(record[:48])) == [(place, answer_of(announce_body(peers=[])), 0)]
