"""Plans: what happens in a simulated cluster, and when. Random ones by a seed; a failing one can be made smaller.

Three kinds, by what is promised. calm: no shard dies, so nobody who was acknowledged may be lost, whatever links,
pauses, files and clocks do. crash: shards die, so who was acknowledged before the last one may be gone; all else holds.
replica: with one replica a shard dies after a time of rest: nobody may be lost.
"""

from dataclasses import dataclass, field, replace
from random import Random

from simulated import PEERS, REST, TORRENTS, Cluster

KINDS = ("calm",) * 6 + ("crash",) * 2 + ("replica",) * 2
FAULTS = ("cut", "cut", "reset", "slow", "pause", "pause", "stop", "gateway", "burst")
FIRST, LAST = 3000, 14_000  # ms: when faults begin
SPREAD = 6000  # ms in which an edit reaches all
EARLY = 7000  # until when they begin if another follows after a rest
LONGEST = 8000  # ms that a fault lasts
NAMES = tuple(f"shard{number}" for number in range(1, 6))
SHORT_LIFE = 60  # seconds


@dataclass(frozen=True)
class Plan:
    """weights: of the first file. events: (ms, method of Cluster, arguments...). end: ms."""

    seed: int
    kind: str
    weights: tuple
    replicas: int
    gateways: tuple
    lifetime: int
    events: tuple
    end: int
    final_weights: tuple = ()
    final_replicas: int = 0


@dataclass
class Draft:
    """A plan in the making."""

    random: Random
    weights: tuple
    replicas: int
    gateways: tuple
    events: list = field(default_factory=list)

    def at(self, low, high):
        return self.random.randint(low, high)

    def shard(self):
        return self.random.choice(self.weights)[0]

    def anyone(self):
        return self.random.choice([*self.gateways, *(name for name, _ in self.weights)])

    def between(self):
        """A link: who connects, and the shard."""
        shard = self.shard()
        others = [name for name in [*self.gateways, *(name for name, _ in self.weights)] if name != shard]
        return self.random.choice(others), shard

    def add(self, when, name, *arguments):
        self.events.append((when, name, *arguments))


def draw(seed):
    """The plan of a seed: three shards and two gateways at least, 50 announces, two faults, one edit."""
    random = Random(seed)
    kind = random.choice(KINDS)
    shards = random.choice((3, 3, 4))
    weights = tuple((f"shard{number}", 1) for number in range(1, shards + 1))
    replicas = 1 if kind == "replica" else random.choice((0, 0, 1))
    gateways = ("gateway1", "gateway2", "gateway3")[: random.choice((2, 2, 3))]
    draft = Draft(random, weights, replicas, gateways)
    last = {"calm": draw_calm, "crash": draw_crash, "replica": draw_replica}[kind](draft)
    rest = last + SPREAD + LONGEST + REST
    end = rest + 3000
    draw_announces(draft, last, rest, end)
    if random.random() < 0.15:
        draft.add(rest, "edit_away", arrivals(draft, SPREAD))
        end = rest + SPREAD + REST + 3000
    lifetime = SHORT_LIFE if random.random() < 0.1 else 399
    final = draft.weights, draft.replicas
    events = tuple(sorted(draft.events, key=lambda event: event[0]))
    return Plan(seed, kind, weights, replicas, gateways, lifetime, events, end, *final)


def draw_calm(draft):
    """Faults without a shard's death, and edits, in any order."""
    random = draft.random
    start = FIRST
    if random.random() < 0.3:  # first an edit without any fault
        draw_edits(draft, FIRST, FIRST + 3000)
        start += 5000
    for _ in range(random.randint(2, 6)):
        draw_fault(draft, start, LAST)
    draw_edits(draft, start, LAST)
    return LAST


def draw_crash(draft):
    """Also shards that die."""
    random = draft.random
    for _ in range(random.randint(1, 3)):
        draw_fault(draft, FIRST, LAST)
    for _ in range(random.randint(1, 2)):
        name = draft.shard()
        when = draft.at(FIRST + 3000, LAST)
        draft.add(draft.at(FIRST, when), "save", name)
        draft.add(when, "crash", name, draft.at(200, LONGEST), random.random() < 0.6)
    draw_edits(draft, FIRST, LAST)
    return LAST


def draw_replica(draft):
    """Faults and an edit, then rest, then one shard dies; it comes back with an old snapshot, or nothing."""
    random = draft.random
    for _ in range(random.randint(1, 3)):
        draw_fault(draft, FIRST, EARLY)
    draw_edits(draft, FIRST, EARLY, replicas=1)
    name = draft.shard()
    crash = EARLY + SPREAD + LONGEST + REST + draft.at(0, 3000)
    draft.add(draft.at(EARLY, crash), "save", name)
    for number in range(12):
        draw_announce(draft, crash - 8000 + 700 * number, seldom=number)
    draft.add(crash, "crash", name, draft.at(200, LONGEST), random.random() < 0.5, False)
    return crash


def draw_fault(draft, low, high):
    """One fault other than a shard's death."""
    random = draft.random
    when = draft.at(low, high)
    name = random.choice(FAULTS)
    if name == "cut":
        draft.add(
            when, "cut", *draft.between()[:: random.choice((1, -1))], draft.at(300, LONGEST), random.random() < 0.5
        )
    elif name == "reset":
        draft.add(when, "reset", *draft.between())
    elif name == "slow":
        draft.add(when, "slow", *draft.between()[:: random.choice((1, -1))], draft.at(300, 6500), draft.at(500, 5000))
    elif name == "pause":
        draft.add(when, "pause", draft.anyone(), draft.at(300, 7000))
    elif name == "stop":
        draft.add(when, "stop", draft.shard(), draft.at(100, 5000))
    elif name == "gateway":
        draft.add(when, "crash", random.choice(draft.gateways), draft.at(100, 3000), False)
    else:
        gateway = random.choice(draft.gateways)
        draft.add(when, "pause", draft.shard(), draft.at(800, 1900))
        draft.add(when + 100, "burst", gateway, random.randrange(TORRENTS), 90)


def draw_edits(draft, low, high, replicas=None):
    """One to three edits, one after the other."""
    random = draft.random
    when = draft.at(low, high)
    for _ in range(random.choice((1, 1, 2, 3))):
        former = draft.weights, draft.replicas
        draft.weights, draft.replicas = draw_shape(draft, replicas)
        draft.add(when, "edit", draft.weights, draft.replicas, arrivals(draft, draft.at(0, SPREAD)))
        if random.random() < 0.25:  # taken back, perhaps before it has reached all
            draft.weights, draft.replicas = former
            when += draft.at(100, 4000)
            draft.add(when, "edit", *former, arrivals(draft, draft.at(0, SPREAD)), True)
        when += draft.at(200, 6000)


def draw_shape(draft, replicas):
    """Another topology: a shard more, another weight, none, or another number of replicas."""
    random = draft.random
    weights = dict(draft.weights)
    what = random.choice(("add", "add", "weight", "drain", "drain", "remove", "replicas"))
    if what == "add" and len(weights) < 5:
        name = next(name for name in NAMES if name not in weights)
        weights[name] = random.choice((0.5, 1, 2))
    elif what == "drain" and sum(weight > 0 for weight in weights.values()) > 2:
        weights[random.choice([name for name, weight in weights.items() if weight > 0])] = 0
    elif what == "remove" and sum(weight > 0 for weight in weights.values()) > 2:
        del weights[random.choice([name for name, weight in weights.items() if weight > 0])]
    elif what == "replicas" and replicas is None:
        return draft.weights, 1 - draft.replicas
    else:
        weights[random.choice(list(weights))] = random.choice((0.5, 1, 2))
    return tuple(weights.items()), draft.replicas


def arrivals(draft, spread):
    """When an edit reaches each process: ms."""
    names = [*draft.gateways, *NAMES]
    return {name: draft.random.randint(0, spread) for name in names}


def draw_announces(draft, last, rest, end):
    """Announces all the time, most while there are faults; half of the peers announce but once."""
    for number in range(50):
        draw_announce(draft, draft.at(1500, last + 4000), seldom=number)
    for number in range(12):
        draw_announce(draft, draft.at(last, end - 2000), seldom=number)
    for number in range(6):
        draw_announce(draft, draft.at(rest + 500, end - 2000), seldom=number)


def draw_announce(draft, when, seldom):
    random = draft.random
    number = random.randrange(PEERS)
    stop = seldom % 16 == 7
    draft.add(
        when, "announce", random.choice(draft.gateways), random.randrange(TORRENTS), number, seldom % 3 == 2, stop
    )


def run(plan):
    """Live through a plan: the cluster, and what was broken."""
    cluster = Cluster(plan)
    return cluster, cluster.run()


def shrink(plan, fails):
    """A plan that fails too, with as few events as can be found by leaving out one after the other."""
    step = max(1, len(plan.events) // 2)
    while step:
        at = 0
        while at < len(plan.events):
            smaller = replace(plan, events=plan.events[:at] + plan.events[at + step :])
            if fails(smaller):
                plan = smaller
            else:
                at += step
        step //= 2
    return plan
