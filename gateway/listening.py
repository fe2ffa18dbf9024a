"""The listening sockets of a gateway, opened before it lives and kept while workers come and go."""

import contextlib
import logging
import resource
import socket
from ipaddress import IPv6Address

import msgspec
from psutil import net_if_addrs

from common.batch_io import is_fixed, prepare
from common.config import Config, Gateway
from common.sockets import BACKLOG, RECEIVE_BUFFER, SEND_BUFFER, enlarge_buffers, is_shared, share
from common.units import format_size
from common.values import Endpoint

log = logging.getLogger("shoal.listening")

DEFER = 2  # seconds that one may wait for its request before we hear of it
CHOICES = 16  # of port 0, which the system chooses for UDP: it may be taken for TCP
MOST_ADDRESSES = 16  # of a family that have a socket of their own


class ListenError(Exception):
    """An address cannot be listened on; the text names it, its place in the configuration and why."""


def open_sockets(config: Config, gateway: Gateway, *, beside: bool = False) -> list[socket.socket]:
    """UDP sockets in the order of the gateway's `listen`, TCP sockets likewise, then those of `open_fixed`.

    beside: also where others listen who share their ports for a moment; to be followed by `set_shared`.
    Raises ListenError.
    """
    datagrams: list[socket.socket] = []
    streams: list[socket.socket] = []
    for index, endpoint in enumerate(gateway.listen):
        try:
            both = open_both(endpoint, shared=beside or is_common(config, gateway, endpoint))
        except ListenError as error:
            for opened in datagrams + streams:
                opened.close()
            place = config.gateways.index(gateway)
            raise ListenError(f"gateways[{place}].listen[{index}]: {error}") from None
        datagrams.append(both[0])
        streams.append(both[1])
    report_buffer(datagrams[0])
    return datagrams + streams + open_fixed(datagrams)


def set_shared(config: Config, gateway: Gateway, sockets: list[socket.socket]) -> None:
    """Have a gateway's sockets, as `open_sockets` gives them, share their ports where the configuration wants it."""
    many = len(gateway.listen)
    for at, sock in enumerate(sockets[: 2 * many]):
        share(sock, is_common(config, gateway, gateway.listen[at % many]))
    wildcards = {(sock.family, sock.getsockname()[1]): sock for sock in sockets[:many] if not is_fixed(sock)}
    for sock in sockets[2 * many :]:
        share(sock, is_shared(wildcards[sock.family, sock.getsockname()[1]]))


def is_common(config: Config, gateway: Gateway, endpoint: Endpoint) -> bool:
    """Whether another gateway of the node has the same endpoint: then the system deals out what comes there.

    By a digest of both ends' addresses and ports, among sockets that are bound to the same address and belong to
    the same user, who opened them.
    """
    if endpoint.port == 0:  # each has a port of its own
        return False
    others = (one for one in config.gateways if one is not gateway)
    return any(endpoint in one.listen and config.node_of(one) == config.node_of(gateway) for one in others)


def open_both(endpoint: Endpoint, *, shared: bool) -> tuple[socket.socket, socket.socket]:
    """A UDP and a TCP socket at one port. Raises ListenError."""
    tries = 1 if endpoint.port else CHOICES
    while True:
        datagrams = None
        try:
            datagrams = open_udp(endpoint, shared=shared)
            return datagrams, open_tcp(endpoint, datagrams.getsockname()[1], shared=shared)
        except OSError as error:
            kind = "UDP" if datagrams is None else "TCP"
            if datagrams is not None:
                datagrams.close()
            tries -= 1
            if not tries:
                raise ListenError(f"cannot listen on {endpoint} ({kind}): {error.strerror or error}") from None


def open_fixed(sockets: list[socket.socket]) -> list[socket.socket]:
    """For those that listen on all addresses a socket of its own for each address that the machine has now.

    Their answers need not be told where to come from, which costs 4 % of an announce; the kernel prefers them.
    What is sent to an address that the machine gets later comes to those that listen on all.
    """
    opened: list[socket.socket] = []
    for sock in sockets:
        if is_fixed(sock):
            continue
        port = sock.getsockname()[1]
        shared = is_shared(sock)
        # Set after it was bound: nobody else could take the port, and once all are open nobody can again.
        share(sock, True)
        found = [open_beside(sock.family, address, port) for address in own_addresses(sock.family)]
        mine = [extra for extra in found if extra is not None]
        for one in (sock, *mine):
            share(one, shared)
        opened += mine
    return opened


def own_addresses(family: socket.AddressFamily) -> list[str]:
    """Addresses of this machine, but for link-local ones, which need a zone."""
    mine = [item.address for items in net_if_addrs().values() for item in items if item.family == family]
    return [address for address in dict.fromkeys(mine) if "%" not in address][:MOST_ADDRESSES]


def open_beside(family: socket.AddressFamily, address: str, port: int) -> socket.socket | None:
    """A socket bound to one address beside one that is bound to all; None if it cannot be had."""
    sock = socket.socket(family, socket.SOCK_DGRAM)
    try:
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        share(sock, True)
        enlarge_buffers(sock)
        sock.bind((address, port))
        sock.setblocking(False)
    except OSError:  # taken, or not ready yet: the other socket hears what comes there
        sock.close()
        return None
    return sock


def open_udp(endpoint: Endpoint, *, shared: bool = False) -> socket.socket:
    """A bound, non-blocking socket with large buffers. Raises OSError."""
    # getaddrinfo turns a zone (fe80::1%eth0) into its number.
    family, kind, protocol, _, address = socket.getaddrinfo(
        str(endpoint.address), endpoint.port, type=socket.SOCK_DGRAM, flags=socket.AI_NUMERICHOST
    )[0]
    sock = socket.socket(family, kind, protocol)
    try:
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        share(sock, shared)
        enlarge_buffers(sock)
        prepare(sock)  # before the first datagram comes: it must tell its local address too
        sock.bind(address)
        prepare(sock)  # it need not if there is but one
    except OSError:
        sock.close()
        raise
    return sock


def open_tcp(endpoint: Endpoint, port: int, *, shared: bool = False) -> socket.socket:
    """A listening socket at an endpoint's address, which wakes us when a connection's request has come."""
    family, kind, protocol, _, address = socket.getaddrinfo(
        str(endpoint.address), port, type=socket.SOCK_STREAM, flags=socket.AI_NUMERICHOST
    )[0]
    sock = socket.socket(family, kind, protocol)
    try:
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        share(sock, shared)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # connections of the last life may linger
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_DEFER_ACCEPT, DEFER)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # accepted sockets have it too
        sock.setblocking(False)
        sock.bind(address)
        sock.listen(BACKLOG)
    except OSError:
        sock.close()
        raise
    return sock


def allow_files() -> None:
    """As many open files as this user may have: each connection is one. Workers inherit the limit."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(OSError, ValueError):  # a limit that cannot be raised stays
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


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
