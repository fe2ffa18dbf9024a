"""What shards hold, slice by slice, as they say in the details of STATUS; in all, too, no copy counted twice."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from common import frames

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

    from common.ring import Ring

Document = dict[str, Any]
FIGURES = ("torrents", "leechers", "seeders")
SOME = (frames.STATE_PART, frames.STATE_LEAVING, frames.STATE_FULL)
WHOLE = (frames.STATE_FULL, frames.STATE_LEAVING)  # states of a copy that lacks nothing


class Copy(NamedTuple):
    """What a shard has of a slice."""

    state: int  # frames.STATE_NONE ...
    torrents: int = 0
    leechers: int = 0
    seeders: int = 0

    @property
    def peers(self) -> int:
        """Both kinds."""
        return self.leechers + self.seeders


Copies = dict[int, Copy]  # by slice
NOTHING = Copy(frames.STATE_NONE)


def copies_of(said: Document, slices: int) -> Copies | None:
    """What a shard has of each slice of which it has something; None if it did not say."""
    held = said.get("held")
    if held is None:
        return None
    rows = zip(held["slice"], *(held[name] for name in ("state", *FIGURES)), strict=True)
    return {slice_id: Copy(*rest) for slice_id, *rest in rows if slice_id < slices and rest[0]}


def largest(copies: Iterable[Copies]) -> Copies:
    """Of each slice the copy with most peers."""
    found: Copies = {}
    for held in copies:
        for slice_id, copy in held.items():
            best = found.get(slice_id, NOTHING)
            if best is NOTHING or (copy.peers, copy.torrents) > (best.peers, best.torrents):
                found[slice_id] = copy
    return found


def total(copies: Iterable[Copy]) -> dict[str, int]:
    """Torrents, leechers and seeders of copies of different slices."""
    each = list(copies)
    return {name: sum(getattr(copy, name) for copy in each) for name in FIGURES}


def elsewhere(held: Copies, ring: Ring, shard: int) -> Copies:
    """What a shard has of slices that it should not hold."""
    return {slice_id: copy for slice_id, copy in held.items() if shard not in ring.members_of(slice_id)}


def holders(slice_id: int, held: dict[str, Copies], states: Collection[int] = WHOLE) -> list[str]:
    """The shards that have a slice in one of these states."""
    return [name for name, copies in held.items() if copies.get(slice_id, NOTHING).state in states]
