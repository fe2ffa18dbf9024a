"""A gateway at work: owns its sockets, codec and router; stateless, so it may be stopped at any time."""

from __future__ import annotations

import logging
import secrets
from time import time
from typing import TYPE_CHECKING

from common import keys, metrics
from common.batch_io import Batch, is_fixed, prepare
from gateway.router import Link, Router
from gateway.udp_codec import UdpCodec
from gateway.udp_server import UdpServer

if TYPE_CHECKING:
    import socket
    from asyncio import AbstractEventLoop
    from collections.abc import Callable, Iterable, Sequence

    from prometheus_client.metrics_core import Metric

    from common.config import Config
    from common.values import Network

log = logging.getLogger(__name__)


class GatewayService:
    """Speaks UDP on `sockets`. `links` are made by `connect`, which is given the router they reply to.

    Raises KeyFileError if the key files cannot be read.
    """

    def __init__(
        self,
        config: Config,
        sockets: list[socket.socket],
        connect: Callable[[Router], Sequence[Link]],
        links: int,
        wall: Callable[[], float] = time,
    ) -> None:
        self.config = config
        self.wall = wall
        self.key_file = config.data / keys.CONNECTION_ID
        self.key_stamp = self._stamp()
        self.keys = keys.load_or_create(config.data)
        self.secret = secrets.randbits(64)
        for sock in sockets:
            prepare(sock)
        batch = Batch([sock.family for sock in sockets], fixed=[is_fixed(sock) for sock in sockets])
        self.codec = self._make_codec(batch, links)
        self.router = Router(self.codec)
        self.router.links = list(connect(self.router))
        self.udp = UdpServer(sockets, batch, self.codec, self.router, config.connection_ids.window, wall)

    def start(self, loop: AbstractEventLoop) -> None:
        """Begin to read."""
        self.udp.start(loop)

    def tick(self) -> None:
        """Take up a rotated key, give up late scrapes; to be called every second."""
        self.udp.tick()
        if self._stamp() != self.key_stamp:
            self.reload_keys()

    def stop(self, loop: AbstractEventLoop) -> None:
        """Stop reading. Nothing else is to be done: what was asked is answered."""
        self.udp.stop(loop)

    def reload_keys(self) -> None:
        """Read the connection-id key again; the one in use stays if the file is wrong."""
        self.key_stamp = self._stamp()
        try:
            # The cluster key stays: slices are where it put them.
            self.keys = keys.Keys(self.keys.cluster, keys.load_connection_key(self.key_file))
        except keys.KeyFileError as error:
            log.error("the connection-id key is not taken up: %s", error)
            return
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
        drops = metrics.socket_drops(self.udp.inodes)
        yield metrics.counter("shoal_socket_drops", "Datagrams dropped, as a socket's buffer was full", drops)

    def _make_codec(self, batch: Batch, links: int) -> UdpCodec:
        wanted = self.config.limits
        ids = self.config.connection_ids
        peers = self.config.peers
        codec = UdpCodec(batch, links, self.config.slices, peers.default, peers.most, ids.windows, ids.answer_invalid)
        codec.set_limits(
            wanted.connects.rate, wanted.connects.burst, wanted.requests.rate, wanted.requests.burst, wanted.errors
        )
        codec.set_networks(pack_networks(wanted.exempt), pack_networks(self.config.trust_ip_field))
        self._set_keys(codec)
        return codec

    def _set_keys(self, codec: UdpCodec) -> None:
        key = self.keys.connection_id
        # Until a gateway sees that the key was changed it makes ids with the old one, maybe in the next window.
        last = key.rotated // self.udp_window + 1
        codec.set_keys(self.keys.cluster, key.current, key.previous or b"", last, self.secret)

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
