"""The frames of records, through the doors; what lies in them is tested with the codecs."""

import struct

import pytest
from http_bench import Bench, announce_head, kernels_of, scrape_head
from packing import HEADER, split_replies, unpack_reply

from common import frames
from common.batch_io import allocate


@pytest.fixture(scope="module")
def module(kernel):
    return kernels_of(kernel)


@pytest.mark.parametrize(("links", "slices"), [(1, 3), (1, 0), (1, 1 << 17), (0, 1), (4097, 1)])
def test_sizes_out_of_range_are_refused(module, links, slices):
    with pytest.raises(ValueError, match="power of two up to 65536, links 1 to 4096"):
        module.Records(allocate, links, slices, 1)


def test_a_key_has_16_bytes(module):
    records = module.Records(allocate, 1, 1, 1)
    for length in (0, 15, 17):
        with pytest.raises(ValueError, match="keys have 16 bytes"):
            records.set_key(bytes(length))


def test_links_are_a_table_of_slices(module):
    records = module.Records(allocate, 3, 4, 1)
    records.set_links(struct.pack("<4H", 0, 1, 2, 0))
    for table, line in ((bytes(6), "each slice"), (bytes(10), "each slice"), (b"\0\0\1\0\2\0\3\0", "no such link")):
        with pytest.raises(ValueError, match=line):
            records.set_links(table)


@pytest.mark.parametrize("link", [-1, 2, 1 << 40])
def test_links_that_do_not_exist_are_refused(module, link):
    with pytest.raises(ValueError, match="no such link"):
        module.Records(allocate, 2, 1, 1).close(link, 0, 0, 0)


def test_a_frame_is_closed_once(module):
    bench = Bench(module, links=2)
    bench.put(announce_head(), scrape_head(bytes(20), b"\1" * 20))
    bench.codec.decode(0, bench.now, bench.seconds)
    assert bench.records.close(1, 1, 2, 3) == 0
    most = (1 << 64) - 1
    length = bench.records.close(0, most, most - 1, most - 2)
    assert length == frames.HEADER + 3 * frames.RECORD
    wanted = HEADER.pack(frames.VERSION, frames.RECORDS, 3, most, most - 1, most - 2)
    assert bytes(bench.records.view[: frames.HEADER]) == wanted
    assert bench.records.close(0, 1, 2, 3) == 0


def test_a_slice_goes_where_the_table_says_from_then_on(module):
    bench = Bench(module, links=2)
    for link in (1, 0, 1):
        bench.records.set_links(struct.pack("<H", link))
        (place,) = bench.put(announce_head())
        bench.codec.decode(0, bench.now, bench.seconds)
        bench.connections.clear()
        assert [len(bench.take(0)), len(bench.take(1))] == [1 - link, link]
        bench.connections.close_inner(place)


def put(bench, *heads):
    """Let requests become records, which stay in their frames."""
    places = bench.put(*heads)
    bench.codec.decode(0, bench.now, bench.seconds)
    bench.connections.clear()
    return places


def test_records_wait_until_their_frame_is_closed(module):
    bench = Bench(module, links=2)
    bench.records.set_links(struct.pack("<H", 1))
    for many in (1, 2, 3):
        assert bench.records.waiting(1) == many - 1
        put(bench, announce_head())
        assert [bench.records.waiting(0), bench.records.waiting(1)] == [0, many]
    assert len(bench.take(1)) == 3
    assert bench.records.waiting(1) == 0


def test_a_frame_has_room_until_a_scrape_might_not_fit(module):
    bench = Bench(module, depth=2)
    for _ in range(3):
        assert bench.records.has_room(0)
        put(bench, announce_head())
    assert not bench.records.has_room(0)
    bench.records.close(0, 1, 2, 3)
    assert bench.records.has_room(0)


def test_dropped_records_are_gone_and_counted(module):
    bench = Bench(module, links=2, depth=2)
    put(bench, announce_head(), announce_head(), announce_head())
    assert bench.records.drop(1) == 0
    assert bench.records.drop(0) == 3
    assert bench.records.drop(0) == 0
    assert bench.records.waiting(0) == 0
    assert bench.records.has_room(0)
    put(bench, announce_head())
    assert len(bench.take(0)) == 1


def test_closing_one_frame_leaves_no_room_in_another(module):
    """The codecs stop when any frame is full, whichever was closed last."""
    bench = Bench(module, links=2, depth=1)
    bench.records.set_links(struct.pack("<H", 1))
    put(bench, announce_head())
    bench.records.set_links(struct.pack("<H", 0))
    put(bench, announce_head(), announce_head())
    assert bench.records.drop(1) == 1
    assert not bench.records.has_room(0)
    put(bench, announce_head())
    assert bench.records.waiting(0) == 2


@pytest.mark.parametrize("door", ["waiting", "has_room", "drop"])
@pytest.mark.parametrize("link", [-1, 2, 1 << 40])
def test_doors_refuse_links_that_do_not_exist(module, door, link):
    with pytest.raises(ValueError, match="no such link"):
        getattr(module.Records(allocate, 2, 1, 1), door)(link)


def empty_replies(bench, link=0, entropy=7):
    length = bench.records.answer_empty(link, entropy)
    return bytes(bench.records.empty[:length])


def test_nobodys_replies_are_empty_and_ask_to_come_back_soon(module):
    bench = Bench(module, depth=8)
    put(bench, announce_head(b"A" * 20), announce_head(b"B" * 20))
    wanted = [bytes(bench.records.view[frames.HEADER + at * frames.RECORD :][: frames.TICKET]) for at in (0, 1)]
    frame = empty_replies(bench)
    assert HEADER.unpack_from(frame) == (frames.VERSION, frames.REPLIES, 2, 0, 0, 0)
    replies = [unpack_reply(reply) for reply in split_replies(frame)]
    assert [reply.ticket for reply in replies] == wanted
    for reply in replies:
        assert (reply.status, reply.completed, reply.seeders, reply.leechers) == (frames.STATUS_OK, 0, 0, 0)
        assert (reply.own, reply.other, reply.is_part) == ((), (), True)
        assert 120 <= reply.interval <= 300
    assert bench.records.waiting(0) == 0


def test_nobodys_replies_say_the_family_of_who_asked(module):
    bench = Bench(module)
    bench.put(announce_head(), source="192.0.2.1")
    bench.put(announce_head(), source="2001:db8::1")
    bench.codec.decode(0, bench.now, bench.seconds)
    assert [reply[frames.AT_PART] for reply in split_replies(empty_replies(bench))] == [1, 3]


def test_nobody_spreads_who_comes_back(module):
    bench = Bench(module, depth=600)
    intervals = set()
    for entropy in (0, 1, (1 << 64) - 1):
        places = put(bench, *[announce_head()] * 500)
        replies = [unpack_reply(reply) for reply in split_replies(empty_replies(bench, entropy=entropy))]
        drawn = {reply.interval for reply in replies}
        assert len(drawn) > 100
        intervals |= drawn
        for place in places:
            bench.connections.close_inner(place)
    assert min(intervals) == 120
    assert max(intervals) == 300


def test_nobody_answers_no_scrapes(module):
    bench = Bench(module)
    put(bench, scrape_head(bytes(20), b"\1" * 20), announce_head(), scrape_head(bytes(20)))
    assert bench.records.waiting(0) == 4
    assert len(split_replies(empty_replies(bench))) == 1
    assert bench.records.waiting(0) == 0
    assert split_replies(empty_replies(bench)) == []


@pytest.mark.parametrize("link", [-1, 2, 1 << 40])
def test_nobody_answers_for_no_link_that_does_not_exist(module, link):
    with pytest.raises(ValueError, match="no such link"):
        module.Records(allocate, 2, 1, 1).answer_empty(link, 1)


def test_the_most_records_of_a_frame_are_answered_by_nobody(module):
    bench = Bench(module, depth=2)
    put(bench, announce_head(), announce_head(), scrape_head(*[bytes([at]) * 20 for at in range(frames.MAX_SCRAPE)]))
    assert bench.records.waiting(0) == 2 + frames.MAX_SCRAPE
    assert len(split_replies(empty_replies(bench))) == 2
