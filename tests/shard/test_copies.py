"""How a slice is filled, kept alike, handed over and dropped: shards joined in memory, with a told clock."""

import pytest
from packing import Section
from shard_rig import FULL, LEAVING, NONE, PART, SLICES, STEP, Joined, peer_of, topology_of

from common import control, frames
from common.control import Hello, pack_header, pack_hello
from shard.copies import BODY, END, Timing
from shard.machine import MOST_DEPARTING

T = Timing()


def all_slices(many=3, torrent=0):
    return [peer_of(slice_id, number, torrent) for slice_id in range(SLICES) for number in range(1, many + 1)]


def holders(cluster, slice_id):
    """Which shards hold something of a slice."""
    return [name for name, shard in cluster.shards.items() if shard.store.held(slice_id)[0]]


@pytest.fixture
def grown():
    """A shard with peers in all slices, and one that was just added."""
    cluster = Joined(1)
    cluster[1].announce(*all_slices())
    cluster.edit(1, 2, version=2)
    return cluster


# Filling


def test_what_a_configuration_wants_is_part_until_all_others_were_asked():
    cluster = Joined(1, 2, 3)
    for shard in cluster.shards.values():
        assert shard.states == [PART if slice_id in shard.wanted else NONE for slice_id in range(SLICES)]
    cluster.run(T.settle - STEP)
    assert all(FULL not in shard.states for shard in cluster.shards.values())
    cluster.run(2 * STEP + 500)  # pongs of the next pings
    for shard in cluster.shards.values():
        assert shard.states == [FULL if slice_id in shard.wanted else NONE for slice_id in range(SLICES)]
    assert not any(kind == frames.PULL for _, _, kind in cluster.sent)


def test_a_shard_alone_is_full_of_everything_and_says_nothing():
    cluster = Joined(1)
    assert cluster[1].states == [FULL] * SLICES
    cluster[1].announce(*all_slices())
    assert not cluster[1].ask(peer_of(3, 9))[0].is_part
    cluster.run(5000)
    cluster.now += 60_000  # it stood still
    cluster[1].tick()
    assert cluster[1].machine.me.life.stalls == 1
    assert cluster[1].states == [FULL] * SLICES
    assert not cluster.sent


def test_a_shard_that_is_added_gets_its_slices_and_the_former_owner_forgets_them(grown):
    moved = grown[2].wanted
    assert 0 < len(moved) < SLICES
    assert grown[1].states == [LEAVING if slice_id in moved else FULL for slice_id in range(SLICES)]
    before = {slice_id: grown[1].peers(slice_id) for slice_id in range(SLICES)}
    assert T.settle <= grown.settle() <= T.settle + 1500
    assert all(grown[2].peers(slice_id) == before[slice_id] for slice_id in moved)
    assert all(grown[1].peers(slice_id) == before[slice_id] for slice_id in range(SLICES))
    took = grown.run_until(lambda: LEAVING not in grown[1].states)
    assert T.quiet - 2000 <= took <= T.quiet + 2 * T.leaving
    grown.run(20 * STEP)
    assert [holders(grown, slice_id) for slice_id in range(SLICES)] == [
        ["shard2" if slice_id in moved else "shard1"] for slice_id in range(SLICES)
    ]
    assert all(grown[2].peers(slice_id) == before[slice_id] for slice_id in moved)
    assert grown[1].copies.counts["dropped"] == len(moved)


def test_a_part_is_not_filled_while_another_shard_is_not_heard():
    cluster = Joined(1, 2)
    cluster.cut_off("shard1", "shard2")
    cluster.run(T.missed - 1000)
    assert FULL not in cluster[1].states
    cluster.run(2000)
    assert cluster[1].states.count(FULL) == len(cluster[1].wanted)


def test_nobody_is_asked_before_gateways_copy_to_the_part(grown):
    """Within a second they do; who is acknowledged until then must not be missed."""
    moved = grown[2].wanted[0]
    grown.run(T.settle - STEP)
    assert grown.pulls("shard2", "shard1") == 0
    grown[1].announce(peer_of(moved, 99))
    grown.settle()
    assert peer_of(moved, 99).address in {host for host, _ in grown[2].peers(moved)[peer_of(moved).info_hash]}


def test_a_pull_that_began_before_a_slice_was_a_part_does_not_fill_it(grown):
    """The slice left, was asked, so it is pulled; meanwhile an edit gives it back."""
    grown.settle()
    moved = grown[2].wanted[0]
    grown[1].ask(peer_of(moved, 1))
    kept = []
    grown[1].copies.take_chunk = lambda *words: kept.append((*words[:2], bytes(words[2]))) or []
    grown.cut_off("shard1", "shard2")
    grown.run(3000)
    grown.cut.clear()
    grown.run_until(lambda: kept)
    grown.run(STEP)
    grown[2].announce(peer_of(moved, 99))  # which the chunk that is on its way lacks
    grown.edit(1, version=3)
    assert grown[1].store.state_of(moved) == PART
    del grown[1].copies.take_chunk
    ((name, number, frame),) = kept
    grown[1].copies.take_chunk(name, number, memoryview(frame), grown.now)
    assert grown[1].copies.slices[moved].ended == {}
    grown.settle()
    assert len(grown[1].peers(moved)[peer_of(moved).info_hash]) == 4


def test_a_pull_that_began_before_gateways_copy_to_the_part_does_not_fill_it(grown):
    """It was wanted before, as the slice left and was asked; when an edit gives it back, its turn has not come yet."""
    grown.settle()
    moved = grown[2].wanted
    grown[1].ask(*(peer_of(slice_id, 1) for slice_id in moved))
    grown.cut_off("shard1", "shard2")
    grown.run(3000)
    grown.cut.clear()
    grown.refuse = lambda source, to, kind: kind == frames.SLICE
    (source,) = grown[1].copies.sources.values()
    grown.run_until(lambda: source.pull is not None)
    grown.run(T.patience - STEP)
    grown.edit(1, version=3)
    grown.refuse = lambda source, to, kind: False
    grown.run(T.settle - STEP)
    late = [peer_of(slice_id, 99) for slice_id in moved]
    assert all(grown[1].copies.slices[slice_id].ended for slice_id in moved)
    grown[2].announce(*late)
    grown.settle()
    assert all(len(grown[1].peers(slice_id)[peer_of(slice_id).info_hash]) == 4 for slice_id in moved)


def test_a_huge_slice_comes_in_chunks_that_fit():
    cluster = Joined(1)
    moved = topology_of(1, 2).ring.slices_of(1)[0]
    huge = [peer_of(moved, number, seeder=number % 3 == 0) for number in range(1, 9001)]
    huge += [peer_of(moved, number, torrent=number % 200 + 1) for number in range(1, 1000)]
    for at in range(0, len(huge), 1000):
        cluster[1].announce(*huge[at : at + 1000])
    cluster.edit(1, 2, version=2)
    cluster.settle()
    assert cluster[2].peers(moved) == cluster[1].peers(moved)
    (source,) = cluster[2].copies.sources.values()
    assert source.chunks >= 4 + len(cluster[2].wanted) - 1
    assert source.bytes > 2.5 * frames.CHUNK
    assert cluster[2].copies.counts["merged"] == len(huge)


def test_a_shard_that_comes_back_with_nothing_is_filled_by_a_replica():
    cluster = Joined(1, 2, replicas=1)
    cluster.settle()
    for shard in cluster.shards.values():
        shard.announce(*all_slices())
    cluster.start("shard1")
    assert cluster[1].states == [PART] * SLICES
    assert cluster[1].ask(peer_of(1, 9))[0].is_part
    cluster.settle()
    assert all(cluster[1].peers(slice_id) == cluster[2].peers(slice_id) for slice_id in range(1, 2))
    assert all(len(cluster[1].peers(slice_id)) == 1 for slice_id in range(SLICES))


def test_who_stood_still_asks_the_others_anew():
    cluster = Joined(1, 2, replicas=1)
    cluster.settle()
    cluster.run(1000)
    newcomer = peer_of(3, 77)
    cluster[2].announce(newcomer)
    cluster.stand_still("shard1", 5000)
    assert cluster[1].machine.me.life.stalls == 1
    assert cluster[1].states == [PART] * SLICES
    cluster.settle()
    assert newcomer.address in {host for host, _ in cluster[1].peers(3)[newcomer.info_hash]}


def test_slices_of_a_snapshot_are_parts_until_others_were_asked():
    cluster = Joined(1, 2)
    cluster.settle()
    mine = set(cluster[1].wanted)
    shard = cluster.start("shard1")
    stray = next(slice_id for slice_id in range(SLICES) if slice_id not in mine)
    info_hash = peer_of(stray).info_hash
    saved = Section(info_hash, 0, frames.PUBLIC4, 0, ((("9.9.9.9", 7), 5, 0),))
    assert shard.store.load(stray, saved.pack(), shard.clock.seconds()) == 1
    shard.copies.restore([stray], cluster.now)
    assert shard.states[stray] == PART
    cluster.settle()
    cluster.run_until(lambda: shard.states[stray] == LEAVING)
    cluster.run_until(lambda: shard.states[stray] == NONE)
    assert cluster[2].peers(stray) == {info_hash: {("9.9.9.9", 7)}}


# Pulling again


def test_copies_learn_from_each_other_soon_after_filling_and_every_five_minutes():
    cluster = Joined(1, 2, replicas=1)
    cluster.settle()
    first, second = peer_of(1, 50), peer_of(1, 51)
    cluster[2].announce(first)
    cluster.run(T.soon + 3000)
    assert cluster[1].peers(1) == cluster[2].peers(1) != {}
    cluster[2].announce(second)
    cluster.run(T.again // 2)
    assert len(cluster[1].peers(1)[first.info_hash]) == 1
    cluster.run(T.again // 2 + 3000)
    assert len(cluster[1].peers(1)[first.info_hash]) == 2


def test_a_dump_that_is_known_is_not_sent_again():
    cluster = Joined(1, 2, replicas=1)
    cluster.settle()
    cluster[2].announce(*all_slices())
    cluster.run(T.soon + 3000)
    (source,) = cluster[1].copies.sources.values()
    counts, length = dict(cluster[1].copies.counts), source.bytes
    cluster.run(T.again + 3000)
    after = cluster[1].copies.counts
    assert after["pulls"] - counts["pulls"] == after["empty"] - counts["empty"] >= SLICES
    assert after["merged"] == counts["merged"]
    assert (source.bytes - length) / (after["pulls"] - counts["pulls"]) < 100
    cluster[2].announce(peer_of(5, 60))
    cluster.run(T.again + 3000)
    assert cluster[1].copies.counts["merged"] == counts["merged"] + 1


def test_who_is_heard_again_is_asked_at_once():
    cluster = Joined(1, 2, replicas=1)
    cluster.settle()
    cluster.run(T.soon + 1000)
    cluster.cut_off("shard1", "shard2")
    cluster.run(5000)
    cluster[2].announce(peer_of(4, 70))
    cluster.cut.clear()
    cluster.run(1500)
    assert cluster[1].peers(4) == cluster[2].peers(4) != {}


@pytest.mark.parametrize("is_asked", [False, True])
def test_who_leaves_pulls_only_if_it_is_asked(grown, is_asked):
    """Some gateways do not know of the new owner yet; others ask that one already."""
    grown.settle()
    moved = grown[2].wanted[0]
    grown.cut.add(("shard1", "shard2"))  # it hears nobody, so it drops nothing
    if is_asked:
        assert len(grown[1].ask(peer_of(moved, 1))[0].own) == 2
    grown.run(5000)
    grown[2].announce(peer_of(moved, 80))
    grown.cut.clear()
    grown.run(1500)
    assert (len(grown[1].peers(moved)[peer_of(moved).info_hash]) == 4) == is_asked


def test_a_slice_that_was_all_of_one_shard_is_pulled_again_once_there_are_others():
    cluster = Joined(1)
    cluster.edit(1, 2, version=2, replicas=1)
    cluster.settle()
    cluster.run(2 * T.soon)
    cluster[2].announce(peer_of(6, 90))  # its copy got lost on the way to the other
    cluster.run(T.again + 3000)
    assert cluster[1].peers(6) == cluster[2].peers(6) != {}


# Chunks that get lost


def test_with_no_chunk_for_two_seconds_a_pull_starts_over(grown):
    lost = []

    def refuse(source, to, kind):
        lost.append(kind == frames.SLICE)
        return kind == frames.SLICE and sum(lost) <= 2

    grown.refuse = refuse
    took = grown.settle()
    assert T.settle + 2 * T.patience <= took <= T.settle + 2 * T.patience + 2000
    (source,) = grown[2].copies.sources.values()
    assert source.restarts == 2
    assert all(grown[1].peers(slice_id) == grown[2].peers(slice_id) for slice_id in grown[2].wanted)


def test_a_chunk_that_comes_after_a_pull_began_anew_is_not_taken(grown):
    kept = []
    take_chunk = grown[2].copies.take_chunk
    grown[2].copies.take_chunk = lambda *words: kept.append((*words[:2], bytes(words[2]))) or []
    grown.run(T.settle + T.patience + 500)
    assert len(kept) == 2
    grown[2].copies.take_chunk = take_chunk
    name, number, frame = kept[0]
    before = dict(grown[2].copies.counts)
    assert grown[2].copies.take_chunk(name, number, memoryview(frame), grown.now) == []
    assert grown[2].copies.counts == before
    assert grown[2].copies.take_chunk(*kept[1][:2], memoryview(kept[1][2]), grown.now)
    assert grown[2].copies.counts["merged"] == before["merged"] + 3


def test_a_pull_is_interrupted_by_silence_and_begins_anew(grown):
    grown.refuse = lambda source, to, kind: kind == frames.SLICE
    grown.run(T.settle + 500)
    (source,) = grown[2].copies.sources.values()
    assert source.pull is not None
    grown.cut_off("shard1", "shard2")
    grown.run(3000)
    assert source.pull is None
    grown.cut.clear()
    grown.refuse = lambda source, to, kind: False
    grown.settle()
    assert all(grown[1].peers(slice_id) == grown[2].peers(slice_id) for slice_id in grown[2].wanted)


def test_a_source_that_began_another_life_is_pulled_from_anew(grown):
    grown.refuse = lambda source, to, kind: kind == frames.SLICE
    grown.run(T.settle + 500)
    grown.refuse = lambda source, to, kind: False
    grown.stand_still("shard1", 3000)
    grown.settle()
    assert all(grown[1].peers(slice_id) == grown[2].peers(slice_id) for slice_id in grown[2].wanted)
    assert grown[1].machine.me.life.stalls == 1


def test_a_source_that_ended_is_asked_anew_as_soon_as_it_is_heard(grown):
    grown.refuse = lambda source, to, kind: kind == frames.SLICE
    grown.run(T.settle + 500)
    grown.refuse = lambda source, to, kind: False
    grown.start("shard1")
    grown.run(750)
    (source,) = grown[2].copies.sources.values()
    assert source.boot == grown[1].machine.me.life.boot
    assert source.chunks > 0
    assert source.restarts == 0  # it did not wait for what was asked of the former life


# Memory


def test_a_pull_that_finds_no_room_is_not_confirmed_and_its_giver_keeps_all(grown):
    moved = topology_of(1, 2, version=2).ring.slices_of(1)
    for at in range(8):
        grown[1].announce(*(peer_of(moved[0], 1000 * at + number) for number in range(1000)))
    grown.start("shard2", memory=430_000)
    grown.run(180_000)
    counts = grown[2].copies.counts
    assert counts["full_memory"] > 5
    assert grown[2].store.state_of(moved[0]) == PART
    assert grown[1].store.state_of(moved[0]) == LEAVING
    assert sum(grown[1].store.held(moved[0])[1:]) >= 8000
    # It is tried again each ten seconds, no more often.
    assert counts["pulls"] < 180_000 / T.soon * len(moved) + 2 * len(moved)


# Dropping


def drops(cluster):
    return cluster[1].copies.counts["dropped"]


@pytest.mark.parametrize(
    "hinder",
    [
        lambda cluster: cluster.cut.add(("shard1", "shard2")),
        lambda cluster: cluster.cut.add(("shard2", "shard1")),
        lambda cluster: cluster.edit(1, 2, version=3, only=["shard1"]),
        lambda cluster: cluster.edit(1, 2, version=3, only=["shard2"]),
        lambda cluster: setattr(cluster[2].machine, "stopping", True),
    ],
    ids=["it hears nobody", "nobody hears it", "it has a later version", "the other has", "the other stops"],
)
def test_nothing_is_dropped_without_all_who_should_have_it(grown, hinder):
    grown.settle()
    hinder(grown)
    grown.run(T.quiet + 60_000)
    assert drops(grown) == 0
    assert all(grown[1].peers(slice_id) for slice_id in grown[2].wanted)


def test_nothing_is_dropped_while_a_member_is_not_full():
    cluster = Joined(1)
    cluster[1].announce(*all_slices())
    cluster.edit(2, 3, version=2, replicas=1)
    cluster.cut_off("shard2", "shard3")  # neither is filled, as it may lack what the other has
    cluster.run(T.quiet + 60_000)
    assert cluster[1].states == [LEAVING] * SLICES
    cluster.cut.clear()
    cluster.run_until(lambda: LEAVING not in cluster[1].states)
    for slice_id in range(SLICES):
        assert len(cluster[2].peers(slice_id)[peer_of(slice_id).info_hash]) == 3
        assert len(cluster[3].peers(slice_id)[peer_of(slice_id).info_hash]) == 3


def test_nothing_is_dropped_for_a_minute_after_a_change(grown):
    moved = grown[2].wanted[0]
    grown.settle()
    for number in range(5):
        grown.run(T.quiet - 15_000)
        grown[1].announce(peer_of(moved, 500 + number))
    assert grown[1].store.state_of(moved) == LEAVING
    assert drops(grown) == len(grown[2].wanted) - 1
    grown.run(T.quiet - 2000)
    assert grown[1].store.state_of(moved) == LEAVING
    grown.run_until(lambda: grown[1].store.state_of(moved) == NONE)
    assert len(grown[2].peers(moved)[peer_of(moved).info_hash]) == 8


def test_a_change_that_was_not_confirmed_keeps_the_copy(grown):
    moved = grown[2].wanted[0]
    grown.settle()
    grown.run(5000)
    grown.refuse = lambda source, to, kind: kind == frames.SLICE  # no pull ends any longer
    grown[1].announce(peer_of(moved, 500))
    grown.run(T.quiet + 60_000)
    assert grown[1].store.state_of(moved) == LEAVING
    grown.refuse = lambda source, to, kind: False
    grown.run_until(lambda: grown[1].store.state_of(moved) == NONE)
    assert len(grown[2].peers(moved)[peer_of(moved).info_hash]) == 4


def test_a_confirmation_of_a_former_life_does_not_count(grown):
    """The puller ends, and comes back with nothing, just before the copy is to be dropped."""
    grown.settle()
    grown.run(T.quiet - 5000)
    assert drops(grown) == 0
    grown.start("shard2")
    grown.cut_off("shard1", "shard2")
    grown.run(1000)
    grown.cut.clear()
    grown.settle()
    assert drops(grown) == 0
    grown.run_until(lambda: LEAVING not in grown[1].states)
    assert all(len(grown[2].peers(slice_id)[peer_of(slice_id).info_hash]) == 3 for slice_id in grown[2].wanted)


def half_dropped():
    """A shard with 12,000 peers in a slice that moved, of which it has dropped some; and the slice."""
    cluster = Joined(1)
    moved = topology_of(1, 2).ring.slices_of(1)[0]
    for at in range(12):
        cluster[1].announce(*(peer_of(moved, 1000 * at + number) for number in range(1, 1001)))
    cluster.edit(1, 2, version=2)
    cluster.settle()
    cluster.run_until(lambda: cluster[1].store.dropped > 0)
    return cluster, moved


def test_a_record_that_comes_while_a_slice_is_dropped_is_handed_over_too():
    cluster, moved = half_dropped()
    left = sum(cluster[1].store.held(moved)[1:])
    assert 0 < left < 12_000
    assert cluster[1].store.state_of(moved) == NONE
    late = peer_of(moved, 65_000)
    (reply,) = cluster[1].ask(late)
    assert reply.is_part
    cluster.run(STEP)
    assert cluster[1].store.state_of(moved) == PART
    assert sum(cluster[1].store.held(moved)[1:]) == left + 1  # nothing more is dropped
    cluster.run_until(lambda: cluster[1].store.state_of(moved) == LEAVING)
    cluster.run_until(lambda: cluster[1].store.state_of(moved) == NONE)
    cluster.run(20 * STEP)
    assert cluster[1].store.held(moved) == (0, 0, 0)
    assert len(cluster[2].peers(moved)[late.info_hash]) == 12_001


def test_a_slice_that_is_wanted_again_while_it_is_dropped_is_filled_again():
    cluster, moved = half_dropped()
    cluster.edit(1, version=3)
    cluster.run_until(lambda: cluster[1].store.state_of(moved) == FULL)
    assert len(cluster[1].peers(moved)[peer_of(moved).info_hash]) == 12_000


def test_memory_comes_back_when_slices_are_dropped(grown):
    before = grown[2].store.bytes_taken()
    grown.settle()
    grown.run_until(lambda: LEAVING not in grown[1].states)
    grown.edit(1, version=3)
    grown.run_until(lambda: not any(grown[2].states))
    grown.run(20 * STEP)
    assert grown[2].store.bytes_taken() == before
    assert all(len(grown[1].peers(slice_id)[peer_of(slice_id).info_hash]) == 3 for slice_id in range(SLICES))


class Confirming:
    """A shard with peers in all slices, and another that is none: what it says is made up."""

    def __init__(self):
        self.cluster = Joined(1)
        self.shard = self.cluster[1]
        self.shard.announce(*all_slices())
        self.cluster.edit(1, 2, version=2)
        del self.cluster.shards["shard2"]
        self.topology = self.cluster.topology
        self.slice_id = self.topology.ring.slices_of(1)[0]
        self.boot = 50
        self.state = FULL

    def hello(self):
        known = self.topology
        agreed = (known.version, known.table, known.cluster, SLICES)
        return Hello(self.boot, 7, *agreed, frames.ROLE_SHARD, False, "shard2")

    def pong(self):
        """Answer a ping."""
        link = self.shard.machine.links["shard2"]
        link.next_ping = 0
        number = link.ping_due(self.cluster.now)
        states = control.pack_states([self.state] * SLICES)
        self.shard.hear("shard2", pack_hello(frames.PONG, number, self.hello()._replace(states=states)))

    def confirm(self, behind=0, life=None):
        """Say that a dump was merged: the present one, or one that is so many changes behind, or of another life."""
        self.shard.take(b"shard2", pack_hello(frames.PING, 1, self.hello()))
        boot = self.shard.machine.me.life.boot
        dump = (boot if life is None else life, self.shard.store.changes_of(self.slice_id) - behind)
        body = BODY.pack(self.slice_id, 0, *dump, END)
        assert self.shard.take(b"shard2", pack_header(frames.PULL, 1, boot, self.cluster.now) + body) is None

    def run(self, milliseconds, confirm=None):
        for at in range(0, milliseconds, STEP):
            self.pong()
            if confirm and at % 5000 == 0:
                confirm()
            self.cluster.run(STEP)

    @property
    def is_dropped(self):
        return self.shard.store.state_of(self.slice_id) == NONE


@pytest.fixture
def confirming():
    return Confirming()


def test_what_is_confirmed_is_dropped(confirming):
    confirming.run(T.quiet + 1000, confirming.confirm)
    assert confirming.is_dropped


@pytest.mark.parametrize("words", [{"behind": 1}, {"behind": -1}, {"life": 0}, {"life": 999}], ids=str)
def test_another_dump_than_the_present_one_is_no_reason_to_drop(confirming, words):
    confirming.run(T.quiet + 10_000, lambda: confirming.confirm(**words))
    assert not confirming.is_dropped
    confirming.confirm()
    confirming.run(1000)
    assert confirming.is_dropped


def test_a_confirmation_counts_for_half_a_minute(confirming):
    confirming.run(T.quiet - T.confirmed - 5000)
    confirming.confirm()
    confirming.run(T.confirmed + 20_000)
    assert not confirming.is_dropped
    confirming.confirm()
    confirming.run(1000)
    assert confirming.is_dropped


def test_a_confirmation_of_another_life_is_no_reason_to_drop(confirming):
    confirming.run(T.quiet - 2000, confirming.confirm)
    confirming.boot = 51
    confirming.run(T.confirmed - 5000)
    assert not confirming.is_dropped
    confirming.confirm()
    confirming.run(1000)
    assert confirming.is_dropped


@pytest.mark.parametrize("state", [NONE, PART, LEAVING])
def test_who_is_not_full_is_no_reason_to_drop(confirming, state):
    confirming.state = state
    confirming.run(T.quiet + 10_000, confirming.confirm)
    assert not confirming.is_dropped
    confirming.state = FULL
    confirming.run(1000, confirming.confirm)
    assert confirming.is_dropped


def test_nothing_is_dropped_if_no_member_was_heard_for_long(confirming):
    confirming.run(5000, confirming.confirm)
    confirming.cluster.run(T.missed + 60_000)
    assert not confirming.is_dropped


# Who departs


def test_a_shard_that_the_file_lacks_hands_over_what_it_holds_then_is_done(grown):
    grown.settle()
    grown.edit(2, version=3)
    assert grown[1].states.count(LEAVING) == SLICES
    assert grown[2].states.count(PART) == SLICES - grown[2].states.count(FULL)
    grown.settle()
    grown.run_until(lambda: not any(grown[1].states))
    assert all(len(grown[2].peers(slice_id)[peer_of(slice_id).info_hash]) == 3 for slice_id in range(SLICES))
    grown.run_until(lambda: grown[1].machine.stops(grown.now))
    grown.run_until(lambda: grown[1].machine.is_done(grown.now))
    del grown.shards["shard1"]
    grown.run_until(lambda: grown[2].machine.me.topology.departing == ())
    assert grown[2].states == [FULL] * SLICES


def test_an_edit_that_is_taken_back_at_once_loses_nobody(grown):
    """What the added shard acknowledged meanwhile comes back before it ends."""
    moved = grown[2].wanted
    grown.settle()
    grown[2].announce(*(peer_of(slice_id, 700) for slice_id in moved))
    grown.edit(1, version=3)
    grown.settle()
    assert all(len(grown[1].peers(slice_id)[peer_of(slice_id).info_hash]) == 4 for slice_id in moved)


# For the operator


def test_an_operator_sees_what_is_on_the_move(grown):
    many = len(grown[2].wanted)
    assert grown[2].copies.totals() == {"full": 0, "part": many, "leaving": 0, "wanted": many}
    assert grown[2].copies.show(grown.now)["fill"] == {"of": many, "left": many, "since_ms": 0}
    assert grown[1].copies.totals() == {"full": SLICES - many, "part": 0, "leaving": many, "wanted": SLICES - many}
    grown.settle()
    shown = grown[2].copies.show(grown.now)
    assert shown["fill"] == {"of": many, "left": 0, "since_ms": shown["fill"]["since_ms"]}
    assert shown["counts"]["pulls"] == shown["counts"]["chunks"] == many
    assert shown["counts"]["merged"] == 3 * many
    ((source),) = shown["sources"]
    assert source == {"shard": "shard1", "waiting": 0, "chunks": many, "bytes": source["bytes"], "restarts": 0}
    assert grown[2].copies.held() == {
        "slice": grown[2].wanted,
        "state": [FULL] * many,
        "torrents": [1] * many,
        "leechers": [3] * many,
        "seeders": [0] * many,
    }


def test_a_slice_is_counted_where_gateways_ask_for_it(grown):
    moved = grown[2].wanted
    assert list(grown[1].copies.answered_here()) == [1] * SLICES
    grown.settle()
    grown.run(1000)  # pongs tell
    assert [at for at, here in enumerate(grown[1].copies.answered_here()) if not here] == moved
    assert [at for at, here in enumerate(grown[2].copies.answered_here()) if here] == moved
    grown.cut_off("shard1", "shard2")
    grown.run(3000)
    assert list(grown[1].copies.answered_here()) == [1] * SLICES


# Strangers with a key of the cluster, and many slices


def test_a_stranger_that_nobody_can_reach_holds_nothing_up():
    cluster = Joined(1, 2)
    for turn in range(8):
        cluster[2].ping(b"stranger", role=frames.ROLE_SHARD, name=f"stranger{turn}")
        cluster.run(1000)
    assert cluster[2].machine.me.topology.departing != ()
    assert cluster.settle() == 0


def test_no_more_strangers_are_listened_to_than_may_depart():
    cluster = Joined(1, 2)
    for number in range(40):
        cluster[2].ping(b"%d" % number, role=frames.ROLE_SHARD, name=f"stranger{number}")
    cluster.run(1000)
    assert len(cluster[2].machine.me.topology.departing) == MOST_DEPARTING


def test_only_a_shard_that_is_linked_to_confirms():
    cluster = Joined(1, 2)
    cluster.settle()
    (slice_id, *_) = cluster[1].wanted
    frame = pull_frame(cluster[1], slice_id, END)
    cluster[1].ping(b"gate", name="gateway1")
    for number in range(100):
        cluster[1].ping(b"stranger", role=frames.ROLE_SHARD, name=f"stranger{number}")
        assert cluster[1].take(b"stranger", frame) is None
    assert len(cluster[1].copies.slices[slice_id].confirmed) <= 1 + MOST_DEPARTING


def pull_frame(shard, slice_id, cursor):
    life = shard.machine.me.life.boot
    head = control.pack_header(frames.PULL, 1, life, shard.cluster.now)
    return head + BODY.pack(slice_id, 0, life, shard.store.changes_of(slice_id), cursor)


def test_many_small_slices_are_dropped_in_a_tick():
    cluster = Joined(1, 2)
    cluster.settle()
    for slice_id in cluster[1].wanted:
        cluster[1].announce(peer_of(slice_id))
    for slice_id in list(cluster[1].copies.slices):
        cluster[1].copies.moving[slice_id] = None
        cluster[1].copies._forget(slice_id)
    cluster[1].copies._drop_some()
    assert sum(map(sum, map(cluster[1].store.held, range(SLICES)))) == 0


def test_a_slice_that_was_a_part_and_then_all_of_one_shard_is_pulled_again():
    """Its turn came while it was a part; then it was alone, and full."""
    cluster = Joined(1, 2)
    cluster.settle()
    shard = cluster[1]
    shard.copies.begin_anew(cluster.now)
    shard.copies._pull_again(cluster.now + T.again + T.soon)
    assert all(entry.due == 0 for entry in shard.copies.slices.values())
    cluster.edit(1, version=2)
    cluster.run(T.missed + 10_000)
    cluster.edit(1, 3, version=3)
    kept = [slice_id for slice_id in shard.wanted if shard.store.state_of(slice_id) == FULL]
    assert kept
    assert all(shard.copies.slices[slice_id].due > 0 for slice_id in kept)


def test_half_of_a_dump_of_another_life_is_not_taken(grown):
    """The giver restarts between two chunks."""
    source = grown[2].copies.sources["shard1"]
    grown.refuse = lambda _, to, kind: to == "shard2" and kind == frames.SLICE
    grown.run_until(lambda: source.pull is not None)
    pull = source.pull
    pull.boot -= 1  # it was begun with a former life
    answer = control.pack_header(frames.SLICE, pull.number, grown[2].machine.me.life.boot, grown.now)
    frame = answer + BODY.pack(pull.slice_id, 0, 1, 1, END)
    assert grown[2].hear("shard1", frame) == []
    assert source.pull is None
    assert pull.slice_id in source.wanted
