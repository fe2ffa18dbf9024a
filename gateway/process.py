"""`python -m gateway`: one gateway of a cluster as a process, with its links to all shards."""

from __future__ import annotations

import asyncio
import json
import logging
import socket
from importlib.metadata import version
from typing import TYPE_CHECKING

import zmq

from common import control, edits, frames, keys, links, process
from common.config_errors import ConfigError
from common.life import Life, milliseconds
from common.process import AdminServer, Periodic
from common.rate import Rate
from common.topology import Self, Topology
from gateway import listening
from gateway.figures import Figures
from gateway.service import GatewayService, Told
from gateway.shard_links import LAST_WAIT, ShardLinks
from gateway.shards import Shards

if TYPE_CHECKING:
    from collections.abc import Sequence

    from common.config import Config, Gateway
    from common.process import Start


log = logging.getLogger(__name__)


class GatewayProcess:
    """One gateway, its links, its admin address. Raises KeyFileError."""

    def __init__(self, config: Config, gateway: Gateway, sockets: list[socket.socket]) -> None:
        self.config = config
        self.config_refused = ""
        self.own = gateway
        self.sockets = sockets
        self.context: links.Context = zmq.Context()
        node = config.node_of(gateway)
        secret = keys.node_key(config, node)
        self.cluster_key = keys.of_cluster(config).cluster
        topology = Topology(config, self.cluster_key)
        self.shards = Shards(Self(topology, Life(milliseconds()), frames.ROLE_GATEWAY, gateway.name))
        self.links = ShardLinks(
            self.context, self.shards, links.addresses(config), links.key_pair(secret), lambda: self.report
        )
        facts = {"gateway": str(gateway.name), "node": node, "version": version("shoal-tracker")}
        self.periodic = Periodic(facts)
        told = Told(self._totals, lambda: self._health()["ok"] is True)
        self.gateway = GatewayService(config, sockets, self.links.machine.connect, self.links.machine.count, told)
        self.links.answer = self.gateway.send_answers
        self.gateway.udp.busy = self.links.busy
        self.admin = AdminServer(config.admin_of(gateway), self._health)
        self.admin.metrics.sources += [self.gateway, self.links]
        self.figures = Figures(self.gateway)
        self.rates = Rate(), Rate()  # of answers and refusals
        self.began = milliseconds()
        self.facts = facts
        self.report = b""
        self._make_report()

    async def start(self) -> None:
        """Link to all shards, then begin to read. Raises AdminError."""
        loop = asyncio.get_running_loop()
        await self.admin.start()
        await self.links.start(loop)
        self._make_report()
        await self.gateway.start(loop)
        self.periodic.every(1.0, "gateway", self.gateway.tick)
        self.periodic.every(1.0, "report", self._make_report)
        if self.config.log.figures:
            self.periodic.every(float(self.config.log.figures), "figures", self.figures.tell)

    async def stop(self) -> None:
        """Read nothing more, send the last answers, end."""
        loop = asyncio.get_running_loop()
        self.periodic.cancel()
        self.gateway.pause(loop)
        deadline = loop.time() + LAST_WAIT
        await self.links.finish()
        await self.gateway.http.finish(deadline)
        await asyncio.gather(self.gateway.stop(loop), self.admin.stop())
        self.links.close()
        self.context.destroy(0)

    def hang_up(self) -> None:
        """Read the connection-id key again."""
        self.gateway.reload_keys()

    def reconfigure(self, config: Config) -> None:
        """Take up another configuration. Raises ConfigError, and changes nothing, if it lacks this gateway."""
        own = process.choose(config.gateways, str(self.own.name), "gateways")
        edits.check_departing(config, self.shards.me.topology.departing, self.links.addresses)
        self.own = own
        topology = Topology(config, self.cluster_key)
        self.config = config
        self.links.reconfigure(topology, links.addresses(config))
        log.info("version %d of the configuration: %s", config.version, ", ".join(topology.shards))

    def tell(self) -> None:
        """Print the announce URLs."""
        tell_urls(self.own, self.sockets)

    def _make_report(self) -> None:
        """What pings tell the operator of this gateway."""
        for rate, count in zip(self.rates, self.gateway.answered(), strict=True):
            rate.note(count)
        answers, refusals = self.rates
        told = {
            **self.facts,
            "ok": self.periodic.healthy(),
            "uptime_s": (milliseconds() - self.began) // 1000,
            "answers_per_s": round(answers.per_second),
            "refusals_per_s": round(refusals.per_second),
            "connections": self.gateway.connections.open_places(),
            "shed": sum(link.shed for link in self.links.machine.remote.values()),
            "config_refused": self.config_refused[:300],
            "dropped": dict(self.shards.dropped),
            "links": self.links.links_report(),
        }
        self.report = json.dumps(told, separators=(",", ":")).encode()

    def _health(self) -> dict[str, object]:
        """Whether all is well. One that hears no shard is not, though to start it again would not help: its answers
        are empty, so clients should be sent to another."""
        said = self.periodic.health()
        away = self.shards.away()
        if said["ok"] and len(away) == len(self.shards.links):
            said |= {"ok": False, "status": "degraded"}
        return {**said, "silent_shards": away}

    def _totals(self) -> dict[str, int]:
        """What all shards that are heard have, as they told last."""
        totals = dict.fromkeys(("torrents", "seeders", "leechers"), 0)
        for link in self.shards.links:
            if link.pong is None or link.is_silent(milliseconds()):
                continue
            told = control.read_report(link.pong.report)
            for name in totals:
                value = told.get(name, 0)
                totals[name] += value if isinstance(value, int) else 0
        return totals


def make(start: Start) -> GatewayProcess:
    """The gateway that was asked for. Raises ConfigError."""
    gateway = process.choose(start.config.gateways, start.name, "gateways")
    sockets = start.sockets
    if sockets is None:
        listening.allow_files()
        sockets = listening.open_sockets(start.config, gateway)
    return GatewayProcess(start.config, gateway, sockets)


def tell_urls(gateway: Gateway, sockets: list[socket.socket]) -> None:
    """Print the announce URLs."""
    for url in announce_urls(sockets[: 2 * len(gateway.listen)]):
        print(f"announce URL: {url}", flush=True)


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


def main(words: Sequence[str]) -> int:
    """Exit code 0 after a clean stop, 2 if the configuration cannot work, 1 if something is missing here."""
    return process.run("gateway", make, (ConfigError, keys.KeyFileError, listening.ListenError), words)
