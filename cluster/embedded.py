"""The embedded tracker: gateway and shard in one process, joined by a direct call. The supervisor starts it."""

from __future__ import annotations

import asyncio
import sys
from typing import TYPE_CHECKING

from cluster.figures import Figures
from common import frames, keys, process
from common.batch_io import address_of
from common.clock import SteadyClock
from common.life import Life, milliseconds
from common.process import AdminServer, Periodic
from common.topology import Self, Topology
from gateway import listening
from gateway.process import tell_urls
from gateway.service import GatewayService, Told
from shard.machine import ShardMachine
from shard.service import TICK, OutOfMemoryError, ShardWorker

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable

    from common.config import Config
    from common.process import Start
    from gateway.router import Router


class DirectLink:
    """The link to a shard in the same process: the answer is there when the call returns."""

    def __init__(self, router: Router, shard: ShardWorker) -> None:
        self.router = router
        self.shard = shard
        self.address = address_of(shard.replies)

    def hand_over(self, index: int) -> None:
        """Have the frame answered."""
        self.router.take_replies(self.shard.answer(self.router.close(index)), self.address)

    def takes_copies(self) -> bool:
        """There is no other shard of whose records copies could be made."""
        return False


class Embedded:
    """One gateway, one shard and the admin address on one loop. Raises KeyFileError, OutOfMemoryError."""

    def __init__(
        self,
        wanted: Config,
        sockets: list[socket.socket],
        *,
        clock: SteadyClock | None = None,
        wall: Callable[[], float] | None = None,
    ) -> None:
        self.config = wanted
        self.config_refused = ""
        self.own = None  # it is all that the configuration has
        self.sockets = sockets
        self.shard = ShardWorker(wanted, wanted.shards[0], clock or SteadyClock())
        topology = Topology(wanted, keys.of_cluster(wanted).cluster)
        now = milliseconds()
        # A shard as any, but alone: so all is full, always, and it needs neither ticks nor links.
        me = Self(topology, Life(now), frames.ROLE_SHARD, str(self.shard.name))
        self.machine = ShardMachine(me, self.shard, bytes, lambda _: b"{}", now)
        self.periodic = Periodic({"gateway": str(wanted.gateways[0].name), "shard": str(self.shard.name)})
        told = {"wall": wall} if wall else {}
        totals = Told(self.shard.totals, self.periodic.healthy)
        self.gateway = GatewayService(wanted, sockets, self._connect, 1, totals, **told)
        self.admin = AdminServer(wanted.admin, self.periodic.health)
        self.metrics = self.admin.metrics
        self.metrics.sources += [self.gateway, self.shard]
        self.figures = Figures(self.gateway, self.shard)

    async def start(self) -> None:
        """Begin to answer, and to serve the admin address. Raises AdminError if that address cannot be had."""
        await self.admin.start()
        await self.gateway.start(asyncio.get_running_loop())
        self.periodic.every(TICK, "expiry", self.shard.tick)
        self.periodic.every(1.0, "gateway", self.gateway.tick)
        if self.config.log.figures:
            self.periodic.every(float(self.config.log.figures), "figures", self.figures.tell)

    async def stop(self) -> None:
        """Stop reading, then end what is left."""
        self.periodic.cancel()
        await asyncio.gather(self.gateway.stop(asyncio.get_running_loop()), self.admin.stop())

    def hang_up(self) -> None:
        """Read the connection-id key again."""
        self.gateway.reload_keys()

    def reconfigure(self, config: Config) -> None:
        """Note the version: nobody else has to agree, and all else takes effect at the next start, as the log said."""
        self.config = config

    def tell(self) -> None:
        """Print the announce URLs."""
        tell_urls(self.config.gateways[0], self.sockets)

    def _connect(self, router: Router) -> None:
        router.set_links([DirectLink(router, self.shard)])


def make(start: Start) -> Embedded:
    """The embedded tracker that was asked for."""
    sockets = listening.open_sockets(start.config, start.config.gateways[0]) if start.sockets is None else start.sockets
    return Embedded(start.config, sockets)


def main() -> int:
    """Exit code 0 after a clean stop, 2 if the configuration cannot work, 1 if something is missing here."""
    mistakes = (keys.KeyFileError, OutOfMemoryError, listening.ListenError)
    return process.run("shoal embedded", make, mistakes, sys.argv[1:])


if __name__ == "__main__":
    sys.exit(main())
