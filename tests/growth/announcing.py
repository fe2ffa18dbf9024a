"""Who announces while a cluster is changed, what is asked of the answers, and what came of it, in a line of figures.

    with Announcing(rig, 20_000, moved={17, 18}) as seen:
        ...
    seen.tell("a shard is added")
    assert (seen.failed, seen.empty, seen.wrong) == (0, 0, {})

Nine of ten announces are of peers that are known before: no answer may lack one of these, ever. The others are of peers
that come meanwhile: no answer may have what cannot be, and afterwards each that was acknowledged is asked for. And a
torrent in one of the slices of each word that is given is asked for all the time: how long did no answer have peers?
"""

import time
from array import array
from itertools import count

from growth.rig import CLIENTS, NODES, PORT, SLICES

from gateway.siphash import siphash
from loadtests.load.population import Population

ASKED = ("vps1", "vps2")  # gateways that are asked: with a third one two cores have too much to do
STEADY = "steady"
WATCHED = 100  # announces a second
FIRST_SEED = 1_000_000  # of torrents that are watched
HEARD = 10.0  # seconds after which an answer that lacks who was acknowledged is wrong, whatever moves
COLUMNS = ("", "announces a second", "failed", "lost at first", "empty", "p50, p99, longest, ms", "")

told = []  # rows of figures


class Announcing:
    """A load for as long as it is a context; `parts`: what was found."""

    number = 0  # how many there were

    def __init__(self, rig, rate, **watched):
        Announcing.number += 1
        self.number = Announcing.number
        self.rig = rig
        self.rate = rate
        self.watched = {word: self._name(word) for word in watched}
        self.slices = watched
        self.arrived = 0.0
        self.parts = {}
        self.seconds = 0.0
        self.row = []  # of the table

    def __enter__(self):
        load, rate = self.rig.load, self.rate
        coming = part(self._name("coming"), seed=self.number, ports=max(20, rate // 2), strict=False)
        watched = [
            part(name, seed=self._seed_in(self.slices[word]), ports=40, torrents=1)
            for word, name in self.watched.items()
        ]
        load.make([{**each, "most": rate} for each in (coming, *watched)])
        load.fill(list(self.watched.values()))
        load.look()
        self.began = time.monotonic()
        known = 0.9 * rate - WATCHED * len(watched)
        load.pace(**{STEADY: known, coming["name"]: 0.1 * rate, **dict.fromkeys(self.watched.values(), float(WATCHED))})
        return self

    def __exit__(self, failure, *_):
        if failure is not None:
            return
        self.seconds = time.monotonic() - self.began
        self.rig.load.settle()
        self.parts = self.rig.load.look()

    def arrive(self):
        """Let some peers come at once, to be expected later."""
        many = part(self._name("arrived"), seed=-self.number % FIRST_SEED, ports=max(20, self.rate // 40))
        self.rig.load.make([{**many, "most": self.rate}])
        self.rig.load.fill([many["name"]])
        self.arrived = time.monotonic()

    def expect(self):
        """From now on no answer may lack one of those that have arrived."""
        time.sleep(max(0.0, self.arrived + HEARD - time.monotonic()))
        self.rig.load.pace(**{self._name("arrived"): 0.05 * self.rate})

    def _name(self, word):
        return f"{word} {self.number}"

    def _seed_in(self, slices):
        """What makes a torrent in one of these slices."""
        lone = (array("I", [1]), bytes(16), b"\0", 10_000, 1)
        hashes = ((seed, Population(*lone, seed).info_hash(0)) for seed in count(FIRST_SEED * self.number))
        return next(seed for seed, each in hashes if siphash(self.rig.cluster_key, each) & (SLICES - 1) in slices)

    # What was found

    def total(self, name):
        return sum(each[name] for each in self.parts.values())

    @property
    def failed(self):
        """Announces without an answer after all tries."""
        return self.total("failed")

    @property
    def empty(self):
        """Answers that do not even count the asker."""
        return self.total("empty")

    @property
    def wrong(self):
        """Answers that cannot be, by part: of each kind how many, and an example."""
        return {name: (each["wrong"], each["examples"]) for name, each in self.parts.items() if each["wrong"]}

    def without_peers(self, word):
        """The longest time without an answer that has peers, of what is watched by this word."""
        return self.parts[self.watched[word]]["without peers"]

    def tell(self, what, *more):
        """Print what was found, and keep it for the table."""
        answers, steady = self.total("answers"), self.parts[STEADY]
        self.row = [
            what,
            f"{answers / self.seconds:,.0f}",
            f"{self.failed:,}",
            f"{self.total('lost at first'):,}",
            f"{self.empty:,}",
            f"{steady['p50']:.0f}, {steady['p99']:.0f}, {steady['most']:,.0f}",
            "",
        ]
        told.append(self.row)
        named = [f"{name} {figure}".strip() for name, figure in zip(COLUMNS, self.row, strict=True)]
        print(f"\n{answers:,} announces answered | " + " | ".join(named), flush=True)
        self.add(*more, *(f"{word} {self.without_peers(word):.2f} s without peers" for word in self.watched))

    def add(self, *more):
        """The same of what was found later."""
        self.row[-1] = "; ".join([*filter(None, self.row[-1:]), *more])
        for words in more:
            print(words, flush=True)

    def find_all(self, patience):
        """Assert that nobody who was ever acknowledged is lost."""
        began = time.monotonic()
        found = self.rig.until_found(patience)
        took = time.monotonic() - began
        self.add(f"{found['present']:,} peers of {found['torrents']:,} torrents found after {took:.1f} s")


def part(name, torrents=None, ports=40, **more):
    """A part of the load, whose peers are everywhere and ask all gateways that are asked."""
    gates = [[NODES[node], PORT] for node in ASKED]
    sources = [[address, gates[at % len(gates)]] for at, address in enumerate(CLIENTS)]
    return {"name": name, "torrents": torrents or ports // 2, "ports": ports, "sources": sources, **more}


def fill(rig, rate):
    """Let the tracker know those who are there all the time."""
    rig.load.make([{**part(STEADY, seed=0, ports=max(40, rate // 5)), "most": rate}])
    rig.load.fill([STEADY])
