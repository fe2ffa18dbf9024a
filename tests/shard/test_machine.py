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
from common.topology import Self, Topology
from shard import machine
from shard.machine import FORGET, ShardMachine
from shard.service import ShardWorker

SLICES = 64
START = 10_000
BOOT, LATER_BOOT = 500, 501
GATEWAY = b"\0abcd"
GATEWAY_BOOT, GATEWAY_TICK = 900, 4321


class Rig:
    """Shard 1 of three; `now` is told."""

    def __init__(self):
        shards = [{"name": f"shard{number}", "memory": "16MiB"} for number in (1, 2, 3)]
        wanted = config.read({"slices": SLICES, "shards": shards})
        self.topology = Topology(wanted, bytes(16))
        boots = iter(range(BOOT, BOOT + 100))
        self.me = Self(self.topology, Life(START, lambda: next(boots)), frames.ROLE_SHARD, "shard1")
        self.worker = ShardWorker(wanted, wanted.shards[0], SteadyClock())
        self.machine = ShardMachine(self.me, self.worker, lambda: b'{"torrents":7}', lambda: b'{"status":1}')
        self.now = START

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

    def slice_of(self, state):
        """A slice that this shard shows in a state."""
        states = self.topology.states_of("shard1")
        return next(slice_id for slice_id in range(SLICES) if control.state_of(states, slice_id) == state)

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
    return Rig()


# Pings


def test_a_ping_gets_a_pong_that_says_all(rig):
    header, hello = rig.ping(number=33)
    assert header == control.Header(frames.VERSION, frames.PONG, 0, 33, 0, 0)
    assert hello == Hello(
        BOOT,
        START,
        1,
        rig.topology.table,
        rig.topology.cluster,
        SLICES,
        frames.ROLE_SHARD,
        False,
        "shard1",
        last=0,
        states=rig.topology.states_of("shard1"),
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


def test_reports_of_gateways_alone_are_kept(rig):
    rig.ping(sender=b"1", role=frames.ROLE_SHARD, report=b'{"big":1}')
    assert rig.machine.peers[b"1"].hello.report == b""


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
    rig.now += TOO_OLD
    assert rig.announce(rig.own(), tick=START) is not None
    rig.now += 1
    assert rig.announce(rig.own(port=1), tick=START) is None
    assert rig.dropped == {"too_old": 1}
    assert rig.stored == 1


def test_after_a_stall_records_that_waited_are_not_taken(rig):
    rig.ping()
    waited = pack_frame([rig.own()], 7, BOOT, START)
    rig.now += 2000
    assert rig.machine.beat(rig.now)
    for _ in range(3):
        assert rig.take(waited) is None
    assert rig.dropped == {"other_boot": 3}
    assert rig.stored == 0
    boot = rig.ping()[1].boot
    assert boot == LATER_BOOT
    assert rig.announce(rig.own(), boot=boot) is not None
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
def test_a_frame_that_nobody_sends_to_shards_is_dropped_and_counted(rig, kind):
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


# Strays


def test_an_owners_answer_is_whole(rig):
    rig.ping()
    (reply,) = split_replies(rig.announce(rig.own()))
    assert not unpack_reply(reply).is_part
    assert 1620 <= unpack_reply(reply).interval <= 1980


def test_a_strays_answer_is_part_and_asks_to_come_back_soon(rig):
    rig.ping()
    rig.announce(rig.stray(no_reply=True))
    replies = [unpack_reply(reply) for reply in split_replies(rig.announce(*[rig.stray(port=2, want=9)] * 400))]
    assert {reply.own for reply in replies} == {(("192.0.2.1", 6881),)}  # it is kept, and listed
    assert all(reply.is_part for reply in replies)
    intervals = {reply.interval for reply in replies}
    assert 120 <= min(intervals) < max(intervals) <= 300
    assert len(intervals) > 50  # not all at once


def test_a_frame_may_have_both(rig):
    rig.ping()
    replies = split_replies(rig.announce(rig.own(), rig.stray(), rig.own()))
    assert [unpack_reply(reply).is_part for reply in replies] == [False, True, False]
