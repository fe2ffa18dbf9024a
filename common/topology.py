"""What a configuration and the cluster's key say of who owns what; the same in every process of the cluster."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from common import frames
from common.control import Hello, pack_hello
from common.keys import cluster_digest
from common.life import Life
from common.link_state import LinkState
from common.ring import ring_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from common.config import Config


LINGERS = 300_000  # ms after which a shard that the file lacks, and that is not heard, is given up


class Topology:
    """The ring of a configuration, and the digests by which processes see that they agree.

    departing: shards that the file lacks and that may still hold something; they own nothing and come last.
    """

    def __init__(self, config: Config, cluster_key: bytes, departing: Sequence[str] = ()) -> None:
        self.config = config
        self.key = cluster_key
        self.version = config.version
        self.slices = config.slices
        self.in_file = frozenset(str(shard.name) for shard in config.shards)
        self.departing = tuple(departing)
        self.shards = [*(str(shard.name) for shard in config.shards), *self.departing]
        ring = ring_of(config)
        self.table = ring.digest()
        self.ring = ring.with_idle(self.departing) if self.departing else ring
        self.cluster = cluster_digest(cluster_key)

    def with_departing(self, names: Iterable[str]) -> Topology:
        """The same, but that these shards depart, as far as the file lacks them."""
        departing = tuple(sorted(set(names) - self.in_file))
        return self if departing == self.departing else Topology(self.config, self.key, departing)


@dataclass
class Self:
    """How a process shows itself in pings and pongs. `topology` is another with each configuration."""

    topology: Topology
    life: Life
    role: int
    name: str

    def hello(self, now: int, report: bytes = b"") -> Hello:
        """What it says of itself in a ping; a pong says more."""
        known = self.topology
        agreed = (known.version, known.table, known.cluster, known.slices)
        return Hello(self.life.boot, now, *agreed, self.role, False, self.name, report=report)


def links_of(topology: Topology, known: dict[str, LinkState], but: str = "") -> dict[str, LinkState]:
    """Links to all shards of a configuration except one; those that are known stay as they are."""
    return {
        name: known.get(name) or LinkState(name, topology.slices, topology.cluster)
        for name in topology.shards
        if name != but
    }


def pings(me: Self, links: Iterable[LinkState], now: int, report: bytes = b"") -> list[tuple[str, bytes]]:
    """The pings that are due, and to which shard."""
    due = [(link.name, number) for link in links if (number := link.ping_due(now)) is not None]
    return [(name, pack_hello(frames.PING, number, me.hello(now, report))) for name, number in due]


def lingers(link: LinkState, now: int) -> bool:
    """Whether a shard that the file lacks is still to be asked: it was heard lately, and showed something."""
    return link.pong is not None and now - link.last_heard < LINGERS and any(link.pong.states)
