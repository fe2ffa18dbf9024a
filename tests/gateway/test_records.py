"""The frames of records, through the doors; what lies in them is tested with the codecs."""

from array import array
from itertools import count

import pytest
from http_bench import CLUSTER, Bench, announce_head, kernels_of, scrape_head
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from packing import HEADER, pack_links, split_replies, unpack_reply

from common import frames
from common.batch_io import allocate
from gateway.siphash import siphash

SLICES = 8
HASHES = [number.to_bytes(20) for number in range(40)]


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


@pytest.mark.parametrize(
    ("table", "first", "copies", "line"),
    [
        ([0, 1, 0], [0, 0, 0, 0], [], "a link for each slice"),
        ([0, 1, 0, 1, 0], [0] * 6, [], "a link for each slice"),
        ([0, 1, 2, 0], [0] * 4, [], "a link for each slice"),
        ([0, 1, 2, 0], [0] * 6, [], "a link for each slice"),
        ([0, 1, 3, 0], [0] * 5, [], "no such link"),
        ([0, 1, 2, 0xFFFF], [0] * 5, [], "no such link"),
        ([0, 1, 2, 0], [0, 2, 1, 2, 2], [1, 2], "copies in no order"),
        ([0, 1, 2, 0], [0, 0, 0, 2, 1], [1, 2], "copies in no order"),
        ([0, 1, 2, 0], [0, 1, 1, 1, 3], [1, 2], "fewer copies than there should be"),
        ([0, 1, 2, 0], [0, 1, 1, 1, 1 << 31], [1, 2], "fewer copies than there should be"),
        ([0, 1, 2, 0], [0, 1, 1, 1, 2], [1, 3], "no such link"),
    ],
)
def test_links_are_a_table_of_slices_and_who_gets_copies(module, table, first, copies, line):
    """What is refused changes nothing."""
    bench = Bench(module, links=3, slices=4)
    bench.records.set_links(*pack_links([1] * 4, [[2]] * 4))
    with pytest.raises(ValueError, match=line):
        bench.records.set_links(*(memoryview(array(*one)) for one in zip("HIH", (table, first, copies), strict=True)))
    put(bench, announce_head())
    assert bench.records.copying
    assert bench.records.copy(b"\1" * 3) == 1
    assert [bench.records.waiting(link) for link in range(3)] == [0, 1, 1]


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
        bench.records.set_links(*pack_links([link]))
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
    bench.records.set_links(*pack_links([1]))
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
    bench.records.set_links(*pack_links([1]))
    put(bench, announce_head())
    bench.records.set_links(*pack_links([0]))
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


# Copies


def slice_of(info_hash):
    return siphash(CLUSTER, info_hash) & (SLICES - 1)


def record_at(bench, link, at):
    """A record that waits."""
    start = link * bench.records.frame_size + frames.HEADER + at * frames.RECORD
    return bytes(bench.records.view[start : start + frames.RECORD])


def as_copy(record):
    """The same, but that nobody wants a reply."""
    return record[: frames.AT_EVENT] + bytes([record[frames.AT_EVENT] | frames.FLAG_NO_REPLY, record[frames.AT_WANT]])


class CopyModel:
    """Frames as lists of records: what is to be sent to each link."""

    def __init__(self, links):
        self.uncopied = 0
        self.begin(links)

    def begin(self, links):
        self.waiting = [[] for _ in range(links)]
        self.seen = [0] * links
        self.table, self.copies = [0] * SLICES, [()] * SLICES

    def copy(self, room, most):
        many = 0
        for link, records in enumerate(self.waiting):
            for record in records[self.seen[link] :]:
                flags = record[frames.AT_EVENT]
                if flags & frames.FLAG_NO_REPLY or flags & frames.EVENT_MASK == frames.EVENT_SCRAPE:
                    continue
                for other in self.copies[record[frames.AT_HASH] % SLICES]:
                    if other == link:
                        continue
                    fits = room[other] != 0 and len(self.waiting[other]) < most
                    self.uncopied += not fits
                    many += fits
                    if fits:
                        self.waiting[other].append(as_copy(record))
        self.seen = list(map(len, self.waiting))
        return many

    def drop(self, link):
        gone, self.waiting[link], self.seen[link] = self.waiting[link], [], 0
        return gone


a_step = st.one_of(
    st.tuples(st.just("announce"), st.sampled_from(HASHES)),
    st.tuples(st.just("announce"), st.sampled_from(HASHES)),
    st.tuples(st.just("scrape"), st.lists(st.sampled_from(HASHES), min_size=1, max_size=9, unique=True)),
    st.tuples(st.just("copy"), st.lists(st.sampled_from([0, 1, 255]), min_size=4, max_size=4)),
    st.tuples(st.just("close"), st.integers(0, 3)),
    st.tuples(st.just("drop"), st.integers(0, 3)),
    st.tuples(
        st.just("links"),
        st.lists(st.integers(0, 3), min_size=SLICES, max_size=SLICES),
        st.lists(st.lists(st.integers(0, 3), max_size=4), min_size=SLICES, max_size=SLICES),
    ),
    st.tuples(st.just("count"), st.integers(1, 4)),
)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(links=st.integers(1, 4), steps=st.lists(a_step, max_size=60))
def test_copies_are_those_of_the_model(module, links, steps):
    depth = 8
    bench = Bench(module, links=links, slices=SLICES, depth=depth, most=16)
    records, model, ports = bench.records, CopyModel(links), count(1000)
    for what, *details in steps:
        if what in ("announce", "scrape"):
            hashes = details[0] if what == "scrape" else details
            head = scrape_head(*hashes) if what == "scrape" else announce_head(hashes[0], port=next(ports))
            (place,) = bench.put(head)
            taken = bench.codec.decode(0, bench.now, bench.seconds)
            bench.connections.clear()
            bench.connections.close_inner(place)
            assert taken == (max(map(len, model.waiting)) <= depth)  # the others wait until frames are closed
            for info_hash in sorted(hashes) * taken:
                link = model.table[slice_of(info_hash)]
                record = record_at(bench, link, len(model.waiting[link]))
                assert record[frames.AT_INFO_HASH :][:20] == info_hash
                model.waiting[link].append(record)
        elif what == "copy":
            assert records.copy(bytes(details[0][:links])) == model.copy(details[0], depth + frames.MAX_SCRAPE)
        elif what == "links":
            table, copies = (
                [link % links for link in details[0]],
                [[link % links for link in row] for row in details[1]],
            )
            records.set_links(*pack_links(table, copies))
            model.table, model.copies = table, copies
        elif what == "count":
            (links,) = details
            records.set_count(links)
            model.begin(links)
        elif what == "close":
            assert bench.take(details[0] % links) == model.drop(details[0] % links)
        else:
            assert records.drop(details[0] % links) == len(model.drop(details[0] % links))
        assert [records.waiting(link) for link in range(links)] == list(map(len, model.waiting))
        assert (records.links, records.uncopied) == (links, model.uncopied)
        assert records.copying == any(model.copies)
    assert [bench.take(link) for link in range(links)] == model.waiting


@pytest.fixture
def two(module):
    """Two links; the second gets copies of what the first is asked."""
    bench = Bench(module, links=2, depth=4)
    bench.records.set_links(*pack_links([0], [[0, 1]]))
    return bench


def test_a_copy_is_the_record_without_the_wish_for_a_reply(two):
    put(two, announce_head(port=1000), announce_head(port=1001))
    assert two.records.copy(b"\1\1") == 2
    own, copies = two.take(0), two.take(1)
    assert copies == list(map(as_copy, own))
    assert own[0] != copies[0]


def test_records_that_wait_are_copied_once(two):
    for many in (1, 2, 3):
        put(two, announce_head())
        assert two.records.copy(b"\1\1") == 1
        assert two.records.copy(b"\1\1") == 0
        assert [two.records.waiting(0), two.records.waiting(1)] == [many, many]
    two.take(0)
    put(two, announce_head())
    assert two.records.copy(b"\1\1") == 1


def test_scrapes_and_copies_are_not_copied(two):
    put(two, scrape_head(bytes(20)), announce_head())
    assert two.records.copy(b"\1\1") == 1
    two.records.set_links(*pack_links([1], [[0, 1]]))
    assert two.records.copy(b"\1\1") == 0
    assert [len(two.take(0)), len(two.take(1))] == [2, 1]


def test_who_has_no_room_gets_no_copy_later_either(two):
    put(two, announce_head())
    assert two.records.copy(b"\1\0") == 0
    assert two.records.uncopied == 1
    assert two.records.copy(b"\1\1") == 0
    assert two.records.uncopied == 1


@pytest.mark.parametrize("length", [0, 1, 3])
def test_room_is_told_of_each_link(two, length):
    put(two, announce_head())
    with pytest.raises(ValueError, match="for each link"):
        two.records.copy(bytes(length))
    assert two.records.waiting(1) == 0


def test_copies_that_find_no_room_in_a_frame_are_counted(module):
    """Of many links, that are asked two records each, all copies go to the last."""
    links, depth = 64, 2
    bench = Bench(module, links=links, slices=SLICES, depth=depth)
    asked = 0
    for link in range(links - 1):
        bench.records.set_links(*pack_links([link] * SLICES))
        asked += len(put(bench, *[announce_head()] * depth))
    bench.records.set_links(*pack_links([0] * SLICES, [[links - 1]] * SLICES))
    room = depth + frames.MAX_SCRAPE
    assert asked == 126
    assert bench.records.copy(b"\1" * links) == room
    assert (bench.records.waiting(links - 1), bench.records.uncopied) == (room, asked - room)
    assert len(bench.take(links - 1)) == room


def test_a_frame_that_copies_filled_takes_no_more_before_it_is_closed(module):
    """A record behind the end of a frame would lie in the next one."""
    bench = Bench(module, links=3, depth=1)
    for link in (0, 1):
        bench.records.set_links(*pack_links([link]))
        put(bench, announce_head())
    bench.records.set_links(*pack_links([2], [[2]]))
    assert bench.records.copy(b"\1" * 3) == 2
    (place,) = bench.put(announce_head())
    assert bench.codec.decode(0, bench.now, bench.seconds) == 0
    assert bench.records.close(2, 1, 2, 3)
    assert bench.codec.decode(0, bench.now, bench.seconds) == 1
    assert bench.records.waiting(2) == 1


@pytest.mark.parametrize("links", [1, 3])
def test_frames_begin_anew_with_another_count_of_links(two, links):
    put(two, announce_head())
    two.records.copy(b"\1\1")
    before = two.records.view
    two.records.set_count(links)
    assert two.records.links == links
    assert two.records.view is not before
    assert [two.records.waiting(link) for link in range(links)] == [0] * links
    put(two, announce_head(), announce_head())
    assert not two.records.copying
    assert two.records.copy(b"\1" * links) == 0
    assert len(two.take(0)) == 2
    for door in (two.records.waiting, two.records.has_room, two.records.drop):
        with pytest.raises(ValueError, match="no such link"):
            door(links)


@pytest.mark.parametrize("links", [0, 4097, -1])
def test_as_many_links_cannot_be(two, links):
    with pytest.raises(ValueError, match="links must be 1 to 4096"):
        two.records.set_count(links)
    put(two, announce_head())
    assert two.records.copy(b"\1\1") == 1


@pytest.mark.parametrize(("depth", "room"), [(1, 101), (100, 200), (101, 202), (1024, 2048)])
def test_a_frame_has_room_for_twice_its_depth_or_for_one_scrape(module, depth, room):
    assert module.Records(allocate, 1, 1, depth).frame_size == frames.HEADER + room * frames.RECORD
