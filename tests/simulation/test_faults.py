"""Each rule that keeps the promises, left out on purpose: a directed schedule that holds with it and fails without.

Random schedules rarely meet these, as timers give others time; so timers here are as short as a schedule needs.
"""

import pytest
from actors import Shard, change_ages
from announcing import PORT
from plans import Plan
from simulated import KEY, SLICES, Cluster

from common import frames
from common.life import Life
from common.link_state import LinkState
from gateway.shards import Shards
from gateway.siphash import siphash
from shard import copies as copies_module
from shard.copies import Copies, Timing

NEVER = 600_000
A, B, C = "shard1", "shard2", "shard3"
G, H = "gateway1", "gateway2"
QUICK = Timing(
    settle=0,
    soon=NEVER,
    again=NEVER,
    leaving=3000,
    asked=NEVER,
    patience=2000,
    missed=20_000,
    quiet=0,
    confirmed=NEVER,
)
TORRENT = 3


class Directed(Cluster):
    """A cluster in which nothing happens but what a test says, and every frame takes 20 ms."""

    def __init__(self, weights, replicas=0, lifetime=399, **timing):
        shape = tuple(weights.items())
        plan = Plan(7, "directed", shape, replicas, (G, H), lifetime, (), 0, shape, replicas)
        super().__init__(plan, QUICK._replace(**timing))
        self.world.delays = (20, 20)

    def until(self, seconds):
        """Let time go by; no promise may be broken."""
        self.world.run(int(1000 * seconds))
        if self.world.violations:
            raise BrokenError(self.world.violations[0])

    def take_up_at(self, seconds, weights, *names, replicas=0):
        """A new file, of which only these processes learn at a time; others have to be told later, by `pass_on`."""
        self.until(seconds)
        self.edit(tuple(weights.items()), replicas, dict.fromkeys([G, H, A, B, C], 10 * NEVER))
        self.pass_on(*names)

    def pass_on(self, *names):
        for name in names:
            self.take_up(name, len(self.versions) - 1)

    def cut_at(self, seconds, *pairs):
        """Nothing passes between these, either way, from then on."""
        self.until(seconds)
        for one, other in pairs:
            self.world.cut(one, other)
            self.world.cut(other, one)

    def heal_at(self, seconds, *pairs):
        self.until(seconds)
        for one, other in pairs:
            self.world.heal(one, other)
            self.world.heal(other, one)

    def announce_at(self, seconds, gateway, number, **what):
        self.until(seconds)
        self.clients.announce(gateway, TORRENT, number, **what)

    @property
    def slice_id(self):
        return siphash(KEY, self.clients.torrents[TORRENT]) & (SLICES - 1)

    def state(self, name):
        return self.world.processes[name].store.state_of(self.slice_id)

    def has(self, name, number):
        """Whether a shard has a peer of the torrent."""
        return (self.clients.torrents[TORRENT], self.source(number)) in self.world.processes[name].peers_of(
            self.slice_id
        )

    def source(self, number):
        return f"11.{TORRENT}.{number}.1", PORT

    def acknowledged(self, number):
        return self.clients.peers[TORRENT][number].acknowledged >= 0

    def demand(self, promise, fact):
        if not fact:
            raise BrokenError(promise)


class BrokenError(Exception):
    """A promise was not kept."""


class Wrapped:
    """A store of which some doors are others."""

    def __init__(self, store, **doors):
        self.store = store
        self.doors = doors

    def __getattr__(self, name):
        return self.doors.get(name) or getattr(self.store, name)


def wrap_stores(monkeypatch, make_doors):
    """Let copies work on wrapped stores. make_doors: is given the shard."""
    original = Shard.__init__

    def begin(self, *arguments, **named):
        original(self, *arguments, **named)
        self.machine.copies.store = Wrapped(self.worker.store, **make_doors(self))

    monkeypatch.setattr(Shard, "__init__", begin)


# The schedules: each ends well unless its rule is left out


def unconfirmed():
    """A copy that left hears of a peer whom the owner has not pulled."""
    cluster = Directed({A: 1, B: 0, C: 0}, quiet=5000, leaving=30_000)
    cluster.announce_at(2, G, 1)
    cluster.take_up_at(4, {A: 0, B: 1, C: 0}, A, B, C, G, H)
    cluster.cut_at(6, (G, B))
    cluster.announce_at(8.7, G, 2)  # B is silent for this gateway: A is asked
    cluster.heal_at(10, (G, B))
    cluster.until(60)
    cluster.demand("acknowledged", cluster.acknowledged(2))
    cluster.demand("what left is dropped", cluster.state(A) == frames.STATE_NONE)
    cluster.demand("no acknowledged peer is lost", cluster.has(B, 2))


def plant_unconfirmed(monkeypatch):
    original = Copies._has_confirmed

    def _has_confirmed(self, source, entry, changes, now):
        entry.confirmed[source.name] = (source.link.boot, changes, now)
        return original(self, source, entry, changes, now)

    monkeypatch.setattr(Copies, "_has_confirmed", _has_confirmed)


def other_config():
    """Two edits cross: each of two shards takes the other for the owner, as it was when it last ponged."""
    cluster = Directed({A: 1, B: 0, C: 0}, again=1500, soon=1500)
    cluster.announce_at(2, G, 1)
    cluster.take_up_at(4, {A: 0, B: 1, C: 0}, B, C, G, H)  # A has the old file
    cluster.until(10)
    cluster.demand("both are full", cluster.state(A) == cluster.state(B) == frames.STATE_FULL)
    number = len(cluster.versions) - 1
    cluster.edit(((A, 1), (B, 0), (C, 0)), 0, dict.fromkeys([G, H, A, B, C], NEVER))
    cluster.take_up(B, number + 1)
    cluster.take_up(A, number)
    cluster.until(14)
    cluster.pass_on(A, C, G, H)
    cluster.until(30)
    cluster.demand("no acknowledged peer is lost", cluster.has(A, 1))


def plant_other_config(monkeypatch):
    def _has_confirmed(self, source, entry, changes, now):
        pong = source.link.pong
        self.topology.version, self.topology.table = pong.version, pong.table
        return original(self, source, entry, changes, now)

    original = Copies._has_confirmed
    monkeypatch.setattr(Copies, "_has_confirmed", _has_confirmed)


def merged():
    """A copy learns of a peer by a pull, after it was confirmed to who comes next."""
    cluster = Directed({C: 1, A: 0, B: 0}, quiet=6000, leaving=3000, missed=NEVER)
    cluster.announce_at(2, G, 1)
    cluster.take_up_at(4, {C: 0, A: 1, B: 0}, A, C, G, H)
    cluster.take_up_at(5, {C: 0, A: 0, B: 1}, B)
    cluster.cut_at(6.6, (B, C), (G, A), (G, B))
    cluster.announce_at(8.8, G, 2)  # only C is heard, which leaves
    cluster.until(18)
    cluster.demand("acknowledged", cluster.acknowledged(2))
    cluster.demand("A has it by a pull", cluster.has(A, 2))
    cluster.demand("C dropped it", cluster.state(C) == frames.STATE_NONE)
    cluster.heal_at(18, (B, C), (G, A), (G, B))
    cluster.pass_on(A, C, G, H)
    cluster.until(45)
    cluster.demand("no acknowledged peer is lost", cluster.has(B, 2))


def plant_merged(monkeypatch):
    def doors(shard):
        store = shard.worker.store
        merged = [0] * SLICES

        def load(slice_id, chunk, now):
            before = store.changes_of(slice_id)
            try:
                return store.load(slice_id, chunk, now)
            finally:
                merged[slice_id] += store.changes_of(slice_id) - before

        return {"load": load, "changes_of": lambda slice_id: store.changes_of(slice_id) - merged[slice_id]}

    wrap_stores(monkeypatch, doors)


def former_pull():
    """A replica stands still; meanwhile a peer announces. What it pulled before says nothing of that peer."""
    cluster = Directed({A: 1, B: 1, C: 1}, replicas=1, soon=1000)
    owner, replica = ring_of_torrent(cluster)
    cluster.announce_at(2, G, 1)
    cluster.until(5)
    cluster.world.processes[replica].pause()
    cluster.announce_at(8, G, 2)
    cluster.until(9)
    cluster.world.slow[owner, replica] += 1000  # so that it takes a while to learn of it
    cluster.world.processes[replica].resume()
    watch_full(cluster, replica, 2, 20)


def plant_former_pull(monkeypatch):
    def begin_anew(self, now):
        self.since = 0

    monkeypatch.setattr(copies_module.Slice, "begin_anew", begin_anew)


def restarted():
    """A shard restarts empty while another has kept what was announced meanwhile."""
    cluster = Directed({A: 1, B: 1, C: 1})
    owner = ring_of_torrent(cluster)[0]
    cluster.until(3)
    cluster.crash(owner, 4000, False)
    cluster.announce_at(6, G, 2)
    cluster.until(6.9)
    cluster.demand("acknowledged", cluster.acknowledged(2))
    watch_full(cluster, owner, 2, 20)


def plant_restarted(monkeypatch):
    original = Copies.configure

    def configure(self, links, now):
        is_first = not self.sources
        original(self, links, now)
        for slice_id in [slice_id for slice_id in self.slices if is_first and self.wanted[slice_id]]:
            self._enter(slice_id, frames.STATE_FULL, now)

    monkeypatch.setattr(Copies, "configure", configure)


def unheard():
    """Who takes a slice over does not hear who has it; gateways hear both."""
    cluster = Directed({A: 1, B: 0, C: 0})
    cluster.announce_at(2, G, 1)
    cluster.cut_at(3, (A, B))
    cluster.take_up_at(6, {A: 0, B: 1, C: 0}, A, B, C, G, H)
    watch_full(cluster, B, 1, 15)
    cluster.heal_at(15, (A, B))
    cluster.until(40)
    cluster.demand("it fills in the end", cluster.state(B) == frames.STATE_FULL and cluster.has(B, 1))


def plant_unheard(monkeypatch):
    original = Copies._has_given
    monkeypatch.setattr(
        Copies,
        "_has_given",
        lambda self, source, entry, ready, now: not source.was_heard or original(self, source, entry, ready, now),
    )


def other_boot():
    """A shard stands still, and what was sent to its former life comes late: an old stop, after a new announce."""
    cluster = Directed({A: 1, B: 0, C: 0})
    cluster.announce_at(2, H, 1)
    cluster.until(3)
    cluster.world.slow[G, A] += 4000
    cluster.clients.announce(G, TORRENT, 1, stop=True)
    cluster.world.slow[G, A] -= 4000
    cluster.until(3.2)
    cluster.world.processes[A].pause()
    cluster.until(5.5)
    cluster.world.processes[A].resume()
    announce_again(cluster, 6.3, H, 1)
    cluster.until(6.9)
    cluster.demand("acknowledged", cluster.has(A, 1))
    cluster.until(9)
    cluster.demand("no acknowledged peer is lost", cluster.has(A, 1))


def plant_other_boot(monkeypatch):
    original = Life.refuses
    monkeypatch.setattr(Life, "refuses", lambda self, _, tick, now: original(self, self.boot, tick, now))


def too_old():
    """A way stands still for over 5 s, then gives what it held: an old stop, after a new announce."""
    cluster = Directed({A: 1, B: 0, C: 0})
    cluster.announce_at(2, H, 1)
    cluster.until(3)
    cluster.world.cut(G, A)
    cluster.clients.announce(G, TORRENT, 1, stop=True)
    announce_again(cluster, 5, H, 1)
    cluster.until(9)
    cluster.world.heal(G, A)
    cluster.until(12)
    cluster.demand("no acknowledged peer is lost", cluster.has(A, 1))


def plant_too_old(monkeypatch):
    original = Life.refuses
    monkeypatch.setattr(Life, "refuses", lambda self, boot, _, now: original(self, boot, now, now))


def late_pong():
    """Every frame to and from the owner takes 3 s: it answers, but none who waits."""
    cluster = Directed({A: 1, B: 1, C: 1}, replicas=1)
    owner = ring_of_torrent(cluster)[0]
    cluster.until(4)
    cluster.world.slow[G, owner] += 3000
    cluster.world.slow[owner, G] += 3000
    cluster.announce_at(11, G, 2)
    cluster.until(16)
    cluster.demand("who hears a shard gets an answer", cluster.acknowledged(2))


def plant_late_pong(monkeypatch):
    original = LinkState.take_pong

    def take_pong(self, number, hello, now):
        if number not in self.pings:
            self.pings[number] = (now, self.sent)
        self.pings[number] = (now, self.pings[number][1])
        return original(self, number, hello, now)

    original_due = LinkState.ping_due

    def ping_due(self, now):
        kept = dict(self.pings)
        number = original_due(self, now)
        self.pings = {**kept, **self.pings}
        return number

    monkeypatch.setattr(LinkState, "take_pong", take_pong)
    monkeypatch.setattr(LinkState, "ping_due", ping_due)


def window():
    """More replies are lost with connections than the window has room for."""
    cluster = Directed({A: 1, B: 0, C: 0})
    for turn in range(4):
        cluster.until(3 + 2 * turn)
        for number in range(20):
            cluster.clients.announce(G, TORRENT, number % 8, seeder=number % 2 == 0)
        cluster.until(3.03 + 2 * turn)
        cluster.world.reset(G, A)
    cluster.announce_at(20, G, 7)
    before = cluster.clients.peers[TORRENT][7].acknowledged
    cluster.until(25)
    cluster.demand("who hears a shard gets an answer", cluster.clients.peers[TORRENT][7].acknowledged > before)


def plant_window(monkeypatch):
    original = LinkState.take_pong

    def take_pong(self, number, hello, now):
        unanswered = self.unanswered
        counts = original(self, number, hello, now)
        self.unanswered = unanswered
        return counts

    monkeypatch.setattr(LinkState, "take_pong", take_pong)


def rounded_down():
    """Two copies pull from each other again and again; a peer that is gone must expire at both."""
    cluster = Directed({A: 1, B: 1, C: 1}, replicas=1, lifetime=60, soon=300, again=300)
    cluster.announce_at(2, G, 1)
    for second in range(3, 69):
        cluster.announce_at(second, G, 3)  # so that there is something to pull
    cluster.announce_at(69, G, 2)
    cluster.until(71)


def plant_rounded_down(monkeypatch):
    wrap_stores(
        monkeypatch, lambda shard: {"dump": lambda *rest: dump_otherwise(shard, lambda age: max(0, age - 2), *rest)}
    )


def times_on_the_wire():
    """Clocks of machines are hours apart; a slice moves."""
    cluster = Directed({A: 1, B: 0, C: 0})
    cluster.skews |= {A: 3 * 3_600_000, B: 0}
    cluster.announce_at(2, G, 1)
    cluster.take_up_at(4, {A: 0, B: 1, C: 0}, A, B, C, G, H)
    cluster.until(30)
    cluster.demand("what left is dropped", cluster.state(A) == frames.STATE_NONE)
    cluster.demand("no acknowledged peer is lost", cluster.has(B, 1))


def plant_times_on_the_wire(monkeypatch):
    def doors(shard):
        def now_of():
            return shard.local // 1000

        def load(slice_id, chunk, now):
            return shard.worker.store.load(slice_id, change_ages(bytes(chunk), lambda then: now_of() - then), now)

        def dump(*rest):
            return dump_otherwise(shard, lambda age: now_of() - age, *rest)

        return {"dump": dump, "load": load}

    wrap_stores(monkeypatch, doors)


def tie():
    """A peer announces as leecher where one copy hears it, a second later as seeder where the other does."""
    cluster = Directed({A: 1, B: 1, C: 1}, replicas=1, again=3000, soon=3000)
    cluster.skews |= dict.fromkeys((A, B, C), 0)
    owner, replica = ring_of_torrent(cluster)
    cluster.cut_at(4, (G, owner), (H, replica))
    cluster.announce_at(8.45, G, 1)
    cluster.announce_at(9.45, H, 1, seeder=True)
    cluster.heal_at(10, (G, owner), (H, replica))
    cluster.until(20)
    counts = [cluster.world.processes[name].store.held(cluster.slice_id)[1:] for name in (owner, replica)]
    cluster.demand("the copies agree on every acknowledged peer", counts == [(0, 1), (0, 1)])


def plant_tie(monkeypatch):
    """At equal age nothing changes: as if the dump said one second more."""
    wrap_stores(monkeypatch, lambda shard: {"dump": lambda *rest: dump_otherwise(shard, lambda age: age + 1, *rest)})


def routed():
    """A shard takes a slice over; while it fills, announces go where the peers are."""
    cluster = Directed({A: 1, B: 0, C: 0}, settle=4000)
    for number in range(4):
        cluster.announce_at(6, G, number)
    cluster.take_up_at(8, {A: 0, B: 1, C: 0}, A, B, C, G, H)
    cluster.until(9)
    answers = []
    original = cluster.clients.check_whole
    cluster.clients.check_whole = lambda sent, answer: (answers.append(answer), original(sent, answer))
    cluster.announce_at(10, G, 5)
    cluster.until(11)
    cluster.demand("who hears a full copy is told all peers", answers and len(answers[0].peers) == 4)


def plant_routed(monkeypatch):
    original = Shards.look

    def look(self, now):
        made = original(self, now)
        for slice_id in range(SLICES):
            heard = [at for at in self.me.topology.ring.row(slice_id) if self.usable[at]]
            self.table[slice_id] = heard[0] if heard else self.nobody
        return made

    monkeypatch.setattr(Shards, "look", look)


def older_file():
    """A shard is added; a node that still has the old file does not know it, and asks the owner of before."""
    cluster = Directed({A: 1, C: 0})
    cluster.announce_at(2, G, 1)
    cluster.take_up_at(4, {A: 0, C: 0, B: 1}, B, G)
    cluster.announce_at(9, H, 2)
    cluster.until(19)
    cluster.demand("acknowledged", cluster.acknowledged(2))
    cluster.demand("the new shard is full", cluster.state(B) == frames.STATE_FULL)
    cluster.demand("a full answer lacks no peer", cluster.has(B, 2))
    cluster.pass_on(A, C, H)
    cluster.until(40)
    cluster.demand("what left is dropped", cluster.state(A) == frames.STATE_NONE)


def plant_older_file(monkeypatch):
    monkeypatch.setattr(
        Copies, "_may_know_more", lambda _, source, slice_id: source.state_of(slice_id) == frames.STATE_LEAVING
    )


def heard_again():
    """Two copies hear each other again before a gateway hears both."""
    cluster = Directed({A: 1, B: 1, C: 1}, replicas=1, soon=6000)
    owner, replica = ring_of_torrent(cluster)
    cluster.announce_at(2, G, 1)
    cluster.cut_at(10, (owner, replica), (G, owner))
    cluster.heal_at(14, (owner, replica))
    cluster.announce_at(16, G, 2)  # the replica alone hears it
    cluster.heal_at(18, (G, owner))
    cluster.until(28)
    cluster.demand("acknowledged", cluster.acknowledged(2))
    cluster.demand("a full answer lacks no peer", cluster.has(owner, 2))


def plant_heard_again(monkeypatch):
    """Nothing but the pull at once."""
    original = Copies._look_at

    def _look_at(self, source, now):
        due = {slice_id: entry.due for slice_id, entry in self.slices.items()}
        original(self, source, now)
        for slice_id, entry in self.slices.items():
            entry.due = due.get(slice_id, entry.due)

    monkeypatch.setattr(Copies, "_look_at", _look_at)


# What schedules share


def ring_of_torrent(cluster):
    """The shards in the order of the torrent's slice that should hold it."""
    topology = cluster.versions[-1]
    return [topology.shards[at] for at in topology.ring.members_of(cluster.slice_id)]


def watch_full(cluster, name, number, until):
    """While a shard shows that it is full, it has a peer."""
    while cluster.world.now < 1000 * until:
        cluster.until(cluster.world.now / 1000 + 0.02)
        if name in cluster.world.processes and cluster.state(name) == frames.STATE_FULL:
            cluster.demand("a full answer lacks no peer", cluster.has(name, number))


def announce_again(cluster, seconds, gateway, number):
    """A peer that had stopped begins anew."""
    cluster.until(seconds)
    cluster.clients.peers[TORRENT][number].stopped = False
    cluster.clients.announce(gateway, TORRENT, number)


def dump_otherwise(shard, change, slice_id, cursor, out, now):
    """A dump in whose chunk ages are others."""
    length = shard.worker.store.dump(slice_id, cursor, out, now)
    out[:length] = change_ages(bytes(out[:length]), change)
    return length


FAULTS = {
    "dropped unconfirmed": (unconfirmed, plant_unconfirmed),
    "dropped on another configuration": (other_config, plant_other_config),
    "merges are no changes": (merged, plant_merged),
    "a pull begun before counts": (former_pull, plant_former_pull),
    "full at restart": (restarted, plant_restarted),
    "full with a copy unheard": (unheard, plant_unheard),
    "a frame for another boot is taken": (other_boot, plant_other_boot),
    "a frame that is too old is taken": (too_old, plant_too_old),
    "a late pong is believed": (late_pong, plant_late_pong),
    "the window is not corrected": (window, plant_window),
    "ages are rounded down": (rounded_down, plant_rounded_down),
    "times are on the wire": (times_on_the_wire, plant_times_on_the_wire),
    "a tie has no winner": (tie, plant_tie),
    "routed by the ring": (routed, plant_routed),
    "who has another table is not pulled from": (older_file, plant_older_file),
    "who is heard again is pulled from but once": (heard_again, plant_heard_again),
}


@pytest.mark.parametrize("name", FAULTS)
def test_the_schedule_ends_well(name):
    FAULTS[name][0]()


@pytest.mark.parametrize("name", FAULTS)
def test_the_planted_fault_is_caught(name, monkeypatch):
    schedule, plant = FAULTS[name]
    plant(monkeypatch)
    with pytest.raises(BrokenError) as caught:
        schedule()
    print(f"{name}: {caught.value}")
