"""`shoal drain`: waits until a shard whose weight is 0 has handed over all that it holds."""

from __future__ import annotations

import time
from collections import Counter
from typing import TYPE_CHECKING, Any, NamedTuple

from rich.text import Text

from cluster import asking, held, status
from cluster.held import NOTHING, Copy
from cluster.live import Display
from cluster.moves import make_progress
from cluster.shown import counted
from common import frames
from common.config_errors import ConfigError
from common.ring import ring_of

if TYPE_CHECKING:
    from collections.abc import Iterable

    from rich.console import RenderableType

    from cluster.followed import Followed
    from cluster.held import Copies
    from common.config import Config
    from common.ring import Ring

Document = dict[str, Any]
MOST_REASONS = 6
EVERY = 1.0  # seconds between two looks


class Left(NamedTuple):
    """What a shard still has, and what it waits for; None if it does not say."""

    copies: Copies | None
    reasons: list[str]

    @property
    def is_done(self) -> bool:
        """Whether it may be removed."""
        return self.copies is not None and not self.copies and not self.reasons


def drain(followed: Followed, name: str, node: str | None, timeout: float | None) -> str:
    """Show how a shard is drained until it is, or the time is over: then what is left, else nothing.

    Raises ConfigError, also if there is no such shard, or its weight is not 0; KeyFileError.
    """
    check(followed.config, name)
    deadline = None if timeout is None else time.monotonic() + timeout
    with Display() as display:
        picture = Picture(name, display)
        while True:
            config = followed.look()
            check(config, name)
            left = look(config, status.ask(config, node, asking.TIMEOUT), name)
            if followed.fault:
                left = Left(left.copies, [followed.fault, *left.reasons])
            picture.show(left)
            if left.is_done:
                break
            if deadline is not None and time.monotonic() + EVERY > deadline:
                return picture.line(left)
            display.wait(EVERY)
    display.console.print(Text(f"{name} holds nothing: it may be removed from {followed.file}"), soft_wrap=True)
    return ""


def check(config: Config, name: str) -> None:
    """Whether a shard is there and has weight 0. Raises ConfigError."""
    if config.is_embedded:
        raise ConfigError("shards", "a cluster, whose shards have others to hand over to", "the embedded tracker")
    for at, shard in enumerate(config.shards):
        if shard.name == name:
            if shard.weight:
                expected = f"0, for {name} to hand over what it has: set it and raise `version`"
                raise ConfigError(f"shards[{at}].weight", expected, f"{shard.weight:g}")
            return
    raise ConfigError("shards", f"one of {', '.join(str(shard.name) for shard in config.shards)}", repr(name))


def look(config: Config, shards: list[Document], name: str) -> Left:
    """What a shard still has, by what all shards say."""
    own = next(shard for shard in shards if shard["name"] == name)
    mine = held.copies_of(own, config.slices)
    if mine is None:
        return Left(None, [f"{name} is silent: {own.get('why', 'it does not say what it holds')}"])
    file = status.file_of(config)
    if differs := difference(own, file):
        return Left(mine, [differs])
    others = {shard["name"]: shard for shard in shards}
    return Left(mine, reasons(mine, others, file, ring_of(config)))


def reasons(mine: Copies, shards: dict[str, Document], file: Document, ring: Ring) -> list[str]:
    """What slices wait for, with the number of slices of each reason."""
    copies = {name: held.copies_of(shard, ring.slices) or {} for name, shard in shards.items()}
    found: Counter[str] = Counter()
    for slice_id, copy in mine.items():
        members = [ring.names[at] for at in ring.members_of(slice_id)]
        found.update(hindrances(slice_id, copy, [(shards[member], copies[member]) for member in members], file))
    return [f"{counted(many, 'slice')}: {reason}" for reason, many in found.most_common()]


def hindrances(slice_id: int, copy: Copy, members: Iterable[tuple[Document, Copies]], file: Document) -> list[str]:
    """What a slice waits for."""
    found = []
    for shard, copies in members:
        if shard["state"] == "silent":
            found.append(f"{shard['name']}, which is to hold it, is silent")
        elif differs := difference(shard, file):
            found.append(differs)
        elif copies.get(slice_id, NOTHING).state != frames.STATE_FULL:
            found.append(f"{shard['name']} has not all of it yet")
    if found:
        return found
    if copy.state == frames.STATE_PART:
        return ["it is only a part here, which is filled before it leaves"]
    return ["others have all of it; it is dropped a minute after its last change"]


def difference(shard: Document, file: Document) -> str:
    """What a shard has that is not as the file says; empty if nothing."""
    name, version = shard["name"], shard.get("config_version")
    if refused := shard.get("config_refused"):
        return f"{name} does not take up the file: {refused}"
    if version != file["version"]:
        return f"{name} has version {version} of the configuration; the file here is version {file['version']}"
    if shard.get("table") != file["table"]:
        return f"{name} has other shards or weights in its configuration of the same version"
    return ""


class Picture:
    """How far it is: a bar on a terminal, elsewhere a line whenever something has changed."""

    def __init__(self, name: str, display: Display) -> None:
        self.name = name
        self.display = display
        self.most = 0
        self.told: tuple[object, ...] = ()

    def show(self, left: Left) -> None:
        """Show it."""
        known = None if left.copies is None else len(left.copies)
        changed = (known, left.reasons) != self.told
        self.told = (known, left.reasons)
        if self.display.is_live:
            self.display.show([*self._bar(left), *[Text(f"  {line}") for line in some(left.reasons)]])
        elif changed:
            self.display.say([Text(self.line(left))])

    def _bar(self, left: Left) -> list[RenderableType]:
        if left.copies is None:
            return []
        many = len(left.copies)
        self.most = max(self.most, many)
        progress = make_progress()
        progress.add_task(
            f"{self.name} hands over", total=max(1, self.most), completed=self.most - many, more=figures(left.copies)
        )
        return [progress.get_renderable()]

    def line(self, left: Left) -> str:
        """What is left, and what it waits for."""
        told = [] if left.copies is None else [f"{self.name}: {figures(left.copies)} left"]
        return "; ".join([*told, *some(left.reasons)])


def figures(copies: Copies) -> str:
    """What is left, in words."""
    total = held.total(copies.values())
    peers = total["leechers"] + total["seeders"]
    counts = (counted(len(copies), "slice"), counted(total["torrents"], "torrent"), counted(peers, "peer"))
    return ", ".join(counts)


def some(reasons: list[str]) -> list[str]:
    """The first reasons, and how many there are beside them."""
    more = len(reasons) - MOST_REASONS
    return reasons if more <= 0 else [*reasons[:MOST_REASONS], f"and {more} more"]
