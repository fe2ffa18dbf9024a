"""The population of a locust user: how many peers its swarms have, and where they come from."""

from __future__ import annotations

import socket
from array import array
from ipaddress import ip_address
from itertools import accumulate
from math import gcd
from typing import NamedTuple

from loadtests.load.plan import Part, Target
from loadtests.load.population import Population

FIRST_PORT = 1024
APART = 128  # addresses of loopback that are kept for a user
LOOPBACK = 127 << 24 | 16 << 16  # 127.16.0.0, where they begin
USERS = (1 << 24) // APART // 2


class Source(NamedTuple):
    """Where requests come from, and whom they go to from there."""

    family: socket.AddressFamily
    local: str
    target: tuple[str, int]


def populate(part: Part, target: Target, number: int) -> tuple[Population, list[Source]]:
    """What user `number` of a run has. Raises ValueError, and OSError if the tracker's name has no address."""
    sources = choose_sources(part, target, number)
    sizes = spread(part.torrents, len(sources) * part.ports, part.skew)
    addresses = b"".join(ip_address(source.local).packed.ljust(16, b"\0") for source in sources)
    families = bytes(source.family == socket.AF_INET6 for source in sources)
    seed = (target.seed * 1_000_003 + number) % 2**64
    population = Population(sizes, addresses, families, FIRST_PORT, stride_for(sum(sizes)), seed)
    population.set_mix(part.hot, part.seeds, part.stops, part.completes)
    population.strict = part.strict
    return population, sources


def spread(torrents: int, peers: int, skew: float) -> array[int]:
    """One peer for each torrent, the others in proportion to (n + 1) ** -skew. Raises ValueError."""
    if not 1 <= torrents <= peers:
        raise ValueError(f"{torrents:,} torrents for {peers:,} peers: expected at least a torrent, and a peer for each")
    weights = [(n + 1) ** -skew for n in range(torrents)]
    scale = (peers - torrents) / sum(weights)
    ends = [0, *(round(end * scale) for end in accumulate(weights))]
    return array("I", (1 + end - begin for begin, end in zip(ends, ends[1:], strict=False)))


def stride_for(peers: int) -> int:
    """About 0.618 of the peers and coprime to their count: neighbours of a swarm lie far apart."""
    return next(stride for stride in range(max(1, int(peers * 0.618)), 2 * peers + 1) if gcd(stride, peers) == 1)


def choose_sources(part: Part, target: Target, number: int) -> list[Source]:
    """Where a user's requests come from. Raises ValueError, OSError."""
    given = target.sources or local_sources(part, target, number)
    return [to(address, target) for address in given]


def local_sources(part: Part, target: Target, number: int) -> tuple[str, ...]:
    """Addresses of loopback, ::1 as the last if IPv6 is asked for; for another host, that of this machine."""
    if not is_loopback(target.host):
        return (towards(target),)
    if not 1 <= part.sources <= APART or not 0 <= number < USERS:
        raise ValueError(f"1 to {APART} sources, and at most {USERS:,} users")
    first = LOOPBACK + number * APART
    many = part.sources - (part.ipv6 > 0 and part.sources > 1)
    addresses = tuple(str(ip_address(first + n)) for n in range(many))
    return addresses + ("::1",) * (part.sources - many)


def is_loopback(host: str) -> bool:
    """Whether a host is this machine, by a name or address that says so."""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def to(address: str, target: Target) -> Source:
    """A source with the tracker's address in its family. Raises OSError if it has none."""
    family = socket.AF_INET6 if ip_address(address).version == 6 else socket.AF_INET
    if is_loopback(target.host):
        return Source(family, address, ("::1" if family == socket.AF_INET6 else "127.0.0.1", target.port))
    found = socket.getaddrinfo(target.host, target.port, family, socket.SOCK_DGRAM)
    return Source(family, address, (str(found[0][4][0]), target.port))


def towards(target: Target) -> str:
    """This machine's address on the way to the tracker. Raises OSError."""
    family, kind, _, _, address = socket.getaddrinfo(target.host, target.port, 0, socket.SOCK_DGRAM)[0]
    with socket.socket(family, kind) as sock:
        sock.connect(address)
        return str(sock.getsockname()[0])
