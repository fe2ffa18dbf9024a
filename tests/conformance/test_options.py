"""Options of an announce (BEP 41): none of them, and no mistake in them, keeps it from being taken."""

import pytest
from trackers import announce_request

from common import counters
from gateway.udp_codec import url_data

URL = b"/dir?a=b&c=d"
LONG = b"/announce?auth=" + b"k" * 285


@pytest.fixture
def announce(local, client_of, swarm):
    """Announce with options to a real tracker; whether it saw a URL, whether it saw a mistake, and the URL."""
    tracker = local()
    client = client_of(tracker.addresses[0])

    def announce(options):
        before = tracker.counters()
        assert client.announce(swarm, tail=options).leechers == 1
        after = tracker.counters()
        seen, wrong = (after[place] - before[place] for place in (counters.URL_DATA, counters.BAD_OPTIONS))
        return seen, wrong, url_data(announce_request(bytes(8), swarm, tail=options))

    return announce


def piece(text, kind=2):
    return bytes([kind, len(text)]) + text


def test_c47_no_options(announce):
    """C47 No options: accepted, URL empty. [BEP41]"""
    assert announce(b"") == (0, 0, b"")


def test_c48_one_piece(announce):
    """C48 One URLData `/dir?a=b&c=d` parsed. [BEP41]"""
    assert announce(piece(URL)) == (1, 0, URL)


def test_c49_nops_and_the_end(announce):
    """C49 URLData, NOP, NOP, EndOfOptions equals C48. [BEP41]"""
    assert announce(piece(URL) + b"\1\1\0") == (1, 0, URL)
    assert announce(b"\1\1" + piece(URL)) == (1, 0, URL)


def test_c50_two_pieces(announce):
    """C50 Two URLData of 255+45 concatenate. [BEP41, ana options.go]"""
    assert announce(piece(LONG[:255]) + piece(LONG[255:])) == (1, 0, LONG)


def test_c51_an_empty_piece(announce):
    """C51 URLData length 0 accepted. [BEP41]"""
    assert announce(piece(b"")) == (1, 0, b"")


def test_c52_unknown_options_are_skipped(announce):
    """C52 Unknown type 0x7f with length skipped, following URLData still seen. [BEP41]"""
    assert announce(piece(b"abc", kind=0x7F) + piece(URL)) == (1, 0, URL)
    assert announce(piece(b"", kind=0xFF) + piece(URL)) == (1, 0, URL)


def test_c53_nothing_follows_the_end(announce):
    """C53 Options after EndOfOptions ignored. [BEP41]"""
    assert announce(b"\0" + piece(URL)) == (0, 0, b"")
    assert announce(piece(URL) + b"\0" + piece(b"xxx")) == (1, 0, URL)


def test_c54_what_is_cut_off_is_ignored(announce):
    """C54 Truncated option (length past end, or missing length) does not fail the announce. (P) [BEP15/41; chi
    differs]
    """
    for cut in (b"\2", b"\2\5abcd", b"\x7f", b"\x7f\xff", piece(URL)[:-1]):
        assert announce(cut) == (0, 1, b"")
        assert announce(piece(URL) + cut) == (1, 1, URL)


def test_a_url_of_more_than_1024_bytes_counts_as_none(announce):
    """Section 1.5's cap."""
    assert announce(piece(b"u" * 255) * 4 + piece(b"uuuu"))[2] == b"u" * 1024
    assert announce(piece(b"u" * 255) * 4 + piece(b"uuuuu"))[2] == b""
