"""The population of a load: what it holds possible, on both forms of the kernel."""

import random
import struct
from ipaddress import ip_address

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from kernels import VARIANTS
from model_tracker import ModelTracker

MODULE = "loadtests.load.population"
ADDRESSES = ["127.16.0.0", "127.16.0.1", "127.16.0.2", "::1"]
PORTS = 25
SIZES = memoryview(struct.pack("4I", 1, 9, 30, 60)).cast("I")
WANT = 20


def make(kernel, seed=1, **mix):
    module = kernel(MODULE)
    packed = b"".join(ip_address(each).packed.ljust(16, b"\0") for each in ADDRESSES)
    population = module.Population(SIZES, packed, bytes([0, 0, 0, 1]), 2000, 61, seed)
    if mix:
        population.set_mix(**{"hot": 0.0, "seeds": 0.3, "stops": 0.0, "completes": 0.0} | mix)
    return population


def endpoint(peer):
    return ip_address(ADDRESSES[peer // PORTS]).packed + struct.pack(">H", 2000 + peer % PORTS)


def ask(population, tracker, peer):
    """What the tracker answers to what is under way."""
    info_hash = population.info_hash(population.torrent_of(peer))
    left = population.left_of(peer)
    head = tracker_head(info_hash, left, population.event_of(peer), 2000 + peer % PORTS)
    told = tracker.answer(head, ADDRESSES[peer // PORTS])
    leechers, seeders = struct.unpack_from(">II", told, 12)
    return seeders, leechers, told[20:]


def tracker_head(info_hash, left, event, port):
    connection = bytes(range(1, 9))
    return (
        connection
        + struct.pack(">II", 1, 7)
        + info_hash
        + bytes(28)
        + struct.pack(">QQI", left, 0, event)
        + bytes(8)
        + struct.pack(">iH", WANT, port)
    )


def judge(population, peer, answer):
    seeders, leechers, listed = answer
    lists = (b"", listed) if peer // PORTS == 3 else (listed, b"")
    return population.judge(peer, seeders, leechers, *lists, WANT)


def fill(population, tracker):
    for peer in range(100):
        assert population.begin(peer)
        assert judge(population, peer, ask(population, tracker, peer)) == 0


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 2**32), width=st.integers(1, 12))
def test_a_right_tracker_is_never_blamed(kernel, seed, width):
    """However requests and answers cross, get lost before or after they were heard, and in whatever order."""
    population = make(kernel, seed + 1, hot=0.2, stops=0.2, completes=0.1)
    tracker, chance = ModelTracker(), random.Random(seed)
    sent, heard = [], []
    for _ in range(300):
        if len(sent) < width and (peer := population.draw()) >= 0:
            sent.append(peer)
        what = chance.random()
        if sent and what < 0.6:
            peer = sent.pop(0)  # in the order of their sending
            if chance.random() < 0.05:
                population.lose(peer)
            else:
                heard.append((peer, ask(population, tracker, peer)))
        if heard and what > 0.3:
            peer, answer = heard.pop(chance.randrange(len(heard)))
            if chance.random() < 0.05:
                population.lose(peer)
            else:
                assert judge(population, peer, answer) == 0, population.faults()
    assert population.faults() == {}


def test_both_forms_draw_the_same():
    drawn = []
    for variant in VARIANTS.values():
        population = make(variant, 7, hot=0.1, stops=0.2, completes=0.1)
        events = []
        for _ in range(200):
            peer = population.draw()
            events.append((peer, population.event_of(peer), population.left_of(peer), population.torrent_of(peer)))
            population.judge(peer, 0, 0, b"", b"", WANT)
        drawn.append((events, population.info_hash(2), population.faults()))
    assert all(each == drawn[0] for each in drawn)
    assert {event for _, event, _, _ in drawn[0][0]} == {0, 1, 2, 3}


def test_every_peer_has_one_torrent_and_torrents_their_sizes(kernel):
    population = make(kernel)
    owners = [population.torrent_of(peer) for peer in range(100)]
    assert [owners.count(torrent) for torrent in range(4)] == list(SIZES)
    assert len({population.info_hash(torrent) for torrent in range(4)}) == 4


def faults_of(kernel, change, peer=None, **mix):
    """What is found when an answer is changed."""
    population, tracker = make(kernel, **mix), ModelTracker()
    fill(population, tracker)
    peer = next(n for n in range(75) if population.torrent_of(n) == 3) if peer is None else peer
    assert population.begin(peer)
    seeders, leechers, listed = ask(population, tracker, peer)
    judge(population, peer, change(population, peer, seeders, leechers, listed))
    return set(population.faults())


def other_swarm(population):
    return endpoint(next(n for n in range(75) if population.torrent_of(n) == 2))


CHANGES = {
    "stranger": lambda p, n, s, le, listed: (s, le, other_swarm(p) + listed[6:]),
    "own": lambda p, n, s, le, listed: (s, le, endpoint(n) + listed[6:]),
    "twice": lambda p, n, s, le, listed: (s, le, listed[6:] + listed[6:12]),
    "few": lambda p, n, s, le, listed: (s, le, listed[6:]),
    "seeders": lambda p, n, s, le, listed: (s + 1, le, listed),
    "leechers": lambda p, n, s, le, listed: (s, le - 1, listed),
    "malformed": lambda p, n, s, le, listed: (s, le, listed + b"x"),
}


@pytest.mark.parametrize("fault", CHANGES)
def test_a_changed_answer_has_a_fault(kernel, fault):
    assert faults_of(kernel, CHANGES[fault], stops=0.0) == {fault}


def test_an_answer_that_is_not_changed_has_none(kernel):
    assert faults_of(kernel, lambda p, n, s, le, listed: (s, le, listed), stops=0.0) == set()


def test_unknown_endpoints_are_strangers(kernel):
    for stranger in (b"\x7f\x10\x00\x05\x07\xd0", b"\x7f\x10\x00\x00\x00\x50", b"\x7f\x10\x00\x00\xff\xff"):
        found = faults_of(kernel, lambda p, n, s, le, listed, it=stranger: (s, le, it + listed[6:]), stops=0.0)
        assert found == {"stranger"}


def test_seeders_are_not_to_be_told_of_seeders(kernel):
    population, tracker = make(kernel, seeds=1.0), ModelTracker("roles")
    for peer in range(100):
        population.begin(peer)
        judge(population, peer, ask(population, tracker, peer))
    assert set(population.faults()) == {"role"}


def test_who_has_stopped_is_gone(kernel):
    population, tracker = make(kernel), ModelTracker()
    fill(population, tracker)
    gone, asker = [n for n in range(75) if population.torrent_of(n) == 3][:2]
    population.set_mix(0.0, 0.0, 1.0, 0.0)
    population.begin(gone)
    assert population.event_of(gone) == 3
    assert judge(population, gone, ask(population, tracker, gone)) == 0
    population.set_mix(0.0, 0.0, 0.0, 0.0)
    population.begin(asker)
    seeders, leechers, listed = ask(population, tracker, asker)
    judge(population, asker, (seeders, leechers, endpoint(gone) + listed[6:]))
    assert set(population.faults()) == {"departed"}
    assert population.example("departed") == f"torrent 3, peer {asker}: {gone}"


def test_after_a_loss_nothing_is_missed_until_it_is_announced_again(kernel):
    population, tracker = make(kernel, stops=0.0), ModelTracker()
    fill(population, tracker)
    assert population.unsure() == 0
    tracker.swarms.clear()
    population.doubt()
    assert population.unsure() == 100
    fill(population, tracker)
    assert population.unsure() == 0
    tracker.swarms.clear()
    population.begin(50)
    assert judge(population, 50, ask(population, tracker, 50)) != 0


def test_a_lenient_population_misses_nothing_but_still_sees_strangers(kernel):
    population, tracker = make(kernel, stops=0.0), ModelTracker()
    fill(population, tracker)
    population.strict = False
    tracker.swarms.clear()
    peer = next(n for n in range(75) if population.torrent_of(n) == 3)
    population.begin(peer)
    assert judge(population, peer, ask(population, tracker, peer)) == 0
    population.begin(peer)
    seeders, leechers, listed = ask(population, tracker, peer)
    assert judge(population, peer, (seeders, leechers, listed + other_swarm(population))) != 0


def test_an_answer_that_does_not_even_count_the_asker_acknowledges_nothing(kernel):
    population = make(kernel)
    population.strict = False
    assert population.begin(3)
    assert population.judge(3, 0, 0, b"", b"", WANT) == 0
    assert population.unsure() == 1
    assert population.begin(3)  # it is no longer under way
    population.strict = True
    assert population.judge(3, 0, 0, b"", b"", WANT) != 0


def test_scrapes_are_judged_by_what_was_known_when_they_were_sent(kernel):
    population, tracker = make(kernel, stops=0.0), ModelTracker()
    fill(population, tracker)
    rests = list(tracker.swarms[population.info_hash(3)].values())
    seeders, leechers = rests.count(0), len(rests) - rests.count(0)
    stamp = population.stamp(3)
    assert population.judge_scrape(3, stamp, seeders, leechers) == 0
    assert population.judge_scrape(3, stamp, seeders + 1, leechers) != 0
    assert population.judge_scrape(3, stamp, seeders, leechers - 1) != 0
    population.set_mix(0.0, 0.0, 1.0, 0.0)
    stopped = next(n for n in range(100) if population.torrent_of(n) == 3)
    population.begin(stopped)  # it may be gone now, or not
    answer = ask(population, tracker, stopped)
    judge(population, stopped, answer)
    assert population.judge_scrape(3, stamp, seeders, leechers) == 0


def test_a_peer_announces_once_at_a_time(kernel):
    population = make(kernel)
    assert population.begin(3)
    assert not population.begin(3)
    population.lose(3)
    assert population.begin(3)


@pytest.mark.parametrize(
    ("sizes", "addresses", "first_port", "stride", "message"),
    [
        ((50, 51), ADDRESSES, 2000, 61, "as many peers"),
        ((50, 50), ADDRESSES, 2000, 50, "a divisor in common"),
        ((50, 50), ADDRESSES, 65530, 61, "ports"),
        ((50, 50), ADDRESSES, 1, 61, "ports"),
        ((50, 50), [*ADDRESSES[:3], ADDRESSES[0]], 2000, 61, "named twice"),
        ((50, 50), ADDRESSES[:3], 2000, 61, "an address"),
    ],
)
def test_a_population_that_cannot_be_is_refused(kernel, sizes, addresses, first_port, stride, message):
    packed = b"".join(ip_address(each).packed.ljust(16, b"\0") for each in addresses)
    families = bytes(":" in each for each in addresses).ljust(4, b"\0")
    view = memoryview(struct.pack("2I", *sizes)).cast("I")
    with pytest.raises(ValueError, match=message):
        kernel(MODULE).Population(view, packed, families, first_port, stride, 1)


@pytest.mark.parametrize("call", ["event_of", "left_of", "torrent_of", "lose", "begin", "info_hash", "stamp"])
@pytest.mark.parametrize("number", [-1, 100])
def test_who_is_not_there_is_refused(kernel, call, number):
    with pytest.raises(ValueError, match="no such"):
        getattr(make(kernel), call)(number)
