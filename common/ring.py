"""Which shard owns a slice: consistent hashing with weights, as `uhashring` has it.

It runs when a configuration is read, and yields a flat table. An added shard takes slices from all others and
moves none between them; a removed one leaves its slices to the others.
"""

from __future__ import annotations

from array import array
from hashlib import blake2b
from typing import TYPE_CHECKING

from uhashring import HashRing

if TYPE_CHECKING:
    from collections.abc import Sequence

# Points on the ring of a shard of weight 1. With 400, one to eight equal shards stay within 1.21 times the mean for
# each of the 16 ways of naming them that tests/common/test_ring.py tries; with 100 within 1.31 only, and with 800
# hardly less: then it is the 1,024 slices that are few. Slices are spaced evenly; hashed, as points are, they would
# add to the spread: 1.25 with 400 points, and 1.5 with 200.
POINTS = 400


class Ring:
    """The order in which shards come for each slice: the owner first.

    shards: names and weights. `order` holds the indexes of `shards`, `len(shards)` for each slice.
    """

    def __init__(self, shards: Sequence[tuple[str, float]], slices: int) -> None:
        self.names = [name for name, _ in shards]
        self.slices = slices
        index = {name: at for at, name in enumerate(self.names)}
        points = {name: {"vnodes": max(1, round(POINTS * weight)), "weight": 1} for name, weight in shards}
        self.order = array("H")
        for names in _orders(HashRing(points, hash_fn=_position).get_points(), slices):
            self.order.extend(index[name] for name in names)

    def owner(self, slice_id: int) -> int:
        """The index of the shard that owns a slice."""
        return self.order[slice_id * len(self.names)]

    def slices_of(self, shard: int) -> list[int]:
        """The slices that a shard owns."""
        return [slice_id for slice_id in range(self.slices) if self.owner(slice_id) == shard]

    def digest(self) -> int:
        """64 bits that differ when the table of owners does."""
        owners = "\n".join(self.names[self.owner(slice_id)] for slice_id in range(self.slices))
        return int.from_bytes(blake2b(owners.encode(), digest_size=8).digest(), "little")


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
