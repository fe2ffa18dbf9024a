"""What a configuration and the cluster's key say of who owns what; the same in every process of the cluster."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from common import frames
from common.control import Hello, pack_states
from common.keys import cluster_digest
from common.life import Life
from common.ring import Ring

if TYPE_CHECKING:
    from common.config import Config


class Topology:
    """The ring of a configuration, and the digests by which processes see that they agree."""

    def __init__(self, config: Config, cluster_key: bytes) -> None:
        self.version = config.version
        self.slices = config.slices
        self.shards = [str(shard.name) for shard in config.shards]
        self.ring = Ring([(shard.name, shard.weight) for shard in config.shards], config.slices)
        self.table = self.ring.digest()
        self.cluster = cluster_digest(cluster_key)

    def states_of(self, shard: str) -> bytes:
        """What a shard has to show: full for what it owns, none for all else."""
        own = self.shards.index(shard)
        owns = [self.ring.owner(slice_id) == own for slice_id in range(self.slices)]
        return pack_states([frames.STATE_FULL if owned else frames.STATE_NONE for owned in owns])


class Self(NamedTuple):
    """How a process shows itself in pings and pongs."""

    topology: Topology
    life: Life
    role: int
    name: str

    def hello(self, now: int, report: bytes = b"") -> Hello:
        """What it says of itself in a ping; a pong says more."""
        known = self.topology
        agreed = (known.version, known.table, known.cluster, known.slices)
        return Hello(self.life.boot, now, *agreed, self.role, False, self.name, report=report)
