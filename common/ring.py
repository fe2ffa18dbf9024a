"""Which shards own a slice and keep replicas of it: consistent hashing with weights, as `uhashring` has it.

It is made when a configuration is read, and yields a flat table. An added shard takes slices from all others and
moves none between them; a removed one leaves its slices to the others.
"""

from __future__ import annotations

from array import array
from copy import copy
from functools import lru_cache
from hashlib import blake2b
from typing import TYPE_CHECKING

from uhashring import HashRing

if TYPE_CHECKING:
    from collections.abc import Sequence

    from common.config import Config

# Points on the ring of a shard of weight 1. With 400, one to eight equal shards stay within 1.21 times the mean for
# each of the 16 ways of naming them that tests/common/test_ring.py tries; with 100 within 1.31 only, and with 800
# hardly less: then it is the 1,024 slices that are few. Slices are spaced evenly; hashed, as points are, they would
# add to the spread: 1.25 with 400 points, and 1.5 with 200.
POINTS = 400


class Ring:
    """The order in which shards come for each slice: the owner, its replicas, then the rest.

    shards: names and weights; one of weight 0 owns nothing, and comes last. nodes: of each shard its machine; replicas
    of a slice are on as many different ones as there are. replicas: beside the owner, as far as there are shards.
    `order` holds the indexes of `shards`, `len(shards)` for each slice, of which the first `members` should hold it.
    """

    def __init__(
        self, shards: Sequence[tuple[str, float]], slices: int, nodes: Sequence[str] = (), replicas: int = 0
    ) -> None:
        self._digest: int | None = None
        self.names = [name for name, _ in shards]
        self.slices = slices
        owners = [name for name, weight in shards if weight > 0]
        self.members = min(1 + replicas, len(owners))
        index = {name: at for at, name in enumerate(self.names)}
        points = {name: {"vnodes": max(1, round(POINTS * weight)), "weight": 1} for name, weight in shards if weight}
        idle = sorted(set(self.names) - set(owners))
        node_of = dict(zip(self.names, nodes or self.names, strict=True))
        self.order = array("H")
        for found in _orders(HashRing(points, hash_fn=_position).get_points(), slices):
            names = _spread(found, node_of, self.members) if self.members > 1 else found
            self.order.extend(index[name] for name in (*names, *idle))

    def owner(self, slice_id: int) -> int:
        """The index of the shard that owns a slice."""
        return self.order[slice_id * len(self.names)]

    def row(self, slice_id: int) -> array[int]:
        """The indexes of all shards, in their order for a slice."""
        many = len(self.names)
        return self.order[slice_id * many : (slice_id + 1) * many]

    def members_of(self, slice_id: int) -> array[int]:
        """The indexes of the shards that should hold a slice: its owner, then its replicas."""
        at = slice_id * len(self.names)
        return self.order[at : at + self.members]

    def slices_of(self, shard: int) -> list[int]:
        """The slices that a shard owns."""
        return [slice_id for slice_id in range(self.slices) if self.owner(slice_id) == shard]

    def held_by(self, shard: int) -> list[int]:
        """The slices that a shard should hold: those that it owns, and those of which it has a replica."""
        return [slice_id for slice_id in range(self.slices) if shard in self.members_of(slice_id)]

    def with_idle(self, names: Sequence[str]) -> Ring:
        """The same with shards more that own nothing: they come last."""
        ring = copy(self)
        many = len(self.names)
        ring.names = [*self.names, *names]
        last = array("H", range(many, many + len(names)))
        ring.order = array("H")
        for slice_id in range(self.slices):
            ring.order.extend(self.order[slice_id * many : (slice_id + 1) * many])
            ring.order.extend(last)
        return ring

    def digest(self) -> int:
        """64 bits that differ when the table of owners and replicas does."""
        if self._digest is None:
            rows = (" ".join(self.names[at] for at in self.members_of(slice_id)) for slice_id in range(self.slices))
            text = "\n".join(rows).encode()
            self._digest = int.from_bytes(blake2b(text, digest_size=8).digest(), "little")
        return self._digest


def ring_of(config: Config) -> Ring:
    """The ring that a configuration means."""
    shards = tuple((str(shard.name), shard.weight) for shard in config.shards)
    nodes = tuple(config.node_of(shard) for shard in config.shards)
    return _ring(shards, config.slices, nodes, config.replicas)


@lru_cache(8)  # one comes again when a shard departs or has departed, or an edit is taken back
def _ring(shards: tuple[tuple[str, float], ...], slices: int, nodes: tuple[str, ...], replicas: int) -> Ring:
    ring = Ring(shards, slices, nodes, replicas)
    ring.digest()  # made here too, as this may be done beside the loop
    return ring


def _spread(names: list[str], node_of: dict[str, str], members: int) -> list[str]:
    """The order, but that the first `members` are on different machines, as far as there are so many."""
    first: list[str] = []
    taken: set[str] = set()
    for name in names:
        if node_of[name] not in taken and len(first) < members:
            first.append(name)
            taken.add(node_of[name])
    rest = [name for name in names if name not in first]
    return first + rest


def _orders(points: list[tuple[int, str]], slices: int) -> list[list[str]]:
    """For each slice the names in the order of their first points behind it, around the ring.

    All in one walk against that order, where a point moves its name to the front. A search from each slice, which
    `uhashring` has, takes minutes if a shard of a small weight has few points among very many.
    """
    order = list(dict.fromkeys(name for _, name in points))
    found: list[list[str]] = []
    at = len(points)
    for slice_id in reversed(range(slices)):
        while at and points[at - 1][0] > ((2 * slice_id + 1) << 63) // slices:
            at -= 1
            name = points[at][1]
            if order[0] != name:
                order.remove(name)
                order.insert(0, name)
        found.append(order.copy())
    return found[::-1]


def _position(key: str) -> int:
    return int.from_bytes(blake2b(key.encode(), digest_size=8).digest(), "little")
