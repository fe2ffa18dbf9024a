"""The line of figures that a gateway prints now and then."""

from __future__ import annotations

import logging
from ipaddress import IPv6Address
from time import monotonic
from typing import TYPE_CHECKING

from common import logs

if TYPE_CHECKING:
    from gateway.service import GatewayService

log = logging.getLogger(__name__)


class Figures:
    """What a gateway did since the last line, and in the last second."""

    def __init__(self, gateway: GatewayService) -> None:
        self.gateway = gateway
        self.last = gateway.answered()
        self.when = monotonic()

    def tell(self) -> None:
        """Log one line."""
        answers, refusals = self.gateway.answered()
        now = monotonic()
        rate = (answers - self.last[0]) / max(now - self.when, 1e-3)
        log.info("%.0f answers/s, %d refused", rate, refusals - self.last[1], extra={"unlimited": True})
        tell_refused(self.gateway, refusals - self.last[1])
        self.last = (answers, refusals)
        self.when = now


def tell_refused(gateway: GatewayService, many: int) -> None:
    """Name the source that was refused last, if somebody was."""
    if many and (source := gateway.sources.last_refused()):
        log.info("the last source refused was %s", logs.Private(show(source)), extra={"unlimited": True})


def show(address: bytes) -> str:
    """An address of 16 bytes as text; IPv4 as such."""
    shown = IPv6Address(address)
    return str(shown.ipv4_mapped or shown)
