"""The embedded tracker: gateway and shard in one process, joined by a direct call. The supervisor starts it.

    python -m cluster.embedded --fds 5,6 --parent-pipe 7 --config-fd 8

--fds: the listening sockets, in the configuration's order. --parent-pipe: at its end the supervisor is gone.
--config-fd: a file with the encoded configuration.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import logging
import os
import signal
import socket
import sys
from typing import TYPE_CHECKING

import uvloop

from cluster.figures import Figures
from common import config, keys, logs
from common.admin import Admin
from common.batch_io import address_of
from common.clock import SteadyClock
from common.metrics import Metrics
from gateway.service import GatewayService, Told
from shard.service import TICK, OutOfMemoryError, ShardWorker

if TYPE_CHECKING:
    from collections.abc import Callable

    from common.config import Config
    from gateway.router import Router

log = logging.getLogger(__name__)

PATIENCE = 2.0  # seconds for connections to end


class AdminError(Exception):
    """The admin address cannot be listened on; the text names it and says why."""


class DirectLink:
    """The link to a shard in the same process: the answer is there when the call returns."""

    def __init__(self, router: Router, shard: ShardWorker) -> None:
        self.router = router
        self.shard = shard
        self.address = address_of(shard.replies)

    def send(self, frame: memoryview) -> None:
        """Have the frame answered."""
        self.router.take_replies(self.shard.answer(frame), self.address)


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
        self.shard = ShardWorker(wanted, wanted.shards[0], clock or SteadyClock())
        told = {"wall": wall} if wall else {}
        self.gateway = GatewayService(wanted, sockets, self._connect, 1, Told(self.totals, self.healthy), **told)
        self.metrics = Metrics()
        self.metrics.sources += [self.gateway, self.shard]
        self.admin = Admin(self.metrics, self.health)
        self.figures = Figures(self.gateway, self.shard)
        self.timers: list[asyncio.TimerHandle] = []
        self.failed: set[str] = set()  # periodic tasks whose last run failed

    async def start(self) -> None:
        """Begin to answer, and to serve the admin address. Raises AdminError if that address cannot be had."""
        loop = asyncio.get_running_loop()
        if (address := self.config.admin) is not None:
            try:
                await self.admin.start(str(address.address), address.port)
            except OSError as error:
                raise AdminError(f"admin: cannot listen on {address} (TCP): {error.strerror or error}") from error
        await self.gateway.start(loop)
        self._every(TICK, "expiry", self.shard.tick)
        self._every(1.0, "gateway", self.gateway.tick)
        if self.config.log.figures:
            self._every(float(self.config.log.figures), "figures", self.figures.tell)

    async def stop(self) -> None:
        """Stop reading, then end what is left."""
        for timer in self.timers:
            timer.cancel()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self.gateway.stop(asyncio.get_running_loop()), PATIENCE)
        with contextlib.suppress(TimeoutError):
            await self.admin.stop()

    def health(self) -> dict[str, object]:
        """Whether all is well: what is to be done periodically was done, and no kernel failed."""
        failed = sorted(self.failed)
        faults = logs.kernel_faults()
        ok = not failed and faults == 0
        names = {"gateway": self.config.gateways[0].name, "shard": self.shard.name}
        return {"ok": ok, "failed_tasks": failed, "kernel_faults": faults, **names}

    def healthy(self) -> bool:
        """Whether all is well."""
        return self.health()["ok"] is True

    def totals(self) -> dict[str, int]:
        """What the web page shows."""
        peers = self.shard.store.peers_by_kind()
        return {
            "torrents": self.shard.store.swarm_count(),
            "seeders": sum(peers[1::2]),
            "leechers": sum(peers[::2]),
        }

    def _connect(self, router: Router) -> list[DirectLink]:
        return [DirectLink(router, self.shard)]

    def _every(self, seconds: float, name: str, call: Callable[[], float | None]) -> None:
        """Call again and again, after `seconds` or what the call returns; a failure is logged and does not end it."""
        loop = asyncio.get_running_loop()
        place = len(self.timers)

        def run() -> None:
            pause = None
            try:
                pause = call()
                self.failed.discard(name)
            except Exception:
                self.failed.add(name)
                log.exception("a periodic task failed: %s", name)
            self.timers[place] = loop.call_later(pause or seconds, run)

        self.timers.append(loop.call_later(seconds, run))


def announce_urls(sockets: list[socket.socket]) -> list[str]:
    """What to paste into a client, for each socket; a wildcard shows as this machine's name."""
    urls = []
    for sock in sockets:
        scheme = "udp" if sock.type == socket.SOCK_DGRAM else "http"
        host, port = sock.getsockname()[:2]
        if host in ("0.0.0.0", "::"):
            host = socket.gethostname()
        elif ":" in host:
            host = f"[{host}]"
        urls.append(f"{scheme}://{host}:{port}/announce")
    return list(dict.fromkeys(urls))


async def serve(wanted: Config, sockets: list[socket.socket], parent_pipe: int) -> None:
    """Run until SIGTERM, SIGINT, or the supervisor's end."""
    loop = asyncio.get_running_loop()
    done = asyncio.Event()
    tracker = Embedded(wanted, sockets)
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, done.set)
    loop.add_signal_handler(signal.SIGHUP, tracker.gateway.reload_keys)
    loop.add_reader(parent_pipe, done.set)
    await tracker.start()
    with contextlib.suppress(OSError):  # nobody may read it: no reason not to serve
        for url in announce_urls(sockets[: 2 * len(wanted.gateways[0].listen)]):
            print(f"announce URL: {url}", flush=True)
    await done.wait()
    loop.remove_reader(parent_pipe)
    await tracker.stop()


def main() -> int:
    """Exit code 0 after a clean stop, 2 if the configuration cannot work here."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--fds", required=True)
    parser.add_argument("--parent-pipe", type=int, required=True)
    parser.add_argument("--config-fd", type=int, required=True)
    args = parser.parse_args()
    wanted = config.decode(os.pread(args.config_fd, 1 << 20, 0))
    logs.set_up(wanted.log.level, wanted.log.format, addresses=wanted.log.addresses)
    sockets = [socket.socket(fileno=int(fd)) for fd in args.fds.split(",")]
    try:
        uvloop.run(serve(wanted, sockets, args.parent_pipe))
    except (keys.KeyFileError, OutOfMemoryError, AdminError) as error:
        log.error("%s", error)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
