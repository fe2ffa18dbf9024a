"""The UDP requests of a load, on both forms of the kernel."""

import struct
from collections import Counter
from ipaddress import ip_address

import pytest
from model_tracker import ModelTracker

ADDRESSES = ["127.16.0.0", "127.16.0.1", "::1"]
ROWS, STRIDE, SECOND = 128, 2048, 1_000_000_000
PORTS = 40
FAMILIES = bytes([0, 0, 1])


class Wire:
    """A load, its arrays, and a tracker that is asked at once."""

    def __init__(self, kernel, fault="", tries=3, bits=10, **mix):
        population = kernel("loadtests.load.population")
        self.module = kernel("loadtests.load.udp_load")
        packed = b"".join(ip_address(each).packed.ljust(16, b"\0") for each in ADDRESSES)
        sizes = memoryview(struct.pack("3I", 20, 40, 60)).cast("I")
        self.population = population.Population(sizes, packed, FAMILIES, 2000, 73, 5)
        self.load = self.module.UdpLoad(self.population, bits, SECOND, tries)
        self.load.set_mix(**{"connects": 0, "scrapes": 0, "hashes": 2, "want": 20} | mix)
        self.out = bytearray(ROWS * STRIDE)
        self.iovecs = memoryview(bytearray(ROWS * 16)).cast("Q")
        self.headers = memoryview(bytearray(ROWS * 64)).cast("Q")
        self.of = memoryview(bytearray(2 * ROWS)).cast("H")
        self.tracker = ModelTracker(fault)

    def rows(self, many):
        return [bytes(self.out[n * STRIDE : n * STRIDE + self.iovecs[2 * n + 1]]) for n in range(many)]

    def ask(self, source, many, now=0, due=0, step=0):
        return self.rows(self.load.fill(self.out, self.iovecs, source, many, due, step, now))

    def hear(self, source, answers, now=0):
        raw = bytearray(ROWS * STRIDE)
        for n, answer in enumerate(answers):
            raw[n * STRIDE : n * STRIDE + len(answer)] = answer
            self.headers[8 * n + 7] = len(answer)
        self.load.take(source, raw, self.headers, len(answers), now)

    def exchange(self, source, many, now=0):
        asked = self.ask(source, many, now)
        self.hear(source, [self.tracker.answer(each, ADDRESSES[source]) for each in asked], now)
        return asked

    def again(self, now):
        return self.rows(self.load.expire(self.out, self.iovecs, self.of, now))

    def connect(self):
        for source in range(3):
            self.exchange(source, 1)

    def fill(self):
        self.load.filling = True
        while not self.load.filled():
            for source in range(3):
                self.exchange(source, 16)
        self.load.filling = False


def kinds(requests):
    return Counter({16: "connect", 98: "announce"}.get(len(each), "scrape") for each in requests)


def test_the_first_request_of_a_source_is_a_connect_and_nothing_follows_until_it_is_answered(kernel):
    wire = Wire(kernel)
    assert kinds(wire.ask(0, 10)) == {"connect": 1}
    assert not wire.load.is_connected(0)
    wire.exchange(1, 1)
    assert wire.load.is_connected(1)
    assert kinds(wire.ask(1, 10)) == {"announce": 10}


def test_filling_announces_every_peer_once(kernel):
    wire = Wire(kernel)
    wire.fill()
    assert wire.load.under_way == 0
    assert sum(len(swarm) for swarm in wire.tracker.swarms.values()) == wire.population.present == 120
    assert wire.tracker.announces == 120
    assert wire.population.faults() == {}
    assert wire.load.harvest(1)[0] == 0  # filling is not timed


def test_an_announce_is_as_bep_15_has_it(kernel):
    wire = Wire(kernel)
    wire.connect()
    (asked,) = wire.ask(2, 1)
    connection, action, _, info_hash, peer_id = struct.unpack_from(">8sII20s20s", asked)
    _, left, _, event, _, _, want, port = struct.unpack_from(">QQQIIIiH", asked, 56)
    peer = 2 * PORTS + port - 2000
    assert (connection, action, len(asked)) == (bytes(range(1, 9)), 1, 98)
    assert info_hash == wire.population.info_hash(wire.population.torrent_of(peer))
    assert peer_id.startswith(b"-qB4670-")
    assert (event, want) == (2, 20)
    assert (left > 0) == wire.population.left_of(peer)


def test_requests_are_mixed_as_asked(kernel):
    wire = Wire(kernel, connects=65536 // 3, scrapes=65536 // 3)
    wire.connect()
    wire.fill()
    asked = kinds(request for _ in range(20) for source in range(3) for request in wire.exchange(source, 20))
    assert all(asked[kind] > 200 for kind in ("connect", "announce", "scrape"))
    assert wire.population.faults() == {}


def test_latencies_count_from_when_a_request_was_due(kernel):
    wire = Wire(kernel)
    wire.connect()
    wire.load.harvest(0)
    wire.load.harvest(3)
    asked = wire.ask(0, 4, now=5_000_000, due=1_000_000, step=1_000_000)
    wire.hear(0, [wire.tracker.answer(each, ADDRESSES[0]) for each in asked], now=11_000_000)
    many, total, least, most, size, buckets = wire.load.harvest(1)
    assert (many, total, least, most) == (4, 34_000_000, 7_000_000, 10_000_000)
    assert size >= 80
    assert sum(buckets.values()) == 4
    values = sorted(wire.module.value_of(bucket) for bucket in buckets)
    assert values == pytest.approx([7, 8, 9, 10], rel=0.04)
    assert wire.load.harvest(3)[:4] == (4, 10_000_000, 1_000_000, 4_000_000)
    assert wire.load.harvest(1)[0] == 0


@pytest.mark.parametrize("micro", [0, 1, 63, 64, 127, 128, 1000, 999_999, 123_456_789])
def test_buckets_are_three_percent_wide(kernel, micro):
    wire = Wire(kernel)
    wire.connect()
    wire.load.harvest(1)
    asked = wire.ask(0, 1)
    wire.hear(0, [wire.tracker.answer(each, ADDRESSES[0]) for each in asked], now=micro * 1000)
    (bucket,) = wire.load.harvest(1)[5]
    assert wire.module.value_of(bucket) * 1000 == pytest.approx(micro, rel=0.02, abs=0.5)


def test_what_has_no_answer_is_sent_again_each_second_and_lost_at_last(kernel):
    wire = Wire(kernel)
    wire.connect()
    asked = wire.ask(1, 3, now=0)
    assert wire.again(SECOND - 1) == []
    for second in (1, 2, 3):
        assert wire.again(second * SECOND) == asked
        assert list(wire.of[:3]) == [1, 1, 1]
        assert wire.again(second * SECOND + 1) == []
    assert wire.load.counters()["lost"] == 0
    assert wire.again(4 * SECOND) == []
    counters = wire.load.counters()
    assert (counters["first lost"], counters["sent again"], counters["lost"]) == (3, 9, 3)
    assert wire.load.under_way == 0


def test_patience_counts_from_when_a_request_left(kernel):
    """A load that stood still is no fault of the tracker's."""
    wire = Wire(kernel)
    wire.connect()
    asked = wire.ask(1, 3, now=5 * SECOND, due=0)
    assert wire.again(6 * SECOND - 1) == []
    assert wire.again(6 * SECOND) == asked


def test_a_scrape_is_judged_however_much_else_was_asked_meanwhile(kernel):
    wire = Wire(kernel, bits=13, scrapes=65536)
    wire.connect()
    wire.fill()
    (asked,) = wire.ask(0, 1)
    wire.load.set_mix(connects=65536, scrapes=0, hashes=2, want=20)
    for _ in range(40):
        wire.exchange(0, 128)
    answer = wire.tracker.answer(asked, ADDRESSES[0])
    wire.hear(0, [answer[:8] + b"\0\0\1\0" + answer[12:]])
    assert set(wire.population.faults()) == {"seeders"}


def test_an_answer_to_what_was_sent_again_counts_from_the_first(kernel):
    wire = Wire(kernel)
    wire.connect()
    wire.load.harvest(1)
    (asked,) = wire.ask(0, 1)
    wire.again(SECOND)
    answer = wire.tracker.answer(asked, ADDRESSES[0])
    wire.hear(0, [answer, answer], now=SECOND + 5_000_000)
    assert wire.load.harvest(1)[:2] == (1, SECOND + 5_000_000)
    assert wire.load.counters()["stray"] == 1
    assert wire.again(9 * SECOND) == []


def test_answers_to_others_and_scraps_are_strays(kernel):
    wire = Wire(kernel)
    wire.connect()
    (asked,) = wire.ask(0, 1)
    answer = wire.tracker.answer(asked, ADDRESSES[0])
    wire.hear(1, [answer])
    wire.hear(0, [answer[:7], answer[:4] + b"\xff\xff\xff\xff" + answer[8:], b""])
    assert wire.load.counters()["stray"] == 4
    assert wire.load.under_way == 1
    wire.hear(0, [answer])
    assert wire.load.under_way == 0
    assert wire.population.faults() == {}


@pytest.mark.parametrize(
    ("fault", "change"),
    [
        ("error", lambda answer: struct.pack(">I", 3) + answer[4:8] + b"no"),
        ("malformed", lambda answer: answer[:19]),
        ("malformed", lambda answer: answer[:-1]),
        ("malformed", lambda answer: struct.pack(">I", 2) + answer[4:]),
        ("malformed", lambda answer: answer[:8] + bytes(4) + answer[12:]),
        ("stranger", lambda answer: answer[:20] + b"\x7f\x00\x00\x01\x1a\xe1" + answer[26:]),
        ("few", lambda answer: answer[:-6]),
    ],
)
def test_wrong_answers_are_found(kernel, fault, change):
    wire = Wire(kernel)
    wire.fill()
    (asked,) = wire.ask(0, 1)
    wire.hear(0, [change(wire.tracker.answer(asked, ADDRESSES[0]))])
    assert set(wire.population.faults()) == {fault}
    assert wire.load.under_way == 0


@pytest.mark.parametrize("change", [lambda answer: answer[:-1], lambda answer: answer + bytes(12)])
def test_scrapes_must_answer_for_each_hash(kernel, change):
    wire = Wire(kernel, scrapes=65536)
    wire.connect()
    (asked,) = wire.ask(0, 1)
    wire.hear(0, [change(wire.tracker.answer(asked, ADDRESSES[0]))])
    assert set(wire.population.faults()) == {"malformed"}


def test_a_full_ring_holds_requests_back(kernel):
    wire = Wire(kernel, connects=65536)
    wire.connect()
    for _ in range(9):
        wire.ask(0, 128)
    assert wire.load.under_way == 1024
    assert wire.load.counters()["held"] == 9 * 128 - 1024
    wire.again(4 * SECOND)


def test_when_everybody_is_under_way_nobody_announces(kernel):
    wire = Wire(kernel)
    wire.connect()
    asked = wire.ask(0, 128)
    assert 30 < len(asked) <= PORTS
    assert wire.load.counters()["held"] == 128 - len(asked)


def test_arrays_that_are_too_short_are_refused(kernel):
    wire = Wire(kernel)
    with pytest.raises(ValueError, match="room"):
        wire.load.fill(wire.out, wire.iovecs, 0, 129, 0, 0, 0)
    with pytest.raises(ValueError, match="room"):
        wire.load.fill(bytearray(100), wire.iovecs, 0, 1, 0, 0, 0)
    with pytest.raises(ValueError, match="source"):
        wire.load.fill(wire.out, wire.iovecs, 3, 1, 0, 0, 0)
    with pytest.raises(ValueError, match="room"):
        wire.load.take(0, bytes(100), wire.headers, 1, 0)
    with pytest.raises(ValueError, match="source"):
        wire.load.take(-1, bytes(ROWS * STRIDE), wire.headers, 1, 0)
    with pytest.raises(ValueError, match="room"):
        wire.load.expire(wire.out, wire.iovecs, wire.of[:3], 0)
    with pytest.raises(ValueError, match="shares"):
        wire.load.set_mix(65536, 1, 1, 50)
    with pytest.raises(ValueError, match="timed"):
        wire.load.harvest(4)
