"""Where the peers of a user are, and what they are the peers of: a population made from a plan."""

from __future__ import annotations

import ipaddress
import math
import socket
from array import array
from typing import NamedTuple

from loadtests.load.plan import Part, Target
from loadtests.load.population import Population

FIRST_PORT = 10_000  # of peers
LOOPBACK6 = "::1"
APART = 128  # addresses of loopback that are kept for a user
FIRST_ADDRESS = int(ipaddress.IPv4Address("127.16.0.0"))
MOST_USERS = 60_000  # with addresses of loopback of their own


class Route(NamedTuple):
    """From where to where a source sends. Both addresses are numeric."""

    family: int
    address: str
    host: str
    port: int


def make(target: Target, part: Part, number: int) -> tuple[Population, list[Route]]:
    """The population of user `number`, and the routes of its sources.

    Raises OSError if the target is unknown or cannot be reached, and ValueError if a plan makes no sense.
    """
    routes = find_routes(target, part, number)
    sizes = sizes_of(part.torrents, len(routes) * part.ports, part.skew)
    packed = b"".join(socket.inet_pton(route.family, route.address).ljust(16, b"\0") for route in routes)
    families = bytes(route.family == socket.AF_INET6 for route in routes)
    seed = (target.seed * 1_000_003 + number) % 2**64
    population = Population(sizes, packed, families, FIRST_PORT, stride_of(sum(sizes)), seed)
    population.set_mix(part.hot, part.seeds, part.stops, part.completes)
    population.strict = part.strict
    return population, routes


def sizes_of(torrents: int, peers: int, skew: float) -> array[int]:
    """One peer for each torrent, the others in proportion to (n + 1) ** -skew. Raises ValueError."""
    if not 1 <= torrents <= peers:
        wanted = "expected at least a torrent, and a peer for each: a larger --scale, or more --sources"
        raise ValueError(f"{torrents:,} torrents for {peers:,} peers; {wanted}")
    weights = [(n + 1) ** -skew for n in range(torrents)]
    share = (peers - torrents) / sum(weights)
    sizes = array("I", [1 + int(weight * share) for weight in weights])
    for n in range(peers - sum(sizes)):  # what rounding left
        sizes[n % torrents] += 1
    return sizes


def stride_of(peers: int) -> int:
    """A number coprime to that of peers, so that neighbours of a swarm lie far apart and have many sources."""
    stride = max(int(peers * 0.618), 1)
    while math.gcd(stride, peers) > 1:
        stride += 1
    return stride


def find_routes(target: Target, part: Part, number: int) -> list[Route]:
    """The routes of a user's sources; those of IPv6 come last. On loopback there is one address of IPv6 only.

    Raises OSError and ValueError.
    """
    hosts = resolve(target)
    own = {family: own_addresses(target, host, part.sources, number) for family, host in hosts.items()}
    sixes, fours = own.get(socket.AF_INET6, []), own.get(socket.AF_INET, [])
    wanted = max(math.ceil(part.ipv6 * part.sources), part.sources - len(fours))
    sixes = sixes[:wanted]
    fours = fours[: part.sources - len(sixes)]
    routes = [Route(socket.AF_INET, address, hosts[socket.AF_INET], target.port) for address in fours]
    routes += [Route(socket.AF_INET6, address, hosts[socket.AF_INET6], target.port) for address in sixes]
    if not routes:
        raise ValueError(f"no source has an address from which {target.host} can be reached")
    return routes


def resolve(target: Target) -> dict[int, str]:
    """The target's address by family. Who is on loopback is there in both, if there is IPv6. Raises OSError."""
    found: dict[int, str] = {}
    for family, _, _, _, address in socket.getaddrinfo(target.host, target.port, type=socket.SOCK_DGRAM):
        found.setdefault(int(family), str(address[0]))
    if any(ipaddress.ip_address(address).is_loopback for address in found.values()):
        four = {int(socket.AF_INET): found.get(socket.AF_INET, "127.0.0.1")}
        return four | {int(socket.AF_INET6): LOOPBACK6} if has_ipv6() else four
    return found


def has_ipv6() -> bool:
    """Whether this machine has the loopback address of IPv6."""
    try:
        with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as sock:
            sock.bind((LOOPBACK6, 0))
    except OSError:
        return False
    return True


def own_addresses(target: Target, host: str, many: int, number: int) -> list[str]:
    """Addresses of this machine from which a host is reached. Raises OSError and ValueError."""
    is_ipv6 = ":" in host
    if target.sources:
        return [each for each in target.sources if (":" in each) == is_ipv6]
    if host.startswith("127."):
        if not 0 <= number < MOST_USERS or not 1 <= many <= APART:
            raise ValueError(f"1 to {APART} sources, and at most {MOST_USERS:,} users on loopback")
        first = FIRST_ADDRESS + APART * number
        return [str(ipaddress.IPv4Address(first + n)) for n in range(many)]
    with socket.socket(socket.AF_INET6 if is_ipv6 else socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.connect((host, target.port))  # sends nothing
        return [str(sock.getsockname()[0])]
