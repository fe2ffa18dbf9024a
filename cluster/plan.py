"""`shoal plan`: what an edit of the configuration would move, before anything happens. It asks and changes nothing.

By the ring of the edited file and by what shards say that they hold now. A shard that is to hold a slice, and has it
not in full, asks every other shard that has anything of it: so what is moved is counted by giver and taker.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from cluster import held, status
from cluster.held import NOTHING, Copy
from common import frames, uptake
from common.config_errors import ConfigError
from common.ring import ring_of
from shard import layout
from shard.copies import BODY

if TYPE_CHECKING:
    from collections.abc import Iterable

    from cluster.held import Copies
    from common.config import Config
    from common.ring import Ring

Document = dict[str, Any]
PEER4, PEER6 = 9, 21  # bytes of a peer in a section of a chunk
FRAME = frames.HEADER + BODY.size  # bytes of a SLICE frame without its chunk
CHUNK = frames.CHUNK - (frames.SECTION + layout.MOST * PEER6)  # a chunk ends when another section might not fit


def plan(old: Config | None, new: Config, node: str | None, timeout: float) -> Document:
    """What `new` would move after `old`; without that, after what runs. Raises ConfigError, also of an edit that
    running processes would refuse; KeyFileError."""
    if new.is_embedded and old is None:
        expected = "a configuration whose shards have links"
        raise ConfigError("shards", expected, "the embedded tracker, which has nobody to copy from")
    waiting = check_edit(old, new) if old is not None else []
    running = asked(old, new)
    return Plan(old, new, status.ask(running, node, timeout)).document(waiting)


def check_edit(old: Config, new: Config) -> list[str]:
    """Settings that would wait for the next start. Raises ConfigError if processes would not take up the edit."""
    waiting: dict[str, None] = {}
    for node in old.node_names():
        taken = uptake.taken_up(old, new, node)
        waiting |= dict.fromkeys(uptake.later(taken, new))
    return list(waiting)


def asked(old: Config | None, new: Config) -> Config:
    """A configuration with the shards of both, where the running ones are."""
    if old is None:
        return new
    nodes = {one.name: one for one in (*new.nodes, *old.nodes)}  # the key of a node is the one by which it runs
    names = {shard.name for shard in old.shards}
    shards = (*old.shards, *(shard for shard in new.shards if shard.name not in names))
    first = [one for one in old.nodes if one.name in nodes]
    rest = [one for name, one in nodes.items() if name not in {node.name for node in first}]
    return msgspec.structs.replace(old, nodes=(*first, *rest), shards=shards)


def bytes_of(copy: Copy, ipv6: float) -> int:
    """About how much a slice takes on a link. ipv6: the part of its peers that have such addresses."""
    sections = copy.torrents + copy.peers // layout.MOST
    body = sections * frames.SECTION + round(copy.peers * (PEER4 + ipv6 * (PEER6 - PEER4)))
    return body + FRAME * max(1, -(-body // CHUNK))


class Plan:
    """What is known, and what follows from it. shards: what each says, those of the old configuration first."""

    def __init__(self, old: Config | None, new: Config, shards: list[Document]) -> None:
        self.old = old
        self.new = new
        self.shards = {shard["name"]: shard for shard in shards}
        copies = {name: held.copies_of(shard, new.slices) for name, shard in self.shards.items()}
        self.held: dict[str, Copies] = {name: known for name, known in copies.items() if known is not None}
        self.ring = ring_of(new)
        self.ring_before = ring_of(old) if old is not None else None
        self.check_running()
        self.fills = {name: self.to_fill(name, at) for at, name in enumerate(self.ring.names)}

    def check_running(self) -> None:
        """Whether the shards that run would take it up. Raises ConfigError."""
        table = f"{self.ring.digest():016x}"
        for name, shard in self.shards.items():
            version = shard.get("config_version", 0)
            if version > self.new.version:
                expected = f"at least {version}, which {name} has taken up"
                raise ConfigError("version", expected, str(self.new.version))
            if version == self.new.version and shard.get("table", table) != table:
                expected = f"more than {version}, which {name} has taken up with other shards, weights or replicas"
                raise ConfigError("version", expected, str(self.new.version))

    # Who is who

    def before(self) -> list[str]:
        """The shards of the running cluster, as far as they are known."""
        if self.old is not None:
            return [str(shard.name) for shard in self.old.shards]
        return [name for name in self.shards if name in self.held or name in self.linked()]

    def linked(self) -> set[str]:
        """The shards that others are linked to."""
        return {link["shard"] for shard in self.shards.values() for link in shard.get("links", ())}

    def removed(self) -> list[str]:
        """The shards that the edit takes out."""
        return [name for name in self.before() if name not in self.ring.names]

    def added(self) -> list[str]:
        """The shards that the edit brings in."""
        return [name for name in self.ring.names if name not in self.before()]

    def silent(self) -> list[str]:
        """The shards that should be heard and are not, or do not say what they hold."""
        return [name for name in self.before() if name not in self.held]

    def not_asked(self) -> list[str]:
        """Shards that run and of which nothing else is known than that others are linked to them."""
        return sorted(self.linked() - self.shards.keys())

    # What moves

    def to_fill(self, name: str, at: int) -> list[int]:
        """The slices that a shard is to hold, and has not in full. A silent one had what it should have had."""
        wanted = self.ring.held_by(at)
        if name in self.held:
            mine = self.held[name]
            return [slice_id for slice_id in wanted if mine.get(slice_id, NOTHING).state != frames.STATE_FULL]
        if name in self.added():
            return wanted
        had = self.should_have(name)
        return [slice_id for slice_id in wanted if slice_id not in had]

    def should_have(self, name: str) -> set[int]:
        """What a silent shard should hold at present; of an unknown configuration, what nobody else holds."""
        if self.ring_before is None:
            return {slice_id for slice_id in range(self.new.slices) if not held.holders(slice_id, self.held)}
        return set(self.ring_before.held_by(self.ring_before.names.index(name)))

    def flows(self) -> list[Document]:
        """What is copied from which shard to which."""
        found: dict[tuple[str, str], Document] = {}
        for taker, slices in self.fills.items():
            for giver, copies in self.held.items():
                given = [copies[slice_id] for slice_id in slices if slice_id in copies and giver != taker]
                if given:
                    size = sum(bytes_of(copy, self.ipv6(giver)) for copy in given)
                    found[giver, taker] = {"from": giver, "to": taker, **count(given), "bytes": size}
        return [found[pair] for pair in sorted(found)]

    def ipv6(self, name: str) -> float:
        """The part of a shard's peers that have IPv6 addresses."""
        said = self.shards[name]
        return min(1.0, int(said.get("ipv6", 0)) / max(1, int(said.get("seeders", 0) + said.get("leechers", 0))))

    def mutual(self) -> Document:
        """What shards that fill a slice at once ask of each other, at most: nobody knows who is ahead."""
        takers: dict[int, int] = {}
        for slices in self.fills.values():
            for slice_id in slices:
                takers[slice_id] = takers.get(slice_id, 0) + 1
        known = held.largest(self.held.values())
        several = {slice_id: many for slice_id, many in takers.items() if many > 1 and slice_id in known}
        ipv6 = max(map(self.ipv6, self.held), default=0.0)
        size = sum(many * (many - 1) * bytes_of(known[slice_id], ipv6) for slice_id, many in several.items())
        return {"slices": len(several), "bytes": size}

    def drops(self) -> list[Document]:
        """What shards forget afterwards."""
        gone = {name: self.leaves(name) for name in self.held}
        return [{"shard": name, **count(copies.values())} for name, copies in gone.items() if copies]

    def leaves(self, name: str) -> Copies:
        """What a shard has and is not to hold."""
        if name not in self.ring.names:
            return self.held[name]
        return held.elsewhere(self.held[name], self.ring, self.ring.names.index(name))

    def lost(self) -> list[Document]:
        """What only shards have that the edit takes out; of silent ones the slices that they should hold."""
        staying = {name: copies for name, copies in self.held.items() if name in self.ring.names}
        alone = {one for one in range(self.new.slices) if not held.holders(one, staying)}
        found = []
        for name in self.removed():
            mine = self.held.get(name)
            if mine is None:
                slices = alone & self.should_have(name)
                copies = {}
            else:
                copies = {one: copy for one, copy in mine.items() if one in alone and copy.torrents}
                slices = set(copies)
            if slices:
                known = mine is not None
                found.append({"shard": name, "known": known, **count(copies.values()), "slices": len(slices)})
        return found

    def nowhere(self) -> int:
        """Slices of which no shard that is asked has anything; of an unknown configuration others may."""
        return sum(not held.holders(one, self.held, held.SOME) for one in range(self.new.slices))

    # Shares

    def shares(self) -> list[Document]:
        """What each shard has to hold, before and afterwards."""
        drops = {each["shard"]: each["slices"] for each in self.drops()}
        names = [*self.ring.names, *self.removed()]
        return [
            {
                "name": name,
                "change": "added" if name in self.added() else "removed" if name in self.removed() else "stays",
                "state": self.shards[name]["state"],
                "before": share(self.ring_before, self.old, name) or self.told_share(name),
                "after": share(self.ring, self.new, name),
                "fills": len(self.fills.get(name, ())),
                "drops": drops.get(name, 0),
                "memory": self.memory(name),
            }
            for name in names
        ]

    def told_share(self, name: str) -> Document | None:
        """What a shard says that it should hold, while the configuration before is not known."""
        if self.old is not None or "slices" not in self.shards[name]:
            return None
        return {"weight": None, "owns": None, "keeps": self.shards[name]["slices"]["wanted"]}

    def memory(self, name: str) -> Document:
        """About how many bytes a shard takes once it has filled, by what the same costs those who have it now."""
        said = self.shards[name].get("memory", {"taken": 0, "ceiling": 0})
        sizes = {str(shard.name): int(shard.memory) for shard in self.new.shards}
        more = sum(self.cost(name, slice_id) for slice_id in self.fills.get(name, ()))
        ceiling = said["ceiling"] or sizes.get(name, 0)
        return {"now": said["taken"], "then": said["taken"] + round(more), "ceiling": ceiling}

    def cost(self, taker: str, slice_id: int) -> float:
        """Bytes of a slice in the memory of who has most of it: its part of all peers and torrents there."""
        found = [(copies[slice_id].peers, name) for name, copies in self.held.items() if slice_id in copies]
        most, giver = max([each for each in found if each[1] != taker], default=(0, ""))
        if not most:
            return 0.0
        said = self.shards[giver]
        everything = sum(said.get(figure, 0) for figure in held.FIGURES)
        taken = said.get("memory", {"taken": 0})["taken"]
        return float(taken * (most + self.held[giver][slice_id].torrents) / max(1, everything))

    # All of it

    def document(self, waiting: list[str]) -> Document:
        """The plan, for programs and for the tables."""
        shares, flows, lost = self.shares(), self.flows(), self.lost()
        problems = self.problems(shares, lost)
        return {
            "ok": not problems,
            "problems": problems,
            "notes": self.notes(waiting),
            "before": describe(self.old, self.ring_before),
            "after": describe(self.new, self.ring),
            "slices": self.new.slices,
            "shards": shares,
            "flows": flows,
            "total": {name: sum(flow[name] for flow in flows) for name in ("slices", "torrents", "peers", "bytes")},
            "mutual": self.mutual(),
            "drops": self.drops(),
            "lost": lost,
            "silent": self.silent(),
        }

    def problems(self, shares: list[Document], lost: list[Document]) -> list[str]:
        """What an operator should not overlook, a line each."""
        lines = [warn_of_loss(each) for each in lost]
        for name in self.silent():
            why = self.shards[name].get("why", "it does not say what it holds")
            lines.append(f"{name}: silent, so the figures lack what it has: {why}")
        for name in self.not_asked():
            where = "only the file by which it runs says where (--config)" if self.old is None else "no file names it"
            lines.append(f"{name}: others link to it, and it was not asked: {where}; the figures lack what it has")
        if self.old is None and not self.silent() and (many := self.nowhere()):
            lines.append(f"{many:,} of {self.new.slices:,} slices are at none of these shards")
        for each in shares:
            memory = each["memory"]
            if each["after"] and memory["then"] > memory["ceiling"]:
                lines.append(f"{each['name']}: may not have enough memory for what it is to hold")
        return lines

    def notes(self, waiting: list[str]) -> list[str]:
        """What else is to be said, a line each."""
        away = [name for name in self.added() if name not in self.held]
        lines = [f"{name} does not answer yet: it fills its slices once it runs" for name in away]
        for name, shard in self.shards.items():
            version = shard.get("config_version")
            if self.old is not None and version not in (None, self.old.version, self.new.version):
                lines.append(f"{name} runs with version {version}, which is not that of the file before")
        if any(status.to_fill(shard)[0] for shard in self.shards.values()):
            lines.append("slices are being filled at present, so the figures change")
        if waiting:
            lines.append(f"takes effect at the next start of `shoal up` only: {', '.join(waiting)}")
        return lines


def share(ring: Ring | None, config: Config | None, name: str) -> Document | None:
    """How many slices a shard owns, and how many it holds with replicas; None if it is not there."""
    if ring is None or config is None or name not in ring.names:
        return None
    at = ring.names.index(name)
    return {"weight": config.shards[at].weight, "owns": len(ring.slices_of(at)), "keeps": len(ring.held_by(at))}


def describe(config: Config | None, ring: Ring | None) -> Document | None:
    """Which configuration it is."""
    if config is None or ring is None:
        return None
    return {"version": config.version, "replicas": config.replicas, "members": ring.members}


def count(copies: Iterable[Copy]) -> dict[str, int]:
    """Slices, torrents and peers."""
    each = list(copies)
    return {
        "slices": len(each),
        "torrents": sum(copy.torrents for copy in each),
        "peers": sum(copy.peers for copy in each),
    }


def warn_of_loss(lost: Document) -> str:
    """What is at stake when a shard is taken out."""
    name, slices = lost["shard"], lost["slices"]
    of = "a slice that nobody else has" if slices == 1 else f"{slices:,} slices that nobody else has"
    if not lost["known"]:
        return f"{name}: is taken out while it is silent: {of} begin empty, until clients announce again"
    what = f"{of}: {lost['torrents']:,} torrents, {lost['peers']:,} peers"
    return f"{name}: is taken out and has {what}; lost if it ends before others have them: better drain it first"
