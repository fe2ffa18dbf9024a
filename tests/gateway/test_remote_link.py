"""The way to one shard elsewhere: the window, what is shed, a link that breaks, copies."""

import importlib

import pytest
from http_bench import Bench, announce_head, kernels_of
from packing import HEADER, pack_links

from common import frames
from common.control import Hello
from common.link_state import WINDOW, LinkState
from gateway.remote_link import RemoteLink
from gateway.router import Router

DEPTH = 4


class Rig:
    """Two shards: the first answers, the second gets copies. What is sent is kept, by shard."""

    def __init__(self):
        self.bench = Bench(kernels_of(importlib.import_module), links=2, depth=DEPTH)
        self.records = self.bench.records
        self.router = Router(self.records, None, self.bench.codec)
        self.sent = {"shard1": [], "shard2": []}
        self.away = set()
        self.broken = []
        self.states = [LinkState(name, 1, 7) for name in self.sent]
        self.links = [RemoteLink(self.router, state, self.send, self.note_broken) for state in self.states]
        self.router.set_links(self.links)
        self.records.set_links(*pack_links([0], [[1]]))

    def send(self, name, frame):
        if name not in self.away:
            self.sent[name].append(bytes(frame))
        return name not in self.away

    def note_broken(self):
        self.broken.append([state.is_silent(0) for state in self.states])

    def put(self, many):
        places = self.bench.put(*[announce_head()] * many)
        assert self.bench.codec.decode(0, self.bench.now, self.bench.seconds) == many
        self.bench.connections.clear()
        for place in places:
            self.bench.connections.close_inner(place)

    def ask(self, many=1):
        """Let so many announces come, and be handed over."""
        self.put(many)
        self.router.dispatch()

    def fill_window(self, index):
        while self.states[index].has_room():
            self.states[index].note_sent()

    @property
    def counts(self):
        """How many records each frame that was sent has, by shard."""
        return [[HEADER.unpack_from(frame)[2] for frame in sent] for sent in self.sent.values()]


@pytest.fixture
def rig():
    return Rig()


def events(frame):
    return [frame[at + frames.AT_EVENT] for at in range(frames.HEADER, len(frame), frames.RECORD)]


def test_a_frame_names_the_life_of_its_shard_as_it_was_heard_last(rig):
    state = rig.states[0]
    hello = Hello(77, 88, 1, 0, 7, 1, frames.ROLE_SHARD, False, "shard1", states=b"\3")
    assert state.take_pong(state.ping_due(0), hello, 0)
    rig.ask(2)
    assert HEADER.unpack_from(rig.sent["shard1"][0]) == (frames.VERSION, frames.RECORDS, 2, 1, 77, 88)
    assert HEADER.unpack_from(rig.sent["shard2"][0])[3:] == (2, 0, 0)
    assert [link.frames for link in rig.links] == [1, 1]
    assert [state.unanswered for state in rig.states] == [1, 1]


def test_who_holds_the_slice_too_gets_copies_at_once(rig):
    for many in (3, 1):
        rig.ask(many)
    assert rig.counts == [[3, 1], [3, 1]]
    for own, copies in zip(*rig.sent.values(), strict=True):
        assert events(copies) == [event | frames.FLAG_NO_REPLY for event in events(own)]
        assert not any(event & frames.FLAG_NO_REPLY for event in events(own))
    assert rig.router.copied == 4


def test_while_too_many_frames_are_unanswered_records_gather_and_are_copied_once(rig):
    rig.fill_window(0)
    for _ in range(3):
        rig.ask()
    assert rig.counts == [[], [1, 1, 1]]
    rig.states[0].note_replies()
    rig.router.dispatch()
    assert rig.counts == [[3], [1, 1, 1]]
    assert rig.links[0].shed == 0


def test_who_has_too_many_frames_unanswered_gets_no_copies(rig):
    rig.fill_window(1)
    assert [link.takes_copies() for link in rig.links] == [True, False]
    rig.ask(3)
    assert rig.counts == [[3], []]
    assert (rig.router.copied, rig.records.uncopied) == (0, 3)
    rig.states[1].note_replies()
    rig.ask(1)
    assert rig.counts == [[3, 1], [1]]


def test_what_finds_no_room_is_shed(rig):
    rig.fill_window(0)
    rig.ask(DEPTH)
    assert rig.links[0].shed == 0
    rig.ask(1)
    assert rig.links[0].shed == DEPTH + 1
    assert rig.records.waiting(0) == 0
    assert rig.counts == [[], [DEPTH, 1]]  # copies of it went out all the same


def test_a_frame_may_be_sent_whether_there_is_room_or_not(rig):
    rig.fill_window(0)
    rig.ask(2)
    rig.links[0].send_now(0)
    assert rig.counts == [[2], [2]]
    assert rig.states[0].unanswered == WINDOW + 1


@pytest.mark.parametrize(("away", "shed"), [("shard1", [2, 0]), ("shard2", [0, 2])])
def test_a_link_with_nobody_there_is_broken_and_its_frame_shed(rig, away, shed):
    for state in rig.states:
        hello = Hello(77, 88, 1, 0, 7, 1, frames.ROLE_SHARD, False, state.name, states=b"\3")
        assert state.take_pong(state.ping_due(0), hello, 0)
    rig.away.add(away)
    rig.ask(2)
    assert rig.broken == [[name == away for name in rig.sent]]  # it is known when it is told
    assert [link.shed for link in rig.links] == shed
    assert [link.frames for link in rig.links] == [int(name != away) for name in rig.sent]
    assert [state.unanswered for state in rig.states] == [int(name != away) for name in rig.sent]
    assert rig.counts == [[2] * (name != away) for name in rig.sent]
