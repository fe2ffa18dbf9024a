"""The line of figures that a running tracker prints now and then."""

from __future__ import annotations

import logging
from time import monotonic
from typing import TYPE_CHECKING

from common import counters

if TYPE_CHECKING:
    from gateway.service import GatewayService
    from shard.service import ShardWorker

log = logging.getLogger(__name__)


class Figures:
    """What happened since the last line."""

    def __init__(self, gateway: GatewayService, shard: ShardWorker) -> None:
        self.gateway = gateway
        self.shard = shard
        self.last = self._read()
        self.when = monotonic()

    def tell(self) -> None:
        """Log one line."""
        answers, refusals = self._read()
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
        )
        self.last = (answers, refusals)
        self.when = now

    def _read(self) -> tuple[int, int]:
        values = self.gateway.codec.counters()
        answers = sum(values[place] for place in counters.ANSWER_KINDS.values())
        return answers, sum(values[place] for place in counters.REFUSALS.values())
