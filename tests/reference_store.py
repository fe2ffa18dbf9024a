"""The store as plain dicts: what a slice store must do, without a thought for memory or speed."""

from dataclasses import dataclass, field
from functools import cache
from ipaddress import ip_address, ip_network

from packing import Endpoint, Request, Section

from common import frames

LOCAL = [
    ip_network(each)
    for each in (
        *("10.0.0.0/8", "127.0.0.0/8", "192.168.0.0/16", "172.16.0.0/12", "169.254.0.0/16", "100.64.0.0/10"),
        *("fc00::/7", "fe80::/10", "::1/128"),
    )
]
KEEP_COMPLETED = 24 * 3600

Key = tuple[int, Endpoint]  # a kind of peers, and one of them


@cache
def is_local(address: str) -> bool:
    return any(ip_address(address) in network for network in LOCAL if network.version == ip_address(address).version)


@cache
def key_of(address: str, port: int) -> Key:
    family = frames.PUBLIC6 if ":" in address else frames.PUBLIC4
    if port < 2:
        return family + frames.HIDDEN4, (address, 0)  # never listed, one an address
    return family + (frames.LOCAL4 if is_local(address) else frames.PUBLIC4), (address, port)


@cache
def source_of(address: str) -> str:
    return str(ip_network(f"{address}/{64 if ':' in address else 32}", strict=False))


@dataclass
class Peer:
    seen: int
    seeder: bool
    completed: bool = False
    partial: bool = False


@dataclass
class Swarm:
    peers: dict[Key, Peer] = field(default_factory=dict)
    completed: int = 0
    empty_since: int | None = None

    @property
    def seeders(self) -> int:
        return sum(peer.seeder for peer in self.peers.values())

    @property
    def leechers(self) -> int:
        return len(self.peers) - self.seeders

    @property
    def partial_seeds(self) -> int:
        return sum(peer.partial for peer in self.peers.values())

    def listable(self, request: Request, is_ipv6: bool) -> tuple[set[Endpoint], set[Endpoint]]:
        """Who may be listed to an asker, of one family: those to list first, and the others."""
        own = key_of(request.address, request.port)
        family = frames.PUBLIC6 if is_ipv6 else frames.PUBLIC4
        found: dict[int, set[Endpoint]] = {family + frames.LOCAL4: set(), family: set()}
        for key, peer in self.peers.items():
            if key != own and key[0] in found and not (request.seeder and peer.seeder):
                found[key[0]].add(key[1])
        return (found[family + frames.LOCAL4] if is_local(request.address) else set()), found[family]


class ReferenceStore:
    def __init__(self, lifetime: int, swarm_limit: int, entry_limit: int, slices: int) -> None:
        self.lifetime = lifetime
        self.swarm_limit = swarm_limit
        self.entry_limit = entry_limit
        self.slices = slices
        self.swarms: dict[bytes, Swarm] = {}
        self.newcomers: dict[tuple[str, int], int] = {}
        self.states = [frames.STATE_FULL] * slices
        self.changes = [0] * slices
        self.asked = [0] * slices  # when somebody was answered from a slice that is not full
        self.arrivals = 0  # records for slices of which there was nothing

    def slice_of(self, info_hash: bytes) -> int:
        """The slice of an info-hash, which is its own SipHash here."""
        return int.from_bytes(info_hash[:2], "little") % self.slices

    def swarms_of(self, slice_id: int) -> dict[bytes, Swarm]:
        return {each: swarm for each, swarm in self.swarms.items() if self.slice_of(each) == slice_id}

    def held(self, slice_id: int) -> tuple[int, int, int]:
        """Swarms, leechers and seeders of a slice."""
        swarms = self.swarms_of(slice_id).values()
        return len(swarms), sum(swarm.leechers for swarm in swarms), sum(swarm.seeders for swarm in swarms)

    def note_change(self, info_hash: bytes) -> None:
        """Something was stored that other copies of the slice may lack."""
        slice_id = self.slice_of(info_hash)
        self.changes[slice_id] += 1
        if self.states[slice_id] == frames.STATE_NONE:
            self.states[slice_id] = frames.STATE_PART
            self.arrivals += 1

    def announce(self, request: Request, now: int, fits: bool = True) -> int:
        """Apply an announce; returns the status of its answer.

        `fits`: the store had memory for it. If not, a known peer keeps its role, a new one is not stored.
        """
        status = self.apply(request, now, fits)
        slice_id = self.slice_of(request.info_hash)
        if not request.no_reply and self.states[slice_id] != frames.STATE_FULL:
            self.asked[slice_id] = now
        return status

    def apply(self, request: Request, now: int, fits: bool) -> int:
        swarm = self.swarms.get(request.info_hash, Swarm())
        key = key_of(request.address, request.port)
        if request.event == frames.EVENT_STOPPED:
            if swarm.peers.pop(key, None):
                self.forget_empty(request.info_hash, now)
            return frames.STATUS_OK
        partial = request.event == frames.EVENT_PAUSED and not request.seeder
        peer = swarm.peers.get(key)
        if peer:
            finished = request.seeder and (request.event == frames.EVENT_COMPLETED or not peer.seeder)
        else:
            if not self.is_welcome(request, now) or not fits:
                return frames.STATUS_NOT_STORED
            finished = request.seeder and request.event == frames.EVENT_COMPLETED
            peer = swarm.peers[key] = Peer(now, request.seeder)
            swarm.empty_since = None
            self.swarms[request.info_hash] = swarm
        self.note_change(request.info_hash)
        swarm.completed += finished and not peer.completed
        peer.seen, peer.partial = now, partial and fits
        peer.completed |= finished
        if fits:
            peer.seeder = request.seeder
        return frames.STATUS_OK if fits else frames.STATUS_NOT_STORED

    def is_welcome(self, request: Request, now: int) -> bool:
        """Whether the limits let a new peer be stored; counts its swarm if that is new too."""
        source = source_of(request.address)
        if not request.exempt and self.has_too_many(source):
            return False
        if request.info_hash in self.swarms:
            return True
        made = self.newcomers.get((source, now // 60), 0)
        if made < self.swarm_limit:
            self.newcomers[source, now // 60] = made + 1
        return made < self.swarm_limit or request.exempt

    def has_too_many(self, source: str) -> bool:
        if sum(len(swarm.peers) for swarm in self.swarms.values()) < self.entry_limit:
            return False
        addresses = (address for swarm in self.swarms.values() for _, (address, _) in swarm.peers)
        return sum(source_of(address) == source for address in addresses) >= self.entry_limit

    def expire(self, now: int) -> None:
        """What a sweep through everything does."""
        for info_hash, swarm in list(self.swarms.items()):
            swarm.peers = {key: peer for key, peer in swarm.peers.items() if now - peer.seen <= self.lifetime}
            self.forget_empty(info_hash, now)
            if swarm.empty_since is not None and now - swarm.empty_since > KEEP_COMPLETED:
                del self.swarms[info_hash]

    def forget_empty(self, info_hash: bytes, now: int) -> None:
        """A swarm without peers stays for a while if it counts completions."""
        swarm = self.swarms[info_hash]
        if not swarm.peers and not swarm.completed:
            del self.swarms[info_hash]
        elif not swarm.peers and swarm.empty_since is None:
            swarm.empty_since = now

    def merge(self, section: Section, now: int) -> int:
        """Merge what another store dumped; returns how many peers that changed."""
        if not section.peers and section.kind > KEEP_COMPLETED // 3600:
            return 0
        swarm = self.swarms.setdefault(section.info_hash, Swarm())
        slice_id = self.slice_of(section.info_hash)
        self.changes[slice_id] += section.completed > swarm.completed
        swarm.completed = max(swarm.completed, section.completed)
        merged = 0
        for endpoint, age, bits in section.peers:
            known = swarm.peers.get((section.kind, endpoint))
            seeder = bits & frames.PEER_SEEDER != 0
            if age > self.lifetime:
                continue
            if known and (age, not seeder) >= (now - known.seen, not known.seeder):
                continue
            completed = bits & frames.PEER_COMPLETED != 0 or (known is not None and known.completed)
            partial = bits & frames.PEER_PARTIAL != 0 and not seeder
            swarm.peers[section.kind, endpoint] = Peer(now - age, seeder, completed, partial)
            swarm.empty_since = None
            merged += 1
        if not section.peers and not swarm.peers:  # the kind is then the hours since the last peer left
            swarm.empty_since = max(1, now - section.kind * 3600, swarm.empty_since or 0)
        self.changes[slice_id] += merged
        self.forget_empty(section.info_hash, now)
        return merged
