"""The frames of records, through the doors; what lies in them is tested with the codecs."""

import struct

import pytest
from http_bench import Bench, announce_head, kernels_of, scrape_head
from packing import HEADER

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
