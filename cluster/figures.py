"""The line of figures that a running tracker prints now and then."""

from __future__ import annotations

import logging
from time import monotonic
from typing import TYPE_CHECKING

from gateway.figures import tell_refused

if TYPE_CHECKING:
    from gateway.service import GatewayService
    from shard.service import ShardWorker

log = logging.getLogger(__name__)


class Figures:
    """What happened since the last line."""

    def __init__(self, gateway: GatewayService, shard: ShardWorker) -> None:
        self.gateway = gateway
        self.shard = shard
        self.last = self.gateway.answered()
        self.when = monotonic()

    def tell(self) -> None:
        """Log one line."""
        answers, refusals = self.gateway.answered()
        now = monotonic()
        seconds = max(now - self.when, 1e-3)
        store = self.shard.store
        log.info(
            "%.0f answers/s, %d refused, %d torrents, %d peers, %.1f MiB stored",
            (answers - self.last[0]) / seconds,
            refusals - self.last[1],
            store.swarm_count(),
            sum(store.peers_by_kind()),
            store.bytes_taken() / 2**20,
            extra={"unlimited": True},
        )
        tell_refused(self.gateway, refusals - self.last[1])
        self.last = (answers, refusals)
        self.when = now
