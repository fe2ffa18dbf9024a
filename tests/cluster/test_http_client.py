"""The client over HTTP against a scripted tracker on real sockets."""

import contextlib
import socket
import struct
import threading
from urllib.parse import parse_qsl, urlsplit

import pytest

from cluster import http_client
from cluster.client import Announce, Scraped, TrackerError, UsageError

HASH = bytes(range(0x20, 0x34))
ZERO = b"d8:completei2e10:incompletei1e8:intervali1800e5:peers0:e"


class Script:
    """A tracker that answers each connection by the next bytes of a script, and keeps the heads it was sent."""

    def __init__(self, address="127.0.0.1"):
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        self.sock = socket.create_server((address, 0), family=family)
        self.host, self.port = self.sock.getsockname()[:2]
        self.url = f"http://[{self.host}]:{self.port}" if ":" in address else f"http://{self.host}:{self.port}"
        self.heads = []
        self.peers = []
        self.ended = threading.Event()
        self.thread = None

    def run(self, *answers, path="/announce"):
        self.thread = threading.Thread(target=self.serve, args=(answers,))
        self.thread.start()
        return http_client.parse_url(self.url + path)

    def serve(self, answers):
        for answer in answers:
            try:
                connection, peer = self.sock.accept()
            except OSError:  # the test is over
                return
            self.peers.append(peer[0])
            with connection, contextlib.suppress(OSError):  # the client need not take it all
                head = b""
                while b"\r\n\r\n" not in head:
                    head += connection.recv(65_536)
                self.heads.append(head.decode("ascii"))
                if callable(answer):
                    answer(connection)
                else:
                    connection.sendall(answer)

    def end(self):
        self.ended.set()
        self.sock.shutdown(socket.SHUT_RDWR)
        if self.thread is not None:
            self.thread.join(20)
            assert not self.thread.is_alive()
        self.sock.close()

    def parameters(self, index=0):
        """The query of a request, decoded; its path."""
        method, target, version = self.heads[index].split("\r\n")[0].split(" ")
        assert (method, version) == ("GET", "HTTP/1.1")
        parts = urlsplit(target)
        return parts.path, parse_qsl(parts.query, keep_blank_values=True, encoding="latin-1", strict_parsing=True)


@pytest.fixture
def script(request):
    made = Script(getattr(request, "param", "127.0.0.1"))
    yield made
    made.end()


def http(body, status="200 OK", more=""):
    return f"HTTP/1.1 {status}\r\nContent-Length: {len(body)}\r\n{more}\r\n".encode() + body


def with_peers(peers):
    return http(b"d8:completei2e10:incompletei1e8:intervali1800e" + peers + b"e")


def files(*entries):
    counts = b"d8:completei%de10:downloadedi7e10:incompletei9ee"
    text = b"".join(b"20:" + info_hash + counts % seeders for info_hash, seeders in sorted(entries))
    return http(b"d5:filesd" + text + b"ee")


def test_an_announce_says_all_that_bep_3_wants(script):
    tracker = script.run(http(ZERO))
    answer = http_client.announce(tracker, Announce(HASH, "started", 1 << 40, 7001, 30))
    assert answer == (1800, 1, 2, [])
    path, pairs = script.parameters()
    said = dict(pairs)
    assert path == "/announce"
    assert len(said) == len(pairs)
    assert said["info_hash"].encode("latin-1") == HASH
    assert said.pop("peer_id").startswith("-SH")
    assert len(said.pop("key")) == 8
    del said["info_hash"]
    assert said == {
        "port": "7001",
        "uploaded": "0",
        "downloaded": "0",
        "left": str(1 << 40),
        "compact": "1",
        "event": "started",
        "numwant": "30",
    }


def test_what_is_the_trackers_to_choose_is_left_out(script):
    http_client.announce(script.run(http(ZERO)), Announce(HASH))
    _, pairs = script.parameters()
    assert not {"event", "numwant"} & {name for name, _ in pairs}


def test_no_peers_at_all_can_be_wanted(script):
    http_client.announce(script.run(http(ZERO)), Announce(HASH, want=0))
    assert ("numwant", "0") in script.parameters()[1]


def test_every_byte_of_an_info_hash_arrives(script):
    wanted = [bytes(range(at, at + 16)) + b" +%&" for at in range(0, 256, 16)]
    tracker = script.run(*[http(ZERO) for _ in wanted])
    for info_hash in wanted:
        http_client.announce(tracker, Announce(info_hash))
    sent = [dict(script.parameters(at)[1])["info_hash"].encode("latin-1") for at in range(len(wanted))]
    assert sent == wanted


def test_the_urls_own_query_comes_first(script):
    http_client.announce(script.run(http(ZERO), path="/x/announce.php?passkey=a%20b&u"), Announce(HASH))
    target = script.heads[0].split(" ")[1]
    assert target.startswith("/x/announce.php?passkey=a%20b&u&info_hash=")


def test_a_url_without_path_has_the_usual_ones(script):
    tracker = script.run(http(ZERO), files((HASH, 1)), http(ZERO), files((HASH, 1)), path="")
    for each in (tracker, tracker._replace(path="/")):
        http_client.announce(each, Announce(HASH))
        http_client.scrape(each, [HASH])
    assert [script.parameters(at)[0] for at in range(4)] == ["/announce", "/scrape"] * 2


@pytest.mark.parametrize("script", ["::1"], indirect=True)
def test_an_ipv6_address_is_asked_and_named_as_a_host(script):
    http_client.announce(script.run(http(ZERO)), Announce(HASH))
    assert f"Host: [::1]:{script.port}\r\n" in script.heads[0]


def test_nothing_is_asked_for_that_is_not_understood(script):
    http_client.announce(script.run(http(ZERO)), Announce(HASH))
    assert "Accept-Encoding: identity\r\n" in script.heads[0]
    assert "Connection: close\r\n" in script.heads[0]


@pytest.mark.parametrize(
    ("peers", "meant"),
    [
        (b"5:peers12:\x0a\0\0\x01\x1a\xe1\x0a\0\0\x02\0\x50", [("10.0.0.1", 6881), ("10.0.0.2", 80)]),
        (b"5:peers0:6:peers618:" + bytes(15) + b"\x01\x1a\xe1", [("::1", 6881)]),
        (b"6:peers618:" + bytes(15) + b"\x01\0\0", [("::1", 0)]),
        (b"5:peers6:\x0a\0\0\x01\0\x016:peers618:" + bytes(15) + b"\x02\0\x02", [("10.0.0.1", 1), ("::2", 2)]),
        (b"5:peersle", []),
        (
            b"5:peersld2:ip9:127.0.0.17:peer id20:" + HASH + b"4:porti80eed2:ip7:2001::14:porti81eee",
            [("127.0.0.1", 80), ("2001::1", 81)],
        ),
        (b"5:peersld2:ip10:a-1.b.test4:porti80eee", [("a-1.b.test", 80)]),
    ],
)
def test_peers_come_compact_or_as_dictionaries(script, peers, meant):
    assert http_client.announce(script.run(with_peers(peers)), Announce(HASH)).peers == meant


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.0 200 OK\r\n\r\n" + ZERO,
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n%x\r\n" % len(ZERO) + ZERO + b"\r\n0\r\n\r\n",
        b"HTTP/1.1 200\r\nContent-Length: %d\r\n\r\n" % len(ZERO) + ZERO + b"more",
        b"HTTP/1.1 100 Continue\r\n\r\n" + http(ZERO),
        http(ZERO[:-1] + b"10:tracker id1:a15:warning message2:hoe"),
        http(b"d8:completei2e10:downloadedi3e11:external ip4:\x7f\0\0\x01" + ZERO[14:]),
    ],
)
def test_all_forms_of_an_answer_are_understood(script, answer):
    assert http_client.announce(script.run(answer), Announce(HASH)) == (1800, 1, 2, [])


@pytest.mark.parametrize(
    ("answer", "line"),
    [
        (http(b"d14:failure reason7:go awaye"), "answered: go away"),
        (http(b"d14:failure reason7:go awaye", "400 Bad Request"), "answered: go away"),
        (http(b"d14:failure reason5:\x1b[31me"), r"answered: \\x1b\[31m"),
        (http(b"d14:failure reasoni1ee"), "answered with what is no such answer"),
        (http(b"oh", "404 Not Found"), "answered: 404 Not Found"),
        (http(ZERO, "500 \x1b[31m"), r"answered: 500 \\x1b\[31m"),
        (http(b"", "302 Found", "Location: http://127.0.0.1:1/x\r\n"), "302 Found to http://127.0.0.1:1/x, where it"),
        (http(b""), "answered what is not bencoded: empty input"),
        (http(ZERO + b"e"), "answered what is not bencoded"),
        (http(b"d1:b0:1:a0:e"), "answered what is not bencoded: .*not sorted"),
        (http(b"d8:completei" + b"9" * 5000 + b"ee"), "answered what is not bencoded"),
        (http(b"l" * 5000), "answered what is not bencoded"),
        (http(b"le"), "answered with what is no such answer"),
        (http(ZERO.replace(b"5:peers0:", b"")), "answered without peers"),
        (http(ZERO.replace(b"8:intervali1800e", b"")), "answered without interval"),
        (http(ZERO.replace(b"8:completei2e", b"")), "answered without complete"),
        (http(ZERO.replace(b"10:incompletei1e", b"")), "answered without incomplete"),
        (http(ZERO.replace(b"i1800e", b"i-1e")), "with an impossible interval: -1"),
        (http(ZERO.replace(b"i1800e", b"i4294967296e")), "with an impossible interval: 4294967296"),
        (http(ZERO.replace(b"i2e", b"1:2")), "with an impossible complete: b'2'"),
        (http(ZERO.replace(b"5:peers", b"12:min interval0:5:peers")), "with an impossible min interval"),
        (http(ZERO.replace(b"10:inc", b"10:downloadedle10:inc")), "with an impossible downloaded"),
        (http(ZERO.replace(b"10:inc", b"11:external ip3:abc10:inc")), "with an impossible external ip"),
        (http(ZERO.replace(b"10:inc", b"11:external ipi4e10:inc")), "with an impossible external ip"),
        (http(ZERO[:-1] + b"10:tracker idi1ee"), "with an impossible tracker id"),
        (http(ZERO[:-1] + b"15:warning messagelee"), "with an impossible warning message"),
        (with_peers(b"5:peers5:12345"), "with an impossible peers: b'12345'"),
        (with_peers(b"5:peersi5e"), "with an impossible peers: 5"),
        (with_peers(b"5:peers0:6:peers66:123456"), "with an impossible peers6"),
        (with_peers(b"5:peers0:6:peers6le"), "with an impossible peers6"),
        (with_peers(b"5:peersli1ee"), "with a peer that is none: 1"),
        (with_peers(b"5:peersld2:ip7:1.2.3.4ee"), "answered without port"),
        (with_peers(b"5:peersld4:porti1eee"), "answered without ip"),
        (with_peers(b"5:peersld2:ip7:1.2.3.44:porti65536eee"), "with an impossible port: 65536"),
        (with_peers(b"5:peersld2:ip7:a b.c.d4:porti1eee"), "with an impossible ip"),
        (with_peers(b"5:peersld2:ip3:1:24:porti1eee"), "with an impossible ip"),
        (with_peers(b"5:peersld2:ipi7e4:porti1eee"), "with an impossible ip: 7"),
        (with_peers(b"5:peersld2:ip7:1.2.3.47:peer id3:abc4:porti1eee"), "with an impossible peer id"),
        (b"", "answered nothing, and closed the connection"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 60\r\n\r\n" + ZERO, "answered with 56 bytes, 4 fewer than it said"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", "answered what is no HTTP"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n8\r\nd8:", "answered what is no HTTP"),
        (b"SSH-2.0-OpenSSH_9.2\r\n", "answered what is no HTTP: SSH-2.0"),
        (b"HTTP/1.1 abc\r\n\r\n", "answered what is no HTTP"),
        (b"HTTP/1.1 200 OK\r\nx: " + b"x" * 70_000 + b"\r\n\r\n", "answered what is no HTTP"),
        (b"HTTP/1.1 200 OK\r\n" + b"x: y\r\n" * 200 + b"\r\n", "answered what is no HTTP"),
    ],
)
def test_a_wrong_answer_is_an_error_in_one_line(script, answer, line):
    tracker = script.run(answer)
    with pytest.raises(TrackerError, match=line) as told:
        http_client.announce(tracker, Announce(HASH))
    assert str(told.value).startswith(f"127.0.0.1 port {script.port} answered")
    assert str(told.value).isprintable()
    assert len(str(told.value)) < 200


def test_an_answer_has_an_end(script):
    def endless(connection):
        connection.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
        while True:
            connection.sendall(bytes(1 << 16))

    with pytest.raises(TrackerError, match="answered with more than 1048576 bytes"):
        http_client.announce(script.run(endless), Announce(HASH))


def test_a_redirect_is_not_followed(script):
    tracker = script.run(http(b"", "301 Moved", f"Location: {script.url}/other\r\n"), http(ZERO))
    with pytest.raises(TrackerError, match="301 Moved"):
        http_client.announce(tracker, Announce(HASH))
    assert len(script.heads) == 1


def test_silence_ends_after_the_time_of_three_tries(script):
    def mute(_):
        script.ended.wait()

    with pytest.raises(TrackerError, match=rf"port {script.port}: no answer in 0\.3 s"):
        http_client.announce(script.run(mute), Announce(HASH), timeout=0.1)


def test_an_answer_that_drips_ends_too(script):
    def drip(connection):
        connection.sendall(b"HTTP/1.1 200 OK\r\n\r\nd")
        while not script.ended.wait(0.01):
            connection.sendall(b"1")

    with pytest.raises(TrackerError, match="no answer in"):
        http_client.announce(script.run(drip), Announce(HASH), timeout=0.1)


def test_a_connection_that_breaks_is_one_line(script):
    def reset(connection):
        connection.sendall(b"HTTP/1.1 200 OK\r\n")
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

    with pytest.raises(TrackerError, match=f"^127.0.0.1 port {script.port}: Connection reset by peer$"):
        http_client.announce(script.run(reset), Announce(HASH))


def test_nobody_there_is_one_line():
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        port = closed.getsockname()[1]
        tracker = http_client.parse_url(f"http://127.0.0.1:{port}/announce")
        with pytest.raises(TrackerError, match=f"^127.0.0.1 port {port}: Connection refused$"):
            http_client.announce(tracker, Announce(HASH))


def test_the_next_address_of_a_name_is_tried(script, monkeypatch):
    tracker = script.run(http(ZERO))
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        both = (closed.getsockname(), (script.host, script.port))
        found = [(socket.AF_INET, socket.SOCK_DGRAM, 17, "", address) for address in both]
        monkeypatch.setattr(socket, "getaddrinfo", lambda *arguments, **options: found)
        assert http_client.announce(tracker, Announce(HASH)).interval == 1800


def test_the_source_address_may_be_chosen(script):
    tracker = script.run(http(ZERO))
    http_client.announce(tracker, Announce(HASH), source="127.0.0.9")
    assert script.peers == ["127.0.0.9"]
    with pytest.raises(TrackerError, match="has no address of the family of ::1"):
        http_client.announce(tracker, Announce(HASH), source="::1")
    with pytest.raises(UsageError, match="expected an IP address"):
        http_client.announce(tracker, Announce(HASH), source="here")


def test_scrapes_answer_in_the_order_asked_at_most_74_hashes_each(script):
    hashes = [number.to_bytes(20, "big") for number in range(79, -1, -1)]
    parts = [files(*((one, one[-1]) for one in part)) for part in (hashes[:74], hashes[74:])]
    answer = http_client.scrape(script.run(*parts), [*hashes, hashes[5]])
    assert answer == [Scraped(number, 7, 9) for number in [*range(79, -1, -1), 74]]
    asked = [[value for name, value in script.parameters(at)[1] if name == "info_hash"] for at in (0, 1)]
    assert [one.encode("latin-1") for one in asked[0] + asked[1]] == hashes
    assert len(asked[0]) == 74


@pytest.mark.parametrize(
    ("path", "scraped"),
    [
        ("/announce", "/scrape"),
        ("/x/announce.php?a=b", "/x/scrape.php?a=b"),
        ("/announce/announce", "/announce/scrape"),
        ("/x/scrape", "/x/scrape"),
    ],
)
def test_a_tracker_scrapes_beside_its_announces(script, path, scraped):
    http_client.scrape(script.run(files((HASH, 1)), path=path), [HASH])
    assert script.heads[0].split(" ")[1].startswith(scraped + ("&" if "?" in path else "?") + "info_hash=")


@pytest.mark.parametrize("path", ["/a", "/announce/", "/x/an", "/xannounce"])
def test_a_tracker_without_a_place_to_scrape_is_a_mistake(path):
    with pytest.raises(UsageError, match="cannot be scraped"):
        http_client.scrape(http_client.parse_url(f"http://127.0.0.1:1{path}"), [HASH])


@pytest.mark.parametrize(
    ("answer", "line"),
    [
        (http(b"de"), "answered without files"),
        (http(b"d5:filesi1ee"), "with an impossible files: 1"),
        (http(b"d5:filesdee"), f"answered without torrent {HASH.hex()}"),
        (http(b"d5:filesd3:abcdeee"), "for a torrent that nobody asked for: b'abc'"),
        (files((HASH, 1), (bytes(20), 1)), "for a torrent that nobody asked for"),
        (http(b"d5:filesd20:" + HASH + b"leee"), r"with counts that are none: \[\]"),
        (http(b"d5:filesd20:" + HASH + b"d8:completei1eeee"), "answered without downloaded"),
        (files((HASH, -1)), "with an impossible complete: -1"),
        (http(b"d14:failure reason4:nonee"), "answered: none"),
    ],
)
def test_a_wrong_scrape_is_an_error(script, answer, line):
    with pytest.raises(TrackerError, match=line):
        http_client.scrape(script.run(answer), [HASH])


def test_a_url_is_taken_apart():
    assert http_client.parse_url("http://tracker.example") == ("tracker.example", 80, "", "")
    assert http_client.parse_url("HTTP://[::1]:81/announce?a=b#c") == ("::1", 81, "/announce", "a=b")


@pytest.mark.parametrize(
    "url",
    [
        "http://",
        "http://:80",
        "http://host:0",
        "http://host:99999",
        "http://[::1:80",
        "http://me@host/announce",
        "http://host/a b",
        "http://host/\xfc",
        "http://host/?\x7f",
        "udp://host:80",
        "",
    ],
)
def test_what_is_no_tracker_url_is_refused(url):
    with pytest.raises(UsageError):
        http_client.parse_url(url)
