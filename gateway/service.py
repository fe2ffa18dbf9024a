"""A gateway at work: owns its sockets, codec and router; stateless, so it may be stopped at any time."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import resource
import secrets
from socket import SOCK_DGRAM, SOCK_STREAM
from time import time
from typing import TYPE_CHECKING, NamedTuple

from common import counters, keys, metrics
from common.batch_io import Batch, allocate, is_fixed, prepare
from gateway import http_texts
from gateway.connections import Connections
from gateway.http_codec import HttpCodec
from gateway.http_server import HttpServer
from gateway.records import Records
from gateway.router import Router
from gateway.sources import Sources
from gateway.udp_codec import UdpCodec
from gateway.udp_server import UdpServer
from gateway.web import MOST, Web

if TYPE_CHECKING:
    import socket
    from asyncio import AbstractEventLoop, Future
    from collections.abc import Callable, Iterable

    from prometheus_client.metrics_core import Metric

    from common.config import Config
    from common.values import Network

log = logging.getLogger(__name__)


PATIENCE = 1.0  # seconds for the web application's connections to end
OTHER_FILES = 100  # open files beside sockets: the loop's, logs, the admin address


class Told(NamedTuple):
    """What the web page needs to know of others: totals by name, and whether all is well."""

    totals: Callable[[], dict[str, int]]
    healthy: Callable[[], bool]


class GatewayService:
    """Speaks UDP and HTTP on `sockets`. `connect` is given the router, and gives it its links, `links` in number.

    Raises KeyFileError if the key files cannot be read.
    """

    def __init__(
        self,
        config: Config,
        sockets: list[socket.socket],
        connect: Callable[[Router], None],
        links: int,
        told: Told,
        wall: Callable[[], float] = time,
    ) -> None:
        self.config = config
        self.wall = wall
        self.key_file = config.key_directory / keys.CONNECTION_ID
        self.key_stamp = self._stamp()
        self.keys = keys.of_cluster(config)
        datagrams = [sock for sock in sockets if sock.type == SOCK_DGRAM]
        listeners = [sock for sock in sockets if sock.type == SOCK_STREAM]
        for sock in datagrams:
            prepare(sock)
        batch = Batch([sock.family for sock in datagrams], fixed=[is_fixed(sock) for sock in datagrams])
        self.records = Records(allocate, links, config.slices, batch.depth)
        self.records.set_key(self.keys.cluster)
        self.sources = self._make_sources()
        self.codec = self._make_codec(batch)
        self.connections = self._make_connections(listeners, len(datagrams))
        self.http_codec = self._make_http_codec()
        self.router = Router(self.records, self.codec, self.http_codec)
        connect(self.router)
        self.web = Web(self._ask, told.totals, told.healthy, lambda address: self.connections.release(*address))
        self.http = HttpServer(listeners, self.connections, self.http_codec, self.router, self.web.take)
        self.udp = UdpServer(datagrams, batch, self.codec, self.router, config.connection_ids.window, wall)

    def send_answers(self) -> None:
        """Send the answers to replies that came by themselves, from shards elsewhere."""
        self.udp.send_answers()
        self.http.send_answers()

    def answered(self) -> tuple[int, int]:
        """Answers and refusals so far, of UDP and HTTP."""
        udp = self.codec.counters()
        http = self.http_codec.counters()
        _, over_all, over_source, _ = self.connections.counters()
        answers = sum(udp[place] for place in counters.ANSWER_KINDS.values())
        answers += http[counters.HTTP_ANNOUNCE_ANSWERS] + http[counters.HTTP_SCRAPE_ANSWERS]
        refusals = sum(udp[place] for place in counters.REFUSALS.values())
        return answers, refusals + sum(http[counters.HTTP_FAILURES :]) + over_all + over_source

    async def start(self, loop: AbstractEventLoop) -> None:
        """Begin to read."""
        await self.web.start()
        self.udp.start(loop)
        self.http.start(loop)

    def tick(self) -> None:
        """Take up a rotated key, give up late scrapes; to be called every second."""
        self.udp.tick()
        self.http.tick()
        self.web.tick()
        if self._stamp() != self.key_stamp:
            self.reload_keys()

    def pause(self, loop: AbstractEventLoop) -> None:
        """Read nothing more; what was asked may still be answered."""
        self.udp.stop(loop)
        self.http.pause()

    async def stop(self, loop: AbstractEventLoop) -> None:
        """Read nothing more, close connections."""
        self.pause(loop)
        self.http.stop(loop)
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self.web.stop(), PATIENCE)

    def reload_keys(self) -> None:
        """Read the connection-id key again; the one in use stays if the file is wrong."""
        self.key_stamp = self._stamp()
        try:
            found = keys.load_connection_key(self.key_file)
        except keys.KeyFileError as error:
            log.error("the connection-id key is not taken up: %s", error)
            return
        if found == self.keys.connection_id:  # a SIGHUP for something else
            return
        self.keys = keys.Keys(self.keys.cluster, found)  # the cluster key stays: slices are where it put them
        self._set_keys(self.codec)
        log.info("the connection-id key was taken up")

    def metrics(self) -> Iterable[Metric]:
        """What the gateway counted."""
        yield from metrics.gateway(self.codec.counters())
        sizes = "Datagrams taken with one system call"
        yield metrics.histogram("shoal_batch_datagrams", sizes, self.udp.batch_sizes)
        turns = "Turns of the loop that had datagrams to answer, by how long they took"
        yield metrics.histogram("shoal_loop_turn_seconds", turns, self.udp.turns, 1e-6)
        yield metrics.counter("shoal_unsent", "Answers that the system did not take", self.udp.unsent)
        yield from metrics.http(self.http_codec.counters(), self.connections.counters(), self.connections.open_places())
        waits = "Connections named at once by the system"
        requests = "Turns of the loop that had connections to serve, by how long they took"
        yield metrics.histogram("shoal_http_batch_connections", waits, self.http.batch_sizes)
        yield metrics.histogram("shoal_http_turn_seconds", requests, self.http.turns, 1e-6)
        ends = {"slow": self.http.slow, "flooded": self.http.flooded, "no_room": self.http.no_room}
        yield metrics.named("shoal_http_dropped", "Connections ended by us, by reason", "reason", ends)
        yield metrics.counter("shoal_web_requests", "Requests to the web application", self.web.requests)
        yield metrics.counter("shoal_web_malformed", "Malformed requests to the web application", self.web.malformed)
        yield metrics.counter("shoal_web_turned_away", "Connections beyond the web application's", self.web.turned_away)
        drops = metrics.socket_drops(self.udp.inodes)
        yield metrics.counter("shoal_socket_drops", "Datagrams dropped, as a socket's buffer was full", drops)

    def _make_sources(self) -> Sources:
        limits = self.config.limits
        sources = Sources(allocate)
        sources.set_secret(secrets.randbits(64))
        sources.set_limits(limits.connects.rate, limits.connects.burst, limits.requests.rate, limits.requests.burst)
        sources.set_networks(
            pack_networks(limits.exempt),
            pack_networks(self.config.trust_ip_field),
            pack_networks(self.config.trusted_proxies),
        )
        return sources

    def _make_connections(self, listeners: list[socket.socket], datagrams: int) -> Connections:
        wanted = self.config.http
        # A UDP socket has an epoll set of its own, a link three descriptors.
        others = OTHER_FILES + MOST + 2 * datagrams + len(listeners) + 3 * self.records.links
        room = resource.getrlimit(resource.RLIMIT_NOFILE)[0] - others
        if room < wanted.connections:
            log.info(
                "at most %d HTTP connections, for the limit of open files; http.connections says %d",
                room,
                wanted.connections,
            )
        most = max(16, min(wanted.connections, room))
        connections = Connections(allocate, listeners, self.sources, most, wanted.per_source, wanted.idle)
        connections.set_crowd_answer(http_texts.failure(http_texts.CROWD, self.config.interval))
        return connections

    def _make_http_codec(self) -> HttpCodec:
        peers = self.config.peers
        codec = HttpCodec(
            allocate, self.connections, self.records, self.sources, peers.default, peers.most, secrets.randbits(64)
        )
        codec.set_interval(self.config.interval)
        return codec

    def _ask(self, head: bytes, address: tuple[int, int], future: Future[bytes]) -> None:
        self.http.ask(head, address, future)

    def _make_codec(self, batch: Batch) -> UdpCodec:
        ids = self.config.connection_ids
        peers = self.config.peers
        codec = UdpCodec(batch, self.records, self.sources, peers.default, peers.most, ids.windows, ids.answer_invalid)
        codec.set_error_limit(self.config.limits.errors)
        self._set_keys(codec)
        return codec

    def _set_keys(self, codec: UdpCodec) -> None:
        key = self.keys.connection_id
        # Until a gateway sees that the key was changed it makes ids with the old one, maybe in the next window.
        last = key.rotated // self.udp_window + 1
        codec.set_keys(key.current, key.previous or b"", last)

    @property
    def udp_window(self) -> int:
        """Seconds of a window of connection ids."""
        return self.config.connection_ids.window

    def _stamp(self) -> tuple[int, int]:
        try:
            status = self.key_file.stat()
        except OSError:
            return (0, 0)
        return (status.st_mtime_ns, status.st_ino)


def pack_networks(networks: Iterable[Network]) -> bytes:
    """Networks as the codec takes them: 16 bytes and a mask of 16 each, IPv4 in ::ffff:0:0/96."""
    packed = b""
    for item in networks:
        address = item.network.network_address.packed
        mask = item.network.netmask.packed
        if len(address) == 4:
            address = bytes(10) + b"\xff\xff" + address
            mask = b"\xff" * 12 + mask
        packed += address + mask
    return packed
