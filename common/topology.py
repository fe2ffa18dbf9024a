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
    from collections.abc import Iterable

    from common.config import Config


class Topology:
    """The ring of a configuration, and the digests by which processes see that they agree."""

    def __init__(self, config: Config, cluster_key: bytes) -> None:
        self.version = config.version
        self.slices = config.slices
        self.shards = [str(shard.name) for shard in config.shards]
        self.ring = ring_of(config)
        self.table = self.ring.digest()
        self.cluster = cluster_digest(cluster_key)


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
