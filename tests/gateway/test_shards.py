"""What a gateway knows of its shards, with a told clock and no sockets."""

import pytest
from packing import HEADER

from common import config, control, frames
from common.control import Hello, pack_header, pack_hello
from common.life import TOO_OLD, Life
from common.link_state import SILENT
from common.topology import LINGERS, Self, Topology
from gateway.shards import Shards

SLICES = 64
START = 10_000
BOOT, LATER_BOOT = 500, 501


class Cluster:
    """Shards as a gateway sees them; `now` is told."""

    def __init__(self, many=3, **words):
        self.topology = topology_of(range(1, many + 1), **words)
        boots = iter(range(BOOT, BOOT + 100))
        life = Life(START, lambda: next(boots))
        self.shards = Shards(Self(self.topology, life, frames.ROLE_GATEWAY, "gateway1"))
        self.now = START

    def states_of(self, index):
        """A shard that is full of what it should hold."""
        held = self.topology.ring.held_by(index)
        return control.pack_states([frames.STATE_FULL * (slice_id in held) for slice_id in range(SLICES)])

    def pong(self, index, number, states=None, **changes):
        name = self.topology.shards[index]
        states = self.states_of(index) if states is None else states
        hello = Hello(1, 2, 1, 0, self.topology.cluster, SLICES, frames.ROLE_SHARD, False, name, states=states)
        return pack_hello(frames.PONG, number, hello._replace(**changes))

    def take(self, index, frame):
        return self.shards.take(self.topology.shards[index], memoryview(frame), self.now)

    def hear(self, *indexes, **changes):
        """Ping shards, and take their pongs."""
        for index in indexes:
            link = self.shards.links[index]
            link.next_ping = 0
            assert not self.take(index, self.pong(index, link.ping_due(self.now), **changes))

    def look(self):
        return self.shards.look(self.now)

    def configure(self, *numbers, **words):
        """Take up a configuration with shards of these numbers."""
        self.shards.configure(topology_of(numbers, **words), self.now)
        self.topology = self.shards.me.topology

    def owners(self):
        return [self.topology.ring.owner(slice_id) for slice_id in range(SLICES)]

    def replies(self, boot=BOOT, tick=START, kind=frames.REPLIES):
        return HEADER.pack(frames.VERSION, kind, 0, 1, boot, tick)

    @property
    def table(self):
        return self.shards.table.tolist()

    @property
    def asked(self):
        """Names of who is asked for the slices, None for nobody."""
        names = [*self.topology.shards, None]
        return [names[at] for at in self.table]

    @property
    def copies(self):
        """Names of who gets copies, by slice."""
        first, copies = self.shards.first.tolist(), self.shards.copies.tolist()
        names = self.topology.shards
        return [[names[at] for at in copies[first[each] : first[each + 1]]] for each in range(SLICES)]

    @property
    def dropped(self):
        return {reason: count for reason, count in self.shards.dropped.items() if count}


def topology_of(numbers, **words):
    shards = [{"name": f"shard{number}"} for number in numbers]
    return Topology(config.read({"slices": SLICES, "shards": shards, **words}), bytes(16))


@pytest.fixture
def cluster():
    return Cluster()


def states_of(state):
    return control.pack_states([state] * SLICES)


def looked(cluster):
    """Look, and whether another shard is asked for some slice than before."""
    before = cluster.asked
    return cluster.look(), cluster.asked != before


def test_nobody_is_asked_at_first(cluster):
    assert cluster.table == [3] * SLICES
    assert looked(cluster) == (True, False)
    assert not cluster.look()
    assert cluster.copies == [[]] * SLICES
    assert not cluster.shards.all_heard()


def test_owners_are_asked_once_all_are_heard(cluster):
    cluster.hear(0, 1, 2)
    assert cluster.shards.all_heard()
    assert cluster.look()
    assert cluster.table == cluster.owners()


def test_a_silent_shards_slices_are_asked_of_the_next_in_the_ring(cluster):
    cluster.hear(0, 1, 2)
    cluster.look()
    cluster.now += SILENT
    cluster.hear(0, 2)
    assert not cluster.look()
    cluster.now += 1
    assert cluster.look()
    order = [cluster.topology.ring.order[3 * at : 3 * at + 3] for at in range(SLICES)]
    assert cluster.table == [next(shard for shard in row if shard != 1) for row in order]
    cluster.hear(1)
    assert cluster.look()
    assert cluster.table == cluster.owners()


def test_the_table_is_made_only_when_something_changed(cluster):
    cluster.hear(0, 1, 2)
    assert cluster.look()
    for _ in range(3):
        cluster.now += 500
        cluster.hear(0, 1, 2)
        cluster.shards.table[0] = 3  # it would be mended if the table were made again
        assert not cluster.look()
        assert cluster.table[0] == 3
    cluster.hear(1, states=states_of(frames.STATE_PART))
    assert cluster.look()
    assert cluster.table[0] != 3


def test_other_states_that_change_no_answerer_change_who_gets_copies(cluster):
    cluster.hear(0, 1, 2)
    cluster.look()
    none = [slice_id for slice_id, owner in enumerate(cluster.owners()) if owner != 0]
    states = [frames.STATE_FULL] * SLICES
    for slice_id in none:
        states[slice_id] = frames.STATE_LEAVING
    assert cluster.copies == [[]] * SLICES
    cluster.hear(0, states=control.pack_states(states))
    assert looked(cluster) == (True, False)
    assert cluster.copies == [[]] * SLICES  # who has left needs none while the owner is full
    cluster.hear(1, states=states_of(frames.STATE_PART))
    assert cluster.look()
    for slice_id, owner in enumerate(cluster.owners()):
        wanted = [shard for shard in ("shard1", "shard2") if shard != cluster.asked[slice_id]]
        assert cluster.copies[slice_id] == (wanted if owner == 1 else ["shard2"])


def test_a_shard_that_stops_is_not_asked(cluster):
    cluster.hear(0, 1, 2)
    cluster.look()
    cluster.hear(0, stopping=True)
    assert cluster.look()
    assert 0 not in cluster.table
    assert 3 not in cluster.table


def test_with_all_shards_silent_nobody_is_asked(cluster):
    cluster.hear(0, 1, 2)
    cluster.look()
    cluster.now += SILENT + 1
    assert cluster.look()
    assert cluster.table == [3] * SLICES


def test_a_broken_link_is_not_asked(cluster):
    cluster.hear(0, 1, 2)
    cluster.look()
    cluster.shards.links[2].note_broken()
    assert cluster.look()
    assert 2 not in cluster.table


@pytest.mark.parametrize("changes", [{"cluster": 1}, {"slices": 1, "states": b"\3"}, {"name": "shard9"}])
def test_a_shard_of_another_cluster_is_not_asked(cluster, changes):
    cluster.hear(0, 1)
    cluster.hear(2, **changes)
    cluster.look()
    assert 2 not in cluster.table
    assert not cluster.shards.all_heard()


def test_states_of_a_late_pong_are_not_believed(cluster):
    cluster.hear(0, 1, 2)
    cluster.look()
    number = cluster.shards.links[0].ping_due(cluster.now + 1000)
    cluster.now += 1000 + SILENT + 1
    cluster.take(0, cluster.pong(0, number, states=states_of(frames.STATE_FULL)))
    cluster.hear(0, 1, 2)
    cluster.look()
    assert cluster.table == cluster.owners()


# Copies


def test_replicas_get_copies_of_what_the_owner_is_asked():
    cluster = Cluster(replicas=1)
    cluster.hear(0, 1, 2)
    cluster.look()
    names = cluster.topology.shards
    members = [[names[at] for at in cluster.topology.ring.members_of(slice_id)] for slice_id in range(SLICES)]
    assert [[asked, *copies] for asked, copies in zip(cluster.asked, cluster.copies, strict=True)] == members
    cluster.hear(1, stopping=True)
    cluster.look()
    assert {"shard2"}.isdisjoint(name for names in cluster.copies for name in names)
    assert "shard2" not in cluster.asked


# Configurations


def test_a_shard_that_is_added_is_asked_once_it_is_full(cluster):
    cluster.hear(0, 1, 2)
    cluster.look()
    before = cluster.asked
    cluster.configure(1, 2, 3, 4)
    assert cluster.asked == [None] * SLICES
    cluster.look()
    assert cluster.asked == before  # what the others showed is not forgotten
    assert not cluster.shards.all_heard()
    states = [frames.STATE_PART * (owner == 3) for owner in cluster.owners()]
    cluster.hear(3, states=control.pack_states(states))
    assert looked(cluster) == (True, False)
    assert cluster.copies == [["shard4"] * (owner == 3) for owner in cluster.owners()]
    cluster.hear(3)
    cluster.look()
    assert cluster.asked == [cluster.topology.shards[owner] for owner in cluster.owners()]
    assert cluster.copies == [[name] * (name != asked) for name, asked in zip(before, cluster.asked, strict=True)]
    assert cluster.shards.all_heard()


def test_what_a_link_counted_stays_with_it(cluster):
    cluster.hear(0, 1, 2)
    cluster.look()
    link = cluster.shards.links[2]
    link.note_sent()
    cluster.configure(3, 4)
    cluster.look()
    assert cluster.shards.by_name["shard3"] is link
    assert cluster.shards.unanswered() == 1


def test_a_shard_that_the_file_lacks_is_asked_until_it_holds_nothing(cluster):
    cluster.hear(0, 1, 2)
    cluster.look()
    before = cluster.asked
    cluster.configure(1, 2)
    assert cluster.topology.shards == ["shard1", "shard2", "shard3"]
    cluster.look()
    assert cluster.asked == before
    assert not cluster.shards.departed(cluster.now)
    cluster.hear(0, 1)
    cluster.hear(2, states=bytes(SLICES // 4))
    assert cluster.shards.departed(cluster.now)
    cluster.configure(1, 2)
    assert cluster.topology.shards == ["shard1", "shard2"]
    cluster.look()
    assert cluster.table == cluster.owners()
    assert not cluster.shards.departed(cluster.now)


def test_a_shard_that_the_file_lacks_and_that_is_not_heard_is_given_up(cluster):
    cluster.hear(0, 1, 2)
    cluster.configure(1, 2)
    cluster.now += LINGERS - 1
    assert not cluster.shards.departed(cluster.now)
    cluster.now += 1
    assert cluster.shards.departed(cluster.now)
    cluster.configure(1, 2)
    assert cluster.topology.shards == ["shard1", "shard2"]


def test_a_shard_that_was_never_heard_is_removed_at_once(cluster):
    cluster.hear(0, 1)
    cluster.configure(1, 2)
    assert cluster.topology.shards == ["shard1", "shard2"]
    assert cluster.shards.by_name.keys() == {"shard1", "shard2"}


def test_frames_of_a_shard_that_was_removed_are_not_taken(cluster):
    cluster.hear(0, 1)
    number = cluster.shards.links[2].ping_due(cluster.now)
    pong = cluster.pong(2, number)
    cluster.configure(1, 2)
    assert not cluster.shards.take("shard3", memoryview(cluster.replies()), cluster.now)
    assert cluster.dropped == {"unexpected": 1}
    assert not cluster.shards.take("shard3", memoryview(pong), cluster.now)
    cluster.look()
    assert "shard3" not in cluster.asked


def test_pings_are_those_of_the_configuration(cluster):
    assert [name for name, _ in cluster.shards.tick(cluster.now)] == ["shard1", "shard2", "shard3"]
    assert cluster.shards.tick(cluster.now) == []
    cluster.configure(2, 4, version=7)
    cluster.now += 500
    pings = cluster.shards.tick(cluster.now, b'{"a":1}')
    assert [name for name, _ in pings] == ["shard2", "shard4"]
    hello = control.unpack_hello(memoryview(pings[0][1]))
    assert (hello.version, hello.table, hello.report) == (7, cluster.topology.table, b'{"a":1}')


# Replies


def test_replies_of_this_life_are_taken(cluster):
    cluster.hear(0, 1, 2)
    cluster.look()
    cluster.shards.links[1].note_sent()
    assert cluster.shards.unanswered() == 1
    assert cluster.take(1, cluster.replies())
    assert cluster.shards.unanswered() == 0
    assert cluster.dropped == {}


@pytest.mark.parametrize("boot", [0, BOOT - 1, LATER_BOOT])
def test_replies_for_another_life_are_not_taken(cluster, boot):
    assert not cluster.take(0, cluster.replies(boot=boot))
    assert cluster.dropped == {"other_boot": 1}


def test_replies_over_five_seconds_old_are_not_taken(cluster):
    cluster.now += TOO_OLD
    assert cluster.take(0, cluster.replies())
    cluster.now += 1
    assert not cluster.take(0, cluster.replies())
    assert cluster.dropped == {"too_old": 1}


def test_replies_that_are_not_taken_leave_their_place_in_the_window(cluster):
    cluster.shards.links[0].note_sent()
    cluster.take(0, cluster.replies(boot=0))
    assert cluster.shards.links[0].unanswered == 0


def test_what_a_silent_shard_owes_will_not_be_answered(cluster):
    cluster.hear(0, 1, 2)
    cluster.look()
    cluster.shards.links[1].note_sent()
    cluster.now += SILENT + 1
    cluster.hear(0, 2)
    cluster.look()
    assert cluster.shards.unanswered() == 0


def test_after_a_stall_replies_to_the_former_life_are_not_taken(cluster):
    assert cluster.take(0, cluster.replies())
    cluster.now += 2000
    assert cluster.shards.beat(cluster.now)
    assert not cluster.take(0, cluster.replies())
    assert cluster.take(0, cluster.replies(boot=LATER_BOOT))
    assert cluster.dropped == {"other_boot": 1}


def malformed():
    cluster = Cluster()
    pong = cluster.pong(0, 1)
    yield pytest.param(b"", id="empty")
    yield pytest.param(cluster.replies()[:-1], id="short")
    yield pytest.param(b"\2\0" + cluster.replies()[2:], id="another version")
    yield pytest.param(pong[:-1], id="a pong cut short")
    yield pytest.param(pong + b"\0", id="a pong drawn out")
    yield pytest.param(pack_header(frames.PONG, 1), id="a pong that says nothing")


@pytest.mark.parametrize("frame", list(malformed()))
def test_a_malformed_frame_is_dropped_and_counted(cluster, frame):
    assert not cluster.take(0, frame)
    assert cluster.dropped == {"malformed": 1}


@pytest.mark.parametrize("kind", [0, frames.RECORDS, frames.PING, frames.STATUS, frames.PULL, frames.SLICE, 8, 0xFFFF])
def test_a_frame_that_shards_do_not_send_is_dropped_and_counted(cluster, kind):
    assert not cluster.take(0, cluster.replies(kind=kind))
    assert cluster.dropped == {"unexpected": 1}
