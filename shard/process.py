"""`python -m shard`: one shard of a cluster as a process; it hears gateways, operators and other shards."""

from __future__ import annotations

import asyncio
import json
import logging
from importlib.metadata import version
from typing import TYPE_CHECKING

import zmq

from common import control, frames, keys, links, metrics, process
from common.clock import SteadyClock
from common.config_errors import ConfigError
from common.control import FrameError
from common.life import Life, milliseconds
from common.link_sockets import TICK as LINK_TICK
from common.link_sockets import LinkSockets
from common.link_state import PING_EVERY, LinkState
from common.process import AdminServer, Periodic
from common.rate import Rate
from common.topology import Self, Topology
from shard.machine import ShardMachine
from shard.server import LinkServer
from shard.service import TICK, OutOfMemoryError, ShardWorker

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from prometheus_client.metrics_core import Metric

    from common.config import Config, Shard
    from common.control import Hello
    from common.process import Start

log = logging.getLogger(__name__)

FAREWELL = 2 * PING_EVERY / 1000  # seconds in which every gateway hears that this shard stops


class ShardProcess:
    """One shard, its links, its admin address. Raises KeyFileError, OutOfMemoryError, LinkError."""

    def __init__(self, config: Config, shard: Shard) -> None:
        self.config = config
        self.own = shard
        self.context: links.Context = zmq.Context()
        node = config.node_of(shard)
        mine = links.key_pair(keys.node_key(config, node))
        topology = Topology(config, keys.cluster_key(config))
        me = Self(topology, Life(milliseconds()), frames.ROLE_SHARD, str(shard.name))
        self.owned = len(topology.ring.slices_of(topology.shards.index(me.name)))
        self.worker = ShardWorker(config, shard, SteadyClock())
        self.machine = ShardMachine(me, self.worker, lambda: self.report, self._status)
        address = config.bind_of(shard)
        self.server = LinkServer(self.context, address, mine, links.known_keys(config), self.machine)
        others = [
            (LinkState(other.name, topology.slices, topology.cluster), address)
            for other, address in zip(config.shards, links.addresses(config), strict=True)
            if other is not shard
        ]
        self.others = LinkSockets(
            self.context, [at for _, at in others], mine, [state for state, _ in others], self._hello, self._hear
        )
        self.facts = {"shard": str(shard.name), "node": node, "version": version("shoal-tracker")}
        self.periodic = Periodic(self.facts)
        self.admin = AdminServer(config.admin_of(shard), self.periodic.health)
        self.admin.metrics.sources += [self.worker, self]
        self.rate = Rate()
        self.began = milliseconds()
        self.report = b"{}"

    async def start(self) -> None:
        """Begin to hear others. Raises AdminError, LinkError."""
        loop = asyncio.get_running_loop()
        await self.admin.start()
        self.server.start(loop)
        self.others.start(loop)
        self.periodic.every(TICK, "expiry", self.worker.tick)
        self.periodic.every(LINK_TICK, "links", self._look)
        self.periodic.every(1.0, "report", self._make_report)
        if self.config.log.figures:
            self.periodic.every(float(self.config.log.figures), "figures", self._tell_figures)

    async def stop(self) -> None:
        """Let others know, answer what still comes, end."""
        self.machine.stopping = True
        await asyncio.sleep(FAREWELL)
        self.periodic.cancel()
        self.server.close()
        self.others.close()
        await self.admin.stop()
        self.context.destroy(0)

    def hang_up(self) -> None:
        """There is nothing that could have changed."""

    def tell(self) -> None:
        """Print where others reach this shard."""
        print(f"shard {self.own.name}: {self.config.bind_of(self.own)}", flush=True)

    def _hello(self, now: int) -> Hello:
        return self.machine.me.hello(now)

    def _hear(self, index: int, frame: memoryview, now: int) -> None:
        """A frame of another shard: only pongs are expected here."""
        self._beat(now)
        try:
            head = control.header(frame)
            if head.kind == frames.PONG:
                self.others.states[index].take_pong(head.number, control.unpack_hello(frame), now)
                return
        except FrameError:
            self.machine.dropped["malformed"] += 1
            return
        self.machine.dropped["unexpected"] += 1

    def _beat(self, now: int) -> None:
        if self.machine.beat(now):
            log.warning("the process had stood still: what was sent to it meanwhile is not taken")

    def _look(self) -> None:
        now = milliseconds()
        self._beat(now)
        self.others.tick()

    def _make_report(self) -> None:
        """What pongs tell, made once a second."""
        self.machine.forget(milliseconds())
        self.rate.note(self.worker.announces())
        told = {**self.facts, **self.worker.totals(), "announces_per_s": round(self.rate.per_second)}
        self.report = json.dumps(told, separators=(",", ":")).encode()

    def _tell_figures(self) -> None:
        totals = self.worker.totals()
        log.info(
            "%.0f announces/s, %d torrents, %d peers, %.1f MiB stored",
            self.rate.per_second,
            totals["torrents"],
            totals["seeders"] + totals["leechers"],
            self.worker.store.bytes_taken() / 2**20,
            extra={"unlimited": True},
        )

    def _status(self) -> bytes:
        """The answer to STATUS."""
        now = milliseconds()
        me = self.machine.me
        peers, unlisted = self.machine.tell_peers(now, [str(gateway.name) for gateway in self.config.gateways])
        told = json.dumps(
            {
                **self.periodic.health(),
                **self.worker.totals(),
                "announces_per_s": round(self.rate.per_second),
                "uptime_s": (now - self.began) // 1000,
                "boot": f"{me.life.boot:016x}",
                "strays": self.worker.store.stray_count(),
                "stalls": me.life.stalls,
                "stopping": self.machine.stopping,
                "config_version": me.topology.version,
                "table": f"{me.topology.table:016x}",
                "slices": {"full": self.owned},
                "memory": {"taken": self.worker.store.bytes_taken(), "ceiling": int(self.own.memory)},
                "dropped": dict(self.machine.dropped),
                "refused": self._refused(),
                "unlisted": unlisted,
                "links": [link.show(now) for link in self.others.states],
            }
        )
        return f'{told[:-1]}, "peers": [{", ".join(peers)}]}}'.encode()

    def _refused(self) -> dict[str, int]:
        return self.server.doorman.refused if self.server.doorman else {}

    def metrics(self) -> Iterable[Metric]:
        """What the links counted."""
        yield metrics.named("shoal_link_dropped", "Frames not taken, by reason", "reason", self.machine.dropped)
        yield metrics.named("shoal_link_refused", "Strangers at the link's port", "reason", self._refused())
        yield metrics.counter("shoal_link_unsent", "Answers to processes that are gone", self.server.unsent)
        yield metrics.gauge("shoal_link_processes", "Processes that ping this shard", len(self.machine.peers))
        yield metrics.counter("shoal_stalls", "Times that the process stood still", self.machine.me.life.stalls)
        yield metrics.histogram("shoal_frame_bytes", "Frames by their length", self.server.frame_sizes)


def make(start: Start) -> ShardProcess:
    """The shard that was asked for. Raises ConfigError."""
    config = start.config
    shard = process.choose(config.shards, start.name, "shards")
    if config.bind_of(shard).startswith("ipc://"):
        keys.make_directory(config.run_directory)
    return ShardProcess(config, shard)


def main(words: Sequence[str]) -> int:
    """Exit code 0 after a clean stop, 2 if the configuration cannot work, 1 if something is missing here."""
    mistakes = (ConfigError, keys.KeyFileError, links.LinkError, OutOfMemoryError)
    return process.run("shard", make, mistakes, words)
