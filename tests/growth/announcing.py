"""Who announces while a cluster is changed, what is asked of the answers, and what came of it, in a line.

    with Announcing(rig, 20_000, moved={17, 18}) as seen:
        ...
    seen.tell("a shard is added")
    assert seen.failed == seen.empty == 0 and not seen.wrong

Nine of ten announces are of peers that are known before: their answers must lack nobody, ever. The others are of peers
that come meanwhile: their answers must not have what cannot be, and afterwards each that was acknowledged is asked for.
And a torrent in one of the slices of each word that is given is asked for all the time: how long did no answer have
peers?
"""

import time
from array import array
from itertools import count

from growth.rig import CLIENTS, NODES, PORT, SLICES

from gateway.siphash import siphash
from loadtests.load.population import Population

ASKED = ("vps1", "vps2")  # gateways that are asked; the third is too much for two cores
STEADY = "steady"
WATCHED = 100  # announces a second
FIRST_SEED = 1_000_000  # of torrents that are watched


class Announcing:
    """A load for as long as it is a context; `parts`: what was found."""

    number = 0  # of all that there were

    def __init__(self, rig, rate, **watched):
        Announcing.number += 1
        self.number = Announcing.number
        self.rig = rig
        self.rate = rate
        self.coming = f"coming {self.number}"
        self.watched = {f"{word} {self.number}": slices for word, slices in watched.items()}
        self.parts = {}
        self.seconds = 0.0

    def __enter__(self):
        load, rate = self.rig.load, self.rate
        known = 0.9 * rate - WATCHED * len(self.watched)
        parts = [part(self.coming, seed=self.number, ports=max(20, rate // 2), strict=False)]
        parts += [part(word, seed=self._seed_in(slices), ports=40, torrents=1) for word, slices in self.watched.items()]
        load.make([{**each, "most": rate} for each in parts])
        load.fill(list(self.watched))
        self.began = time.monotonic()
        load.look()
        load.pace(**{STEADY: known, self.coming: 0.1 * rate, **dict.fromkeys(self.watched, WATCHED)})
        return self

    def __exit__(self, failure, *_):
        if failure is None:
            self.stop()

    def stop(self):
        """Announce no longer; what is under way is answered or has failed."""
        self.seconds = time.monotonic() - self.began
        self.rig.load.settle()
        self.parts = self.rig.load.look()

    def _seed_in(self, slices):
        """What makes a torrent in one of these slices."""
        for seed in count(FIRST_SEED * self.number):
            lone = Population(array("I", [1]), bytes(16), b"\0", 10_000, 1, seed)
            if siphash(self.rig.cluster_key, lone.info_hash(0)) & (SLICES - 1) in slices:
                return seed

    # What was found

    def total(self, name):
        return sum(part[name] for part in self.parts.values())

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
        return {name: (part["wrong"], part["examples"]) for name, part in self.parts.items() if part["wrong"]}

    def without_peers(self, word):
        """The longest time without an answer that has peers, of what is watched by this word."""
        return self.parts[f"{word} {self.number}"]["without peers"]

    def tell(self, what, *more):
        """Print a line of figures."""
        answers = self.total("answers")
        steady = self.parts[STEADY]
        words = [
            f"{answers:,} announces answered, {answers / self.seconds:,.0f} a second",
            f"{self.failed} failed",
            f"{self.total('lost at first')} lost at first",
            f"{self.empty} empty",
            f"p50 {steady['p50']:.0f} ms, p99 {steady['p99']:.0f} ms, longest {steady['most']:.0f} ms",
            *(f"{word.split()[0]}: {self.without_peers(word.split()[0]):.2f} s without peers" for word in self.watched),
        ]
        print(f"\n{what}: {'; '.join([*words, *more])}", flush=True)


def part(name, torrents=None, ports=40, **more):
    """A part of the load, whose peers are everywhere and ask both gateways."""
    gates = [[NODES[node], PORT] for node in ASKED]
    sources = [[address, gates[at % len(gates)]] for at, address in enumerate(CLIENTS)]
    return {"name": name, "torrents": torrents or ports // 2, "ports": ports, "sources": sources, **more}


def fill(rig, rate):
    """Let the tracker know those who are there all the time."""
    rig.load.make([{**part(STEADY, seed=0, ports=max(40, rate // 5)), "most": rate}])
    rig.load.fill([STEADY])
