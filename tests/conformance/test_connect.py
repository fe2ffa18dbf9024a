"""Connecting, and connection ids."""

import os
import socket
import struct

import pytest
from trackers import MAGIC, Process, announce_request, connect_request, dual_stack, is_answer, is_error, pack_name

from common import counters, keys

WINDOW = 600
WINDOWS = 6


def is_taken(client, connection_id):
    """Whether an announce with this id is answered."""
    request = announce_request(connection_id, os.urandom(20))
    replies = client.exchange(request)
    if any(is_answer(reply, request) for reply in replies):
        return True
    assert all(is_error(reply, request) for reply in replies)
    return False


def test_c1_connect(client):
    """C1 Connect request of exactly 16 bytes with the magic -> 16-byte reply, action 0, tid echoed byte for byte.
    [BEP15]
    """
    reply = client.ask(connect_request(b"\x1a\x2b\x3c\x4d"))
    assert len(reply) == 16
    assert reply[:8] == b"\0\0\0\0\x1a\x2b\x3c\x4d"


@pytest.mark.parametrize("extra", [1, 84, 2000])
def test_c2_longer_connect(local, client_of, extra):
    """C2 Connect request longer than 16 bytes (16+1, 16+84, 16+2000) gets the same 16-byte reply. [BEP15]"""
    client = client_of(local().addresses[0])
    request = connect_request()
    assert client.ask(request + os.urandom(extra)) == client.ask(request)


def test_c3_wrong_magic_is_ignored(client):
    """C3 Connect with any wrong magic (including a valid issued id) gets no reply. [BEP15, aq, chi, ot]"""
    for magic in (0, 1, MAGIC ^ 1, MAGIC ^ 1 << 63, MAGIC + (1 << 32), int.from_bytes(client.id, "big")):
        assert client.exchange(connect_request(magic=magic)) == []


def test_c4_short_datagrams_are_ignored(client):
    """C4 Datagrams of 0..15 bytes get no reply. [aq, chi, ot]"""
    assert client.exchange(*(connect_request()[:length] for length in range(16))) == []


def test_c5_connect_reply_has_16_bytes(tracker, client_of):
    """C5 Connect reply length is exactly 16 on every path. [tr announcer-udp is_response_message, a2
    UDPTrackerClient]
    """
    for address in tracker.addresses:
        for extra in (0, 1, 82, 84, 2000):
            assert len(client_of(address).ask(connect_request() + bytes(extra))) == 16


def test_c6_id_is_neither_zero_nor_the_magic(tracker, client_of):
    """C6 Issued id is never 0 and never the magic. [tr is_connected, rt process_connect]"""
    ids = {client_of(("127.0.0.1", tracker.addresses[3][1]), f"127.0.1.{n}").id for n in range(1, 200)}
    assert len(ids) == 199
    assert not ids & {bytes(8), MAGIC.to_bytes(8, "big")}


def test_c7_any_transaction_id_is_echoed(client):
    """C7 tid values 0x00000000, 0x7fffffff, 0x80000000, 0xffffffff all echo unchanged. [BEP15, ntk]"""
    for number in (0, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF):
        assert client.ask(connect_request(number.to_bytes(4, "big")))[4:8] == number.to_bytes(4, "big")


def test_c8_id_is_good_from_every_port(tracker, client_of):
    """C8 Two connects from one IP, different source ports, both ids verify from either port. [aq, chi, xbt, ot; btt
    client]
    """
    one, other = client_of(tracker.addresses[0]), client_of(tracker.addresses[0])
    assert one.endpoint[1] != other.endpoint[1]
    for connection_id in (one.id, other.id):
        assert is_taken(one, connection_id)
        assert is_taken(other, connection_id)


def test_c9_id_is_bound_to_the_address(tracker, client_of):
    """C9 Id issued to IP A is rejected from IP B. [BEP15]"""
    one, other = (client_of(tracker.addresses[0], source) for source in ("127.0.0.1", "127.0.0.2"))
    assert is_taken(one, one.id)
    assert not is_taken(other, one.id)
    assert not is_taken(one, other.id)


def test_c10_id_is_good_on_every_listening_port(tracker, client_of):
    """C10 Id issued on listening port P1 is accepted on P2 of the same cluster. [lt m_connection_cache keyed by
    address]
    """
    one, other = client_of(tracker.addresses[0]), client_of(tracker.addresses[1])
    assert is_taken(other, one.id)
    assert is_taken(one, other.id)


def test_c12_id_outlives_a_restart(tmp_path, client_of):
    """C12 Id remains valid across a restart of the issuing node. [lt token cache, iss:chihaya#72]"""
    with Process(tmp_path) as before:
        connection_id = client_of(before.addresses[0]).id
    with Process(tmp_path) as after:
        assert is_taken(client_of(after.addresses[0]), connection_id)


def test_c13_id_is_good_for_two_minutes(local, client_of):
    """C13 Id accepted at age 0, 59, 119 s. [BEP15]"""
    tracker = local(connection_ids={"window": 120, "windows": 1})
    client = client_of(tracker.addresses[0])
    for start in (0, 1, 59, 60, 119):
        issued = tracker.wall = 1_700_000_400 - 1_700_000_400 % 120 + 120 * start + start
        connection_id = client.connect()
        for age in (0, 59, 119):
            tracker.wall = issued + age
            assert is_taken(client, connection_id)


def test_c14_id_ends_with_its_last_window(local, client_of):
    """C14 Id rejected past the configured maximum age (window arithmetic at both edges). [BEP15, chi ttl]"""
    tracker = local()
    client = client_of(tracker.addresses[0])
    first = tracker.wall
    end = first + (WINDOWS + 1) * WINDOW
    for issued in (first, first + WINDOW - 1):
        tracker.wall = issued
        connection_id = client.connect()
        tracker.wall = end - 1
        assert is_taken(client, connection_id)
        tracker.wall = end
        assert not is_taken(client, connection_id)
        tracker.wall = issued + 256 * WINDOW  # the window's low byte is the same again
        assert not is_taken(client, connection_id)


def test_c14_in_the_strict_profile(local, client_of):
    """The example of section 8.2: an id of 1700000000 is good until 1700000159."""
    tracker = local(connection_ids={"window": 120, "windows": 1})
    client = client_of(tracker.addresses[0])
    tracker.wall = 1_700_000_000
    connection_id = client.connect()
    tracker.wall = 1_700_000_159
    assert is_taken(client, connection_id)
    tracker.wall = 1_700_000_160
    assert not is_taken(client, connection_id)


def test_c15_id_of_the_next_window_is_good(local, client_of):
    """C15 Id from one window in the future (clock skew) accepted; two windows rejected. (P) [chi max_clock_skew, aq
    +60 s]
    """
    tracker = local()
    client = client_of(tracker.addresses[0])
    now = tracker.wall
    for ahead, good in ((1, True), (2, False)):
        tracker.wall = now + ahead * WINDOW
        connection_id = client.connect()
        tracker.wall = now
        assert is_taken(client, connection_id) == good


def test_c16_every_bit_of_an_id_counts(client):
    """C16 Flipping any single bit of an id makes it invalid. [BEP15 "not guessable"]"""
    number = int.from_bytes(client.id, "big")
    for bit in range(64):
        assert not is_taken(client, (number ^ 1 << bit).to_bytes(8, "big"))


def test_c17_mapped_source_has_the_id_of_ipv4(local, client_of):
    """C17 v4-mapped v6 source yields the same id as the plain v4 source. [R; chi To4, aq canonical address]"""
    plain = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    plain.bind(("127.0.0.1", 0))
    tracker = local(sockets=[dual_stack(), plain])
    port = tracker.addresses[0][1]
    mapped, unmapped, six = map(client_of, (("127.0.0.1", port), tracker.addresses[1], ("::1", port)))
    assert mapped.id == unmapped.id != six.id
    assert is_taken(mapped, unmapped.id)
    assert not is_taken(six, mapped.id)


def send_from_port_0(tracker, datagram):
    """Let the tracker's first socket have a datagram from port 0, by the system if we may, else by hand."""
    try:
        raw = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_UDP)
    except PermissionError:
        assert tracker.feed([(pack_name("127.0.0.1", 0), datagram)]) == []
    else:
        with raw:
            port = tracker.addresses[0][1]
            raw.sendto(struct.pack(">HHHH", 0, port, 8 + len(datagram), 0) + datagram, ("127.0.0.1", 0))


def test_c18_source_port_0_is_ignored(local, client_of):
    """C18 Packets from UDP source port 0 get no reply. (P) [aq socket.rs]"""
    tracker = local()
    send_from_port_0(tracker, connect_request())
    assert client_of(tracker.addresses[0]).exchange() == []
    counted = tracker.counters()
    assert counted[counters.BAD_SOURCE] == 1
    assert counted[counters.CONNECT_ANSWERS] == 2  # both to the client that asked after it


def test_c19_reply_comes_from_the_address_that_was_asked(tracker, client_of):
    """C19 On a host with two local addresses, the reply's source equals the request's destination. [lt on_receive,
    rt sa_equal, a2 findInflightRequest]
    """
    four, six = (address[1] for address in tracker.addresses[3:])  # the wildcards' ports
    for address in (("127.0.0.1", four), ("127.0.0.2", four), ("127.0.0.3", four), ("::1", six)):
        client = client_of(address)  # it checks where replies come from
        client.announce(os.urandom(20))
        client.scrape(os.urandom(20))
        client.scrape(os.urandom(20), os.urandom(20))
        (error,) = client.exchange(announce_request(bytes(8), bytes(20)))
        assert error[8:] == b"Connection ID mismatch"


def test_c20_rotation_ends_no_id_before_its_time(local, client_of, tmp_path):
    """C20 Key rotation: ids issued before rotation stay valid for their full life. [R]"""
    tracker = local()
    client = client_of(tracker.addresses[0])
    start = tracker.wall
    tracker.wall = start + WINDOW - 1
    before = client.connect()
    keys.rotate_connection_key(tmp_path / keys.CONNECTION_ID, tracker.wall)
    tracker.wall += 1  # the tracker has a second to see the file
    between = client.connect()
    tracker.call(tracker.tracker.gateway.tick)
    after = client.connect()
    assert after != between
    for connection_id, issued in ((before, start), (between, start + WINDOW), (after, start + WINDOW)):
        end = issued + (WINDOWS + 1) * WINDOW
        tracker.wall = end - 1
        assert is_taken(client, connection_id)
        tracker.wall = end
        assert not is_taken(client, connection_id)


def test_c20_a_running_tracker_sees_the_rotation(tmp_path, client_of):
    """The new key is taken up within a tick."""
    with Process(tmp_path) as tracker:
        client = client_of(tracker.addresses[0])
        before = client.id
        keys.rotate_connection_key(tmp_path / "data" / keys.CONNECTION_ID, 4e9)
        while client.connect() == before:
            pass
        assert is_taken(client, before)
