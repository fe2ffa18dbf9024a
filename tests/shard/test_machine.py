"""A shard's side of links without sockets: frames in, frames out, with a told clock."""

import json
import struct
from bisect import bisect_left

import pytest
from packing import HEADER, Request, pack_frame, split_replies, unpack_reply

from common import config, control, frames
from common.clock import SteadyClock
from common.control import Hello, pack_header, pack_hello
from common.life import TOO_OLD, Life
from common.link_state import PING_EVERY
from common.topology import Self, Topology
from shard import machine
from shard.copies import Timing
from shard.machine import FORGET, ShardMachine
from shard.service import ShardWorker

SLICES = 64
START = 10_000
BOOT, LATER_BOOT = 500, 501
GATEWAY = b"\0abcd"
GATEWAY_BOOT, GATEWAY_TICK = 900, 4321


def topology_of(*numbers, **words):
    shards = [{"name": f"shard{number}", "memory": "16MiB"} for number in numbers]
    return Topology(config.read({"slices": SLICES, "shards": shards, **words}), bytes(16))


class Rig:
    """Shard 1 of three; `now` is told."""

    def __init__(self):
        self.topology = topology_of(1, 2, 3)
        wanted = self.topology.config
        boots = iter(range(BOOT, BOOT + 100))
        self.me = Self(self.topology, Life(START, lambda: next(boots)), frames.ROLE_SHARD, "shard1")
        self.worker = ShardWorker(wanted, wanted.shards[0], SteadyClock())
        self.machine = ShardMachine(
            self.me, self.worker, lambda: b'{"torrents":7}', self.status, START, place=b'{"link":"here"}'
        )
        self.now = START
        self.others_states = bytes(SLICES // 4)

    @staticmethod
    def status(with_slices):
        return b'{"status":1,"held":{}}' if with_slices else b'{"status":1}'

    def take(self, frame, sender=GATEWAY):
        answer = self.machine.take(sender, memoryview(frame), self.now)
        return None if answer is None else bytes(answer)

    def ping(self, sender=GATEWAY, number=1, **changes):
        """A ping; the pong's header and what it says, None without one."""
        hello = Hello(
            GATEWAY_BOOT, GATEWAY_TICK, 1, 2, self.topology.cluster, SLICES, frames.ROLE_GATEWAY, False, "gateway1"
        )
        pong = self.take(pack_hello(frames.PING, number, hello._replace(**changes)), sender)
        if pong is None:
            return None
        pong = memoryview(pong)
        return control.header(pong), control.unpack_hello(pong)

    def announce(self, *requests, sender=GATEWAY, number=7, boot=BOOT, tick=None):
        return self.take(pack_frame(list(requests), number, boot, self.now if tick is None else tick), sender)

    def hear_others(self, *names):
        """The other shards, or some, answer a ping each: they hold nothing of what this one should."""
        for name in names or self.machine.links:
            link = self.machine.links[name]
            link.next_ping = 0
            number = link.ping_due(self.now)
            known = self.topology
            hello = Hello(7, 8, 1, known.table, known.cluster, SLICES, frames.ROLE_SHARD, False, name)
            pong = pack_hello(frames.PONG, number, hello._replace(states=self.others_states))
            assert self.machine.hear(name, memoryview(pong), self.now) == []

    def fill(self):
        """Let the shard be full of what it should hold."""
        self.now += Timing().settle
        self.hear_others()
        self.machine.tick(self.now)

    @property
    def states(self):
        """What it shows of its slices."""
        states = bytearray(SLICES // 4)
        self.worker.store.pack_states(states)
        return bytes(states)

    def slice_of(self, state):
        """A slice that this shard shows in a state."""
        return next(slice_id for slice_id in range(SLICES) if control.state_of(self.states, slice_id) == state)

    def own(self, **changes):
        """A request for a slice that this shard owns."""
        return Request(sip_hash=self.slice_of(frames.STATE_FULL)).but(**changes)

    def stray(self, **changes):
        """A request for a slice that is another's."""
        return Request(sip_hash=self.slice_of(frames.STATE_NONE)).but(**changes)

    @property
    def dropped(self):
        return {reason: count for reason, count in self.machine.dropped.items() if count}

    @property
    def stored(self):
        totals = self.worker.totals()
        return totals["seeders"] + totals["leechers"]


@pytest.fixture
def rig():
    """It is full of what it should hold, and has just been heard."""
    rig = Rig()
    rig.fill()
    return rig


# Pings


def test_a_ping_gets_a_pong_that_says_all(rig):
    header, hello = rig.ping(number=33)
    assert header == control.Header(frames.VERSION, frames.PONG, 0, 33, 0, 0)
    assert hello == Hello(
        BOOT,
        rig.now,
        1,
        rig.topology.table,
        rig.topology.cluster,
        SLICES,
        frames.ROLE_SHARD,
        False,
        "shard1",
        last=0,
        states=control.pack_states(
            [frames.STATE_FULL * (rig.topology.ring.owner(slice_id) == 0) for slice_id in range(SLICES)]
        ),
        report=b'{"torrents":7}',
    )


def test_a_pong_names_the_last_frame_of_records(rig):
    rig.ping()
    for number in (5, 8):
        rig.announce(rig.own(), number=number)
        assert rig.ping()[1].last == number
    assert rig.ping(sender=b"another")[1].last == 0


def test_a_shard_that_stops_says_so_and_still_answers(rig):
    rig.ping()
    rig.machine.stopping = True
    assert rig.ping()[1].stopping
    assert split_replies(rig.announce(rig.own()))


@pytest.mark.parametrize("changes", [{"cluster": 1}, {"slices": SLICES * 2}])
def test_a_process_of_another_cluster_is_told_so_and_not_taken(rig, changes):
    _, hello = rig.ping(**changes)
    assert (hello.cluster, hello.slices) == (rig.topology.cluster, SLICES)
    assert hello.report == b""
    assert rig.announce(rig.own()) is None
    assert rig.dropped == {"other_cluster": 1, "unknown_sender": 1}
    assert rig.stored == 0


def test_a_process_that_goes_to_another_cluster_is_not_taken_any_longer(rig):
    rig.ping()
    assert rig.announce(rig.own()) is not None
    rig.ping(cluster=1)
    assert rig.announce(rig.own(port=1)) is None
    assert rig.stored == 1


def test_configurations_may_differ(rig):
    assert rig.ping(version=99, table=12345)
    assert rig.announce(rig.own()) is not None


def test_no_more_processes_are_known_than_there_is_room_for(rig, monkeypatch):
    monkeypatch.setattr(machine, "MOST_PEERS", 2)
    assert rig.ping(sender=b"1") and rig.ping(sender=b"2")
    assert rig.ping(sender=b"3") is None
    assert rig.ping(sender=b"1")
    assert rig.dropped == {"crowd": 1}


def test_a_process_that_comes_again_and_again_has_a_few_places(rig):
    for number in range(machine.MOST_OF_A_NAME + 2):
        rig.now += 1
        assert rig.ping(sender=b"%d" % number, boot=number + 1)
    assert rig.ping(sender=b"other", name="other")
    assert list(rig.machine.peers) == [*(b"%d" % number for number in range(2, machine.MOST_OF_A_NAME + 2)), b"other"]


def test_reports_of_operators_are_not_kept(rig):
    for sender, role, kept in ((b"0", frames.ROLE_OPERATOR, b""), (b"1", frames.ROLE_GATEWAY, b'{"big":1}')):
        rig.ping(sender, role=role, report=b'{"big":1}')
        assert rig.machine.peers[sender].hello.report == kept


def test_where_a_shard_is_is_what_its_pings_say(rig):
    rig.ping(b"1", role=frames.ROLE_GATEWAY, name="shard7", report=b'{"link":"tcp://a:1"}')
    assert rig.machine.place_of("shard7") == {}
    rig.ping(b"2", role=frames.ROLE_SHARD, name="shard7", report=b'{"link":"tcp://b:1","key":""}')
    assert rig.machine.place_of("shard7") == {"link": "tcp://b:1", "key": ""}
    rig.ping(b"2", role=frames.ROLE_SHARD, name="shard7", report=b"{")
    assert rig.machine.place_of("shard7") == {}


def test_a_process_that_does_not_ping_for_a_minute_is_forgotten(rig):
    rig.ping(sender=b"1")
    rig.now += 1
    rig.ping(sender=b"2")
    rig.now += FORGET
    rig.machine.forget(rig.now)
    assert list(rig.machine.peers) == [b"2"]
    assert rig.announce(rig.own(), sender=b"1") is None
    assert rig.dropped == {"unknown_sender": 1}


def test_an_operator_is_shown_who_pings(rig):
    rig.ping(report=b'{"shed":3}')
    rig.ping(sender=b"2", role=77, name="later", report=b"{")
    rig.now += 250
    first, second = (peer.show(rig.now) for peer in rig.machine.peers.values())
    assert first == {
        "name": "gateway1",
        "role": "gateway",
        "heard_ms": 250,
        "boot": f"{GATEWAY_BOOT:016x}",
        "config_version": 1,
        "table": f"{2:016x}",
        "report": {"shed": 3},
    }
    assert (second["role"], second["report"]) == ("unknown", {})
    json.dumps([first, second])


def test_status_tells_of_slices_if_it_is_asked_to(rig):
    question = bytearray(pack_header(frames.STATUS, 12))
    question[frames.AT_COUNT] = 1
    assert rig.take(question)[frames.HEADER :] == b'{"status":1,"held":{}}'


def test_status_is_answered_to_anybody(rig):
    answer = rig.take(pack_header(frames.STATUS, 12))
    assert control.header(memoryview(answer)).number == 12
    assert control.header(memoryview(answer)).kind == frames.STATUS
    assert answer[frames.HEADER :] == b'{"status":1}'


# Records


def test_replies_name_the_life_of_who_asked(rig):
    rig.ping()
    frame = rig.announce(rig.own(ticket=bytes(range(48))), rig.own(port=7), number=77)
    assert HEADER.unpack_from(frame) == (frames.VERSION, frames.REPLIES, 2, 77, GATEWAY_BOOT, GATEWAY_TICK)
    assert unpack_reply(split_replies(frame)[0]).ticket == bytes(range(48))
    assert rig.stored == 2
    rig.ping(boot=901, tick=9999)
    assert HEADER.unpack_from(rig.announce(rig.own()))[4:] == (901, 9999)


def test_replies_go_by_the_newest_ping_of_their_own_asker(rig):
    rig.ping(sender=b"1", boot=1, tick=10)
    rig.ping(sender=b"2", boot=2, tick=20)
    assert HEADER.unpack_from(rig.announce(rig.own(), sender=b"1"))[4:] == (1, 10)
    assert HEADER.unpack_from(rig.announce(rig.own(), sender=b"2"))[4:] == (2, 20)


def test_records_without_a_reply_get_an_empty_frame(rig):
    rig.ping()
    frame = rig.announce(rig.own(no_reply=True))
    assert split_replies(frame) == []
    assert rig.stored == 1


def test_records_of_an_unknown_sender_are_not_taken(rig):
    rig.ping()
    assert rig.announce(rig.own(), sender=b"stranger") is None
    assert rig.dropped == {"unknown_sender": 1}
    assert rig.stored == 0


@pytest.mark.parametrize("boot", [0, BOOT - 1, LATER_BOOT])
def test_records_for_another_life_are_not_taken(rig, boot):
    rig.ping()
    assert rig.announce(rig.own(), boot=boot) is None
    assert rig.dropped == {"other_boot": 1}
    assert rig.stored == 0


def test_records_over_five_seconds_old_are_not_taken(rig):
    rig.ping()
    then = rig.now
    rig.now += TOO_OLD
    assert rig.announce(rig.own(), tick=then) is not None
    rig.now += 1
    assert rig.announce(rig.own(port=1), tick=then) is None
    assert rig.dropped == {"too_old": 1}
    assert rig.stored == 1


def test_after_a_stall_records_that_waited_are_not_taken(rig):
    rig.ping()
    own = rig.own()
    waited = pack_frame([own], 7, BOOT, START)
    rig.now += 2000
    assert rig.machine.beat(rig.now)
    for _ in range(3):
        assert rig.take(waited) is None
    assert rig.dropped == {"other_boot": 3}
    assert rig.stored == 0
    boot = rig.ping()[1].boot
    assert boot == LATER_BOOT
    assert rig.announce(own, boot=boot) is not None
    assert rig.stored == 1


def good_frame():
    return pack_frame([Request(), Request(port=1)], 7, BOOT, START)


def changed(at, form, value):
    frame = bytearray(good_frame())
    struct.pack_into(form, frame, at, value)
    return bytes(frame)


@pytest.mark.parametrize(
    "frame",
    [
        pytest.param(b"", id="empty"),
        pytest.param(good_frame()[: frames.HEADER - 1], id="shorter than a header"),
        pytest.param(good_frame()[:-1], id="a byte short"),
        pytest.param(good_frame() + b"\0", id="a byte long"),
        pytest.param(good_frame()[: frames.HEADER + frames.RECORD], id="a record short"),
        pytest.param(good_frame() + bytes(frames.RECORD), id="a record long"),
        pytest.param(changed(frames.AT_COUNT, "<I", 0), id="no records, it says"),
        pytest.param(changed(frames.AT_COUNT, "<I", 1), id="one record, it says"),
        pytest.param(changed(frames.AT_COUNT, "<I", 0xFFFF_FFFF), id="most records, it says"),
        pytest.param(changed(frames.AT_COUNT, "<I", 1 << 31), id="half of the most records, it says"),
        pytest.param(changed(0, "<H", 0), id="version 0"),
        pytest.param(changed(0, "<H", 2), id="version 2"),
        pytest.param(pack_frame([Request()] * 2049, 7, BOOT, START), id="more than replies have room for"),
        pytest.param(pack_header(frames.PING, 1), id="a ping that says nothing"),
    ],
)
def test_a_malformed_frame_is_dropped_and_counted(rig, frame):
    rig.ping()
    assert rig.take(frame) is None
    assert rig.dropped == {"malformed": 1}
    assert rig.stored == 0
    assert rig.announce(rig.own()) is not None


@pytest.mark.parametrize("kind", [0, frames.REPLIES, frames.PONG, frames.PULL, frames.SLICE, 8, 0xFFFF])
def test_a_frame_that_no_gateway_sends_is_dropped_and_counted(rig, kind):
    rig.ping()
    assert rig.take(changed(frames.AT_KIND, "<H", kind)) is None
    assert rig.dropped == {"unexpected": 1}
    assert rig.stored == 0


# The operator


def told_of(rig, known=("gateway1",)):
    texts, unlisted = rig.machine.tell_peers(rig.now, known)
    return [json.loads(text) for text in texts], unlisted, sum(map(len, texts))


def test_who_pings_is_told_of(rig):
    rig.ping(report=b'{"shed":1}')
    rig.now += 7
    ((peer,), unlisted, _) = told_of(rig)
    assert (peer["name"], peer["heard_ms"], peer["report"], unlisted) == ("gateway1", 7, {"shed": 1}, 0)


def test_forged_pings_do_not_make_it_long_nor_hide_gateways(rig):
    report = b'{"x":[' + b",".join([b"1e15"] * 10_000) + b"]}"  # longer when it is written again
    for number in range(200):
        rig.ping(b"stranger %d" % number, name=f"stranger{number}", report=report)
        rig.ping(b"forged %d" % number, name="gateway2", report=report)
    rig.ping(name="gateway1", report=b'{"shed":1}')
    rig.ping(b"true", name="gateway2", report=b'{"shed":2}')
    peers, unlisted, length = told_of(rig, ("gateway1", "gateway2"))
    assert length <= machine.MOST_TOLD
    assert [peer["report"] for peer in peers[:2]] == [{"shed": 1}, {"shed": 2}]
    assert unlisted == len(rig.machine.peers) - len(peers) > 100


def test_a_report_too_deep_to_be_told_is_left_out(rig):
    def nested(depth):
        return b'{"x":' + b"[" * depth + b"]" * depth + b"}"

    deepest = bisect_left(range(30_000), True, key=lambda depth: not control.read_report(nested(depth))) - 1
    for depth in range(deepest - 20, deepest + 2):  # read by one who stands deeper, and written
        rig.ping(report=nested(depth))
        peers, unlisted = rig.machine.tell_peers(rig.now, ())
        assert len(peers) + unlisted == 1


# Slices


def test_an_owners_answer_is_whole(rig):
    rig.ping()
    (reply,) = split_replies(rig.announce(rig.own()))
    assert not unpack_reply(reply).is_part
    assert 1620 <= unpack_reply(reply).interval <= 1980


def test_a_strays_answer_is_part_and_asks_to_come_back_soon(rig):
    rig.ping()
    stray = rig.stray()
    assert rig.announce(stray.but(no_reply=True))
    assert rig.slice_of(frames.STATE_PART) == stray.sip_hash
    replies = [unpack_reply(reply) for reply in split_replies(rig.announce(*[stray.but(port=2, want=9)] * 400))]
    assert {reply.own for reply in replies} == {(("192.0.2.1", 6881),)}  # it is kept, and listed
    assert all(reply.is_part for reply in replies)
    intervals = {reply.interval for reply in replies}
    assert 120 <= min(intervals) < max(intervals) <= 300
    assert len(intervals) > 50  # not all at once


def test_a_frame_may_have_both(rig):
    rig.ping()
    replies = split_replies(rig.announce(rig.own(), rig.stray(), rig.own()))
    assert [unpack_reply(reply).is_part for reply in replies] == [False, True, False]


def test_what_a_shard_owns_is_part_until_all_others_were_heard():
    rig = Rig()
    owned = rig.topology.ring.slices_of(0)
    part = control.pack_states([frames.STATE_PART * (slice_id in owned) for slice_id in range(SLICES)])
    assert rig.states == part
    rig.now += Timing().settle - 1
    rig.hear_others()
    rig.machine.tick(rig.now)
    assert rig.states == part  # a pong that came before gateways copied to it
    rig.now += 1
    rig.hear_others("shard2")
    rig.machine.tick(rig.now)
    assert rig.states == part
    rig.hear_others("shard3")
    rig.machine.tick(rig.now)
    assert rig.states == control.pack_states([frames.STATE_FULL * (slice_id in owned) for slice_id in range(SLICES)])


def test_after_a_stall_all_is_part(rig):
    owned = rig.topology.ring.slices_of(0)
    assert not rig.machine.beat(START + 1999)
    rig.now = START + 4000
    assert rig.machine.beat(rig.now)
    assert rig.states == control.pack_states([frames.STATE_PART * (slice_id in owned) for slice_id in range(SLICES)])


# Other shards


def test_a_shard_pings_the_others_and_says_where_it_is():
    rig = Rig()
    sent = rig.machine.tick(rig.now)
    assert [name for name, _ in sent] == ["shard2", "shard3"]
    for _, frame in sent:
        assert control.header(memoryview(frame)).kind == frames.PING
        assert control.unpack_hello(memoryview(frame)) == rig.me.hello(rig.now, b'{"link":"here"}')
    assert rig.machine.tick(rig.now + PING_EVERY - 1) == []
    assert len(rig.machine.tick(rig.now + PING_EVERY)) == 2


def test_slices_that_another_shows_are_pulled_of_it():
    rig = Rig()
    rig.others_states = control.pack_states([frames.STATE_LEAVING] * SLICES)
    rig.now += Timing().settle
    rig.hear_others()
    pulls = [(name, frame) for name, frame in rig.machine.tick(rig.now) if len(frame) == frames.HEADER + 56]
    assert [name for name, _ in pulls] == ["shard2", "shard3"]
    for _, frame in pulls:
        header = control.header(memoryview(frame))
        assert (header.kind, header.boot, header.tick) == (frames.PULL, 7, 8)


STRANGE = {
    "nothing": (b"", "malformed"),
    "a pong that says nothing": (pack_header(frames.PONG, 1), "malformed"),
    "a slice of another version": (b"\2\0" + pack_header(frames.SLICE, 1)[2:], "malformed"),
    "a slice for another life": (pack_header(frames.SLICE, 1), "other_boot"),
    "an old slice": (pack_header(frames.SLICE, 1, BOOT, 0), "too_old"),
    "a slice without a body": (pack_header(frames.SLICE, 1, BOOT, START), "malformed"),
    **{
        f"kind {kind}": (pack_header(kind, 1), "unexpected")
        for kind in (0, frames.RECORDS, frames.REPLIES, frames.PING, frames.STATUS, frames.PULL, 8, 0xFFFF)
    },
}


@pytest.mark.parametrize("strange", STRANGE)
def test_what_another_shard_does_not_answer_is_dropped_and_counted(rig, strange):
    frame, reason = STRANGE[strange]
    assert rig.machine.hear("shard2", memoryview(frame), rig.now) == []
    assert rig.dropped == {reason: 1}


def test_pongs_of_a_shard_that_is_no_longer_there_are_no_news(rig):
    rig.machine.configure(topology_of(1, 2), rig.now)
    hello = Hello(7, 8, 1, 0, rig.topology.cluster, SLICES, frames.ROLE_SHARD, False, "shard3", states=bytes(16))
    assert rig.machine.hear("shard3", memoryview(pack_hello(frames.PONG, 1, hello)), rig.now) == []
    assert rig.dropped == {}


# Configurations


def test_a_configuration_gives_and_takes_slices(rig):
    def states():
        return [rig.worker.store.state_of(slice_id) for slice_id in range(SLICES)]

    first = set(rig.topology.ring.slices_of(0))
    rig.machine.configure(topology_of(1, 2, 3, 4, version=2), rig.now)
    second = set(rig.me.topology.ring.slices_of(0))
    assert first > second
    leaving, full, part = frames.STATE_LEAVING, frames.STATE_FULL, frames.STATE_PART
    assert states() == [full if each in second else leaving * (each in first) for each in range(SLICES)]
    assert rig.ping()[1].version == 2
    assert [name for name, _ in rig.machine.tick(rig.now + PING_EVERY)] == ["shard2", "shard3", "shard4"]
    kept = rig.machine.links["shard2"]
    rig.machine.configure(topology_of(1, 2, version=3), rig.now)
    assert rig.machine.links == {"shard2": kept}
    third = set(rig.me.topology.ring.slices_of(0))
    assert third > first
    assert states() == [full if each in second else part * (each in third) for each in range(SLICES)]


def test_a_shard_that_the_file_lacks_departs(rig):
    rig.machine.configure(topology_of(2, 3, version=2), rig.now)
    assert rig.me.topology.departing == ("shard1",)
    assert set(map(rig.worker.store.state_of, rig.topology.ring.slices_of(0))) == {frames.STATE_LEAVING}
    assert not rig.machine.is_done(rig.now)
    rig.machine.configure(topology_of(1, 2, 3, version=3), rig.now)
    assert rig.me.topology.departing == ()


def test_a_shard_that_holds_nothing_and_that_the_file_lacks_says_so_then_is_done():
    rig = Rig()
    rig.machine.configure(topology_of(2, 3, version=2), rig.now)
    rig.machine.copies.slices.clear()  # others have it all
    for after, stops, is_done in ((0, False, False), (3999, False, False), (4000, True, False), (4999, True, False)):
        rig.now = START + after
        assert rig.machine.is_done(rig.now) == is_done
        assert rig.ping()[1].stopping == stops
    rig.machine.configure(topology_of(1, 2, 3, version=3), rig.now)
    assert not rig.machine.is_done(START + 5000)
    assert not rig.ping()[1].stopping
    rig.machine.configure(topology_of(2, 3, version=4), rig.now)
    rig.machine.copies.slices.clear()
    assert not rig.machine.is_done(START + 6000)
    assert rig.machine.is_done(START + 11_000)


def test_a_shard_that_pings_and_that_the_file_lacks_is_linked_while_it_pings(rig):
    """It departs, and this one has begun since, or was told later."""
    rig.ping(b"8", role=frames.ROLE_SHARD, name="shard8")
    rig.ping(b"9", role=frames.ROLE_GATEWAY, name="gateway9")
    rig.machine.tick(rig.now)
    assert list(rig.machine.links) == ["shard2", "shard3", "shard8"]
    assert rig.me.topology.table == rig.topology.table
    rig.now += 1999
    rig.machine.tick(rig.now)
    assert "shard8" in rig.machine.links
    rig.now += 1
    rig.machine.tick(rig.now)
    assert list(rig.machine.links) == ["shard2", "shard3"]
