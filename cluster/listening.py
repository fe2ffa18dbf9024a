"""The listening sockets, opened before any worker lives and kept while workers come and go."""

import logging
import socket
from ipaddress import IPv6Address

import msgspec

from common.batch_io import prepare
from common.config import Config
from common.units import format_size
from common.values import Endpoint

log = logging.getLogger("shoal.listening")

RECEIVE_BUFFER = 8 << 20  # bytes: what arrives while the loop is elsewhere, or a worker is started again
SEND_BUFFER = 8 << 20  # bytes: the answers of a batch, which are given to the system at once
SO_SNDBUFFORCE, SO_RCVBUFFORCE = 32, 33  # of asm-generic/socket.h: root may exceed net.core.wmem_max and rmem_max


class ListenError(Exception):
    """An address cannot be listened on; the text names it, its place in the configuration and why."""


def open_sockets(config: Config) -> list[socket.socket]:
    """UDP sockets in the order of the first gateway's `listen`. Raises ListenError."""
    sockets: list[socket.socket] = []
    for index, endpoint in enumerate(config.gateways[0].listen):
        try:
            sockets.append(open_udp(endpoint))
        except OSError as error:
            for opened in sockets:
                opened.close()
            where = f"gateways[0].listen[{index}]"
            raise ListenError(f"{where}: cannot listen on {endpoint} (UDP): {error.strerror or error}") from None
    report_buffer(sockets[0])
    return sockets


def open_udp(endpoint: Endpoint) -> socket.socket:
    """A bound, non-blocking socket with large buffers. Raises OSError."""
    # getaddrinfo turns a zone (fe80::1%eth0) into its number.
    family, kind, protocol, _, address = socket.getaddrinfo(
        str(endpoint.address), endpoint.port, type=socket.SOCK_DGRAM, flags=socket.AI_NUMERICHOST
    )[0]
    sock = socket.socket(family, kind, protocol)
    try:
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        enlarge_buffers(sock)
        prepare(sock)  # before the first datagram comes: it must tell its local address too
        sock.bind(address)
    except OSError:
        sock.close()
        raise
    return sock


def enlarge_buffers(sock: socket.socket) -> None:
    """As large buffers as this user may have."""
    for forced, option, size in (
        (SO_RCVBUFFORCE, socket.SO_RCVBUF, RECEIVE_BUFFER),
        (SO_SNDBUFFORCE, socket.SO_SNDBUF, SEND_BUFFER),
    ):
        try:
            sock.setsockopt(socket.SOL_SOCKET, forced, size)
        except OSError:
            sock.setsockopt(socket.SOL_SOCKET, option, size)


def report_buffer(sock: socket.socket) -> None:
    """Tell an operator whose kernel allows less than we ask for."""
    size = sock.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF) // 2  # Linux counts its own bookkeeping, twice
    if size < RECEIVE_BUFFER:
        log.info(
            "UDP receive buffers are %s, bursts may be lost; "
            "to have %s: sysctl net.core.rmem_max=%d net.core.wmem_max=%d",
            format_size(size),
            format_size(RECEIVE_BUFFER),
            RECEIVE_BUFFER,
            SEND_BUFFER,
        )


def without_ipv6(config: Config) -> Config:
    """The embedded default for a machine whose kernel has no IPv6."""
    gateway = config.gateways[0]
    listen = tuple(endpoint for endpoint in gateway.listen if not isinstance(endpoint.address, IPv6Address))
    return msgspec.structs.replace(config, gateways=(msgspec.structs.replace(gateway, listen=listen),))


def has_ipv6() -> bool:
    """Whether the kernel knows IPv6 at all."""
    try:
        socket.socket(socket.AF_INET6, socket.SOCK_DGRAM).close()
    except OSError:
        return False
    return True
