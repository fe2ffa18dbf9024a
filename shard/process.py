"""`python -m shard`: one shard of a cluster as a process; it hears gateways, operators and other shards."""

from __future__ import annotations

import asyncio
import json
import logging
import signal
from importlib.metadata import version
from time import thread_time_ns
from typing import TYPE_CHECKING

import zmq

from common import edits, frames, keys, links, metrics, process
from common.clock import SteadyClock
from common.config_errors import ConfigError
from common.life import Life, milliseconds
from common.link_sockets import TICK as LINK_TICK
from common.link_sockets import LinkSockets
from common.process import AdminServer, Periodic
from common.rate import Rate
from common.topology import Self, Topology
from shard.machine import FAREWELL, ShardMachine
from shard.server import LinkServer
from shard.service import TICK, OutOfMemoryError, ShardWorker

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from prometheus_client.metrics_core import Metric

    from common.config import Config, Shard
    from common.link_state import LinkState
    from common.process import Start

log = logging.getLogger(__name__)


class ShardProcess:
    """One shard, its links, its admin address. Raises KeyFileError, OutOfMemoryError, LinkError."""

    def __init__(self, config: Config, shard: Shard) -> None:
        self.config = config
        self.config_refused = ""
        self.own = shard
        self.context: links.Context = zmq.Context()
        node = config.node_of(shard)
        mine = links.key_pair(keys.node_key(config, node))
        self.cluster_key = keys.cluster_key(config)
        topology = Topology(config, self.cluster_key)
        now = milliseconds()
        me = Self(topology, Life(now), frames.ROLE_SHARD, str(shard.name))
        self.worker = ShardWorker(config, shard, SteadyClock())
        self.place = {"link": config.link_of(shard), "key": mine.public.decode() if mine else ""}
        place = json.dumps(self.place, separators=(",", ":")).encode()
        self.machine = ShardMachine(me, self.worker, lambda: self.report, self._status, now, place=place)
        address = config.bind_of(shard)
        self.server = LinkServer(self.context, address, mine, links.known_keys(config), self.machine)
        self.others = LinkSockets(self.context, mine, self._hear)
        self.facts = {"shard": str(shard.name), "node": node, "version": version("shoal-tracker")}
        self.periodic = Periodic(self.facts)
        self.admin = AdminServer(config.admin_of(shard), self.periodic.health)
        self.admin.metrics.sources += [self.worker, self]
        self.rate = Rate()
        self.began = now
        self.answered: tuple[object, bytes] = (None, b"")
        self.report = b"{}"
        self.longest = dict.fromkeys(("merge", "tick", "edit"), 0)  # nanoseconds of processor time of a step
        self.ends = False  # the configuration lacks this shard, and it holds nothing
        self.linked: dict[str, LinkState] = {}
        self.addresses: dict[str, tuple[str, bytes]] = {}  # also of shards that the file lacks by now
        self._link()

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
        if not self.ends:  # they have heard it already
            await asyncio.sleep(FAREWELL / 1000)
        self.periodic.cancel()
        self.server.close()
        self.others.close()
        await self.admin.stop()
        self.context.destroy(0)

    def hang_up(self) -> None:
        """There is nothing else that could have changed."""

    def reconfigure(self, config: Config) -> None:
        """Take up another configuration. If it lacks this shard, that ends when others have all that it holds.

        Raises ConfigError, and changes nothing, if it has the name of a shard that departs at another place.
        """
        own = {self.machine.me.name: (self.place["link"], b"")}
        edits.check_departing(config, self.machine.me.topology.departing, {**self.addresses, **own})
        began = thread_time_ns()
        self.machine.configure(Topology(config, self.cluster_key), milliseconds())
        self.longest["edit"] = max(self.longest["edit"], thread_time_ns() - began)
        self.config = config
        self._link()
        has = self.machine.copies.totals()
        text = "version %d of the configuration: %d slices should be here; %d are to be filled, %d leave"
        log.info(text, config.version, has["wanted"], has["part"], has["leaving"])

    def tell(self) -> None:
        """Print where others reach this shard."""
        print(f"shard {self.own.name}: {self.config.bind_of(self.own)}", flush=True)

    def _link(self) -> None:
        """Link to the other shards of the configuration, and to those that depart; let in whose keys these have."""
        self.linked = self.machine.links
        self.addresses = {name: at for name, at in self.addresses.items() if name in self.linked}
        self.addresses |= links.addresses(self.config)
        where = {name: at for name in self.linked if (at := self._address_of(name)) is not None}
        self.others.set_shards(where, {name: self.linked[name] for name in where})
        departing = [self.addresses[name][1] for name in self.machine.me.topology.departing if name in self.addresses]
        self.server.admit({*links.known_keys(self.config), *filter(None, departing)})

    def _address_of(self, name: str) -> tuple[str, bytes] | None:
        """Where a shard is: by the file, by one before, or by what it says."""
        if name not in self.addresses:
            found = links.read_address(self.machine.place_of(name), keyed=self.config.has_keys)
            if found is not None:
                self.addresses[name] = found
        return self.addresses.get(name)

    def _hear(self, name: str, frame: memoryview, now: int) -> None:
        """A frame of another shard, over the link to it."""
        self._beat(now)
        began = thread_time_ns()
        out = self.machine.hear(name, frame, now)
        self.longest["merge"] = max(self.longest["merge"], thread_time_ns() - began)
        self.others.send_all(out)

    def _beat(self, now: int) -> None:
        if self.machine.beat(now):
            log.warning("the process had stood still: what was sent to it meanwhile is not taken")

    def _look(self) -> None:
        now = milliseconds()
        self._beat(now)
        self.others.tick(now)
        began = thread_time_ns()
        out = self.machine.tick(now)
        self.longest["tick"] = max(self.longest["tick"], thread_time_ns() - began)
        self.others.send_all(out)
        if self.linked is not self.machine.links:
            self._link()
        if self.machine.is_done(now) and not self.ends:
            self.ends = True
            log.info("the configuration lacks this shard, and others have all that it held: it ends")
            signal.raise_signal(signal.SIGTERM)

    def _totals(self) -> dict[str, int]:
        """What is stored of slices for which gateways ask this shard, so that copies do not count twice."""
        copies = self.machine.copies
        heard = [(source.was_heard, source.states) for source in copies.sources.values()]
        known = (copies.topology, bytes(self.machine.states), heard)
        if known != self.answered[0]:
            self.answered = (known, bytes(copies.answered_here()))
        torrents, leechers, seeders = self.worker.store.totals(self.answered[1])
        return {"torrents": torrents, "seeders": seeders, "leechers": leechers}

    def _make_report(self) -> None:
        """What pongs tell, made once a second."""
        self.machine.forget(milliseconds())
        self.rate.note(self.worker.announces())
        told = {**self.facts, **self._totals(), "announces_per_s": round(self.rate.per_second)}
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

    def _status(self, with_slices: bool) -> bytes:
        """The answer to STATUS."""
        now = milliseconds()
        me = self.machine.me
        peers, unlisted = self.machine.tell_peers(now, [str(gateway.name) for gateway in self.config.gateways])
        told = json.dumps(
            {
                **self.periodic.health(),
                **self.worker.totals(),
                "ipv6": sum(self.worker.store.peers_by_kind()[2 * frames.PUBLIC6 :]),
                "announces_per_s": round(self.rate.per_second),
                "uptime_s": (now - self.began) // 1000,
                "boot": f"{me.life.boot:016x}",
                "stalls": me.life.stalls,
                "stopping": self.machine.stopping,
                "config_version": me.topology.version,
                "config_refused": self.config_refused,
                "table": f"{me.topology.table:016x}",
                "slices": self.machine.copies.totals(),
                "copies": self.machine.copies.show(now),
                "held": self.machine.copies.held() if with_slices else {},
                "memory": {"taken": self.worker.store.bytes_taken(), "ceiling": int(self.own.memory)},
                "dropped": dict(self.machine.dropped),
                "refused": self._refused(),
                "unlisted": unlisted,
                "links": [link.show(now) for link in self.machine.links.values()],
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
        copies = self.machine.copies
        yield metrics.named_gauge("shoal_slices", "Slices by what this shard has of them", "state", copies.totals())
        kinds = "Copies of slices: pulls begun, of them without news, chunks, bytes and peers merged, slices dropped"
        yield metrics.named("shoal_copies", kinds, "kind", copies.counts)
        steps = {"give": self.server.longest_pull, **self.longest}
        longest = "Longest steps of copying, in processor time"
        seconds = {kind: value / 1e9 for kind, value in steps.items()}
        yield metrics.named_gauge("shoal_longest_copy_seconds", longest, "step", seconds)


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
