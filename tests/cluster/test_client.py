"""The client against a scripted tracker on real sockets."""

import socket
import struct
import threading

import pytest

from cluster import client
from cluster.client import Announce, Scraped, TrackerError, UsageError

HASH = bytes(range(20))
CONNECTION_ID = b"\x01\x02\x03\x04\x05\x06\x07\x08"


class Script:
    """A tracker that answers each request by the next function of a script, and keeps what it was sent."""

    def __init__(self, address="127.0.0.1"):
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        self.sock = socket.socket(family, socket.SOCK_DGRAM)
        self.sock.bind((address, 0))
        self.port = self.sock.getsockname()[1]
        self.received = []
        self.answers = []
        self.thread = threading.Thread(target=self.serve, daemon=True)

    def run(self, *answers):
        self.answers = list(answers)
        self.thread.start()
        return client.Tracker(self.sock.getsockname()[0], self.port, b"")

    def serve(self):
        for answer in self.answers:
            packet, source = self.sock.recvfrom(65_535)
            self.received.append(packet)
            for reply in answer(packet):
                self.sock.sendto(reply, source)


@pytest.fixture
def script(request):
    made = Script(getattr(request, "param", "127.0.0.1"))
    yield made
    made.sock.close()


def connected(packet):
    protocol, action = struct.unpack_from(">QI", packet)
    assert (protocol, action, len(packet)) == (0x41727101980, 0, 16)
    return [struct.pack(">I", 0) + packet[12:16] + CONNECTION_ID]


def silent(packet):
    return []


def answers(action, body):
    return lambda packet: [struct.pack(">I", action) + packet[12:16] + body]


def announced(peers=b""):
    return answers(1, struct.pack(">III", 1800, 2, 1) + peers)


def test_an_announce_is_laid_out_as_bep_15_has_it(script):
    tracker = script.run(connected, announced(b"\x0a\0\0\x01\x1a\xe1\x0a\0\0\x02\0\x50"))
    answer = client.announce(tracker, Announce(HASH, "started", 1 << 40, 7001, 30))
    assert answer == (1800, 2, 1, [("10.0.0.1", 6881), ("10.0.0.2", 80)])
    fields = struct.unpack(">8sII20s20sQQQIIIiH", script.received[1])
    assert fields[:2] == (CONNECTION_ID, 1)
    assert fields[3] == HASH
    assert fields[4].startswith(b"-SH")
    assert fields[5:10] == (0, 1 << 40, 0, 2, 0)
    assert fields[11:] == (30, 7001)


@pytest.mark.parametrize("script", ["::1"], indirect=True)
def test_ipv6_peers_have_sixteen_bytes(script):
    tracker = script.run(connected, announced(bytes(15) + b"\x01\x1a\xe1"))
    assert client.announce(tracker, Announce(HASH)).peers == [("::1", 6881)]


def test_the_path_and_query_go_along_in_options_of_255_bytes(script):
    tracker = script.run(connected, announced())._replace(url_data=b"/announce?k=" + b"x" * 300)
    client.announce(tracker, Announce(HASH))
    options = script.received[1][98:]
    assert options[:2] == b"\x02\xff"
    assert options[257:259] == bytes((2, 312 - 255))
    assert options[2:257] + options[259:] == tracker.url_data


def test_a_lost_request_is_sent_again_with_the_same_transaction_id(script):
    tracker = script.run(silent, connected, silent, silent, announced())
    assert client.announce(tracker, Announce(HASH), timeout=0.2).interval == 1800
    assert len(set(script.received[:2])) == len(set(script.received[2:])) == 1


def test_silence_ends_after_three_tries(script):
    tracker = script.run(silent, silent, silent)
    with pytest.raises(TrackerError, match="no answer to 3 requests in 0.3 s"):
        client.announce(tracker, Announce(HASH), timeout=0.1)


def test_packets_that_are_no_answer_are_passed_over(script):
    def noisy(packet):
        return [b"", b"short", struct.pack(">I", 0) + b"none" + CONNECTION_ID, *connected(packet)]

    tracker = script.run(noisy, announced())
    assert client.announce(tracker, Announce(HASH)).seeders == 1


@pytest.mark.parametrize(
    ("steps", "line"),
    [
        ([answers(0, b"1234")], "answered action 0 with 12 bytes, which is no such answer"),
        ([answers(1, b"")], "answered action 0 with action 1"),
        ([answers(3, b"go away\0")], "answered: go away"),
        ([answers(3, b"\x1b[31m\xff")], r"answered: \\x1b\[31m\\ufffd"),
        ([connected, answers(1, b"1234")], "answered action 1 with 12 bytes"),
        ([connected, announced(b"12345")], "answered action 1 with 25 bytes"),
        ([connected, answers(2, b"")], "answered action 1 with action 2"),
    ],
)
def test_a_wrong_answer_is_an_error(script, steps, line):
    tracker = script.run(*steps)
    with pytest.raises(TrackerError, match=line):
        client.announce(tracker, Announce(HASH))


def test_scrapes_are_positional_and_at_most_74_hashes_each(script):
    hashes = [number.to_bytes(20, "big") for number in range(80)]

    def counts(packet):
        asked = [packet[at : at + 20] for at in range(16, len(packet), 20)]
        body = b"".join(struct.pack(">III", asked_for[-1], 7, 9) for asked_for in asked)
        return answers(2, body)(packet)

    answer = client.scrape(script.run(connected, counts, counts), hashes)
    assert answer == [Scraped(number, 7, 9) for number in range(80)]
    assert [len(packet) for packet in script.received[1:]] == [16 + 20 * 74, 16 + 20 * 6]


def test_a_scrape_of_another_length_is_an_error(script):
    tracker = script.run(connected, answers(2, bytes(24)))
    with pytest.raises(TrackerError, match="answered action 2 with 32 bytes"):
        client.scrape(tracker, [HASH])


def test_the_next_address_of_a_name_is_tried(script, monkeypatch):
    tracker = script.run(connected, announced())
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as closed:
        closed.bind(("127.0.0.1", 0))
        nobody = closed.getsockname()
    found = [(socket.AF_INET, socket.SOCK_DGRAM, 17, "", address) for address in (nobody, (tracker.host, tracker.port))]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *arguments, **options: found)
    assert client.announce(tracker, Announce(HASH)).interval == 1800


def test_the_source_address_may_be_chosen(script):
    tracker = script.run(connected, announced())
    client.announce(tracker, Announce(HASH), source="127.0.0.9")
    with pytest.raises(TrackerError, match="has no address of the family of ::1"):
        client.announce(tracker, Announce(HASH), source="::1")
    with pytest.raises(UsageError, match="expected an IP address"):
        client.announce(tracker, Announce(HASH), source="here")


@pytest.mark.parametrize("host", ["nowhere.invalid", "a..b", "x" * 70])
def test_a_name_without_address_is_an_error(host):
    with pytest.raises(TrackerError, match=host):
        client.announce(client.Tracker(host, 1, b""), Announce(HASH))


def test_a_url_is_taken_apart():
    assert client.parse_url("udp://tracker.example:80") == ("tracker.example", 80, b"")
    assert client.parse_url("udp://[::1]:80/announce?a=b#c") == ("::1", 80, b"/announce?a=b")


@pytest.mark.parametrize(
    "url",
    ["udp://host", "udp://:80", "udp://host:0", "udp://host:99999", "udp://[::1:80", "host:80", "ftp://host:80", ""],
)
def test_what_is_no_tracker_url_is_refused(url):
    with pytest.raises(UsageError):
        client.parse_url(url)


@pytest.mark.parametrize("scheme", ["https", "ws", "wss"])
def test_other_schemes_are_for_later(scheme):
    with pytest.raises(UsageError, match="this version speaks udp:// and http:// only"):
        client.parse_url(f"{scheme}://tracker.example/announce")


def test_an_info_hash_is_hex_or_base32():
    assert client.parse_info_hash("00" * 19 + "fF") == bytes(19) + b"\xff"
    assert client.parse_info_hash("a" * 31 + "7") == bytes(19) + b"\x1f"


@pytest.mark.parametrize("text", ["", "00", "0" * 39, "g" * 40, "1" * 32, "0" * 41, "٠" * 40])
def test_what_is_no_info_hash_is_refused(text):
    with pytest.raises(UsageError, match="40 hex digits or 32 base32 characters"):
        client.parse_info_hash(text)
