"""Records, replies and chunks for tests, packed and unpacked by the tables of common/frames.py."""

import struct
from array import array
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from ipaddress import IPv4Address, IPv6Address, ip_address
from itertools import accumulate

from common import frames

Endpoint = tuple[str, int]

HEADER = struct.Struct("<HHIQQQ")
REPLY = struct.Struct("<IBBHHHI48s")
SECTION = struct.Struct("<20sHBBI")


@cache
def packed(address: str) -> bytes:
    return ip_address(address).packed


@cache
def unpacked(address: bytes) -> str:
    return str(IPv6Address(address) if len(address) == 16 else IPv4Address(address))


@dataclass(frozen=True)
class Request:
    """One record, by the words of the protocol. The SipHash is the info-hash's first 8 bytes unless given."""

    info_hash: bytes = bytes(20)
    address: str = "192.0.2.1"
    port: int = 6881
    event: int = frames.EVENT_NONE
    seeder: bool = False
    want: int = 50
    both: bool = False
    exempt: bool = False
    no_reply: bool = False
    ticket: bytes = bytes(48)
    sip_hash: int | None = field(default=None)

    def but(self, **changes: object) -> "Request":
        return replace(self, **changes)  # type: ignore[arg-type]

    @property
    def is_ipv6(self) -> bool:
        return ":" in self.address

    def pack(self) -> bytes:
        flags = (
            self.event
            | self.seeder * frames.FLAG_SEEDER
            | self.no_reply * frames.FLAG_NO_REPLY
            | self.both * frames.FLAG_BOTH_FAMILIES
            | self.is_ipv6 * frames.FLAG_IPV6
            | self.exempt * frames.FLAG_EXEMPT
        )
        sip_hash = self.info_hash[:8] if self.sip_hash is None else struct.pack("<Q", self.sip_hash)
        address = packed(self.address) if self.is_ipv6 else bytes(10) + b"\xff\xff" + packed(self.address)
        end = struct.pack(">HBB", self.port, flags, self.want)
        return self.ticket + sip_hash + self.info_hash + address + end


def pack_frame(requests: list[Request], number: int = 7, boot: int = 8, tick: int = 9) -> bytes:
    records = b"".join(request.pack() for request in requests)
    return HEADER.pack(frames.VERSION, frames.RECORDS, len(requests), number, boot, tick) + records


def pack_links(table: Sequence[int], copies: Sequence[Sequence[int]] = ()) -> tuple[memoryview, memoryview, memoryview]:
    """What `Records.set_links` takes: who answers for each slice, and who gets copies of its records."""
    copies = copies or [()] * len(table)
    flat = array("H", [link for row in copies for link in row])
    first = array("I", accumulate(map(len, copies), initial=0))
    return memoryview(array("H", table)), memoryview(first), memoryview(flat)


@dataclass(frozen=True)
class Reply:
    """A reply to an announce or, with `scraped`, to a scrape."""

    status: int
    completed: int
    ticket: bytes
    leechers: int
    seeders: int
    interval: int = 0
    is_part: bool = False
    own: tuple[Endpoint, ...] = ()
    other: tuple[Endpoint, ...] = ()
    partial_seeds: int = 0


def unpack_endpoints(raw: bytes, is_ipv6: bool) -> tuple[Endpoint, ...]:
    length = 18 if is_ipv6 else 6
    found = []
    for at in range(0, len(raw), length):
        port = int.from_bytes(raw[at + length - 2 : at + length])
        found.append((unpacked(raw[at : at + length - 2]), port))
    return tuple(found)


def unpack_reply(packed: bytes, is_scrape: bool = False) -> Reply:
    length, status, part, own, other, zero, completed, ticket = REPLY.unpack_from(packed)
    assert length == len(packed)
    first, second, third = struct.unpack_from(">III", packed, frames.AT_INTERVAL)
    if is_scrape:
        assert own == 0 and len(packed) == frames.REPLY and second == completed
        return Reply(status, completed, ticket, third, first, is_part=part & 1 == 1, partial_seeds=other | zero << 16)
    is_ipv6 = part & 2 == 2
    middle = frames.REPLY + own * (18 if is_ipv6 else 6)
    assert zero == 0 and length == middle + other * (6 if is_ipv6 else 18)
    return Reply(
        status,
        completed,
        ticket,
        second,
        third,
        interval=first,
        is_part=part & 1 == 1,
        own=unpack_endpoints(packed[frames.REPLY : middle], is_ipv6),
        other=unpack_endpoints(packed[middle:], not is_ipv6),
    )


def split_replies(frame: bytes) -> list[bytes]:
    """The replies of a frame, which must add up to it."""
    version, kind, count, *_ = HEADER.unpack_from(frame)
    assert (version, kind) == (frames.VERSION, frames.REPLIES)
    replies = []
    at = frames.HEADER
    for _ in range(count):
        length = int.from_bytes(frame[at : at + 4], "little")
        replies.append(frame[at : at + length])
        at += length
    assert at == len(frame)
    return replies


@dataclass(frozen=True)
class Section:
    """Peers of a swarm that lie together: (endpoint, age, PEER_* bits) each. Without peers, `kind` is in hours."""

    info_hash: bytes
    tag: int
    kind: int
    completed: int = 0
    peers: tuple[tuple[Endpoint, int, int], ...] = ()

    def pack(self) -> bytes:
        chunk = SECTION.pack(self.info_hash, self.tag, self.kind, len(self.peers), self.completed)
        for (address, port), age, bits in self.peers:
            chunk += packed(address) + struct.pack(">H", port) + struct.pack("<HB", age, bits)
        return chunk


def unpack_chunk(chunk: bytes) -> list[Section]:
    sections = []
    at = 0
    while at < len(chunk):
        info_hash, tag, kind, count, completed = SECTION.unpack_from(chunk, at)
        at += frames.SECTION
        length = 6 if kind < frames.PUBLIC6 else 18
        peers = []
        for _ in range(count):
            (endpoint,) = unpack_endpoints(chunk[at : at + length], kind >= frames.PUBLIC6)
            age, bits = struct.unpack_from("<HB", chunk, at + length)
            peers.append((endpoint, age, bits))
            at += length + 3
        sections.append(Section(info_hash, tag, kind, completed, tuple(peers)))
    assert at == len(chunk)
    return sections
