"""The slice store against its rules, and against the store of plain dicts."""

import struct
from collections import Counter
from collections.abc import Callable, Iterable
from random import Random
from types import ModuleType

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from packing import (
    Endpoint,
    Reply,
    Request,
    Section,
    pack_frame,
    split_replies,
    unpack_chunk,
    unpack_reply,
)
from reference_store import KEEP_COMPLETED, ReferenceStore, Swarm

from common import counters, frames
from common.control import pack_states, states_length

Kernel = Callable[[str], ModuleType]

INTERVAL = 1800
LIFETIME = 3270
SECRET = 0x9D3F_0C52_7B1E_A846
MIB = 1 << 20
FEW = 10  # peers of an answer below which one of a part is to be asked for again soon
SMALLEST_OUT = 2 * (frames.SECTION + 63 * 21)
HASH = b"A" * 20
NEVER = 10**6


class Both:
    """A slice store and the model, which are given the same and must say the same."""

    def __init__(
        self,
        kernel: Kernel,
        memory: int = 4 * MIB,
        slices: int = 4,
        swarm_limit: int = 60_000,
        entry_limit: int = NEVER,
    ) -> None:
        self.module = kernel("shard.slice_store")
        self.arena = kernel("shard.arena")
        self.slices = slices
        self.memory = memory
        room = bytearray(memory - self.module.overhead(slices))
        self.store = self.module.SliceStore(room, slices, INTERVAL, LIFETIME, swarm_limit, entry_limit, SECRET)
        self.store.cached = 0  # touch ahead however small the store is
        self.model = ReferenceStore(LIFETIME, swarm_limit, entry_limit, slices)
        self.now = 1000
        self.entropy = Random(4)
        self.empty = self.store.bytes_taken()

    def answer(self, requests: list[Request]) -> list[bytes]:
        out = bytearray(frames.HEADER + len(requests) * (frames.REPLY + 18 * frames.MAX_WANT))
        length = self.store.answer(pack_frame(requests), out, self.now, self.entropy.getrandbits(64))
        return split_replies(bytes(out[:length]))

    def announce(self, request: Request) -> Reply:
        """Announce to both; the reply must be one that the model allows."""
        (packed,) = self.answer([request])
        reply = unpack_reply(packed)
        status = self.model.announce(request, self.now, fits=reply.status == frames.STATUS_OK)
        assert reply.status == status
        self.check_reply(request, reply)
        return reply

    def announce_all(self, requests: Iterable[Request]) -> None:
        """Announce many, as copies, to both."""
        requests = [request.but(no_reply=True) for request in requests]
        for at in range(0, len(requests), 1000):
            assert self.answer(requests[at : at + 1000]) == []
        for request in requests:
            self.model.announce(request, self.now)

    def check_reply(self, request: Request, reply: Reply) -> None:
        swarm = self.model.swarms.get(request.info_hash, Swarm())
        assert (reply.ticket, reply.is_part) == (request.ticket, self.may_lack(request.info_hash))
        assert (reply.seeders, reply.leechers, reply.completed) == (swarm.seeders, swarm.leechers, swarm.completed)
        if reply.is_part and len(reply.own) + len(reply.other) < FEW:
            assert 120 <= reply.interval <= 300
        else:
            assert INTERVAL * 0.9 <= reply.interval <= INTERVAL * 1.1
        want = 0 if request.event == frames.EVENT_STOPPED else min(request.want, frames.MAX_WANT)
        self.check_list(reply.own, want, *swarm.listable(request, request.is_ipv6))
        if request.both:
            self.check_list(reply.other, want - len(reply.own), *swarm.listable(request, not request.is_ipv6))
        else:
            assert reply.other == ()

    def may_lack(self, info_hash: bytes) -> bool:
        """Whether others may have peers of a torrent that are not here."""
        return self.model.states[self.model.slice_of(info_hash)] in (frames.STATE_NONE, frames.STATE_PART)

    def check_list(self, given: tuple[Endpoint, ...], want: int, first: set[Endpoint], second: set[Endpoint]) -> None:
        assert len(given) == len(set(given)) == min(want, len(first) + len(second))
        assert set(given[: len(first)]) <= first
        assert set(given[len(first) :]) <= second

    def scrape(self, info_hash: bytes) -> Reply:
        (packed,) = self.answer([Request(info_hash, event=frames.EVENT_SCRAPE, ticket=bytes(range(48)))])
        reply = unpack_reply(packed, is_scrape=True)
        swarm = self.model.swarms.get(info_hash, Swarm())
        assert reply.ticket == bytes(range(48))
        assert (reply.seeders, reply.leechers, reply.completed) == (swarm.seeders, swarm.leechers, swarm.completed)
        assert reply.partial_seeds == swarm.partial_seeds
        assert reply.is_part == self.may_lack(info_hash)
        return reply

    def set_state(self, slice_id: int, state: int) -> None:
        self.store.set_state(slice_id, state)
        self.model.states[slice_id] = state

    def set_states(self, *states: int) -> None:
        for slice_id, state in enumerate(states):
            self.set_state(slice_id, state)

    def drop(self, slice_id: int, budget: int = 1 << 30) -> int:
        """Forget some of a slice; what is left must be as it was, and the model forgets the same."""
        before = sum(self.store.peers_by_kind()), self.store.dropped, self.store.counters()
        left = self.store.drop(slice_id, self.now, budget)
        gone = before[0] - sum(self.store.peers_by_kind())
        assert self.store.dropped == before[1] + gone
        assert self.store.counters() == before[2]  # nobody has expired
        found = as_swarms(self.dump(slice_id))
        assert left == len(found)
        for info_hash, swarm in self.model.swarms_of(slice_id).items():
            kept = found[info_hash][2] if info_hash in found else {}
            gone -= len(swarm.peers.keys() - kept.keys())
            swarm.peers = {key: peer for key, peer in swarm.peers.items() if key in kept}
            if info_hash not in found:
                del self.model.swarms[info_hash]
        assert gone == 0
        return left

    def sweep(self, budget: int = 1 << 30) -> None:
        """Sweep through everything, twice: the first round may be one that began earlier."""
        for _ in range(2):
            rounds = self.store.rounds()
            while self.store.rounds() == rounds:
                assert self.store.sweep(self.now, budget) > 0
        self.model.expire(self.now)

    def dump(self, slice_id: int, out: bytearray | None = None) -> list[Section]:
        cursor = bytearray(frames.CURSOR)
        out = out if out is not None else bytearray(SMALLEST_OUT)
        sections = []
        while cursor[23] != 2:
            length = self.store.dump(slice_id, cursor, out, self.now)
            sections += unpack_chunk(bytes(out[:length]))
        return sections

    def dump_all(self, out: bytearray | None = None) -> list[Section]:
        return [section for slice_id in range(self.slices) for section in self.dump(slice_id, out)]

    def load(self, slice_id: int, sections: list[Section]) -> int:
        merged = self.store.load(slice_id, b"".join(section.pack() for section in sections), self.now)
        assert merged == sum(self.model.merge(section, self.now) for section in sections)
        return merged

    def check(self) -> None:
        """Everything that the store holds, to the last bit, is what the model holds."""
        found = as_swarms(self.dump_all())
        assert found == {
            info_hash: (
                swarm.completed,
                None if swarm.peers else min(255, 1 + (self.now - (swarm.empty_since or 0)) // 3600),
                {
                    key: (
                        self.now - peer.seen + 1,
                        peer.seeder * frames.PEER_SEEDER
                        | peer.completed * frames.PEER_COMPLETED
                        | peer.partial * frames.PEER_PARTIAL,
                    )
                    for key, peer in swarm.peers.items()
                },
            )
            for info_hash, swarm in self.model.swarms.items()
        }
        kinds = Counter(
            (kind, peer.seeder) for swarm in self.model.swarms.values() for (kind, _), peer in swarm.peers.items()
        )
        assert self.store.peers_by_kind() == [kinds[kind, seeder] for kind in range(6) for seeder in (False, True)]
        assert self.store.swarm_count() == len(self.model.swarms)
        assert self.store.bytes_taken() <= self.memory
        self.check_slices()

    def check_slices(self) -> None:
        """What is known of each slice."""
        model, slices = self.model, range(self.slices)
        states = bytearray(b"\xff" * states_length(self.slices))
        self.store.pack_states(states)
        assert bytes(states) == pack_states(model.states)
        assert [self.store.state_of(each) for each in slices] == model.states
        assert [self.store.changes_of(each) for each in slices] == model.changes
        assert [self.store.asked_at(each) for each in slices] == model.asked
        assert self.store.arrivals == model.arrivals
        held = [model.held(each) for each in slices]
        assert [self.store.held(each) for each in slices] == held
        which = bytes(self.entropy.choice([0, 0, 1, 255]) for _ in slices)
        chosen = [counts for counts, chosen in zip(held, which, strict=True) if chosen]
        assert self.store.totals(which) == tuple(sum(counts[at] for counts in chosen) for at in range(3))


AsSwarm = tuple[int, int | None, dict[tuple[int, Endpoint], tuple[int, int]]]


def as_swarms(sections: list[Section]) -> dict[bytes, AsSwarm]:
    """Sections as swarms: completions, hours without peers, peers; none of these may come twice."""
    swarms: dict[bytes, AsSwarm] = {}
    for section in sections:
        assert section.tag == int.from_bytes(section.info_hash[4:6], "little")
        if not section.peers:
            assert section.info_hash not in swarms
            swarms[section.info_hash] = (section.completed, section.kind, {})
        completed, hours, peers = swarms.setdefault(section.info_hash, (section.completed, None, {}))
        assert completed == section.completed
        assert hours is None or not section.peers
        for endpoint, age, bits in section.peers:
            assert (section.kind, endpoint) not in peers
            peers[section.kind, endpoint] = (age, bits)
    return swarms


def crowd(many: int, info_hash: bytes = HASH, ipv6: bool = False, start: int = 0, **words: object) -> list[Request]:
    """Announces of so many different peers of a swarm, each from an address of its own."""
    prefix = "2001:db8::{:x}:{:x}" if ipv6 else "5.6.{}.{}"
    found = []
    for i in range(start, start + many):
        address = prefix.format(1 + (i >> 8), 1 + (i & 0xFF)) if ipv6 else f"5.{i >> 16}.{i >> 8 & 0xFF}.{i & 0xFF}"
        found.append(Request(info_hash, address=address, port=2000 + i % 7).but(**words))
    return found


@pytest.fixture
def both(kernel: Kernel) -> Both:
    return Both(kernel)


# Frames


def test_a_record_lies_as_the_table_of_frames_says() -> None:
    request = Request(bytes(range(20)), "2001:db8::7", 6882, frames.EVENT_PAUSED, True, 99, True, True, False)
    request = request.but(ticket=bytes(range(100, 148)), sip_hash=0x0102030405060708)
    address = bytes.fromhex("20010db8000000000000000000000007")
    flags = 4 | 0x08 | 0x20 | 0x40 | 0x80
    assert request.pack() == struct.pack(
        "<48sQ20s16s2sBB", request.ticket, 0x0102030405060708, bytes(range(20)), address, b"\x1a\xe2", flags, 99
    )
    packed = request.but(address="192.0.2.5").pack()
    assert len(packed) == frames.RECORD
    assert packed[frames.AT_ADDRESS : frames.AT_PORT] == bytes(10) + b"\xff\xff\xc0\x00\x02\x05"


def test_a_reply_echoes_the_ticket_and_the_frame_its_number_boot_and_tick(both: Both) -> None:
    out = bytearray(frames.HEADER + frames.REPLY + 18 * frames.MAX_WANT)
    request = Request(HASH, ticket=bytes(range(48)))
    length = both.store.answer(pack_frame([request], number=77, boot=1 << 63, tick=5), out, 1000, 1)
    assert out[:32] == struct.pack("<HHIQQQ", frames.VERSION, frames.REPLIES, 1, 77, 1 << 63, 5)
    assert length == frames.HEADER + frames.REPLY
    assert out[32 + 16 : 32 + 64] == bytes(range(48))


def test_copies_are_stored_and_not_answered(both: Both) -> None:
    first, second = crowd(2)
    assert both.answer([first.but(no_reply=True), Request(HASH, event=frames.EVENT_SCRAPE, no_reply=True)]) == []
    both.model.announce(first, both.now)
    both.announce(second)


@pytest.mark.parametrize(
    "spoil",
    [
        lambda frame: frame[:-1],
        lambda frame: frame + b"\0",
        lambda frame: frame[:31],
        lambda frame: b"",
        lambda frame: b"\2\0" + frame[2:],
        lambda frame: frame[:2] + b"\2\0" + frame[4:],
        lambda frame: frame[:4] + b"\xff\xff\xff\xff" + frame[8:],
        lambda frame: frame[:4] + b"\0\0\0\0" + frame[8:],
    ],
)
def test_a_frame_that_does_not_add_up_is_refused_and_changes_nothing(
    both: Both, spoil: Callable[[bytes], bytes]
) -> None:
    with pytest.raises(ValueError):
        both.store.answer(spoil(pack_frame([Request(HASH)])), bytearray(8000), both.now, 0)
    both.check()


def test_an_output_that_could_not_hold_the_largest_replies_is_refused(both: Both) -> None:
    frame = pack_frame([Request(HASH)])
    with pytest.raises(ValueError):
        both.store.answer(frame, bytearray(frames.HEADER + frames.REPLY + 18 * frames.MAX_WANT - 1), both.now, 0)
    assert both.store.answer(b"\1\0\1\0" + bytes(28), bytearray(frames.HEADER), both.now, 0) == frames.HEADER


def in_slice(slice_id: int, **words: object) -> Request:
    """A request whose hash is in a slice of the four."""
    return Request(bytes([slice_id]) + bytes(7) + HASH[8:]).but(**words)


STATES = [frames.STATE_NONE, frames.STATE_FULL, frames.STATE_PART, frames.STATE_LEAVING]


def test_a_fresh_store_is_full_of_all_slices(both: Both) -> None:
    for slice_id in range(4):
        assert not both.announce(in_slice(slice_id)).is_part


def test_who_asks_for_a_part_and_gets_few_peers_is_told_to_come_back_soon(both: Both) -> None:
    both.set_states(*STATES)
    for slice_id, state in enumerate(STATES):
        is_part = state in (frames.STATE_NONE, frames.STATE_PART)
        asker = in_slice(slice_id)
        for many in (0, FEW - 1, FEW):
            both.announce_all(crowd(many, asker.info_hash))
            replies = [unpack_reply(reply) for reply in both.answer([asker] * 300)]
            intervals = {reply.interval for reply in replies}
            assert {(reply.is_part, len(reply.own)) for reply in replies} == {(is_part, many)}
            if is_part and many < FEW:
                assert 120 <= min(intervals) < 140 and 280 < max(intervals) <= 300
            else:
                assert INTERVAL * 0.9 <= min(intervals) < INTERVAL * 0.93
                assert INTERVAL * 1.07 < max(intervals) <= INTERVAL * 1.1


def test_few_are_those_in_the_answer_of_both_families(both: Both) -> None:
    both.set_state(0, frames.STATE_PART)
    both.announce_all(crowd(6, bytes(20)) + crowd(6, bytes(20), ipv6=True))
    assert both.announce(Request(bytes(20))).interval <= 300
    assert both.announce(Request(bytes(20), both=True)).interval >= INTERVAL * 0.9
    assert both.announce(Request(bytes(20), both=True, want=FEW - 1)).interval <= 300
    both.announce_all(crowd(6, bytes(20), event=frames.EVENT_STOPPED))
    assert both.announce(Request(bytes(20), both=True)).interval <= 300
    assert both.announce(Request(bytes(20), event=frames.EVENT_STOPPED)).interval <= 300


def test_a_record_that_is_stored_makes_a_part_of_what_was_nothing(both: Both) -> None:
    both.set_states(*STATES)
    for slice_id in range(4):
        both.answer([in_slice(slice_id)])
        (packed,) = both.answer([in_slice(slice_id, address="192.0.2.2")])
        assert unpack_reply(packed).own == (("192.0.2.1", 6881),)
    after = [frames.STATE_PART if state == frames.STATE_NONE else state for state in STATES]
    assert [both.store.state_of(slice_id) for slice_id in range(4)] == after
    assert both.store.arrivals == 1


@pytest.mark.parametrize("no_reply", [False, True])
@pytest.mark.parametrize("event", [frames.EVENT_STOPPED, frames.EVENT_SCRAPE])
def test_stops_and_scrapes_are_no_news_for_a_slice(both: Both, event: int, no_reply: bool) -> None:
    both.announce_all([Request(bytes(20)), Request(bytes(20), port=9)])
    both.set_states(*[frames.STATE_NONE] * 4)
    both.answer([Request(bytes(20), event=event, no_reply=no_reply), in_slice(1, event=event, no_reply=no_reply)])
    assert [both.store.changes_of(slice_id) for slice_id in range(4)] == [2, 0, 0, 0]
    assert [both.store.state_of(slice_id) for slice_id in range(4)] == [frames.STATE_NONE] * 4
    assert both.store.arrivals == 0


def test_a_record_that_is_refused_is_no_news_for_a_slice(kernel: Kernel) -> None:
    both = Both(kernel, swarm_limit=1, entry_limit=2)
    both.announce_all([Request(bytes(20), port=7), Request(bytes(20), port=8), in_slice(1, address="192.0.2.9")])
    both.set_states(*[frames.STATE_NONE] * 4)
    for one_more in (Request(bytes(20), port=9), in_slice(2, address="192.0.2.9")):  # of a source's peers; torrents
        assert both.announce(one_more).status == frames.STATUS_NOT_STORED
    assert both.store.arrivals == 0
    both.check()


def test_changes_count_what_other_copies_may_lack(both: Both) -> None:
    def changes() -> int:
        before, now = both.changes, both.store.changes_of(0)
        both.changes = now
        both.check_slices()
        return now - before

    both.changes = 0
    peer = Request(bytes(20), "1.2.3.4", 5)
    steps = [
        (lambda: both.announce(peer), 1),
        (lambda: both.announce(peer), 1),  # it is younger now
        (lambda: both.announce_all([peer, peer.but(port=6)]), 2),
        (lambda: both.announce(peer.but(event=frames.EVENT_STOPPED)), 0),
        (lambda: both.scrape(bytes(20)), 0),
        (lambda: both.announce(in_slice(1)), 0),  # another's
        (lambda: both.load(0, [Section(bytes(20), 0, frames.PUBLIC4, 0, ((("1.2.3.4", 6), 0, 0),))]), 0),  # as young
        (lambda: both.load(0, [Section(bytes(20), 0, frames.PUBLIC4, 0, ((("1.2.3.4", 6), 0, 1),))]), 1),  # a seeder
        (lambda: both.load(0, [Section(bytes(20), 0, frames.PUBLIC4, 7, ((("1.2.3.4", 7), 9, 0),))]), 2),
        (lambda: both.load(0, [Section(bytes(20), 0, frames.PUBLIC4, 6, ((("1.2.3.4", 8), 9999, 0),))]), 0),
        (lambda: both.load(0, [Section(bytes(19) + b"\4", 0, 3, 2)]), 1),  # a torrent without peers
        (lambda: both.sweep(), 0),
        (lambda: both.drop(0), 0),
    ]
    for at, (step, wanted) in enumerate(steps):
        step()
        assert changes() == wanted, at


def test_a_slice_that_is_not_full_knows_when_it_was_asked(both: Both) -> None:
    both.set_states(*STATES)
    both.announce_all([in_slice(slice_id) for slice_id in range(4)])
    for slice_id in range(4):
        both.scrape(in_slice(slice_id).info_hash)
    assert [both.store.asked_at(slice_id) for slice_id in range(4)] == [0] * 4
    for now in (1000, 1007):
        both.now = now
        for slice_id in range(4):
            both.announce(in_slice(slice_id, event=frames.EVENT_STOPPED))
    assert [both.store.asked_at(slice_id) for slice_id in range(4)] == [1007 * (state < 3) for state in STATES]


def test_a_store_whose_slices_are_not_a_multiple_of_four_has_states(kernel: Kernel) -> None:
    both = Both(kernel, slices=2)
    both.set_states(frames.STATE_NONE, frames.STATE_LEAVING)
    both.check_slices()
    assert [both.announce(in_slice(slice_id)).is_part for slice_id in (0, 1)] == [True, False]


@pytest.mark.parametrize("length", [0, 2, 4])
def test_states_are_packed_into_two_bits_a_slice(both: Both, length: int) -> None:
    with pytest.raises(ValueError, match="2 bits for each slice"):
        both.store.pack_states(bytearray(length))


def test_doors_refuse_slices_and_states_that_there_are_not(both: Both) -> None:
    store = both.store
    for slice_id, state in ((4, 0), (1 << 31, 3), (0, 4), (0, 255)):
        with pytest.raises(ValueError, match="no such slice, or no such state"):
            store.set_state(slice_id, state)
    for door in (store.held, lambda slice_id: store.drop(slice_id, 1000, 1)):
        with pytest.raises(ValueError, match="no such slice"):
            door(4)
    for door in (store.state_of, store.changes_of, store.asked_at):
        with pytest.raises(IndexError):
            door(4)
    for length in (0, 3, 5):
        with pytest.raises(ValueError, match="a byte for each slice"):
            store.totals(bytes(length))
    both.check()


def test_a_store_refuses_sizes_out_of_range(kernel: Kernel) -> None:
    make = kernel("shard.slice_store").SliceStore
    memory = bytearray(3 * 4096)
    make(memory, 1, 60, 60, 1, 1, 1)
    for bad in (0, 3, 131072):
        with pytest.raises(ValueError):
            make(memory, bad, 1800, 3270, 1, 1, 1)
    for interval, lifetime in ((59, 100), (100, 99), (1800, 15_201)):
        with pytest.raises(ValueError):
            make(memory, 1, interval, lifetime, 1, 1, 1)


# States and events (protocol.md 5.2, 5.4)


@pytest.mark.parametrize("event", [frames.EVENT_NONE, frames.EVENT_COMPLETED, frames.EVENT_STARTED, 5, 6])
def test_a_first_announce_with_any_event_makes_a_peer(both: Both, event: int) -> None:
    reply = both.announce(Request(HASH, event=event))
    assert (reply.leechers, reply.seeders, reply.completed) == (1, 0, 0)
    both.check()


def test_counts_include_the_asker_and_its_list_does_not(both: Both) -> None:
    assert both.announce(Request(HASH)).own == ()
    reply = both.announce(Request(HASH, address="192.0.2.9", seeder=True))
    assert (reply.leechers, reply.seeders) == (1, 1)
    assert reply.own == (("192.0.2.1", 6881),)


def test_paused_is_a_partial_seed_until_the_next_plain_announce(both: Both) -> None:
    both.announce(Request(HASH, event=frames.EVENT_PAUSED))
    assert both.scrape(HASH).partial_seeds == 1
    both.announce(Request(HASH, event=frames.EVENT_PAUSED))
    assert both.scrape(HASH).partial_seeds == 1
    both.announce(Request(HASH))
    assert both.scrape(HASH).partial_seeds == 0
    both.announce(Request(HASH, event=frames.EVENT_PAUSED, seeder=True))
    assert (both.scrape(HASH).partial_seeds, both.scrape(HASH).seeders) == (0, 1)
    both.check()


def test_partial_seeds_that_stop_or_expire_are_no_longer_counted(both: Both) -> None:
    both.announce_all(crowd(100, event=frames.EVENT_PAUSED))
    assert both.scrape(HASH).partial_seeds == 100
    both.announce(crowd(1)[0].but(event=frames.EVENT_STOPPED))
    assert both.scrape(HASH).partial_seeds == 99
    both.now += LIFETIME
    both.announce(Request(HASH))
    both.now += 1
    both.sweep()
    assert (both.scrape(HASH).partial_seeds, both.scrape(HASH).leechers) == (0, 1)


def test_a_swarm_that_was_empty_counts_its_partial_seeds_anew(both: Both) -> None:
    both.announce(Request(HASH, seeder=True, event=frames.EVENT_COMPLETED))
    both.announce(Request(HASH, event=frames.EVENT_STOPPED))
    both.announce(Request(HASH))
    assert both.scrape(HASH).partial_seeds == 0
    both.announce(Request(HASH, event=frames.EVENT_PAUSED))
    assert both.scrape(HASH).partial_seeds == 1


@pytest.mark.parametrize(
    ("announces", "completed"),
    [
        ("l c", 1),  # leecher, then completed
        ("l c c c", 1),  # retransmitted
        ("l s", 1),  # became a seeder and never said so
        ("l s c", 1),
        ("s", 0),  # an old seeder
        ("s c", 1),
        ("c", 1),  # from an unknown peer
        ("c c", 1),
        ("x", 0),  # completed with bytes left
        ("x c", 1),
        ("l s l s", 1),  # once an entry
        ("p c", 1),
        ("p s", 1),
        ("c - c", 2),  # the entry went away between
        ("s l s", 1),
    ],
)
def test_completed_counts_once_an_entry(both: Both, announces: str, completed: int) -> None:
    words: dict[str, dict[str, object]] = {
        "l": {},
        "s": {"seeder": True},
        "c": {"seeder": True, "event": frames.EVENT_COMPLETED},
        "x": {"event": frames.EVENT_COMPLETED},
        "p": {"event": frames.EVENT_PAUSED},
        "-": {"event": frames.EVENT_STOPPED},
    }
    for each in announces.split():
        both.announce(Request(HASH).but(**words[each]))
    assert both.scrape(HASH).completed == completed
    assert both.store.counters()[counters.COMPLETIONS] == completed
    both.check()


def test_stopped_removes_this_endpoint_alone_and_lists_nobody(both: Both) -> None:
    peers = [Request(HASH), Request(HASH, port=6882), Request(HASH, address="192.0.2.2")]
    for each in peers:
        both.announce(each)
    reply = both.announce(peers[0].but(event=frames.EVENT_STOPPED))
    assert (reply.leechers, reply.own, reply.status) == (2, (), frames.STATUS_OK)
    assert both.announce(peers[0].but(event=frames.EVENT_STOPPED)).leechers == 2
    assert both.announce(Request(b"B" * 20, event=frames.EVENT_STOPPED)).leechers == 0
    both.check()
    assert both.store.counters()[counters.STOPPED] == 3


def test_the_same_endpoint_is_one_peer_of_each_swarm_it_is_in(both: Both) -> None:
    for info_hash in (HASH, HASH, b"A" * 19 + b"B"):
        both.announce(Request(info_hash))
    both.check()
    assert both.store.counters()[:2] == [2, 1]


# Who is listed to whom (5.5, 5.6)

PUBLIC = [
    "8.8.8.8",
    "9.255.255.255",
    "11.0.0.1",
    "100.63.0.1",
    "100.128.0.1",
    "172.15.0.1",
    "172.32.0.1",
    "192.167.1.1",
]
PRIVATE = [
    "10.0.0.1",
    "127.0.0.1",
    "192.168.0.1",
    "172.16.0.1",
    "172.31.255.1",
    "169.254.3.3",
    "100.64.0.1",
    "100.127.9.9",
]
PUBLIC_V6 = ["2001:db8::1", "fe00::1", "fbff::1", "fec0::1", "::2", "::1:0:1", "100::1"]
PRIVATE_V6 = ["fc00::1", "fdff::1", "fe80::1", "febf::1", "::1"]


@pytest.mark.parametrize(("public", "private"), [(PUBLIC, PRIVATE), (PUBLIC_V6, PRIVATE_V6)], ids=["IPv4", "IPv6"])
def test_local_peers_are_listed_to_local_askers_only_and_before_others(
    both: Both, public: list[str], private: list[str]
) -> None:
    for address in public + private:
        both.announce(Request(HASH, address=address))
    asker = Request(HASH, address=public[0], want=200)
    assert {address for address, _ in both.announce(asker).own} == set(public[1:])
    asker = Request(HASH, address=private[0], want=200)
    own = both.announce(asker).own
    assert {address for address, _ in own[: len(private) - 1]} == set(private[1:])
    assert {address for address, _ in own[len(private) - 1 :]} == set(public)
    own = both.announce(asker.but(want=3)).own
    assert {address for address, _ in own} <= set(private)
    both.check()


@pytest.mark.parametrize("address", ["192.0.2.1", "2001:db8::1"])
def test_peers_at_port_0_or_1_are_counted_once_an_address_and_never_listed(both: Both, address: str) -> None:
    both.announce(Request(HASH, address=address, port=0))
    both.announce(Request(HASH, address=address, port=1))
    both.announce(Request(HASH, address=address, port=2))
    reply = both.announce(Request(HASH, address=address, port=256))
    assert reply.leechers == 3
    assert reply.own == ((address, 2),)
    both.announce(Request(HASH, address=address, port=1, event=frames.EVENT_STOPPED))
    both.check()


def test_seeders_get_leechers_only(both: Both) -> None:
    for many in (5, 300):
        both.announce_all(crowd(many, seeder=True) + crowd(many, start=5000))
        for want in (0, 1, 7, 200):
            both.announce(Request(HASH, seeder=True, want=want))


def test_leechers_get_up_to_half_seeders_and_more_where_leechers_are_few(both: Both) -> None:
    both.announce_all(crowd(200, seeder=True) + crowd(200, start=5000))
    reply = both.announce(Request(HASH, want=50))
    seeders = {(request.address, request.port) for request in crowd(200, seeder=True)}
    assert len(seeders & set(reply.own)) == 25
    both.announce_all(crowd(190, start=5000, event=frames.EVENT_STOPPED))
    reply = both.announce(Request(HASH, want=50))
    assert len(seeders & set(reply.own)) == 40
    assert len(reply.own) == 50


def test_the_other_family_comes_after_the_own_one_and_only_if_asked_for(both: Both) -> None:
    both.announce_all(crowd(10) + crowd(10, ipv6=True))
    assert both.announce(Request(HASH, want=15)).other == ()
    reply = both.announce(Request(HASH, want=15, both=True))
    assert (len(reply.own), len(reply.other)) == (10, 5)
    assert all(":" in address for address, _ in reply.other)
    reply = both.announce(Request(HASH, address="2001:db8::5:5", want=15, both=True))
    assert (len(reply.own), len(reply.other)) == (10, 5)
    assert all(":" in address for address, _ in reply.own)
    assert both.announce(Request(HASH, want=5, both=True)).other == ()


def test_more_than_the_largest_list_is_not_given(both: Both) -> None:
    both.announce_all(crowd(300))
    assert len(both.announce(Request(HASH, want=255)).own) == frames.MAX_WANT


@pytest.mark.parametrize("ipv6", [False, True], ids=["IPv4", "IPv6"])
@pytest.mark.parametrize("many", [2, 3, 20, 64, 65, 130, 500])
def test_every_peer_turns_up_in_lists(both: Both, many: int, ipv6: bool) -> None:
    peers = crowd(many, ipv6=ipv6)
    both.announce_all(peers)
    asker = peers[many // 2].but(want=20)
    seen: Counter[Endpoint] = Counter()
    answers = 1000
    for _ in range(answers // 100):
        for packed in both.answer([asker] * 100):
            seen.update(unpack_reply(packed).own)
            both.model.announce(asker, both.now)
    both.check()
    assert seen.keys() == {(peer.address, peer.port) for peer in peers} - {(asker.address, asker.port)}
    mean = answers * min(20, many - 1) / (many - 1)
    assert mean / 4 < min(seen.values()) <= max(seen.values()) < mean * 3


@pytest.mark.parametrize("many", range(60, 200, 10))
def test_a_list_that_has_room_for_all_has_everybody_once(both: Both, many: int) -> None:
    both.announce_all(crowd(many))
    asker = crowd(many)[many // 2].but(want=200)
    for _ in range(20):
        assert len(both.announce(asker).own) == many - 1


def test_lists_differ_from_answer_to_answer_within_a_frame(both: Both) -> None:
    both.announce_all(crowd(60))
    assert len(set(both.answer([Request(HASH, want=5)] * 20))) > 10


def test_intervals_are_spread_over_a_tenth_around_the_one_told(both: Both) -> None:
    intervals = {unpack_reply(packed).interval for packed in both.answer([Request(HASH)] * 1000)}
    assert INTERVAL * 0.9 <= min(intervals) < INTERVAL * 0.92
    assert INTERVAL * 1.08 < max(intervals) <= INTERVAL * 1.1


def test_no_interval_is_under_a_minute(kernel: Kernel) -> None:
    module = kernel("shard.slice_store")
    store = module.SliceStore(bytearray(MIB - module.overhead(1)), 1, 60, 400, 100, 100, SECRET)
    out = bytearray(frames.HEADER + 500 * (frames.REPLY + 18 * frames.MAX_WANT))
    length = store.answer(pack_frame([Request(HASH)] * 500), out, 1000, 1)
    intervals = {unpack_reply(packed).interval for packed in split_replies(bytes(out[:length]))}
    assert min(intervals) == 60
    assert max(intervals) > 60


# Lifetimes


@pytest.mark.parametrize("many", [1, 40, 100, 900])
def test_a_peer_is_there_at_its_lifetime_and_gone_when_swept_after(both: Both, many: int) -> None:
    both.announce_all(crowd(many))
    both.now += LIFETIME
    both.sweep()
    assert both.scrape(HASH).leechers == many
    both.now += 1
    both.sweep()
    assert both.scrape(HASH).leechers == 0
    both.check()
    assert both.store.counters()[counters.EXPIRED] == many
    assert both.store.bytes_taken() == both.empty


def test_one_round_removes_all_that_has_expired(both: Both) -> None:
    every_sort_of_swarm(both)
    both.now += LIFETIME + 1
    both.store.sweep(both.now, 1 << 30)
    assert both.store.rounds() == 1
    assert sum(both.store.peers_by_kind()) == 0


def test_a_sweep_stops_a_block_after_its_budget(both: Both) -> None:
    both.announce_all(crowd(2000) + crowd(2000, seeder=True, start=9000))
    calls = 0
    while both.store.rounds() == 0:
        assert both.store.sweep(both.now, 5) <= 5 + 4 + 4 + 64 // 4
        calls += 1
    assert calls > 4000 / 64


def test_sweeps_of_a_round_in_four_seconds_remove_a_peer_within_five(both: Both) -> None:
    random = Random(6)
    both.announce_all(crowd(900))
    for i, request in enumerate(crowd(60, start=50_000)):
        both.announce_all([request, request.but(address=f"2001:db8::{i}"), request.but(info_hash=random.randbytes(20))])
    stored = both.now
    for tick in range(-20 * 20, 5 * 20):  # 50 ms each, until 5 s past the lifetime
        both.now = stored + LIFETIME + tick // 20
        if tick < 0:
            assert sum(both.store.peers_by_kind()) == 1080
        both.store.sweep(both.now, both.store.steps_of_a_round() // 80 + 1)
    assert sum(both.store.peers_by_kind()) == 0


def test_a_completed_count_outlives_its_peers_by_a_day(both: Both) -> None:
    finished = {"seeder": True, "event": frames.EVENT_COMPLETED}
    both.announce_all(crowd(3, **finished))
    both.announce_all(crowd(3, event=frames.EVENT_STOPPED))
    both.announce_all(crowd(2, info_hash=b"B" * 20, **finished))
    both.sweep()
    assert both.scrape(HASH).completed == 3
    both.now += KEEP_COMPLETED
    both.sweep()
    assert both.scrape(HASH).completed == 3
    assert both.scrape(b"B" * 20).completed == 2
    both.now += 1
    both.sweep()
    assert both.scrape(HASH).completed == 0
    assert both.scrape(b"B" * 20).completed == 2
    both.announce(Request(b"B" * 20))
    both.now += KEEP_COMPLETED + 1
    both.sweep()
    both.check()
    assert both.scrape(b"B" * 20).completed == 2
    both.now += KEEP_COMPLETED + 1
    both.sweep()
    both.check()
    assert both.store.bytes_taken() == both.empty


def test_copies_of_a_swarm_without_peers_do_not_keep_each_other_for_ever(kernel: Kernel) -> None:
    stores = [Both(kernel, slices=1), Both(kernel, slices=1)]
    stores[1].now = 50_000
    stores[0].announce(Request(HASH, seeder=True, event=frames.EVENT_COMPLETED))
    stores[0].announce(Request(HASH, event=frames.EVENT_STOPPED))
    for hour in range(27):
        for both, other in (stores, stores[::-1]):
            if hour == 20:
                assert other.scrape(HASH).completed == 1
            both.load(0, other.dump(0))
            both.now += 3600
            both.sweep()
            both.check()
    assert [both.store.swarm_count() for both in stores] == [0, 0]


def test_a_store_whose_clock_has_just_begun_takes_a_swarm_without_peers(both: Both) -> None:
    both.now = 10
    assert both.load(0, [Section(bytes(20), 0, 24, 7), Section(b"\1" + bytes(19), 0, 25, 7)]) == 0
    both.check()
    assert (both.scrape(bytes(20)).completed, both.store.swarm_count()) == (7, 1)


def test_a_clock_of_many_days_keeps_ages_right(both: Both) -> None:
    stay, leave = crowd(150), crowd(150, start=1000)
    both.announce_all(leave)
    for _ in range(60):
        both.announce_all(stay)
        both.now += 1777
        both.sweep()
        both.check()
    assert both.scrape(HASH).leechers == 150


# Dropping a slice


GROUPS = 12  # of a swarm, at most: those of up to 63 peers are freed in one step


def drop_all(both: Both, slice_id: int, budget: int) -> int:
    """Drop a slice step by step; returns how many steps of the budget it took."""
    steps = 1
    while both.drop(slice_id, budget):
        steps += 1
    return steps


@pytest.mark.parametrize("budget", [1, 50, 1000])
def test_what_is_dropped_is_gone_in_bounded_steps_and_all_else_stays(both: Both, budget: int) -> None:
    every_sort_of_swarm(both)
    for slice_id in range(4):
        both.announce_all(crowd(30, in_slice(slice_id).info_hash))
    before = both.store.counters()
    for slice_id in range(4):
        many = sum(both.store.peers_by_kind())
        peers = sum(both.store.held(slice_id)[1:])
        while both.store.held(slice_id)[0]:
            both.drop(slice_id, budget)
            assert many - sum(both.store.peers_by_kind()) <= budget + GROUPS * 63
            many = sum(both.store.peers_by_kind())
        both.check()
        assert both.store.held(slice_id) == (0, 0, 0)
        assert peers >= 30
    assert both.model.swarms == {}
    assert both.store.bytes_taken() == both.empty
    assert both.store.counters() == before


def test_a_huge_swarm_is_dropped_to_the_last_byte(both: Both) -> None:
    finished = {"seeder": True, "event": frames.EVENT_COMPLETED}
    huge = crowd(3500, bytes(20)) + crowd(1000, bytes(20), start=70_000, **finished)
    huge += crowd(1500, bytes(20), ipv6=True) + crowd(200, bytes(20), ipv6=True, start=9000, **finished)
    small = crowd(2, b"\1" + bytes(19))
    both.announce_all(small)
    taken = both.store.bytes_taken()
    both.announce_all(huge)
    assert both.store.held(0) == (1, 5000, 1200)
    assert 6200 / 800 <= drop_all(both, 0, 800) <= 6200 / 800 * 1.6
    both.check()
    assert both.store.bytes_taken() == taken
    both.announce_all(small)
    both.check()


def test_a_swarm_that_only_counts_completions_is_dropped_too(both: Both) -> None:
    for info_hash in (bytes(20), b"\4" * 20, b"\1" + bytes(19)):
        both.announce_all(crowd(3, info_hash, seeder=True, event=frames.EVENT_COMPLETED))
        both.announce_all(crowd(3, info_hash, event=frames.EVENT_STOPPED))
    assert [both.store.held(slice_id) for slice_id in range(4)] == [(2, 0, 0), (1, 0, 0), (0, 0, 0), (0, 0, 0)]
    assert both.drop(0) == 0
    both.check()
    assert both.scrape(bytes(20)).completed == 0
    assert both.scrape(b"\1" + bytes(19)).completed == 3


def test_a_slice_of_which_nothing_is_there_is_dropped_at_once(both: Both) -> None:
    both.announce_all(crowd(5, bytes(20)))
    assert [both.drop(slice_id, 1) for slice_id in (1, 2, 3)] == [0, 0, 0]
    both.check()


def test_a_record_that_comes_while_its_slice_is_dropped_is_kept(both: Both) -> None:
    both.announce_all(crowd(500, bytes(20)))
    both.set_state(0, frames.STATE_NONE)
    assert both.drop(0, 100) == 1
    newcomer = Request(bytes(20), address="192.0.2.77", want=200)
    answer = both.announce(newcomer)  # as many as are left
    assert answer.is_part
    assert len(answer.own) == 200
    assert both.store.state_of(0) == frames.STATE_PART
    assert both.store.arrivals == 1
    both.check()


def test_what_is_dropped_and_comes_again_is_dropped_again(both: Both) -> None:
    for sweeps in (0, 10, 1 << 20):
        both.announce_all(crowd(1500, bytes(20)) + crowd(3, bytes(19) + b"\1"))
        both.drop(0, 1200)
        both.announce_all(crowd(1500, bytes(20)))  # most of it behind where dropping stopped
        both.store.sweep(both.now, sweeps)
        for _ in range(8):
            both.drop(0, 100)
        both.check()
        drop_all(both, 0, 500)
        both.check()
        assert both.store.bytes_taken() == both.empty


def test_dropping_may_go_from_slice_to_slice(both: Both) -> None:
    for slice_id in range(4):
        both.announce_all(crowd(200, in_slice(slice_id).info_hash) + crowd(1, bytes([slice_id] * 20)))
    assert both.drop(0, 50) > 0
    assert both.drop(1) == 0
    assert both.drop(2, 50) > 0
    assert both.drop(0) == both.drop(2) == both.drop(3) == 0
    both.check()
    assert both.store.bytes_taken() == both.empty


@pytest.mark.parametrize("dropped", [0, 1])
def test_a_sweep_that_goes_on_after_a_drop_loses_nobody(both: Both, dropped: int) -> None:
    """A sweep cuts a directory down to what its deepest block needs, which a drop in between must not hide."""
    random = Random(14)
    huge, other = crowd(4000, bytes(20)), crowd(100, bytes([dropped]) + bytes(18) + b"\1")
    both.announce_all(huge)
    for _ in range(60):
        both.announce_all(other)
        both.store.sweep(both.now, random.randrange(20, 700))
        both.drop(dropped, 40)
    both.check()
    both.sweep(300)
    both.announce_all(huge)
    both.check()
    for slice_id in range(4):
        drop_all(both, slice_id, 1000)
    assert both.store.bytes_taken() == both.empty


@pytest.mark.parametrize("spare", range(6, 19, 3))
def test_a_slice_is_dropped_though_memory_has_run_out(kernel: Kernel, spare: int) -> None:
    both = Both(kernel, memory=393_400 + spare * 4113, slices=2)
    random = Random(spare)
    for i in range(450):
        both.announce(crowd(1, bytes(20), ipv6=i % 3 == 0, start=i, seeder=i % 4 == 0)[0].but(want=0))
    refused = 0
    while refused < 20:
        refused += both.announce(Request(b"\1" + random.randbytes(19), want=0)).status
    stay = both.store.held(1)
    drop_all(both, 0, 30)
    both.check()
    assert (both.store.held(0), both.store.held(1)) == ((0, 0, 0), stay)
    drop_all(both, 1, 30)
    assert both.store.bytes_taken() == both.empty


# Growth


@pytest.mark.parametrize("ipv6", [False, True], ids=["IPv4", "IPv6"])
def test_a_swarm_grows_to_thousands_and_shrinks_to_nothing(both: Both, ipv6: bool) -> None:
    random = Random(3)
    peers = crowd(3000, ipv6=ipv6)
    for i, peer in enumerate(peers):
        peers[i] = peer.but(seeder=random.random() < 0.3)
    for at in range(0, 3000, 250):
        both.announce_all(peers[at : at + 250])
        both.announce(Request(HASH, want=200))
    both.check()
    full = both.store.bytes_taken()
    both.announce_all([peer.but(seeder=not peer.seeder) for peer in peers[::3]])
    both.check()
    random.shuffle(peers)
    for at in range(0, 3000, 250):
        both.announce_all([peer.but(event=frames.EVENT_STOPPED) for peer in peers[at : at + 250]])
        both.sweep(50)
        both.check()
    assert both.store.bytes_taken() - both.empty < (full - both.empty) / 10
    both.now += LIFETIME + KEEP_COMPLETED + 2
    both.sweep()
    both.now += KEEP_COMPLETED + 2
    both.sweep()
    both.check()
    assert both.store.bytes_taken() == both.empty


@pytest.mark.parametrize("budget", [1, 20, 1 << 30])
def test_an_expiring_swarm_is_swept_to_the_last_peer_while_its_blocks_join(both: Both, budget: int) -> None:
    both.announce_all(crowd(1500))
    both.now += 1000
    both.announce_all(crowd(1500, start=700))
    both.now += LIFETIME - 999
    both.sweep(budget)
    both.check()
    both.now += 1001
    both.sweep(budget)
    both.check()
    assert both.store.bytes_taken() == both.empty


def test_a_directory_that_grows_behind_the_sweep_is_not_cut_down(both: Both) -> None:
    both.announce_all(crowd(300))
    for i in range(20):
        both.sweep(1)
        blocks = sum(len(section.peers) > 0 for section in both.dump_all())
        for _ in range(blocks):
            both.store.sweep(both.now, 1)
        both.announce_all(crowd(25, start=300 + 25 * i))
        both.sweep(1)
        both.check()


def test_an_emptied_swarm_keeps_its_head_alone(both: Both) -> None:
    both.announce(Request(HASH, seeder=True, event=frames.EVENT_COMPLETED))
    small = both.store.bytes_taken()
    both.announce_all(crowd(1000))
    both.announce_all([peer.but(event=frames.EVENT_STOPPED) for peer in (Request(HASH), *crowd(1000))])
    assert both.scrape(HASH).completed == 1
    assert both.store.bytes_taken() == small


def test_tables_grow_and_shrink_with_the_swarms_in_them(kernel: Kernel) -> None:
    both = Both(kernel, slices=1)
    random = Random(5)
    hashes = [random.randbytes(20) for _ in range(1960)]
    hashes += [random.randbytes(4) + b"\xff\xff" + random.randbytes(14) for _ in range(40)]  # all of the last home
    for info_hash in hashes:
        both.announce_all([Request(info_hash)])
    both.check()
    for info_hash in hashes[:50]:
        both.scrape(info_hash)
        both.scrape(random.randbytes(20))
    full = both.store.bytes_taken()
    both.announce_all([Request(info_hash, event=frames.EVENT_STOPPED) for info_hash in hashes[:1960]])
    both.sweep()
    both.check()
    assert both.store.bytes_taken() < both.empty + (full - both.empty) / 4
    both.announce_all([Request(info_hash, event=frames.EVENT_STOPPED) for info_hash in hashes[1960:]])
    both.sweep()
    both.check()
    assert both.store.bytes_taken() == both.empty


def test_swarms_of_equal_tags_are_told_apart(both: Both) -> None:
    random = Random(8)
    hashes = [random.randbytes(4) + tag + random.randbytes(14) for tag in (b"\0\0", b"\xff\xff") for _ in range(150)]
    for i, info_hash in enumerate(hashes):
        both.announce_all(crowd(1 + i % 3, info_hash))
    both.check()
    for info_hash in hashes[::2]:
        both.announce_all(crowd(3, info_hash, event=frames.EVENT_STOPPED))
    both.check()


# Limits


def test_entries_of_a_source_are_limited_and_free_again_when_gone(kernel: Kernel) -> None:
    both = Both(kernel, entry_limit=5)
    for port in range(100, 108):
        both.announce(Request(HASH, port=port))
    assert both.announce(Request(HASH, port=108)).status == frames.STATUS_NOT_STORED
    assert both.announce(Request(HASH, port=104)).status == frames.STATUS_OK
    assert both.announce(Request(HASH, port=108, exempt=True)).status == frames.STATUS_OK
    assert both.announce(Request(HASH, address="192.0.2.2")).status == frames.STATUS_OK
    for port in (100, 108):
        both.announce(Request(HASH, port=port, event=frames.EVENT_STOPPED))
    assert both.announce(Request(HASH, port=109)).status == frames.STATUS_OK
    assert both.announce(Request(HASH, port=110)).status == frames.STATUS_NOT_STORED
    both.check()
    assert both.store.counters()[counters.ENTRY_LIMIT] == 5
    both.now += LIFETIME + 1
    both.sweep()
    for port in range(100, 108):
        both.announce(Request(HASH, port=port))
    both.check()


def test_addresses_of_a_64_are_one_source(kernel: Kernel) -> None:
    both = Both(kernel, entry_limit=3)
    statuses = [both.announce(Request(HASH, address=f"2001:db8::{i}")).status for i in range(2, 7)]
    assert statuses == [0, 0, 0, 1, 1]
    assert both.announce(Request(HASH, address="2001:db8:0:1::2")).status == 0


def test_new_swarms_of_a_source_are_limited_by_the_minute(kernel: Kernel) -> None:
    both = Both(kernel, swarm_limit=3)
    hashes = [bytes([i]) * 20 for i in range(9)]
    assert [both.announce(Request(each)).status for each in hashes[:5]] == [0, 0, 0, 1, 1]
    assert both.announce(Request(hashes[5], exempt=True)).status == 0
    assert both.announce(Request(hashes[3], address="192.0.2.2")).status == 0
    assert both.announce(Request(hashes[3])).status == 0
    assert both.store.counters()[counters.SWARM_LIMIT] == 2
    both.now += 60
    assert [both.announce(Request(each)).status for each in hashes[4:]] == [0, 0, 0, 0, 1]
    both.check()


def test_the_share_of_others_in_a_sources_counters_is_taken_off(kernel: Kernel) -> None:
    """A crowd of sources with a peer each, many times what the counters are: none is taken for a large one."""
    count = 400_000 if kernel("shard.slice_store").__file__.endswith(".so") else 2_000
    both = Both(kernel, memory=16 * MIB, entry_limit=40)
    refused = 0
    for start in range(0, count, 1000):
        replies = both.answer(crowd(1000, HASH, start=start, want=0))
        refused += sum(reply[frames.AT_STATUS] for reply in replies)
    assert refused <= count // 10_000


def test_the_memory_ceiling_refuses_new_peers_and_keeps_all_others(kernel: Kernel) -> None:
    both = Both(kernel, memory=600_000, slices=2)
    random = Random(9)
    refused = 0
    hashes = [random.randbytes(20) for _ in range(40)]
    for i in range(2500):
        words: dict[str, object] = {"seeder": random.random() < 0.4, "want": 5}
        (request,) = crowd(1, random.choice(hashes) if i % 3 else random.randbytes(20), i % 5 == 0, i // 2, **words)
        refused += both.announce(request).status
        if i % 500 == 0:
            both.check()
    assert refused > 500
    assert both.store.counters()[counters.MEMORY] == refused
    both.check()
    both.now += LIFETIME + 1
    both.sweep(100)
    both.now += KEEP_COMPLETED + 1
    both.sweep(100)
    both.check()
    assert both.store.bytes_taken() == both.empty
    assert both.announce(Request(HASH)).status == 0


@pytest.mark.parametrize("spare", range(4, 19))
def test_memory_may_run_out_at_any_step_of_growing_and_shrinking(kernel: Kernel, spare: int) -> None:
    """With so many frames of 4 KiB a swarm of all sorts does not come far."""
    both = Both(kernel, memory=393_400 + spare * 4113, slices=1)
    peers = [peer for i in range(450) for peer in crowd(1, ipv6=i % 3 == 0, start=i, seeder=i % 4 == 0, want=4)]
    statuses = [both.announce(peer).status for peer in peers]
    both.check()
    assert statuses.count(frames.STATUS_NOT_STORED) >= 5
    for peer in peers[::2]:
        both.announce(peer.but(seeder=not peer.seeder))
    both.check()
    others = [Request(bytes(18) + i.to_bytes(2), port=i, want=0) for i in range(100, 300)]
    Random(spare).shuffle(others)
    for peer, other in zip(peers, others, strict=False):
        both.announce(peer.but(event=frames.EVENT_STOPPED))
        both.announce(other)
    both.check()
    for peer in peers + others:
        both.announce(peer.but(event=frames.EVENT_STOPPED))
    both.check()
    for _ in range(2):
        both.now += KEEP_COMPLETED + 1
        both.sweep()
    assert both.store.bytes_taken() == both.empty


@pytest.mark.parametrize("spare", [5, 25, 40])
def test_a_swarm_that_finds_no_room_leaves_the_table_as_it_was(kernel: Kernel, spare: int) -> None:
    both = Both(kernel, memory=393_400 + spare * 4113, slices=1)
    random = Random(spare)
    refused = 0
    while refused < 50:
        refused += both.announce(Request(random.randbytes(20), want=0)).status
    both.check()
    for info_hash in list(both.model.swarms):
        both.announce(Request(info_hash, event=frames.EVENT_STOPPED))
    both.check()


def test_a_directory_that_finds_no_memory_for_its_empty_head_is_freed_all_the_same(kernel: Kernel) -> None:
    both = Both(kernel, memory=500_000, slices=1)
    for peer in crowd(300):
        both.announce(peer)
    i = 0
    while both.announce(Request(i.to_bytes(20, "little"), address="7.7.7.7", want=0)).status == 0:
        i += 1
    both.announce_all(crowd(300, event=frames.EVENT_STOPPED))
    both.check()
    both.announce_all([Request(k.to_bytes(20, "little"), address="7.7.7.7", event=3) for k in range(i)])
    both.sweep()
    both.check()
    assert both.store.bytes_taken() == both.empty


# Dump and load


def test_a_dump_goes_on_where_it_ended_while_the_store_changes(both: Both) -> None:
    random = Random(11)
    hashes = [b"\0\0" + random.randbytes(18) for _ in range(30)]
    stay = [peer for each in hashes for peer in crowd(3, each)] + crowd(1000, hashes[4]) + crowd(500, hashes[7], True)
    stay += crowd(400, hashes[4], seeder=True, start=70_000)
    both.announce_all(stay)
    cursor, out = bytearray(frames.CURSOR), bytearray(SMALLEST_OUT)
    found = set()
    turn = 0
    while cursor[23] != 2:
        length = both.store.dump(0, cursor, out, both.now)
        for section in unpack_chunk(bytes(out[:length])):
            found |= {(section.info_hash, endpoint) for endpoint, _, _ in section.peers}
        turn += 1
        new = [b"\0\0" + random.randbytes(18) for _ in range(20)]
        come = [Request(each) for each in new] + crowd(60, hashes[4], start=2000 + 60 * turn)
        come += crowd(60, hashes[7], True, start=2000 + 60 * turn)
        both.announce_all(come)
        if turn % 3 == 0:
            both.announce_all([each.but(event=frames.EVENT_STOPPED) for each in come])
            both.sweep(200)
        if turn % 10 == 0:
            both.announce_all(crowd(60 * turn, hashes[4], start=2000, event=frames.EVENT_STOPPED))
    assert turn > 20
    assert found >= {(peer.info_hash, (peer.address, peer.port)) for peer in stay}
    both.check()


def every_sort_of_swarm(both: Both) -> None:
    random = Random(12)
    for many in (1, 2, 10, 64, 65, 300, 700):
        for ipv6 in (False, True):
            info_hash = random.randbytes(20)
            for peer in crowd(many, info_hash, ipv6):
                words = {"seeder": random.random() < 0.5, "event": random.choice([0, 1, 4])}
                both.announce_all([peer.but(**words)])
            both.now += 100
    info_hash = random.randbytes(20)
    for address in ("10.1.1.1", "8.8.8.8", "fc00::5", "2001:db8::5"):
        for port in (0, 6881):
            both.announce_all([Request(info_hash, address=address, port=port)])
            both.announce_all([Request(info_hash, address=address, port=port, event=1, seeder=True)])
    for many in (100,):
        for prefix in ("10.0.0.{}", "8.8.8.{}", "fc00::{}", "2001:db8::{}"):
            for port in (1, 6882):
                for i in range(1, many):
                    both.announce_all([Request(info_hash, prefix.format(i), port, seeder=i % 2 == 0)])
    both.announce_all(crowd(2, b"E" * 20, seeder=True, event=1) + crowd(2, b"E" * 20, event=3))


@pytest.mark.parametrize("room", [SMALLEST_OUT, frames.CHUNK])
def test_a_fresh_store_that_loads_a_dump_holds_the_same(kernel: Kernel, both: Both, room: int) -> None:
    every_sort_of_swarm(both)
    both.check()
    other = Both(kernel)
    other.now = 123_456
    for slice_id in range(both.slices):
        sections = both.dump(slice_id, bytearray(room))
        other.load(slice_id, sections)
        assert other.load(slice_id, sections) == 0
    other.check()
    mine, theirs = as_swarms(both.dump_all()), as_swarms(other.dump_all())
    assert mine.keys() == theirs.keys()
    for info_hash, (completed, hours, peers) in mine.items():
        later = {key: (age + 1, bits) for key, (age, bits) in peers.items()}
        assert theirs[info_hash] == (completed, None if hours is None else hours + 1, later)


def test_a_dump_that_has_ended_stays_ended(both: Both) -> None:
    both.announce_all(crowd(5, b"\0" * 20))
    cursor, out = bytearray(frames.CURSOR), bytearray(SMALLEST_OUT)
    assert both.store.dump(0, cursor, out, both.now) > 0
    assert cursor[23] == 2
    assert both.store.dump(0, cursor, out, both.now) == 0
    assert cursor[23] == 2


def test_any_cursor_is_safe(both: Both) -> None:
    random = Random(13)
    both.announce_all(crowd(300, bytes(20)) + crowd(70, bytes(20), True, seeder=True))
    out = bytearray(SMALLEST_OUT)
    for i in range(300):
        cursor = bytearray(random.randbytes(32) if i % 2 else bytes(22) + random.randbytes(10))
        cursor[23] = i % 4
        length = both.store.dump(0, cursor, out, both.now)
        unpack_chunk(bytes(out[:length]))
    both.check()


def test_doors_of_dump_and_load_check_what_they_are_given(both: Both) -> None:
    for slice_id, cursor, out in (
        (4, 32, SMALLEST_OUT),
        (0, 31, SMALLEST_OUT),
        (0, 33, 9999),
        (0, 32, SMALLEST_OUT - 1),
    ):
        with pytest.raises(ValueError):
            both.store.dump(slice_id, bytearray(cursor), bytearray(out), both.now)
    with pytest.raises(ValueError):
        both.store.load(4, b"", both.now)
    assert both.store.load(3, b"", both.now) == 0


SOME = Section(bytes(20), 0, frames.PUBLIC4, 3, ((("1.2.3.4", 5), 9, 0),))


@pytest.mark.parametrize(
    "chunk",
    [
        SOME.pack() + SOME.pack()[:-1],
        SOME.pack() + b"\0",
        SOME.pack() + bytes(27),
        SOME.pack() + bytes(22) + b"\6\1\0\0\0\0" + bytes(21),
        SOME.pack() + bytes(22) + b"\6\1\0\0\0\0" + bytes(9),
        SOME.pack() + bytes(22) + b"\0\1\0\0\0\0",
        SOME.pack()[:22] + b"\3" + SOME.pack()[23:],
    ],
)
def test_a_chunk_that_does_not_add_up_changes_nothing(both: Both, chunk: bytes) -> None:
    with pytest.raises(ValueError):
        both.store.load(0, chunk, both.now)
    both.check()


def test_of_two_announces_the_younger_wins_and_at_equal_age_the_seeder(both: Both) -> None:
    both.announce(Request(bytes(20), "1.2.3.4", 5))
    both.now += 10

    def merge(age: int, bits: int) -> int:
        return both.load(0, [Section(bytes(20), 0, frames.PUBLIC4, 0, ((("1.2.3.4", 5), age, bits),))])

    assert merge(11, frames.PEER_SEEDER) == 0
    assert merge(10, frames.PEER_PARTIAL) == 0
    assert merge(10, frames.PEER_SEEDER) == 1
    assert merge(10, frames.PEER_SEEDER) == 0
    assert merge(10, 0) == 0
    assert merge(9, frames.PEER_PARTIAL) == 1
    assert both.scrape(bytes(20)).partial_seeds == 1
    assert merge(8, frames.PEER_COMPLETED) == 1
    assert both.scrape(bytes(20)).partial_seeds == 0
    assert merge(0, frames.PEER_SEEDER) == 1
    both.check()
    assert merge(LIFETIME + 1, 0) == 0


def test_expired_peers_are_not_merged_and_counts_of_completed_take_the_larger(both: Both) -> None:
    peers = ((("1.2.3.4", 5), LIFETIME, 0), (("1.2.3.4", 6), LIFETIME + 1, 0), (("1.2.3.4", 7), 65535, 0))
    assert both.load(0, [Section(bytes(20), 0, frames.PUBLIC4, 7, peers)]) == 1
    assert both.load(0, [Section(bytes(20), 0, frames.PUBLIC4, 5, peers)]) == 0
    assert both.load(0, [Section(b"\4" * 20, 0x0404, frames.PUBLIC6, 0, ())]) == 0
    assert both.load(0, [Section(b"\4" * 20, 0x0404, frames.PUBLIC6, 0, ((("::9", 4), 60_000, 0),))]) == 0
    assert both.store.swarm_count() == 1
    assert both.scrape(bytes(20)).completed == 7
    both.check()


def test_a_load_that_finds_no_room_says_so_and_keeps_what_fits(kernel: Kernel) -> None:
    large, small = Both(kernel), Both(kernel, memory=450_000)
    large.announce_all([peer for i in range(40) for peer in crowd(100, bytes([0, 0, i]) + bytes(17))])
    chunk = b"".join(section.pack() for section in large.dump(0))
    with pytest.raises(MemoryError):
        small.store.load(0, chunk, small.now)
    assert 100 < sum(small.store.peers_by_kind()) < 4000
    assert small.store.bytes_taken() <= 450_000
    wanted = as_swarms(unpack_chunk(chunk))
    for info_hash, (_, _, peers) in as_swarms(small.dump_all()).items():
        assert peers.keys() <= wanted[info_hash][2].keys()
    small.now += LIFETIME + 1
    small.sweep()
    assert small.store.bytes_taken() == small.empty


# Everything at once


ADDRESSES = ["9.9.9.9", "10.1.2.3", "2001:db8::1", "fc00::3"]
HASHES = [bytes(20), bytes(19) + b"\1", b"\1" + bytes(19), b"\2\0\0\0\xff\xff" + bytes(14)]


class StoreMachine(RuleBasedStateMachine):
    """Whatever is announced, swept, dumped and loaded, the store holds what the model holds."""

    is_cramped = False
    many = 300

    def __init__(self, kernel: Kernel) -> None:
        super().__init__()
        self.kernel = kernel
        self.fresh = 0

    @initialize(
        slices=st.sampled_from([1, 4]),
        limits=st.sampled_from([(60_000, NEVER), (2, 30)]),
        memory=st.integers(405_000, 480_000),
    )
    def start(self, slices: int, limits: tuple[int, int], memory: int) -> None:
        self.both = Both(self.kernel, memory if self.is_cramped else 2 * MIB, slices, *limits)

    @rule(
        info_hash=st.sampled_from(HASHES),
        address=st.sampled_from(ADDRESSES),
        port=st.sampled_from([0, 1, 2, 6881, 65535]),
        event=st.integers(0, 6),
        seeder=st.booleans(),
        want=st.sampled_from([0, 1, 3, 50, 200, 255]),
        asks_both=st.booleans(),
        exempt=st.booleans(),
    )
    def announce(
        self,
        info_hash: bytes,
        address: str,
        port: int,
        event: int,
        seeder: bool,
        want: int,
        asks_both: bool,
        exempt: bool,
    ) -> None:
        self.both.announce(Request(info_hash, address, port, event, seeder, want, asks_both, exempt))

    @rule(
        info_hash=st.sampled_from(HASHES),
        ipv6=st.booleans(),
        start=st.sampled_from([0, 40, 1000]),
        share=st.sampled_from([1, 4, 15]),
        event=st.sampled_from([0, 0, 1, 3, 4]),
        seeder=st.sampled_from([0, 1, 2]),
    )
    def announce_many(self, info_hash: bytes, ipv6: bool, start: int, share: int, event: int, seeder: int) -> None:
        """A crowd comes, goes, or changes its role: all seeders, none, or every other one."""
        peers = crowd(self.many // share, info_hash, ipv6, start, event=event)
        peers = [peer.but(seeder=seeder == 1 or (seeder == 2 and i % 2 == 1)) for i, peer in enumerate(peers)]
        for peer in peers:
            self.both.announce(peer.but(want=self.fresh % 60))
            self.fresh += 7

    @rule(info_hash=st.sampled_from(HASHES), event=st.sampled_from([0, 3]))
    def announce_to_many_swarms(self, info_hash: bytes, event: int) -> None:
        for i in range(self.many // 4):
            self.both.announce(Request(info_hash[:6] + i.to_bytes(14), event=event))

    @rule(
        seconds=st.sampled_from([1, 30, 900, LIFETIME // 2, LIFETIME, LIFETIME + 1]),
        budget=st.sampled_from([1, 7, 1000]),
    )
    def pass_time(self, seconds: int, budget: int) -> None:
        self.both.now += seconds
        self.both.sweep(budget)

    @rule()
    def pass_a_day(self) -> None:
        for _ in range(8):
            self.both.now += 11_000
            self.both.sweep()

    @rule(info_hash=st.sampled_from(HASHES), budget=st.sampled_from([1, 5, 30]))
    def announce_between_sweeps(self, info_hash: bytes, budget: int) -> None:
        """Peers that nobody has seen before come while others expire."""
        self.both.now += LIFETIME // 2
        for i in range(20):
            self.fresh += 1
            new = crowd(3, info_hash, start=100_000 + 3 * self.fresh, exempt=True, seeder=i % 3 == 0)
            new.append(
                Request(info_hash[:6] + self.fresh.to_bytes(14), address=f"6.6.6.{self.fresh % 256}", exempt=True)
            )
            for request in new:
                (packed,) = self.both.answer([request])
                self.both.model.announce(request, self.both.now, unpack_reply(packed).status == frames.STATUS_OK)
            self.both.store.sweep(self.both.now, budget)
        self.both.sweep(budget)

    @rule(slice_id=st.integers(0, 3), state=st.integers(0, 3))
    def set_state(self, slice_id: int, state: int) -> None:
        self.both.set_state(slice_id % self.both.slices, state)

    @rule(slice_id=st.integers(0, 3), budget=st.sampled_from([1, 30, 300, 1 << 30]))
    def drop(self, slice_id: int, budget: int) -> None:
        self.both.drop(slice_id % self.both.slices, budget)

    @rule(info_hash=st.sampled_from(HASHES), budget=st.sampled_from([1, 30, 300]), sweeps=st.sampled_from([0, 5, 70]))
    def announce_while_dropping(self, info_hash: bytes, budget: int, sweeps: int) -> None:
        """A slice is dropped while peers come to it, and sweeps go on."""
        for i in range(10):
            self.both.drop(self.both.model.slice_of(info_hash), budget)
            if sweeps:
                self.both.store.sweep(self.both.now, sweeps)
            if i % 3 == 2:
                self.fresh += 1
                self.both.announce(Request(info_hash, address=f"7.7.7.{self.fresh % 256}", port=self.fresh))

    @rule(info_hash=st.sampled_from(HASHES))
    def scrape(self, info_hash: bytes) -> None:
        self.both.scrape(info_hash)

    @precondition(lambda self: not self.is_cramped)
    @rule(data=st.data())
    def load(self, data: st.DataObject) -> None:
        info_hash = data.draw(st.sampled_from(HASHES))
        kind = data.draw(st.sampled_from([frames.PUBLIC4, frames.PUBLIC6]))
        peer = st.tuples(st.integers(0, 60), st.integers(0, LIFETIME + 2), st.integers(0, 7))
        peers = []
        for i, age, bits in data.draw(st.lists(peer, max_size=20, unique_by=lambda each: each[0])):
            (one,) = crowd(1, info_hash, kind == frames.PUBLIC6, i)
            peers.append(((one.address, one.port), age, bits))
        completed = data.draw(st.integers(0, 5))
        kind = kind if peers else data.draw(st.integers(0, 26))
        tag = int.from_bytes(info_hash[4:6], "little")
        section = Section(info_hash, tag, kind, completed, tuple(peers))
        self.both.load(int.from_bytes(info_hash[:2], "little") % self.both.slices, [section])

    @precondition(lambda self: not self.is_cramped)
    @rule()
    def move_to_another_store(self) -> None:
        """Dump all, load it into an empty store, and go on with that one."""
        old, new = self.both, Both(self.kernel, 4 * MIB, self.both.slices)
        new.now = old.now
        for slice_id in range(old.slices):
            new.load(slice_id, old.dump(slice_id))
        new.check()
        self.both = new

    @invariant()
    def agree(self) -> None:
        if hasattr(self, "both"):
            self.both.check()

    def teardown(self) -> None:
        """When all is gone, all memory and all counters are as they were at the start."""
        if not hasattr(self, "both"):
            return
        for _ in range(2):
            self.both.now += KEEP_COMPLETED + LIFETIME
            self.both.sweep()
        self.both.check()
        assert self.both.store.bytes_taken() == self.both.empty
        assert self.both.model.swarms == {}


class CrampedMachine(StoreMachine):
    """The same where memory runs out all the time."""

    is_cramped = True


@pytest.mark.parametrize("machine", [StoreMachine, CrampedMachine])
def test_the_store_does_what_the_model_does(kernel: Kernel, machine: type[StoreMachine]) -> None:
    is_pure = kernel("shard.slice_store").__file__.endswith(".py")
    steps = settings(
        max_examples=5 if is_pure else 25,
        stateful_step_count=12 if is_pure else 25,
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )
    run_state_machine_as_test(lambda: machine(kernel), settings=steps)
