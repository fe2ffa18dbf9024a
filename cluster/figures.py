"""The line of figures that a running tracker prints now and then."""

from __future__ import annotations

import logging
from ipaddress import IPv6Address
from time import monotonic
from typing import TYPE_CHECKING

from common import counters, logs

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
            extra={"unlimited": True},
        )
        if refusals > self.last[1] and (source := self.gateway.sources.last_refused()):
            log.info("the last source refused was %s", logs.Private(show(source)), extra={"unlimited": True})
        self.last = (answers, refusals)
        self.when = now

    def _read(self) -> tuple[int, int]:
        """Answers and refusals so far, of UDP and HTTP."""
        udp = self.gateway.codec.counters()
        http = self.gateway.http_codec.counters()
        _, over_all, over_source, _ = self.gateway.connections.counters()
        answers = sum(udp[place] for place in counters.ANSWER_KINDS.values())
        answers += http[counters.HTTP_ANNOUNCE_ANSWERS] + http[counters.HTTP_SCRAPE_ANSWERS]
        refusals = sum(udp[place] for place in counters.REFUSALS.values())
        return answers, refusals + sum(http[counters.HTTP_FAILURES :]) + over_all + over_source


def show(address: bytes) -> str:
    """An address of 16 bytes as text; IPv4 as such."""
    shown = IPv6Address(address)
    return str(shown.ipv4_mapped or shown)
