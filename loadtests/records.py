"""Frames of records as a gateway would make them, in bulk, for benches of the shard alone."""

from __future__ import annotations

import struct
from random import Random
from typing import TYPE_CHECKING

from common import frames
from common.batch_io import allocate
from shard import slice_store

if TYPE_CHECKING:
    from collections.abc import Iterable

INTERVAL = 1800
LIFETIME = 3270
FRAME = 1024  # records: as many as a gateway takes with one system call

_HEADER = struct.Struct("<HHIQQQ")
_RECORD = struct.Struct("<48sQ20s10sHIHBB")


class Swarms:
    """`torrents` swarms of about `peers` peers in all: swarm i has peers in proportion to 1 / sqrt(i + 1).

    Swarms are asked for in proportion to their size, as the yardstick's load has it.
    """

    def __init__(self, torrents: int, peers: int, seed: int = 1) -> None:
        self.random = Random(seed)
        scale = peers / (2 * torrents**0.5)
        self.sizes = [max(1, round(scale / (i + 1) ** 0.5)) for i in range(torrents)]
        self.hashes = [(self.random.getrandbits(64), self.random.randbytes(20)) for _ in range(torrents)]

    def all_peers(self) -> list[tuple[int, int]]:
        """Every peer once, in random order."""
        everyone = [(swarm, peer) for swarm, size in enumerate(self.sizes) for peer in range(size)]
        self.random.shuffle(everyone)
        return everyone

    def pick(self) -> tuple[int, int]:
        """A random peer of a random swarm."""
        swarm = int(len(self.sizes) * self.random.random() ** 2)
        return swarm, self.random.randrange(self.sizes[swarm])

    def record(self, swarm: int, peer: int, event: int = 0, want: int = 50) -> bytes:
        """An announce of a peer with a public IPv4 address of its own, a leecher."""
        hashed, info_hash = self.hashes[swarm]
        number = (swarm * 1_000_003 + peer) * 2_654_435_761 % 0x5900_0000
        address = int.from_bytes((0x0B00_0000 + number).to_bytes(4, "big"), "little")  # 11.0.0.0 to 99.255.255.255
        return _RECORD.pack(bytes(48), hashed, info_hash, bytes(10), 0xFFFF, address, 0xE11A, event, want)

    def frames_of(self, peers: Iterable[tuple[int, int]]) -> Iterable[bytes]:
        """Frames of FRAME records each, the last perhaps shorter."""
        records = []
        for swarm, peer in peers:
            records.append(self.record(swarm, peer))
            if len(records) == FRAME:
                yield frame(records)
                records = []
        if records:
            yield frame(records)


def frame(records: list[bytes]) -> bytes:
    """A frame of records."""
    return _HEADER.pack(frames.VERSION, frames.RECORDS, len(records), 1, 0, 0) + b"".join(records)


def make_store(memory: int, slices: int = 1024) -> slice_store.SliceStore:
    """A store that refuses nobody. `memory`: its ceiling in bytes."""
    room = memory - slice_store.overhead(slices)
    return slice_store.SliceStore(allocate(room), slices, INTERVAL, LIFETIME, 65_535, (1 << 32) - 1, 0x5EED)


def reply_buffer(records: int = 1024) -> memoryview:
    """Room for the replies to a frame."""
    return allocate(frames.HEADER + records * slice_store.LARGEST_REPLY)
